package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// product writes the function that computes one panel. It chooses among bodies
// for every height of a tile and one, two or four registers of width, once more for
// tiles that pack b as they read it; a body loops over the tiles and, for each,
// over k:
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
	bodies := []body{
		{kind: "one", vecs: 1, masked: true},
		{kind: "both", vecs: 2, masked: true},
		{kind: "four", vecs: 4},
	}
	if !s.wide {
		bodies = append(bodies, body{kind: "full", vecs: 2})
	}
	pack := GP64()
	Load(w.Field("pack").Base(), pack)
	TESTQ(pack, pack)
	JNZ(LabelRef("packing"))
	for _, packing := range []bool{false, true} {
		prefix := ""
		if packing {
			prefix = "pack"
			Label("packing")
		}
		CMPQ(cols, U32(uint32(lanes)))
		JG(LabelRef(prefix + "two"))
		choose(prefix+"one", rows, s.rowsOne)
		Label(prefix + "two")
		if !packing {
			CMPQ(cols, U32(uint32(4*lanes)))
			JNE(LabelRef("notfour"))
			choose("four", rows, s.rowsFour)
			Label("notfour")
		}
		SUBQ(U32(uint32(lanes)), cols)
		if !s.wide {
			CMPQ(cols, U32(uint32(lanes)))
			JE(LabelRef(prefix + "whole"))
		}
		choose(prefix+"both", rows, s.rows)
		if !s.wide {
			Label(prefix + "whole")
			choose(prefix+"full", rows, s.rows)
		}
		for _, b := range bodies {
			most := map[int]int{1: s.rowsOne, 2: s.rows, 4: s.rowsFour}[b.vecs]
			if packing && b.vecs == 4 {
				continue
			}
			b.kind, b.packing = prefix+b.kind, packing
			for b.rows = 1; b.rows <= most; b.rows++ {
				b.write(s, w, cols)
			}
		}
	}
}

// choose jumps to the body for a height of tile.
func choose(kind string, rows GPVirtual, most int) {
	for r := most; r > 1; r-- {
		CMPQ(rows, U32(uint32(r)))
		JE(LabelRef(body{kind: kind, rows: r}.name()))
	}
	JMP(LabelRef(body{kind: kind, rows: 1}.name()))
}

// body is the loops for tiles of a fixed size.
type body struct {
	kind       string
	rows, vecs int
	masked     bool // the last register of a row isn't full
	packing    bool // copies b, for one tile
}

func (b body) name() string { return fmt.Sprintf("%s%d", b.kind, b.rows) }

