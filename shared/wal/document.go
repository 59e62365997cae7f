package wal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// holdable is a value that says who holds it. Each time that it is taken the holder is another.
type holdable interface{ holder() string }

// document is a JSON document of the bucket in the hands of one holder. Every change of it is a compare-and-set on
// its revision, so it ends for this holder when another takes it.
type document[T holdable] struct {
	kv   jetstream.KeyValue
	key  string
	what string // for errors
	mine string // the holder that this is
	lost error  // what changes return when the document is another's

	mu       sync.Mutex
	value    T
	revision uint64 // of value in the bucket, 0: none yet
}

// load reads the document as it stands in the bucket, whoever holds it. One that is not there is the zero value.
func (d *document[T]) load(ctx context.Context) error {
	value, revision, err := d.read(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.value, d.revision = value, revision
	return nil
}

func (d *document[T]) read(ctx context.Context) (value T, revision uint64, err error) {
	entry, err := d.kv.Get(ctx, d.key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return value, 0, nil
	}
	if err != nil {
		return value, 0, fmt.Errorf("%s: %w", d.what, explain(err))
	}
	if err := json.Unmarshal(entry.Value(), &value); err != nil {
		return value, 0, fmt.Errorf("%s: key %s of bucket %s: %w", d.what, d.key, Bucket, err)
	}
	return value, entry.Revision(), nil
}

// get returns the document as it was last read or written here.
func (d *document[T]) get() T {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.value
}

// check returns an error if another holds the document, or it can't be read.
func (d *document[T]) check(ctx context.Context) error {
	d.mu.Lock()
	known := d.revision
	d.mu.Unlock()
	now, revision, err := d.read(ctx)
	if err == nil && revision > known && now.holder() != d.mine {
		return d.lost
	}
	return err
}

// quiet watches the document for so long. It returns an error if it changes, or can't be read.
func (d *document[T]) quiet(ctx context.Context, during time.Duration) error {
	d.mu.Lock()
	revision := d.revision
	d.mu.Unlock()
	end := time.NewTimer(during)
	defer end.Stop()
	look := time.NewTicker(min(max(during/20, time.Millisecond), 250*time.Millisecond))
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-end.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", d.what, ctx.Err())
		}
		if _, now, err := d.read(ctx); err != nil {
			return err
		} else if now != revision {
			return d.lost
		}
	}
}

// change writes the document if nobody else has changed it. A write of this holder whose answer was lost is
// recognized, and what is to stand there now is written over it.
func (d *document[T]) change(ctx context.Context, edit func(*T)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.value
	edit(&next)
	value, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("%s: %w", d.what, err)
	}
	for {
		revision, err := d.kv.Update(ctx, d.key, value, d.revision)
		if err == nil {
			d.value, d.revision = next, revision
			return nil
		}
		if !wrongLastSequence(err) {
			return fmt.Errorf("%s: %w", d.what, explain(err))
		}
		now, revision, err := d.read(ctx)
		if err != nil {
			return err
		}
		if there, err := json.Marshal(now); err == nil && bytes.Equal(there, value) {
			d.value, d.revision = next, revision
			return nil
		}
		if revision <= d.revision { // what was changed meanwhile is not that: a server lags behind, or the key was deleted
			return fmt.Errorf("%s: key %s of bucket %s was changed, and read as it was before, or was deleted", d.what, d.key, Bucket)
		}
		if now.holder() != d.mine {
			return d.lost
		}
		d.revision = revision
	}
}
