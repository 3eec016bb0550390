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
