package nn

import (
	"math"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/rng"
)

// plan is an operation as a Model knows it: sizes and windows, no memory.
type plan interface {
	// bind returns the operation with memory of its own for batches of up to
	// maxBatch samples. It is called twice, the first time to measure: see arena.
	bind(mem *arena, maxBatch int) op
}

// op is one operation of the chain at work, forwards and backwards side by side.
//
// Shapes below: n is the number of samples of the batch at hand, and a vector
// x [n, width] holds sample after sample.
type op interface {
	// forward computes y [n, out] from x [n, in] and returns it. Both stay until
	// the next forward. It overwrites x where Build has seen that it may.
	forward(w *Workspace, x []float32) (y []float32)
	// backward turns dy [n, out], the gradient of the summed losses, into dx
	// [n, in], and writes the gradient of its parameters. It may overwrite dy.
	backward(w *Workspace, dy []float32) (dx []float32)
}

// affine is y = x·W + b, with relu behind it if relu.
//
//	x [n, in]   W [in, units]   b [units]   y [n, units]
type affine struct {
	in, units int
	kernel    Tensor
	bias      Tensor // Len 0: there is none
	relu      bool
	inner     bool // parameters lie before it, so somebody wants dx
	frozen    bool

	x, y []float32
}

func (a affine) bind(mem *arena, maxBatch int) op {
	a.y = mem.take(maxBatch * a.units)
	return &a
}

func (a *affine) forward(w *Workspace, x []float32) []float32 {
	a.x = x
	y := a.y[:w.n*a.units]
	kernel.Affine(&w.scratch, w.n, a.units, a.in, x, a.kernel.of(w.params), a.bias.orNil(w.params), y, a.relu)
	return y
}

// backward: dW = xᵀ·dy, db = Σ dy over samples, dx = dy·Wᵀ.
func (a *affine) backward(w *Workspace, dy []float32) []float32 {
	if a.relu {
		kernel.ReLUGrad(dy, dy, a.y[:len(dy)])
	}
	if !a.frozen {
		kernel.GemmTN(&w.scratch, a.in, a.units, w.n, a.x, dy, a.kernel.of(w.grads), false)
		if a.bias.Len > 0 {
			kernel.SumRows(a.bias.of(w.grads), dy, false)
		}
		w.final(a.kernel)
	}
	if !a.inner {
		return nil
	}
	dx := w.otherGrad(w.n * a.in)
	kernel.GemmNT(&w.scratch, w.n, a.in, a.units, dy, a.kernel.of(w.params), dx, false)
	return dx
}

// of cuts the tensor's window out of a flat vector.
func (t Tensor) of(flat []float32) []float32 { return flat[t.Off : t.Off+t.Len : t.Off+t.Len] }

// orNil is of, or nil for a tensor that is not there.
func (t Tensor) orNil(flat []float32) []float32 {
	if t.Len == 0 {
		return nil
	}
	return t.of(flat)
}

// pointwise is y = f(x), element by element, for an f whose derivative is a
// function of y, or of x, which then must stay.
type pointwise struct {
	width   int
	inPlace bool
	byInput bool
	apply   func(y, x []float32)
	grad    func(dx, dy, y []float32)

	x, y []float32
}

// newPointwise returns any of [Activations] but linear and softmax.
func newPointwise(function string, width int, inPlace bool) pointwise {
	p := pointwise{width: width, inPlace: inPlace}
	switch function {
	case "relu":
		p.apply, p.grad = kernel.ReLU, kernel.ReLUGrad
	case "sigmoid":
		p.apply, p.grad = kernel.Sigmoid, kernel.SigmoidGrad
	case "tanh":
		p.apply, p.grad = kernel.Tanh, kernel.TanhGrad
	case "leaky_relu":
		p.apply, p.grad = leakyReLU, leakyReLUGrad
	case "elu":
		p.apply, p.grad = kernel.ELU, kernel.ELUGrad
	case "gelu":
		p.apply, p.grad, p.byInput = kernel.GELU, kernel.GELUGrad, true
	case "swish":
		p.apply, p.grad, p.byInput = kernel.Swish, kernel.SwishGrad, true
	default:
		panic("nn: no activation " + function)
	}
	p.inPlace = p.inPlace && !p.byInput
	return p
}

func (p pointwise) bind(mem *arena, maxBatch int) op {
	if !p.inPlace {
		p.y = mem.take(maxBatch * p.width)
	}
	return &p
}

func (p *pointwise) forward(w *Workspace, x []float32) []float32 {
	if p.inPlace {
		p.y = x
	}
	p.x = x
	y := p.y[:len(x)]
	p.apply(y, x)
	return y
}

func (p *pointwise) backward(w *Workspace, dy []float32) []float32 {
	if p.byInput {
		p.grad(dy, dy, p.x)
		return dy
	}
	p.grad(dy, dy, p.y[:len(dy)])
	return dy
}

