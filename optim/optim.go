// Package optim turns a gradient into an update of the parameters.
//
//	gradient ──► clip by global norm ──► rule (SGD, Adam, ...) ─────► parameters
//	                                       ▲            ▲
//	                     LR(step) ─────────┘            └── slots
//
// An Optimizer is a value without a state of its own: what it remembers from
// step to step lies in slots, vectors as long as the parameters, which belong to
// the replicated state of the run, and the step is an argument. So an update is
// a pure function, and one that was interrupted can be made again.
//
// Every node makes the same update, so it must come to the same bits on each.
// Elements are updated independently of one another in float32, each operation
// rounded, none fused. What is computed once per step (learning rate, bias
// corrections, the norm) is float64, through package fmath, and rounded once.
//
// The mathematics is PyTorch's, whose recorded steps the tests compare with; the
// names and the defaults are Keras'. Where the two differ:
//
//   - Adam adds epsilon to sqrt(v̂), after the bias correction, as the paper's
//     algorithm 1 and PyTorch do; Keras adds it before. With v̂ far from
//     epsilon² that cannot be seen.
//   - SGD's velocity holds gradients, and the learning rate of a step scales it
//     whole. Keras' holds updates, each scaled by the rate of its own step. With a
//     constant rate that is the same.
//   - AdamW's decay is decoupled and scaled by the learning rate, p −= lr·λ·p, in
//     both; the default λ is Keras' 0.004 (PyTorch's is 0.01).
//   - RMSprop adds epsilon to sqrt(v), Keras to v; Adagrad to the root, Keras below
//     it.
//   - LAMB's decay enters the update before its norm is taken, as in the paper;
//     Keras' is decoupled. Without decay, the default, they are the same.
package optim

import (
	"fmt"
	"math"
	"slices"

	"github.com/dlnode/dlnode/internal/fmath"
	"github.com/dlnode/dlnode/internal/kernel"
)

// Optimizer makes updates of one flat parameter vector. It is an immutable
// value and may be shared by goroutines.
type Optimizer struct {
	params   int
	windows  []Window
	learned  []span  // of windows that are learned, neighbours joined
	pieces   []piece // of an update
	clip     float64 // largest global norm; 0 for no limit
	schedule Schedule
	rule     rule
}

// Window is a part of the flat vectors, one tensor as a rule, and what moves it.
type Window struct {
	Lo, Hi int
	Use    Use
	// Momentum is what a step leaves of a window that is averaged, in [0, 1):
	// p = momentum·p + (1−momentum)·g, where g stands in the gradient's place.
	Momentum float64
	// L1 and L2 make weights small: a step adds the gradient of L1·Σ|p| + L2·Σp²
	// to that of the loss, before it is clipped, as in Keras.
	L1, L2 float64
}

// Use says what moves a window.
type Use byte

// Learned windows are moved by the optimizer, those that are kept by nothing,
// and averaged ones towards what stands in the gradient's place.
const (
	Learned Use = iota
	Kept
	Averaged
)

// span is elements [lo, hi).
type span struct{ lo, hi int }

// rule is what makes one optimizer different from another.
type rule interface {
	slots() []string
	// update moves the elements of s of all vectors, which is a part of one of the
	// rule's pieces.
	update(s span, params, grads []float32, slots [][]float32, lr float64, step uint64)
}

// spender is a rule that may write into the gradient.
type spender interface{ spends() bool }

// New returns the optimizer of a spec for vectors of params elements. clipNorm
// is the largest global norm that a gradient keeps, 0 for no limit. The spec has
// been validated.
func New(spec Spec, params int, clipNorm float64) Optimizer {
	return Over(spec, []Window{{Hi: params}}, clipNorm)
}

// Over is New for vectors whose windows are moved in different ways. Windows lie
// one after another from 0 on, without gaps.
func Over(spec Spec, windows []Window, clipNorm float64) Optimizer {
	if err := spec.Validate(); err != nil {
		panic("optim: " + err.Error())
	}
	if !(clipNorm >= 0) {
		panic(fmt.Sprintf("optim: clipping at a norm of %v", clipNorm))
	}
	o := Optimizer{windows: windows, clip: clipNorm}
	for _, w := range windows {
		o.add(w)
	}
	switch s := spec.(type) {
	case *SGD:
		o.schedule, o.rule = s.LearningRate, newSGD(s)
	case *Adam:
		o.schedule, o.rule = s.LearningRate, newAdam(s.Beta1, s.Beta2, s.Epsilon, 0)
	case *AdamW:
		o.schedule, o.rule = s.LearningRate, newAdam(s.Beta1, s.Beta2, s.Epsilon, s.WeightDecay)
	case *RMSprop:
		o.schedule, o.rule = s.LearningRate, newRMSprop(s)
	case *Adagrad:
		o.schedule, o.rule = s.LearningRate, &adagrad{float32(s.InitialAccumulatorValue), float32(s.Epsilon)}
	case *Lamb:
		o.schedule, o.rule = s.LearningRate, newLamb(s, windows)
	default:
		panic(fmt.Sprintf("optim: a spec of type %T", spec))
	}
	o.cut()
	return o
}

