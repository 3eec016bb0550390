//go:build unix

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/testjobs"
)

// wholeJob is one of the jobs that other packages train in one process, for more
// epochs. What is left of its samples to train on, and how many microbatches a
// step has, is as the file says.
func wholeJob(t *testing.T, name string, samples, micro int) job {
	t.Helper()
	all := testjobs.Whole()
	i := slices.IndexFunc(all, func(f testjobs.File) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("there is no job %s", name)
	}
	text := regexp.MustCompile(`(?m)^epochs: .*`).ReplaceAll(all[i].Text, []byte("epochs: 20"))
	return job{name: name, yaml: string(text), samples: samples, micro: micro}
}

// A convolutional net with statistics of batches and a net over sequences, on
// processes that differ in the kernels they use and the threads they have: one
// SHA-256, that of one process alone.
func TestNodesWithOtherKernelsComeToOneHash(t *testing.T) {
	for _, j := range []job{wholeJob(t, "cnn", 88, 5), wholeJob(t, "lstm", 72, 5)} {
		want := j.oracle(t)
		variants := kernel.Variants()
		for n := 1; n <= 3; n++ {
			t.Run(fmt.Sprintf("%s,nodes=%d", j.name, n), func(t *testing.T) {
				f := newFleet(t, j)
				for i := range n {
					threads := 1 << i // 1, 2, 4
					f.start(fmt.Sprintf("node-%d", i+1), options{
						expect: n, threads: threads, gomaxprocs: threads, cpu: variants[(i+n)%len(variants)],
					})
				}
				f.finish(want)
				f.audit(want)
			})
		}
	}
}
