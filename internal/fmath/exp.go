package fmath

import "math"

const (
	ln2Hi = 6.93147180369123816490e-01 // upper 33 bits: k*ln2Hi is exact for |k| < 2^20
	ln2Lo = 1.90821492927058770002e-10
	log2e = 1.44269504088896338700e+00

	expMax = 7.09782712893383973096e+02  // Exp overflows above
	expMin = -7.45133219101941108420e+02 // Exp is 0 below
)

// Exp returns e^x within 1 ulp. Exp(+Inf) = +Inf, Exp(-Inf) = 0, Exp(NaN) = NaN.
func Exp(x float64) float64 { return exp(x, 0) }

// exp returns e^(x+lo) for a lo that is tiny beside x: FreeBSD's e_exp.c, with
// the correction entering where the reduction's own does.
func exp(x, lo float64) float64 {
	switch {
	case x != x:
		return math.Float64frombits(nan64)
	case x > expMax:
		return math.Inf(1)
	case x < expMin:
		return 0
	}
	k := math.Floor(float64(x*log2e) + 0.5)
	hi := x - float64(k*ln2Hi)
	lo = float64(k*ln2Lo) - lo
	return scale(expReduced(hi, lo), int(k))
}

// expReduced returns e^(hi-lo), |hi| < 0.35, by the rational form of e_exp.c:
// e^r = 1 + r + r*c/(2-c) with c = r - r²(P1 + r²(P2 + ...)).
func expReduced(hi, lo float64) float64 {
	const (
		p1 = 1.66666666666666657415e-01
		p2 = -2.77777777770155933842e-03
		p3 = 6.61375632143793436117e-05
		p4 = -1.65339022054652515390e-06
		p5 = 4.13813679705723846039e-08
	)
	r := hi - lo
	t := float64(r * r)
	q := p4 + float64(t*p5)
	q = p3 + float64(t*q)
	q = p2 + float64(t*q)
	q = p1 + float64(t*q)
	c := r - float64(t*q)
	return 1 - ((lo - float64(r*c)/(2-c)) - hi)
}

// scale returns y * 2^k, rounded once, for y near 1 and any k that exp meets.
func scale(y float64, k int) float64 {
	switch {
	case k > 1023:
		return float64(y*pow2(k-1)) * 2 // x*2 is compiled as x+x, and that would fuse
	case k < -1021:
		return float64(y*pow2(k+1000)) * pow2(-1000)
	}
	return y * pow2(k)
}

// pow2 returns 2^k for the exponents of normal numbers.
func pow2(k int) float64 { return math.Float64frombits(uint64(k+1023) << 52) }
