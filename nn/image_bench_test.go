package nn

import (
	"fmt"
	"testing"
)

// mnistCNN is the convolutional network of Keras' MNIST examples.
func mnistCNN() Spec {
	return Spec{Loss: sparseCE, Layers: []LayerSpec{
		NewConv2D(32, Pair{3, 3}, "relu"), NewConv2D(64, Pair{3, 3}, "relu"), NewMaxPooling2D(Pair{2, 2}),
		NewFlatten(), NewDense(128, "relu"), NewDense(10, "softmax"),
	}}
}

// catsAndDogs is the network that tutorials train on photographs of 150x150.
func catsAndDogs() Spec {
	return Spec{Loss: binaryCE, Layers: []LayerSpec{
		NewConv2D(32, Pair{3, 3}, "relu"), NewMaxPooling2D(Pair{2, 2}),
		NewConv2D(64, Pair{3, 3}, "relu"), NewMaxPooling2D(Pair{2, 2}),
		NewConv2D(128, Pair{3, 3}, "relu"), NewMaxPooling2D(Pair{2, 2}),
		NewFlatten(), NewDense(512, "relu"), NewDense(1, "sigmoid"),
	}}
}

// normedCNN is a network as it is written today: blocks of convolution, batch
// normalization and relu, with padding same, and dropout of both kinds.
func normedCNN() Spec {
	block := func(filters, stride int) []LayerSpec {
		c := NewConv2D(filters, Pair{3, 3}, "linear")
		c.Padding, c.Strides, c.UseBias = "same", Pair{stride, stride}, false
		return []LayerSpec{c, NewBatchNormalization(), NewActivation("relu")}
	}
	layers := append(block(32, 1), block(32, 1)...)
	layers = append(append(layers, NewMaxPooling2D(Pair{2, 2}), &SpatialDropout2D{0.1}), block(64, 1)...)
	layers = append(append(layers, NewAveragePooling2D(Pair{2, 2})), block(128, 2)...)
	layers = append(layers, NewLayerNormalization(), &GlobalAveragePooling2D{}, NewDropout(0.3), NewDense(10, "softmax"))
	return Spec{Loss: sparseCE, Layers: layers}
}

// BenchmarkImages measures forward and backward of one microbatch. FLOPs are those of
// a forward, times three: nobody wants the first layer's input gradient, so that the
// rate is a little too high.
func BenchmarkImages(b *testing.B) {
	for _, net := range []struct {
		name  string
		spec  Spec
		input []int
	}{
		{"mnist", mnistCNN(), []int{28, 28, 1}},
		{"catsdogs", catsAndDogs(), []int{150, 150, 3}},
		{"normed", normedCNN(), []int{32, 32, 3}},
	} {
		for _, n := range []int{16, 32} {
			b.Run(fmt.Sprintf("%s/%d", net.name, n), func(b *testing.B) {
				m := mustBuild(b, net.spec, net.input, Target{Len: 1})
				benchmarkStep(b, m, n)
			})
		}
	}
}

func benchmarkStep(b *testing.B, m *Model, n int) {
	params, grads := make([]float32, m.NumParams()), make([]float32, m.NumParams())
	m.Init(1, params)
	batch := &Batch{N: n, X: someFloats(2, n*m.InputLen()), Y: make([]float32, n), IDs: make([]uint64, n)}
	for i := range batch.Y {
		batch.Y[i] = float32(i % 2)
	}
	w := m.NewWorkspace(n)
	for b.Loop() {
		w.Forward(params, batch, Key{1, 2}, true)
		w.Backward(params, grads, nil)
	}
	var flops float64
	for _, r := range m.Summary() {
		flops += float64(r.FLOPs)
	}
	samples := float64(n*b.N) / b.Elapsed().Seconds()
	b.ReportMetric(samples, "samples/s")
	b.ReportMetric(3*flops*samples/1e9, "GFLOP/s")
	b.ReportMetric(float64(w.Bytes())/float64(n), "B/sample")
}
