package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	notLE   = U8(6) // the first written is not less or equal, or unordered
	equal   = U8(0)
	ordered = U8(7)
)

// strip is a function over the windows of neighbouring pixels: see pooling in
// package kernel.
type strip struct {
	s    isa
	w    gotypes.Component
	name string // prefix of labels

	x, y, arg GPVirtual // at the channels at hand
	step      GPVirtual // bytes between the elements of a window
	jump      GPVirtual // and from the end of its row to the next one
	mask      *mask
}

// pools writes a function that takes a strip pixel by pixel, and of each pixel a
// register of channels at a time. turn writes what happens to these.
func pools(s isa, name string, turn func(p strip)) {
	s.function(name)
	p := strip{s: s, w: Param("w")}
	bytes := func(field string) GPVirtual {
		r := GP64()
		Load(p.w.Field(field), r)
		SHLQ(U8(2), r)
		return r
	}
	x, y, arg, pixels := GP64(), GP64(), GP64(), GP64()
	Load(p.w.Field("x").Base(), x)
	Load(p.w.Field("y").Base(), y)
	Load(p.w.Field("arg").Base(), arg)
	Load(p.w.Field("pixels"), pixels)
	p.step, p.jump = bytes("pixel"), bytes("jump")
	p.x, p.y, p.arg = GP64(), GP64(), GP64()
	n := GP64()

	Label("pixel")
	MOVQ(x, p.x)
	MOVQ(y, p.y)
	MOVQ(arg, p.arg)
	Load(p.w.Field("c"), n)
	Label("loop")
	CMPQ(n, U32(uint32(s.lanes(4))))
	JL(LabelRef("tail"))
	turn(p)
	for _, at := range []GPVirtual{p.x, p.y, p.arg} {
		ADDQ(U32(uint32(4*s.lanes(4))), at)
	}
	SUBQ(U32(uint32(s.lanes(4))), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("next"))
	p.name, p.mask = "tail", s.maskFor(n, 4, false)
	turn(p)
	Label("next")
	for _, a := range []struct {
		at GPVirtual
		by string
	}{{x, "step"}, {y, "to"}, {arg, "to"}} {
		t := GP64()
		Load(p.w.Field(a.by), t)
		LEAQ(Mem{Base: a.at, Index: t, Scale: 4}, a.at)
	}
	DECQ(pixels)
	JNZ(LabelRef("pixel"))
	finish()
}

// taps writes the loop over the elements of a window, row by row.
func (p strip) taps(tap func(at Mem), rowEnd func()) {
	at, rows, cols := GP64(), GP64(), GP64()
	MOVQ(p.x, at)
	Load(p.w.Field("kh"), rows)
	Label(p.name + "row")
	Load(p.w.Field("kw"), cols)
	Label(p.name + "tap")
	tap(Mem{Base: at})
	ADDQ(p.step, at)
	DECQ(cols)
	JNZ(LabelRef(p.name + "tap"))
	rowEnd()
	ADDQ(p.jump, at)
	DECQ(rows)
	JNZ(LabelRef(p.name + "row"))
}

// all returns a register with a field of the strip in every lane.
func (p strip) all(field string) VecVirtual {
	v := p.s.vec()
	VBROADCASTSS(address(p.w.Field(field)), v)
	return v
}

// unlessLoading writes code that runs if what is there already doesn't count.
func (p strip) unlessLoading(label string, fresh, old func()) {
	CMPQ(address(p.w.Field("load")), U8(0))
	JNE(LabelRef(p.name + label + "old"))
	fresh()
	JMP(LabelRef(p.name + label))
	Label(p.name + label + "old")
	old()
	Label(p.name + label)
}

