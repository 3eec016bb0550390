package kernel

import "math"

// The functions below follow those of explog.go: float64 inside, nothing fused, one
// rounding at the end. Over every thirteenth float32 the greatest errors were 0.500014
// ulp (GELU), 0.500001 ulp (ELU) and 0.500001 ulp (Swish).

// LeakyReLU sets dst[i] to x[i] if x[i] > 0 and to x[i]*slope otherwise. dst may be x.
func LeakyReLU(dst, x []float32, slope float32) {
	same("LeakyReLU", len(x), len(dst))
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		active.leaky(dst[lo:hi], x[lo:hi], x[lo:hi], slope)
	}
}

// LeakyReLUGrad sets dx[i] to dy[i] if y[i] > 0 and to dy[i]*slope otherwise; y is
// LeakyReLU's result or its argument. dx may be dy.
func LeakyReLUGrad(dx, dy, y []float32, slope float32) {
	checkGrad("LeakyReLUGrad", dx, dy, y)
	for lo, hi := piece(0, len(y)); lo < hi; lo, hi = piece(hi, len(y)) {
		active.leaky(dx[lo:hi], dy[lo:hi], y[lo:hi], slope)
	}
}

// ELU sets dst[i] to x[i] if x[i] > 0 and to e^x[i] - 1 otherwise (Clevert et al. 2016,
// α = 1); ±0 give +0. The error stays below 0.501 ulp. dst may be x.
func ELU(dst, x []float32) { through("ELU", active.elu, dst, x) }

// ELUGrad sets dx[i] to dy[i] if y[i] > 0 and to dy[i]*(y[i]+1) otherwise, where y is
// ELU's result. dx may be dy.
func ELUGrad(dx, dy, y []float32) { back("ELUGrad", active.eluGrad, dx, dy, y) }

// GELU sets dst[i] to x·Φ(x), Φ(x) = (1 + erf(x/√2))/2 (Hendrycks and Gimpel 2016):
// the exact form, not the one by tanh. ±0 give +0. The error stays below 0.501 ulp.
// dst may be x.
func GELU(dst, x []float32) { through("GELU", active.gelu, dst, x) }

// GELUGrad sets dx[i] to dy·(Φ(x) + x·φ(x)), φ(x) = e^(-x²/2)/√2π. The error of the
// second factor stays below 2^-38 of 1 before the product is rounded. dx may be dy.
func GELUGrad(dx, dy, x []float32) { back("GELUGrad", active.geluGrad, dx, dy, x) }

// Swish sets dst[i] to x/(1+e^-x) (Ramachandran et al. 2017; silu elsewhere). The error
// stays below 0.501 ulp. dst may be x.
func Swish(dst, x []float32) { through("Swish", active.swish, dst, x) }

// SwishGrad sets dx[i] to dy·s·(1 + x·(1-s)), s = 1/(1+e^-x). The error of what dy is
// multiplied by stays below 2^-38 of 1 before the product is rounded. dx may be dy.
func SwishGrad(dx, dy, x []float32) { back("SwishGrad", active.swishGrad, dx, dy, x) }

// SigmoidGrad sets dx[i] to (dy[i]*y[i])*(1-y[i]). dx may be dy.
func SigmoidGrad(dx, dy, y []float32) { back("SigmoidGrad", active.sigmoidGrad, dx, dy, y) }

// TanhGrad sets dx[i] to dy[i]*(1-y[i]*y[i]). dx may be dy.
func TanhGrad(dx, dy, y []float32) { back("TanhGrad", active.tanhGrad, dx, dy, y) }

// Multiply sets dst[i] to x[i]*y[i]. dst may be x or y.
func Multiply(dst, x, y []float32) { back("Multiply", active.multiply, dst, x, y) }

// through hands f down in pieces.
func through(what string, f func(dst, x []float32), dst, x []float32) {
	same(what, len(x), len(dst))
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		f(dst[lo:hi], x[lo:hi])
	}
}

// back hands a function of two down in pieces: the gradients of activations.
func back(what string, f func(dx, dy, y []float32), dx, dy, y []float32) {
	checkGrad(what, dx, dy, y)
	for lo, hi := piece(0, len(y)); lo < hi; lo, hi = piece(hi, len(y)) {
		f(dx[lo:hi], dy[lo:hi], y[lo:hi])
	}
}

func checkGrad(what string, dx, dy, y []float32) {
	same(what, len(dy), len(dx))
	same(what, len(y), len(dx))
}

// leakyGeneric serves both ways: x is scaled where the sign of y is not plus.
func leakyGeneric(dst, x, y []float32, slope float32) {
	for i, e := range x {
		if !(y[i] > 0) {
			e = float32(e * slope)
		}
		dst[i] = quiet32(e)
	}
}

