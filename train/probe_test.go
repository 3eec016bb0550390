package train

import (
	"context"
	"math"
	"testing"

	"github.com/dlnode/dlnode/shard"
)

// What pattern a processor writes for no number is its own affair: two that agree that
// a loss or an element of a gradient is none must not contradict each other.
func TestOfNoNumberThereIsOneDigest(t *testing.T) {
	task := simTask(t)
	s := task.Start()
	e, a := NewEngine(task, 1), task.attempt(s)
	w := e.Workers()[0]
	compute := func() uint64 {
		if _, err := e.Compute(context.Background(), a, shard.Range{Hi: 1}, s.params, nil); err != nil {
			t.Fatal(err)
		}
		return w.digest()
	}
	if right := compute(); right == notFinite || right != compute() {
		t.Fatalf("a microbatch computed twice has the digests %016x and another", right)
	}
	for _, bits := range []uint64{0x7ff8000000000001, 0xfff8000000000002, 0x7ff0000000000000, math.Float64bits(0x1p128)} {
		compute()
		w.ws.Losses()[0] = math.Float64frombits(bits)
		if d := w.digest(); d != notFinite {
			t.Errorf("with a loss of %016x the digest is %016x", bits, d)
		}
	}
	for _, bits := range []uint32{0x7fc00001, 0xffc00002, 0x7f800000} {
		compute()
		w.grads[len(w.grads)-1] = math.Float32frombits(bits)
		if d := w.digest(); d != notFinite {
			t.Errorf("with an element %08x in the gradient the digest is %016x", bits, d)
		}
	}
}

// Which microbatch a rank tells of does not depend on which of its workers computed
// what, nor when: it is the first of those that are furthest beyond their grids.
func TestTheWorstMisfitIsToldWhateverTheOrder(t *testing.T) {
	task := simTask(t)
	s := task.Start()
	a := task.attempt(s)
	n := task.microbatches(a)
	tell := func(backwards bool) misfit {
		e := NewEngine(task, 1)
		e.Spoil(func(_ *Attempt, microbatch, lo int, grads []float32) {
			if lo == 0 && microbatch > 0 && microbatch < n-1 {
				grads[0] = float32(math.Inf(1))
			}
		})
		e.Begin(a, n, nil)
		for i := range n {
			mb := i
			if backwards {
				mb = n - 1 - i
			}
			if err := e.Workers()[0].Microbatch(context.Background(), a, mb, s.params); err != nil {
				t.Fatal(err)
			}
		}
		return e.Collect(a).misfit
	}
	if got, back := tell(false), tell(true); got != back || got.microbatch != 1 || got.digest != notFinite {
		t.Errorf("of %d microbatches it tells %+v, in reverse order %+v", n, got, back)
	}
}
