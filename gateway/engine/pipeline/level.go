package pipeline

import (
	"github.com/casteloig/logthra/shared/logs"
)

// The level of an entry, detected_level, is
//   - of the first label of its stream that is one of LevelNames, in their order, or else of the first of its metadata that is: the level of its value's
//     word in LevelWords, in lower case, or UnknownLevel if it is no such word;
//   - or else of the word that LevelExpression captures in the line, in lower case: its level in LevelWords;
//   - or else the level of the first of LevelKeywords whose expression matches the line, in lower case;
//   - or else UnknownLevel.
//
// Names are as they were sent, and those with an empty value do not count. Lower case is that of ASCII alone. All expressions are of ASCII, have neither flags nor
// negated classes, and so mean the same to whatever reads RE2, in lines that are not UTF-8, too.
const (
	UnknownLevel = "unknown"

	// LevelExpression finds the level where a line has it as a field: level=info, "severity": "ERROR". It is for lines in lower case.
	LevelExpression = `\b(?:level|lvl|severity|log_level|loglevel|levelname)\\?["']?\s*[=:]\s*\\?["']?(trace|trc|debug|dbg|information|info|inf|notice|warning|warn|wrn|error|err|severe|critical|crit|alert|emergency|emerg|fatal|panic)\b`
)

// LevelNames are the labels that say what the level is.
var LevelNames = []string{"level", "LEVEL", "Level", "log_level", "severity", "SEVERITY", "Severity", "severity_text", "lvl", "loglevel"}

// LevelWord is a word for a level.
type LevelWord struct{ Word, Level string }

// LevelWords are the words that are known, those that LevelExpression captures.
var LevelWords = []LevelWord{
	{"trace", "trace"}, {"trc", "trace"},
	{"debug", "debug"}, {"dbg", "debug"},
	{"information", "info"}, {"info", "info"}, {"inf", "info"}, {"notice", "info"},
	{"warning", "warn"}, {"warn", "warn"}, {"wrn", "warn"},
	{"error", "error"}, {"err", "error"}, {"severe", "error"},
	{"critical", "critical"}, {"crit", "critical"},
	{"alert", "fatal"}, {"emergency", "fatal"}, {"emerg", "fatal"}, {"fatal", "fatal"}, {"panic", "fatal"},
}

// LevelKeyword is an expression for lines in lower case that have a level's word anywhere.
type LevelKeyword struct{ Expression, Level string }

// LevelKeywords are tried in this order.
var LevelKeywords = []LevelKeyword{
	{`\b(?:fatal|panic)\b`, "fatal"},
	{`\bcritical\b`, "critical"},
	{`\b(?:error|err)\b`, "error"},
	{`\b(?:warning|warn)\b`, "warn"},
	{`\binfo\b`, "info"},
	{`\bdebug\b`, "debug"},
	{`\btrace\b`, "trace"},
}

// SetLevel gives an entry the label detected_level, as metadata, unless its stream or its metadata have one. line is the line before any stage. The level is
// found out when somebody asks for it; line must not change until then.
func (l *Labels) SetLevel(line []byte) {
	if l.line == nil && l.find(LevelLabel) < 0 {
		l.line, l.hasLevel = line, true
		if line == nil {
			l.line = []byte{}
		}
	}
}

func (l *Labels) detectLevel() {
	l.hasLevel = false
	l.add(label{name: LevelLabel, value: DetectLevel(l, l.line), kind: Metadata})
}

// DetectLevel finds out the level of an entry, by its labels before any stage, and its line: trace, debug, info, warn, error, critical, fatal or unknown.
func DetectLevel(labels *Labels, line []byte) string {
	for _, list := range [][]logs.Label{labels.stream, labels.metadata} {
		best, value := len(LevelNames), ""
		for _, label := range list {
			if label.Value == "" {
				continue
			}
			if rank := levelRank(label.Name); rank < best {
				best, value = rank, label.Value
			}
		}
		if value != "" {
			return levelOfWord(value)
		}
	}
	if level := levelOfField(line); level != "" {
		return level
	}
	return levelOfKeywords(line)
}

// levelRank is the index of a name in LevelNames, or their number if it is not there.
func levelRank(name string) int {
	switch len(name) {
	case len("lvl"), len("level"), len("severity"), len("log_level"), len("severity_text"):
		for i, n := range LevelNames {
			if n == name {
				return i
			}
		}
	}
	return len(LevelNames)
}

