package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The constants of kernel/activation.go.
const (
	geluLimit  = 14.5
	swishLimit = 112
	density    = 0x1.9884533d43651p-2
	tailScale  = 0x1.ae58469ee5847p+3
	tailShift  = 0x1.b08d3dcb08d3ep+0
	one32      = 0x3f800000
)

var tailCoeff = []float64{
	-0x1.2f63ae29791f4p-23, -0x1.9099937fb78c3p-23, 0x1.554e33a840da4p-19, 0x1.abb09c34d17eap-18,
	-0x1.137a20bcb243bp-15, -0x1.94a6daab26c34p-13, 0x1.f7e9d1776e1a3p-19, 0x1.08ce1851a29bdp-8,
	0x1.840d88caf9d95p-6, 0x1.591b8993cc486p-4, 0x1.c304b01b4c82fp-3, 0x1.cd3f82cf0ede9p-2,
	0x1.7a6e2d5a3a59fp-1, 0x1.f4f765bdc51bbp-1,
}

// clamp limits each x to ±limit. The bound comes first, so that NaN, the second, is
// what is left.
func (s isa) clamp(x []VecVirtual, limit float64) {
	for _, v := range x {
		VMINPD(v, all64(s.vec(), limit), v)
		VMAXPD(v, all64(s.vec(), -limit), v)
	}
}

// zero returns a vector of +0.
func (s isa) zero() VecVirtual {
	z := s.vec()
	VXORPD(z, z, z)
	return z
}

// above returns max(x, 0), +0 for NaN.
func (s isa) above(x VecVirtual) VecVirtual {
	y := s.vec()
	VMAXPD(s.zero(), x, y)
	return y
}

// copies returns each x once more.
func (s isa) copies(x []VecVirtual) []VecVirtual {
	y := make([]VecVirtual, len(x))
	for i := range x {
		y[i] = s.vec()
		VMOVAPD(x[i], y[i])
	}
	return y
}

func elu64(s isa, x []VecVirtual) {
	high := make([]VecVirtual, len(x))
	for i, v := range x {
		high[i] = s.above(v)
		VMINPD(v, s.zero(), v)
	}
	s.clamp(x, expLimit)
	q, two := expm1Parts(s, x)
	for i, v := range x {
		VMULPD(two[i], q[i], q[i])
		VSUBPD(all64(s.vec(), 1), two[i], two[i])
		VADDPD(two[i], q[i], q[i])
		VADDPD(q[i], high[i], v)
	}
}

// most replaces each x by |x|, at most limit; NaN stays.
func (s isa) most(x []VecVirtual, limit float64) {
	for _, v := range x {
		VANDNPD(v, all64bits(s.vec(), signBit), v)
		VMINPD(v, all64(s.vec(), limit), v)
	}
}

// tailParts returns e^(-a²/2) and Φ(-a)·e^(a²/2), as the Go function does.
func (s isa) tailParts(a []VecVirtual) (bell, ratio []VecVirtual) {
	var t, over, square []VecVirtual
	for _, v := range a {
		x, y := s.vec(), s.vec()
		VADDPD(all64(s.vec(), 5), v, x)
		VDIVPD(x, all64(s.vec(), 1), x)
		VMULPD(all64(s.vec(), tailScale), x, y)
		VSUBPD(all64(s.vec(), tailShift), y, y)
		t, over = append(t, y), append(over, x)
	}
	ratio = s.poly(t, tailCoeff)
	for i := range ratio {
		VMULPD(over[i], ratio[i], ratio[i])
	}
	for _, v := range a {
		x := s.vec()
		VMULPD(v, v, x)
		VMULPD(all64(s.vec(), -0.5), x, x)
		square = append(square, x)
	}
	bell, two := expm1Parts(s, square)
	for i, q := range bell {
		VMULPD(two[i], q, q)
		VADDPD(two[i], q, q)
	}
	return bell, ratio
}

func gelu64(s isa, x []VecVirtual) {
	a := s.copies(x)
	s.most(a, geluLimit)
	bell, ratio := s.tailParts(a)
	for i, v := range x {
		VMULPD(ratio[i], bell[i], bell[i])
		VMULPD(bell[i], a[i], a[i])
		VSUBPD(a[i], s.above(v), v)
	}
}

func geluGrad64(s isa, x []VecVirtual) {
	a := s.copies(x)
	s.most(a, geluLimit)
	bell, ratio := s.tailParts(a)
	for i, v := range x {
		VMULPD(all64(s.vec(), density), a[i], a[i])
		VSUBPD(a[i], ratio[i], ratio[i])
		VMULPD(ratio[i], bell[i], a[i])
		VSUBPD(a[i], all64(s.vec(), 1), bell[i])
		s.where64(greater, v, s.zero(), bell[i], a[i])
		VMOVAPD(a[i], v)
	}
}

