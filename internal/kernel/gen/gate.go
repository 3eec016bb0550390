package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The constants of kernel/gate.go.
const (
	gateMagic     = 0x1.8p23 + 127
	gateLog2e     = 0x1.715476p+0
	gateLn2Hi     = 0x1.62e43p-1
	gateLn2Lo     = -0x1.05c61p-29
	sigmoidLimit  = 87
	gateTanhLimit = 10
	signBit32     = 1 << 31
)

var gateCoeff = [5]float32{0x1.6e59d2p-10, 0x1.12347p-7, 0x1.555446p-5, 0x1.5554ap-3, 0.5}

// all32 returns a new register with x in every lane.
func (s isa) all32(x float32) VecVirtual { return all32bits(s.vec(), math.Float32bits(x)) }

// gates replaces each x by its sigmoid and each y by its hyperbolic tangent, all in
// turns, as kernel/gate.go does.
func (s isa) gates(x, y []VecVirtual) {
	keep, signs := make([]Register, len(x)), make([]VecVirtual, len(y))
	for i, v := range x {
		keep[i] = s.notBelow(v, s.all32(-sigmoidLimit))
		VMINPS(v, s.all32(sigmoidLimit), v)
		VXORPS(all32bits(s.vec(), signBit32), v, v)
	}
	for i, v := range y {
		sign := all32bits(s.vec(), signBit32)
		a := s.vec()
		VANDNPS(v, sign, a)
		VANDPS(v, sign, sign)
		VMINPS(a, s.all32(gateTanhLimit), a)
		VADDPS(a, a, v)
		signs[i] = sign
	}
	q, two := s.gateParts(append(append([]VecVirtual(nil), x...), y...))
	for i, v := range x {
		one := s.ones()
		VFMADD213PS(one, two[i], q[i])
		VADDPS(two[i], q[i], q[i])
		s.quotient(one, q[i], v, keep[i])
		s.quiet32(v, all32bits(s.vec(), nan32), s.vec())
	}
	for i, v := range y {
		s.tanhOf(q[len(x)+i], two[len(x)+i], v)
		VORPS(signs[i], v, v)
		s.quiet32(v, all32bits(s.vec(), nan32), s.vec())
	}
}

// tanhOf leaves in y what tanh makes of q and two.
func (s isa) tanhOf(q, two, y VecVirtual) {
	one := s.ones()
	VSUBPS(one, two, y)
	VFMADD213PS(y, two, q)
	VADDPS(s.all32(2), q, y)
	VDIVPS(y, q, y)
	half := two
	VMULPS(s.all32(0.5), q, half)
	const less = U8(1)
	if s.wide {
		k := K()
		VCMPPS(less, one, q, k)
		VFNMADD213PS(half, half, k, y)
		return
	}
	VCMPPS(less, one, q, q)
	VFNMADD231PS(y, half, half)
	VBLENDVPS(q, half, y, y)
}

// notBelow returns a mask of the lanes in which x is not less than limit.
func (s isa) notBelow(x, limit VecVirtual) Register {
	const notLess = U8(5)
	if s.wide {
		k := K()
		VCMPPS(notLess, limit, x, k)
		return k
	}
	VCMPPS(notLess, limit, x, limit)
	return limit
}

// quotient sets y to a/b in the lanes of a mask, and to +0 elsewhere.
func (s isa) quotient(a, b, y VecVirtual, keep Register) {
	if s.wide {
		VDIVPS_Z(b, a, keep, y)
		return
	}
	VDIVPS(b, a, y)
	VANDPS(keep, y, y)
}

// gateParts returns q and two with e^x = two*(q+1) for each x, which it overwrites.
func (s isa) gateParts(x []VecVirtual) (q, two []VecVirtual) {
	for _, r := range x {
		magic, k := s.all32(gateMagic), s.vec()
		t := s.all32(gateMagic)
		VFMADD231PS(s.all32(gateLog2e), r, t)
		VSUBPS(magic, t, k)
		VPSLLD(U8(23), t, t)
		VFNMADD231PS(s.all32(gateLn2Hi), k, r)
		VFNMADD231PS(s.all32(gateLn2Lo), k, r)
		q, two = append(q, s.all32(gateCoeff[0])), append(two, t)
	}
	for _, c := range gateCoeff[1:] {
		next := s.all32(c)
		for i, p := range q {
			VFMADD213PS(next, x[i], p)
		}
	}
	for i, p := range q {
		VMULPS(x[i], p, p)
		VFMADD213PS(x[i], x[i], p)
	}
	return q, two
}
