package command

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/casteloig/logthra/ingester"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

type deadletterCommand struct {
	List  deadletterListCommand  `cmd:"" help:"List the records that were put aside, oldest first."`
	Show  deadletterShowCommand  `cmd:"" help:"Show one: where it came from, why it was put aside, and what is in it."`
	Retry deadletterRetryCommand `cmd:"" help:"Insert some, or all, in the place that they had; those that land are gone from the list."`
	Drop  deadletterDropCommand  `cmd:"" help:"Give some, or all, up for good."`
}

// letterID is where the record of a dead letter stood in the WAL, written as <shard>.<sequence>.
type letterID struct {
	shard    int
	sequence uint64
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *letterID) UnmarshalText(text []byte) error {
	shard, sequence, _ := strings.Cut(string(text), ".")
	n, shardErr := strconv.ParseUint(shard, 10, 16)
	seq, err := strconv.ParseUint(sequence, 10, 64)
	if err := cmp.Or(shardErr, err); err != nil {
		return fmt.Errorf("%q is no dead letter's id, <shard>.<sequence> as `logthra deadletter list` shows it", text)
	}
	*id = letterID{int(n), seq}
	return nil
}

func (id letterID) String() string { return fmt.Sprintf("%d.%d", id.shard, id.sequence) }

func idOf(d wal.DeadLetter) letterID { return letterID{d.Shard, d.Sequence} }

// find looks a dead letter up.
func (id letterID) find(ctx context.Context, w *wal.WAL) (wal.DeadLetter, error) {
	d, err := w.FindDeadLetter(ctx, id.shard, id.sequence)
	if errors.Is(err, wal.ErrNotFound) {
		return d, fmt.Errorf("there is no dead letter %s (`logthra deadletter list` shows those that there are): %w", id, wal.ErrNotFound)
	}
	return d, err
}

type deadletterListCommand struct {
	engines `embed:""`
	Tenant  string `placeholder:"NAME" help:"Only this tenant's."`
	Dropped bool   `help:"Also those that were dropped; they have no content any more."`
	JSON    bool   `name:"json" help:"As JSON."`
}

// letterJSON is a dead letter for programs.
type letterJSON struct {
	ID       string    `json:"id"`
	Shard    int       `json:"shard"`
	Sequence uint64    `json:"sequence"`
	Tenant   string    `json:"tenant"`
	Time     time.Time `json:"time"`      // when the WAL took the record
	PutAside time.Time `json:"put_aside"` // when it became a dead letter
	Entries  *int      `json:"entries"`   // null: it does not say
	Bytes    int       `json:"bytes"`
	Reason   string    `json:"reason"`
	Dropped  bool      `json:"dropped"`
}

// Run lists.
func (c *deadletterListCommand) Run(env *environment) error {
	w, done, err := c.openWAL(env)
	if err != nil {
		return err
	}
	defer done()
	listed, dropped := []letterJSON{}, 0
	for d, err := range w.DeadLetters(env.ctx, c.Tenant) {
		if err != nil {
			return err
		}
		if d.Dropped && !c.Dropped {
			dropped++
			continue
		}
		letter := letterJSON{
			ID: idOf(d).String(), Shard: d.Shard, Sequence: d.Sequence, Tenant: d.Tenant, Time: d.Time.UTC(), PutAside: d.At.UTC(),
			Bytes: d.Size(), Reason: d.Reason, Dropped: d.Dropped,
		}
		if d.Entries >= 0 {
			letter.Entries = &d.Entries
		}
		listed = append(listed, letter)
	}
	if c.JSON {
		return printJSON(os.Stdout, listed)
	}
	return printLetters(os.Stdout, listed, dropped)
}

const noLetters = "There are no dead letters."