// where64 replaces into by from where a compares with b.
func (s isa) where64(predicate U8, a, b, from, into VecVirtual) {
	if s.wide {
		k := K()
		VCMPPD(predicate, b, a, k)
		VMOVAPD(from, k, into)
		return
	}
	t := s.vec()
	VCMPPD(predicate, b, a, t)
	VBLENDVPD(t, from, into, into)
}

// negative returns -x for each.
func (s isa) negative(x []VecVirtual) []VecVirtual {
	y := make([]VecVirtual, len(x))
	for i := range x {
		y[i] = s.vec()
		VXORPD(all64bits(s.vec(), signBit), x[i], y[i])
	}
	return y
}

func swish64(s isa, x []VecVirtual) {
	v := s.copies(x)
	s.clamp(v, swishLimit)
	q, two := expm1Parts(s, s.negative(v))
	for i := range x {
		VMULPD(two[i], q[i], q[i])
		VADDPD(two[i], q[i], q[i])
		VADDPD(all64(s.vec(), 1), q[i], q[i])
		s.where64(greater, x[i], s.zero(), x[i], v[i])
		VDIVPD(q[i], v[i], x[i])
	}
}

func swishGrad64(s isa, x []VecVirtual) {
	s.clamp(x, swishLimit)
	q, two := expm1Parts(s, s.negative(x))
	for i, v := range x {
		one := all64(s.vec(), 1)
		VMULPD(two[i], q[i], q[i])
		VADDPD(two[i], q[i], q[i])
		VADDPD(one, q[i], q[i])
		VDIVPD(q[i], one, q[i])
		VSUBPD(q[i], one, two[i])
		VMULPD(two[i], v, v)
		VADDPD(one, v, v)
		VMULPD(q[i], v, v)
	}
}

// log64 takes each x apart as kernel/explog.go does. The exponent, above 1024 less
// than which none is, becomes a float64 by way of 2^52.
func log64(s isa, x []VecVirtual) {
	const sqrtHalf = 0x3fe6a09e667f3bcd
	var exponent, third []VecVirtual
	arg := s.copies(x)
	for _, v := range x {
		k := s.vec()
		VPSUBQ(all64bits(s.vec(), sqrtHalf), v, v)
		VPADDQ(all64bits(s.vec(), 1024<<52), v, k)
		VPSRLQ(U8(52), k, k)
		VPADDQ(all64bits(s.vec(), 0x4330000000000000), k, k)
		VSUBPD(all64(s.vec(), 0x1p52+1024), k, k)
		VANDPD(all64bits(s.vec(), 1<<52-1), v, v)
		VPADDQ(all64bits(s.vec(), sqrtHalf), v, v)
		VSUBPD(all64(s.vec(), 1), v, v)
		t := s.vec()
		VADDPD(all64(s.vec(), 2), v, t)
		VDIVPD(t, v, v)
		square := s.vec()
		VMULPD(v, v, square)
		exponent, third = append(exponent, k), append(third, square)
	}
	p := s.poly(third, logCoeff)
	for i, v := range x {
		k, t := exponent[i], third[i]
		VMULPD(p[i], v, v)
		VMULPD(all64(s.vec(), ln2Lo), k, t)
		VADDPD(t, v, v)
		VMULPD(all64(s.vec(), ln2Hi), k, k)
		VADDPD(k, v, v)
		s.where64(equal, arg[i], s.zero(), all64bits(s.vec(), 0xfff0000000000000), v)
		s.where64(notGE, arg[i], s.zero(), all64bits(s.vec(), nan64), v)
		s.where64(equal, arg[i], all64bits(s.vec(), 0x7ff0000000000000), arg[i], v)
	}
}

// logCoeff are 2/15 down to 2/1.
var logCoeff = []float64{2.0 / 15, 2.0 / 13, 2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3, 2}

const (
	notGE   = U8(9)    // less, or unordered
	greater = U8(0x1e) // and ordered
)

// gradient writes a function of dy and y, both float32 as all it computes: f returns
// the result from d and v, which it may overwrite.
func gradient(s isa, name string, f func(d, v VecVirtual) VecVirtual) {
	two(s, name, "dx", "dy", "y", f)
}

