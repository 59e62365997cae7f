package pipeline

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// analysis is what is known of a regular expression without running it.
type analysis struct {
	// literals are all texts that it matches, if they are few: what contains one of them contains a match, and nothing else does.
	literals []string
	// foldsASCII: literals are lower case, and upper case of ASCII matches as well.
	foldsASCII bool
	// required is text that is in all that it matches; nil: not known.
	required []byte
}

// maxLiterals is how many texts an expression may stand for to be looked for without it.
const maxLiterals = 32

// maxFolded is how long a text may be to be looked for whatever its case: that takes as much time as it is long, in the worst case.
const maxFolded = 64

// analyze looks into an expression that compiles with these flags beside those of Perl. An expression that has to match somewhere in a line loses
// nothing with what .* there is at its ends.
func analyze(expression string, flags syntax.Flags) analysis {
	re, err := syntax.Parse(expression, syntax.Perl|flags)
	if err != nil {
		return analysis{}
	}
	re = re.Simplify()
	var a analysis
	if required := required(re); len(required) > 0 {
		a.required = []byte(required)
	}
	re = withoutEnds(re)
	if literals, ok := literals(re); ok {
		a.literals = literals
	} else if text, ok := folded(re); ok && len(text) <= maxFolded {
		a.literals, a.foldsASCII = []string{text}, true
	}
	return a
}

// withoutEnds leaves out .* at the beginning and the end.
func withoutEnds(re *syntax.Regexp) *syntax.Regexp {
	if re.Op != syntax.OpConcat {
		return re
	}
	isAny := func(re *syntax.Regexp) bool {
		return re.Op == syntax.OpStar && (re.Sub[0].Op == syntax.OpAnyCharNotNL || re.Sub[0].Op == syntax.OpAnyChar)
	}
	subs := re.Sub
	for len(subs) > 0 && isAny(subs[0]) {
		subs = subs[1:]
	}
	for len(subs) > 0 && isAny(subs[len(subs)-1]) {
		subs = subs[:len(subs)-1]
	}
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: subs, Flags: re.Flags}
}

// literals are the texts that an expression stands for, in any order, if they are few.
func literals(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 || slices.Contains(re.Rune, utf8.RuneError) {
			return nil, false
		}
		return []string{string(re.Rune)}, true
	case syntax.OpCharClass:
		var all []string
		for i := 0; i < len(re.Rune); i += 2 {
			low, high := re.Rune[i], re.Rune[i+1]
			if int(high-low)+len(all) >= maxLiterals || low <= utf8.RuneError && utf8.RuneError <= high {
				return nil, false
			}
			for r := low; r <= high; r++ {
				all = append(all, string(r))
			}
		}
		return all, len(all) > 0
	case syntax.OpCapture:
		return literals(re.Sub[0])
	case syntax.OpQuest:
		all, ok := literals(re.Sub[0])
		return append(all, ""), ok && len(all) < maxLiterals
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			some, ok := literals(sub)
			if all = append(all, some...); !ok || len(all) > maxLiterals {
				return nil, false
			}
		}
		return all, true
	case syntax.OpConcat:
		all := []string{""}
		for _, sub := range re.Sub {
			some, ok := literals(sub)
			if !ok || len(all)*len(some) > maxLiterals {
				return nil, false
			}
			var joined []string
			for _, before := range all {
				for _, behind := range some {
					joined = append(joined, before+behind)
				}
			}
			all = joined
		}
		return all, true
	}
	return nil, false
}

// folded is the text in lower case of an expression that is nothing but ASCII whose case does not matter.
func folded(re *syntax.Regexp) (string, bool) {
	switch re.Op {
	case syntax.OpCapture:
		return folded(re.Sub[0])
	case syntax.OpConcat:
		var all strings.Builder
		for _, sub := range re.Sub {
			text, ok := folded(sub)
			if !ok {
				return "", false
			}
			all.WriteString(text)
		}
		return all.String(), all.Len() > 0
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if r >= utf8.RuneSelf || re.Flags&syntax.FoldCase == 0 && unicode.IsLetter(r) {
				return "", false
			}
		}
		return strings.ToLower(string(re.Rune)), true
	}
	return "", false
}

// required is the longest text that is known to be in all that an expression matches.
func required(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 && !slices.Contains(re.Rune, utf8.RuneError) {
			return string(re.Rune)
		}
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpConcat:
		longest := ""
		for _, sub := range re.Sub {
			if text := required(sub); len(text) > len(longest) {
				longest = text
			}
		}
		return longest
	}
	return ""
}
