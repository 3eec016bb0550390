package nn

import (
	"math"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"pgregory.net/rapid"
)

// A convolution does the relu and the max pooling behind it in one operation. With
// dropout in between, which evaluation passes over, they are several: the same bits,
// also of what is not finite, and in bands of any height.
func TestFusedOperationsHaveTheBitsOfTheirParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		block, input := drawBlock(t)
		between := &SpatialDropout2D{Rate: 0.5}
		var first []LayerSpec // so that the convolution's input gradient is wanted
		if rapid.Bool().Draw(t, "inner") {
			first = append(first, NewConv2D(2, Pair{1, 1}, "linear"))
		}
		build := func(block []LayerSpec) *Model {
			layers := slices.Concat(first, block, []LayerSpec{NewFlatten(), NewDense(2, "linear")})
			m, err := Build(Spec{Layers: layers, Loss: meanSquared}, input, Target{Len: 2})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		whole, parts := build(block), build([]LayerSpec{block[0], between, block[1], between, block[2]})
		if n := len(parts.chain.plans) - len(whole.chain.plans); n < 3 {
			t.Fatalf("fusing saves %d operations, want two dropouts and a pooling", n)
		}
		const n = 3
		params := drawFloats(t, "params", whole.NumParams())
		b := &Batch{N: n, X: drawFloats(t, "x", n*whole.InputLen()), Y: drawFloats(t, "y", 2*n)}
		for range rapid.IntRange(0, 2).Draw(t, "odd ones") {
			i := rapid.IntRange(0, len(b.X)-1).Draw(t, "odd one")
			b.X[i] = rapid.SampledFrom([]float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0}).Draw(t, "value")
		}
		wantOut, want := evaluated(parts.NewWorkspace(n), params, b)
		w := whole.NewWorkspace(n)
		for _, o := range w.chain.ops {
			if c, ok := o.(*pooledConv); ok && c.parts() {
				c.rows = rapid.IntRange(1, c.rows).Draw(t, "rows of a band")
			}
		}
		out, grads := evaluated(w, params, b)
		if !sameBits(out, wantOut) || !sameBits(grads, want) {
			t.Fatalf("fused %v, gradient %v\nin parts %v, gradient %v", out, grads, wantOut, want)
		}
	})
}

// drawBlock draws a convolution, an activation and a max pooling of any geometry.
func drawBlock(t *rapid.T) (block []LayerSpec, input []int) {
	pick := func(what string, most int) int { return rapid.IntRange(1, most).Draw(t, what) }
	pair := func(what string, most int) Pair { return Pair{pick(what, most), pick(what, most)} }
	c := NewConv2D(pick("filters", 40), pair("kernel", 3), rapid.SampledFrom([]string{"relu", "linear"}).Draw(t, "inside"))
	c.Strides, c.Padding = pair("strides", 2), rapid.SampledFrom(paddings).Draw(t, "padding")
	c.UseBias, c.Trainable = rapid.Bool().Draw(t, "bias"), rapid.Bool().Draw(t, "trainable")
	pool := NewMaxPooling2D(pair("window", 3))
	pool.Strides, pool.Padding = pair("apart", 3), rapid.SampledFrom(paddings).Draw(t, "pool's padding")
	last := rapid.SampledFrom([]LayerSpec{pool, &GlobalMaxPooling2D{}}).Draw(t, "pooling")
	function := NewActivation(rapid.SampledFrom([]string{"relu", "linear"}).Draw(t, "activation"))
	return []LayerSpec{c, function, last}, []int{6 + pick("height", 4), 6 + pick("width", 4), pick("channels", 5)}
}

// evaluated is output and gradient without dropout.
func evaluated(w *Workspace, params []float32, b *Batch) (out, grads []float32) {
	grads = make([]float32, len(params))
	out = slices.Clone(w.Forward(params, b, Key{}, false))
	w.Backward(params, grads, nil)
	return out, grads
}

// What a convolution makes before a pooling is kept of no sample, and its gradient
// neither.
func TestAPooledConvolutionKeepsWhatThePoolingLeaves(t *testing.T) {
	m := mustBuild(t, catsAndDogs(), []int{150, 150, 3}, Target{Len: 1})
	const pooled = 74*74*32 + 36*36*64 + 17*17*128
	rest := int64(512 + 2)                  // behind the dense layers
	gradients := int64(74*74*32 + 36*36*64) // that of the second convolution's output, and its input's
	var kept int64
	for _, r := range m.Summary() {
		kept += r.Memory / 4
	}
	if want := 2*pooled + rest; kept < want || kept > want+want/100 {
		t.Errorf("the summary says that %d values are kept of a sample, want %d", kept, want)
	}
	once := int64(72*72*64 + 3*3*32*64) // what the second convolution makes of one sample, and its weights
	const samples = 16
	got, want := int64(m.NewWorkspace(samples).Bytes()/4), samples*(2*pooled+rest+gradients)+once
	if got < want || got > want+want/100 {
		t.Errorf("a workspace for %d samples holds %d values, want %d", samples, got, want)
	}
}

