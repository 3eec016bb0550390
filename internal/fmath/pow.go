package fmath

import "math"

// Pow returns x^y within 1 ulp for x > 0: the logarithm and its product with y
// are carried in two float64, so that a large y costs no accuracy. For the rest:
//
//	Pow(x, 0) = 1 and Pow(1, y) = 1 for any x, y, NaN included
//	Pow(0, y) = 0 for y > 0 and +Inf for y < 0
//	Pow(x, y) for x < 0 is ±|x|^y where y is whole, NaN elsewhere
//	NaN if x or y is NaN
func Pow(x, y float64) float64 {
	switch {
	case y == 0 || x == 1:
		return 1
	case x != x || y != y:
		return math.Float64frombits(nan64)
	case x < 0:
		return powNegative(x, y)
	case x == 0 || x > math.MaxFloat64:
		if (x == 0) == (y > 0) {
			return 0
		}
		return math.Inf(1)
	}
	l := logDouble(x)
	if e := float64(l.hi * y); e > 2*expMax || e < 2*expMin {
		return exp(e, 0)
	}
	l = l.mul(double{y, 0})
	return exp(l.hi, l.lo)
}

// powNegative is Pow for x < 0: only a whole y has a real power.
func powNegative(x, y float64) float64 {
	if math.Floor(y) != y {
		return math.Float64frombits(nan64)
	}
	p := Pow(-x, y)
	if h := y / 2; math.Floor(h) != h {
		return -p
	}
	return p
}

// double is an unevaluated sum hi + lo with |lo| <= ulp(hi)/2: about 106 bits.
type double struct{ hi, lo float64 }

// twoSum returns a + b exactly.
func twoSum(a, b float64) double {
	s := a + b
	t := s - a
	return double{s, (a - (s - t)) + (b - t)}
}

func (a double) add(b double) double {
	s := twoSum(a.hi, b.hi)
	return twoSum(s.hi, s.lo+(a.lo+b.lo))
}

func (a double) mul(b double) double {
	p := float64(a.hi * b.hi)
	e := math.FMA(a.hi, b.hi, -p) // the product's own error, exactly
	return twoSum(p, e+(float64(a.hi*b.lo)+float64(a.lo*b.hi)))
}

func (a double) div(b double) double {
	q := a.hi / b.hi
	r := math.FMA(-q, b.hi, a.hi) // the remainder, exactly
	return twoSum(q, (r+(a.lo-float64(q*b.lo)))/b.hi)
}

// logDouble returns the logarithm of a positive finite x with a relative error
// below 2^-64: 2s + 2s³/3 in two words, the rest of the series in one.
func logDouble(x float64) double {
	m, k := split(x)
	s := double{m - 1, 0}.div(twoSum(m, 1))
	z := s.mul(s)
	tail := float64(float64(z.hi*z.hi) * atanhTail(z.hi))
	sum := double{1, 0}.add(z.mul(double{1.0 / 3, 0x1.5555555555555p-56})).add(double{tail, 0})
	s = s.mul(sum)
	ln2 := double{0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56}
	return ln2.mul(double{k, 0}).add(double{2 * s.hi, 2 * s.lo})
}

// atanhTail returns 1/5 + z/7 + z²/9 + ..., the series of atanh(s) behind its
// second term, for z = s² < 0.03.
func atanhTail(z float64) float64 {
	t := 1.0 / 27
	for n := 25.0; n >= 5; n -= 2 {
		t = 1/n + float64(z*t)
	}
	return t
}
