package nn

import (
	"fmt"
	"testing"
)

// sequenceModel is an embedding of 10000 words in 128 values, a recurrent layer
// of 128 units over 200 steps, and one unit behind it.
func sequenceModel(tb testing.TB, cell LayerSpec) *Model {
	spec := Spec{Layers: []LayerSpec{NewEmbedding(10000, 128), cell, NewDense(1, "sigmoid")}, Loss: "binary_crossentropy"}
	return mustBuild(tb, spec, []int{200}, Target{Len: 1})
}

// sequenceBatch has words that are as often as in a language: many of few.
func sequenceBatch(m *Model, n int) *Batch {
	b := &Batch{N: n, X: make([]float32, n*m.InputLen()), Y: make([]float32, n), IDs: make([]uint64, n)}
	for i, u := range someFloats(3, len(b.X)) { // from -1 to 1
		b.X[i] = float32(int(u * u * u * u * 9999))
	}
	for i := range b.Y {
		b.Y[i], b.IDs[i] = float32(i%2), uint64(i)
	}
	return b
}

// BenchmarkSequences is forward and backward of one microbatch.
func BenchmarkSequences(b *testing.B) {
	for _, cell := range []LayerSpec{NewLSTM(128), NewGRU(128)} {
		for _, n := range []int{16, 32, 64, 128} {
			b.Run(fmt.Sprintf("%s/%d", cell.Kind(), n), func(b *testing.B) {
				m := sequenceModel(b, cell)
				params, grads := make([]float32, m.NumParams()), make([]float32, m.NumParams())
				m.Init(1, params)
				w, batch := m.NewWorkspace(n), sequenceBatch(m, n)
				b.ReportAllocs()
				for b.Loop() {
					w.Forward(params, batch, Key{}, true)
					w.Backward(params, grads, nil)
				}
				samples := float64(n*b.N) / b.Elapsed().Seconds()
				var flops int64
				for _, r := range m.Summary() {
					flops += 3 * r.FLOPs
				}
				b.ReportMetric(samples, "samples/s")
				b.ReportMetric(samples*float64(flops)/1e9, "GFLOP/s")
			})
		}
	}
}
