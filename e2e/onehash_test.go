//go:build unix

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// Issue: any number of processes, with any number of threads, comes to one
// SHA-256 of the model and of the whole state.
func TestAnyNumberOfProcessesComesToOneHash(t *testing.T) {
	j := theJob(t)
	want := j.oracle(t)
	sizes := []int{2, 3}
	if *full {
		sizes = []int{1, 2, 3, 4, 5, 8}
	}
	for _, n := range sizes {
		for _, procs := range []int{1, 2} {
			if !*full && (n+procs)%2 == 0 {
				continue
			}
			t.Run(fmt.Sprintf("nodes=%d,GOMAXPROCS=%d", n, procs), func(t *testing.T) {
				f := newFleet(t, j)
				began := time.Now()
				all := f.launch(n, options{gomaxprocs: procs, threads: procs})
				f.finish(want)
				f.audit(want)
				t.Logf("%d processes, GOMAXPROCS %d: %d steps in %.1f s, %.0f MB resident each at most, model %s",
					n, procs, want.step, time.Since(began).Seconds(), most(all), want.model)
			})
		}
	}
}

// most is the greatest resident set of some processes that are gone, in MB.
func most(all []*process) (mb float64) {
	for _, p := range all {
		mb = max(mb, float64(p.PeakRSS())/1e6)
	}
	return mb
}
