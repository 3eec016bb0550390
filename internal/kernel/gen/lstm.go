package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

func lstmForward(s isa) {
	s.function("lstmForward")
	i, f, g, o := open("i", 4), open("f", 4), open("g", 4), open("o", 4)
	c, next, squashed, h := open("c", 4), open("next", 4), open("squashed", 4), open("h", 4)
	nan, t := all32bits(s.half(), nan32), s.half()
	masks := func(n GPVirtual) []*mask { return []*mask{s.maskFor(n, 4, true)} }
	walk("c", s.lanes(8), []stream{i, f, g, o, c, next, squashed, h}, masks, func(k []*mask) {
		put := func(x VecVirtual, at stream) {
			s.quiet32(x, nan, t)
			s.store(x, at.mem(), pick(k, 0), 4)
		}
		through := func(x VecVirtual, f func(isa, VecVirtual), at stream) {
			wide := s.vec()
			VCVTPS2PD(x, wide)
			f(s, wide)
			if s.wide {
				VCVTPD2PS(wide, x)
			} else {
				VCVTPD2PSY(wide, x)
			}
			put(x, at)
		}
		gate := func(at stream, f func(isa, VecVirtual)) VecVirtual {
			x := s.half()
			s.load(at.mem(), x, pick(k, 0), 4)
			through(x, f, at)
			return x
		}
		gi, gg := gate(i, sigmoid64), gate(g, tanh64)
		VMULPS(gg, gi, gi)
		cell, forget := s.half(), gate(f, sigmoid64)
		s.load(c.mem(), cell, pick(k, 0), 4)
		VMULPS(forget, cell, cell)
		VADDPS(gi, cell, cell)
		put(cell, next)
		through(cell, tanh64, squashed)
		out := gate(o, sigmoid64)
		VMULPS(cell, out, out)
		put(out, h)
	})
	finish()
}

func lstmBackward(s isa) {
	s.function("lstmBackward")
	i, f, g, o := open("i", 4), open("f", 4), open("g", 4), open("o", 4)
	c, squashed, dh, dc := open("c", 4), open("squashed", 4), open("dh", 4), open("dc", 4)
	nan, t, one := all32bits(s.vec(), nan32), s.vec(), all32bits(s.vec(), 0x3f800000)
	walk("c", s.lanes(4), []stream{i, f, g, o, c, squashed, dh, dc}, s.narrow, func(k []*mask) {
		get := func(at stream) VecVirtual {
			x := s.vec()
			s.load(at.mem(), x, pick(k, 0), 4)
			return x
		}
		put := func(x VecVirtual, at stream) {
			s.quiet32(x, nan, t)
			s.store(x, at.mem(), pick(k, 0), 4)
		}
		// product returns x*y.
		product := func(x, y VecVirtual) VecVirtual {
			z := s.vec()
			VMULPS(y, x, z)
			return z
		}
		// throughSigmoid replaces d by (d*y)*(1-y), throughTanh by d*(1-y*y).
		throughSigmoid := func(d, y VecVirtual) {
			rest := s.vec()
			VSUBPS(y, one, rest)
			VMULPS(y, d, d)
			VMULPS(rest, d, d)
		}
		throughTanh := func(d, y VecVirtual) {
			rest := product(y, y)
			VSUBPS(rest, one, rest)
			VMULPS(rest, d, d)
		}
		d, out, tc := get(dh), get(o), get(squashed)
		dout := product(d, tc)
		VMULPS(out, d, d)
		throughTanh(d, tc)
		throughSigmoid(dout, out)
		put(dout, o)
		old := get(dc)
		VADDPS(d, old, d)

		gi, gg := get(i), get(g)
		di, dg := product(d, gg), product(d, gi)
		throughSigmoid(di, gi)
		put(di, i)
		throughTanh(dg, gg)
		put(dg, g)

		forget := get(f)
		df := product(d, get(c))
		throughSigmoid(df, forget)
		put(df, f)
		VMULPS(forget, d, d)
		put(d, dc)
	})
	finish()
}
