package nn

import (
	"math"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
)

// words is how many steps the models below see: more than a block of any batch here.
const words = 70

// sequenceModels are models of every kind of recurrent layer behind an embedding
// that masks, with everything that drops.
func sequenceModels(t testing.TB) map[string]*Model {
	lstm := func(sequences bool) LayerSpec {
		l := NewLSTM(19)
		l.ReturnSequences, l.Dropout, l.RecurrentDropout = sequences, 0.2, 0.3
		return l
	}
	gru := func(sequences bool) LayerSpec {
		l := NewGRU(19)
		l.ReturnSequences, l.Dropout, l.RecurrentDropout = sequences, 0.2, 0.3
		return l
	}
	plain := NewGRU(33)
	plain.UseBias = false
	all := map[string]*Model{}
	for name, layers := range map[string][]LayerSpec{
		"lstm":          {lstm(false)},
		"gru":           {gru(false)},
		"lstm, gru":     {lstm(true), gru(false)},
		"gru, lstm":     {gru(true), lstm(false)},
		"bidirectional": {NewBidirectional(lstm(true)), NewBidirectional(gru(false))},
		"plain":         {NewLSTM(33), NewReshape(3, 11), plain},
		"to the end":    {gru(true), lstm(true), NewFlatten()},
	} {
		e := NewEmbedding(50, 17)
		e.MaskZero = true
		spec := Spec{Layers: slices.Concat([]LayerSpec{e}, layers, []LayerSpec{NewDense(2, "linear")}), Loss: meanSquared}
		all[name] = mustBuild(t, spec, []int{words}, Target{Len: 2})
	}
	return all
}

// paddedBatch has n sentences: whole ones, some padded on the left, on the right,
// or in between, and one with nothing.
func paddedBatch(n int) *Batch {
	b := &Batch{N: n, X: make([]float32, n*words), Y: someFloats(5, 2*n), IDs: make([]uint64, n)}
	for i := range n {
		x := row(b.X, i, words)
		for j, u := range someFloats(uint64(10+i), words) {
			x[j] = float32(1 + int(24*(u+1)))
		}
		switch i % 5 {
		case 1:
			clear(x[:5+i])
		case 2:
			clear(x[words-20-i:])
		case 3:
			clear(x[30:40])
		case 4:
			clear(x)
		}
		b.IDs[i] = uint64(1000 + i)
	}
	return b
}

func TestSequencesHaveTheSameBitsInEveryVariant(t *testing.T) {
	before := kernel.Name()
	defer func() {
		if err := kernel.Use(before); err != nil {
			t.Error(err)
		}
	}()
	for name, m := range sequenceModels(t) {
		params, b := someFloats(7, m.NumParams()), paddedBatch(11)
		scale(params, 0.3)
		var want []float32
		for _, variant := range kernel.Variants() {
			if err := kernel.Use(variant); err != nil {
				t.Fatal(err)
			}
			got := trained(m, params, b)
			if want == nil {
				want = got
			}
			if !sameBits(got, want) {
				t.Errorf("%s: %s has other bits than %s", name, variant, kernel.Variants()[0])
			}
		}
	}
}

// trained is the output of a forward in training and the gradient behind it.
func trained(m *Model, params []float32, b *Batch) []float32 {
	w, grads := m.NewWorkspace(b.N), make([]float32, m.NumParams())
	out := slices.Clone(w.Forward(params, b, Key{3, 4}, true))
	w.Backward(params, grads, nil)
	return append(out, grads...)
}

// What a sample gives is the same alone, and the gradient of a batch, which goes
// through its steps in blocks, is the sum of those of its samples, which do in one.
func TestABatchOfSequencesIsItsSamples(t *testing.T) {
	const n = 11
	if blockRows/n >= words || blockRows < words {
		t.Fatalf("a block of %d rows makes no difference", blockRows)
	}
	for name, m := range sequenceModels(t) {
		params, b := someFloats(7, m.NumParams()), paddedBatch(n)
		scale(params, 0.3)
		all := trained(m, params, b)
		sum, size := make([]float64, m.NumParams()), make([]float64, m.NumParams())
		for i := range n {
			one := &Batch{N: 1, X: row(b.X, i, words), Y: row(b.Y, i, 2), IDs: b.IDs[i : i+1]}
			got := trained(m, params, one)
			if !sameBits(got[:2], all[2*i:2*i+2]) {
				t.Errorf("%s: sample %d gives %v alone and %v in the batch", name, i, got[:2], all[2*i:2*i+2])
			}
			for j, g := range got[2:] {
				sum[j] += float64(g)
				size[j] += math.Abs(float64(g))
			}
		}
		for j, g := range all[2*n:] {
			if math.Abs(float64(g)-sum[j]) > 1e-5*(size[j]+1e-3) {
				t.Fatalf("%s: element %d of the gradient is %v, the samples' add up to %v", name, j, g, sum[j])
			}
		}
	}
}

func TestStepsOverSequencesAllocateNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("an emulator takes half a minute")
	}
	for name, m := range sequenceModels(t) {
		checkAllocations(t, name, m, someFloats(7, m.NumParams()), paddedBatch(11))
	}
}

// A frozen layer has no gradient of its own, and hands on that of what lies before.
func TestAFrozenRecurrentLayerPassesGradientsOn(t *testing.T) {
	lstm, gru := NewLSTM(9), NewGRU(9)
	for _, c := range []struct {
		cell  LayerSpec
		learn *bool
	}{{lstm, &lstm.Trainable}, {gru, &gru.Trainable}} {
		var table []float32
		for _, *c.learn = range []bool{true, false} {
			m := mustBuild(t, Spec{Layers: []LayerSpec{NewEmbedding(50, 5), c.cell, NewDense(2, "linear")}, Loss: meanSquared}, []int{words}, Target{Len: 2})
			grads := trained(m, someFloats(7, m.NumParams()), paddedBatch(3))[6:]
			for _, p := range m.Tensors() {
				if zero := kernel.MaxExponent(p.of(grads)) == 0; zero != (p.Use == Frozen) {
					t.Errorf("%s, trainable %v: that its gradient is zero is %v", p.Name, *c.learn, zero)
				}
			}
			of := m.Tensors()[0].of(grads)
			if table == nil {
				table = of
			}
			if !sameBits(of, table) {
				t.Errorf("%s: frozen it hands on another gradient", c.cell.Kind())
			}
		}
	}
}
