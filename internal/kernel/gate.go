package kernel

import (
	"math"

	"github.com/dlnode/dlnode/internal/fmath"
)

// The gates of recurrent layers are not Sigmoid and Tanh, which compute in float64,
// but functions in float32 with twice the lanes: what a step takes lies in them. fma is
// fmath.FMA32, and every other operation is rounded to float32:
//
//	expm1(x): // q and two, with e^x = two*(q+1)
//		t   := fma(x, 0x1.715476p+0, 0x1.8p23+127) // x*log2(e)
//		two := Float32frombits(Float32bits(t) << 23)
//		k   := t - (0x1.8p23 + 127)
//		r   := fma(k, 0x1.05c61p-29, fma(k, -0x1.62e43p-1, x)) // x - k*ln2
//		p   := fma(fma(fma(fma(0x1.6e59d2p-10, r, 0x1.12347p-7), r, 0x1.555446p-5), r, 0x1.5554ap-3), r, 0.5)
//		q   := fma(p*r, r, r)
//
//	sigmoid(x): // +0 if x < -87
//		q, two := expm1(-min(x, 87))
//		1 / (fma(two, q, 1) + two)
//
//	tanh(x): // with the sign of x
//		q, two := expm1(2*min(|x|, 10))
//		m := fma(two, q, two-1) // e^2|x| - 1
//		y := m / (m+2)
//		if m < 1 { y = fma(-y, m/2, m/2) } // m/2*(1-y) is y, but exacter
//
// NaN gives the one NaN. Within the limits k is from -126 to 126, so that two is a
// normal number, and where a limit acts tanh rounds to 1 and sigmoid to 1. Over every
// seventh float32 the greatest errors were 1.999 ulp (sigmoid, from -87 up; what is +0
// below is less than 2^-125) and 1.865 ulp (tanh, also near 0).
//
// The first two coefficients of q are 1 and 1/2; the others are those with which
// q has the least relative error over |r| <= ln2/2, 2^-25.97, found by Remez' exchange:
// of the lowest power first, rounded to float32, the rest anew for what is then fixed.

// gateCoeff are the coefficients of p, of the highest power first.
var gateCoeff = [5]float32{0x1.6e59d2p-10, 0x1.12347p-7, 0x1.555446p-5, 0x1.5554ap-3, 0.5}

const (
	// gateMagic added to |t| < 2^22 leaves the nearest whole number in the lowest bits,
	// plus the bias of an exponent, which moves up 23 bits with it.
	gateMagic = 0x1.8p23 + 127

	gateLog2e = 0x1.715476p+0
	// What is left of x after k*gateLn2Hi is exact: a multiple of 2^-25, below 1/2.
	gateLn2Hi = 0x1.62e43p-1
	gateLn2Lo = -0x1.05c61p-29

	sigmoidLimit  = 87
	gateTanhLimit = 10
)

// gateParts is expm1 above, for |x| <= 87 or NaN.
func gateParts(x float32) (q, two float32) {
	t := fmath.FMA32(x, gateLog2e, gateMagic)
	two = math.Float32frombits(math.Float32bits(t) << 23)
	k := t - gateMagic
	r := fmath.FMA32(k, -gateLn2Lo, fmath.FMA32(k, -gateLn2Hi, x))
	p := gateCoeff[0]
	for _, c := range gateCoeff[1:] {
		p = fmath.FMA32(p, r, c)
	}
	return fmath.FMA32(float32(p*r), r, r), two
}

// sigmoidGate is 1/(1+e^-x).
func sigmoidGate(x float32) float32 {
	switch {
	case x < -sigmoidLimit:
		return 0
	case x > sigmoidLimit:
		x = sigmoidLimit
	}
	q, two := gateParts(-x)
	return quiet32(1 / (fmath.FMA32(two, q, 1) + two))
}

// tanhGate is the hyperbolic tangent.
func tanhGate(x float32) float32 {
	a := math.Float32frombits(math.Float32bits(x) & absMask32)
	if a > gateTanhLimit {
		a = gateTanhLimit
	}
	q, two := gateParts(a + a)
	m := fmath.FMA32(two, q, two-1)
	y := m / (m + 2)
	if m < 1 {
		half := float32(m * 0.5)
		y = fmath.FMA32(-y, half, half)
	}
	return quiet32(math.Float32frombits(math.Float32bits(y) | math.Float32bits(x)&^absMask32))
}
