package job

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a job file.
type Error struct {
	File    string // as it was given to Parse; empty for a job made in Go
	Line    int    // 1-based; 0 where there is no file
	Field   string // such as "model[1].dense.units"; empty for the whole file
	Problem string // the value seen, and what is wanted
	Cause   error  // what another room said, if the problem is in its words
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Error gives "file:line: field: problem", without what is not known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	return b.String() + e.Problem
}

// Errors is everything that is wrong with a job file, by line.
type Errors []*Error

// Error gives one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a single one.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// sorted returns the errors by line, and nil where there are none.
func (e Errors) sorted() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *Error) int { return a.Line - b.Line })
	return e
}

// parent cuts the last part off a field path; "" is the whole file.
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

// within reports whether path is field or lies inside it.
func within(path, field string) bool {
	rest, ok := strings.CutPrefix(path, field)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
