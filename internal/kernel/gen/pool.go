package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

const (
	notLE   = U8(6) // the first written is not less or equal, or unordered
	equal   = U8(0)
	ordered = U8(7)
)

// maxTap replaces m by x, and arg by index, where x is greater or the first NaN.
func maxTap(s isa) {
	s.function("maxTap")
	m, arg, x := open("m", 4), open("arg", 4), open("x", 4)
	index := s.vec()
	VBROADCASTSS(address(Param("index")), index)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk("x", s.lanes(4), []stream{m, arg, x}, s.narrow, func(k []*mask) {
		old, at, v := s.vec(), s.vec(), s.vec()
		s.load(m.mem(), old, pick(k, 0), 4)
		s.load(arg.mem(), at, pick(k, 0), 4)
		s.load(x.mem(), v, pick(k, 0), 4)
		s.quiet32(v, nan, t)
		if s.wide {
			known, take := K(), K()
			VCMPPS(ordered, old, old, known)
			VCMPPS(notLE, old, v, known, take) // v against old, where old is a number
			VMOVAPS(v, take, old)
			VMOVAPS(index, take, at)
		} else {
			known, take := s.vec(), s.vec()
			VCMPPS(ordered, old, old, known)
			VCMPPS(notLE, old, v, take)
			VANDPS(known, take, take)
			VBLENDVPS(take, v, old, old)
			VBLENDVPS(take, index, at, at)
		}
		s.store(old, m.mem(), pick(k, 0), 4)
		s.store(at, arg.mem(), pick(k, 0), 4)
	})
	finish()
}

// addTap adds dy to dx where arg is index, and +0 elsewhere.
func addTap(s isa) {
	s.function("addTap")
	dx, dy, arg := open("dx", 4), open("dy", 4), open("arg", 4)
	index := s.vec()
	VBROADCASTSS(address(Param("index")), index)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk("dy", s.lanes(4), []stream{dx, dy, arg}, s.narrow, func(k []*mask) {
		sum, d, at := s.vec(), s.vec(), s.vec()
		s.load(dx.mem(), sum, pick(k, 0), 4)
		s.load(dy.mem(), d, pick(k, 0), 4)
		s.load(arg.mem(), at, pick(k, 0), 4)
		if s.wide {
			here := K()
			VCMPPS(equal, index, at, here)
			VMOVAPS_Z(d, here, d)
		} else {
			VCMPPS(equal, index, at, at)
			VANDPS(at, d, d)
		}
		VADDPS(d, sum, sum)
		s.quiet32(sum, nan, t)
		s.store(sum, dx.mem(), pick(k, 0), 4)
	})
	finish()
}
