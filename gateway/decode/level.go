package decode

// LevelField is the label of the severity, and the first of the names of LevelFields.
const LevelField = "level"

// LevelFields are the names under which documents have a severity; of several the first counts whose text Level knows. The
// last is that of the OpenTelemetry Collector's exporter to Splunk.
var LevelFields = []string{LevelField, "severity", "log.level", "severity_text", "levelname", "lvl", "otel.log.severity.text"}

// maxLevelWord is the length in bytes of the longest word that Level knows.
const maxLevelWord = len("informational")

// Level is the level that a severity's text names: trace, debug, info, warn, error or fatal, the value of the label of
// that name in every protocol. It is empty where the text is no such word; case does not count.
func Level(text []byte) string {
	if len(text) > maxLevelWord {
		return ""
	}
	var lower [maxLevelWord]byte
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	switch string(lower[:len(text)]) {
	case "trace", "trace2", "trace3", "trace4", "verbose", "finest":
		return "trace"
	case "debug", "debug2", "debug3", "debug4", "dbg", "fine":
		return "debug"
	case "info", "info2", "info3", "info4", "information", "informational", "notice", "inf":
		return "info"
	case "warn", "warn2", "warn3", "warn4", "warning", "wrn":
		return "warn"
	case "error", "error2", "error3", "error4", "err", "severe":
		return "error"
	case "fatal", "fatal2", "fatal3", "fatal4", "critical", "crit", "alert", "emerg", "emergency", "panic", "dpanic":
		return "fatal"
	}
	return ""
}

// LevelOfNumber is the level of a severity number of OpenTelemetry, 1 to 24; empty for any other.
// https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
func LevelOfNumber(n int64) string {
	if n < 1 || n > 24 {
		return ""
	}
	return [...]string{"trace", "debug", "info", "warn", "error", "fatal"}[(n-1)/4]
}
