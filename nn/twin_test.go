package nn

import (
	"math"
	"testing"

	"github.com/dlnode/dlnode/internal/rng"
	"pgregory.net/rapid"
)

// twin is the model once more: one sample at a time, in float64, with package
// math, from the textbook's formulas, slow and obvious.
type twin struct {
	spec  Spec
	key   Key
	train bool
	kink  float64 // least |x| > 0 that a relu has seen: closer to 0 there is no derivative
}

// run returns output and loss of one sample.
func (tw *twin) run(params, x, y []float64, id uint64) (out []float64, loss float64) {
	for i, l := range tw.spec.Layers {
		switch l := l.(type) {
		case *Dense:
			x, params = dense64(l, params, x)
			x = tw.activate(l.Activation, x)
		case *Activation:
			x = tw.activate(l.Function, x)
		case *Dropout:
			if tw.train {
				x = tw.dropout(l.Rate, x, id, i)
			}
		}
	}
	if tw.spec.Loss == meanAbsolute {
		for j, v := range x {
			tw.kink = min(tw.kink, math.Abs(v-y[j]))
		}
	}
	return x, loss64(tw.spec.Loss, x, y)
}

func dense64(l *Dense, params, x []float64) (y, rest []float64) {
	y = make([]float64, l.Units)
	for u := range y {
		for i, v := range x {
			y[u] += v * params[i*l.Units+u]
		}
	}
	params = params[len(x)*l.Units:]
	if !l.UseBias {
		return y, params
	}
	for u := range y {
		y[u] += params[u]
	}
	return y, params[l.Units:]
}

func (tw *twin) activate(function string, x []float64) []float64 {
	y := make([]float64, len(x))
	var sum float64
	for i, v := range x {
		switch function {
		case "linear":
			y[i] = v
		case "relu":
			y[i] = max(v, 0)
			if v != 0 {
				tw.kink = min(tw.kink, math.Abs(v))
			}
		case "leaky_relu":
			y[i] = max(v, 0) + leakySlope*min(v, 0)
			if v != 0 {
				tw.kink = min(tw.kink, math.Abs(v))
			}
		case "elu": // its second derivative jumps at 0, which differences do not like
			y[i] = max(v, 0) + math.Expm1(min(v, 0))
			if v != 0 {
				tw.kink = min(tw.kink, math.Abs(v))
			}
		case "gelu":
			y[i] = v * 0.5 * math.Erfc(-v/math.Sqrt2)
		case "swish":
			y[i] = v / (1 + math.Exp(-v))
		case "sigmoid":
			y[i] = 1 / (1 + math.Exp(-v))
		case "tanh":
			y[i] = math.Tanh(v)
		case "softmax":
			y[i] = math.Exp(v)
			sum += y[i]
		}
	}
	if function == "softmax" {
		for i := range y {
			y[i] /= sum
		}
	}
	return y
}

func (tw *twin) dropout(rate float64, x []float64, id uint64, layer int) []float64 {
	y := make([]float64, len(x))
	s := rng.New(tw.key.Seed, rng.Dropout, tw.key.Step, id, uint64(layer))
	for j, v := range x {
		if float64(rng.Unit32(s.Uint32(uint64(j)))) >= rate {
			y[j] = v / (1 - rate)
		}
	}
	return y
}

func loss64(name string, p, y []float64) float64 {
	var sum float64
	for j, v := range p {
		switch name {
		case sparseCE:
			if j == int(y[0]) {
				return -math.Log(v)
			}
		case categoricalCE:
			sum -= y[j] * math.Log(v)
		case binaryCE:
			sum -= (y[j]*math.Log(v) + (1-y[j])*math.Log(1-v)) / float64(len(p))
		case meanAbsolute:
			sum += math.Abs(v-y[j]) / float64(len(p))
		case huber:
			if e := math.Abs(v - y[j]); e > 1 {
				sum += (e - 0.5) / float64(len(p))
			} else {
				sum += e * e / 2 / float64(len(p))
			}
		case meanSquared:
			sum += (v - y[j]) * (v - y[j]) / float64(len(p))
		}
	}
	return sum
}

// total is the summed loss of a batch.
func (tw *twin) total(params []float64, b *Batch, targetLen int) float64 {
	x, y := widen(b.X), widen(b.Y)
	var sum float64
	for i := range b.N {
		_, loss := tw.run(params, row64(x, i, len(x)/b.N), row64(y, i, targetLen), b.IDs[i])
		sum += loss
	}
	return sum
}

func row64(x []float64, i, width int) []float64 { return x[i*width : (i+1)*width] }

// slope is the derivative of the twin's summed loss by every parameter, from
// central differences. With steps of 2^-18 it is exact to about 1e-10 here:
// truncation 2^-36 times a third derivative, rounding 2^-52/2^-18.
func (tw *twin) slope(params []float32, b *Batch, targetLen int) []float64 {
	const h = 1.0 / (1 << 18)
	p := widen(params)
	d := make([]float64, len(p))
	for i, v := range p {
		p[i] = v + h
		up := tw.total(p, b, targetLen)
		p[i] = v - h
		down := tw.total(p, b, targetLen)
		p[i] = v
		d[i] = (up - down) / (2 * h)
	}
	return d
}

