package ingester

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/store"
)

// BenchmarkDrain lands a backlog as it is after an outage of ClickHouse, and compares that with what is the most
// that could be reached: a bare loop that inserts the same batches, made beforehand, with as many at once.
func BenchmarkDrain(b *testing.B) {
	const shards, records, lines, batchRows = 4, 10_000, 2000, 500_000
	f := newFixture(b, shards)
	f.wal = f.connect(shards, 8<<30)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range records {
		var batch logs.Batch
		batch.AddStream(fmt.Sprintf(`{"app":"api","pod":"%d"}`, i%20))
		for range lines {
			batch.Lines = fmt.Appendf(batch.Lines, "level=info caller=server.go:%d request=%016x path=/api/v1/items/%d status=200 bytes=%d took=%dms agent=curl/8.5.0 trace=%08x",
				random.IntN(900), random.Uint64(), random.IntN(10_000), random.IntN(1<<20), random.IntN(1000), random.Uint32())
			f.next++
			batch.EndEntry(1700000000000000001+int64(f.next), true)
		}
		if _, err := f.wal.Publish(b.Context(), "acme", "", &batch); err != nil {
			b.Fatal(err)
		}
	}
	batches := make([][]*store.Batch, shards)
	for shard := range shards {
		batches[shard] = f.batches(shard, batchRows)
	}
	var drain, bare time.Duration
	for round := 0; b.Loop(); round++ {
		drain += f.again(round, "drain", func() {
			in := f.run(func(c *Config) { c.FlushRows, c.FlushBytes = batchRows, 1<<30 })
			f.eventually("it owns all shards", func() bool { return in.owns() == shards })
			if _, err := in.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			in.stop()
		})
		bare += f.again(round, "bare", func() {
			var group sync.WaitGroup
			for shard := range shards {
				group.Go(func() {
					for i, batch := range batches[shard] {
						if err := f.store.Insert(b.Context(), batch, fmt.Sprint(shard, i)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			group.Wait()
		})
	}
	total := float64(b.N * records * lines)
	b.ReportMetric(total/drain.Seconds(), "lines/s")
	b.ReportMetric(total/bare.Seconds(), "bare-lines/s")
	b.ReportMetric(bare.Seconds()/drain.Seconds(), "of-bare")
}

// again times do on an empty database, with all of the WAL yet to land.
func (f *fixture) again(round int, name string, do func()) time.Duration {
	f.t.Helper()
	f.store = f.open(f.link.addr, fmt.Sprintf("drain_%d_%s_%d", databases.Add(1), name, round))
	if err := f.store.Migrate(f.t.Context(), 0); err != nil {
		f.t.Fatal(err)
	}
	for shard := range f.wal.Shards() {
		lease, err := f.wal.Claim(f.t.Context(), shard, "the test", nobodyLives)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := lease.Land(f.t.Context(), 0); err != nil {
			f.t.Fatal(err)
		}
		if err := lease.Release(f.t.Context()); err != nil {
			f.t.Fatal(err)
		}
	}
	began := time.Now()
	do()
	took := time.Since(began)
	f.landed()
	if err := f.store.Conn().Exec(f.t.Context(), "DROP DATABASE "+f.store.Database()+" SYNC"); err != nil {
		f.t.Fatal(err)
	}
	return took
}

// batches reads all of a shard as batches of so many rows.
func (f *fixture) batches(shard, rows int) (all []*store.Batch) {
	f.t.Helper()
	last, err := f.wal.Last(f.t.Context(), shard)
	if err != nil || last == 0 {
		f.t.Fatal(last, err)
	}
	reader, err := f.wal.Read(f.t.Context(), shard, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer reader.Close()
	batch := &store.Batch{Shard: uint16(shard)}
	var decoded logs.Batch
	var scratch []byte
	for record := range reader.Records() {
		if scratch, err = record.Decode(&decoded, scratch); err != nil {
			f.t.Fatal(err)
		}
		batch.Add(record.Sequence, record.Tenant, &decoded, &record)
		if batch.Rows() >= rows || record.Sequence == last {
			all = append(all, batch)
			batch = &store.Batch{Shard: uint16(shard)}
		}
		if record.Sequence == last {
			break
		}
	}
	return all
}
