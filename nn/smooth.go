package nn

import (
	"math"

	"github.com/dlnode/dlnode/internal/fmath"
	"github.com/dlnode/dlnode/internal/kernel"
)

// leakySlope is Keras' slope of leaky_relu below 0.
const leakySlope = 0.2

// leakyReLU is x where x > 0 and leakySlope·x elsewhere.
func leakyReLU(y, x []float32) {
	for i, v := range x {
		if !(v > 0) {
			v = float32(v * leakySlope)
		}
		y[i] = v
	}
}

// leakyReLUGrad goes by the sign of y, which is that of x.
func leakyReLUGrad(dx, dy, y []float32) {
	for i, g := range dy {
		if !(y[i] > 0) {
			g = float32(g * leakySlope)
		}
		dx[i] = g
	}
}

// elu is x where x > 0 and e^x - 1 elsewhere (Clevert et al. 2016, α = 1).
func elu(y, x []float32) {
	for i, v := range x {
		if !(v > 0) {
			v = float32(expm1(float64(v)))
		}
		y[i] = v
	}
}

// expm1 is e^x - 1 for x <= 0, to far below a float32's last place.
func expm1(x float64) float64 {
	if x > -1.0/(1<<10) {
		return x + float64(float64(x*x)*(0.5+float64(x*(1.0/6))))
	}
	return fmath.Exp(x) - 1
}

// eluGrad is dy·(y + 1) where x, and so y, is not above 0.
func eluGrad(dx, dy, y []float32) {
	for i, g := range dy {
		if !(y[i] > 0) {
			g = float32(g * (y[i] + 1))
		}
		dx[i] = g
	}
}

// gelu is x·Φ(x), Φ(x) = (1 + erf(x/√2))/2 (Hendrycks and Gimpel 2016): the exact
// form, Keras' default, not the one by tanh.
func gelu(y, x []float32) {
	for i, v := range x {
		y[i] = float32(float64(v) * gaussian(float64(v)))
	}
}

func gaussian(x float64) float64 { return float64(0.5 * (1 + fmath.Erf(x/math.Sqrt2))) }

// geluGrad is dy·(Φ(x) + x·φ(x)), φ(x) = e^(-x²/2)/√2π.
func geluGrad(dx, dy, x []float32) {
	const density = 0.39894228040143267794 // 1/√2π
	for i, g := range dy {
		v := float64(x[i])
		bell := density * fmath.Exp(float64(-0.5*float64(v*v)))
		dx[i] = float32(float64(g) * (gaussian(v) + float64(v*bell)))
	}
}

// swish is x·σ(x) (Ramachandran et al. 2017; silu elsewhere).
func swish(y, x []float32) {
	kernel.Sigmoid(y, x)
	multiply(y, x, y)
}

// swishGrad is dy·s·(1 + x·(1 - s)), s = σ(x).
func swishGrad(dx, dy, x []float32) {
	for i, g := range dy {
		v := float64(x[i])
		s := 1 / (1 + fmath.Exp(-v))
		dx[i] = float32(float64(g) * float64(s*(1+float64(v*(1-s)))))
	}
}
