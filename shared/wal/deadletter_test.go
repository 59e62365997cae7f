package wal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/casteloig/logthra/shared/embedded/enginetest"
	"github.com/casteloig/logthra/shared/logs"
)

func TestUndecodableRecordBecomesOneDeadLetter(t *testing.T) {
	cfg := testConfig
	cfg.Shards = 1
	w := open(t, enginetest.NATS(t), cfg)
	for name, header := range map[string]nats.Header{
		"version 2":    {headerVersion: {"2"}, headerEncoding: {encodingS2}},
		"no header":    nil,
		"bad encoding": {headerVersion: {version1}, headerEncoding: {"brotli"}},
		"bad body":     {headerVersion: {version1}, headerEncoding: {encodingS2}},
	} {
		t.Run(name, func(t *testing.T) {
			ack, err := w.js.PublishMsg(t.Context(), &nats.Msg{Subject: "logs.acme.0", Header: header, Data: []byte("\x05nonsense")})
			if err != nil {
				t.Fatal(err)
			}
			reader, err := w.Read(t.Context(), 0, ack.Sequence)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			record := <-reader.Records()
			_, err = record.Decode(new(logs.Batch), nil)
			if _, ok := errors.AsType[*UndecodableError](err); !ok {
				t.Fatalf("decoded: %v", err)
			}
			for range 2 { // the second time by a successor that repeats the batch
				if err := w.DeadLetter(t.Context(), record, err); err != nil {
					t.Fatal(err)
				}
			}
			stream, err := w.js.Stream(t.Context(), DeadLetterStream)
			if err != nil {
				t.Fatal(err)
			}
			letter, err := stream.GetLastMsgForSubject(t.Context(), fmt.Sprintf("logthra.deadletter.acme.0.%d", ack.Sequence))
			if err != nil {
				t.Fatal(err)
			}
			if string(letter.Data) != "\x05nonsense" || !strings.Contains(letter.Header.Get(headerReason), "undecodable") ||
				letter.Header.Get(headerSequence) != fmt.Sprint(ack.Sequence) {
				t.Errorf("the letter is %+v", letter)
			}
		})
	}
	stream, err := w.js.Stream(t.Context(), DeadLetterStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 4 {
		t.Errorf("%d letters of 4 records", n)
	}
}

// putAside publishes a record of one entry for each of the tenants, and makes a dead letter of it.
func putAside(t testing.TB, w *WAL, tenants ...string) (records []Record) {
	t.Helper()
	for i, tenant := range tenants {
		r, err := w.Record(t.Context(), 0, fill(t, w, tenant, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.DeadLetter(t.Context(), r, fmt.Errorf("reason %d:\n\"ü\"", i)); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

func all(t testing.TB, letters iter.Seq2[DeadLetter, error]) (got []DeadLetter) {
	t.Helper()
	for d, err := range letters {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d)
	}
	return got
}

func TestDeadLetters(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	if got := all(t, w.DeadLetters(t.Context(), "")); got != nil {
		t.Errorf("without letters: %+v", got)
	}
	records := putAside(t, w, "acme", "globex", "acme")
	purge(t, w, records[2].Sequence+1) // the letters stand for themselves
	if got := all(t, w.DeadLetters(t.Context(), "nobody")); got != nil {
		t.Errorf("of nobody: %+v", got)
	}
	if got := all(t, w.DeadLetters(t.Context(), "acme")); len(got) != 2 || got[1].Sequence != records[2].Sequence {
		t.Errorf("of acme: %+v", got)
	}
	for _, err := range w.DeadLetters(t.Context(), "*") {
		if err == nil {
			t.Error("a tenant that stands for all: no error")
		}
	}
	got := all(t, w.DeadLetters(t.Context(), ""))
	if len(got) != 3 {
		t.Fatalf("%d letters: %+v", len(got), got)
	}
	for i, r := range records {
		found, err := w.FindDeadLetter(t.Context(), 0, r.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []DeadLetter{got[i], found} {
			if d.Shard != 0 || d.Sequence != r.Sequence || d.Tenant != r.Tenant || !d.Time.Equal(r.Time) || d.Time.IsZero() ||
				d.Reason != fmt.Sprintf("reason %d:\n\"ü\"", i) || d.Entries != 1 || d.Dropped || time.Since(d.At) > time.Minute || d.At.Before(r.Time) {
				t.Errorf("letter %d is %+v of %+v", i, d, r)
			}
			var b logs.Batch
			if _, err := d.Decode(&b, nil); err != nil || string(b.Lines) != "line 0" {
				t.Errorf("letter %d: %q, %v", i, b.Lines, err)
			}
		}
	}
	for _, at := range [][2]uint64{{0, 1}, {1, records[0].Sequence}} {
		if _, err := w.FindDeadLetter(t.Context(), int(at[0]), at[1]); !errors.Is(err, ErrNotFound) {
			t.Errorf("record %d of shard %d: %v", at[1], at[0], err)
		}
	}
	eventually(t, "no consumer is left", func() bool { return consumers(t, w.letters) == 0 })
}

func TestRemoveAndDropDeadLetter(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	records := putAside(t, w, "acme", "acme", "acme", "acme")
	letters := all(t, w.DeadLetters(t.Context(), ""))

	if err := w.RemoveDeadLetter(t.Context(), letters[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.FindDeadLetter(t.Context(), 0, records[0].Sequence); !errors.Is(err, ErrNotFound) {
		t.Errorf("a letter that was removed: %v", err)
	}
	for name, do := range map[string]func() error{
		"remove": func() error { return w.RemoveDeadLetter(t.Context(), letters[0]) },
		"drop":   func() error { return w.DropDeadLetter(t.Context(), letters[0]) },
	} {
		if err := do(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s after it was removed: %v", name, err)
		}
	}

	for range 2 { // the second time by one whose answer was lost
		if err := w.DropDeadLetter(t.Context(), letters[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.RemoveDeadLetter(t.Context(), letters[1]); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing the letter after it was dropped: %v", err)
	}
	for range 2 { // a batch that is repeated
		if err := w.DeadLetter(t.Context(), records[1], errors.New("again")); err != nil {
			t.Fatal(err)
		}
	}
	tomb, err := w.FindDeadLetter(t.Context(), 0, records[1].Sequence)
	if err != nil {
		t.Fatal(err)
	}
	was := letters[1]
	if !tomb.Dropped || tomb.Size() != 0 || tomb.Sequence != was.Sequence || tomb.Shard != was.Shard || tomb.Tenant != was.Tenant ||
		!tomb.Time.Equal(was.Time) || tomb.Reason != was.Reason || tomb.Entries != was.Entries || !tomb.At.Equal(was.At) {
		t.Errorf("the tombstone is %+v of %+v", tomb, was)
	}
	if err := w.DropDeadLetter(t.Context(), tomb); err != nil {
		t.Error(err)
	}
	if got := all(t, w.DeadLetters(t.Context(), "acme")); len(got) != 3 || got[0].Sequence != records[2].Sequence || !got[2].Dropped {
		t.Errorf("left are %+v", got)
	}
	info, err := w.letters.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs != 3 {
		t.Errorf("the stream has %d messages", info.State.Msgs)
	}
	state, err := w.DeadLetterState(t.Context())
	if err != nil || state.Messages != 3 || state.Last != info.State.LastSeq || state.Bytes == 0 || state.MaxBytes != deadLetterMaxBytes {
		t.Errorf("the state is %+v, %v", state, err)
	}
	for _, c := range []struct{ first, last, want uint64 }{{1, state.Last, 1}, {state.Last, state.Last, 1}, {1, letters[3].letter, 0}} {
		if n, next, err := w.CountTombstones(t.Context(), c.first, c.last); n != c.want || next != c.last+1 || err != nil {
			t.Errorf("%d tombstones from %d to %d, next %d, %v", n, c.first, c.last, next, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if n, next, err := w.CountTombstones(ended, 2, state.Last); n != 0 || next != 2 || err == nil {
		t.Errorf("%d tombstones in no time, next %d, %v", n, next, err)
	}
	if err := w.RemoveDeadLetter(t.Context(), tomb); err != nil {
		t.Error(err)
	}
	if _, err := w.FindDeadLetter(t.Context(), 0, records[1].Sequence); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tombstone that was removed: %v", err)
	}
}

// While a letter is being dropped there is always the letter or its tombstone, for who looks it up and for who reads
// all; and of two that drop and remove it at once, one does.
func TestDropDeadLetterIsAtomic(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	for range 20 {
		record := putAside(t, w, "acme")[0]
		letter, err := w.FindDeadLetter(t.Context(), 0, record.Sequence)
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		done := make(chan struct{})
		group.Go(func() {
			for {
				d, err := w.FindDeadLetter(t.Context(), 0, record.Sequence)
				if err != nil || !d.Dropped && d.Size() == 0 {
					t.Errorf("neither letter nor tombstone: %+v, %v", d, err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
		group.Go(func() {
			found := false
			for d, err := range w.DeadLetters(t.Context(), "") {
				if err != nil {
					t.Error(err)
				}
				found = found || d.Sequence == record.Sequence
			}
			if !found {
				t.Error("reading all passed over it")
			}
		})
		if err := w.DropDeadLetter(t.Context(), letter); err != nil {
			t.Error(err)
		}
		close(done)
		group.Wait()

		letter, err = w.FindDeadLetter(t.Context(), 0, putAside(t, w, "acme")[0].Sequence)
		if err != nil {
			t.Fatal(err)
		}
		var removed, dropped error
		group.Go(func() { removed = w.RemoveDeadLetter(t.Context(), letter) })
		group.Go(func() { dropped = w.DropDeadLetter(t.Context(), letter) })
		group.Wait()
		if (removed == nil) == (dropped == nil) || !errors.Is(errors.Join(removed, dropped), ErrNotFound) {
			t.Errorf("removing: %v, dropping: %v", removed, dropped)
		}
	}
}

// A tombstone goes by itself.
func TestTombstoneExpires(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	record := putAside(t, w, "acme")[0]
	letter, err := w.FindDeadLetter(t.Context(), 0, record.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.drop(t.Context(), letter, time.Second); err != nil {
		t.Fatal(err)
	}
	if d, err := w.FindDeadLetter(t.Context(), 0, record.Sequence); err == nil && (!d.Dropped || d.header.Get(jetstream.MsgTTLHeader) != "1s") {
		t.Errorf("the tombstone is %+v", d)
	}
	eventually(t, "the tombstone is gone", func() bool {
		_, err := w.FindDeadLetter(t.Context(), 0, record.Sequence)
		return errors.Is(err, ErrNotFound)
	})
}

// A full stream of dead letters refuses another rather than to lose one, and dropping makes room.
func TestFullDeadLettersLoseNothing(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	cfg := w.letters.CachedInfo().Config
	cfg.MaxBytes = 16 << 10
	if _, err := w.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	record, err := w.Record(t.Context(), 0, fill(t, w, "acme", 1))
	if err != nil {
		t.Fatal(err)
	}
	first := record
	taken := 0
	for ; err == nil && taken < 1000; taken++ {
		record.Sequence++
		err = w.DeadLetter(t.Context(), record, errors.New("no"))
	}
	if !errors.Is(err, ErrDeadLettersFull) || !strings.Contains(err.Error(), "logthra deadletter") {
		t.Fatalf("after %d: %v", taken, err)
	}
	taken--
	record.Sequence = first.Sequence + 1
	if err := w.DeadLetter(t.Context(), record, errors.New("no")); err != nil {
		t.Errorf("of a record that has a letter: %v", err)
	}
	letters := all(t, w.DeadLetters(t.Context(), ""))
	if len(letters) != taken || letters[0].Sequence != first.Sequence+1 {
		t.Errorf("%d letters were taken, there are %d", taken, len(letters))
	}
	for i, d := range letters[:5] {
		var err error
		if i%2 == 0 {
			err = w.DropDeadLetter(t.Context(), d)
		} else {
			err = w.RemoveDeadLetter(t.Context(), d)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := w.DeadLetter(t.Context(), first, errors.New("no")); err != nil {
		t.Errorf("after room was made: %v", err)
	}
}

// What others put into the stream is listed for what it is, and can be removed.
func TestForeignDeadLetters(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	for _, subject := range []string{"acme", "acme.x.y", "acme.0.-7", "a.b.0.9", "acme.0.5"} {
		if _, err := w.js.Publish(t.Context(), DeadLetterSubject+subject, []byte("?")); err != nil {
			t.Fatal(err)
		}
	}
	got := all(t, w.DeadLetters(t.Context(), ""))
	if len(got) != 5 || got[0].Tenant != "acme" || got[0].Shard != -1 || got[1].Shard != -1 || got[2].Sequence != 0 || got[4].Sequence != 5 || got[4].Shard != 0 {
		t.Errorf("got %+v", got)
	}
	for i, d := range got {
		if _, err := d.Decode(new(logs.Batch), nil); err == nil {
			t.Errorf("decoded %+v", d)
		}
		var err error
		if i%2 == 0 {
			err = w.DropDeadLetter(t.Context(), d)
		} else {
			err = w.RemoveDeadLetter(t.Context(), d)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if got = all(t, w.DeadLetters(t.Context(), "")); len(got) != 3 || !got[0].Dropped || !got[1].Dropped || !got[2].Dropped {
		t.Errorf("left are %+v", got)
	}
}

// Headers by which a publisher told the server what to do with its record don't apply to the letter.
func TestDeadLetterOfARecordWithInstructions(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	last := fill(t, w, "acme", 3)
	ack, err := w.js.PublishMsg(t.Context(), &nats.Msg{Subject: "logs.acme.0", Data: []byte("?"), Header: nats.Header{
		jetstream.ExpectedLastSeqHeader: {fmt.Sprint(last)}, jetstream.MsgIDHeader: {"1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	record, err := w.Record(t.Context(), 0, ack.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeadLetter(t.Context(), record, errors.New("no")); err != nil {
		t.Fatal(err)
	}
	if d, err := w.FindDeadLetter(t.Context(), 0, ack.Sequence); err != nil || d.Size() != 1 {
		t.Errorf("the letter is %+v, %v", d, err)
	}
}

// The largest record that is taken can be put aside, whatever the reason.
func TestDeadLetterOfTheLargestRecord(t *testing.T) {
	w := open(t, enginetest.NATS(t), oneShard())
	size := int(w.nc.MaxPayload())
	line := string(noise(size))
	var ack Ack
	for {
		b := batchOf(map[string][]entry{"{}": {{ts: 1, line: line[:size]}}}, "{}")
		var err error
		if ack, err = w.Publish(t.Context(), "acme", "", b); err == nil {
			break
		}
		large, ok := errors.AsType[*TooLargeError](err)
		if !ok || large.Size <= large.Limit {
			t.Fatal(err)
		}
		size -= int(large.Size - large.Limit)
	}
	// To be traced makes it no larger.
	traced := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: [16]byte{1}, SpanID: [8]byte{1}, TraceFlags: trace.FlagsSampled}))
	if _, err := w.Publish(traced, "emca", "", batchOf(map[string][]entry{"{}": {{ts: 1, line: line[:size]}}}, "{}")); err != nil {
		t.Error(err)
	}
	record, err := w.Record(t.Context(), 0, ack.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeadLetter(t.Context(), record, errors.New(strings.Repeat("\xff", 5000))); err != nil {
		t.Fatal(err)
	}
	if d, err := w.FindDeadLetter(t.Context(), 0, ack.Sequence); err != nil || d.Size() != record.Size() {
		t.Errorf("the letter has %d bytes of %d, %v", d.Size(), record.Size(), err)
	}
}

// A stream of dead letters as an earlier version made it is brought to what is needed now, with what it holds.
func TestOpenUpdatesTheDeadLetterStream(t *testing.T) {
	server := enginetest.NATS(t)
	nc, err := server.Conn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: DeadLetterStream, Subjects: []string{DeadLetterSubject + ">"}, Storage: jetstream.FileStorage,
		MaxBytes: deadLetterMaxBytes, Replicas: 1,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), DeadLetterSubject+"acme.0.5", []byte("?")); err != nil {
		t.Fatal(err)
	}
	w, err := Open(t.Context(), nc, oneShard(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if cfg := w.letters.CachedInfo().Config; cfg.Discard != jetstream.DiscardNew || !cfg.AllowRollup || !cfg.AllowMsgTTL {
		t.Errorf("%+v", cfg)
	}
	letter, err := w.FindDeadLetter(t.Context(), 0, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DropDeadLetter(t.Context(), letter); err != nil {
		t.Error(err)
	}
}
