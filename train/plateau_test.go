package train

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/job"
)

func TestARateFallsWhenANumberDoesNot(t *testing.T) {
	r := &job.ReduceOnPlateau{Monitor: "loss", Factor: 0.5, Patience: 2, MinDelta: 0.1, Cooldown: 2, Mode: "min"}
	var p plateau
	var counts []int
	for epoch, loss := range []float64{1, 0.8, 0.75, 0.72, 0.72, 0.72, 0.72, 0.72, 0.2, math.NaN(), math.NaN()} {
		p.observe(r, loss, epoch+1)
		counts = append(counts, p.Count)
	}
	// Epoch 3 is no improvement by 0.1 and epoch 4 is not by more; then two epochs
	// count for nothing but their own end (Keras lowers the cooldown first).
	if want := []int{0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3}; !slices.Equal(counts, want) {
		t.Errorf("reductions after each epoch %v, want %v", counts, want)
	}
	if p.Best != 0.2 {
		t.Errorf("the best is %v", p.Best)
	}
}

func TestAPlateauIsAPartOfTheState(t *testing.T) {
	j := *simTask(t).Job
	j.EarlyStopping, j.Epochs = nil, 6
	j.ReduceOnPlateau = &job.ReduceOnPlateau{Monitor: "val_loss", Factor: 0.5, Patience: 1, MinDelta: 10, Mode: "auto", MinLR: 0.0002}
	with := layerTaskOf(t, &j)
	f := newFitter(context.Background(), with, 1, nil)
	defer f.pool.close()
	if _, err := f.run(); err != nil {
		t.Fatal(err)
	}
	s := f.node.State()
	var rates []Number
	for _, e := range s.History {
		rates = append(rates, e.LR)
	}
	// Nothing improves by 10, so the rate falls behind each epoch but the first.
	if want := []Number{0.001, 0.001, 0.0005, 0.00025, 0.0002, 0.0002}; !slices.Equal(rates, want) {
		t.Errorf("rates %v, want %v", rates, want)
	}
	again, err := with.restore(with.snapshot(s))
	if err != nil || again.Plateau != s.Plateau || with.digest(again) != with.digest(s) {
		t.Errorf("restored as %+v, want %+v (%v)", again.Plateau, s.Plateau, err)
	}
	before := s.watch(inTurn)
	s.Plateau.Wait++
	if s.watch(inTurn) == before {
		t.Error("a changed plateau is not seen by the watch")
	}
}
