package e2e

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
)

// held is what the table holds of one push.
type held struct {
	rows, lines, sum   uint64 // lines: different line numbers
	shard, first, last uint64 // where it stands in the WAL
}

// violation is a push of which the table holds what it must not, or not what it must.
type violation struct {
	record
	held
	kind string
}

func (v violation) String() string {
	return fmt.Sprintf("push %d (%s, tenant %s, %d lines, %s after %d attempts, %s to %s): %s: %d rows, %d different lines; shard %d, sequences %d to %d",
		v.number, v.protocol, v.tenant, v.record.lines, v.outcome, v.attempts, clock(v.began), clock(v.ended),
		v.kind, v.rows, v.held.lines, v.shard, v.first, v.last)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// settle waits until all that the WAL holds has landed.
func (c *cluster) settle(ctx context.Context, limit time.Duration) error {
	return until(ctx, limit, "landing the backlog", func() error {
		status, err := c.status(ctx)
		if err != nil {
			return err
		}
		for _, shard := range status.GetShards() {
			if n := shard.GetBacklogRecords(); n > 0 || shard.GetOwner() == "" {
				return fmt.Errorf("shard %d, owned by %q, has %d records that have not landed", shard.GetShard(), shard.GetOwner(), n)
			}
		}
		return nil
	})
}

// status asks any of the ingesters.
func (c *cluster) status(ctx context.Context) (*logthrav1.StatusResponse, error) {
	var err error
	for n := range ingesters {
		var response *logthrav1.StatusResponse
		if response, err = statusOf(ctx, c.processes[ingesterName(n)].address("ingester")); err == nil {
			return response, nil
		}
	}
	return nil, err
}

func statusOf(ctx context.Context, address string) (*logthrav1.StatusResponse, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return logthrav1.NewIngesterServiceClient(conn).Status(ctx, &logthrav1.StatusRequest{})
}

// heldByPush asks the table what it holds of every push. A row that is of none is under 0.
func (c *cluster) heldByPush(ctx context.Context) (map[uint32]held, error) {
	const sql = `SELECT if(match(msg, '^p[0-9]{8} l[0-9]{5} '), toUInt32(substring(msg, 2, 8)), 0) AS push,
		count(), groupBitmap(toUInt32OrZero(substring(msg, 12, 5))), sum(` + rowHash + `), min(wal_shard), min(wal_seq), max(wal_seq)
		FROM logs.log GROUP BY push SETTINGS max_threads = 2 FORMAT TSV`
	body, err := c.query(ctx, sql)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	all := map[uint32]held{}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		var number uint32
		var h held
		if _, err := fmt.Sscan(lines.Text(), &number, &h.rows, &h.lines, &h.sum, &h.shard, &h.first, &h.last); err != nil {
			return nil, fmt.Errorf("ClickHouse answers %q: %w", lines.Text(), err)
		}
		all[number] = h
	}
	return all, lines.Err()
}

// compare holds what the table has against the outcomes of the pushes.
func compare(records []record, all map[uint32]held) (violations []violation) {
	known := map[uint32]bool{}
	for _, r := range records {
		known[r.number] = true
		if h := all[r.number]; r.judge(h) != "" {
			violations = append(violations, violation{r, h, r.judge(h)})
		}
	}
	for number, h := range all {
		if !known[number] {
			violations = append(violations, violation{record{number: number}, h, "rows of a push that there was not"})
		}
	}
	slices.SortFunc(violations, func(a, b violation) int { return cmp.Compare(a.number, b.number) })
	return violations
}

// judge says what is wrong with what the table holds of a push; empty: nothing.
func (r *record) judge(h held) string {
	switch {
	case h.rows == 0 && r.outcome != accepted:
		return ""
	case r.outcome == refused:
		return "refused, and there"
	case h.rows > h.lines:
		return fmt.Sprintf("%d rows are doubled", h.rows-h.lines)
	case h.lines < uint64(r.lines):
		return fmt.Sprintf("%d lines are lost", uint64(r.lines)-h.lines)
	case h.sum != r.sum:
		return "not what was sent"
	}
	return ""
}

// audit runs logthra audit, again where it could not be done. Its error is what one that was done finds.
func (c *cluster) audit(ctx context.Context) error {
	var found error
	err := until(ctx, askAgainFor, "logthra audit", func() error {
		cmd := exec.CommandContext(ctx, c.binary, "audit", "--json",
			"--nats-url", c.natsPastLinks(),
			"--clickhouse-dsn", "clickhouse://"+c.processes[clickhouseName].address(clickhouseName)+"/logs")
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if err != nil && stdout.Len() == 0 {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		}
		if err != nil {
			found = fmt.Errorf("logthra audit: %w\n%s", err, strings.TrimSpace(stdout.String()+stderr.String()))
		}
		return nil
	})
	return errors.Join(err, found)
}