// printLetters writes a list for people.
func printLetters(to io.Writer, letters []letterJSON, dropped int) error {
	if len(letters) > 0 {
		out := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
		_, _ = fmt.Fprintln(out, "ID\tTENANT\tTAKEN\tENTRIES\tSIZE\tREASON")
		for _, l := range letters {
			entries, reason := "?", oneLine(l.Reason)
			if l.Entries != nil {
				entries = humanize.Comma(int64(*l.Entries))
			}
			if l.Dropped {
				reason = "(dropped) " + reason
			}
			_, _ = fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Tenant, stamp(l.Time), entries, humanize.IBytes(uint64(l.Bytes)), reason)
		}
		return out.Flush()
	}
	text := noLetters
	if dropped > 0 {
		text = fmt.Sprintf("There are no dead letters, but for %d that were dropped; --dropped lists them.", dropped)
	}
	_, err := fmt.Fprintln(to, text)
	return err
}

// oneLine shortens a reason to what a line of a list can bear.
func oneLine(reason string) string {
	const most = 120
	text := []rune(strings.Join(strings.Fields(reason), " "))
	if len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return string(text)
}

type deadletterShowCommand struct {
	engines `embed:""`
	ID      letterID `arg:"" name:"id" help:"Its id, as list shows it."`
	Raw     bool     `help:"Write the stored bytes of the record to standard output, and nothing else."`
}

// Run shows one.
func (c *deadletterShowCommand) Run(env *environment) error {
	w, done, err := c.openWAL(env)
	if err != nil {
		return err
	}
	defer done()
	d, err := c.ID.find(env.ctx, w)
	if err != nil {
		return err
	}
	if d.Dropped && c.Raw {
		return droppedError(d)
	}
	if c.Raw {
		_, err := os.Stdout.Write(d.Body())
		return err
	}
	return printLetter(os.Stdout, d)
}

