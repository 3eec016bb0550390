package nn

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/rng"
)

func TestNaNReachesTheLossThroughEveryPooling(t *testing.T) {
	for _, pool := range []LayerSpec{NewMaxPooling2D(Pair{2, 2}), NewAveragePooling2D(Pair{2, 2}), &GlobalMaxPooling2D{}, &GlobalAveragePooling2D{}} {
		for at := range 4 {
			m := mustBuild(t, Spec{Layers: []LayerSpec{pool, NewFlatten(), NewDense(1, "linear")}, Loss: meanSquared}, []int{2, 2, 1}, Target{Len: 1})
			x := []float32{1, 2, 3, 4}
			x[at] = float32(math.NaN())
			w := m.NewWorkspace(1)
			w.Forward([]float32{1, 0}, &Batch{N: 1, X: x, Y: []float32{0}}, Key{}, false)
			if l := w.Losses()[0]; !math.IsNaN(l) {
				t.Errorf("%s hides a NaN in place %d: loss %v", pool.Kind(), at, l)
			}
		}
	}
}

// One sequence, padded to different lengths, gives the same bits: padding is
// passed over, at either end.
func TestPaddingIsPassedOver(t *testing.T) {
	for _, cell := range []LayerSpec{NewLSTM(3), NewGRU(3), NewBidirectional(NewLSTM(3)), NewBidirectional(NewGRU(3))} {
		var want []float32
		for _, x := range [][]float32{{1, 2, 3}, {1, 2, 3, 0}, {1, 2, 3, 0, 0, 0}, {0, 1, 0, 2, 3}} {
			e := NewEmbedding(4, 2)
			e.MaskZero = true
			m := mustBuild(t, Spec{Layers: []LayerSpec{e, cell, NewDense(2, "linear")}, Loss: meanSquared}, []int{len(x)}, Target{Len: 2})
			params := someFloats(5, m.NumParams())
			grads := make([]float32, m.NumParams())
			w := m.NewWorkspace(1)
			out := w.Forward(params, &Batch{N: 1, X: x, Y: []float32{1, -1}}, Key{}, false)
			w.Backward(params, grads, nil)
			for i, g := range grads {
				grads[i] = g + 0 // a product with a padded step may make -0 of 0
			}
			got := append(slices.Clone(out), grads...)
			if want == nil {
				want = got
			}
			if !sameBits(got, want) {
				t.Errorf("%s: padding %v changes something", cell.Kind(), x)
			}
		}
	}
}

func TestDroppedValuesAreTheSameAtEachStep(t *testing.T) {
	cell := NewGRU(2)
	cell.Dropout, cell.RecurrentDropout = 0.5, 0.5
	m := mustBuild(t, Spec{Layers: []LayerSpec{cell, NewDense(1, "linear")}, Loss: meanSquared}, []int{5, 64}, Target{Len: 1})
	w := m.NewWorkspace(1)
	b := &Batch{N: 1, X: someFloats(1, 5*64), IDs: []uint64{7}}
	w.Forward(someFloats(2, m.NumParams()), b, Key{1, 2}, true)
	g := w.chain.ops[0].(*gru)
	dropped := 0
	for j := range 64 {
		for s := range 5 {
			if (g.xs[s*64+j] == 0) != (g.xs[j] == 0) {
				t.Fatalf("value %d is dropped at one step and not at another", j)
			}
		}
		if g.xs[j] == 0 {
			dropped++
		}
	}
	if dropped < 16 || dropped > 48 {
		t.Errorf("%d of 64 values are dropped", dropped)
	}
	if slices.Equal(g.in.mask[:2], g.carry.mask) && g.in.layer == g.carry.layer {
		t.Error("x and h are dropped by the same numbers")
	}
}

func TestOrthogonalMatricesAreThat(t *testing.T) {
	for _, shape := range [][2]int{{4, 4}, {3, 12}, {12, 3}, {1, 5}, {40, 160}} {
		rows, cols := shape[0], shape[1]
		p := make([]float32, rows*cols)
		orthogonal(rng.New(1, rng.Init, 0, 0, 0), cols, p)
		at := func(i, k int) float64 { return float64(p[i*cols+k]) }
		if rows > cols {
			at = func(i, k int) float64 { return float64(p[k*cols+i]) }
		}
		for i := range min(rows, cols) {
			for j := range i + 1 {
				var sum float64
				for k := range max(rows, cols) {
					sum += at(i, k) * at(j, k)
				}
				want := 0.0
				if i == j {
					want = 1
				}
				if math.Abs(sum-want) > 1e-6 {
					t.Fatalf("%v: vectors %d and %d have the product %v, want %v", shape, i, j, sum, want)
				}
			}
		}
	}
}

func TestInitializersOfLayersAreKeras(t *testing.T) {
	lstm := NewLSTM(2)
	conv := NewConv2D(8, Pair{3, 3}, "linear")
	conv.BiasInitializer = "constant(-0.5)"
	m := mustBuild(t, Spec{Layers: []LayerSpec{conv, NewReshape(-1, 8), lstm, NewDense(1, "linear")}, Loss: meanSquared}, []int{5, 5, 4}, Target{Len: 1})
	p := make([]float32, m.NumParams())
	m.Init(1, p)
	by := map[string][]float32{}
	for _, w := range m.Tensors() {
		by[w.Name] = w.of(p)
	}
	if want := []float32{0, 0, 1, 1, 0, 0, 0, 0}; !slices.Equal(by["lstm/bias"], want) {
		t.Errorf("an LSTM's bias starts as %v, want %v", by["lstm/bias"], want)
	}
	if b := by["conv2d/bias"]; b[0] != -0.5 || b[7] != -0.5 {
		t.Errorf("a constant bias is %v", b)
	}
	limit := math.Sqrt(6 / (9*4 + 9*8.0))
	if top := float64(kernel.Max(by["conv2d/kernel"])); top > limit || top < 0.9*limit {
		t.Errorf("the greatest weight of a convolution is %v, want a little under %v", top, limit)
	}
}

