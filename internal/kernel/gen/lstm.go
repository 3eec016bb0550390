package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/reg"
)

// get loads float32 into a new register of that kind.
func (s isa) get(x stream, v VecVirtual, k *mask) VecVirtual {
	s.load(x.mem(), v, k, 4)
	return v
}

// lstmForward takes the four functions in turns, or two and two where registers are
// few.
func lstmForward(s isa) {
	s.function("lstmForward")
	i, f, g, o := open("i", 4), open("f", 4), open("g", 4), open("o", 4)
	c, next, squashed, h := open("c", 4), open("next", 4), open("squashed", 4), open("h", 4)
	walk("c", s.lanes(4), []stream{i, f, g, o, c, next, squashed, h}, s.narrow, func(k []*mask) {
		get := func(at stream) VecVirtual { return s.get(at, s.vec(), pick(k, 0)) }
		put := func(x VecVirtual, at stream) { s.store(x, at.mem(), pick(k, 0), 4) }
		in, cand := get(i), get(g)
		var forget, out VecVirtual
		if s.wide {
			forget, out = get(f), get(o)
			s.gates([]VecVirtual{in, forget, out}, []VecVirtual{cand})
		} else {
			s.gates([]VecVirtual{in}, []VecVirtual{cand})
		}
		put(in, i)
		put(cand, g)
		VMULPS(cand, in, in)
		if !s.wide {
			forget, out = get(f), get(o)
			s.gates([]VecVirtual{forget, out}, nil)
		}
		put(forget, f)
		put(out, o)
		VMULPS(get(c), forget, forget)
		VADDPS(in, forget, forget)
		s.quiet32(forget, all32bits(s.vec(), nan32), s.vec())
		put(forget, next)
		s.gates(nil, []VecVirtual{forget})
		put(forget, squashed)
		VMULPS(forget, out, out)
		s.quiet32(out, all32bits(s.vec(), nan32), s.vec())
		put(out, h)
	})
	finish()
}

// cell writes instructions on the way back through a step, on vectors of float32.
type cell struct {
	s            isa
	k            *mask
	one          VecVirtual
	tiny, nan, t VecVirtual
}

func (s isa) cell() cell {
	return cell{
		s: s, one: s.ones(),
		tiny: all32bits(s.vec(), tinyBits), nan: all32bits(s.vec(), nan32), t: s.vec(),
	}
}

func (c cell) get(at stream) VecVirtual { return c.s.get(at, c.s.vec(), c.k) }

// put stores x, without what is tiny.
func (c cell) put(x VecVirtual, at stream) {
	c.s.flush32(x, c.tiny, c.t)
	c.s.quiet32(x, c.nan, c.t)
	c.s.store(x, at.mem(), c.k, 4)
}

// product returns x*y.
func (c cell) product(x, y VecVirtual) VecVirtual {
	z := c.s.vec()
	VMULPS(y, x, z)
	return z
}

// rest returns 1-x.
func (c cell) rest(x VecVirtual) VecVirtual {
	z := c.s.vec()
	VSUBPS(x, c.one, z)
	return z
}

// throughSigmoid replaces d by (d*y)*(1-y), throughTanh by d*(1-y*y).
func (c cell) throughSigmoid(d, y VecVirtual) {
	VMULPS(y, d, d)
	VMULPS(c.rest(y), d, d)
}

func (c cell) throughTanh(d, y VecVirtual) { VMULPS(c.rest(c.product(y, y)), d, d) }

func lstmBackward(s isa) {
	s.function("lstmBackward")
	i, f, g, o := open("i", 4), open("f", 4), open("g", 4), open("o", 4)
	c, squashed, dh, dc := open("c", 4), open("squashed", 4), open("dh", 4), open("dc", 4)
	w := s.cell()
	walk("c", s.lanes(4), []stream{i, f, g, o, c, squashed, dh, dc}, s.narrow, func(k []*mask) {
		w.k = pick(k, 0)
		d, out, tc := w.get(dh), w.get(o), w.get(squashed)
		dout := w.product(d, tc)
		VMULPS(out, d, d)
		w.throughTanh(d, tc)
		w.throughSigmoid(dout, out)
		w.put(dout, o)
		VADDPS(d, w.get(dc), d)

		gi, gg := w.get(i), w.get(g)
		di, dg := w.product(d, gg), w.product(d, gi)
		w.throughSigmoid(di, gi)
		w.put(di, i)
		w.throughTanh(dg, gg)
		w.put(dg, g)

		forget := w.get(f)
		df := w.product(d, w.get(c))
		w.throughSigmoid(df, forget)
		w.put(df, f)
		VMULPS(forget, d, d)
		w.put(d, dc)
	})
	finish()
}

func gruForward(s isa) {
	s.function("gruForward")
	z, r, g := open("z", 4), open("r", 4), open("g", 4)
	b, h, next := open("b", 4), open("h", 4), open("next", 4)
	walk("h", s.lanes(4), []stream{z, r, g, b, h, next}, s.narrow, func(k []*mask) {
		get := func(at stream) VecVirtual { return s.get(at, s.vec(), pick(k, 0)) }
		put := func(x VecVirtual, at stream) { s.store(x, at.mem(), pick(k, 0), 4) }
		keep, reset := get(z), get(r)
		s.gates([]VecVirtual{keep, reset}, nil)
		put(keep, z)
		put(reset, r)
		VMULPS(get(b), reset, reset)
		VADDPS(get(g), reset, reset)
		s.gates(nil, []VecVirtual{reset})
		put(reset, g)
		grown := s.ones()
		VSUBPS(keep, grown, grown)
		VMULPS(reset, grown, grown)
		VMULPS(get(h), keep, keep)
		VADDPS(grown, keep, keep)
		s.quiet32(keep, all32bits(s.vec(), nan32), s.vec())
		put(keep, next)
	})
	finish()
}

func gruBackward(s isa) {
	s.function("gruBackward")
	z, r, g := open("z", 4), open("r", 4), open("g", 4)
	b, h, dh := open("b", 4), open("h", 4), open("dh", 4)
	w := s.cell()
	walk("h", s.lanes(4), []stream{z, r, g, b, h, dh}, s.narrow, func(k []*mask) {
		w.k = pick(k, 0)
		d, keep, cand := w.get(dh), w.get(z), w.get(g)
		dcand := w.product(d, w.rest(keep))
		w.throughTanh(dcand, cand)
		dz := w.get(h)
		VSUBPS(cand, dz, dz)
		VMULPS(d, dz, dz)
		w.throughSigmoid(dz, keep)
		w.put(dz, z)
		VMULPS(keep, d, d)
		w.put(d, dh)

		reset := w.get(r)
		dr := w.product(dcand, w.get(b))
		w.throughSigmoid(dr, reset)
		w.put(dr, r)
		VMULPS(dcand, reset, reset)
		w.put(reset, b)
		w.put(dcand, g)
	})
	finish()
}