// printLetter writes a dead letter for people: its entries, or its bytes where it can't be decoded.
func printLetter(to io.Writer, d wal.DeadLetter) error {
	out := tabwriter.NewWriter(to, 0, 0, 3, ' ', 0)
	for _, row := range [][2]string{
		{"record", fmt.Sprintf("%d of shard %d of the WAL", d.Sequence, d.Shard)}, {"tenant", d.Tenant},
		{"taken", stamp(d.Time)}, {"put aside", stamp(d.At)}, {"size", humanize.IBytes(uint64(d.Size()))}, {"reason", printable(d.Reason)},
	} {
		_, _ = fmt.Fprintf(out, "%s\t%s\n", row[0], row[1])
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(to)
	if d.Dropped {
		_, err := fmt.Fprintln(to, "It was dropped: its content is gone.")
		return err
	}
	var b logs.Batch
	if _, err := d.Decode(&b, nil); err != nil {
		_, _ = fmt.Fprintf(to, "It can't be decoded (%v); its bytes are:\n\n", err)
		dumper := hex.Dumper(to)
		if _, err := dumper.Write(d.Body()); err != nil {
			return err
		}
		return dumper.Close()
	}
	entry, at := 0, 0
	for _, stream := range b.Streams {
		for range stream.Entries {
			line := b.Lines[at : at+int(b.Lengths[entry])]
			if _, err := fmt.Fprintln(to, time.Unix(0, b.Timestamps[entry]).UTC().Format("2006-01-02T15:04:05.000000000Z"), stream.Labels, printable(string(line))); err != nil {
				return err
			}
			at += len(line)
			entry++
		}
	}
	return nil
}

// printable is text that does nothing to a terminal: as it is, or quoted as in Go.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || r != '\t' && !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// droppedError is the error where the content of a letter is asked for that was dropped.
func droppedError(d wal.DeadLetter) error {
	return fmt.Errorf("dead letter %s was dropped: its content is gone", idOf(d))
}

// letterChoice is which dead letters a tool is to work on.
type letterChoice struct {
	IDs    []letterID `arg:"" optional:"" name:"id" help:"Ids, as list shows them."`
	All    bool       `help:"All that there are."`
	Tenant string     `placeholder:"NAME" help:"With --all: only this tenant's."`
}

// Validate is called by the command line's parser.
func (c *letterChoice) Validate() error {
	switch {
	case len(c.IDs) == 0 && !c.All:
		return errors.New("name the dead letters by their ids, or all of them with --all")
	case len(c.IDs) > 0 && (c.All || c.Tenant != ""):
		return errors.New("name either the dead letters by their ids or --all, with or without --tenant")
	}
	return nil
}

// letters yields those that were chosen; of all, the ones that are not dropped.
func (c *letterChoice) letters(ctx context.Context, w *wal.WAL) iter.Seq2[wal.DeadLetter, error] {
	return func(yield func(wal.DeadLetter, error) bool) {
		for _, id := range c.IDs {
			if !yield(id.find(ctx, w)) {
				return
			}
		}
		if !c.All {
			return
		}
		for d, err := range w.DeadLetters(ctx, c.Tenant) {
			if !d.Dropped && !yield(d, err) {
				return
			}
		}
	}
}

type deadletterRetryCommand struct {
	engines      `embed:""`
	letterChoice `embed:""`
}

// Run retries, and fails where a letter stays.
func (c *deadletterRetryCommand) Run(env *environment) error {
	w, s, done, err := c.open(env)
	if err != nil {
		return err
	}
	defer done()
	return c.each(env.ctx, w, func(d wal.DeadLetter) (said string, ok bool, err error) {
		if d.Dropped {
			return "stays: " + droppedError(d).Error(), false, nil
		}
		inserted, err := ingester.RetryDeadLetter(env.ctx, w, s, d)
		if err == nil {
			return fmt.Sprintf("landed, with %s rows", humanize.Comma(int64(inserted))), true, nil
		}
		if _, undecodable := errors.AsType[*wal.UndecodableError](err); undecodable || store.Classify(err) == store.BadBatch {
			return "stays: " + printable(err.Error()), false, nil
		}
		return "", false, err // it would be the same with the others
	})
}

type deadletterDropCommand struct {
	engines      `embed:""`
	letterChoice `embed:""`
	Yes          bool `help:"Do it; without, it is only said what would be dropped."`
}

// Run drops.
func (c *deadletterDropCommand) Run(env *environment) error {
	w, done, err := c.openWAL(env)
	if err != nil {
		return err
	}
	defer done()
	if err := c.each(env.ctx, w, func(d wal.DeadLetter) (said string, ok bool, err error) {
		switch {
		case d.Dropped:
			return "was dropped before", true, nil
		case c.Yes:
			said, err = "dropped", w.DropDeadLetter(env.ctx, d)
		default:
			said = "would be dropped"
		}
		return fmt.Sprintf("%s: tenant %s, taken %s, %s: %s", said, d.Tenant, stamp(d.Time), humanize.IBytes(uint64(d.Size())), oneLine(d.Reason)), true, err
	}); err != nil {
		return err
	}
	if !c.Yes {
		return errors.New("nothing was dropped; what is dropped can't be had back: to do it, repeat this with --yes")
	}
	return nil
}

// each does something with each dead letter that was chosen, and prints what came of it. It fails where one is not
// there or not ok, after all others; and at once with an error.
func (c *letterChoice) each(ctx context.Context, w *wal.WAL, do func(wal.DeadLetter) (said string, ok bool, err error)) error {
	count, failed := 0, 0
	for d, err := range c.letters(ctx, w) {
		if errors.Is(err, wal.ErrNotFound) {
			fmt.Println(err)
			failed++
			continue
		}
		if err != nil {
			return err
		}
		said, ok, err := do(d)
		if err != nil {
			return fmt.Errorf("dead letter %s: %w", idOf(d), err)
		}
		fmt.Printf("%s: %s\n", idOf(d), said)
		if count++; !ok {
			failed++
		}
	}
	if failed > 0 {
		return errReported
	}
	if count == 0 {
		fmt.Println(noLetters)
	}
	return nil
}
