package job

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/nn"
	"go.yaml.in/yaml/v3"
)

// decoder walks a YAML tree and a Go value side by side. It never stops at an
// error: what it cannot set keeps its default and is told.
type decoder struct {
	source // where each field stands that the file has
	reg    Registry
	errs   Errors
}

var (
	sectionType = reflect.TypeFor[Section]()
	layerType   = reflect.TypeFor[nn.LayerSpec]() // layers inside of layers
	pairType    = reflect.TypeFor[nn.Pair]()
	rangeType   = reflect.TypeFor[augment.Range]()
	textsType   = reflect.TypeFor[[]string]()
)

// fail records a problem of the field at a line.
func (d *decoder) fail(line int, path, format string, args ...any) {
	d.errs = append(d.errs, &Error{File: d.file, Line: line, Field: path, Problem: fmt.Sprintf(format, args...)})
}

// value decodes n into v, which holds the default.
func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	n = resolve(n)
	switch {
	case isSection(v.Type()):
		d.section(path, n, v)
	case v.Type() == pairType:
		d.pair(path, n, v)
	case v.Type() == rangeType:
		d.bounds(path, n, v)
	case v.Type() == scheduleType:
		d.schedule(path, n, v)
	case v.Kind() == reflect.Pointer:
		d.optional(path, n, v)
	case v.Kind() == reflect.Struct:
		d.fields(path, n, v)
	case v.Kind() == reflect.Slice:
		d.list(path, n, v)
	default:
		d.scalar(path, n, v)
	}
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// field is one field of a struct under its name in the file.
type field struct {
	name      string
	omitEmpty bool // left out by Show when zero
	free      bool // no part of the mathematics: tagged json:"-"
	later     bool // jobs were written before it was there: left out where it says nothing new
	nothing   bool // it says nothing new: it is zero, or what its tag later=VALUE tells
	value     reflect.Value
}

// fieldsOf lists the tagged fields of a struct, embedded ones in place.
func fieldsOf(v reflect.Value) []field {
	var out []field
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name, opts, _ := strings.Cut(tag.Get("yaml"), ",")
		switch {
		case opts == "inline":
			out = append(out, fieldsOf(v.Field(i))...)
		case name != "" && name != "-":
			f := field{name: name, omitEmpty: opts == "omitempty", free: tag.Get("json") == "-", value: v.Field(i)}
			f.later, f.nothing = laterField(opts, v.Field(i))
			out = append(out, f)
		}
	}
	return out
}

// laterField reads a tag's option later, or later=VALUE. A field that a kind was
// given after trajectories were named with it carries one: where it has its old
// meaning, the canonical form is as if it weren't there, and so is T.
func laterField(opts string, v reflect.Value) (later, nothing bool) {
	usual, given := strings.CutPrefix(opts, "later=")
	if given {
		return true, fmt.Sprint(v.Interface()) == usual
	}
	return opts == "later", opts == "later" && v.IsZero()
}

// isSection tells the types that are written `kind: {fields}`.
func isSection(t reflect.Type) bool { return t == sectionType || t == layerType }

// indirect is the struct that a section points to.
func indirect(s Section) reflect.Value { return reflect.ValueOf(s).Elem() }

func names(fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

// fields decodes a map into a struct.
func (d *decoder) fields(path string, n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v)
	if n.Kind != yaml.MappingNode {
		d.fail(n.Line, path, "%s (want %s)", seen(n), mapOf(fields))
		return
	}
	for _, p := range d.pairs(path, n) {
		at := join(path, p.key.Value)
		f := find(fields, p.key.Value)
		if f == nil {
			d.fail(p.key.Line, at, "unknown field (want %s)", options(p.key.Value, names(fields)))
			continue
		}
		d.lines[at] = p.key.Line
		d.value(at, p.value, f.value)
	}
}

func mapOf(fields []field) string {
	if len(fields) == 0 {
		return "an empty map"
	}
	return "a map of " + strings.Join(names(fields), ", ")
}

