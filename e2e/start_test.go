//go:build unix

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/train"
)

// Issue: start to first completed step, memory and size.
func TestStartIsQuick(t *testing.T) {
	j := theJob(t)
	want := j.oracle(t)
	n := 1
	if *full {
		n = 5
	}
	var starts []time.Duration
	var memory []string
	for range n {
		f := newFleet(t, j)
		began := time.Now()
		f.launch(4, options{})
		f.finish(want)
		starts = append(starts, firstStep(f.lives()).Sub(began))
		memory = memory[:0]
		for _, p := range f.procs {
			memory = append(memory, fmt.Sprintf("%.0f MB", float64(p.rss)/1e6))
		}
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("start of the first of four processes to the first step of all: %s", figures(starts))
	t.Logf("resident memory, at most, of each: %s; the binary: %.1f MB (not stripped)", strings.Join(memory, ", "), float64(info.Size())/1e6)
}

// firstStep is when four nodes together completed their first step.
func firstStep(all []life) (first time.Time) {
	for _, l := range all {
		l.steps(func(r train.Record) {
			if r.World == 4 && (first.IsZero() || r.Time.Before(first)) {
				first = r.Time
			}
		})
	}
	return first
}