func TestTokensOutOfRangeAreRefused(t *testing.T) {
	m := mustBuild(t, Spec{Layers: []LayerSpec{NewEmbedding(5, 2), NewFlatten(), NewDense(1, "linear")}, Loss: meanSquared}, []int{2}, Target{Len: 1})
	for _, c := range []struct {
		x    []float32
		want string
	}{
		{[]float32{0, 4}, ""},
		{[]float32{0, 5}, "value 1 is 5, want a whole number from 0 to 4"},
		{[]float32{-1, 0}, "value 0 is -1, want"},
		{[]float32{0.5, 0}, "value 0 is 0.5, want"},
		{[]float32{float32(math.NaN()), 0}, "value 0 is NaN, want"},
	} {
		err := m.CheckInput(c.x)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.x, err, c.want)
		}
		w := m.NewWorkspace(1)
		out := w.Forward(make([]float32, m.NumParams()), &Batch{N: 1, X: c.x}, Key{}, false)
		if hidden := out[0] == out[0]; hidden != (c.want == "") {
			t.Errorf("%v: output %v", c.x, out[0])
		}
	}
}

func TestLayersSayWhatTheyGotAndWant(t *testing.T) {
	last := NewDense(1, "linear")
	for _, c := range []struct {
		layers []LayerSpec
		input  []int
		want   string
	}{
		{[]LayerSpec{NewConv2D(1, Pair{3, 3}, "linear")}, []int{28, 28}, "layer 1 (conv2d): got samples of shape 28x28, want height x width x channels: put reshape before it, [28, 28, 1] for example"},
		{[]LayerSpec{NewConv2D(1, Pair{3, 4}, "linear")}, []int{5, 3, 1}, "layer 1 (conv2d): got samples of shape 5x3x1, want at least its window of 3x4, or padding: same"},
		{[]LayerSpec{NewReshape(3, 4)}, []int{10}, "layer 1 (reshape): got samples of shape 10 with 10 values, want as many as target_shape [3 4] has"},
		{[]LayerSpec{NewReshape(3, -1)}, []int{10}, "layer 1 (reshape): got samples of shape 10 with 10 values, want as many as target_shape [3 -1] has"},
		{[]LayerSpec{NewLSTM(1)}, []int{10}, "layer 1 (lstm): got samples of shape 10, want time x values: put embedding or reshape before it"},
		{[]LayerSpec{NewDense(2, "relu"), NewEmbedding(3, 3)}, []int{10}, "layer 2 (embedding): got samples of shape 2, want the whole numbers of the data themselves: one axis, and no operation before it"},
		{[]LayerSpec{NewResidual(NewDense(3, "relu"))}, []int{4}, "layer 1 (residual): got 3 from one branch and 4 from another, want equal shapes"},
		{[]LayerSpec{NewConcat([]LayerSpec{NewFlatten()}, nil)}, []int{4, 2}, "layer 1 (concat): got 8 from one branch and 4x2 from another, want shapes that differ in the last axis alone"},
		{[]LayerSpec{NewResidual(NewDense(0, "relu"))}, []int{4}, "layer 1 (residual): layer 1 (dense): units is 0, want 1 to 16777216"},
		{[]LayerSpec{NewResidual(NewDense(4, "relu"), NewConv2D(2, Pair{1, 1}, "linear"))}, []int{4}, "layer 1 (residual): layer 2 (conv2d): got samples of shape 4, want height x width x channels: put reshape before it, [28, 28, 1] for example"},
		{[]LayerSpec{NewBidirectional(NewDense(1, "relu"))}, []int{4}, "layer 1 (bidirectional): layer is dense, want lstm or gru"},
		{[]LayerSpec{NewLayerNormalization()}, []int{4, 1}, "layer 1 (layer_normalization): got samples of shape 4x1, want at least 2 values in the last axis: one alone is always its own mean"},
	} {
		_, err := Build(Spec{Layers: append(c.layers, last), Loss: meanSquared}, c.input, Target{Len: 1})
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	frozen := NewDense(1, "linear")
	frozen.Trainable = false
	_, err := Build(Spec{Layers: []LayerSpec{frozen}, Loss: meanSquared}, []int{4}, Target{Len: 1})
	if err == nil || !strings.Contains(err.Error(), "nothing in it learns") {
		t.Errorf("a model of frozen layers: %v", err)
	}
}

func TestNamesAreKerasInDepthToo(t *testing.T) {
	m := mustBuild(t, Spec{Layers: []LayerSpec{
		NewDense(2, "relu"), NewResidual(NewDense(2, "relu"), NewResidual(NewDense(2, "relu"))), NewReshape(2, 1), NewBidirectional(NewGRU(1)), NewDense(1, "linear"),
	}, Loss: meanSquared}, []int{2}, Target{Len: 1})
	var names []string
	for _, w := range m.Tensors() {
		if strings.HasSuffix(w.Name, "/kernel") {
			names = append(names, strings.TrimSuffix(w.Name, "/kernel"))
		}
	}
	want := []string{"dense", "dense_1", "dense_2", "bidirectional/forward_gru", "bidirectional/backward_gru", "dense_3"}
	if !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}
