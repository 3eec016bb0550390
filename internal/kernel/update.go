package kernel

import "math"

// Momentum makes one step of gradient descent with momentum (Sutskever et al. 2013,
// in PyTorch's form) on the parameters p, with the velocity v:
//
//	for i := range p {
//		v[i] = momentum*v[i] + g[i]
//		p[i] = p[i] - lr*v[i]                    // or, if nesterov,
//		p[i] = p[i] - lr*(g[i] + momentum*v[i])
//	}
//
// Every operation is rounded to float32, none is fused.
func Momentum(p, g, v []float32, lr, momentum float32, nesterov bool) {
	same("Momentum: g", len(g), len(p))
	same("Momentum: v", len(v), len(p))
	step := active.momentum
	if nesterov {
		step = active.nesterov
	}
	for lo, hi := piece(0, len(g)); lo < hi; lo, hi = piece(hi, len(g)) {
		step(p[lo:hi], g[lo:hi], v[lo:hi], lr, momentum)
	}
}

// RMSprop makes one step of RMSprop (Hinton, lecture 6e, 2012, in PyTorch's form,
// epsilon beside the root) on the parameters p, with the mean square v:
//
//	rest := 1-rho
//	for i := range p {
//		v[i] = rho*v[i] + rest*(g[i]*g[i])
//		p[i] = p[i] - lr*(g[i]/(sqrt(v[i])+eps))
//	}
//
// Every operation is rounded to float32, none is fused.
func RMSprop(p, g, v []float32, lr, rho, eps float32) {
	same("RMSprop: g", len(g), len(p))
	same("RMSprop: v", len(v), len(p))
	for lo, hi := piece(0, len(g)); lo < hi; lo, hi = piece(hi, len(g)) {
		active.rmsprop(p[lo:hi], g[lo:hi], v[lo:hi], lr, rho, 1-rho, eps)
	}
}

func momentumGeneric(p, g, v []float32, lr, momentum float32) {
	for i, gi := range g {
		v[i] = quiet32(float32(momentum*v[i]) + gi)
		p[i] = quiet32(p[i] - float32(lr*v[i]))
	}
}

func nesterovGeneric(p, g, v []float32, lr, momentum float32) {
	for i, gi := range g {
		v[i] = quiet32(float32(momentum*v[i]) + gi)
		p[i] = quiet32(p[i] - float32(lr*(gi+float32(momentum*v[i]))))
	}
}

func rmspropGeneric(p, g, v []float32, lr, rho, rest, eps float32) {
	for i, gi := range g {
		vi := float32(rho*v[i]) + float32(rest*float32(gi*gi))
		root := float32(math.Sqrt(float64(vi))) + eps
		p[i] = quiet32(p[i] - float32(lr*(gi/root)))
		v[i] = quiet32(vi)
	}
}
