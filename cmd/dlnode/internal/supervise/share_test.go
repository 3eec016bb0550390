package supervise

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
)

func TestProcessesShareTheCPUs(t *testing.T) {
	t.Parallel()
	n := runtime.NumCPU()
	for _, c := range []struct{ processes, threads, want int }{
		{1, 1, n},
		{n, 1, 1},
		{2 * n, 1, 1},
		{2 * n, 3, 3},
		{0, 0, n},
	} {
		if got, want := Share(c.processes, c.threads), []string{fmt.Sprintf("GOMAXPROCS=%d", c.want)}; !slices.Equal(got, want) {
			t.Errorf("%d processes with %d threads on %d CPUs: %q, want %q", c.processes, c.threads, n, got, want)
		}
	}
}

func TestEachProcessHasItsCPUs(t *testing.T) {
	t.Parallel()
	siblings := []int{0, 4, 1, 5, 2, 6, 3, 7}
	for _, c := range []struct {
		all                   []int
		i, processes, threads int
		want                  []int
	}{
		{siblings, 0, 4, 2, []int{0, 4}},
		{siblings, 3, 4, 2, []int{3, 7}},
		{siblings, 1, 2, 4, []int{2, 3, 6, 7}},
		{siblings, 7, 8, 1, []int{7}},
		{siblings, 7, 8, 0, []int{7}}, // a process computes with one thread at least
		{siblings, 0, 3, 2, nil},      // some are left for others
		{siblings, 0, 9, 1, nil},      // there are too few
		{siblings, 4, 4, 2, nil},      // one that came later
		{siblings, -1, 4, 2, nil},     // likewise
		{siblings, 0, 1, 8, nil},      // alone
		{nil, 0, 2, 1, nil},           // nobody can tell
		{[]int{3, 9}, 1, 2, 1, []int{9}},
	} {
		if got := cut(c.all, c.i, c.processes, c.threads); !slices.Equal(got, c.want) {
			t.Errorf("process %d of %d with %d threads on %v: %v, want %v", c.i, c.processes, c.threads, c.all, got, c.want)
		}
	}
}
