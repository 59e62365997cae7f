package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/casteloig/logthra/gateway/logql"
)

// Bounds of one execution of a template.
const (
	maxOutput = 1 << 20  // bytes of what it writes, and of any string that it makes on the way
	maxWork   = 16 << 20 // bytes that go through its functions
	maxSteps  = 10_000   // turns of its loops, and calls of templates
)

var (
	errOutput = fmt.Errorf("the template makes text of more than %d bytes", maxOutput)
	errWork   = errors.New("the template does too much work for one line")
)

// formatter executes a template of line_format or label_format on entries.
//
// Templates are those of text/template. The dot is the labels of the entry by name, the error's, too; one that is missing is empty. Functions are those of
// functions.go.
type formatter struct {
	parts   []formatPart // all of the template, if it is nothing but text and labels
	tmpl    *template.Template
	fields  []string // labels that it names
	usesAll bool     // it may look at any label

	run    *templateRun
	output boundedBuffer
}

// formatPart is text, or a label.
type formatPart struct{ text, label string }

// templateRun is what the functions of a template know of the entry, and what they have done so far.
type templateRun struct {
	line      []byte
	timestamp int64
	work      int
	steps     int
	regexps   regexps
}

func newFormatter(name, text string) (*formatter, error) {
	f := &formatter{run: &templateRun{}}
	tmpl, err := template.New(name).Option("missingkey=zero").Funcs(f.run.functions()).Parse(text)
	if err != nil {
		return nil, err
	}
	f.tmpl = tmpl
	for _, t := range tmpl.Templates() {
		if t.Tree != nil {
			f.collect(t.Root)
		}
	}
	if parts, ok := simpleParts(tmpl.Tree); ok {
		f.parts = parts
		return f, nil
	}
	return f, f.bound()
}

// simpleParts takes a template apart that is nothing but text and labels.
func simpleParts(tree *parse.Tree) ([]formatPart, bool) {
	if tree == nil || tree.Root == nil {
		return []formatPart{}, true
	}
	parts := make([]formatPart, 0, len(tree.Root.Nodes))
	for _, n := range tree.Root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			parts = append(parts, formatPart{text: string(n.Text)})
		case *parse.ActionNode:
			if len(n.Pipe.Decl) > 0 || len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
				return nil, false
			}
			field, ok := n.Pipe.Cmds[0].Args[0].(*parse.FieldNode)
			if !ok || len(field.Ident) != 1 {
				return nil, false
			}
			parts = append(parts, formatPart{label: field.Ident[0]})
		default:
			return nil, false
		}
	}
	return parts, true
}

// collect finds out which labels the nodes of a template may look at: more than they do, where the dot is something else.
func (f *formatter) collect(node parse.Node) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, child := range n.Nodes {
				f.collect(child)
			}
		}
	case *parse.ActionNode:
		f.collect(n.Pipe)
	case *parse.IfNode:
		f.collectBranch(&n.BranchNode)
	case *parse.WithNode:
		f.collectBranch(&n.BranchNode)
	case *parse.RangeNode:
		f.collectBranch(&n.BranchNode)
	case *parse.TemplateNode:
		// That the dot is handed over says nothing: what is done with it stands in the other template.
		if n.Pipe != nil && n.Pipe.String() != "." {
			f.collect(n.Pipe)
		}
	case *parse.PipeNode:
		if n != nil {
			for _, c := range n.Cmds {
				for _, arg := range c.Args {
					f.collect(arg)
				}
			}
		}
	case *parse.ChainNode:
		f.collect(n.Node)
	case *parse.FieldNode:
		f.addField(n.Ident[0])
	case *parse.VariableNode:
		switch {
		case len(n.Ident) > 1:
			f.addField(n.Ident[1])
		case n.Ident[0] == "$":
			f.usesAll = true
		}
	case *parse.DotNode:
		f.usesAll = true
	}
}

func (f *formatter) collectBranch(n *parse.BranchNode) {
	f.collect(n.Pipe)
	f.collect(n.List)
	f.collect(n.ElseList)
}

func (f *formatter) addField(name string) {
	if !slices.Contains(f.fields, name) {
		f.fields = append(f.fields, name)
	}
}

// stepFunction is called at the beginning of each turn of a loop and of each template that is called.
const stepFunction = "__step__"

// bound puts calls of stepFunction where a template could go on for ever.
func (f *formatter) bound() error {
	step, err := template.New("step").Funcs(f.run.functions()).Parse("{{" + stepFunction + "}}")
	if err != nil {
		return err
	}
	call := step.Root.Nodes[0]
	for _, t := range f.tmpl.Templates() {
		if t.Tree == nil || t.Root == nil {
			continue
		}
		boundLoops(t.Root, call)
		t.Root.Nodes = slices.Insert(t.Root.Nodes, 0, call)
	}
	return nil
}

func boundLoops(list *parse.ListNode, call parse.Node) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		var branch *parse.BranchNode
		switch n := n.(type) {
		case *parse.IfNode:
			branch = &n.BranchNode
		case *parse.WithNode:
			branch = &n.BranchNode
		case *parse.RangeNode:
			branch = &n.BranchNode
		default:
			continue
		}
		boundLoops(branch.List, call)
		boundLoops(branch.ElseList, call)
		if _, ok := n.(*parse.RangeNode); ok {
			branch.List.Nodes = slices.Insert(branch.List.Nodes, 0, call)
		}
	}
}

