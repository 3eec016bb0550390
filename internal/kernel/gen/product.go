package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// product writes the function that computes one panel. It chooses among bodies
// for every height of a tile and one or two registers of width; a body loops over
// the tiles and, for each, over k:
//
//	       ┌────────┬────────┐
//	k step │ b[p,0] │ b[p,1] │        two loads
//	       └────────┴────────┘
//	 a[0,p] broadcast × both → two sums
//	 a[1,p]  ...                      rows × 2 independent chains
func product(s isa) {
	s.function("product")
	w := Dereference(Param("w"))
	rows, cols := GP64(), GP64()
	Load(w.Field("rows"), rows)
	Load(w.Field("cols"), cols)
	lanes := s.lanes(4)

	CMPQ(cols, U32(uint32(lanes)))
	JG(LabelRef("two"))
	choose(s, "one", rows)
	Label("two")
	SUBQ(U32(uint32(lanes)), cols)
	if !s.wide {
		CMPQ(cols, U32(uint32(lanes)))
		JE(LabelRef("full"))
	}
	choose(s, "both", rows)
	if !s.wide {
		Label("full")
		choose(s, "twofull", rows)
	}
	for r := 1; r <= s.rows; r++ {
		body(s, w, cols, bodyName("one", r), r, 1, true)
		body(s, w, cols, bodyName("both", r), r, 2, true)
		if !s.wide {
			body(s, w, cols, bodyName("twofull", r), r, 2, false)
		}
	}
}

func bodyName(kind string, rows int) string { return fmt.Sprintf("%s%d", kind, rows) }

// choose jumps to the body for a height of tile.
func choose(s isa, kind string, rows GPVirtual) {
	for r := s.rows; r > 1; r-- {
		CMPQ(rows, U32(uint32(r)))
		JE(LabelRef(bodyName(kind, r)))
	}
	JMP(LabelRef(bodyName(kind, 1)))
}

// body writes the loops for tiles of a fixed size. cols counts the columns of the
// last register, to which the mask applies.
func body(s isa, w gotypes.Component, cols GPVirtual, name string, rows, vecs int, masked bool) {
	Label(name)
	var k *mask
	if masked {
		k = s.maskFor(cols, 4, false)
	}
	maskOf := func(v int) *mask {
		if v == vecs-1 {
			return k
		}
		return nil
	}
	stride := func(field string) GPVirtual {
		r := GP64()
		Load(w.Field(field), r)
		SHLQ(U8(2), r)
		return r
	}
	a, c, tiles := GP64(), GP64(), GP64()
	Load(w.Field("a").Base(), a)
	Load(w.Field("c").Base(), c)
	Load(w.Field("tile"), tiles)
	ars, acs, brs, crs := stride("ars"), stride("acs"), stride("brs"), stride("crs")
	at := rowsOf(ars, rows)

	sum := make([]VecVirtual, rows*vecs)
	for i := range sum {
		sum[i] = s.vec()
	}

	Label(name + "tile")
	begin(s, w, c, crs, sum, name, rows, vecs, maskOf)
	pa, pb, n := GP64(), GP64(), GP64()
	MOVQ(a, pa)
	Load(w.Field("b").Base(), pb)
	Load(w.Field("k"), n)

	Label(name + "k")
	b := make([]VecVirtual, vecs)
	for v := range b {
		b[v] = s.vec()
		s.load(Mem{Base: pb, Disp: v * s.lanes(4) * 4}, b[v], maskOf(v), 4)
	}
	for r := range rows {
		multiply(s, at(pa, r), b, sum[r*vecs:])
	}
	ADDQ(acs, pa)
	ADDQ(brs, pb)
	DECQ(n)
	JNZ(LabelRef(name + "k"))

	end(s, c, crs, sum, rows, vecs, maskOf)
	for range rows {
		ADDQ(ars, a)
	}
	DECQ(tiles)
	JNZ(LabelRef(name + "tile"))
	VZEROUPPER()
	RET()
}

// multiply adds the product of one broadcast element and a row of b to the sums
// of a row.
func multiply(s isa, a Mem, b, sum []VecVirtual) {
	if s.wide && len(b) == 1 {
		VFMADD231PS_BCST(a, b[0], sum[0])
		return
	}
	x := s.vec()
	VBROADCASTSS(a, x)
	for v := range b {
		VFMADD231PS(x, b[v], sum[v])
	}
}

// rowsOf returns the address of an element in each row of a tile of a.
func rowsOf(ars GPVirtual, rows int) func(base GPVirtual, r int) Mem {
	times := map[int]GPVirtual{1: ars}
	multiple := func(n int) {
		t := GP64()
		switch n {
		case 3:
			LEAQ(Mem{Base: ars, Index: ars, Scale: 2}, t)
		case 5:
			LEAQ(Mem{Base: ars, Index: ars, Scale: 4}, t)
		case 7:
			LEAQ(Mem{Base: times[3], Index: ars, Scale: 4}, t)
		}
		times[n] = t
	}
	for _, n := range []int{3, 5, 7} {
		if rows > n {
			multiple(n)
		}
	}
	return func(base GPVirtual, r int) Mem {
		if r == 0 {
			return Mem{Base: base}
		}
		scale := uint8(1)
		for r%2 == 0 {
			r /= 2
			scale *= 2
		}
		return Mem{Base: base, Index: times[r], Scale: scale}
	}
}

// begin sets the sums to what c holds, or to +0.
func begin(s isa, w gotypes.Component, c, crs GPVirtual, sum []VecVirtual, name string, rows, vecs int, maskOf func(int) *mask) {
	CMPQ(address(w.Field("load")), U8(0))
	JE(LabelRef(name + "zero"))
	eachRow(c, crs, rows, func(p GPVirtual, r int) {
		for v := range vecs {
			s.load(Mem{Base: p, Disp: v * s.lanes(4) * 4}, sum[r*vecs+v], maskOf(v), 4)
		}
	})
	JMP(LabelRef(name + "go"))
	Label(name + "zero")
	for _, v := range sum {
		VXORPS(v, v, v)
	}
	Label(name + "go")
}

// end stores the sums, with one pattern for NaN, and moves c to the next tile.
func end(s isa, c, crs GPVirtual, sum []VecVirtual, rows, vecs int, maskOf func(int) *mask) {
	nan, t := all32bits(s.vec(), nan32), s.vec()
	for _, v := range sum {
		s.quiet32(v, nan, t)
	}
	for r := range rows {
		for v := range vecs {
			s.store(sum[r*vecs+v], Mem{Base: c, Disp: v * s.lanes(4) * 4}, maskOf(v), 4)
		}
		ADDQ(crs, c)
	}
}

// eachRow calls f with a pointer to each row of a tile.
func eachRow(c, crs GPVirtual, rows int, f func(p GPVirtual, r int)) {
	p := GP64()
	MOVQ(c, p)
	for r := range rows {
		f(p, r)
		if r < rows-1 {
			ADDQ(crs, p)
		}
	}
}
