// Package decode holds what the decoders of all protocols share. A decoder is a function from the bytes of
// a push, decompressed, to a logs.Batch, and knows nothing of HTTP; each protocol has a folder of its own.
package decode

import "fmt"

// Limits bound what a decoder accepts.
type Limits struct {
	MaxLineBytes int // longest line
	MaxPushBytes int // most bytes of a push, decompressed
}

// MaxMetadataNames is how many different names the metadata of one push may have.
const MaxMetadataNames = 10_000

// ErrTooManyNames is the reason given for a push with more than MaxMetadataNames.
var ErrTooManyNames = fmt.Errorf("the push has more than %d different metadata names", MaxMetadataNames)

// maxScratch is the most bytes that a pooled buffer keeps from one push to the next. Promtail and Alloy send
// pushes of 1 MiB unless told otherwise; a rare larger one must not stay in memory for ever.
const maxScratch = 4 << 20

// KeepScratch empties a buffer for the next push, or gives it up if it has grown too large to be kept.
func KeepScratch(buf []byte) []byte {
	if cap(buf) > maxScratch {
		return nil
	}
	return buf[:0]
}

// Error says what is wrong with a push, and where. It is the client's to mend: the same push would be refused again.
type Error struct {
	Where  string // path in the push, such as streams[2].values[0][1]; empty if it is the push as a whole
	Reason string
	Labels string // canonical labels of the stream, where it is known
}

func (e *Error) Error() string {
	if e.Where == "" {
		return e.Reason
	}
	return e.Where + ": " + e.Reason
}

// Place is where in a push a decoder is, for its errors.
type Place struct {
	Stream, Entry int
	Known         string // canonical labels of the stream; empty until they have been read
}

// At is the path of the stream, with what follows it.
func (p *Place) At(suffix string) string { return fmt.Sprintf("streams[%d]%s", p.Stream, suffix) }

// InEntry is the path of the entry, with what follows it. entries is what the protocol calls those of a stream.
func (p *Place) InEntry(entries, suffix string) string {
	return fmt.Sprintf("streams[%d].%s[%d]%s", p.Stream, entries, p.Entry, suffix)
}

// Fail is the error for what is wrong at a path.
func (p *Place) Fail(where, reason string) error {
	return &Error{Where: where, Reason: reason, Labels: p.Known}
}

// TooLargeError says that a push passes a limit of its size.
type TooLargeError struct{ Limit int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the push is larger than %d bytes when decompressed (--max-push-bytes)", e.Limit)
}

// LineTooLong is the reason given for a line over the limit.
func LineTooLong(size, limit int) string {
	return fmt.Sprintf("line of %d bytes is longer than %d (--max-line-bytes)", size, limit)
}
