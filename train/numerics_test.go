package train

import (
	"context"
	"encoding/hex"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/shard"
)

// golden is what a fixed job ended in when its numerics version was made. Another
// hash under the same version means that two programs would disagree about one
// trajectory: raise Numerics, and record the new hash beside the new version.
var golden = struct {
	numerics   int
	trajectory string
	model      string
	state      string
}{
	2,
	"422507d1be330dd13fa9aaf2c00e6f76512a63f9c065f40756e00e35e3eca3e2",
	"9aad378e075b7cf001b54296e5303105290fc872aa1b96badcec5c9977ee5158",
	"9b6ec7f1b5c95242906bb3909ef7a0e3ca805d88bdac5d9695b618b5d3295152",
}

func TestTheNumericsVersionNamesTheseBits(t *testing.T) {
	task := simTask(t)
	fit, err := Fit(context.Background(), task, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if Numerics != golden.numerics {
		t.Errorf("numerics version %d has no recorded bits; the record is of %d", Numerics, golden.numerics)
	}
	for _, c := range []struct {
		what      string
		got, want string
	}{
		{"trajectory", hex.EncodeToString(task.Trajectory[:]), golden.trajectory},
		{"model", hex.EncodeToString(fit.Model[:]), golden.model},
		{"state", hex.EncodeToString(fit.State[:]), golden.state},
	} {
		if c.got != c.want {
			t.Errorf("%s\n is %s,\nwas %s under numerics version %d: raise the version if the bits are to change", c.what, c.got, c.want, golden.numerics)
		}
	}
}

func TestThreadsAndKernelsDoNotChangeABit(t *testing.T) {
	task := simTask(t)
	defer func(was string) {
		if err := kernel.Use(was); err != nil {
			t.Error(err)
		}
	}(kernel.Name())
	for _, variant := range kernel.Variants() {
		if err := kernel.Use(variant); err != nil {
			t.Fatal(err)
		}
		for threads := 1; threads <= 4; threads++ {
			fit, err := Fit(context.Background(), task, threads, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(fit.State[:]); got != golden.state {
				t.Errorf("%s, %d threads: state %s, want %s", variant, threads, got, golden.state)
			}
		}
	}
}

func TestAMicrobatchAllocatesNothing(t *testing.T) {
	task := simTask(t)
	e := NewEngine(task, 1)
	s := task.Start()
	for _, a := range []*Attempt{
		task.attempt(s),
		{Kind: Evaluate, Scalar: s.EvalExps},
	} {
		ctx := context.Background()
		allocs := testing.AllocsPerRun(20, func() {
			if _, err := e.Compute(ctx, a, shard.Range{Lo: 0, Hi: task.microbatches(a)}, s.params, nil); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations, want 0", a.Kind, allocs)
		}
	}
}

func TestACopiedStateIsTheSameState(t *testing.T) {
	task := simTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	if _, err := f.run(); err != nil {
		t.Fatal(err)
	}
	s := f.node.State()
	again, err := task.restore(task.snapshot(s))
	if err != nil {
		t.Fatal(err)
	}
	if task.digest(again) != task.digest(s) {
		t.Error("a state that was restored has another digest")
	}
	if again.watch(inTurn) != s.watch(inTurn) {
		t.Error("a state that was restored is watched differently")
	}
}

// Each bit of the state must be seen by the digests on the headers within one
// turn of the blocks.
func TestTheWatchSeesEveryFlippedBit(t *testing.T) {
	task := simTask(t)
	s := task.Start()
	turn := func() (sums [watchBlocks]uint64) {
		for i := range sums {
			s.Transition = uint64(i)
			sums[i] = s.watch(inTurn)
		}
		return sums
	}
	clean := turn()
	for _, v := range [][]float32{s.params, s.slots[0], s.slots[1]} {
		for _, at := range []int{0, len(v) / 3, len(v) - 1} {
			old := v[at]
			v[at] += 1e-30
			if v[at] == old {
				v[at] = -old + 1e-38
			}
			if turn() == clean {
				t.Errorf("element %d of %d changed unseen", at, len(v))
			}
			v[at] = old
		}
	}
	s.GradExps[0]++
	if turn() == clean {
		t.Error("a changed exponent is not seen")
	}
}
