package job

import (
	"slices"
	"strings"
)

// Family is one sort of sections: the layers, the optimizers, the data sets.
type Family struct {
	// Noun is how messages call a member: "layer".
	Noun string
	// New returns a section of a kind, filled with defaults.
	New func(kind string) (Section, bool)
	// Kinds lists what New knows.
	Kinds func() []string
}

// Registry is what a job may be made of. It is passed in rather than global,
// so that a program may bring layers of its own.
type Registry struct {
	Layers     Family
	Optimizers Family
	Datasets   Family
	Losses     []string
	Metrics    []string
}

// one is the noun with its article: "a layer".
func (f Family) one() string {
	if strings.ContainsRune("aeiou", rune(f.Noun[0])) {
		return "an " + f.Noun
	}
	return "a " + f.Noun
}

// wanted says what is allowed: "a layer: dense or dropout".
func (f Family) wanted() string { return f.one() + ": " + either(f.Kinds()) }

// family returns the sort of sections that stands under a top-level field.
func (r *Registry) family(path string) Family {
	switch {
	case path == "data":
		return r.Datasets
	case path == "optimizer":
		return r.Optimizers
	case strings.HasPrefix(path, "model["):
		return r.Layers
	}
	panic("job: no sections under " + path)
}

// either lists names as a sentence does: "a, b or c". Order is kept.
func either(names []string) string {
	switch n := len(names); n {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
}

// options is either with a guess at which name was meant, if one is near.
func options(name string, names []string) string {
	if near, ok := nearest(name, names); ok {
		return either(names) + "; did you mean " + near + "?"
	}
	return either(names)
}

// nearest returns the name that a typing error most likely stands for: the
// one of least edit distance, if at most a third of it (but one at least) is
// wrong, or the first that name is the beginning of.
func nearest(name string, names []string) (string, bool) {
	best, least := "", 1+max(1, len(name)/3)
	for _, candidate := range names {
		if d := distance(strings.ToLower(name), candidate); d < least {
			best, least = candidate, d
		}
	}
	if best == "" && len(name) >= 3 {
		if i := slices.IndexFunc(names, func(s string) bool { return strings.HasPrefix(s, name) }); i >= 0 {
			best = names[i]
		}
	}
	return best, best != ""
}

// distance is Levenshtein's with swapped neighbours as one error (optimal
// string alignment): the least number of bytes inserted, removed, replaced or
// swapped that turns a into b. O(len(a)·len(b)) time, three rows of memory.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			row[j] = min(last[j], row[j-1]) + 1
			if a[i-1] == b[j-1] {
				row[j] = min(row[j], last[j-1])
			} else {
				row[j] = min(row[j], last[j-1]+1)
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
