package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// Select is a statement that reads.
type Select struct {
	SQL        string            // with its parameters as {name:Type}
	Parameters map[string]string // their values, as ClickHouse reads them of TSV: numbers as they are, else by Text, Texts or Integers
	Limits     ReadLimits
	Settings   clickhouse.Settings // beside those of the limits

	// Result is a column for each of the statement's, by name. Each is called for every block of rows, which the columns hold until it
	// returns. An error of it ends the statement, and is what Select returns.
	Result proto.Results
	Each   func(rows int) error
}

// ReadLimits bound a statement. The zero value of each is no bound.
type ReadLimits struct {
	Time   time.Duration
	Memory int64 // bytes
	Bytes  int64 // most that are read, uncompressed
}

// Read is what a statement has read.
type Read struct{ Rows, Bytes uint64 }

// Errors of statements that went beyond their limits, by which errors.Is tells them.
var (
	ErrReadsTooMuch   = errors.New("it reads more than it may")
	ErrMemoryExceeded = errors.New("it needs more memory than it may take")
	ErrTimeExceeded   = errors.New("it takes longer than it may")
)

// Select runs a statement that reads. It can't write: ClickHouse refuses that. Where ctx ends the statement is canceled in ClickHouse.
func (s *Store) Select(ctx context.Context, q Select) (Read, error) {
	var read Read
	var failed error
	query := ch.Query{
		Body: q.SQL, Settings: readSettings(q.Limits, q.Settings), Result: q.Result,
		OnResult: func(_ context.Context, block proto.Block) error {
			if block.Rows > 0 && failed == nil {
				failed = q.Each(block.Rows)
			}
			return failed
		},
		OnProgress: func(_ context.Context, p proto.Progress) error {
			read.Rows, read.Bytes = read.Rows+p.Rows, read.Bytes+p.Bytes
			return nil
		},
	}
	for name, value := range q.Parameters {
		query.Parameters = append(query.Parameters, proto.Parameter{Key: name, Value: quoted(value)})
	}
	err := s.conn.read(ctx, query)
	switch {
	case failed != nil:
		return read, failed
	case ctx.Err() != nil:
		return read, ctx.Err()
	case err != nil:
		return read, fmt.Errorf("ClickHouse: %w", plain(overrun(err)))
	}
	return read, nil
}

// read runs a statement over a connection of its own, which is used again only after a success.
func (s *server) read(ctx context.Context, query ch.Query) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return asException(err)
	}
	if err := conn.Do(ctx, query); err != nil {
		_ = conn.Close()
		return asException(err)
	}
	s.keep(conn)
	return nil
}

// readSettings are those of every statement that reads. The user of the DSN may be one that only reads, as long as it may change
// settings (readonly = 2).
func readSettings(limits ReadLimits, more clickhouse.Settings) []ch.Setting {
	settings := clickhouse.Settings{"readonly": 2}
	maps.Copy(settings, more)
	if limits.Time > 0 {
		settings["max_execution_time"] = limits.Time.Seconds()
		settings["timeout_overflow_mode"] = "throw"
	}
	if limits.Memory > 0 {
		settings["max_memory_usage"] = limits.Memory
		settings["max_bytes_before_external_group_by"] = limits.Memory / 2
	}
	if limits.Bytes > 0 {
		settings["max_bytes_to_read"] = limits.Bytes
		settings["read_overflow_mode"] = "throw"
	}
	return settingsOf(settings)
}

// overrun tells which limit a statement went beyond.
func overrun(err error) error {
	exception, ok := errors.AsType[*clickhouse.Exception](err)
	if !ok {
		return err
	}
	switch exception.Code {
	case 307, 158: // TOO_MANY_BYTES, TOO_MANY_ROWS
		return fmt.Errorf("%w: %w", ErrReadsTooMuch, err)
	case 241: // MEMORY_LIMIT_EXCEEDED
		return fmt.Errorf("%w: %w", ErrMemoryExceeded, err)
	case 159, 160: // TIMEOUT_EXCEEDED, TOO_SLOW
		return fmt.Errorf("%w: %w", ErrTimeExceeded, err)
	}
	return err
}

// escapes are of the form that ClickHouse reads the value of a parameter from, that of a field of its TSV.
// https://clickhouse.com/docs/interfaces/formats/TabSeparated
var escapes = strings.NewReplacer("\\", `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "\b", `\b`, "\f", `\f`, "\x00", `\0`)

var quotes = strings.NewReplacer("\\", `\\`, "'", `\'`)

// quoted is a string as SQL writes it.
func quoted(value string) string { return "'" + quotes.Replace(value) + "'" }

// Text is a value of String.
func Text(value string) string { return escapes.Replace(value) }

// Texts is a value of Array(String).
func Texts(values []string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = quoted(v)
	}
	return "[" + strings.Join(out, ",") + "]"
}

// Integers is a value of Array(UInt64) or Array(Int64).
func Integers[T uint64 | int64](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprint(v)
	}
	return "[" + strings.Join(out, ",") + "]"
}
