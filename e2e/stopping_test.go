//go:build unix

package e2e

import (
	"strings"
	"testing"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// Issue: early stopping happens at the same step for all, brings the best
// weights back, and its patience survives kill and resume.
func TestEarlyStoppingSurvivesKillAndResume(t *testing.T) {
	j := stopping(40)
	want := j.oracle(t)
	t.Run("together", func(t *testing.T) {
		f := newFleet(t, j)
		f.launch(3, options{})
		f.finish(want)
		f.audit(want)
	})
	t.Run("killed while patient", func(t *testing.T) {
		f := newFleet(t, j)
		f.launch(2, options{})
		f.reach(want.step * 17 / 20)
		f.killAll()
		if at := furthest(f.lives()); at >= want.step {
			t.Fatalf("killed at step %d of %d: too late", at, want.step)
		}
		f.launch(3, options{})
		f.finish(want)
	})
	t.Run("the best weights", func(t *testing.T) { bestWeights(t, j, want) })
}

// stopping is a job that learns its few samples by heart, so that its
// validation loss soon gets worse.
func stopping(epochs int) job {
	return network{
		samples: 1000, features: 256, units: 256, epochs: epochs, global: 60, micro: 6, every: 20,
		more: "optimizer: {adam: {learning_rate: 0.001}}\nearly_stopping: {monitor: val_loss, patience: 8, restore_best: true}\n",
	}.job("stopping")
}

// furthest is the last step that anybody wrote down.
func furthest(all []lives.Life) (step uint64) {
	for _, l := range all {
		l.Steps(func(r train.Record) { step = max(step, r.Step) })
	}
	return step
}

// bestWeights trains up to the best epoch alone, without early stopping: those
// weights must be the ones that were restored.
func bestWeights(t *testing.T, j job, want verdict) {
	f := newFleet(t, j)
	r := f.start("alone", options{threads: 1}).finish()
	best := 0
	for i, e := range r.History {
		if e.Validation[0] < r.History[best].Validation[0] {
			best = i
		}
	}
	if best == len(r.History)-1 || len(r.History) == 40 {
		t.Fatalf("epoch %d of %d is the best: this job doesn't stop early", best+1, len(r.History))
	}
	short := stopping(best + 1)
	short.yaml = strings.Replace(short.yaml, "restore_best: true", "restore_best: false", 1)
	if got := short.oracle(t); got.model != want.model {
		t.Errorf("model %s after the best epoch, %s restored", got.model, want.model)
	}
	t.Logf("stopped after epoch %d at step %d; epoch %d was the best: its weights are back", len(r.History), want.step, best+1)
}
