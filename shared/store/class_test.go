package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// What ClickHouse says to what can be wrong with a batch, a table, a user and a server.
func TestClassify(t *testing.T) {
	view := func(expression string) []string {
		return []string{
			"CREATE TABLE logs.target (x String) ENGINE = MergeTree ORDER BY tuple()",
			"CREATE MATERIALIZED VIEW logs.view TO logs.target AS SELECT toString(" + expression + ") AS x FROM logs.log",
		}
	}
	for _, c := range []struct {
		name    string
		prepare []string // statements
		dsn     string   // settings of the user, or all of the DSN up to its database
		code    int32    // of the exception; 0: there is none; -1: there may be none, when the connection breaks first
		class   Class
	}{
		{"constraint", []string{"ALTER TABLE logs.log ADD CONSTRAINT c CHECK NOT startsWith(msg, 'row 3 ')"}, "", 469, BadBatch},
		{"constraint and a line like a full disk", []string{"ALTER TABLE logs.log ADD CONSTRAINT c CHECK concat('errno: 28, No space left on device', msg) = ''"}, "", 469, BadBatch},
		{"view that throws", view("throwIf(startsWith(msg, 'row 3 '))"), "", 395, BadBatch},
		{"view that parses a number", view("toUInt8(msg)"), "", 6, BadBatch},
		{"view that parses nothing", view("toUInt8(substring(msg, 1, 0))"), "", 32, BadBatch},
		{"view that parses a time", view("toDateTime(msg)"), "", 41, BadBatch},
		{"view that parses a UUID", view("toUUID(msg)"), "", 376, BadBatch},
		{"view that parses an address", view("toIPv4(msg)"), "", 675, BadBatch},
		{"view that parses JSON", view("CAST(msg, 'JSON')"), "", 117, BadBatch},
		{"view that looks up an enum", view("CAST(msg, 'Enum8(\\'a\\' = 1)')"), "", 691, BadBatch},
		{"view that divides by zero", view("intDiv(1, length(msg) - length(msg))"), "", 153, BadBatch},
		{"view that casts", view("accurateCast(wal_seq, 'UInt8')"), "", 70, BadBatch},

		{"no table", []string{"DROP TABLE logs.log SYNC"}, "", 60, Operator},
		{"no table of streams", []string{"DROP TABLE logs.stream SYNC"}, "", 60, Operator},
		{"no database", []string{"DROP DATABASE logs SYNC"}, "", 81, Operator},
		{"no column", []string{"DROP TABLE logs.stream_of_log SYNC", "ALTER TABLE logs.log DROP COLUMN msg"}, "", 16, Operator},
		{"other column", []string{"ALTER TABLE logs.log MODIFY COLUMN wal_index UInt16"}, "", 0, Operator},
		{"read-only table", []string{"ALTER TABLE logs.log MODIFY SETTING table_readonly = 1"}, "", 774, Operator},
		{"disk too full", []string{"ALTER TABLE logs.log MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000"}, "", 243, Operator},
		{"read-only user", nil, "?readonly=1", 164, Operator},
		{"user with a limit", nil, "?max_rows_to_read=1", 158, Operator},
		{"unknown setting", nil, "?no_such_setting=1", 115, Operator},

		{"too many parts", []string{
			"SYSTEM STOP MERGES logs.log", "ALTER TABLE logs.log MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1",
			"INSERT INTO logs.log (timestamp) VALUES ('2023-11-14 22:13:20')",
		}, "", 252, Transient},
		{"memory limit", nil, "?max_memory_usage=1", -1, Transient},
		{"nobody there", nil, "clickhouse://127.0.0.1:1", 0, Transient},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, server := migrated(t)
			execute(t, s, c.prepare...)
			address := "clickhouse://" + server.Addr()
			if strings.Contains(c.dsn, "://") {
				address, c.dsn = c.dsn, ""
			}
			err := openDSN(t, address+"/"+s.database+c.dsn).Insert(t.Context(), wide(1000, 1), "token")
			if err == nil {
				t.Fatal("no error")
			}
			var code int32
			if exception, ok := errors.AsType[*clickhouse.Exception](err); ok {
				code = exception.Code
			}
			if class := Classify(err); class != c.class || code != c.code && c.code >= 0 {
				t.Errorf("%s (%d), want %s (%d): %v", class, code, c.class, c.code, err)
			}
		})
	}
}

