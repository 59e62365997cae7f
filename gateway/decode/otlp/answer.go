package otlp

import (
	"encoding/json"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/casteloig/logthra/gateway/decode"
)

// Field numbers of ExportLogsServiceResponse, ExportLogsPartialSuccess and google.rpc.Status.
const (
	responsePartial = 1
	partialRejected = 1
	partialMessage  = 2
	statusCode      = 1
	statusMessage   = 2
)

// AppendResponse appends the answer to a push that was taken, an ExportLogsServiceResponse. Where nothing was left out it
// is empty. https://opentelemetry.io/docs/specs/otlp/#partial-success-1
func AppendResponse(dst []byte, left decode.Partial) []byte {
	if left.Rejected == 0 {
		return dst
	}
	var partial []byte
	partial = protowire.AppendVarint(protowire.AppendTag(partial, partialRejected, protowire.VarintType), uint64(left.Rejected))
	partial = protowire.AppendString(protowire.AppendTag(partial, partialMessage, protowire.BytesType), left.Reason)
	return protowire.AppendBytes(protowire.AppendTag(dst, responsePartial, protowire.BytesType), partial)
}

// AppendResponseJSON is AppendResponse for a push that came as JSON.
func AppendResponseJSON(dst []byte, left decode.Partial) []byte {
	type partial struct {
		RejectedLogRecords int    `json:"rejectedLogRecords,string"` // JSON's mapping of an int64
		ErrorMessage       string `json:"errorMessage"`
	}
	var response struct {
		PartialSuccess *partial `json:"partialSuccess,omitempty"`
	}
	if left.Rejected > 0 {
		response.PartialSuccess = &partial{left.Rejected, left.Reason}
	}
	return appendJSON(dst, response)
}

// AppendStatus appends the answer to a push that was refused, a google.rpc.Status. code is one of gRPC's.
// https://opentelemetry.io/docs/specs/otlp/#failures-1
func AppendStatus(dst []byte, code int, message string) []byte {
	dst = protowire.AppendVarint(protowire.AppendTag(dst, statusCode, protowire.VarintType), uint64(code))
	return protowire.AppendString(protowire.AppendTag(dst, statusMessage, protowire.BytesType), message)
}

// AppendStatusJSON is AppendStatus for a push that came as JSON.
func AppendStatusJSON(dst []byte, code int, message string) []byte {
	return appendJSON(dst, struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{code, message})
}

func appendJSON(dst []byte, value any) []byte {
	text, err := json.Marshal(value)
	if err != nil { // can't be: strings and numbers
		panic(err)
	}
	return append(dst, text...)
}