// two is gradient for parameters of any name.
func two(s isa, name, to, from, with string, f func(d, v VecVirtual) VecVirtual) {
	s.function(name)
	dst, x, y := open(to, 4), open(from, 4), open(with, 4)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk(with, s.lanes(4), []stream{dst, x, y}, s.narrow, func(k []*mask) {
		r := f(s.get(x, s.vec(), pick(k, 0)), s.get(y, s.vec(), pick(k, 0)))
		s.quiet32(r, nan, t)
		s.store(r, dst.mem(), pick(k, 0), 4)
	})
	finish()
}

func times(s isa) {
	two(s, "multiply", "dst", "x", "y", func(d, v VecVirtual) VecVirtual {
		VMULPS(v, d, d)
		return d
	})
}

func sigmoidGrad(s isa) {
	gradient(s, "sigmoidGrad", func(d, v VecVirtual) VecVirtual {
		VMULPS(v, d, d)
		VSUBPS(v, s.ones(), v)
		VMULPS(v, d, d)
		return d
	})
}

func tanhGrad(s isa) {
	gradient(s, "tanhGrad", func(d, v VecVirtual) VecVirtual {
		VMULPS(v, v, v)
		VSUBPS(v, s.ones(), v)
		VMULPS(v, d, d)
		return d
	})
}

// ones returns a vector of 1 in float32.
func (s isa) ones() VecVirtual { return all32bits(s.vec(), one32) }

func eluGrad(s isa) {
	gradient(s, "eluGrad", func(d, v VecVirtual) VecVirtual {
		low := s.vec()
		VADDPS(s.ones(), v, low)
		VMULPS(low, d, low)
		s.wherePositive(v, d, low)
		return low
	})
}

// wherePositive replaces into by from where v > 0.
func (s isa) wherePositive(v, from, into VecVirtual) {
	zero := s.zero()
	if s.wide {
		k := K()
		VCMPPS(greater, zero, v, k)
		VMOVAPS(from, k, into)
		return
	}
	VCMPPS(greater, zero, v, zero)
	VBLENDVPS(zero, from, into, into)
}

// leaky scales x where y is not above 0.
func leaky(s isa) {
	s.function("leaky")
	dst, x, y := open("dst", 4), open("x", 4), open("y", 4)
	slope, nan, t := s.vec(), all32bits(s.vec(), nan32), s.vec()
	VBROADCASTSS(address(Param("slope")), slope)
	walk("x", s.lanes(4), []stream{dst, x, y}, s.narrow, func(k []*mask) {
		v, low := s.get(x, s.vec(), pick(k, 0)), s.vec()
		VMULPS(slope, v, low)
		s.wherePositive(s.get(y, s.vec(), pick(k, 0)), v, low)
		s.quiet32(low, nan, t)
		s.store(low, dst.mem(), pick(k, 0), 4)
	})
	finish()
}

// sumLanes adds x to sixteen lanes.
func sumLanes(s isa) {
	s.function("sumLanes")
	x := open("x", 4)
	n := Load(Param("x").Len(), GP64()).(GPVirtual)
	var sums []VecVirtual
	for i := range 16 / s.lanes(4) {
		sums = append(sums, s.vec())
		VMOVUPS(address(Param("l").Index(i*s.lanes(4))), sums[i])
	}
	repeat("loop", n, 16, []stream{x}, func([]*mask) {
		for i, v := range sums {
			VADDPS(x.at(i*s.lanes(4)), v, v)
		}
	})
	for i, v := range sums {
		VMOVUPS(v, address(ReturnIndex(0).Index(i*s.lanes(4))))
	}
	finish()
}

// maxKey returns the greatest of x, of which there are whole sixteens, as integers
// that are ordered as the numbers are, with -0 below +0 and NaN above all.
func maxKey(s isa) {
	s.function("maxKey")
	x := open("x", 4)
	n := Load(Param("x").Len(), GP64()).(GPVirtual)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	abs := all32bits(s.vec(), 0x7fffffff)
	var top []VecVirtual
	for range 16 / s.lanes(4) {
		top = append(top, all32bits(s.vec(), 0x80000000))
	}
	repeat("loop", n, 16, []stream{x}, func([]*mask) {
		for i, m := range top {
			v, sign := s.vec(), s.vec()
			VMOVUPS(x.at(i*s.lanes(4)), v)
			s.quiet32(v, nan, t)
			VPSRAD(U8(31), v, sign)
			VANDPS(abs, sign, sign)
			VXORPS(sign, v, v)
			VPMAXSD(v, m, m)
		}
	})
	for _, m := range top[1:] {
		VPMAXSD(m, top[0], top[0])
	}
	r := GP32()
	VMOVD(s.fold(top[0], 4, func(from, into VecVirtual) { VPMAXSD(from, into, into) }), r)
	Store(r, ReturnIndex(0))
	finish()
}
