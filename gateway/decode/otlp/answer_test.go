package otlp

import (
	"testing"

	"github.com/casteloig/logthra/gateway/decode"
	"github.com/casteloig/logthra/gateway/decode/decodetest"
	"github.com/casteloig/logthra/gateway/decode/wire"
)

// integerAndText reads a message of nothing but an integer in field 1 and a string in field 2.
func integerAndText(t *testing.T, data []byte) (n int64, text string) {
	t.Helper()
	for m := (wire.Message{Rest: data}); len(m.Rest) > 0; {
		field, err := m.Next()
		decodetest.Must(t, err)
		switch field {
		case 1:
			n, err = m.Int64()
		case 2:
			var value []byte
			value, err = m.Bytes()
			text = string(value)
		default:
			t.Fatalf("field %d", field)
		}
		decodetest.Must(t, err)
	}
	return n, text
}

func TestResponse(t *testing.T) {
	if got := AppendResponse(nil, decode.Partial{}); len(got) != 0 {
		t.Errorf("%x", got)
	}
	if got := string(AppendResponseJSON([]byte("x"), decode.Partial{})); got != "x{}" {
		t.Error(got)
	}
	left := decode.Partial{Rejected: 300, Reason: "resourceLogs[0]: \"é\""}
	const prefix = "x"
	answer := AppendResponse([]byte(prefix), left)
	m := wire.Message{Rest: answer[len(prefix):]}
	field, err := m.Next()
	decodetest.Must(t, err)
	partial, err := m.Bytes()
	decodetest.Must(t, err)
	n, text := integerAndText(t, partial)
	if field != 1 || len(m.Rest) > 0 || n != 300 || text != left.Reason {
		t.Errorf("field %d: %d, %q, and %x more", field, n, text, m.Rest)
	}
	if got, want := string(AppendResponseJSON(nil, left)), `{"partialSuccess":{"rejectedLogRecords":"300","errorMessage":"resourceLogs[0]: \"é\""}}`; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestStatus(t *testing.T) {
	n, text := integerAndText(t, AppendStatus(nil, 8, "too many"))
	if n != 8 || text != "too many" {
		t.Errorf("%d, %q", n, text)
	}
	if got, want := string(AppendStatusJSON(nil, 3, `bad "push"`)), `{"code":3,"message":"bad \"push\""}`; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}
