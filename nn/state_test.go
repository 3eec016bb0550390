package nn

import (
	"slices"
	"testing"
)

// stateful is a model with every layer that keeps something from batch to batch, and
// a branch that has wider gradients than all else.
func stateful(t *testing.T, cell LayerSpec) *Model {
	return mustBuild(t, Spec{Loss: meanSquared, Layers: []LayerSpec{
		NewConv2D(2, Pair{2, 2}, "tanh"), &SpatialDropout2D{0.4}, NewBatchNormalization(),
		NewResidual(NewConv2D(40, Pair{1, 1}, "tanh"), NewConv2D(2, Pair{1, 1}, "linear")),
		NewReshape(6, 8), cell, NewDropout(0.4), NewDense(2, "linear"),
	}}, []int{5, 7, 1}, Target{Len: 2})
}

// A workspace that has seen other batches, larger and smaller, in training and in
// evaluation, is like a new one.
func TestNothingIsLeftOfABatch(t *testing.T) {
	dropping := NewLSTM(3)
	dropping.Dropout, dropping.RecurrentDropout = 0.4, 0.4
	for _, cell := range []LayerSpec{NewLSTM(3), NewGRU(3), dropping, NewBidirectional(NewGRU(2))} {
		m := stateful(t, cell)
		params := make([]float32, m.NumParams())
		m.Init(1, params)
		run := func(w *Workspace, n int, train bool) []float32 {
			grads := make([]float32, m.NumParams())
			b := &Batch{N: n, X: someFloats(2, n*m.InputLen()), Y: someFloats(3, 2*n), IDs: make([]uint64, n)}
			out := slices.Clone(w.Forward(params, b, Key{1, 2}, train))
			w.Backward(params, grads, nil)
			return append(out, grads...)
		}
		used := m.NewWorkspace(9)
		for i, n := range []int{2, 9, 1, 1, 5, 9, 3, 3} {
			train := i%3 != 2
			if !sameBits(run(used, n, train), run(m.NewWorkspace(n), n, train)) {
				t.Errorf("%s: batch %d, of %d samples, is not what a new workspace makes of it", cell.Kind(), i, n)
			}
		}
	}
}

// Evaluation measures no statistics.
func TestAGradientInEvaluationMovesNoStatistics(t *testing.T) {
	m := stateful(t, NewGRU(2))
	params, grads := make([]float32, m.NumParams()), make([]float32, m.NumParams())
	m.Init(1, params)
	fill(grads, 7)
	w := m.NewWorkspace(2)
	w.Forward(params, &Batch{N: 2, X: someFloats(2, 2*m.InputLen()), Y: someFloats(3, 4)}, Key{}, false)
	w.Backward(params, grads, nil)
	for _, s := range m.Tensors() {
		for _, g := range s.of(grads) {
			if s.Use == Statistic && g != 0 {
				t.Errorf("%s: %v stands in the place of its gradient, want 0", s.Name, g)
			}
		}
	}
}

// What gives the steps another meaning ends the mask.
func TestMasksEndWhereStepsDo(t *testing.T) {
	masked := func(layers ...LayerSpec) []LayerSpec {
		e := NewEmbedding(4, 2)
		e.MaskZero = true
		return slices.Concat([]LayerSpec{e}, layers, []LayerSpec{NewDense(1, "linear")})
	}
	cell := NewLSTM(2)
	cell.ReturnSequences = true
	for name, layers := range map[string][]LayerSpec{
		"reshape":         masked(NewReshape(2, 6), NewGRU(2)),
		"one branch":      masked(NewConcat(nil, []LayerSpec{NewReshape(6, 2)}), NewGRU(2)),
		"another branch":  masked(NewConcat([]LayerSpec{NewReshape(6, 2)}, nil), NewGRU(2)),
		"flatten":         masked(NewFlatten(), NewBatchNormalization()),
		"without padding": masked(cell, NewReshape(3, 4), NewBatchNormalization(), NewGRU(2)),
	} {
		m := mustBuild(t, Spec{Loss: meanSquared, Layers: layers}, []int{6}, Target{Len: 1})
		for _, p := range m.chain.plans[1:] {
			if g, ok := p.(gru); ok && g.slot >= 0 {
				t.Errorf("%s: a mask of 6 steps is still there", name)
			}
		}
	}
}