func find(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// pair is one entry of a map.
type pair struct{ key, value *yaml.Node }

// pairs lists the entries of a map. A key given twice is told and its first
// value kept; merged maps (<<: *anchor) come after, and never override.
func (d *decoder) pairs(path string, n *yaml.Node) []pair {
	var out []pair
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		switch line, twice := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			d.fail(key.Line, path, "%s as a field name (want a string)", shape(key))
		case twice:
			d.fail(key.Line, join(path, key.Value), "given twice (first in line %d)", line)
		default:
			first[key.Value] = key.Line
			if key.Tag != "!!merge" {
				out = append(out, pair{key, value})
			}
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			out = d.merge(path, out, first, n.Content[i+1])
		}
	}
	return out
}

// merge appends the entries of other maps that out does not have. A merged map
// may not merge in turn: that bounds the work by the size of the file.
func (d *decoder) merge(path string, out []pair, have map[string]int, from *yaml.Node) []pair {
	sources := []*yaml.Node{from}
	if from.Kind == yaml.SequenceNode {
		sources = from.Content
	}
	for _, s := range sources {
		m := resolve(s)
		if m.Kind != yaml.MappingNode {
			d.fail(s.Line, path, "<< of %s (want a map)", shape(m))
			continue
		}
		for i := 0; i+1 < len(m.Content); i += 2 {
			key := m.Content[i]
			if key.Tag == "!!merge" {
				d.fail(s.Line, path, "<< of a map that has << itself (want a plain map)")
			} else if _, ok := have[key.Value]; !ok {
				have[key.Value] = key.Line
				out = append(out, pair{key, m.Content[i+1]})
			}
		}
	}
	return out
}

// list decodes a sequence, a section or a plain value each.
func (d *decoder) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n.Line, path, "%s (want %s)", seen(n), wantedOf(v.Type()))
		return
	}
	v.SetZero()
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = item.Line
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(at, item, e)
		if !isSection(v.Type().Elem()) || !e.IsNil() {
			v.Set(reflect.Append(v, e))
		}
	}
}

// optional decodes a section that may be `none`.
func (d *decoder) optional(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.ScalarNode {
		if n.Value == "none" || n.ShortTag() == "!!null" {
			v.SetZero()
			return
		}
		d.fail(n.Line, path, "%s (want none or %s)", seen(n), mapOf(fieldsOf(reflect.New(v.Type().Elem()).Elem())))
		return
	}
	p := reflect.New(v.Type().Elem())
	switch s := p.Interface().(type) {
	case interface{ setDefaults() }:
		s.setDefaults()
	case *augment.Spec:
		*s = augment.Default()
	}
	v.Set(p)
	d.value(path, n, p.Elem())
}

// section decodes `kind: {fields}` or a bare kind; v stays nil on an error.
func (d *decoder) section(path string, n *yaml.Node, v reflect.Value) {
	family := d.reg.family(path)
	kind, body := d.kind(path, n, family)
	if kind == nil {
		return
	}
	s, ok := family.New(kind.Value)
	if !ok {
		d.fail(kind.Line, path, "%q is not %s (want %s)", kind.Value, family.one(), options(kind.Value, family.Kinds()))
		return
	}
	at := join(path, kind.Value)
	d.lines[at] = kind.Line
	if body != nil && body.ShortTag() != "!!null" {
		d.fields(at, body, indirect(s))
	}
	if !reflect.TypeOf(s).AssignableTo(v.Type()) {
		d.fail(kind.Line, path, "%q can't stand inside another %s", kind.Value, family.Noun)
		return
	}
	v.Set(reflect.ValueOf(s))
}

