package train

import (
	"slices"
	"sync"
	"testing"

	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/shard"
)

// Each element of the sum is declared ready once, when it is what it will be, and
// some are before the last layer's turn: whatever the number of threads.
func TestSumsAreReadyOnceAndFinal(t *testing.T) {
	task := layerTask(t, []job.Section{nn.NewFlatten(), nn.NewDense(300, "relu"), nn.NewDense(300, "relu"), nn.NewDense(300, "relu"), nn.NewDense(3, "softmax")})
	s := task.Start()
	a := task.attempt(s)
	all := shard.Range{Hi: task.microbatches(a)}
	want, err := NewEngine(task, 1).Compute(t.Context(), a, all, s.params, nil)
	if err != nil {
		t.Fatal(err)
	}
	sums := slices.Clone(want.Grad.Acc())
	for threads := 1; threads <= 3; threads++ {
		p := newPool(NewEngine(task, threads))
		mem := p.engine.Sums()
		var mu sync.Mutex
		times := make([]int, len(sums))
		var order [][2]int
		done := make(chan error, 1)
		p.compute(t.Context(), a, all, s.params, func(lo, hi int) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, [2]int{lo, hi})
			for i := lo; i < hi; i++ {
				times[i]++
			}
			if !slices.Equal(mem.Grad.Memory()[lo:hi], sums[lo:hi]) {
				t.Errorf("%d threads: elements %d to %d are ready and not final", threads, lo, hi)
			}
		}, func(c Contribution, err error) {
			if err == nil && &c.Mean[0] != &mem.Mean[0] {
				t.Error("the mean gradient has no memory of its own")
			}
			done <- err
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		p.close()
		if i := slices.IndexFunc(times, func(n int) bool { return n != 1 }); i >= 0 {
			t.Errorf("%d threads: element %d is declared ready %d times", threads, i, times[i])
		}
		if len(order) < 3 || order[0][0] == 0 {
			t.Errorf("%d threads: ready in the order %v, want the last layers first", threads, order)
		}
	}
}