// execute is what the template makes of an entry. The text is good until the next call. values are the labels by name that the template may see.
func (f *formatter) execute(e *entry, value func(name string) string, values func() map[string]string) ([]byte, error) {
	f.output = kept(f.output, maxKeptScratch)
	if f.parts != nil {
		for _, p := range f.parts {
			f.output = append(f.output, p.text...)
			if p.label != "" {
				f.output = append(f.output, value(p.label)...)
			}
			if len(f.output) > maxOutput {
				return nil, errOutput
			}
		}
		return f.output, nil
	}
	f.run.line, f.run.timestamp, f.run.work, f.run.steps = e.line, e.timestamp, 0, 0
	if err := f.tmpl.Execute(&f.output, values()); err != nil {
		return nil, err
	}
	return f.output, nil
}

// boundedBuffer takes maxOutput bytes at most.
type boundedBuffer []byte

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if len(*b)+len(p) > maxOutput {
		return 0, errOutput
	}
	*b = append(*b, p...)
	return len(p), nil
}

// putLabels fills values with the labels of an entry that templates may look at.
func putLabels(values map[string]string, l *Labels, fields []string, all bool) {
	clear(values)
	if !all {
		for _, name := range fields {
			if value, ok := l.Get(name); ok {
				values[name] = value
			}
		}
		return
	}
	for i := range l.list {
		if !l.list[i].isGone {
			values[l.list[i].name] = l.list[i].value
		}
	}
	for _, e := range l.appendError(nil) {
		values[e.Name] = e.Value
	}
}

// lineFormat is | line_format. A template that fails leaves the line as it is, and sets __error__ to TemplateFormatErr.
type lineFormat struct {
	formatter *formatter
	values    map[string]string
}

func newLineFormat(text string) (*lineFormat, error) {
	f, err := newFormatter("line", text)
	if err != nil {
		return nil, fmt.Errorf("invalid line template: %w", err)
	}
	return &lineFormat{formatter: f, values: map[string]string{}}, nil
}

func (f *lineFormat) process(e *entry) bool {
	line, err := f.formatter.execute(e, e.labels.value, func() map[string]string {
		putLabels(f.values, e.labels, f.formatter.fields, f.formatter.usesAll)
		return f.values
	})
	if err != nil {
		e.labels.fail(TemplateFormatErr, err.Error(), -1)
		return true
	}
	e.line = line
	return true
}

// labelFormat is | label_format. Its labels are set one by one, in their order. A label that is renamed takes its new name, as one of kind Parsed, and is gone under the old one;
// if there is none, nothing happens. Templates all see the labels as they are when the first of them is executed. One that fails sets
// __error__ to TemplateFormatErr, and no label.
type labelFormat struct {
	labels  []labelFormatting
	fields  []string
	usesAll bool
	values  map[string]string
}

type labelFormatting struct {
	label, source string
	formatter     *formatter // nil: source is renamed
}

func newLabelFormat(labels []logql.LabelFormatting) (*labelFormat, error) {
	f := &labelFormat{values: map[string]string{}}
	for i, l := range labels {
		if l.Label == ErrorLabel {
			return nil, fmt.Errorf("%s cannot be formatted", ErrorLabel)
		}
		if slices.ContainsFunc(labels[:i], func(other logql.LabelFormatting) bool { return other.Label == l.Label }) {
			return nil, fmt.Errorf("multiple label name '%s' not allowed in a single format operation", l.Label)
		}
		formatting := labelFormatting{label: l.Label, source: l.Source}
		if l.IsTemplate {
			var err error
			if formatting.formatter, err = newFormatter("label", l.Template); err != nil {
				return nil, fmt.Errorf("invalid template for label '%s': %w", l.Label, err)
			}
			f.fields = append(f.fields, formatting.formatter.fields...)
			f.usesAll = f.usesAll || formatting.formatter.usesAll
		}
		f.labels = append(f.labels, formatting)
	}
	return f, nil
}

func (f *labelFormat) process(e *entry) bool {
	isFilled := false
	for _, l := range f.labels {
		if l.formatter == nil {
			e.labels.rename(l.source, l.label)
			continue
		}
		if !isFilled {
			putLabels(f.values, e.labels, f.fields, f.usesAll)
			isFilled = true
		}
		value, err := l.formatter.execute(e, func(name string) string { return f.values[name] }, func() map[string]string { return f.values })
		if err != nil {
			e.labels.fail(TemplateFormatErr, err.Error(), -1)
			continue
		}
		e.labels.set(label{name: l.label, value: e.labels.hold(view(value)), kind: Parsed, isBorrowed: true})
	}
	return true
}

// rename gives a label another name. The labels of an error can't be renamed.
func (l *Labels) rename(from, to string) {
	i := l.find(from)
	if i < 0 || l.list[i].isGone {
		return
	}
	l.set(label{name: to, value: l.list[i].value, kind: Parsed, isBorrowed: true})
	l.list[i].isGone = true
}

// charge counts work, in bytes. A function that panics with an error ends the template with it.
func (r *templateRun) charge(n int) {
	if r.work += n; r.work > maxWork {
		panic(errWork)
	}
}

// room checks that a string of n bytes may be made.
func (r *templateRun) room(n int) {
	if n > maxOutput {
		panic(errOutput)
	}
	r.charge(n)
}

// text is a string that a function made of others.
func (r *templateRun) text(s string) string {
	r.room(len(s))
	return s
}

func (r *templateRun) step() string {
	if r.steps++; r.steps > maxSteps {
		panic(errWork)
	}
	return ""
}

func (r *templateRun) currentLine() string { return view(r.line) }

func (r *templateRun) currentTimestamp() time.Time { return time.Unix(0, r.timestamp).UTC() }
