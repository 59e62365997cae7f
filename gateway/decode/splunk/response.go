package splunk

import (
	"encoding/json"
	"strconv"

	"github.com/casteloig/logthra/gateway/decode"
)

// Codes of Splunk's answers, those that a gateway has a use for, with the HTTP status that each goes with; see
// https://docs.splunk.com/Documentation/Splunk/latest/Data/TroubleshootHTTPEventCollector.
const (
	Success          = 0  // 200
	TokenRequired    = 2  // 401
	BadAuthorization = 3  // 401
	InvalidToken     = 4  // 403
	NoData           = 5  // 400
	InvalidFormat    = 6  // 400
	ServerError      = 8  // 500
	Busy             = 9  // 503
	EventRequired    = 12 // 400
	EventBlank       = 13 // 400
	AckDisabled      = 14 // 400
	BadFields        = 15 // 400
	Healthy          = 17 // 200
)

// Text is what Splunk says with a code; empty for one that is not among the constants.
func Text(code int) string {
	switch code {
	case Success:
		return "Success"
	case TokenRequired:
		return "Token is required"
	case BadAuthorization:
		return "Invalid authorization"
	case InvalidToken:
		return "Invalid token"
	case NoData:
		return "No data"
	case InvalidFormat:
		return "Invalid data format"
	case ServerError:
		return "Internal server error"
	case Busy:
		return "Server is busy"
	case EventRequired:
		return "Event field is required"
	case EventBlank:
		return "Event field cannot be blank"
	case AckDisabled:
		return "ACK is disabled"
	case BadFields:
		return "Error in handling indexed fields"
	case Healthy:
		return "HEC is healthy"
	}
	return ""
}

// NoEvent is the number of the event where an answer is not about one.
const NoEvent = -1

// AppendResponse appends the JSON that answers a request: {"text":"Invalid data format","code":6,"invalid-event-number":3}.
// event counts from 0, and is left out where it is negative.
func AppendResponse(dst []byte, code int, text string, event int) []byte {
	quoted, _ := json.Marshal(text) // a string never fails
	dst = append(dst, `{"text":`...)
	dst = append(dst, quoted...)
	dst = append(dst, `,"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	if event >= 0 {
		dst = append(dst, `,"invalid-event-number":`...)
		dst = strconv.AppendInt(dst, int64(event), 10)
	}
	return append(dst, '}')
}

// Error is a refusal as Splunk would put it. The *decode.Error in it says what is wrong, and where.
type Error struct {
	Code  int    // one that goes with the HTTP status 400
	Text  string // Splunk's text for the code
	Event int    // the first event that is at fault, counted from 0; NoEvent if it is none
	Cause *decode.Error
}

func (e *Error) Error() string { return e.Cause.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

func refuse(code, event int, cause *decode.Error) *Error {
	return &Error{Code: code, Text: Text(code), Event: event, Cause: cause}
}

// noData is the error for a push without events.
func noData() error {
	return refuse(NoData, NoEvent, &decode.Error{Reason: "there is no event in the push"})
}
