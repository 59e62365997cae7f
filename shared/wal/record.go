package wal

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/shared/logs"
)

// Field numbers of logthra.v1.Record and MetadataColumn (proto/logthra/v1/record.proto).
const (
	fieldStreamLabels  = 1
	fieldStreamEntries = 2
	fieldTimestamps    = 3
	fieldLineLengths   = 4
	fieldLines         = 5
	fieldMetadata      = 6

	fieldColumnName    = 1
	fieldColumnEntries = 2
	fieldColumnLengths = 3
	fieldColumnValues  = 4
)

// appendRecord appends b as a logthra.v1.Record. It writes what protobuf's own encoder would, field by
// field in order, straight from the columns of the batch; equal batches give equal bytes.
func appendRecord(dst []byte, b *logs.Batch) []byte {
	entries := 0
	for i := range b.Streams {
		dst = protowire.AppendTag(dst, fieldStreamLabels, protowire.BytesType)
		dst = protowire.AppendString(dst, b.Streams[i].Labels)
		entries += protowire.SizeVarint(uint64(b.Streams[i].Entries))
	}
	dst = protowire.AppendTag(dst, fieldStreamEntries, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(entries))
	for i := range b.Streams {
		dst = protowire.AppendVarint(dst, uint64(b.Streams[i].Entries))
	}
	dst = protowire.AppendTag(dst, fieldTimestamps, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(8*len(b.Timestamps)))
	dst = slices.Grow(dst, 8*len(b.Timestamps))
	for _, ts := range b.Timestamps {
		dst = protowire.AppendFixed64(dst, uint64(ts))
	}
	dst = appendPacked(dst, fieldLineLengths, b.Lengths)
	dst = protowire.AppendTag(dst, fieldLines, protowire.BytesType)
	dst = protowire.AppendBytes(dst, b.Lines)
	var column []byte
	for i := range b.Metadata {
		c := &b.Metadata[i]
		column = protowire.AppendTag(column[:0], fieldColumnName, protowire.BytesType)
		column = protowire.AppendString(column, c.Name)
		column = appendPacked(column, fieldColumnEntries, c.Entries)
		column = appendPacked(column, fieldColumnLengths, c.Lengths)
		column = protowire.AppendTag(column, fieldColumnValues, protowire.BytesType)
		column = protowire.AppendBytes(column, c.Values)
		dst = protowire.AppendTag(dst, fieldMetadata, protowire.BytesType)
		dst = protowire.AppendBytes(dst, column)
	}
	return dst
}

func appendPacked(dst []byte, field protowire.Number, values []uint32) []byte {
	size := 0
	for _, v := range values {
		size += protowire.SizeVarint(uint64(v))
	}
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size))
	dst = slices.Grow(dst, size)
	for _, v := range values {
		dst = protowire.AppendVarint(dst, uint64(v))
	}
	return dst
}

// parseRecord reads a logthra.v1.Record into b, which it resets first, and checks that its columns agree
// with one another. The lines and metadata values of b point into data. Fields that it does not know are
// passed over, so that a record with more than this program knows is still readable.
func parseRecord(b *logs.Batch, data []byte) error {
	b.Reset()
	counts := 0
	err := fields(data, func(field protowire.Number, value []byte) (err error) {
		switch field {
		case fieldStreamLabels:
			b.AddStream(string(value))
		case fieldStreamEntries:
			return varints(value, func(n uint64) error {
				if counts == len(b.Streams) || n > uint64(len(data)) {
					return errors.New("stream_entries does not match stream_labels")
				}
				b.Streams[counts].Entries = int(n)
				counts++
				return nil
			})
		case fieldTimestamps:
			if len(value)%8 != 0 {
				return errors.New("timestamps is cut short")
			}
			b.Timestamps = slices.Grow(b.Timestamps, len(value)/8)
			for ; len(value) > 0; value = value[8:] {
				ts, _ := protowire.ConsumeFixed64(value)
				b.Timestamps = append(b.Timestamps, int64(ts))
			}
		case fieldLineLengths:
			b.Lengths, err = appendUint32s(b.Lengths, value)
		case fieldLines:
			b.Lines = value
		case fieldMetadata:
			var c logs.Column
			c, err = parseColumn(value)
			b.Metadata = append(b.Metadata, c)
		}
		return err
	})
	if err != nil {
		return err
	}
	return check(b, counts)
}

func parseColumn(data []byte) (c logs.Column, err error) {
	err = fields(data, func(field protowire.Number, value []byte) (err error) {
		switch field {
		case fieldColumnName:
			c.Name = string(value)
		case fieldColumnEntries:
			c.Entries, err = appendUint32s(c.Entries, value)
		case fieldColumnLengths:
			c.Lengths, err = appendUint32s(c.Lengths, value)
		case fieldColumnValues:
			c.Values = value
		}
		return err
	})
	return c, err
}

// check tells whether the columns of a parsed record agree.
func check(b *logs.Batch, counts int) error {
	entries := 0
	for i := range b.Streams {
		entries += b.Streams[i].Entries
	}
	if counts != len(b.Streams) || entries != len(b.Timestamps) || entries != len(b.Lengths) {
		return fmt.Errorf("columns disagree: %d streams with %d counts, %d entries with %d timestamps and %d lengths",
			len(b.Streams), counts, entries, len(b.Timestamps), len(b.Lengths))
	}
	if n := sum(b.Lengths); n != uint64(len(b.Lines)) {
		return fmt.Errorf("line_lengths add up to %d, lines has %d bytes", n, len(b.Lines))
	}
	for _, ts := range b.Timestamps {
		if err := logs.CheckTime(ts); err != nil {
			return err
		}
	}
	for i := range b.Metadata {
		c := &b.Metadata[i]
		if len(c.Entries) != len(c.Lengths) || sum(c.Lengths) != uint64(len(c.Values)) {
			return fmt.Errorf("metadata %q: columns disagree", c.Name)
		}
		if !slices.IsSorted(c.Entries) || len(c.Entries) > 0 && int(c.Entries[len(c.Entries)-1]) >= entries {
			return fmt.Errorf("metadata %q: entries are not ascending below %d", c.Name, entries)
		}
	}
	return nil
}

func sum(lengths []uint32) (n uint64) {
	for _, l := range lengths {
		n += uint64(l)
	}
	return n
}

// fields calls do for each length-delimited field of a message.
func fields(data []byte, do func(protowire.Number, []byte) error) error {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(field, kind, data); n < 0 {
				return protowire.ParseError(n)
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := do(field, value); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func varints(data []byte, do func(uint64) error) error {
	for len(data) > 0 {
		v, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := do(v); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func appendUint32s(dst []uint32, data []byte) ([]uint32, error) {
	err := varints(data, func(v uint64) error {
		if v > 1<<32-1 {
			return fmt.Errorf("%d is not a uint32", v)
		}
		dst = append(dst, uint32(v))
		return nil
	})
	return dst, err
}