// A wrong password is told by HTTP: the embedded ClickHouse dies of one that comes by the native protocol.
func TestClassifyWrongPassword(t *testing.T) {
	_, engine := openNew(t)
	options, err := parse("http://default:wrong@" + engine.HTTPAddr() + "/logs")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := openServer(*options)
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{conn: conn}
	t.Cleanup(func() { _ = s.Close() })
	err = s.Ready(t.Context())
	if exception, ok := errors.AsType[*clickhouse.Exception](err); !ok || exception.Code != 194 || Classify(err) != Operator {
		t.Errorf("%s: %v", Classify(err), err)
	}
}

// A block that is refused while others are on their way is told as what it is, not as a broken connection.
func TestClassifyOfManyBlocks(t *testing.T) {
	s, _ := migrated(t)
	execute(t, s, "ALTER TABLE logs.log ADD CONSTRAINT c CHECK NOT startsWith(msg, 'row 3 ')")
	for range 3 {
		if err := s.Insert(t.Context(), wide(6*manyRows, 2), "token"); err == nil || Classify(err) != BadBatch {
			t.Errorf("%v", err)
		}
	}
}

func TestClassifyCodes(t *testing.T) {
	exception := func(code int32, message string) error {
		return fmt.Errorf("ClickHouse: inserting 3 rows: %w", plain(&clickhouse.Exception{Code: code, Message: message}))
	}
	const full = "Cannot write to file /data/tmp_insert/data.bin: , errno: 28, strerror: No space left on device"
	for _, c := range []struct {
		err  error
		want Class
	}{
		{exception(516, "default: Authentication failed"), Operator},
		{exception(497, "not enough privileges"), Operator},
		{exception(201, "Quota for user has been exceeded"), Operator},
		{exception(242, "Table is in readonly mode"), Operator},
		{exception(243, "Cannot reserve 1.00 MiB, not enough space"), Operator},
		{exception(75, full), Operator},
		{exception(75, "Cannot write to file, errno: 5, strerror: Input/output error"), Transient},
		{exception(1001, `std::exception. Code: 1001, type: std::__1::__fs::filesystem::filesystem_error, e.what() = filesystem error: in create_directories: No space left on device ["/data"]`), Operator},
		{exception(1000, "Poco::Exception. Code: 1000, e.code() = 30, File is read-only: Read-only file system"), Operator},
		{exception(1000, "Poco::Exception. Code: 1000, Timeout"), Transient},
		{exception(32, "Attempt to read after eof: while reading from socket"), Transient},
		{exception(36, "Invalid setting of the server"), Transient},
		{exception(36, "Bad path: while executing 'FUNCTION f(msg)'"), BadBatch},
		{exception(469, "Constraint is violated. Column values: msg = '"+full+"'"), BadBatch},
		{exception(252, "Too many parts"), Transient},
		{exception(241, "Memory limit exceeded"), Transient},
		{exception(159, "Timeout exceeded"), Transient},
		{exception(202, "Too many simultaneous queries"), Transient},
		{exception(210, "Network error: "+full), Transient},
		{exception(236, "Aborted"), Transient},
		{exception(319, "Unknown status of insert"), Transient},
		{exception(394, "Query was killed"), Transient},
		{exception(999, "Keeper: Connection loss"), Transient},
		{exception(49, "Logical error"), Transient},
		{exception(123456, "yet to be invented"), Transient},
		{&clickhouse.HTTPError{StatusCode: 403, Err: exception(516, "")}, Operator},
		{errors.Join(exception(60, "no table"), io.EOF), Operator},
		{plain(io.EOF), Transient},
		{context.Canceled, Transient},
		{context.DeadlineExceeded, Transient},
		{clickhouse.ErrAcquireConnTimeout, Transient},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, Transient},
		{nil, Transient},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
	for class, want := range map[Class]string{Transient: "transient", BadBatch: "bad batch", Operator: "operator", 7: "Class(7)"} {
		if class.String() != want {
			t.Errorf("%s, want %s", class, want)
		}
	}
}
