package fmath

import "math"

// Tanh returns the hyperbolic tangent of x within 1.5 ulp: the rational form of
// Cephes' tanh.c near 0, the exponential elsewhere. Tanh(±0) = ±0.
func Tanh(x float64) float64 {
	z := math.Abs(x)
	switch {
	case x == 0:
		return x // keeps -0
	case x != x:
		return math.Float64frombits(nan64)
	case z > 22:
		z = 1
	case z >= 0.625:
		z = 1 - 2/(Exp(2*z)+1)
	default:
		return tanhSmall(x)
	}
	return math.Copysign(z, x)
}

func tanhSmall(x float64) float64 {
	const (
		p0 = -9.64399179425052238628e-1
		p1 = -9.92877231001918586564e1
		p2 = -1.61468768441708447952e3
		q0 = 1.12811678491632931402e2
		q1 = 2.23548839060100448583e3
		q2 = 4.84406305325125486048e3
	)
	s := float64(x * x)
	p := float64((float64((float64(p0*s)+p1)*s) + p2) * s)
	q := float64((float64((s+q0)*s)+q1)*s) + q2
	return x + float64(x*(p/q))
}