// above is max(x, 0), +0 for NaN.
func above(x float64) float64 {
	if x > 0 {
		return x
	}
	return 0
}

// eluGeneric is max(x, 0) + (e^min(x, 0) - 1), of which one term is 0.
func eluGeneric(dst, x []float32) {
	for i, e := range x {
		v := float64(e)
		low := v
		if v > 0 {
			low = 0
		}
		q, two := expm1Parts(clamp(low, expLimit))
		dst[i] = quiet32(float32(above(v) + (float64(q*two) + (two - 1))))
	}
}

func eluGradGeneric(dx, dy, y []float32) {
	for i, e := range y {
		g := dy[i]
		if !(e > 0) {
			g = float32(g * (e + 1))
		}
		dx[i] = quiet32(g)
	}
}

const (
	// Beyond geluLimit, x·Φ(-x) rounds to 0; beyond swishLimit, x·e^-x does.
	geluLimit  = 14.5
	swishLimit = 112

	density = 0x1.9884533d43651p-2 // 1/√2π
)

// tailParts returns e^(-a²/2) and Φ(-a)·e^(a²/2) for a in [0, geluLimit]: the latter
// is smooth and falls as 1/a does. With s = 1/(a+5) it is s·P(t), t linear in s and
// from -1 to 1; P interpolates it at Chebyshev's points with a relative error below
// 2^-39.
func tailParts(a float64) (bell, ratio float64) {
	s := 1 / (a + 5)
	t := float64(s*tailScale) - tailShift
	p := tailCoeff[0]
	for _, c := range tailCoeff[1:] {
		p = float64(p*t) + c
	}
	q, two := expm1Parts(float64(float64(a*a) * -0.5))
	return float64(q*two) + two, float64(p * s)
}

const (
	tailScale = 0x1.ae58469ee5847p+3
	tailShift = 0x1.b08d3dcb08d3ep+0
)

var tailCoeff = [14]float64{
	-0x1.2f63ae29791f4p-23, -0x1.9099937fb78c3p-23, 0x1.554e33a840da4p-19, 0x1.abb09c34d17eap-18,
	-0x1.137a20bcb243bp-15, -0x1.94a6daab26c34p-13, 0x1.f7e9d1776e1a3p-19, 0x1.08ce1851a29bdp-8,
	0x1.840d88caf9d95p-6, 0x1.591b8993cc486p-4, 0x1.c304b01b4c82fp-3, 0x1.cd3f82cf0ede9p-2,
	0x1.7a6e2d5a3a59fp-1, 0x1.f4f765bdc51bbp-1,
}

// most is |x|, at most limit; NaN stays.
func most(x, limit float64) float64 {
	a := math.Abs(x)
	if a > limit {
		return limit
	}
	return a
}

// geluGeneric is max(x, 0) - |x|·Φ(-|x|).
func geluGeneric(dst, x []float32) {
	for i, e := range x {
		v := float64(e)
		a := most(v, geluLimit)
		bell, ratio := tailParts(a)
		dst[i] = quiet32(float32(above(v) - float64(a*float64(bell*ratio))))
	}
}

// geluGradGeneric: Φ(x) + x·φ(x) is w = Φ(-|x|) - |x|·φ(x) below 0, and 1-w above.
func geluGradGeneric(dx, dy, x []float32) {
	for i, e := range x {
		a := most(float64(e), geluLimit)
		bell, ratio := tailParts(a)
		w := float64(bell * (ratio - float64(a*density)))
		if e > 0 {
			w = 1 - w
		}
		dx[i] = quiet32(float32(float64(dy[i]) * w))
	}
}

func swishGeneric(dst, x []float32) {
	for i, e := range x {
		v := clamp(float64(e), swishLimit)
		q, two := expm1Parts(-v)
		if e > 0 {
			v = float64(e)
		}
		dst[i] = quiet32(float32(v / (1 + (float64(q*two) + two))))
	}
}

func swishGradGeneric(dx, dy, x []float32) {
	for i, e := range x {
		v := clamp(float64(e), swishLimit)
		q, two := expm1Parts(-v)
		s := 1 / (1 + (float64(q*two) + two))
		dx[i] = quiet32(float32(float64(dy[i]) * float64(s*(1+float64(v*(1-s))))))
	}
}

func sigmoidGradGeneric(dx, dy, y []float32) {
	for i, e := range y {
		dx[i] = quiet32(float32(dy[i]*e) * (1 - e))
	}
}

func multiplyGeneric(dst, x, y []float32) {
	for i, e := range y {
		dst[i] = quiet32(x[i] * e)
	}
}

func tanhGradGeneric(dx, dy, y []float32) {
	for i, e := range y {
		dx[i] = quiet32(dy[i] * (1 - float32(e*e)))
	}
}