// A gradient is held against finite differences of the twin; outputs and losses
// against the twin itself. Sums have at most 6 samples times 6 inputs, values
// are around 1, depth is at most 5: 64 roundings to float32 cover it.
func TestGradientsAreSlopesOfTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		m, err := Build(c.spec, c.input, c.target)
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 6).Draw(t, "samples")
		b := c.batch(t, m, n)
		params := drawFloats(t, "params", m.NumParams())
		key := Key{Seed: rapid.Uint64().Draw(t, "seed"), Step: rapid.Uint64().Draw(t, "step")}
		train := rapid.Bool().Draw(t, "train")

		w := m.NewWorkspace(rapid.IntRange(n, 8).Draw(t, "maxBatch"))
		out := w.Forward(params, b, key, train)
		grads := make([]float32, m.NumParams())
		w.Backward(params, grads, nil)

		tw := &twin{spec: c.spec, key: key, train: train, kink: math.Inf(1)}
		want := tw.slope(params, b, m.TargetLen())
		if tw.kink < 1e-4 {
			t.Skip("a relu lies too close to its kink")
		}
		compare(t, "gradient", widen(grads), want)
		for i := range n {
			y, loss := tw.run(widen(params), widen(row(b.X, i, m.InputLen())), widen(row(b.Y, i, m.TargetLen())), b.IDs[i])
			compare(t, "out", widen(row(out, i, m.OutputLen())), y)
			compare(t, "loss", w.Losses()[i:i+1], []float64{loss})
		}
	})
}

func compare(t *rapid.T, what string, got, want []float64) {
	for i := range want {
		if e := math.Abs(got[i] - want[i]); !(e <= 64.0/(1<<24)*max(1, math.Abs(want[i]))) {
			t.Fatalf("%s[%d] = %v, the twin says %v", what, i, got[i], want[i])
		}
	}
}

// drawn is a spec that fits its data.
type drawn struct {
	spec   Spec
	input  []int
	target Target
}

// drawCase draws a model of up to five layers that Build accepts.
func drawCase(t *rapid.T) drawn {
	width := rapid.IntRange(1, 6)
	hidden := rapid.SampledFrom(Activations())
	c := drawn{input: rapid.SliceOfN(rapid.IntRange(1, 3), 1, 3).Draw(t, "input")}
	if rapid.Bool().Draw(t, "activation first") {
		c.spec.Layers = append(c.spec.Layers, NewActivation(rapid.SampledFrom([]string{"tanh", "relu", "sigmoid", "linear"}).Draw(t, "first")))
	}
	c.spec.Layers = append(c.spec.Layers, NewFlatten())
	for range rapid.IntRange(0, 3).Draw(t, "depth") {
		if rapid.Bool().Draw(t, "dropout") {
			c.spec.Layers = append(c.spec.Layers, NewDropout(rapid.SampledFrom([]float64{0, 0.25, 0.5}).Draw(t, "rate")))
		}
		c.spec.Layers = append(c.spec.Layers, drawDense(t, width.Draw(t, "units"), hidden.Draw(t, "hidden")))
	}
	c.end(t, width.Draw(t, "outputs"), hidden.Draw(t, "last"))
	return c
}

func drawDense(t *rapid.T, units int, activation string) *Dense {
	if activation == "softmax" {
		units++
	}
	d := NewDense(units, activation)
	d.UseBias = rapid.Bool().Draw(t, "bias")
	return d
}

// end appends the layers that a loss wants at the end, and its labels.
func (c *drawn) end(t *rapid.T, outputs int, last string) {
	c.spec.Loss = rapid.SampledFrom(Losses()).Draw(t, "loss")
	switch c.spec.Loss {
	case sparseCE, categoricalCE:
		last = "softmax"
	case binaryCE:
		last = "sigmoid"
	}
	d := drawDense(t, outputs, last)
	c.spec.Layers = append(c.spec.Layers, d)
	if rapid.Bool().Draw(t, "activation apart") {
		c.spec.Layers = append(c.spec.Layers, NewActivation(last))
		d.Activation = "linear"
	}
	c.target = Target{Len: d.Units}
	if c.spec.Loss == sparseCE {
		c.target = Target{Len: 1, Classes: d.Units}
	}
	if c.target.Len == d.Units {
		c.spec.Metrics = append(c.spec.Metrics, meanSquared, meanAbsolute)
	}
	c.spec.Metrics = append(c.spec.Metrics, accuracy)
}

// batch draws samples with labels that the loss accepts.
func (c *drawn) batch(t *rapid.T, m *Model, n int) *Batch {
	b := &Batch{N: n, X: drawFloats(t, "x", n*m.InputLen()), Y: make([]float32, n*m.TargetLen())}
	b.IDs = rapid.SliceOfN(rapid.Uint64(), n, n).Draw(t, "ids")
	for i := range n {
		drawLabel(t, m, row(b.Y, i, m.TargetLen()))
		if err := m.CheckTarget(row(b.Y, i, m.TargetLen())); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func drawLabel(t *rapid.T, m *Model, y []float32) {
	switch m.Loss() {
	case sparseCE:
		y[0] = float32(rapid.IntRange(0, m.classes()-1).Draw(t, "class"))
	case categoricalCE:
		// As far from a sum of 1 as a label may be.
		y[rapid.IntRange(0, len(y)-1).Draw(t, "class")] = rapid.SampledFrom([]float32{1, 0.9995, 1}).Draw(t, "mass")
	case binaryCE:
		for j := range y {
			y[j] = float32(rapid.IntRange(0, 4).Draw(t, "label")) / 4
		}
	default:
		copy(y, drawFloats(t, "y", len(y)))
	}
}

// drawFloats draws n numbers in [-1, 1], none of them round, from one seed: rapid
// would else spend its time on shrinking each of them.
func drawFloats(t *rapid.T, label string, n int) []float32 {
	return someFloats(rapid.Uint64().Draw(t, label), n)
}

func someFloats(seed uint64, n int) []float32 {
	s := rng.New(seed, rng.Data, 0, 0, 0)
	x := make([]float32, n)
	for i := range x {
		x[i] = 2*rng.Unit32(s.Uint32(uint64(i))) - 1
	}
	return x
}