// add takes the next window into account.
func (o *Optimizer) add(w Window) {
	if w.Lo != o.params || w.Hi < w.Lo {
		panic(fmt.Sprintf("optim: a window [%d, %d) behind %d elements", w.Lo, w.Hi, o.params))
	}
	o.params = w.Hi
	if w.Use != Learned || w.Lo == w.Hi {
		return
	}
	if n := len(o.learned); n > 0 && o.learned[n-1].hi == w.Lo {
		o.learned[n-1].hi = w.Hi
		return
	}
	o.learned = append(o.learned, span{w.Lo, w.Hi})
}

// Slots returns the names of the vectors that the optimizer keeps, which may be
// none. All start as zeros.
func (o Optimizer) Slots() []string { return o.rule.slots() }

// LR returns the learning rate of a step; steps count from 0.
func (o Optimizer) LR(step, stepsPerEpoch uint64) float64 {
	return o.schedule.At(step, stepsPerEpoch)
}

// Step updates params in place by the mean gradient grads, which is scaled in
// place if it is clipped. slots are vectors in the order of Slots. Steps count
// from 0, and no step may be left out, since the bias corrections go by them.
func (o Optimizer) Step(params, grads []float32, slots [][]float32, step, stepsPerEpoch uint64) {
	u := o.Begin(o.LR(step, stepsPerEpoch), params, grads, slots, step)
	for i := range u.Len() {
		u.Do(i)
	}
}

// Begin starts what Step does, at a learning rate of the caller's: the pieces
// of the update are to be done then, in any order, at the same time or not.
func (o Optimizer) Begin(rate float64, params, grads []float32, slots [][]float32, step uint64) Update {
	o.check(params, grads, slots)
	u := Update{optimizer: o, params: params, grads: grads, slots: slots, rate: rate, step: step, factor: 1}
	if o.clip > 0 {
		for i := range o.pieces {
			u.prepare(&o.pieces[i])
		}
		u.factor = o.clipFactor(grads)
	}
	return u
}

// ByPieces tells that a piece of an update needs no more of the gradient than its own
// elements, so that it can be done before the others are known. The norm of a gradient
// that may be clipped is that of the whole.
func (o Optimizer) ByPieces() bool { return o.clip == 0 }

// Spends tells that an update leaves something else in the gradient's place.
func (o Optimizer) Spends() bool {
	if s, ok := o.rule.(spender); ok && s.spends() || o.clip > 0 {
		return true
	}
	return slices.ContainsFunc(o.windows, func(w Window) bool { return w.Use == Learned && w.prepared() })
}

// prepared tells whether prepare has something to do.
func (w *Window) prepared() bool {
	return w.Use == Averaged || w.Use == Learned && (w.L1 != 0 || w.L2 != 0)
}

// prepare does what one window alone is subject to.
func (w *Window) prepare(p, g []float32) {
	switch {
	case w.Use == Averaged:
		average(p, g, float32(w.Momentum), float32(1-w.Momentum))
	case w.Use == Learned && (w.L1 != 0 || w.L2 != 0):
		regularize(g, p, float32(w.L1), float32(2*w.L2))
	}
}

func average(p, g []float32, momentum, rest float32) {
	g = g[:len(p)]
	for i := range p {
		p[i] = quiet(float32(momentum*p[i]) + float32(rest*g[i]))
	}
}

// regularize adds the derivative of l1·|p| + l2/2·p², that of |p| at 0 being 0.
func regularize(g, p []float32, l1, l2 float32) {
	g = g[:len(p)]
	for i, x := range p {
		d := float32(l2 * x)
		if x > 0 {
			d += l1
		} else if x < 0 {
			d -= l1
		}
		g[i] += d
	}
}

