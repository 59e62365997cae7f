package elastic

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strconv"
)

// AppendResponse appends the answer to a bulk, a status of 200 whatever became of the items: clients look at errors
// first, and then at the status of each item, which they know by its place. An item without an id gets one here, as
// Elasticsearch would give it: 20 random characters. took is in milliseconds.
func AppendResponse(dst []byte, items []Item, took int64) []byte {
	refused := false
	for i := range items {
		refused = refused || items[i].Entry < 0
	}
	// Fluent Bit reads 4 KiB of the answer unless told otherwise, and searches what it got for
	// "errors":false,"items":[ with nothing between.
	dst = strconv.AppendInt(append(dst, `{"took":`...), took, 10)
	dst = strconv.AppendBool(append(dst, `,"errors":`...), refused)
	dst = append(dst, `,"items":[`...)
	for i := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendItem(dst, &items[i])
	}
	return append(dst, "]}"...)
}

func appendItem(dst []byte, item *Item) []byte {
	dst = append(append(dst, `{"`...), item.Action...)
	dst = appendString(append(dst, `":{"_index":`...), item.Index)
	dst = append(dst, `,"_id":`...)
	if item.ID == "" {
		dst = appendID(dst)
	} else {
		dst = appendString(dst, item.ID)
	}
	if item.Entry < 0 {
		dst = strconv.AppendInt(append(dst, `,"status":`...), int64(item.Status), 10)
		dst = appendCause(append(dst, `,"error":{`...), item.Type, item.Reason)
		return append(dst, "}}}"...)
	}
	dst = append(dst, `,"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":`...)
	dst = strconv.AppendInt(dst, int64(item.Entry), 10)
	dst = strconv.AppendInt(append(dst, `,"_primary_term":1,"status":`...), int64(item.Status), 10)
	return append(dst, "}}"...)
}

// AppendError appends the body of an answer that refuses a request as a whole, with a status of HTTP and the type of
// error that it stands for in Elasticsearch.
func AppendError(dst []byte, status int, kind, reason string) []byte {
	dst = appendCause(append(dst, `{"error":{"root_cause":[{`...), kind, reason)
	dst = appendCause(append(dst, `}],`...), kind, reason)
	dst = strconv.AppendInt(append(dst, `},"status":`...), int64(status), 10)
	return append(dst, '}')
}

func appendCause(dst []byte, kind, reason string) []byte {
	dst = appendString(append(dst, `"type":`...), kind)
	return appendString(append(dst, `,"reason":`...), reason)
}

// appendString appends a JSON string. What is not UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // no string fails
			return append(dst, text...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

// appendID appends an id that nobody gave. Nothing is ever looked up by it.
func appendID(dst []byte) []byte {
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:], rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], rand.Uint64())
	return append(base64.RawURLEncoding.AppendEncode(append(dst, '"'), raw[:15]), '"')
}
