package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/casteloig/logthra/ingester"
)

// auditListed is how many records of a discrepancy are shown to people.
const auditListed = 20

type auditCommand struct {
	engines `embed:""`
	period  `embed:""`
	Tenant  string `placeholder:"NAME" help:"Only this tenant's records and rows."`
	JSON    bool   `name:"json" help:"As JSON."`
}

// Run audits, and fails where the books do not balance.
func (c *auditCommand) Run(env *environment) error {
	w, s, done, err := c.open(env)
	if err != nil {
		return err
	}
	defer done()
	report, err := ingester.Audit(env.ctx, w, s, ingester.AuditOptions{Tenant: c.Tenant, From: c.From.Time, To: c.To.Time})
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(os.Stdout, report)
	} else {
		err = printAudit(os.Stdout, report)
	}
	if err == nil && !report.Balanced {
		err = errReported
	}
	return err
}

// printJSON writes a value for programs.
func printJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// printAudit writes the report for people.
func printAudit(to io.Writer, report ingester.AuditReport) error {
	out := tabwriter.NewWriter(to, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(out, "SHARD\tRECORDS\tENTRIES\tROWS\tMISSING\tSURPLUS\tDEAD-LETTERED\tEXPIRED\tUNFLUSHED\t")
	line := func(name string, b ingester.Books) {
		printCounts(out, name, b.Records, b.Entries, b.Rows, b.Missing, b.Surplus, b.DeadLettered, b.Expired, b.Unflushed)
	}
	for _, s := range report.Shards {
		line(fmt.Sprint(s.Shard), s.Books)
	}
	line("all", report.Total)
	if err := out.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(to)
	if err := printDiscrepancies(to, report); err != nil {
		return err
	}
	if !report.From.IsZero() {
		for _, s := range report.Shards {
			if !s.Complete {
				_, _ = fmt.Fprintf(to, "shard %d: what the WAL took before %s was trimmed and can't be audited.\n", s.Shard, auditSince(s.Since))
			}
		}
	}
	_, err := fmt.Fprintln(to, auditVerdict(report))
	return err
}

// printCounts writes a line of a table: what it is about, and numbers.
func printCounts(to io.Writer, name string, counts ...uint64) {
	_, _ = fmt.Fprint(to, name, "\t")
	for _, n := range counts {
		_, _ = fmt.Fprint(to, humanize.Comma(int64(n)), "\t")
	}
	_, _ = fmt.Fprintln(to)
}

// auditSince is when the oldest record was taken that the WAL holds.
func auditSince(t time.Time) string {
	if t.IsZero() {
		return "now"
	}
	return stamp(t)
}

// stamp is a time as the tools show it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// printDiscrepancies lists the first records of which something is missing or surplus.
func printDiscrepancies(to io.Writer, report ingester.AuditReport) error {
	if report.Balanced {
		return nil
	}
	out := tabwriter.NewWriter(to, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(out, "SHARD\tSEQUENCE\tTAKEN\tENTRIES\tROWS\tMISSING\tSURPLUS\t   TENANT")
	listed, all := 0, uint64(0)
	for _, s := range report.Shards {
		all += s.Discrepant
		for _, d := range s.Discrepancies {
			if listed == auditListed {
				break
			}
			listed++
			taken, tenant := "-", "- (the WAL has no such record)"
			if !d.Time.IsZero() {
				taken, tenant = stamp(d.Time), d.Tenant
			}
			_, _ = fmt.Fprintf(out, "%d\t%d\t%s\t%d\t%d\t%d\t%d\t   %s\n", s.Shard, d.Sequence, taken, d.Entries, d.Rows, d.Missing, d.Surplus, tenant)
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if more := all - uint64(listed); more > 0 {
		_, _ = fmt.Fprintf(to, "and %s more; --json lists more of them\n", humanize.Comma(int64(more)))
	}
	_, err := fmt.Fprintln(to)
	return err
}

// auditVerdict is what the audit found, and, in a line of its own, what to do.
func auditVerdict(report ingester.AuditReport) string {
	total := report.Total
	switch {
	case report.Balanced && total.Records == 0:
		return "balanced, but there was nothing to audit: the WAL holds no such record."
	case report.Balanced:
		return "balanced: every entry is in the table once, or accounted for. The WAL's oldest record is of " + stamp(oldest(report)) + "."
	}
	var finds, todo []string
	if total.Missing > 0 {
		finds = append(finds, found(total.Missing, "entry", "entries")+" missing")
		todo = append(todo, "`"+replayAdvice(report)+"` inserts what is missing, and nothing twice.")
	}
	if total.Surplus > 0 {
		finds = append(finds, found(total.Surplus, "row", "rows")+" surplus")
		todo = append(todo, "Rows that are surplus stay until somebody removes them; docs/audit.md says how.")
	}
	return "NOT balanced: " + strings.Join(finds, ", ") + ".\n" + strings.Join(todo, " ")
}

// found is how many there are, as the beginning of a sentence about them.
func found(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one + " is"
	}
	return humanize.Comma(int64(n)) + " " + many + " are"
}

// oldest is when the oldest record was taken that the WAL holds; zero where it holds none.
func oldest(report ingester.AuditReport) (since time.Time) {
	for _, s := range report.Shards {
		if since.IsZero() || !s.Since.IsZero() && s.Since.Before(since) {
			since = s.Since
		}
	}
	return since
}

// replayAdvice is how to replay what was audited.
func replayAdvice(report ingester.AuditReport) string {
	command := "logthra replay"
	if report.Tenant != "" {
		command += " --tenant " + report.Tenant
	}
	if !report.From.IsZero() {
		command += " --from " + stamp(report.From)
	}
	if !report.To.IsZero() {
		command += " --to " + report.To.Format(time.RFC3339Nano)
	}
	return command
}