// maxLevelWord is the length of the longest of LevelWords and of the names in LevelExpression.
const maxLevelWord = len("information")

// levelOfWord is the level of a word of LevelWords in any case, or UnknownLevel.
func levelOfWord(word string) string {
	if len(word) <= maxLevelWord {
		var buffer [maxLevelWord]byte
		lowered := buffer[:len(word)]
		for i := range lowered {
			lowered[i] = lower(word[i])
		}
		for _, w := range LevelWords {
			if w.Word == string(lowered) {
				return w.Level
			}
		}
	}
	return UnknownLevel
}

// levelOfField is the level of what LevelExpression captures in a line, or empty without a match. There is one separator in a match, and what is before
// it holds none, so the first separator with a match around it is that of the first match.
func levelOfField(line []byte) string {
	s := view(line)
	for i := range len(s) {
		if c := s[i]; c != '=' && c != ':' || i == 0 || i+1 == len(s) {
			continue
		}
		if !isLevelName(wordBefore(s[:i])) {
			continue
		}
		if level := levelOfWord(wordBehind(s[i+1:])); level != UnknownLevel {
			return level
		}
	}
	return ""
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' && c != '\v' }

func isQuote(c byte) bool { return c == '"' || c == '\'' }

// wordBefore is the word at the end of s, before spaces and a quote.
func wordBefore(s string) string {
	end := len(s)
	for end > 0 && isSpace(s[end-1]) {
		end--
	}
	if end > 0 && isQuote(s[end-1]) {
		end--
	}
	if end > 0 && s[end-1] == '\\' {
		end--
	}
	from := end
	for from > 0 && nameByte[s[from-1]] {
		from--
	}
	return s[from:end]
}

// wordBehind is the word at the beginning of s, behind spaces and a quote.
func wordBehind(s string) string {
	from := 0
	for from < len(s) && isSpace(s[from]) {
		from++
	}
	if from < len(s) && s[from] == '\\' {
		from++
	}
	if from < len(s) && isQuote(s[from]) {
		from++
	}
	end := from
	for end < len(s) && nameByte[s[end]] {
		end++
	}
	return s[from:end]
}

// isLevelName tells whether a word is one of the names in LevelExpression.
func isLevelName(word string) bool {
	switch len(word) {
	case len("lvl"):
		return equalFold(word, "lvl")
	case len("level"):
		return equalFold(word, "level")
	case len("severity"):
		return equalFold(word, "severity") || equalFold(word, "loglevel")
	case len("log_level"):
		return equalFold(word, "log_level") || equalFold(word, "levelname")
	}
	return false
}

// equalFold compares with text in lower case, whatever the case of ASCII.
func equalFold(s, text string) bool {
	for i := range len(text) {
		if lower(s[i]) != text[i] {
			return false
		}
	}
	return true
}

// levelOfKeywords is the level of the first of LevelKeywords that a line matches, or UnknownLevel.
func levelOfKeywords(line []byte) string {
	s := view(line)
	best := len(LevelKeywords)
	for i := 0; i < len(s); {
		if !nameByte[s[i]] {
			i++
			continue
		}
		end := i + 1
		for end < len(s) && nameByte[s[end]] {
			end++
		}
		if rank := keywordRank(s[i:end]); rank < best {
			best = rank
		}
		i = end
	}
	if best == len(LevelKeywords) {
		return UnknownLevel
	}
	return LevelKeywords[best].Level
}

// keywordRank is the index of the one of LevelKeywords that a word matches, or their number.
func keywordRank(word string) int {
	switch len(word) {
	case 3:
		if equalFold(word, "err") {
			return 2
		}
	case 4:
		switch {
		case equalFold(word, "warn"):
			return 3
		case equalFold(word, "info"):
			return 4
		}
	case 5:
		switch {
		case equalFold(word, "fatal"), equalFold(word, "panic"):
			return 0
		case equalFold(word, "error"):
			return 2
		case equalFold(word, "debug"):
			return 5
		case equalFold(word, "trace"):
			return 6
		}
	case 7:
		if equalFold(word, "warning") {
			return 3
		}
	case 8:
		if equalFold(word, "critical") {
			return 1
		}
	}
	return len(LevelKeywords)
}
