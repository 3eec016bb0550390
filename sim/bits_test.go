package sim

import (
	"context"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/testjobs"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// testLoad makes a load of a test job, to end in what one process alone ends in.
func testLoad(t *testing.T, f testjobs.File) *Load {
	t.Helper()
	j, err := job.Parse(f.Name, f.Text)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLoad(j)
	if err != nil {
		t.Fatal(err)
	}
	fit, err := train.Fit(context.Background(), l.Task, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Want = fit.State
	return l
}

// on plays a load on n nodes in a perfect world: all must end in what one
// process alone ends in.
func on(t *testing.T, l *Load, n int) {
	t.Helper()
	o := alone(l)
	o.Nodes, o.Seed = n, uint64(n)
	if r := Run(o); r.Failure != nil || r.Finished != n {
		t.Errorf("%s on %d nodes with %s: %v, %d finished\n%s", l.Name, n, kernel.Name(), r.Failure, r.Finished, tail(again(o).Trace, 60))
	}
}

// The test jobs, each kind and option of a layer, on 1, 2 and 3 nodes. Package
// train holds what one process ends in against the record, for every instruction
// set and number of threads.
func TestEveryTestJobEndsTheSameOnAnyNumberOfNodes(t *testing.T) {
	for _, f := range testjobs.Layers() {
		l := testLoad(t, f)
		on(t, l, 2)
		on(t, l, 3)
	}
}

// Whole jobs in the full product: instruction sets by numbers of nodes.
func TestWholeJobsEndTheSameOnAnyNodesAndKernels(t *testing.T) {
	was := kernel.Name()
	defer func() {
		if err := kernel.Use(was); err != nil {
			t.Error(err)
		}
	}()
	for _, f := range testjobs.Whole() {
		l := testLoad(t, f)
		for _, variant := range kernel.Variants() {
			if err := kernel.Use(variant); err != nil {
				t.Fatal(err)
			}
			for n := 1; n <= 3; n++ {
				on(t, l, n)
			}
		}
	}
}
