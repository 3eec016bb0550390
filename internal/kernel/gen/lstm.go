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

// lstmGates takes the four functions in turns, or two and two where registers are
// few.
func lstmGates(s isa) {
	s.function("lstmGates")
	i, f, g, o, c, next := open("i", 4), open("f", 4), open("g", 4), open("o", 4), open("c", 4), open("next", 4)
	walk("c", s.lanes(8), []stream{i, f, g, o, c, next}, s.halfMask, func(k []*mask) {
		load := func(at stream) VecVirtual { return s.widened(s.get(at, s.half(), pick(k, 0))) }
		put := func(x VecVirtual, at stream) VecVirtual {
			y := s.narrowed(x)
			s.store(y, at.mem(), pick(k, 0), 4)
			return y
		}
		var in, forget VecVirtual
		cand := load(g)
		if s.wide {
			gates := []VecVirtual{load(i), load(f), load(o)}
			s.activate(gates, []VecVirtual{cand})
			in, forget = put(gates[0], i), put(gates[1], f)
			put(gates[2], o)
		} else {
			x := []VecVirtual{load(i)}
			s.activate(x, []VecVirtual{cand})
			in = put(x[0], i)
		}
		VMULPS(put(cand, g), in, in)
		if !s.wide {
			x := []VecVirtual{load(f), load(o)}
			sigmoid64(s, x)
			forget = put(x[0], f)
			put(x[1], o)
		}
		VMULPS(s.get(c, s.half(), pick(k, 0)), forget, forget)
		VADDPS(in, forget, forget)
		s.quiet32(forget, all32bits(s.half(), nan32), s.half())
		s.store(forget, next.mem(), pick(k, 0), 4)
	})
	finish()
}

// lstmOutput is squashed = tanh(c) and h = o*squashed.
func lstmOutput(s isa) {
	s.function("lstmOutput")
	o, c, squashed, h := open("o", 4), open("c", 4), open("squashed", 4), open("h", 4)
	s.chained(c, []stream{o, c, squashed, h}, "c", func(wide []VecVirtual, k *mask) {
		tanh64(s, wide)
		for j, v := range wide {
			at, t := j*s.lanes(8), s.narrowed(v)
			s.store(t, squashed.at(at), k, 4)
			out := s.get(o.from(at), s.half(), k)
			VMULPS(t, out, out)
			s.quiet32(out, all32bits(s.half(), nan32), s.half())
			s.store(out, h.at(at), k, 4)
		}
	})
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

// gruOutput is g = tanh(g + r*b) and next = z*h + (1-z)*g.
func gruOutput(s isa) {
	s.function("gruOutput")
	z, r, g, b, h, next := open("z", 4), open("r", 4), open("g", 4), open("b", 4), open("h", 4), open("next", 4)
	s.chained(g, []stream{z, r, g, b, h, next}, "h", func(wide []VecVirtual, k *mask) {
		load := func(x stream, j int) VecVirtual { return s.get(x.from(j*s.lanes(8)), s.half(), k) }
		for j, v := range wide {
			sum := load(r, j)
			VMULPS(load(b, j), sum, sum)
			VADDPS(load(g, j), sum, sum)
			VCVTPS2PD(sum, v)
		}
		tanh64(s, wide)
		for j, v := range wide {
			at, keep := j*s.lanes(8), load(z, j)
			cand, rest := s.narrowed(v), all32bits(s.half(), one32)
			s.store(cand, g.at(at), k, 4)
			VSUBPS(keep, rest, rest)
			VMULPS(cand, rest, rest)
			VMULPS(load(h, j), keep, keep)
			VADDPS(rest, keep, keep)
			s.quiet32(keep, all32bits(s.half(), nan32), s.half())
			s.store(keep, next.at(at), k, 4)
		}
	})
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
