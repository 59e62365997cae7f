package series

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"

	"github.com/casteloig/logthra/gateway/logql"
	"github.com/casteloig/logthra/shared/logs"
)

// replace sets a label of series whose source label the regular expression matches, as a whole.
func (e *evaluator) replace(x *logql.LabelReplace) (operand, error) {
	if !logs.ValidLabelName(x.Destination) {
		return operand{}, &Error{fmt.Sprintf("invalid destination label name in label_replace(): %s", logs.Clip(x.Destination))}
	}
	regex, err := regexp.Compile("^(?:" + x.Regex + ")$")
	if err != nil {
		return operand{}, &Error{fmt.Sprintf("invalid regular expression in label_replace(): %v", err)}
	}
	o, err := e.vector(x.Expr, "label_replace")
	if err != nil {
		return operand{}, err
	}
	out := make([]Series, len(o.series))
	for i, s := range o.series {
		out[i] = s
		source := valueOf(s.Labels, x.Source)
		if match := regex.FindStringSubmatchIndex(source); match != nil {
			value := regex.ExpandString(nil, x.Replacement, source, match)
			out[i].Labels = setLabel(s.Labels, logs.Label{Name: x.Destination, Value: string(value)})
		}
	}
	out, err = join(out, sameLabels)
	return operand{series: out}, err
}

// valueOf is the value of a label, which is empty where it is not there.
func valueOf(labels []logs.Label, name string) string {
	if i, ok := find(labels, name); ok {
		return labels[i].Value
	}
	return ""
}

// setLabel is labels with one that is changed, or without it where its value is empty.
func setLabel(labels []logs.Label, l logs.Label) []logs.Label {
	i, found := find(labels, l.Name)
	end := i
	if found {
		end++
	}
	if l.Value == "" {
		return slices.Concat(labels[:i], labels[end:])
	}
	return slices.Concat(labels[:i], []logs.Label{l}, labels[end:])
}

func find(labels []logs.Label, name string) (int, bool) {
	return slices.BinarySearchFunc(labels, name, func(l logs.Label, name string) int { return cmp.Compare(l.Name, name) })
}
