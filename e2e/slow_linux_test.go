package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// The shares of a CPU that the nodes have, and with them a seventh of the work for the
// slow one: of 48 microbatches 20.6, 20.6 and 6.9.
var slowShares = []float64{0.5, 0.5, 0.5 / 3}

const (
	quotaPeriod  = 10 * time.Millisecond // short against a step, so that each step gets its share
	slowWarmup   = 30                    // steps that are not measured: exponents and speeds are learned in them
	slowDeadline = 20                    // steps after which a slow node has less to do
)

// slowed is a net with few parameters and much to compute, for whose steps of 48
// microbatches speed is all.
func slowed(steps int) job {
	return job{name: "slowed", samples: 4800, micro: 48, yaml: fmt.Sprintf(`name: slowed
data: {synthetic: {samples: 4800, features: 784, classes: 10}}
model:
  - reshape: {target_shape: [28, 28, 1]}
  - conv2d: {filters: 24, kernel_size: 3, activation: relu}
  - max_pooling2d
  - conv2d: {filters: 32, kernel_size: 3, activation: relu}
  - max_pooling2d
  - flatten
  - dense: {units: 10, activation: softmax}
loss: sparse_categorical_crossentropy
batch: {global: 480, microbatch: 10}
epochs: %d
checkpoint: {every_steps: 100000}
`, steps/10)}
}

// Issue: a node with a third of the others' speed gets fewer microbatches within 20 steps,
// a step is shorter by that, and the model is the same.
func TestASlowNodeGetsLessToDo(t *testing.T) {
	steps := 60
	if *full {
		steps = 200
	}
	j := slowed(steps)
	alone := newFleet(t, j)
	one := newQuotas(t, slowShares[:1])
	p := alone.start("alone", options{through: one.through(0)})
	r := p.finish()
	t.Logf("alone: %.1f ms of CPU time a step; %s", lives.Millis(p.CPU())/float64(r.Step), lives.Figures(stepTimes(alone.lives()[0])))
	want := verdict{r.ModelSHA256, r.StateSHA256, r.Step, r.Transition}
	work := lives.Quantile(stepTimes(alone.lives()[0]), 0.5).Seconds() * slowShares[0] // of a whole CPU, a step
	ideal := work / (slowShares[0] + slowShares[1] + slowShares[2])

	shared, within := runSlowed(t, j, want, nil)
	even, never := runSlowed(t, j, want, []string{"DLNODE_EVEN=1"})
	t.Logf("the slow node has less to do from step %d on; a step takes %.1f ms, with as much for all %.1f ms, ideally %.1f ms: %.2f times as long as ideal, %.2f times as fast as without; model %.16s",
		within, 1e3*shared, 1e3*even, 1e3*ideal, shared/ideal, even/shared, want.model)
	if within == 0 || within > slowDeadline {
		t.Errorf("the slow node has less to do from step %d on, want within %d", within, slowDeadline)
	}
	if never != 0 {
		t.Errorf("dealt evenly, the slow node has less to do from step %d on", never)
	}
	if shared > 0.8*even {
		t.Errorf("a step takes %.1f ms with work shared out by speed, %.1f ms without", 1e3*shared, 1e3*even)
	}
}

// runSlowed trains on three nodes, one of which is slow. It returns the usual time of a
// step, in seconds, and the first step of which the slow one has less than either of the others.
func runSlowed(t *testing.T, j job, want verdict, env []string) (step float64, less uint64) {
	t.Helper()
	f, q := newFleet(t, j), newQuotas(t, slowShares)
	for i := range slowShares {
		f.start(fmt.Sprintf("node-%d", i+1), options{expect: len(slowShares), through: q.through(i), env: env})
	}
	f.finish(want)
	all := f.audit(want)
	counts := map[uint64][]int{} // by step, those of nodes in turn
	for _, l := range all {
		l.Steps(func(r train.Record) {
			if r.Kind == string(train.Update) {
				counts[r.Step] = append(counts[r.Step], r.Hi-r.Lo)
			}
		})
	}
	for s := uint64(1); s <= want.step && less == 0; s++ {
		if n := counts[s]; len(n) == len(slowShares) && 2*n[2] < min(n[0], n[1]) {
			less = s
		}
	}
	last := counts[want.step]
	for _, p := range f.procs {
		t.Logf("%s used %.1f ms of CPU time a step", p.ID, lives.Millis(p.CPU())/float64(want.step))
	}
	t.Logf("microbatches of the last step: %v; steps: %s", last, lives.Figures(stepTimes(all[0])))
	return lives.Quantile(stepTimes(all[0]), 0.5).Seconds(), less
}

// stepTimes are the times from update to update in a life, the first ones left out.
func stepTimes(l lives.Life) (times []time.Duration) {
	var at time.Time
	l.Steps(func(r train.Record) {
		if r.Kind == string(train.Update) && r.Step > slowWarmup {
			times = append(times, r.Time.Sub(at))
		}
		at = r.Time
	})
	return times
}

// quotas are control groups, of either version, with a share of a CPU each.
type quotas []string

// newQuotas makes them, which takes root. They go before what else the machine does, so that
// a node has what its quota says.
func newQuotas(t *testing.T, shares []float64) (q quotas) {
	t.Helper()
	root, v2 := "/sys/fs/cgroup", true
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		root, v2 = filepath.Join(root, "cpu"), false
	}
	t.Cleanup(func() {
		for _, dir := range q {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	for _, share := range shares {
		dir, err := os.MkdirTemp(root, "dlnode-e2e-")
		if err != nil {
			t.Skipf("no control groups: %v", err)
		}
		q = append(q, dir)
		period := strconv.FormatInt(quotaPeriod.Microseconds(), 10)
		quota := strconv.FormatInt(int64(share*float64(quotaPeriod.Microseconds())), 10)
		if v2 {
			err = errors.Join(put(dir, "cpu.max", quota+" "+period), put(dir, "cpu.weight", "10000"))
		} else {
			err = errors.Join(put(dir, "cpu.cfs_period_us", period), put(dir, "cpu.cfs_quota_us", quota), put(dir, "cpu.shares", "100000"))
		}
		if err != nil {
			t.Skipf("no quotas of CPU time: %v", err)
		}
	}
	return q
}

func put(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0)
}

// through is a command that starts the program in the i-th group.
func (q quotas) through(i int) []string {
	return slices.Concat([]string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, q[i]}, []string{program})
}
