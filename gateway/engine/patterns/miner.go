// Package patterns finds out what lines of logs have in common. It sorts them into clusters as Drain does (He, Zhu, Zheng and Lyu, "Drain: An
// Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017), but for its tree: lines are of one cluster if they are cut into words
// at the same places by the same characters, have the same keys before = and ":, and at least half of their words in common.
//
// A pattern is one that the line filter |> takes: <_> stands for what differs. Every line of a cluster matches its pattern.
package patterns

import (
	"bytes"
	"strings"
)

// What a Miner keeps is bounded, whatever the lines are.
const (
	maxLine      = 1024 // bytes of a line that are looked at; a pattern ends in <_> for the rest
	maxWords     = 96   // of a line, likewise
	maxClusters  = 4000 // further lines that fit into none are of no cluster
	maxAlternate = 64   // clusters of one shape; a further line goes to the one that it is most similar to
)

// Wildcard stands for any text in a pattern.
const Wildcard = "<_>"

// Miner sorts lines into clusters. It takes at most some 10 MB of memory. The same lines in the same order always make the same clusters.
// It is not safe for concurrent use.
type Miner struct {
	clusters []cluster
	shapes   map[string][]int // the clusters of a shape, by their numbers

	shape []byte // of the line that is looked at
	words []word
}

// cluster is lines that have a pattern in common.
type cluster struct {
	shape string   // the line with gap in place of each word
	words []string // those that all lines have in common, and empty for the others
	wide  []bool   // whether a line has : or , in this word
	lines int
}

// word is a part of a line that may be another in other lines.
type word struct {
	text     []byte
	isLoose  bool // it has a digit, so that it counts less
	isHidden bool // it is never part of a pattern
}

// isWide tells whether a word has characters in it that are between words elsewhere.
func (w word) isWide() bool { return w.isLoose && bytes.ContainsAny(w.text, ":,") }

// NewMiner returns a Miner without lines.
func NewMiner() *Miner { return &Miner{shapes: map[string][]int{}} }

// Len is the number of clusters.
func (m *Miner) Len() int { return len(m.clusters) }

// Add sorts a line into a cluster and returns its number, from 0 on, or -1 if there are too many of them. Lines of different groups are never of one cluster.
// A group has no byte 0.
func (m *Miner) Add(group string, line []byte) int {
	m.shape = append(append(m.shape[:0], group...), gap)
	m.cut(line)
	of := m.shapes[string(m.shape)]
	best, most := -1, -1.0
	for _, number := range of {
		if s := m.clusters[number].similarity(m.words); s > most {
			best, most = number, s
		}
	}
	const enough = 0.5
	if most >= enough || len(of) >= maxAlternate {
		m.clusters[best].add(m.words)
		return best
	}
	if len(m.clusters) >= maxClusters {
		return -1
	}
	c := cluster{shape: string(m.shape), words: make([]string, len(m.words)), wide: make([]bool, len(m.words)), lines: 1}
	for i, w := range m.words {
		c.wide[i] = w.isWide()
		if !w.isHidden {
			c.words[i] = string(w.text)
		}
	}
	number := len(m.clusters)
	m.clusters = append(m.clusters, c)
	m.shapes[c.shape] = append(of, number)
	return number
}

// similarity is the share of words that a line has in common with all lines of a cluster. Those with digits count where they are
// another kind of word there.
func (c *cluster) similarity(words []word) float64 {
	equal, all := 0, 0
	for i, w := range words {
		switch common := c.words[i]; {
		case w.isHidden || w.isLoose && (common == "" || hasDigit(common)):
		case common != "" && common == string(w.text):
			equal++
			all++
		default:
			all++
		}
	}
	if all == 0 {
		return 1
	}
	return float64(equal) / float64(all)
}

// add makes the words of a cluster those that one more line has, too.
func (c *cluster) add(words []word) {
	c.lines++
	for i, w := range words {
		if c.words[i] != string(w.text) {
			c.words[i] = ""
		}
		c.wide[i] = c.wide[i] || w.isWide()
	}
}

// Pattern is the pattern of a cluster, by its number. Different clusters may have the same.
//
// The line filter looks for each text of a pattern where it comes first. That is where it has to be only if what <_> stands for does not
// have the beginning of the text behind it in it. Words have no separators in them, but for : and , between digits; so <_> for such a word
// takes in all that follows behind these two, and any other begins a text.
func (m *Miner) Pattern(number int) string {
	c := &m.clusters[number]
	_, shape, _ := strings.Cut(c.shape, string(rune(gap))) // the group goes first
	var out []byte
	const text, wild, wide = 0, 1, 2 // what goes before: text, <_>, or one for what has : or , in it
	before, next := text, 0          // next is the number of the next word
	for i := range len(shape) {
		switch b := shape[i]; {
		case b == gap:
			word := next
			next++
			switch {
			case before == wide:
			case !c.varies(word):
				out, before = append(out, c.words[word]...), text
			default:
				out, before = append(out, Wildcard...), wild
				if c.wide[word] {
					before = wide
				}
			}
		case before == wide && (classes[b]&isJoint != 0 || classes[b]&isSeparator == 0):
		case before == wild && classes[b]&isJoint != 0 && i+1 < len(shape) && shape[i+1] == gap && c.varies(next): // <_>:<_> is <_> just as well
			before = wide
		default:
			out, before = append(out, b), text
		}
	}
	return string(out)
}

// varies tells whether <_> stands for a word. Of one line alone nobody knows what in it varies; numbers most likely do.
func (c *cluster) varies(word int) bool {
	return c.words[word] == "" || c.lines == 1 && hasDigit(c.words[word])
}
