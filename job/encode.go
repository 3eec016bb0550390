package job

import (
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Show writes the whole job as YAML with every default in it. What it writes
// parses back to an equal job.
func (j *Job) Show(w io.Writer) error {
	doc := encode(reflect.ValueOf(j).Elem(), false)
	for i := 0; i < len(doc.Content); i += 2 {
		if doc.Content[i].Value == "checkpoint" {
			doc.Content[i].HeadComment = "What follows cannot change a bit of the result: it may differ\nbetween nodes and change at a restart."
		}
	}
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return fmt.Errorf("job: show: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("job: show: %w", err)
	}
	return nil
}

// Canonical returns the mathematical part as JSON: every field, keys sorted, no
// spaces, numbers in their shortest form. Equal bytes mean equal mathematics.
// Fields that another room tags json:"-", such as the paths of data files, are
// not in it. [Restore] reads it back.
func (m *Maths) Canonical() []byte {
	return appendJSON(nil, encode(reflect.ValueOf(m).Elem(), true))
}

// encode turns a Go value into a YAML tree. The canonical one has every field
// that is part of the mathematics; the other one every field, but for those
// tagged omitempty when zero (their default must be zero).
func encode(v reflect.Value, canonical bool) *yaml.Node {
	switch {
	case isSection(v.Type()):
		return encodeSection(v, canonical)
	case v.Type() == scheduleType:
		return encodeSchedule(v, canonical)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encodeOptional(v, canonical)
	case reflect.Struct:
		return encodeStruct(v, canonical)
	case reflect.Slice, reflect.Array:
		return encodeList(v, canonical)
	}
	return encodeScalar(v)
}

func encodeStruct(v reflect.Value, canonical bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, f := range fieldsOf(v) {
		skip := f.omitEmpty && f.value.IsZero()
		if canonical {
			skip = f.free
		}
		if !skip && !(f.later && f.nothing) {
			n.Content = append(n.Content, text(f.name), encode(f.value, canonical))
		}
	}
	return n
}

// encodeSection writes a bare kind where there is no field to tell.
func encodeSection(v reflect.Value, canonical bool) *yaml.Node {
	if v.IsNil() {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	s := v.Interface().(Section)
	body := encodeStruct(indirect(s), canonical)
	body.Style = yaml.FlowStyle
	if len(body.Content) == 0 && !canonical {
		return text(s.Kind())
	}
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{text(s.Kind()), body}}
}

func encodeOptional(v reflect.Value, canonical bool) *yaml.Node {
	switch {
	case !v.IsNil():
		return encodeStruct(v.Elem(), canonical)
	case canonical:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	}
	return text("none")
}

func encodeList(v reflect.Value, canonical bool) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	if !isSection(v.Type().Elem()) {
		n.Style = yaml.FlowStyle
	}
	for i := range v.Len() {
		n.Content = append(n.Content, encode(v.Index(i), canonical))
	}
	return n
}

func encodeScalar(v reflect.Value) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch {
	case v.Kind() == reflect.String:
		return text(v.String())
	case v.Kind() == reflect.Bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v.Bool())
	case v.CanInt():
		n.Tag, n.Value = "!!int", strconv.FormatInt(v.Int(), 10)
	case v.CanUint():
		n.Tag, n.Value = "!!int", strconv.FormatUint(v.Uint(), 10)
	case v.CanFloat():
		n.Tag, n.Value = "!!float", number(v.Float(), v.Type().Bits())
		if !strings.ContainsAny(n.Value, ".e") {
			n.Tag = "!!int" // or YAML would write the tag out
		}
	default:
		panic("job: no text for " + v.Type().String())
	}
	return n
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// number is the shortest text that reads back as x.
func number(x float64, bits int) string {
	if a := math.Abs(x); a == 0 || a >= 1e-5 && a < 1e15 {
		return strconv.FormatFloat(x+0, 'f', -1, bits)
	}
	return strconv.FormatFloat(x, 'e', -1, bits)
}

// appendJSON writes a tree with its keys sorted.
func appendJSON(b []byte, n *yaml.Node) []byte {
	switch n.Kind {
	case yaml.MappingNode:
		return appendObject(b, n)
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, item := range n.Content {
			b = appendJSON(appendComma(b, i), item)
		}
		return append(b, ']')
	}
	if n.Tag == "!!str" {
		return appendQuoted(b, n.Value)
	}
	return append(b, n.Value...)
}

func appendObject(b []byte, n *yaml.Node) []byte {
	entries := make([]pair, 0, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		entries = append(entries, pair{n.Content[i], n.Content[i+1]})
	}
	slices.SortFunc(entries, func(a, b pair) int { return strings.Compare(a.key.Value, b.key.Value) })
	b = append(b, '{')
	for i, e := range entries {
		b = appendQuoted(appendComma(b, i), e.key.Value)
		b = appendJSON(append(b, ':'), e.value)
	}
	return append(b, '}')
}

func appendComma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

// appendQuoted writes a string that both a JSON and a YAML reader take: ASCII
// as it is, the rest of the first plane as \uXXXX, and what lies beyond as
// UTF-8, because YAML knows no surrogate pairs.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ' || r > '~' && r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