func (o Optimizer) check(params, grads []float32, slots [][]float32) {
	if len(params) != o.params || len(grads) != o.params || len(slots) != len(o.rule.slots()) {
		panic(fmt.Sprintf("optim: %d parameters, %d gradients and %d slots for an optimizer of %d and %d",
			len(params), len(grads), len(slots), o.params, len(o.rule.slots())))
	}
	for _, s := range slots {
		if len(s) != o.params {
			panic(fmt.Sprintf("optim: a slot of %d elements for %d parameters", len(s), o.params))
		}
	}
}

// clipFactor returns what makes the norm of what is learned of g at most the limit:
// limit/‖g‖ where ‖g‖ is larger, as tf.clip_by_global_norm does. A norm that
// is not a number clips nothing.
func (o Optimizer) clipFactor(g []float32) float32 {
	var sum float64
	for _, s := range o.learned {
		sum += squares(g[s.lo:s.hi])
	}
	norm := math.Sqrt(sum)
	if !(norm > o.clip) {
		return 1
	}
	return float32(o.clip / norm)
}

// GlobalNorm returns the Euclidean norm of the whole vector. Squares of float32
// are exact in float64; square i is added to lane i mod 8, in order, and the lanes
// by a fixed tree. No gradient overflows it.
func GlobalNorm(g []float32) float64 { return math.Sqrt(squares(g)) }

// squares is the square of the norm.
func squares(g []float32) float64 {
	var lane [8]float64
	for ; len(g) >= 8; g = g[8:] {
		for j, x := range g[:8] {
			lane[j] += float64(float64(x) * float64(x))
		}
	}
	for j, x := range g {
		lane[j] += float64(float64(x) * float64(x))
	}
	return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]))
}

// sgd is gradient descent, with momentum where that is not 0:
//
//	v = momentum·v + g
//	p = p − lr·v                   or, with Nesterov's momentum,
//	p = p − lr·(g + momentum·v)
//
// (Sutskever et al., "On the importance of initialization and momentum in deep
// learning", ICML 2013, in PyTorch's form.)
type sgd struct {
	momentum float32
	nesterov bool
	names    []string
}

func newSGD(s *SGD) *sgd {
	r := &sgd{momentum: float32(s.Momentum), nesterov: s.Nesterov}
	if r.momentum != 0 {
		r.names = []string{"velocity"}
	}
	return r
}

func (r *sgd) slots() []string { return r.names }

func (r *sgd) update(s span, params, grads []float32, slots [][]float32, rate float64, _ uint64) {
	lr, p, g := float32(rate), s.of(params), s.of(grads)
	if r.momentum == 0 {
		descend(p, g, lr)
		return
	}
	kernel.Momentum(p, g, s.of(slots[0]), lr, r.momentum, r.nesterov)
}

// of cuts a span out of a vector.
func (s span) of(x []float32) []float32 { return x[s.lo:s.hi:s.hi] }

func descend(p, d []float32, lr float32) {
	d = d[:len(p)]
	for i := range p {
		p[i] = quiet(p[i] - float32(lr*d[i]))
	}
}

// quiet replaces any NaN by the one that package kernel writes: of several that
// processors make, where a step overflows.
func quiet(x float32) float32 {
	if x != x {
		return math.Float32frombits(0x7fc00000)
	}
	return x
}

// adam is Adam with decoupled weight decay (Kingma and Ba, ICLR 2015, algorithm
// 1; Loshchilov and Hutter, ICLR 2019); kernel.Adam is its loop.
//
// The bias corrections are those of the betas that the loop uses, which are
// rounded to float32: the weights of the moments then add up to 1, whereas 0.999
// and its float32 leave 5e-5 of the second moment unaccounted for at first.
type adam struct {
	beta1, beta2, epsilon, decay float32
}

func newAdam(beta1, beta2, epsilon, decay float64) *adam {
	return &adam{float32(beta1), float32(beta2), float32(epsilon), float32(decay)}
}

var adamSlots = []string{"m", "v"}

func (r *adam) slots() []string { return adamSlots }

func (r *adam) update(s span, params, grads []float32, slots [][]float32, rate float64, step uint64) {
	c1, c2 := correction(r.beta1, step), correction(r.beta2, step)
	kernel.Adam(s.of(params), s.of(grads), s.of(slots[0]), s.of(slots[1]),
		float32(rate), r.beta1, r.beta2, r.epsilon, c1, c2, r.decay)
}

// correction returns 1/(1 − beta^t), t = step+1, by which a moment that
// started from zero is too small.
func correction(beta float32, step uint64) float32 {
	return float32(1 / (1 - fmath.Pow(float64(beta), float64(step+1))))
}
