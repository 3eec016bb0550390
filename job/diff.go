package job

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Diff tells two canonical mathematical parts apart, one line for each
// difference, in the order of field names:
//
//	optimizer.adam.learning_rate: 0.001 here, 0.002 there
//	model[3]: dense {"units":64} only here
//
// a is "here" and b is "there". It is nil for equal parts. Bytes that are not
// JSON are told as such.
func Diff(a, b []byte) []string {
	if bytes.Equal(a, b) {
		return nil
	}
	x, errA := tree(a)
	y, errB := tree(b)
	if errA != nil || errB != nil {
		return []string{fmt.Sprintf("the whole job: %s here, %s there", state(errA), state(errB))}
	}
	return diff("", x, y)
}

func tree(data []byte) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // a seed has 64 bits
	err = dec.Decode(&v)
	return v, err
}

func state(err error) string {
	if err != nil {
		return "unreadable (" + err.Error() + ")"
	}
	return "readable"
}

// diff compares two values at a path.
func diff(path string, a, b any) []string {
	switch x := a.(type) {
	case map[string]any:
		if y, ok := b.(map[string]any); ok && !otherKind(x, y) {
			return diffMaps(path, x, y)
		}
	case []any:
		if y, ok := b.([]any); ok {
			return diffLists(path, x, y)
		}
	}
	if same(a, b) {
		return nil
	}
	return []string{fmt.Sprintf("%s: %s here, %s there", path, brief(a, b), brief(b, a))}
}

// otherKind reports two sections of different kinds, whose fields have nothing
// to do with one another.
func otherKind(a, b map[string]any) bool {
	ka, okA := kindOf(a)
	kb, okB := kindOf(b)
	return okA && okB && ka != kb
}

// kindOf recognises a section: one key with a map below it.
func kindOf(m map[string]any) (string, bool) {
	for k, v := range m {
		_, section := v.(map[string]any)
		return k, section && len(m) == 1
	}
	return "", false
}

func diffMaps(path string, a, b map[string]any) []string {
	keys := slices.Collect(maps.Keys(a))
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []string
	for _, k := range keys {
		x, here := a[k]
		y, there := b[k]
		switch at := join(path, k); {
		case here && there:
			out = append(out, diff(at, x, y)...)
		case here:
			out = append(out, fmt.Sprintf("%s: %s only here", at, show(x)))
		default:
			out = append(out, fmt.Sprintf("%s: %s only there", at, show(y)))
		}
	}
	return out
}

// diffLists leaves out what the lists begin and end with in common, compares
// the rest pair by pair, and tells what is then over. Indices are a's where a
// has the item.
func diffLists(path string, a, b []any) []string {
	lo := 0
	for lo < min(len(a), len(b)) && same(a[lo], b[lo]) {
		lo++
	}
	hiA, hiB := len(a), len(b)
	for hiA > lo && hiB > lo && same(a[hiA-1], b[hiB-1]) {
		hiA, hiB = hiA-1, hiB-1
	}
	var out []string
	for i := lo; i < max(hiA, hiB); i++ {
		switch at := fmt.Sprintf("%s[%d]", path, i); {
		case i < min(hiA, hiB):
			out = append(out, diff(at, a[i], b[i])...)
		case i < hiA:
			out = append(out, fmt.Sprintf("%s: %s only here", at, show(a[i])))
		default:
			out = append(out, fmt.Sprintf("%s: %s only there", at, show(b[i])))
		}
	}
	return out
}

// same compares by text: encoding/json sorts keys, and numbers keep theirs.
func same(a, b any) bool { return full(a) == full(b) }

// brief shows v, and of a section only the kind where the other is one too.
func brief(v, other any) string {
	m, ok := v.(map[string]any)
	if _, section := other.(map[string]any); ok && section {
		if kind, ok := kindOf(m); ok {
			return kind
		}
	}
	return show(v)
}

// show writes a value on one line.
func show(v any) string {
	switch x := v.(type) {
	case nil:
		return "none"
	case string:
		return x
	case map[string]any:
		if kind, ok := kindOf(x); ok {
			return strings.TrimSuffix(kind+" "+full(x[kind]), " {}")
		}
	}
	return full(v)
}

func full(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("job: " + err.Error()) // it was decoded from JSON
	}
	return string(text)
}
