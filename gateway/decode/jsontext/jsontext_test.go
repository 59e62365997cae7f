package jsontext

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// whole reads a document of one value.
func whole(document string) (raw []byte, err error) {
	var r Reader
	r.Reset([]byte(document))
	if raw, err = r.Raw(); err == nil {
		err = r.End()
	}
	return raw, err
}

func TestRaw(t *testing.T) {
	for document, want := range map[string]string{
		" {\"a\" : [1, -0.5e+7, \"x\\n\", true, false, null, {}]}\n": "{\"a\" : [1, -0.5e+7, \"x\\n\", true, false, null, {}]}",
		"\ufeff[]":     "[]",
		"0":            "0",
		`"\ud83d"`:     `"\ud83d"`,
		"\"\x01\xff\"": "\"\x01\xff\"",
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth): strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
	} {
		if got, err := whole(document); err != nil || string(got) != want {
			t.Errorf("%q: read %q (%v)", document, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for document, want := range map[string]string{
		"":                              "offset 0: want a value, got the end",
		"[1,]":                          `offset 3: want a value, got "]"`,
		"[1 2]":                         `offset 3: want ',' or ']', got "2"`,
		`{"a" 1}`:                       `offset 5: want ':', got "1"`,
		`{"a":1,}`:                      `offset 7: want a key, got "}"`,
		`{1}`:                           `offset 1: want a key or '}', got "1"`,
		`"abc`:                          "offset 4: the string that begins at offset 0 has no end",
		`"a\`:                           "offset 3: the string that begins at offset 0 has no end",
		`"\x"`:                          `offset 1: bad escape "\\x"`,
		`"\u12g4"`:                      `offset 1: bad escape "\\u12g4"`,
		"01":                            "offset 1: want the end of the document, got \"1\"",
		"-":                             "offset 1: want a digit, got the end",
		"1.":                            "offset 2: want a digit, got the end",
		"1e+":                           "offset 3: want a digit, got the end",
		"tru":                           "offset 3: want true, got the end",
		"nul1":                          "offset 3: want null, got \"1\"",
		"{} {}":                         "offset 3: want the end of the document, got \"{\"",
		"\ufeff\ufeff":                  `offset 3: want a value, got "\ufeff"`,
		strings.Repeat("[", MaxDepth+1): "offset 64: nested deeper than 64",
		strings.Repeat(`{"a":`, MaxDepth+1) + "{": "offset 320: nested deeper than 64",
	} {
		if got, err := whole(document); err == nil || err.Error() != want {
			t.Errorf("%q: read %q, the error is %v, want %s", document, got, err, want)
		}
	}
}

func TestMismatch(t *testing.T) {
	for document, want := range map[string]string{
		`"a"`: "a.b: want an object, got string", "-1": "a.b: want an object, got number", "[]": "a.b: want an object, got array",
		"true": "a.b: want an object, got boolean", "null": "a.b: want an object, got null", "": "offset 0: want an object, got the end",
	} {
		r := Reader{Data: []byte(document)}
		if err := r.Open('{', "a.b", "an object"); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", document, err, want)
		}
	}
}

// FuzzReader holds the reader against the standard library's.
func FuzzReader(f *testing.F) {
	for _, document := range []string{`{"a":[1,-2.5e3,"x\u00e9\ud83d\ude00",true,null]}`, `"\\\"\/\b\f\n\r\t"`, "[[[]]]", `{"a":1,"a":2}`, "\"tab\there\""} {
		f.Add([]byte(document))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		var r Reader
		r.Reset(document)
		_, err := r.Raw()
		if err == nil {
			err = r.End()
		}
		if json.Valid(document) && err != nil && !strings.Contains(err.Error(), "nested deeper") {
			t.Fatalf("%q is valid, and refused: %v", document, err)
		}
		var want string
		if err != nil || !utf8.Valid(document) || json.Unmarshal(document, &want) != nil {
			return
		}
		r.Reset(document)
		r.Peek()
		var plain []byte
		if document[r.Pos] == 'n' {
			return // null leaves the string as it is
		}
		plain, err = r.String()
		if err != nil || string(plain) != want {
			t.Fatalf("%q: read %q (%v), want %q", document, plain, err, want)
		}
		r.Reset(document)
		r.Peek()
		if plain, err = r.AppendString([]byte("> ")); err != nil || string(plain) != "> "+want {
			t.Fatalf("%q: appended %q (%v), want %q", document, plain, err, want)
		}
	})
}
