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

// through writes a function of one float32 that computes in float64. f replaces
// each vector of x by its result. It writes the instructions of several vectors in
// turns where they wait for each other: one polynomial is a long chain, and what
// the CPU looks ahead is not long enough for another.
func through(s isa, name string, f func(s isa, x []VecVirtual)) {
	s.function(name)
	dst, x := open("dst", 4), open("x", 4)
	s.chained(x, []stream{dst, x}, "x", func(wide []VecVirtual, k *mask) {
		f(s, wide)
		s.put(wide, dst, k)
	})
}

// slopes writes a function of dy and x: dy times what f replaces x by.
func slopes(s isa, name string, f func(s isa, x []VecVirtual)) {
	s.function(name)
	dx, dy, x := open("dx", 4), open("dy", 4), open("x", 4)
	s.chained(x, []stream{dx, dy, x}, "x", func(wide []VecVirtual, k *mask) {
		f(s, wide)
		for i, v := range wide {
			VMULPD(s.widened(s.get(dy.from(i*s.lanes(8)), s.half(), k)), v, v)
		}
		s.put(wide, dx, k)
	})
}

// put rounds vectors to float32 and stores them one behind the other.
func (s isa) put(wide []VecVirtual, to stream, k *mask) {
	for i, v := range wide {
		s.store(s.narrowed(v), to.at(i*s.lanes(8)), k, 4)
	}
}

// widened returns x as float64.
func (s isa) widened(x VecVirtual) VecVirtual {
	wide := s.vec()
	VCVTPS2PD(x, wide)
	return wide
}

// narrowed returns x as float32 without NaN but the one.
func (s isa) narrowed(x VecVirtual) VecVirtual {
	y := s.half()
	s.toFloat32(x, y)
	s.quiet32(y, all32bits(s.half(), nan32), s.half())
	return y
}

// chained is walk for functions that compute in float64 from x: several vectors in
// a turn, then one by one.
func (s isa) chained(x stream, streams []stream, count string, f func(wide []VecVirtual, k *mask)) {
	turn := func(vectors int) func(k []*mask) {
		return func(k []*mask) {
			wide := make([]VecVirtual, vectors)
			for i := range wide {
				wide[i] = s.widened(s.get(x.from(i*s.lanes(8)), s.half(), pick(k, 0)))
			}
			f(wide, pick(k, 0))
		}
	}
	n := Load(Param(count).Len(), GP64()).(GPVirtual)
	repeat("many", n, s.chains()*s.lanes(8), streams, turn(s.chains()))
	repeat("one", n, s.lanes(8), streams, turn(1))
	rest(n, s.halfMask, turn(1))
	finish()
}

// chains is how many vectors are taken at once: as many as registers allow.
func (s isa) chains() int {
	if s.wide {
		return 4
	}
	return 2
}

// halfMask is the mask of float32 in half registers.
func (s isa) halfMask(n GPVirtual) []*mask { return []*mask{s.maskFor(n, 4, true)} }

// exp64 replaces each x by e^x.
func exp64(s isa, x []VecVirtual) {
	s.clamp(x, expLimit)
	q, two := expm1Parts(s, x)
	for i, v := range x {
		VMULPD(two[i], q[i], q[i])
		VADDPD(two[i], q[i], v)
	}
}

// tanh64 replaces each x by its hyperbolic tangent.
func tanh64(s isa, x []VecVirtual) { s.activate(nil, x) }

// sigmoid64 replaces each x by 1/(1+e^-x).
func sigmoid64(s isa, x []VecVirtual) { s.activate(x, nil) }

// activate replaces each x by 1/(1+e^-x) and each y by its hyperbolic tangent, all
// in turns.
func (s isa) activate(x, y []VecVirtual) {
	for _, v := range x {
		VXORPD(all64bits(s.vec(), signBit), v, v)
	}
	s.clamp(x, expLimit)
	signs := make([]VecVirtual, len(y))
	for i, v := range y {
		sign, a := all64bits(s.vec(), signBit), s.vec()
		VANDNPD(v, sign, a)
		VANDPD(v, sign, sign)
		VMINPD(a, all64(s.vec(), tanhLimit), a)
		VADDPD(a, a, v)
		signs[i] = sign
	}
	qs, twos := expm1Parts(s, append(append([]VecVirtual(nil), x...), y...))
	for i, v := range x {
		one := all64(s.vec(), 1)
		VMULPD(twos[i], qs[i], qs[i])
		VADDPD(twos[i], qs[i], v)
		VADDPD(one, v, v)
		VDIVPD(v, one, v)
	}
	for i, v := range y {
		q, two := qs[len(x)+i], twos[len(x)+i]
		VMULPD(two, q, q)
		VSUBPD(all64(s.vec(), 1), two, two)
		VADDPD(two, q, q)
		VADDPD(all64(s.vec(), 2), q, two)
		VDIVPD(two, q, q)
		VORPD(signs[i], q, v)
	}
}

// expm1Parts returns q and two with e^x = two*(q+1) for each x, as the Go function
// does. It overwrites x.
func expm1Parts(s isa, x []VecVirtual) (q, two []VecVirtual) {
	for _, r := range x {
		magic, k, t, p := all64(s.vec(), roundMagic), s.vec(), s.vec(), s.vec()
		VMULPD(all64(s.vec(), log2e), r, p)
		VADDPD(magic, p, p)
		VSUBPD(magic, p, k)
		VPADDQ(all64bits(s.vec(), 1023), p, p)
		VPSLLQ(U8(52), p, p)
		VMULPD(all64(s.vec(), ln2Hi), k, t)
		VSUBPD(t, r, r)
		VMULPD(all64(s.vec(), ln2Lo), k, t)
		VSUBPD(t, r, r)
		two = append(two, p)
	}
	return s.horner(x, expCoeff[:]), two
}

// horner returns (((c[0]*r + c[1])*r + ...) + c[n-1])*r for each r.
func (s isa) horner(r []VecVirtual, c []float64) []VecVirtual {
	q := s.poly(r, c)
	for i := range q {
		VMULPD(r[i], q[i], q[i])
	}
	return q
}

// poly returns ((c[0]*r + c[1])*r + ...) + c[n-1] for each r.
func (s isa) poly(r []VecVirtual, c []float64) []VecVirtual {
	q := make([]VecVirtual, len(r))
	for i := range q {
		q[i] = all64(s.vec(), c[0])
	}
	for _, c := range c[1:] {
		for i := range q {
			VMULPD(r[i], q[i], q[i])
		}
		next := all64(s.vec(), c)
		for i := range q {
			VADDPD(next, q[i], q[i])
		}
	}
	return q
}
