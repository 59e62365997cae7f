package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/casteloig/logthra/gateway/engine/cut"
	"github.com/casteloig/logthra/shared/store"
)

// The tables that are read.
const (
	tableLog    = "log"
	tableStream = "stream"
)

// statement is a query of ClickHouse about rows of one tenant, while it is written. Whatever comes from outside is a parameter.
type statement struct {
	database, table string
	columns         []string // expressions with their names: "count() AS n"
	narrow          []string // conditions by which rows are found
	where           []string // conditions on rows that were found
	tail            string   // GROUP BY, ORDER BY, LIMIT
	parameters      map[string]string
	isHeavy         bool // it computes the same of a line in several places
}

// heavySettings let ClickHouse compute the same function once a row. Where it computes arguments only if they are wanted, it does that again in
// each place, and so it does where it reads columns in steps; there, it is told which come first.
var heavySettings = clickhouse.Settings{"short_circuit_function_evaluation": "disable"}

// from begins a statement about the rows of a tenant in a table. There is no other way to begin one: no statement is about the rows of
// all tenants.
func (e *Engine) from(table, tenant string) *statement {
	s := &statement{database: e.cfg.Store.Database(), table: table, parameters: map[string]string{}}
	s.narrow = append(s.narrow, "tenant_id = "+s.text(tenant))
	return s
}

// and adds conditions.
func (s *statement) and(conditions ...string) { s.where = append(s.where, conditions...) }

// text, texts, number and ids bind a value, and return how the statement names it.
func (s *statement) text(v string) string    { return s.bind(store.Text(v), "String") }
func (s *statement) texts(v []string) string { return s.bind(store.Texts(v), "Array(String)") }
func (s *statement) number(v int64) string   { return s.bind(strconv.FormatInt(v, 10), "Int64") }
func (s *statement) ids(v []uint64) string   { return s.bind(store.Integers(v), "Array(UInt64)") }
func (s *statement) float(v float64) string {
	return s.bind(strconv.FormatFloat(v, 'g', -1, 64), "Float64")
}
func (s *statement) moment(nanos int64) string {
	return "fromUnixTimestamp64Nano(" + s.number(nanos) + ", 'UTC')"
}

func (s *statement) bind(value, kind string) string {
	for name, known := range s.parameters { // the same value has one name, so that equal expressions are computed once
		if known == value && strings.HasSuffix(name, kindSuffix(kind)) {
			return "{" + name + ":" + kind + "}"
		}
	}
	name := "p" + strconv.Itoa(len(s.parameters)) + kindSuffix(kind)
	s.parameters[name] = value
	return "{" + name + ":" + kind + "}"
}

// kindSuffix makes the type a part of the name of a parameter.
func kindSuffix(kind string) string {
	return "_" + strings.ToLower(strings.NewReplacer("(", "_", ")", "").Replace(kind))
}

// sql is the statement as ClickHouse reads it.
func (s *statement) sql() string {
	text := "SELECT " + strings.Join(s.columns, ", ") + " FROM " + s.database + "." + s.table
	narrow, where := strings.Join(s.narrow, " AND "), strings.Join(s.where, " AND ")
	switch {
	case where == "":
		text += " WHERE " + narrow
	case s.isHeavy:
		text += " PREWHERE " + narrow + " WHERE " + where
	default:
		text += " WHERE " + narrow + " AND " + where
	}
	return text + s.tail
}

// during narrows rows of the table log to those at from <= time < to. The hours are part of the order of the rows, and ClickHouse does not find
// them out by itself.
func (s *statement) during(from, to int64) {
	s.narrow = append(s.narrow, "timestamp >= "+s.moment(from), "timestamp < "+s.moment(to))
	const hour, day = int64(time.Hour), int64(24 * time.Hour)
	if to-from >= day-hour || to < from {
		return
	}
	var hours []string
	for at := from - ((from%day)+day)%day%hour; at < to; at += hour {
		hours = append(hours, strconv.FormatInt((at%day+day)%day/hour, 10))
	}
	s.narrow = append(s.narrow, "toHour(timestamp) IN ("+strings.Join(hours, ", ")+")")
}

// read runs a statement. The columns hold a block of rows while each is called.
func (e *Engine) read(ctx context.Context, s *statement, limits Limits, stats *Stats, columns proto.Results, each func(rows int) error) error {
	if e.asked != nil {
		e.asked(s)
	}
	var settings clickhouse.Settings
	if s.isHeavy {
		settings = heavySettings
	}
	read, err := e.cfg.Store.Select(ctx, store.Select{
		Settings: settings,
		SQL:      s.sql(), Parameters: s.parameters, Result: columns, Each: each,
		Limits: store.ReadLimits{Time: limits.Timeout, Memory: limits.MaxMemory, Bytes: limits.MaxBytes},
	})
	stats.Rows += read.Rows
	stats.Bytes += read.Bytes
	return explain(err, limits)
}

// explain tells what to do about a query that went beyond its limits.
func explain(err error, limits Limits) error {
	const narrow = "; narrow it: a shorter time, more matchers in the selector, or a filter of the line before the parsers"
	switch {
	case errors.Is(err, store.ErrReadsTooMuch):
		return &Error{fmt.Sprintf("the query would read more than %s of logs (--query-max-bytes)%s", size(limits.MaxBytes), narrow)}
	case errors.Is(err, store.ErrMemoryExceeded):
		return &Error{fmt.Sprintf("the query needs more than %s of memory in ClickHouse (--query-max-memory)%s, or fewer labels to group by", size(limits.MaxMemory), narrow)}
	case errors.Is(err, store.ErrTimeExceeded):
		return fmt.Errorf("the query took longer than %s (--query-timeout)%s: %w", limits.Timeout, narrow, context.DeadlineExceeded)
	}
	return err
}

// clone is a statement like this one, which can be changed on its own.
func (s *statement) clone() *statement {
	c := *s
	c.columns, c.narrow, c.where, c.parameters = slices.Clone(s.columns), slices.Clone(s.narrow), slices.Clone(s.where), maps.Clone(s.parameters)
	return &c
}

// rowsOf begins a statement about the rows of streams at from <= time < to, up to the cut; nil: none of the streams has any.
func (e *Engine) rowsOf(tenant string, streams map[uint64]*stream, c *cut.Cut, from, to int64) *statement {
	var ids []uint64
	for id, of := range streams {
		if of.first < to && of.last >= from {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	s := e.from(tableLog, tenant)
	s.during(from, to)
	s.narrow = append(s.narrow, "stream_id IN "+s.ids(ids))
	if upTo := s.upTo(c, from, to); upTo != "" {
		s.narrow = append(s.narrow, upTo)
	}
	return s
}

// upTo leaves out the rows that are among the entries of the cut. They came to the table after it was made, or are on their way. What else
// came since then may be seen or not. So where no entry of the cut is of the time of the statement, the statement need not look where
// rows came from.
func (s *statement) upTo(c *cut.Cut, from, to int64) string {
	if !slices.ContainsFunc(c.Entries, func(entry cut.Entry) bool { return entry.Timestamp >= from && entry.Timestamp < to }) {
		return ""
	}
	landed := s.ids(c.Landed)
	return "(wal_shard >= length(" + landed + ") OR wal_seq <= " + landed + "[wal_shard + 1])"
}