// poolMax keeps the greatest element, and its index, in registers.
func poolMax(s isa) {
	pools(s, "poolMax", func(p strip) {
		m, at := s.vec(), s.vec()
		p.unlessLoading("begin", func() {
			s.load(Mem{Base: p.x}, m, p.mask, 4)
			VBROADCASTSS(address(p.w.Field("first")), at)
		}, func() {
			s.load(Mem{Base: p.y}, m, p.mask, 4)
			s.load(Mem{Base: p.arg}, at, p.mask, 4)
		})
		index, one, skip := p.all("first"), all32bits(s.vec(), 0x3f800000), p.all("skip")
		p.taps(func(x Mem) {
			v := s.vec()
			s.load(x, v, p.mask, 4)
			if s.wide {
				known, take := K(), K()
				VCMPPS(ordered, m, m, known)
				VCMPPS(notLE, m, v, known, take) // v against m, where m is a number
				VMOVAPS(v, take, m)
				VMOVAPS(index, take, at)
			} else {
				known, take := s.vec(), s.vec()
				VCMPPS(ordered, m, m, known)
				VCMPPS(notLE, m, v, take)
				VANDPS(known, take, take)
				VBLENDVPS(take, v, m, m)
				VBLENDVPS(take, index, at, at)
			}
			VADDPS(one, index, index)
		}, func() { VADDPS(skip, index, index) })
		s.quiet32(m, all32bits(s.vec(), nan32), s.vec())
		s.store(m, Mem{Base: p.y}, p.mask, 4)
		s.store(at, Mem{Base: p.arg}, p.mask, 4)
	})
}

// poolMaxGrad hands dy to the element that arg names, +0 to the others.
func poolMaxGrad(s isa) {
	pools(s, "poolMaxGrad", func(p strip) {
		d, at := s.vec(), s.vec()
		s.load(Mem{Base: p.y}, d, p.mask, 4)
		s.load(Mem{Base: p.arg}, at, p.mask, 4)
		index, one, skip := p.all("first"), all32bits(s.vec(), 0x3f800000), p.all("skip")
		nan, t := all32bits(s.vec(), nan32), s.vec()
		p.taps(func(x Mem) {
			v, sum := s.vec(), s.vec()
			if s.wide {
				here := K()
				VCMPPS(equal, index, at, here)
				VMOVAPS_Z(d, here, v)
			} else {
				VCMPPS(equal, index, at, v)
				VANDPS(v, d, v)
			}
			VXORPS(sum, sum, sum)
			p.unlessLoading("tapped", func() {}, func() { s.load(x, sum, p.mask, 4) })
			VADDPS(v, sum, sum)
			s.quiet32(sum, nan, t)
			s.store(sum, x, p.mask, 4)
			VADDPS(one, index, index)
		}, func() { VADDPS(skip, index, index) })
	})
}

// poolAverage adds up a window and divides by n.
func poolAverage(s isa) {
	pools(s, "poolAverage", func(p strip) {
		sum := s.vec()
		VXORPS(sum, sum, sum)
		p.unlessLoading("begin", func() {}, func() { s.load(Mem{Base: p.y}, sum, p.mask, 4) })
		p.taps(func(x Mem) {
			v := s.vec()
			s.load(x, v, p.mask, 4)
			VADDPS(v, sum, sum)
		}, func() {})
		VDIVPS(p.all("n"), sum, sum)
		s.quiet32(sum, all32bits(s.vec(), nan32), s.vec())
		s.store(sum, Mem{Base: p.y}, p.mask, 4)
	})
}

// poolAverageGrad hands dy/n to every element of the window.
func poolAverageGrad(s isa) {
	pools(s, "poolAverageGrad", func(p strip) {
		d := s.vec()
		s.load(Mem{Base: p.y}, d, p.mask, 4)
		VDIVPS(p.all("n"), d, d)
		nan, t := all32bits(s.vec(), nan32), s.vec()
		p.taps(func(x Mem) {
			sum := s.vec()
			VXORPS(sum, sum, sum)
			p.unlessLoading("tapped", func() {}, func() { s.load(x, sum, p.mask, 4) })
			VADDPS(d, sum, sum)
			s.quiet32(sum, nan, t)
			s.store(sum, x, p.mask, 4)
		}, func() {})
	})
}
