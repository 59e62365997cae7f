package query

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	fastgzip "github.com/klauspost/compress/gzip"
	"github.com/labstack/echo/v4"

	"github.com/casteloig/logthra/shared/logs"
)

// Sizes of answers, in bytes: from which on one is compressed; how much is gathered before it is sent; how much memory is kept for
// the next answer.
const (
	minCompress = 1 << 10
	flushBytes  = 32 << 10
	maxPooled   = 128 << 10
)

// writer writes JSON. An answer is sent as it is made, compressed if the client takes that, but nothing of it before flushBytes are
// there or end is called. Errors of the connection are kept, and are what end returns.
type writer struct {
	buf []byte

	response *echo.Response   // nil: all is gathered in buf
	gzip     *fastgzip.Writer // it is kept for the next answer
	out      io.Writer        // nil: nothing has been sent
	compress bool             // the client takes gzip
	timeout  time.Duration    // for all of the answer to be sent; 0: none
	err      error
}

// writer returns one for a request. Release it.
func (a *API) writer(c echo.Context) *writer {
	w := a.writers.Get().(*writer)
	w.response = c.Response()
	w.compress = takesGzip(c.Request().Header)
	return w
}

func (a *API) release(w *writer) {
	if cap(w.buf) > maxPooled {
		w.buf = nil
	}
	*w = writer{buf: w.buf[:0], gzip: w.gzip}
	a.writers.Put(w)
}

// takesGzip tells whether a client says that it does (RFC 9110, section 12.5.3).
func takesGzip(header http.Header) bool {
	for coding := range strings.SplitSeq(strings.Join(header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(coding), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			return !strings.HasPrefix(strings.ReplaceAll(weight, " ", ""), "q=0") || strings.ContainsAny(weight, "123456789")
		}
	}
	return false
}

// begin sends the header. Of an answer that is all in buf it tells the length.
func (w *writer) begin(all bool) {
	if w.timeout > 0 {
		w.deadline(time.Now().Add(w.timeout))
	}
	header := w.response.Header()
	header.Set(echo.HeaderContentType, "application/json; charset=UTF-8")
	header.Add(echo.HeaderVary, echo.HeaderAcceptEncoding)
	w.out = w.response
	switch {
	case w.compress && len(w.buf) >= minCompress:
		header.Set(echo.HeaderContentEncoding, "gzip")
		if w.gzip == nil {
			w.gzip, _ = fastgzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one
		}
		w.gzip.Reset(w.response)
		w.out = w.gzip
	case all:
		header.Set(echo.HeaderContentLength, strconv.Itoa(len(w.buf)))
	}
	w.response.WriteHeader(http.StatusOK)
}

// deadline is until when what is written has to be sent; zero: there is none.
func (w *writer) deadline(t time.Time) {
	err := http.NewResponseController(w.response.Writer).SetWriteDeadline(t)
	if err != nil && w.err == nil && !errors.Is(err, http.ErrNotSupported) {
		w.err = err
	}
}

// flush sends what was gathered.
func (w *writer) flush() {
	if w.out == nil {
		w.begin(false)
	}
	if w.err == nil {
		_, w.err = w.out.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

// end sends the rest.
func (w *writer) end() error {
	if w.out == nil {
		w.begin(true)
	}
	w.flush()
	if w.err == nil && w.out == w.gzip {
		w.err = w.gzip.Close()
	}
	if w.err == nil && w.timeout > 0 {
		if w.err = http.NewResponseController(w.response.Writer).Flush(); errors.Is(w.err, http.ErrNotSupported) {
			w.err = nil
		}
		w.deadline(time.Time{}) // for the connection's next request
	}
	return w.err
}

// raw appends JSON.
func (w *writer) raw(json string) {
	w.buf = append(w.buf, json...)
	if len(w.buf) >= flushBytes && w.response != nil {
		w.flush()
	}
}

// comma appends one before all but the first of a list.
func (w *writer) comma(i int) {
	if i > 0 {
		w.raw(",")
	}
}

// text appends a string.
func (w *writer) text(s string) {
	w.buf = appendText(w.buf, s)
	w.raw("")
}

// texts appends a list of strings.
func (w *writer) texts(all []string) {
	w.raw("[")
	for i, s := range all {
		w.comma(i)
		w.text(s)
	}
	w.raw("]")
}

func (w *writer) integer(n int64) { w.buf = strconv.AppendInt(w.buf, n, 10) }

func (w *writer) count(n uint64) { w.buf = strconv.AppendUint(w.buf, n, 10) }

// seconds appends a duration.
func (w *writer) seconds(d time.Duration) {
	w.buf = strconv.AppendFloat(w.buf, d.Seconds(), 'f', -1, 64)
}

// at appends a time as metric queries have it: seconds, with milliseconds if there are any.
func (w *writer) at(unixNano int64) {
	w.buf = strconv.AppendFloat(w.buf, float64(unixNano/1e6)/1e3, 'f', -1, 64)
}

// value appends a value as metric queries have it: a string, since JSON has no NaN.
func (w *writer) value(v float64) {
	w.buf = append(w.buf, '"')
	w.buf = strconv.AppendFloat(w.buf, v, 'f', -1, 64)
	w.buf = append(w.buf, '"')
}

// nanos appends a time as entries have it: a string, since a number of that size is not exact in JSON.
func (w *writer) nanos(unixNano int64) {
	w.buf = append(w.buf, '"')
	w.buf = strconv.AppendInt(w.buf, unixNano, 10)
	w.buf = append(w.buf, '"')
}

// labels appends an object of labels.
func (w *writer) labels(labels []logs.Label) {
	w.raw("{")
	for i, l := range labels {
		w.comma(i)
		w.text(l.Name)
		w.raw(":")
		w.text(l.Value)
	}
	w.raw("}")
}

// appendText appends a JSON string. What is not UTF-8 becomes U+FFFD.
func appendText(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0 // what is not copied yet
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
			dst = append(append(dst, s[from:i]...), "\ufffd"...)
		} else {
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
