package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// lanes16 is a loop over a row, sixteen elements at a time: the virtual lanes that
// sums over a row have. A part is as many of them as a register holds of float64.
type lanes16 struct {
	s       isa
	streams []stream
}

// each writes the loop; turn writes what is done with one part.
func (r lanes16) each(turn func(part int, k []*mask)) {
	n := Load(Param("x").Len(), GP64()).(GPVirtual)
	repeat("loop", n, 16, r.streams, func([]*mask) {
		for part := range r.parts() {
			turn(part, nil)
		}
	})
	for part := range r.parts() {
		TESTQ(n, n)
		JZ(LabelRef("done"))
		here := GP64()
		MOVQ(U32(uint32(r.s.lanes(8))), here)
		CMPQ(n, here)
		CMOVQLT(n, here)
		turn(part, r.s.mixed(here))
		SUBQ(here, n)
	}
	Label("done")
}

func (r lanes16) parts() int { return 16 / r.s.lanes(8) }

// at is where a part of a stream lies.
func (r lanes16) at(x stream, part int) stream { return x.from(part * r.s.lanes(8)) }

// sums returns registers of +0 for all lanes.
func (r lanes16) sums() []VecVirtual {
	v := make([]VecVirtual, r.parts())
	for i := range v {
		v[i] = r.s.vec()
		VXORPD(v[i], v[i], v[i])
	}
	return v
}

// total adds the lanes as a tree, upper half onto lower half, and returns it.
func (r lanes16) total(v []VecVirtual, result int) {
	for half := len(v) / 2; half > 0; half /= 2 {
		for i := range half {
			VADDPD(v[i+half], v[i], v[i])
		}
	}
	low := r.s.fold(v[0], 8, func(from, into VecVirtual) { VADDPD(from, into, into) })
	Store(low, ReturnIndex(result))
}

// distance returns x - mean, times inv if it isn't nil, +0 beyond a mask.
func (s isa) distance(x stream, k []*mask, mean Mem, inv *Mem) VecVirtual {
	d, t := s.element(x, k), s.vec()
	VBROADCASTSD(mean, t)
	VSUBPD(t, d, d)
	if inv != nil {
		VBROADCASTSD(*inv, t)
		VMULPD(t, d, d)
	}
	if k != nil {
		s.cut(d, k[1])
	}
	return d
}

// cut makes +0 of what a mask leaves out.
func (s isa) cut(v VecVirtual, k *mask) {
	if s.wide {
		VMOVAPD_Z(v, k.reg, v)
	} else {
		VANDPD(k.reg, v, v)
	}
}

func rowSums(s isa) {
	s.function("rowSums")
	x := open("x", 4)
	at := address(Param("at"))
	r := lanes16{s, []stream{x}}
	sum, square := r.sums(), r.sums()
	r.each(func(part int, k []*mask) {
		d := s.distance(r.at(x, part), k, at, nil)
		VADDPD(d, sum[part], sum[part])
		VMULPD(d, d, d)
		VADDPD(d, square[part], square[part])
	})
	r.total(sum, 0)
	r.total(square, 1)
	finish()
}

func rowApply(s isa) {
	s.function("rowApply")
	y, x, scale, shift := open("y", 4), open("x", 4), open("scale", 8), open("shift", 8)
	mean, inv := address(Param("mean")), address(Param("inv"))
	walk("x", s.lanes(8), []stream{y, x, scale, shift}, s.mixed, func(k []*mask) {
		d := s.distance(x, k, mean, &inv)
		VMULPD(s.column(scale, k), d, d)
		VADDPD(s.column(shift, k), d, d)
		s.store(s.narrowed(d), y.mem(), pick(k, 0), 4)
	})
	finish()
}

func rowGradSums(s isa) {
	s.function("rowGradSums")
	plain, along, dy, x, scale := open("plain", 8), open("along", 8), open("dy", 4), open("x", 4), open("scale", 8)
	mean, inv := address(Param("mean")), address(Param("inv"))
	r := lanes16{s, []stream{plain, along, dy, x, scale}}
	sum, dot := r.sums(), r.sums()
	r.each(func(part int, k []*mask) {
		d, g, t := s.distance(r.at(x, part), k, mean, &inv), s.element(r.at(dy, part), k), s.vec()
		add := func(v VecVirtual, at stream) {
			old := s.column(at, k)
			VADDPD(v, old, old)
			s.store(old, at.mem(), pick(k, 1), 8)
		}
		add(g, r.at(plain, part))
		VMULPD(d, g, t)
		add(t, r.at(along, part))
		VMULPD(s.column(r.at(scale, part), k), g, g)
		VADDPD(g, sum[part], sum[part])
		VMULPD(d, g, g)
		VADDPD(g, dot[part], dot[part])
	})
	r.total(sum, 0)
	r.total(dot, 1)
	finish()
}

func rowGrad(s isa) {
	s.function("rowGrad")
	dx, dy, x, scale := open("dx", 4), open("dy", 4), open("x", 4), open("scale", 8)
	mean, inv := address(Param("mean")), address(Param("inv"))
	walk("x", s.lanes(8), []stream{dx, dy, x, scale}, s.mixed, func(k []*mask) {
		d, g, t := s.distance(x, k, mean, &inv), s.element(dy, k), s.vec()
		VMULPD(s.column(scale, k), g, g)
		VBROADCASTSD(address(Param("p")), t)
		VSUBPD(t, g, g)
		VBROADCASTSD(address(Param("q")), t)
		VMULPD(t, d, d)
		VSUBPD(d, g, g)
		VBROADCASTSD(inv, t)
		VMULPD(t, g, g)
		s.store(s.narrowed(g), dx.mem(), pick(k, 0), 4)
	})
	finish()
}
