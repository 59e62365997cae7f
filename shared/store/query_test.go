package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

func TestSelectParameters(t *testing.T) {
	s, _ := openNew(t)
	for _, value := range []string{"", "plain", "it's", `back\slash \n \0 \'`, "tab\tnew\nline\r\x00\b\f\x01", "\xff\xfe not UTF-8", "{x:String}", "日本語", `"'` + "`", "[1,'2']"} {
		var text proto.ColStr
		var list = proto.NewArray(new(proto.ColStr))
		var id proto.ColUInt64
		err := ride(t, func() error {
			_, err := s.Select(t.Context(), Select{
				SQL:        "SELECT {a:String} AS a, {b:Array(String)} AS b, arraySum({c:Array(UInt64)}) AS c",
				Parameters: map[string]string{"a": Text(value), "b": Texts([]string{value, "x"}), "c": Integers([]uint64{1, 1 << 40})},
				Result:     proto.Results{{Name: "a", Data: &text}, {Name: "b", Data: list}, {Name: "c", Data: &id}},
				Each: func(rows int) error {
					if rows != 1 || text.Row(0) != value || list.RowLen(0) != 2 || list.Row(0)[0] != value || id.Row(0) != 1<<40+1 {
						t.Errorf("%q came back as %q, %q, %d", value, text.Row(0), list.Row(0), id.Row(0))
					}
					return nil
				},
			})
			return err
		})
		if err != nil {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestSelectBounds(t *testing.T) {
	s, _ := migrated(t)
	var n proto.ColUInt64
	result := proto.Results{{Name: "n", Data: &n}}
	none := func(int) error { return nil }
	for _, c := range []struct {
		name, sql string
		limits    ReadLimits
		want      error
	}{
		{"bytes", "SELECT sum(number) AS n FROM numbers(100000000)", ReadLimits{Bytes: 1 << 20}, ErrReadsTooMuch},
		{"time", "SELECT sum(cityHash64(number)) AS n FROM numbers(1000000000000)", ReadLimits{Time: 300 * time.Millisecond}, ErrTimeExceeded},
		{"memory", "SELECT length(groupArray(number)) AS n FROM numbers(100000000)", ReadLimits{Memory: 10 << 20}, ErrMemoryExceeded},
	} {
		err := ride(t, func() error {
			_, err := s.Select(t.Context(), Select{SQL: c.sql, Limits: c.limits, Result: result, Each: none})
			return err
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, sql := range []string{"TRUNCATE TABLE " + s.database + ".log", "CREATE TABLE " + s.database + ".x (a UInt8) ENGINE = Memory", "INSERT INTO " + s.database + ".migration (version) VALUES (9)"} {
		if _, err := s.Select(t.Context(), Select{SQL: sql, Result: result, Each: none}); err == nil || !strings.Contains(err.Error(), "readonly") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestSelectEnds(t *testing.T) {
	s, _ := openNew(t)
	var n proto.ColUInt64
	enough := errors.New("enough")
	read, err := s.Select(t.Context(), Select{
		SQL: "SELECT number AS n FROM numbers(1000000000)", Result: proto.Results{{Name: "n", Data: &n}},
		Each: func(int) error { return enough },
	})
	if !errors.Is(err, enough) || read.Rows > 1e8 {
		t.Errorf("%v after %d rows", err, read.Rows)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = s.Select(ctx, Select{
		SQL: "SELECT sum(cityHash64(number)) AS n FROM numbers(1000000000000)", Result: proto.Results{{Name: "n", Data: &n}}, Each: func(int) error { return nil },
	})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	deadline := time.Now().Add(10 * time.Second)
	for query(t, s, "SELECT toString(count()) FROM system.processes WHERE query LIKE '%cityHash64%' AND query NOT LIKE '%processes%'") != "0" {
		if time.Now().After(deadline) {
			t.Fatal("the statement goes on in ClickHouse")
		}
	}
}
