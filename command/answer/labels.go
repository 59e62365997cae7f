package answer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/casteloig/logthra/shared/logs"
)

// Labels are sorted by name. In JSON they are an object.
type Labels []logs.Label

// UnmarshalJSON implements json.Unmarshaler.
func (l *Labels) UnmarshalJSON(text []byte) error {
	var pairs map[string]string
	if err := json.Unmarshal(text, &pairs); err != nil {
		return err
	}
	*l = nil
	for name, value := range pairs {
		*l = append(*l, logs.Label{Name: name, Value: value})
	}
	slices.SortFunc(*l, func(a, b logs.Label) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// MarshalJSON implements json.Marshaler.
func (l Labels) MarshalJSON() ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	text.WriteByte('{')
	for i, label := range l {
		if i > 0 {
			text.WriteByte(',')
		}
		if err := encoder.Encode(label.Name); err != nil {
			return nil, err
		}
		text.WriteByte(':')
		if err := encoder.Encode(label.Value); err != nil {
			return nil, err
		}
	}
	text.WriteByte('}')
	return text.Bytes(), nil
}

// String is the form of a selector: {app="api", env="prod"}.
func (l Labels) String() string {
	pairs := make([]string, len(l))
	for i, label := range l {
		pairs[i] = label.Name + "=" + strconv.Quote(label.Value)
	}
	return "{" + strings.Join(pairs, ", ") + "}"
}

// Get is the value of a label, empty without it.
func (l Labels) Get(name string) string {
	i, found := slices.BinarySearchFunc(l, name, func(label logs.Label, name string) int { return cmp.Compare(label.Name, name) })
	if !found {
		return ""
	}
	return l[i].Value
}
