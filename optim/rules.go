package optim

import (
	"math"

	"github.com/dlnode/dlnode/internal/kernel"
)

// rmsprop divides by a running root mean square (Tieleman and Hinton, Coursera
// lecture 6.5, 2012; PyTorch's form):
//
//	v = rho·v + (1−rho)·g²
//	d = g/(sqrt(v) + epsilon)
//	p = p − lr·d                   or, with momentum,
//	b = momentum·b + d,  p = p − lr·b
type rmsprop struct {
	rho, rest, momentum, epsilon float32
	names                        []string
}

func newRMSprop(s *RMSprop) *rmsprop {
	rho := float32(s.Rho)
	r := &rmsprop{rho, 1 - rho, float32(s.Momentum), float32(s.Epsilon), []string{"v"}}
	if r.momentum != 0 {
		r.names = []string{"v", "velocity"}
	}
	return r
}

func (r *rmsprop) slots() []string { return r.names }

// spends: with momentum, d takes the gradient's place.
func (r *rmsprop) spends() bool { return r.momentum != 0 }

func (r *rmsprop) update(s span, params, grads []float32, slots [][]float32, rate float64, _ uint64) {
	lr, p, g, v := float32(rate), s.of(params), s.of(grads), s.of(slots[0])
	if r.momentum == 0 {
		kernel.RMSprop(p, g, v, lr, r.rho, r.epsilon)
		return
	}
	for i, x := range g {
		v[i] = quiet(float32(r.rho*v[i]) + float32(r.rest*float32(x*x)))
		g[i] = x / (sqrt(v[i]) + r.epsilon)
	}
	kernel.Momentum(p, g, s.of(slots[1]), lr, r.momentum, false)
}

func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }

// adagrad divides by the root of all squares so far (Duchi, Hazan and Singer,
// JMLR 12, 2011):
//
//	a = a + g²
//	p = p − lr·g/(sqrt(a + initial) + epsilon)
type adagrad struct{ initial, epsilon float32 }

var adagradSlots = []string{"accumulator"}

func (r *adagrad) slots() []string { return adagradSlots }

func (r *adagrad) update(s span, params, grads []float32, slots [][]float32, rate float64, _ uint64) {
	lr, p, g, a := float32(rate), s.of(params), s.of(grads), s.of(slots[0])
	for i, x := range g {
		a[i] = quiet(a[i] + float32(x*x))
		p[i] = quiet(p[i] - float32(lr*(x/(sqrt(a[i]+r.initial)+r.epsilon))))
	}
}

// lamb is Adam whose update of each tensor is made as long as the tensor (You et
// al., ICLR 2020, algorithm 2, with φ the identity):
//
//	u = c1·m/(sqrt(c2·v) + epsilon) + decay·p
//	p = p − lr·‖p‖/‖u‖·u           by 1 where either norm is 0
type lamb struct {
	adam
	windows []Window
}

func newLamb(s *Lamb, windows []Window) *lamb {
	return &lamb{*newAdam(s.Beta1, s.Beta2, s.Epsilon, s.WeightDecay), windows}
}

func (r *lamb) update(s span, params, grads []float32, slots [][]float32, rate float64, step uint64) {
	c1, c2 := correction(r.beta1, step), correction(r.beta2, step)
	for _, w := range r.windows {
		if w.Lo >= s.lo && w.Hi <= s.hi {
			t := span{w.Lo, w.Hi}
			r.tensor(t.of(params), t.of(grads), t.of(slots[0]), t.of(slots[1]), rate, c1, c2)
		}
	}
}

// whole: norms are of whole tensors.
func (r *lamb) whole() {}

func (r *lamb) spends() bool { return true }

// tensor updates one tensor; u takes the gradient's place.
func (r *lamb) tensor(p, g, m, v []float32, rate float64, c1, c2 float32) {
	rest1, rest2 := 1-r.beta1, 1-r.beta2
	for i, x := range g {
		m[i] = quiet(float32(r.beta1*m[i]) + float32(rest1*x))
		v[i] = quiet(float32(r.beta2*v[i]) + float32(rest2*float32(x*x)))
		g[i] = float32(c1*m[i])/(sqrt(float32(c2*v[i]))+r.epsilon) + float32(r.decay*p[i])
	}
	long, short := GlobalNorm(p), GlobalNorm(g)
	if long > 0 && short > 0 {
		rate = float64(rate * (long / short))
	}
	descend(p, g, float32(rate))
}