// leakySlope is Keras' slope of leaky_relu below 0.
const leakySlope = 0.2

func leakyReLU(y, x []float32) { kernel.LeakyReLU(y, x, leakySlope) }

// leakyReLUGrad goes by the sign of y, which is that of x.
func leakyReLUGrad(dx, dy, y []float32) { kernel.LeakyReLUGrad(dx, dy, y, leakySlope) }

// softmax is y_j = exp(x_j - max x) / Σ_k exp(x_k - max x) over each sample.
// The maximum and the sum stay for the loss, which is computed from logits.
type softmax struct {
	width   int
	inPlace bool

	x, y     []float32
	max, sum []float32 // [n]
}

func (s softmax) bind(mem *arena, maxBatch int) op {
	if !s.inPlace {
		s.y = mem.take(maxBatch * s.width)
	}
	s.max, s.sum = mem.take(maxBatch), mem.take(maxBatch)
	return &s
}

func (s *softmax) forward(w *Workspace, x []float32) []float32 {
	if s.inPlace {
		s.y = x
	}
	s.x = x
	for i := range w.n {
		s.sample(i, row(x, i, s.width), row(s.y, i, s.width))
	}
	return s.y[:len(x)]
}

func (s *softmax) sample(i int, x, y []float32) {
	top := kernel.Max(x)
	for j, v := range x {
		y[j] = v - top
	}
	kernel.Exp(y, y)
	sum := kernel.Sum(y)
	for j := range y {
		y[j] /= sum
	}
	s.max[i], s.sum[i] = top, sum
}

// backward: dx_j = y_j · (dy_j - Σ_k dy_k·y_k). Products of two float32 are
// exact in float64, so the sum has one rounding a term.
func (s *softmax) backward(w *Workspace, dy []float32) []float32 {
	for i := range w.n {
		d, y := row(dy, i, s.width), row(s.y, i, s.width)
		var dot float64
		for k, g := range d {
			dot += float64(float64(g) * float64(y[k]))
		}
		for j, g := range d {
			d[j] = float32(y[j] * (g - float32(dot)))
		}
	}
	return dy
}

// dropout is y = x·mask in training, where mask is 0 with probability rate and
// 1/(1-rate) otherwise (inverted dropout: Srivastava et al., JMLR 15, section
// 10), and y = x in evaluation. The mask is kept by none but the layers that use it
// more than twice: backward looks the same numbers up again.
type dropout struct {
	width     int
	layer     uint64  // coordinate of its random numbers, see builder.draw
	threshold uint32  // of 2^24: a draw below it drops
	scale     float32 // 1/(1-rate)

	streams []rng.Stream // [n] of the samples of the last forward
	mask, y []float32
	active  bool // the last forward was one of training
}

func newDropout(rate float64, width int, layer uint64) dropout {
	return dropout{
		width:     width,
		layer:     layer,
		threshold: uint32(math.Floor(float64(rate*(1<<24)) + 0.5)),
		scale:     float32(1 / (1 - rate)),
	}
}

func (d dropout) bind(mem *arena, maxBatch int) op {
	d.y, d.streams = mem.take(maxBatch*d.width), mem.streams(maxBatch)
	return &d
}

func (d *dropout) forward(w *Workspace, x []float32) []float32 {
	d.active = w.train
	if !d.active {
		return x
	}
	for i := range w.n {
		d.streams[i] = rng.New(w.key.Seed, rng.Dropout, w.key.Step, w.ids[i], d.layer)
	}
	y := d.y[:len(x)]
	d.drop(w, y, x)
	return y
}

func (d *dropout) backward(w *Workspace, dy []float32) []float32 {
	if d.active {
		d.drop(w, dy, dy)
	}
	return dy
}

// drop drops of every sample: element j goes by the upper 24 bits of word j of its
// stream. A dropped NaN stays NaN: nothing is hidden.
func (d *dropout) drop(w *Workspace, dst, x []float32) {
	for i := range w.n {
		kernel.Drop(row(dst, i, d.width), row(x, i, d.width), d.streams[i], d.threshold, d.scale)
	}
}

// draw fills the mask of one sample.
func (d *dropout) draw(s rng.Stream, mask []float32) {
	for j := range mask {
		mask[j] = 1
	}
	kernel.Drop(mask, mask, s, d.threshold, d.scale)
}

// multiply is dst_i = x_i·f_i.
func multiply(dst, x, f []float32) []float32 {
	dst = dst[:len(x)]
	kernel.Multiply(dst, x, f[:len(x)])
	return dst
}

// row is sample i of x [n, width].
func row(x []float32, i, width int) []float32 { return x[i*width : (i+1)*width : (i+1)*width] }

// addTo is dst_i += x_i.
func addTo(dst, x []float32) { kernel.AddBias(dst, x[:len(dst)]) }
