package ingester

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
	"github.com/casteloig/logthra/shared/wal"
)

const (
	// auditsAtOnce is how many shards are audited side by side.
	auditsAtOnce = 2
	// A window of an audit ends with so many records or entries. The first bounds the memory of the audit, the
	// second that of ClickHouse, which takes up to 40 bytes an entry to count without counting twice.
	windowRecords = 100_000
	windowEntries = 4_000_000
	// mostDiscrepancies is how many records an audit lists of a shard; all of them are counted.
	mostDiscrepancies = 1000
	// retentionSlack is how far ahead of its time retention may be with a row, by the clocks of this machine and
	// of ClickHouse.
	retentionSlack = time.Minute
	// runGap is how many records are read in passing rather than to begin reading anew.
	runGap = 16
)

// AuditOptions say what is audited. The zero value is all that the WAL holds.
type AuditOptions struct {
	Tenant   string    // empty: all
	From, To time.Time // when the WAL took the records, To excluded; zero: no bound
}

// Books are the numbers of an audit. But for Records they count entries and rows, and always add up:
//
//	Entries = Rows - Surplus + Missing + DeadLettered + Expired + Unflushed
//
// An entry that the table lacks is in one of the last four. A record that does not say how many entries it has,
// and can't be decoded, counts as one of one entry.
type Books struct {
	Records      uint64 `json:"records"`
	Entries      uint64 `json:"entries"`
	Rows         uint64 `json:"rows"`
	Missing      uint64 `json:"missing"`       // of records that have landed, and no reason for it
	Surplus      uint64 `json:"surplus"`       // rows beyond one an entry, and those of no entry
	DeadLettered uint64 `json:"dead_lettered"` // of records that were put aside, or dropped by an operator after that
	Expired      uint64 `json:"expired"`       // removed by retention
	Unflushed    uint64 `json:"unflushed"`     // of records that have not landed yet
}

// Balanced reports whether the table holds what the WAL confirmed: nothing is missing, and nothing is there twice.
func (b *Books) Balanced() bool { return b.Missing == 0 && b.Surplus == 0 }

func (b *Books) add(o Books) {
	b.Records += o.Records
	b.Entries += o.Entries
	b.Rows += o.Rows
	b.Missing += o.Missing
	b.Surplus += o.Surplus
	b.DeadLettered += o.DeadLettered
	b.Expired += o.Expired
	b.Unflushed += o.Unflushed
}

// AuditReport is the outcome of an audit.
type AuditReport struct {
	Time     time.Time    `json:"time"` // of which the positions are
	Tenant   string       `json:"tenant,omitempty"`
	From     time.Time    `json:"from,omitzero"`
	To       time.Time    `json:"to,omitzero"`
	Balanced bool         `json:"balanced"`
	Total    Books        `json:"total"`
	Shards   []ShardAudit `json:"shards"`
}

// ShardAudit is the outcome for one shard.
type ShardAudit struct {
	Shard int `json:"shard"`
	Books
	Complete      bool          `json:"complete"`           // the WAL still holds all that it took in the time that is audited
	Since         time.Time     `json:"since,omitzero"`     // when it took the oldest record that it holds
	Discrepant    uint64        `json:"discrepant_records"` // sequences of which something is missing or surplus
	Discrepancies []Discrepancy `json:"discrepancies"`      // the first of them
}

// Discrepancy is a sequence of which something is missing or surplus.
type Discrepancy struct {
	Sequence uint64    `json:"sequence"`
	Tenant   string    `json:"tenant,omitempty"` // empty, as Time is zero, where the WAL holds no such record
	Time     time.Time `json:"time,omitzero"`    // when the WAL took it
	Entries  uint64    `json:"entries"`
	Rows     uint64    `json:"rows"`
	Missing  uint64    `json:"missing"`
	Surplus  uint64    `json:"surplus"`
}