// kind splits a section into its kind and its fields, which may be nil.
func (d *decoder) kind(path string, n *yaml.Node, family Family) (kind, body *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return n, nil
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n.Line, path, "%s (want %s)", seen(n), family.wanted())
		return nil, nil
	}
	entries := d.pairs(path, n)
	switch {
	case len(entries) == 1:
		return entries[0].key, resolve(entries[0].value)
	case len(entries) == 0:
		d.fail(n.Line, path, "an empty map (want %s)", family.wanted())
	case resolve(entries[0].value).ShortTag() == "!!null":
		name, stray := entries[0].key.Value, entries[1].key.Value
		d.fail(entries[1].key.Line, path, "%s stands beside %s (want it inside: %s: {%s: …}, or indented deeper)", stray, name, name, stray)
	default:
		d.fail(entries[1].key.Line, path, "%s and %s in one %s (want one kind)", entries[0].key.Value, entries[1].key.Value, family.Noun)
	}
	return nil, nil
}

// pair decodes two numbers, or one for both.
func (d *decoder) pair(path string, n *yaml.Node, v reflect.Value) {
	items := n.Content
	if n.Kind == yaml.ScalarNode {
		items = []*yaml.Node{n, n}
	}
	if n.Kind == yaml.MappingNode || len(items) != 2 {
		d.fail(n.Line, path, "%s (want two whole numbers such as [3, 3], or one for both)", seen(n))
		return
	}
	before := len(d.errs)
	for i, item := range items {
		if len(d.errs) == before {
			d.scalar(path, resolve(item), v.Index(i))
		}
	}
}

// bounds decodes a range of factors around 1: its two ends, or how far it goes.
func (d *decoder) bounds(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.ScalarNode {
		far := reflect.New(v.Type().Elem()).Elem()
		before := len(d.errs)
		if d.scalar(path, n, far); len(d.errs) == before {
			v.Set(reflect.ValueOf(augment.Around(far.Float())))
		}
		return
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) != 2 {
		d.fail(n.Line, path, "%s (want [lower, upper] such as [0.8, 1.2], or 0.2 for that)", seen(n))
		return
	}
	for i, item := range n.Content {
		d.scalar(path, resolve(item), v.Index(i))
	}
}

// scalar decodes a single value.
func (d *decoder) scalar(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || !tagFits(n.ShortTag(), v.Kind()) {
		d.fail(n.Line, path, "%s (want %s)", seen(n), wantedOf(v.Type()))
		return
	}
	out := reflect.New(v.Type())
	if err := n.Decode(out.Interface()); err != nil {
		d.fail(n.Line, path, "%s is out of range (want %s)", n.Value, rangeOf(v.Type()))
		return
	}
	if out.Elem().CanFloat() {
		x := out.Elem().Float()
		if math.IsNaN(x) || math.IsInf(x, 0) {
			d.fail(n.Line, path, "%s is not allowed (want a finite number)", n.Value)
			return
		}
		out.Elem().SetFloat(x + 0) // −0 has no text of its own
	}
	v.Set(out.Elem())
}

// tagFits reports whether a resolved YAML tag may become a Go kind.
func tagFits(tag string, k reflect.Kind) bool {
	switch k {
	case reflect.String:
		return tag == "!!str"
	case reflect.Bool:
		return tag == "!!bool"
	case reflect.Float32, reflect.Float64:
		return tag == "!!float" || tag == "!!int"
	}
	return tag == "!!int"
}

// seen says what a node is, as the beginning of a complaint.
func seen(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!null":
		return "no value"
	case "!!str":
		return strconv.Quote(n.Value) + " is a string"
	case "!!int":
		return n.Value + " is a whole number"
	case "!!float":
		return n.Value + " is a floating-point number"
	case "!!bool":
		return n.Value + " is a boolean"
	}
	return shape(n)
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("the single value %q", n.Value)
}

// wantedOf says what a Go type takes.
func wantedOf(t reflect.Type) string {
	switch {
	case t == textsType:
		return "a list of strings such as [a, b]"
	case t.Kind() == reflect.Slice && isSection(t.Elem()):
		return "a list, one kind each"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	}
	return "a whole number"
}

// rangeOf says which whole numbers a Go type holds.
func rangeOf(t reflect.Type) string {
	bits := t.Bits()
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("%d to %d", int64(-1)<<(bits-1), int64(math.MaxInt64)>>(64-bits))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("0 to %d", uint64(math.MaxUint64)>>(64-bits))
	}
	return wantedOf(t)
}
