//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// Issue: from the start of dlnode launch to the first step that four nodes have
// completed together, with the data in the cache.
func TestStartIsQuick(t *testing.T) {
	j := theJob(t)
	n := 1
	if *full {
		n = 5
	}
	var starts []time.Duration
	for range n {
		starts = append(starts, launchTime(newFleet(t, j), 4))
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start of launch to the first step of four nodes: %s", lives.Figures(starts))
	t.Logf("the binary: %.1f MB (not stripped)", float64(info.Size())/1e6)
}

// launchTime has dlnode launch train the job with n nodes, and returns how long
// it was to the first step.
func launchTime(f *fleet, n int) time.Duration {
	f.t.Helper()
	dir := filepath.Join(f.dir, "launch")
	cmd := exec.Command(program, "launch", "-n", fmt.Sprint(n), "--dir", dir, f.jobFile())
	cmd.Env = append(os.Environ(), "DLNODE_DATA="+dataDir())
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
	var nodes []string
	for i := range n {
		nodes = append(nodes, fmt.Sprintf("node-%d", i+1))
	}
	return firstStep(f.t, readLives(f.t, dir, nodes), n).Sub(began)
}

// firstStep is when n nodes together completed their first step.
func firstStep(t *testing.T, all []lives.Life, n int) (first time.Time) {
	t.Helper()
	for _, l := range all {
		l.Steps(func(r train.Record) {
			if r.World == n && (first.IsZero() || r.Time.Before(first)) {
				first = r.Time
			}
		})
	}
	if first.IsZero() {
		t.Fatalf("%d nodes never completed a step together", n)
	}
	return first
}
