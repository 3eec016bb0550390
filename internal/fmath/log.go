package fmath

import "math"

// Log returns the natural logarithm of x within 1 ulp (FreeBSD's e_log.c).
// Log(0) = -Inf, Log(+Inf) = +Inf, Log of NaN or of x < 0 is NaN.
func Log(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.Float64frombits(nan64)
	case x == 0:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	m, k := split(x)
	f := m - 1
	s := f / (2 + f)
	half := float64(float64(0.5*f) * f)
	r := float64(s * (half + logTail(float64(s*s))))
	return float64(k*ln2Hi) - ((half - (r + float64(k*ln2Lo))) - f)
}

// logTail is the even part of log((1+s)/(1-s))/s - 2 in z = s².
func logTail(z float64) float64 {
	const (
		l1 = 6.666666666666735130e-01
		l2 = 3.999999999940941908e-01
		l3 = 2.857142874366239149e-01
		l4 = 2.222219843214978396e-01
		l5 = 1.818357216161805012e-01
		l6 = 1.531383769920937332e-01
		l7 = 1.479819860511658591e-01
	)
	w := float64(z * z)
	odd := l5 + float64(w*l7)
	odd = l3 + float64(w*odd)
	odd = l1 + float64(w*odd)
	even := l4 + float64(w*l6)
	even = l2 + float64(w*even)
	return float64(z*odd) + float64(w*even)
}

// split returns m in [√½, √2) and a whole k with x = m * 2^k, exactly, for a
// positive finite x.
func split(x float64) (m, k float64) {
	var e int
	if x < 0x1p-1022 {
		x *= 0x1p54
		e = -54
	}
	u := math.Float64bits(x)
	e += int(u>>52) - 1023
	m = math.Float64frombits(u&(1<<52-1) | 1023<<52)
	if m >= math.Sqrt2 {
		m /= 2
		e++
	}
	return m, float64(e)
}
