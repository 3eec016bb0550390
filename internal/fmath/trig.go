package fmath

import "math"

// MaxAngle bounds the arguments of Sin and Cos: up to it the reduction by π/2
// in three words of 33 bits is exact where it matters. Angles in a training run
// are a few turns.
const MaxAngle = 1 << 20

// Sin returns the sine of x radians within 1 ulp. Sin(±0) = ±0, Sin of NaN or
// ±Inf is NaN. It panics if x is finite and |x| > MaxAngle.
func Sin(x float64) float64 {
	if x-x != 0 {
		return math.Float64frombits(nan64)
	}
	q, r := reduce(x)
	return quadrant(q, r)
}

// Cos returns the cosine of x radians within 1 ulp, for the arguments of Sin.
func Cos(x float64) float64 {
	if x-x != 0 {
		return math.Float64frombits(nan64)
	}
	q, r := reduce(x)
	return quadrant(q+1, r)
}

// quadrant returns sin(r + q*π/2).
func quadrant(q int, r double) float64 {
	var y float64
	if q&1 == 0 {
		y = sinReduced(r.hi, r.lo)
	} else {
		y = cosReduced(r.hi, r.lo)
	}
	if q&2 != 0 {
		return -y
	}
	return y
}

// reduce returns q and r with x = q*π/2 + r and |r| <= π/4 or hardly more
// (Cody and Waite's method).
func reduce(x float64) (q int, r double) {
	const (
		p1 = 1.57079632673412561417e+00 // 33 bits of π/2
		p2 = 6.07710050630396597660e-11 // the next 33
		p3 = 2.02226624871116645580e-21 // the next 33
		p4 = 8.47842766036889956997e-32 // the rest
	)
	if math.Abs(x) > MaxAngle {
		panic("fmath: an angle beyond MaxAngle")
	}
	k := math.Floor(float64(x*(2/math.Pi)) + 0.5)
	if k == 0 {
		return 0, double{x, 0} // keeps -0
	}
	r = twoSum(x-float64(k*p1), -float64(k*p2))
	return int(k), r.add(double{-float64(k * p3), -float64(k * p4)})
}

// sinReduced returns sin(x+lo) for |x| <= π/4 (FreeBSD's k_sin.c).
func sinReduced(x, lo float64) float64 {
	const (
		s1 = -1.66666666666666324348e-01
		s2 = 8.33333333332248946124e-03
		s3 = -1.98412698298579493134e-04
		s4 = 2.75573137070700676789e-06
		s5 = -2.50507602534068634195e-08
		s6 = 1.58969099521155010221e-10
	)
	z := float64(x * x)
	r := s5 + float64(z*s6)
	r = s4 + float64(z*r)
	r = s3 + float64(z*r)
	r = s2 + float64(z*r)
	v := float64(z * x)
	return x - ((float64(z*(float64(0.5*lo)-float64(v*r))) - lo) - float64(v*s1))
}

// cosReduced returns cos(x+lo) for |x| <= π/4 (FreeBSD's k_cos.c).
func cosReduced(x, lo float64) float64 {
	const (
		c1 = 4.16666666666666019037e-02
		c2 = -1.38888888888741095749e-03
		c3 = 2.48015872894767294178e-05
		c4 = -2.75573143513906633035e-07
		c5 = 2.08757232129817482790e-09
		c6 = -1.13596475577881948265e-11
	)
	z := float64(x * x)
	r := c5 + float64(z*c6)
	r = c4 + float64(z*r)
	r = c3 + float64(z*r)
	r = c2 + float64(z*r)
	r = float64(z * (c1 + float64(z*r)))
	half := float64(0.5 * z)
	w := 1 - half
	return w + ((1 - w - half) + (float64(z*r) - float64(x*lo)))
}
