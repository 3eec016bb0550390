package train

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/checkpoint"
)

// recompute goes over a run from a state on. It returns all transitions, the state
// after step 9, and the digest of the last.
func recompute(t *testing.T, task *Task, from *checkpoint.Snapshot, threads int) (all []Recomputed, ninth *checkpoint.Snapshot, end [32]byte) {
	t.Helper()
	r, err := NewRecomputer(task, from, threads)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for !r.Done() {
		got, err := r.Compute(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got)
		if got.Kind == Update {
			checkParts(t, r, got)
		}
		if r.Commit(); got.Kind == Update && got.Step == 9 {
			ninth = task.snapshot(r.state.clone())
		}
	}
	if _, err := r.Compute(context.Background()); err == nil {
		t.Error("something comes after the end")
	}
	return all, ninth, r.Digest()
}

// checkParts checks that parts of a gradient add up to it.
func checkParts(t *testing.T, r *Recomputer, got Recomputed) {
	t.Helper()
	var sum uint64
	for lo := 0; lo < got.Microbatches; lo += 2 {
		part, err := r.Part(context.Background(), lo, min(lo+2, got.Microbatches))
		if err != nil {
			t.Fatal(err)
		}
		var n uint64
		if _, err := fmt.Sscanf(part, "%x", &n); err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if all := fmt.Sprintf("%016x", sum); all != got.Gradient {
		t.Fatalf("transition %d: the parts add up to %s, want %s", got.Transition, all, got.Gradient)
	}
	if _, err := r.Part(context.Background(), 1, got.Microbatches+1); err == nil {
		t.Fatal("a microbatch that there is not has a sum")
	}
}

func TestARecomputedRunIsTheRun(t *testing.T) {
	task := simTask(t)
	want, err := Fit(context.Background(), task, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, ninth, end := recompute(t, task, nil, 2)
	if end != want.State {
		t.Errorf("from the start it ends in %x, want %x", end, want.State)
	}
	if all[0].Gradient == "" || all[0].Gradient == all[1].Gradient {
		t.Errorf("the first gradients are %+v", all[:2])
	}
	rest, _, end := recompute(t, task, ninth, 1)
	if end != want.State {
		t.Errorf("from the middle it ends in %x, want %x", end, want.State)
	}
	if tail := all[len(all)-len(rest):]; !slices.Equal(rest, tail) {
		t.Errorf("from the middle there are other transitions:\n%v\nwant\n%v", rest, tail)
	}
}
