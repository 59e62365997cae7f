package gateway

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/shared/logs"
)

// maxZstdWindow is the largest window, in bytes, that a zstd body may ask for (RFC 8878, section 3.1.1.1.2,
// recommends to support 8 MB).
const maxZstdWindow = 8 << 20

// firstRead is the size in bytes of a new buffer for bodies, and maxPooledBody the largest that is kept.
const (
	firstRead     = 64 << 10
	maxPooledBody = 4 << 20
)

// body is a push as it came, decompressed. It holds bytes of the memory ceiling until it is closed.
type body struct {
	data   []byte
	budget *budget
	held   int64
}

var bodies = sync.Pool{New: func() any { return &body{data: make([]byte, 0, firstRead)} }}

// readBody reads a body to its end through the decoder of its content encoding. It takes from the budget what
// it needs while it reads.
//
// Errors: *decode.TooLargeError, before more than limit bytes were decompressed; errBusy, where the budget is used
// up; *decode.Error, where the body is not what its encoding says.
func readBody(from io.Reader, encoding string, limit int, budget *budget) (*body, error) {
	b := bodies.Get().(*body)
	b.data, b.budget, b.held = b.data[:0], budget, 0
	if err := b.read(from, strings.ToLower(strings.TrimSpace(encoding)), limit); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// close gives the memory back. The data is not to be used any more.
func (b *body) close() {
	b.budget.Release(b.held)
	b.held = 0
	if firstRead <= cap(b.data) && cap(b.data) <= maxPooledBody {
		bodies.Put(b)
	}
}

func (b *body) read(from io.Reader, encoding string, limit int) error {
	source := &io.LimitedReader{R: from, N: int64(limit) + 1} // what is too large compressed is too large
	var err error
	switch encoding {
	case "", "identity":
		err = b.fill(source, limit)
	case "gzip":
		err = b.gunzip(source, limit)
	case "deflate":
		err = b.inflate(source, limit)
	case "zstd":
		err = b.unzstd(source, limit)
	case "snappy":
		err = b.unsnap(source, limit)
	default:
		return &decode.Error{Reason: fmt.Sprintf("content encoding %q is none of gzip, deflate, zstd, snappy, identity", logs.Clip(encoding))}
	}
	var large *decode.TooLargeError
	switch {
	case errors.As(err, &large) || errors.Is(err, errBusy):
		return err
	case source.N <= 0: // also where the decoder saw no more than a good end
		return &decode.TooLargeError{Limit: limit}
	case err == nil:
		return nil
	case encoding == "":
		return &decode.Error{Reason: "the body broke off: " + err.Error()}
	}
	return &decode.Error{Reason: fmt.Sprintf("the body is not whole %s: %v", encoding, err)}
}

// fill reads to the end, growing the data as it comes.
func (b *body) fill(from io.Reader, limit int) error {
	if err := b.hold(cap(b.data), 0); err != nil {
		return err
	}
	for {
		if len(b.data) == cap(b.data) {
			if err := b.hold(2*cap(b.data), len(b.data)); err != nil {
				return err
			}
			grown := make([]byte, len(b.data), 2*cap(b.data))
			copy(grown, b.data)
			b.data = grown
		}
		n, err := from.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		if len(b.data) > limit {
			return &decode.TooLargeError{Limit: limit}
		}
		if errors.Is(err, io.EOF) {
			return b.hold(cap(b.data), len(b.data))
		}
		if err != nil {
			return err
		}
	}
}

// holdObjects takes from the budget what the data needs as JSON, any of whose objects may be an entry: as short as {},
// an entry takes many times what stands for it.
func (b *body) holdObjects() (size int, err error) {
	return len(b.data), b.hold(cap(b.data)+2*entryMemory*bytes.Count(b.data, []byte{'{'}), len(b.data))
}

// hold takes from the budget, on top of what it took before, what a push needs: its buffers, and what is made
// of its size in bytes.
func (b *body) hold(buffers, size int) error {
	want := int64(buffers) + memoryFactor*int64(size) - b.held
	if want <= 0 {
		return nil
	}
	if !b.budget.TryAcquire(want) {
		return errBusy
	}
	b.held += want
	return nil
}

// shrink gives back what was taken for more than the data itself.
func (b *body) shrink() {
	if more := b.held - int64(cap(b.data)); more > 0 {
		b.budget.Release(more)
		b.held -= more
	}
}

var gzips, flates, zstds sync.Pool

func (b *body) gunzip(from io.Reader, limit int) (err error) {
	r, ok := gzips.Get().(*gzip.Reader)
	if ok {
		err = r.Reset(from)
	} else {
		r, err = gzip.NewReader(from)
	}
	if err != nil {
		return err
	}
	defer gzips.Put(r)
	return b.fill(r, limit)
}

// inflate reads deflate, which HTTP defines as a zlib stream (RFC 9110, section 8.4.1.2) and many clients
// send without zlib's header.
func (b *body) inflate(from io.Reader, limit int) error {
	buffered := bufio.NewReader(from)
	if head, err := buffered.Peek(2); err == nil && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		r, err := zlib.NewReader(buffered)
		if err != nil {
			return err
		}
		return b.fill(r, limit)
	}
	r, ok := flates.Get().(io.ReadCloser)
	if !ok {
		r = flate.NewReader(buffered)
	} else if err := r.(flate.Resetter).Reset(buffered, nil); err != nil {
		return err
	}
	defer flates.Put(r)
	return b.fill(r, limit)
}

// unzstd counts the window of the first frame, too: the decoder allocates it whatever the body turns out to
// be. Frames that follow, if any, are taken to be alike.
func (b *body) unzstd(from io.Reader, limit int) (err error) {
	buffered := bufio.NewReader(from)
	var header zstd.Header
	if head, _ := buffered.Peek(zstd.HeaderMaxSize); len(head) > 0 {
		if err := header.Decode(head); err != nil {
			return err
		}
	}
	window := header.WindowSize
	if header.SingleSegment {
		window = header.FrameContentSize
	}
	switch {
	case header.FrameContentSize > uint64(limit):
		return &decode.TooLargeError{Limit: limit}
	case window > maxZstdWindow:
		return zstd.ErrWindowSizeExceeded
	}
	if !b.budget.TryAcquire(int64(window)) {
		return errBusy
	}
	defer b.budget.Release(int64(window))

	r, ok := zstds.Get().(*zstd.Decoder)
	if ok {
		err = r.Reset(buffered)
	} else {
		r, err = zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	}
	if err != nil {
		return err
	}
	defer zstds.Put(r)
	return b.fill(r, limit)
}

// unsnap reads the block format of snappy, which has no stream: it takes the whole body first.
func (b *body) unsnap(from io.Reader, limit int) error {
	if err := b.fill(from, limit); err != nil {
		return err
	}
	_, err := b.holdBlock(limit)
	if err != nil {
		return err
	}
	b.data, err = snappy.Decode(nil, b.data)
	return err
}

// holdBlock takes from the budget what the data needs as a snappy block that is going to be decompressed,
// and returns its size then.
func (b *body) holdBlock(limit int) (size int, err error) {
	size, err = snappy.DecodedLen(b.data)
	if err != nil {
		return 0, &decode.Error{Reason: "the push is not a valid snappy block"}
	}
	if size > limit {
		return 0, &decode.TooLargeError{Limit: limit}
	}
	return size, b.hold(cap(b.data)+size, size)
}
