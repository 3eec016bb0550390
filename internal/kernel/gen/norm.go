package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// sumRows adds rows of x to dst, whose elements stay in registers meanwhile: four
// of them side by side where there are as many.
func sumRows(s isa) {
	s.function("sumRows")
	dst, x := open("dst", 4), open("x", 4)
	rows, stride := Load(Param("rows"), GP64()).(GPVirtual), Load(Param("stride"), GP64()).(GPVirtual)
	SHLQ(U8(2), stride)
	n := Load(Param("dst").Len(), GP64()).(GPVirtual)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	lanes := s.lanes(4)
	group := func(name string, vecs int, k *mask) {
		at := func(base Register, v int) Mem { return Mem{Base: base, Disp: v * 4 * lanes} }
		sum, p, left := make([]VecVirtual, vecs), GP64(), GP64()
		for v := range sum {
			sum[v] = s.vec()
			s.load(at(dst.ptr, v), sum[v], k, 4)
		}
		MOVQ(x.ptr, p)
		MOVQ(rows, left)
		Label(name + "row")
		for v := range sum {
			y := s.vec()
			s.load(at(p, v), y, k, 4)
			VADDPS(y, sum[v], sum[v])
		}
		ADDQ(stride, p)
		DECQ(left)
		JNZ(LabelRef(name + "row"))
		for v := range sum {
			s.quiet32(sum[v], nan, t)
			s.store(sum[v], at(dst.ptr, v), k, 4)
		}
	}
	for _, g := range []struct {
		name, next string
		vecs       int
	}{{"four", "two", 4}, {"two", "one", 2}, {"one", "tail", 1}} {
		Label(g.name)
		CMPQ(n, U32(uint32(g.vecs*lanes)))
		JL(LabelRef(g.next))
		group(g.name, g.vecs, nil)
		ADDQ(U32(uint32(4*g.vecs*lanes)), dst.ptr)
		ADDQ(U32(uint32(4*g.vecs*lanes)), x.ptr)
		SUBQ(U32(uint32(g.vecs*lanes)), n)
		JMP(LabelRef(g.name))
	}
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	group("tail", 1, s.maskFor(n, 4, false))
	Label("done")
	finish()
}

// grid writes loops over the rows of matrices, unit elements at a time; the other
// vectors have an element for each column, as many as the slice named by count.
func grid(s isa, count string, unit int, masks func(n GPVirtual) []*mask, matrices, columns []stream, turn func(k []*mask, columns []stream)) {
	rows := Load(Param("rows"), GP64()).(GPVirtual)
	at := make([]stream, len(columns))
	for i, c := range columns {
		at[i] = stream{ptr: GP64(), size: c.size}
	}
	Label("row")
	for i, c := range columns {
		MOVQ(c.ptr, at[i].ptr)
	}
	n := Load(Param(count).Len(), GP64()).(GPVirtual)
	Label("loop")
	CMPQ(n, U32(uint32(unit)))
	JL(LabelRef("tail"))
	turn(nil, at)
	for _, x := range append(at, matrices...) {
		ADDQ(U32(uint32(unit*x.size)), x.ptr)
	}
	SUBQ(U32(uint32(unit)), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("next"))
	turn(masks(n), at)
	for _, x := range matrices {
		LEAQ(Mem{Base: x.ptr, Index: n, Scale: uint8(x.size)}, x.ptr)
	}
	Label("next")
	DECQ(rows)
	JNZ(LabelRef("row"))
	finish()
}

// columns is grid for float32, with float64 for each column.
func (s isa) columns(matrices, columns []stream, turn func(k []*mask, columns []stream)) {
	grid(s, "mean", s.lanes(8), s.mixed, matrices, columns, turn)
}

// element returns float32 read from memory, as float64.
func (s isa) element(x stream, k []*mask) VecVirtual {
	return s.widened(s.get(x, s.half(), pick(k, 0)))
}

// column returns float64 read from memory.
func (s isa) column(x stream, k []*mask) VecVirtual {
	v := s.vec()
	s.load(x.mem(), v, pick(k, 1), 8)
	return v
}

func normSums(s isa) {
	s.function("normSums")
	sum, square, x, mean := open("sum", 8), open("square", 8), open("x", 4), open("mean", 8)
	s.columns([]stream{x}, []stream{sum, square, mean}, func(k []*mask, at []stream) {
		d := s.element(x, k)
		VSUBPD(s.column(at[2], k), d, d)
		a, b := s.column(at[0], k), s.column(at[1], k)
		VADDPD(d, a, a)
		VMULPD(d, d, d)
		VADDPD(d, b, b)
		s.store(a, at[0].mem(), pick(k, 1), 8)
		s.store(b, at[1].mem(), pick(k, 1), 8)
	})
}

func normApply(s isa) {
	s.function("normApply")
	y, x, mean, scale, shift := open("y", 4), open("x", 4), open("mean", 8), open("scale", 8), open("shift", 8)
	s.columns([]stream{y, x}, []stream{mean, scale, shift}, func(k []*mask, at []stream) {
		d := s.element(x, k)
		VSUBPD(s.column(at[0], k), d, d)
		VMULPD(s.column(at[1], k), d, d)
		VADDPD(s.column(at[2], k), d, d)
		s.store(s.narrowed(d), y.mem(), pick(k, 0), 4)
	})
}

func normGradSums(s isa) {
	s.function("normGradSums")
	sum, along, dy, x, mean := open("sum", 8), open("along", 8), open("dy", 4), open("x", 4), open("mean", 8)
	s.columns([]stream{dy, x}, []stream{sum, along, mean}, func(k []*mask, at []stream) {
		g, d := s.element(dy, k), s.element(x, k)
		VSUBPD(s.column(at[2], k), d, d)
		VMULPD(g, d, d)
		a, b := s.column(at[0], k), s.column(at[1], k)
		VADDPD(g, a, a)
		VADDPD(d, b, b)
		s.store(a, at[0].mem(), pick(k, 1), 8)
		s.store(b, at[1].mem(), pick(k, 1), 8)
	})
}

func normGrad(s isa) {
	s.function("normGrad")
	dx, dy, x, mean := open("dx", 4), open("dy", 4), open("x", 4), open("mean", 8)
	p, q, r := open("p", 8), open("q", 8), open("r", 8)
	s.columns([]stream{dx, dy, x}, []stream{mean, p, q, r}, func(k []*mask, at []stream) {
		g, d := s.element(dy, k), s.element(x, k)
		VSUBPD(s.column(at[0], k), d, d)
		VMULPD(s.column(at[1], k), g, g)
		VMULPD(s.column(at[2], k), d, d)
		VADDPD(d, g, g)
		VADDPD(s.column(at[3], k), g, g)
		s.store(s.narrowed(g), dx.mem(), pick(k, 0), 4)
	})
}
