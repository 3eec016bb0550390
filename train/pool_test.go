package train

import (
	"encoding/hex"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
)

// backwards is an Each that begins with the last piece and does all at once.
func backwards(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := n - 1; i >= 0; i-- {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

func TestWhoDoesTheWorkDoesNotChangeABit(t *testing.T) {
	task := layerTask(t, []job.Section{nn.NewFlatten(), nn.NewDense(300, "relu"), nn.NewDense(300, "relu"), nn.NewDense(3, "softmax")})
	if n := task.Model.NumParams(); n < 2*pieceLen {
		t.Fatalf("%d parameters make no pieces", n)
	}
	states := map[string]string{}
	watched := map[string]uint64{}
	for name, each := range map[string]Each{"in turn": inTurn, "backwards": backwards} {
		f := newFitter(t.Context(), task, 3, nil)
		f.node.Share(each)
		fit, err := f.run()
		f.pool.close()
		if err != nil {
			t.Fatal(err)
		}
		states[name], watched[name] = hex.EncodeToString(fit.State[:]), f.node.State().watch(each)
	}
	if states["in turn"] != states["backwards"] || watched["in turn"] != watched["backwards"] {
		t.Errorf("states %v, digests %x", states, watched)
	}
}

func TestThePoolDoesEachPieceOnce(t *testing.T) {
	p := newPool(NewEngine(simTask(t), 3))
	defer p.close()
	var callers sync.WaitGroup
	for range 2 { // of whom one finds the pool busy now and then
		callers.Go(func() {
			for n := range 100 {
				times := make([]atomic.Int32, n)
				p.each(n, func(i int) { times[i].Add(1) })
				for i := range times {
					if got := times[i].Load(); got != 1 {
						t.Errorf("piece %d of %d was done %d times when all was said to be done", i, n, got)
					}
				}
			}
		})
	}
	callers.Wait()
}
