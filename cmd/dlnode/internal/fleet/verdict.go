package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
	"github.com/dlnode/dlnode/train"
)

// Failure tells that a fleet did not do what it was started for.
type Failure struct {
	Status int // the exit status that all nodes ended with, or 1
	Text   string
}

func (f *Failure) Error() string { return f.Text }

// agree returns the result that all finished nodes have in common, nil if none
// finished. The error names who differs, and in what.
func agree(results map[string]*train.Result) (*train.Result, error) {
	sides := map[string][]string{}
	var common *train.Result
	for _, id := range slices.Sorted(maps.Keys(results)) {
		if r := results[id]; r.Finished {
			side := fmt.Sprintf("step %d, model %s, state %s", r.Step, r.ModelSHA256, r.StateSHA256)
			sides[side] = append(sides[side], id)
			if common == nil || r.Checkpoint != "" {
				common = r
			}
		}
	}
	if len(sides) < 2 {
		return common, nil
	}
	return nil, &Failure{1, "the nodes do not agree on the result:" + bySide(sides)}
}

// bySide renders who says what, a line for each side, the greatest first.
func bySide(sides map[string][]string) string {
	order := slices.SortedFunc(maps.Keys(sides), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(sides[b]), len(sides[a])), cmp.Compare(sides[a][0], sides[b][0]))
	})
	for i, side := range order {
		order[i] = "\n  " + strings.Join(sides[side], ", ") + ": " + side
	}
	return strings.Join(order, "")
}

// failure tells why no node finished: what each said at its end, those that said
// the same together. It is nil if a node left in order, for it has kept the state;
// those that were lost before have been told of.
func failure(reports []supervise.Report, result func(id string) *train.Result) error {
	words, statuses := map[string][]string{}, map[int]bool{}
	for _, n := range reports {
		switch {
		case n.Starts == 0:
			continue
		case n.Outcome == supervise.Left && n.Last.OK():
			return nil
		}
		text := lastWords(n, result(n.ID))
		words[text] = append(words[text], n.ID)
		statuses[exitStatus(n.Last)] = true
	}
	if len(words) == 0 {
		return nil
	}
	f := &Failure{1, "no node finished:" + bySide(words)}
	if len(statuses) == 1 {
		f.Status = slices.Collect(maps.Keys(statuses))[0]
	}
	return f
}

// exitStatus is what an exit means to whoever started us.
func exitStatus(e supervise.Exit) int {
	if e.Err != nil || e.Signal != "" || e.Status == 0 {
		return 1
	}
	return e.Status
}

// lastWords is what a node said at its end: its error, or the end of its log.
func lastWords(n supervise.Report, r *train.Result) string {
	if r != nil && r.Error != "" {
		return r.Error
	}
	if n.Last.Signal != "" {
		return n.Last.String() // which it had no time to comment on
	}
	b, err := os.ReadFile(n.Log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%v (%v)", n.Last, err)
	}
	if words := endOf(string(b)); words != "" {
		return fmt.Sprintf("%v: %s", n.Last, words)
	}
	return n.Last.String()
}

// endOf returns what a log ends with: the last error that the program told, or a
// crash of its runtime; else the last line.
func endOf(log string) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	for i, line := range slices.Backward(lines) {
		for _, mark := range []string{"dlnode: ", "panic: ", "fatal error: "} {
			if strings.HasPrefix(line, mark) {
				lines[i] = strings.TrimPrefix(line, "dlnode: ")
				return strings.Join(lines[i:min(len(lines), i+maxWords)], "\n")
			}
		}
	}
	return lines[len(lines)-1]
}

// maxWords is how many lines of a log are shown: enough for an error that lists
// its reasons, and little of a crash.
const maxWords = 12