// Audit compares the entries of the records that the WAL holds with the rows of the table, beside whatever else is
// going on. What makes its answer right then is the order in which it looks:
//
//  1. How far the shards have landed. All rows of the records up to there are in the table, or explained, by now.
//  2. Which records the WAL holds. Later ones are not audited.
//  3. Which were put aside. A letter is written before its record counts as landed, so none is overlooked; and one
//     that is retried is removed only once its rows are there, so they are seen in the table after that.
//  4. The table. Rows of records that have not landed may be there, or be on their way.
//
// The WAL is trimmed meanwhile, from its front. So a sequence that has rows and no record is surplus only if the
// WAL, asked again, still begins before it, or has not given it out by now. And where a record is trimmed before it
// is known whether retention explains what it lacks, it is left out of the books.
//
// It returns an error where it could not look.
func Audit(ctx context.Context, w *wal.WAL, s *store.Store, o AuditOptions) (AuditReport, error) {
	report := AuditReport{
		Time: time.Now().UTC(), Tenant: o.Tenant, From: o.From, To: o.To, Shards: make([]ShardAudit, w.Shards()),
	}
	audits := make([]shardAudit, w.Shards())
	letters := map[letter]bool{}
	retention, err := s.Retention(ctx)
	if err != nil {
		return report, fmt.Errorf("audit: %w", err)
	}
	for n := range audits {
		position, err := w.Position(ctx, n)
		if err != nil {
			return report, fmt.Errorf("audit: %w", err)
		}
		span, err := w.Span(ctx, n, o.From, o.To)
		if err != nil {
			return report, fmt.Errorf("audit: %w", err)
		}
		report.Shards[n] = ShardAudit{Shard: n, Complete: span.Complete, Since: span.Since, Discrepancies: []Discrepancy{}}
		audits[n] = shardAudit{
			ShardAudit: &report.Shards[n], wal: w, store: s, options: o, retention: retention,
			letters: letters, landed: position.Landed, span: span, windowRecords: windowRecords, windowEntries: windowEntries,
		}
	}
	for d, err := range w.DeadLetters(ctx, o.Tenant) {
		if err != nil {
			return report, fmt.Errorf("audit: %w", err)
		}
		letters[letter{d.Shard, d.Sequence}] = true
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(auditsAtOnce)
	for n := range audits {
		group.Go(func() error {
			if err := audits[n].run(ctx); err != nil {
				return fmt.Errorf("audit of shard %d: %w", n, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return report, err
	}
	for n := range report.Shards {
		report.Total.add(report.Shards[n].Books)
	}
	report.Balanced = report.Total.Balanced()
	return report, nil
}

// letter is where a dead letter stood.
type letter struct {
	shard    int
	sequence uint64
}

// shardAudit is the audit of one shard.
type shardAudit struct {
	*ShardAudit // what it fills in

	wal       *wal.WAL
	store     *store.Store
	options   AuditOptions
	retention time.Duration   // 0: none
	letters   map[letter]bool // of all shards; only read
	landed    uint64
	span      wal.Span

	windowRecords, windowEntries int // a window ends with so many

	decoded logs.Batch // of the record that was read last
	scratch []byte     // what decoded points into
}

// account is a record, and what the table holds of it.
type account struct {
	wal.Header
	entries uint64
	rows    uint64
	present uint64 // entries of which there are rows
	last    uint32 // highest index that the table has
	expired uint64 // entries that are not there, and by the rule of retention need not be
	suspect bool   // it has to be read
	trimmed bool   // before it was
}

func (a *account) lacking() uint64 { return a.entries - a.present }

func (a *shardAudit) run(ctx context.Context) error {
	if a.span.First > a.span.Last {
		return nil
	}
	window := make([]account, 0, min(a.span.Last-a.span.First+1, uint64(a.windowRecords)))
	for first := a.span.First; ; {
		last := a.span.Last
		window = window[:0]
		entries := 0
		for header, err := range a.wal.Headers(ctx, a.Shard, first, a.span.Last, a.options.Tenant) {
			if err != nil {
				return err
			}
			window = append(window, account{Header: header, entries: uint64(max(header.Entries, 0))})
			if entries += max(header.Entries, 0); len(window) == a.windowRecords || entries >= a.windowEntries {
				last = header.Sequence
				break
			}
		}
		through := last
		if last == a.span.Last && a.options.To.IsZero() {
			through = math.MaxUint64 // a row of a sequence that is yet to come would keep the record out of the table
		}
		if err := a.compare(ctx, window, first, through); err != nil {
			return err
		}
		if last == a.span.Last {
			return nil
		}
		first = last + 1
	}
}

// compare brings the records of a window and the rows of the sequences first to last into the books.
func (a *shardAudit) compare(ctx context.Context, window []account, first, last uint64) error {
	var strays []store.Count // rows of no record that was seen
	next := 0
	for count, err := range a.store.Counts(ctx, a.Shard, first, last, a.options.Tenant) {
		if err != nil {
			return err
		}
		for next < len(window) && window[next].Sequence < count.Sequence {
			next++
		}
		if next == len(window) || window[next].Sequence != count.Sequence {
			strays = append(strays, count)
			continue
		}
		window[next].rows, window[next].present, window[next].last = count.Rows, count.Entries, count.LastIndex
	}
	for i := range window {
		account := &window[i]
		if account.Entries < 0 {
			account.suspect = true
			continue
		}
		if err := a.checkIndexes(ctx, account); err != nil {
			return err
		}
		account.suspect = a.mayHaveExpired(account)
	}
	if err := a.read(ctx, window); err != nil {
		return err
	}
	for i := range window {
		if !window[i].trimmed {
			a.settle(&window[i])
		}
	}
	var seen uint64
	if len(window) > 0 {
		seen = window[len(window)-1].Sequence
	}
	if err := a.settleStrays(ctx, strays, seen); err != nil {
		return err
	}
	slices.SortFunc(a.Discrepancies, func(x, y Discrepancy) int { return cmp.Compare(x.Sequence, y.Sequence) })
	return nil
}

// checkIndexes counts the rows of a record anew where some have an index that it has no entry for.
func (a *shardAudit) checkIndexes(ctx context.Context, account *account) error {
	if account.rows == 0 || uint64(account.last) < account.entries {
		return nil
	}
	sql := "SELECT count(), uniqExactIf(wal_index, wal_index < ?) FROM " + a.store.Database() + ".log WHERE wal_shard = ? AND wal_seq = ?"
	args := []any{account.entries, a.Shard, account.Sequence}
	if a.options.Tenant != "" {
		sql += " AND tenant_id = ?"
		args = append(args, a.options.Tenant)
	}
	if err := a.store.Conn().QueryRow(ctx, sql, args...).Scan(&account.rows, &account.present); err != nil {
		return fmt.Errorf("ClickHouse: counting the rows of record %d: %w", account.Sequence, err)
	}
	return nil
}

// mayHaveExpired tells whether nothing but retention is left to explain what the table lacks of a record.
func (a *shardAudit) mayHaveExpired(account *account) bool {
	return a.retention > 0 && account.lacking() > 0 && account.Sequence <= a.landed && !a.letters[letter{a.Shard, account.Sequence}]
}

// read reads the records of a window that are suspect, in runs.
func (a *shardAudit) read(ctx context.Context, window []account) error {
	for from := 0; from < len(window); from++ {
		if !window[from].suspect {
			continue
		}
		to := from
		for i := from + 1; i < len(window) && i-to <= runGap; i++ {
			if window[i].suspect {
				to = i
			}
		}
		if err := a.readRun(ctx, window[from:to+1]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// readRun reads the suspects of a run, for how many entries they have and which of those have expired.
func (a *shardAudit) readRun(ctx context.Context, run []account) error {
	for i := range run {
		run[i].trimmed = run[i].suspect // until it is seen
	}
	next := 0
	for record, err := range a.wal.Records(ctx, a.Shard, run[0].Sequence, run[len(run)-1].Sequence, a.options.Tenant) {
		if err != nil {
			return err
		}
		for next < len(run) && run[next].Sequence < record.Sequence {
			next++
		}
		if next == len(run) || run[next].Sequence != record.Sequence || !run[next].suspect {
			continue
		}
		account := &run[next]
		account.trimmed = false
		if err := a.examine(ctx, account, record); err != nil {
			return err
		}
	}
	return nil
}

// examine looks into a record. One that can't be decoded has no times that it could have expired by.
func (a *shardAudit) examine(ctx context.Context, account *account, record wal.Record) error {
	readable := a.decode(record)
	if account.Entries < 0 {
		account.entries = 1
		if readable {
			account.entries = uint64(a.decoded.Len())
		}
		if err := a.checkIndexes(ctx, account); err != nil {
			return err
		}
	}
	if !readable || !a.mayHaveExpired(account) {
		return nil
	}
	horizon := expiryHorizon(a.retention)
	var old uint64
	for _, timestamp := range a.decoded.Timestamps {
		if timestamp < horizon {
			old++
		}
	}
	if old == 0 || account.present == 0 || old >= account.entries {
		account.expired = min(old, account.lacking())
		return nil
	}
	// Some of the old ones may still be there, and some of the others not: the table tells.
	batch := store.Batch{Shard: uint16(a.Shard)}
	batch.Add(record.Sequence, record.Tenant, &a.decoded, &record)
	batch.SkipBefore(horizon)
	missing, err := a.store.Reconcile(ctx, &batch)
	if err != nil {
		return err
	}
	account.expired = account.lacking() - min(uint64(missing), account.lacking())
	return nil
}

// decode decodes a record, and reports whether that is possible.
func (a *shardAudit) decode(record wal.Record) (ok bool) {
	var err error
	a.scratch, err = record.Decode(&a.decoded, a.scratch)
	return err == nil
}

// expiryHorizon is the time, in unix nanoseconds, of whose earlier rows retention has removed some and may remove
// any at any moment.
func expiryHorizon(retention time.Duration) int64 {
	return time.Now().Add(retentionSlack - retention).UnixNano()
}

// settle brings a record into the books.
func (a *shardAudit) settle(account *account) {
	b := Books{
		Records: 1, Entries: account.entries, Rows: account.rows,
		Surplus: account.rows - account.present, Expired: account.expired,
	}
	rest := account.lacking() - account.expired
	switch {
	case a.letters[letter{a.Shard, account.Sequence}]:
		b.DeadLettered = rest
	case account.Sequence > a.landed:
		b.Unflushed = rest
	default:
		b.Missing = rest
	}
	a.add(b)
	a.list(&b, Discrepancy{Sequence: account.Sequence, Tenant: account.Tenant, Time: account.Time})
}

// settleStrays brings the rows of sequences into the books that the WAL does not hold; seen is the last record that
// was seen.
func (a *shardAudit) settleStrays(ctx context.Context, strays []store.Count, seen uint64) error {
	if len(strays) == 0 {
		return nil
	}
	held, err := a.wal.Span(ctx, a.Shard, time.Time{}, time.Time{})
	if err != nil {
		return err
	}
	state, err := a.wal.State(ctx, a.Shard)
	if err != nil {
		return err
	}
	for _, count := range strays {
		switch {
		case count.Sequence > state.Last: // yet to be given out
		case count.Sequence < held.First, held.First > held.Last: // trimmed
			continue
		case count.Sequence > a.span.Last: // came since
			continue
		case count.Sequence > seen: // none, unless a server of a cluster that lags behind was read
			record, err := a.wal.Record(ctx, a.Shard, count.Sequence)
			if err == nil && (a.options.Tenant == "" || a.options.Tenant == record.Tenant) {
				return fmt.Errorf("the WAL was not read to its end, %d, but to %d; audit again", a.span.Last, seen)
			}
			if err != nil && !errors.Is(err, wal.ErrNotFound) {
				return err
			}
		}
		b := Books{Rows: count.Rows, Surplus: count.Rows}
		a.add(b)
		a.list(&b, Discrepancy{Sequence: count.Sequence})
	}
	return nil
}

// list keeps what does not balance.
func (a *shardAudit) list(b *Books, d Discrepancy) {
	if b.Balanced() {
		return
	}
	if a.Discrepant++; len(a.Discrepancies) < mostDiscrepancies {
		d.Entries, d.Rows, d.Missing, d.Surplus = b.Entries, b.Rows, b.Missing, b.Surplus
		a.Discrepancies = append(a.Discrepancies, d)
	}
}
