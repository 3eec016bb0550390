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
	all := allowedCPUs()
	n := len(all)
	if n < 2 {
		t.Skip("needs two CPUs that may be chosen")
	}
	for threads := 1; threads <= n; threads++ {
		if n%threads != 0 {
			continue
		}
		var got []int
		for i := range n / threads {
			cpus := CPUs(i, n/threads, threads)
			if alone := threads == n; alone != (cpus == nil) || !alone && len(cpus) != threads {
				t.Errorf("process %d of %d with %d threads on %v: %v", i, n/threads, threads, all, cpus)
			}
			got = append(got, cpus...)
		}
		if slices.Sort(got); threads < n && !slices.Equal(got, all) {
			t.Errorf("%d processes with %d threads: %v, want each of %v once", n/threads, threads, got, all)
		}
	}
	for _, c := range []struct {
		i, processes, threads int
		why                   string
	}{
		{0, n + 1, 1, "there are too few"}, {0, n, 2, "there are too few"}, {0, 1, 1, "some are left for others"},
		{n, n, 1, "it came later"}, {-1, n, 1, "it came later"},
	} {
		if cpus := CPUs(c.i, c.processes, c.threads); cpus != nil {
			t.Errorf("process %d of %d with %d threads on %v: %v, though %s", c.i, c.processes, c.threads, all, cpus, c.why)
		}
	}
	if cpus := CPUs(n-1, n, 0); len(cpus) != 1 {
		t.Errorf("a process computes with one thread at least: %v", cpus)
	}
}