// write writes the loops. cols counts the columns of the last register, to which
// the mask applies.
func (b body) write(s isa, w gotypes.Component, cols GPVirtual) {
	name, rows, vecs := b.name(), b.rows, b.vecs
	Label(name)
	var k *mask
	if b.masked {
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
	a, c := GP64(), GP64()
	var tiles GPVirtual
	Load(w.Field("a").Base(), a)
	Load(w.Field("c").Base(), c)
	if !b.packing {
		tiles = GP64()
		Load(w.Field("tile"), tiles)
	}
	ars, acs, brs, crs := stride("ars"), stride("acs"), stride("brs"), stride("crs")
	at := rowsOf(ars, rows)

	sum := make([]VecVirtual, rows*vecs)
	for i := range sum {
		sum[i] = s.vec()
	}

	Label(name + "tile")
	begin(s, w, c, crs, sum, name, rows, vecs, maskOf)
	pa, pb, n := [2]GPVirtual{GP64()}, GP64(), GP64()
	var to, ahead GPVirtual
	if b.packing {
		to, ahead = GP64(), GP64()
		LEAQ(Mem{Base: brs, Index: brs, Scale: 1}, ahead)
		Load(w.Field("pack").Base(), to)
	}
	MOVQ(a, pa[0])
	if rows > lowRows {
		pa[1] = GP64()
		LEAQ(at([2]GPVirtual{pa[0]}, lowRows-1), pa[1])
		ADDQ(ars, pa[1])
	}
	Load(w.Field("b").Base(), pb)
	if !b.packing {
		CMPQ(tiles, U8(1))
		JE(LabelRef(name + "last"))
		fetch(c, crs, n, rows, vecs*s.lanes(4)*4)
		Label(name + "last")
	}
	Load(w.Field("runs"), n)
	MOVQ(n, address(w.Field("left")))
	Label(name + "run")
	Load(w.Field("k"), n)
	Label(name + "k")
	bs := make([]VecVirtual, vecs)
	for v := range bs {
		bs[v] = s.vec()
		s.load(Mem{Base: pb, Disp: v * s.lanes(4) * 4}, bs[v], maskOf(v), 4)
		if b.packing {
			PREFETCHT0(Mem{Base: pb, Index: ahead, Scale: 8, Disp: v * s.lanes(4) * 4})
			s.store(bs[v], Mem{Base: to, Disp: v * s.lanes(4) * 4}, nil, 4)
		}
	}
	for r := range rows {
		multiply(s, at(pa, r), bs, sum[r*vecs:])
	}
	ADDQ(acs, pa[0])
	if rows > lowRows {
		ADDQ(acs, pa[1])
	}
	ADDQ(brs, pb)
	if b.packing {
		ADDQ(U32(uint32(2*s.lanes(4)*4)), to)
	}
	DECQ(n)
	JNZ(LabelRef(name + "k"))
	Load(w.Field("jump"), n)
	LEAQ(Mem{Base: pa[0], Index: n, Scale: 4}, pa[0])
	if rows > lowRows {
		LEAQ(Mem{Base: pa[1], Index: n, Scale: 4}, pa[1])
	}
	DECQ(address(w.Field("left")))
	JNZ(LabelRef(name + "run"))

	end(s, w, c, crs, sum, name, rows, vecs, maskOf)
	if !b.packing {
		t := GP64()
		Load(w.Field("ats"), t)
		LEAQ(Mem{Base: a, Index: t, Scale: 4}, a)
		DECQ(tiles)
		JNZ(LabelRef(name + "tile"))
	}
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

// lowRows is how many rows of a tile of a are addressed from the first pointer;
// the others are from a second one.
const lowRows = 7

// rowsOf returns the address of an element in each row of a tile of a. base[1]
// points to row lowRows.
func rowsOf(ars GPVirtual, rows int) func(base [2]GPVirtual, r int) Mem {
	times := map[int]GPVirtual{1: ars}
	for _, n := range []int{3, 5} {
		if rows > n {
			t := GP64()
			LEAQ(Mem{Base: ars, Index: ars, Scale: uint8(n - 1)}, t)
			times[n] = t
		}
	}
	return func(base [2]GPVirtual, r int) Mem {
		p := base[0]
		if r >= lowRows {
			p, r = base[1], r-lowRows
		}
		if r == 0 {
			return Mem{Base: p}
		}
		scale := uint8(1)
		for r%2 == 0 {
			r /= 2
			scale *= 2
		}
		return Mem{Base: p, Index: times[r], Scale: scale}
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

// end adds the bias and applies relu, if the panel says so, stores the sums with
// one pattern for NaN, and moves c to the next tile.
func end(s isa, w gotypes.Component, c, crs GPVirtual, sum []VecVirtual, name string, rows, vecs int, maskOf func(int) *mask) {
	t := s.vec()
	bias := GP64()
	Load(w.Field("bias").Base(), bias)
	TESTQ(bias, bias)
	JZ(LabelRef(name + "unbiased"))
	for v := range vecs {
		s.load(Mem{Base: bias, Disp: v * s.lanes(4) * 4}, t, maskOf(v), 4)
		for r := range rows {
			VADDPS(t, sum[r*vecs+v], sum[r*vecs+v])
		}
	}
	Label(name + "unbiased")
	CMPQ(address(w.Field("relu")), U8(0))
	JE(LabelRef(name + "linear"))
	VXORPS(t, t, t)
	for _, v := range sum {
		VMAXPS(t, v, v)
	}
	Label(name + "linear")
	nan := all32bits(s.vec(), nan32)
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

// fetch asks for the rows of c below a tile: the next tile's. p is overwritten.
func fetch(c, crs, p GPVirtual, rows, bytes int) {
	IMUL3Q(U8(uint8(rows)), crs, p)
	ADDQ(c, p)
	for range rows {
		for at := 0; at < bytes; at += 64 {
			PREFETCHT0(Mem{Base: p, Disp: at})
		}
		ADDQ(crs, p)
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