// One whole step of networks with every layer over images, odd shapes included:
// the same bits by every variant of the kernels, and nothing is allocated.
func TestImageNetsGiveTheSameBitsByEveryVariant(t *testing.T) {
	defer func(was string) {
		if err := kernel.Use(was); err != nil {
			t.Error(err)
		}
	}(kernel.Name())
	strided := NewConv2D(21, Pair{3, 2}, "relu")
	strided.Strides, strided.Padding = Pair{2, 1}, "same"
	odd := Spec{Loss: sparseCE, Layers: []LayerSpec{
		strided, NewBatchNormalization(), NewActivation("relu"), NewMaxPooling2D(Pair{3, 2}), &SpatialDropout2D{0.3},
		NewResidual(NewConv2D(21, Pair{1, 1}, "relu")), NewLayerNormalization(),
		NewConcat([]LayerSpec{&GlobalAveragePooling2D{}}, []LayerSpec{NewConv2D(7, Pair{2, 2}, "tanh"), &GlobalMaxPooling2D{}}),
		NewDropout(0.4), NewDense(3, "softmax"),
	}}
	for name, m := range map[string]*Model{
		"mnist":  mustBuild(t, mnistCNN(), []int{28, 28, 1}, Target{Len: 1}),
		"normed": mustBuild(t, normedCNN(), []int{13, 11, 3}, Target{Len: 1}),
		"odd":    mustBuild(t, odd, []int{17, 23, 5}, Target{Len: 1}),
	} {
		const n = 5
		params := make([]float32, m.NumParams())
		m.Init(3, params)
		b := &Batch{N: n, X: someFloats(4, n*m.InputLen()), Y: []float32{0, 1, 2, 1, 0}, IDs: []uint64{9, 7, 5, 3, 1}}
		var want []float32
		for _, v := range kernel.Variants() {
			if err := kernel.Use(v); err != nil {
				t.Fatal(err)
			}
			w, grads := m.NewWorkspace(n), make([]float32, m.NumParams())
			out := slices.Clone(w.Forward(params, b, Key{5, 6}, true))
			w.Backward(params, grads, nil)
			if got := append(out, grads...); want == nil {
				want = got
			} else if !sameBits(got, want) {
				t.Errorf("%s: %s gives other bits", name, v)
			}
			if v != "generic" {
				checkAllocations(t, name, m, params, b)
			}
		}
	}
}

// Mean and variance come of one pass over sums of differences: as exact as of two,
// however far the values lie from 0.
func TestStatisticsOfABatchAreExactFarFromZero(t *testing.T) {
	m := mustBuild(t, Spec{Loss: meanSquared, Layers: []LayerSpec{NewBatchNormalization(), NewDense(1, "linear")}}, []int{1}, Target{Len: 1})
	const n = 100
	for _, far := range []float32{0, 1e3, -1e6} {
		b := &Batch{N: n, X: someFloats(6, n), Y: make([]float32, n), IDs: make([]uint64, n)}
		b.X[0] *= 20
		var mean, variance float64
		for i := range b.X {
			b.X[i] += far
			mean += float64(b.X[i]) / n
		}
		for _, v := range b.X {
			variance += (float64(v) - mean) * (float64(v) - mean) / n
		}
		w, grads := m.NewWorkspace(n), make([]float32, m.NumParams())
		params := make([]float32, m.NumParams())
		m.Init(1, params)
		w.Forward(params, b, Key{}, true)
		w.Backward(params, grads, nil)
		for j, want := range []float64{mean, variance} {
			if got := float64(grads[2+j]) / n; math.Abs(got-want) > 1e-6*math.Abs(want) {
				t.Errorf("around %v: statistic %d is %v, want %v", far, j, got, want)
			}
		}
	}
}

// Bands of windows that begin above the image.
func TestBandsOfPaddedWindowsHaveTheBitsOfTheWhole(t *testing.T) {
	pool := NewMaxPooling2D(Pair{3, 3})
	pool.Padding = "same" // 10 rows: one of zeros on either side
	m := mustBuild(t, Spec{Loss: meanSquared, Layers: []LayerSpec{
		NewConv2D(3, Pair{2, 2}, "relu"), pool, NewFlatten(), NewDense(1, "linear"),
	}}, []int{11, 11, 2}, Target{Len: 1})
	params, b := someFloats(1, m.NumParams()), &Batch{N: 2, X: someFloats(2, 2*m.InputLen()), Y: []float32{1, 2}}
	var want, wantGrads []float32
	for rows := 4; rows > 0; rows-- {
		w := m.NewWorkspace(2)
		w.chain.ops[0].(*pooledConv).rows = rows
		out, grads := evaluated(w, params, b)
		if want == nil {
			want, wantGrads = out, grads
		}
		if !sameBits(out, want) || !sameBits(grads, wantGrads) {
			t.Errorf("bands of %d rows give other bits than the whole", rows)
		}
	}
}

// A pooled convolution looks at the signs of what it has made: no activation behind
// it may be in the place of that.
func TestWhatAPooledConvolutionMadeStays(t *testing.T) {
	build := func(between ...LayerSpec) *Model {
		layers := slices.Concat([]LayerSpec{NewConv2D(3, Pair{2, 2}, "relu"), NewMaxPooling2D(Pair{2, 2})}, between,
			[]LayerSpec{NewActivation("sigmoid"), NewFlatten(), NewDense(1, "linear")})
		return mustBuild(t, Spec{Loss: meanSquared, Layers: layers}, []int{9, 9, 2}, Target{Len: 1})
	}
	m, direct := build(NewDropout(0.5)), build()
	params, b := someFloats(1, m.NumParams()), &Batch{N: 2, X: someFloats(2, 2*m.InputLen()), Y: []float32{1, 2}}
	_, want := evaluated(m.NewWorkspace(2), params, b) // dropout passes on in evaluation, and nothing is in place
	if _, got := evaluated(direct.NewWorkspace(2), params, b); !sameBits(got, want) {
		t.Errorf("the gradient is %v, want %v", got, want)
	}
}
