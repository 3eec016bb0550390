package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The constants of kernel/explog.go.
const (
	log2e      = 0x1.71547652b82fep+0
	ln2Hi      = 0x1.62e42fefa38p-1
	ln2Lo      = 0x1.ef35793c7673p-45
	roundMagic = 0x1.8p52
	expLimit   = 105
	tanhLimit  = 16
	signBit    = 1 << 63
)

// expCoeff are 1/10! down to 1/1!.
var expCoeff = [10]float64{
	1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 1.0 / 2, 1,
}

// through writes a function of one float32 that computes in float64.
func through(s isa, name string, f func(x VecVirtual)) {
	s.function(name)
	dst, x := open("dst", 4), open("x", 4)
	nan, t := all32bits(s.half(), nan32), s.half()
	masks := func(n GPVirtual) []*mask {
		return []*mask{s.maskFor(n, 4, true)}
	}
	walk("x", s.lanes(8), []stream{dst, x}, masks, func(k []*mask) {
		narrow, wide := s.half(), s.vec()
		s.load(x.mem(), narrow, pick(k, 0), 4)
		VCVTPS2PD(narrow, wide)
		f(wide)
		if s.wide {
			VCVTPD2PS(wide, narrow)
		} else {
			VCVTPD2PSY(wide, narrow)
		}
		s.quiet32(narrow, nan, t)
		s.store(narrow, dst.mem(), pick(k, 0), 4)
	})
	finish()
}

func exp(s isa) {
	through(s, "exp", func(x VecVirtual) { exp64(s, x) })
}

// exp64 replaces x by e^x.
func exp64(s isa, x VecVirtual) {
	// The bound comes first, so that NaN, the second, is what is left.
	VMINPD(x, all64(s.vec(), expLimit), x)
	VMAXPD(x, all64(s.vec(), -expLimit), x)
	q, two := expm1Parts(s, x)
	VMULPD(two, q, q)
	VADDPD(two, q, x)
}

func tanh(s isa) {
	through(s, "tanh", func(x VecVirtual) { tanh64(s, x) })
}

// tanh64 replaces x by its hyperbolic tangent.
func tanh64(s isa, x VecVirtual) {
	sign := all64bits(s.vec(), signBit)
	a := s.vec()
	VANDNPD(x, sign, a)
	VANDPD(x, sign, sign)
	VMINPD(a, all64(s.vec(), tanhLimit), a)
	VADDPD(a, a, a)
	q, two := expm1Parts(s, a)
	VMULPD(two, q, q)
	VSUBPD(all64(s.vec(), 1), two, two)
	VADDPD(two, q, q)
	VADDPD(all64(s.vec(), 2), q, two)
	VDIVPD(two, q, q)
	VORPD(sign, q, x)
}

func sigmoid(s isa) {
	through(s, "sigmoid", func(x VecVirtual) { sigmoid64(s, x) })
}

// sigmoid64 replaces x by 1/(1+e^-x).
func sigmoid64(s isa, x VecVirtual) {
	VXORPD(all64bits(s.vec(), signBit), x, x)
	exp64(s, x)
	one := all64(s.vec(), 1)
	VADDPD(one, x, x)
	VDIVPD(x, one, x)
}

// expm1Parts returns q and two with e^x = two*(q+1), as the Go function does.
func expm1Parts(s isa, x VecVirtual) (q, two VecVirtual) {
	q, two = s.vec(), s.vec()
	magic, k, t := all64(s.vec(), roundMagic), s.vec(), s.vec()
	VMULPD(all64(s.vec(), log2e), x, two)
	VADDPD(magic, two, two)
	VSUBPD(magic, two, k)
	VPADDQ(all64bits(s.vec(), 1023), two, two)
	VPSLLQ(U8(52), two, two)
	r := s.vec()
	VMULPD(all64(s.vec(), ln2Hi), k, t)
	VSUBPD(t, x, r)
	VMULPD(all64(s.vec(), ln2Lo), k, t)
	VSUBPD(t, r, r)
	all64(q, expCoeff[0])
	for _, c := range expCoeff[1:] {
		VMULPD(r, q, q)
		VADDPD(all64(s.vec(), c), q, q)
	}
	VMULPD(r, q, q)
	return q, two
}
