package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// stream is a slice argument that a loop walks along.
type stream struct {
	ptr  GPVirtual
	size int // bytes of an element
}

// open loads the pointer of a slice argument.
func open(name string, size int) stream {
	return stream{Load(Param(name).Base(), GP64()).(GPVirtual), size}
}

func (x stream) mem() Mem { return Mem{Base: x.ptr} }

// walk writes a loop over as many elements as the slice named by count has: unit
// of them in each turn, what remains in a last, masked one.
func walk(count string, unit int, streams []stream, masks func(n GPVirtual) []*mask, turn func(k []*mask)) {
	n := Load(Param(count).Len(), GP64()).(GPVirtual)
	Label("loop")
	CMPQ(n, U32(uint32(unit)))
	JL(LabelRef("tail"))
	turn(nil)
	for _, x := range streams {
		ADDQ(U32(uint32(unit*x.size)), x.ptr)
	}
	SUBQ(U32(uint32(unit)), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	turn(masks(n))
	Label("done")
}

// narrow returns the mask of loops whose elements are all float32.
func (s isa) narrow(n GPVirtual) []*mask { return []*mask{s.maskFor(n, 4, false)} }

// mixed returns a mask for float32 in half registers and one for float64.
func (s isa) mixed(n GPVirtual) []*mask {
	if s.wide {
		k := s.maskFor(n, 8, false)
		return []*mask{k, k}
	}
	return []*mask{s.maskFor(n, 4, true), s.maskFor(n, 8, false)}
}

// double returns the mask of loops whose elements are all float64.
func (s isa) double(n GPVirtual) []*mask { return []*mask{s.maskFor(n, 8, false)} }

// address returns where a parameter or a field lies.
func address(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func pick(k []*mask, i int) *mask {
	if k == nil {
		return nil
	}
	return k[i]
}

// function starts the function of that name, whose signature is declared in
// package kernel, for one instruction set.
func (s isa) function(name string) { Implement(name + s.name) }

func finish() {
	VZEROUPPER()
	RET()
}

func add(s isa) {
	s.function("add")
	dst, src := open("dst", 4), open("src", 4)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk("src", s.lanes(4), []stream{dst, src}, s.narrow, func(k []*mask) {
		x, y := s.vec(), s.vec()
		s.load(dst.mem(), x, pick(k, 0), 4)
		s.load(src.mem(), y, pick(k, 0), 4)
		VADDPS(y, x, x)
		s.quiet32(x, nan, t)
		s.store(x, dst.mem(), pick(k, 0), 4)
	})
	finish()
}

func addF64(s isa) {
	s.function("addF64")
	dst, src := open("dst", 8), open("src", 8)
	nan, t := all64bits(s.vec(), nan64), s.vec()
	walk("src", s.lanes(8), []stream{dst, src}, s.double, func(k []*mask) {
		x, y := s.vec(), s.vec()
		s.load(dst.mem(), x, pick(k, 0), 8)
		s.load(src.mem(), y, pick(k, 0), 8)
		VADDPD(y, x, x)
		s.quiet64(x, nan, t)
		s.store(x, dst.mem(), pick(k, 0), 8)
	})
	finish()
}

func sumInts(s isa) {
	s.function("sumInts")
	x := open("x", 8)
	sum := s.vec()
	VXORPD(sum, sum, sum)
	split := s.wholePart()
	walk("x", s.lanes(8), []stream{x}, s.double, func(k []*mask) {
		v := s.vec()
		s.load(x.mem(), v, pick(k, 0), 8)
		n := split(v)
		VPADDQ(n, v, v)
		VPADDQ(v, sum, sum)
	})
	r := GP64()
	VMOVQ(s.fold(sum, 8, func(from, into VecVirtual) { VPADDQ(from, into, into) }), r)
	Store(r, ReturnIndex(0))
	finish()
}

// wholePart returns what writes the instructions that take the whole part from
// the float64 in v, below 2^63, as an int64. What is left in v is the fraction.
func (s isa) wholePart() func(v VecVirtual) VecVirtual {
	if s.wide {
		return func(v VecVirtual) VecVirtual {
			n, t := s.vec(), s.vec()
			VCVTTPD2QQ(v, n)
			VCVTQQ2PD(n, t)
			VSUBPD(t, v, v)
			return n
		}
	}
	// AVX2 converts no int64. A float64 to which 1.5*2^52 is added shows itself as
	// an integer in the low bits; what is above 2^26 goes the same way, 2^26 up.
	zero, high, low := s.vec(), all64(s.vec(), 0x1.8p78), all64(s.vec(), 0x1.8p52)
	VXORPD(zero, zero, zero)
	return func(v VecVirtual) VecVirtual {
		t, n, m := s.vec(), s.vec(), s.vec()
		VROUNDPD(U8(11), v, t)
		VADDPD(zero, t, t) // an int64 knows no -0
		VSUBPD(t, v, v)
		VADDPD(high, t, n)
		VSUBPD(high, n, m)
		VSUBPD(m, t, t)
		VPSUBQ(high, n, n)
		VPSLLQ(U8(26), n, n)
		VADDPD(low, t, t)
		VPSUBQ(low, t, t)
		VPADDQ(t, n, n)
		return n
	}
}

func roundAdd(s isa) {
	s.function("roundAdd")
	acc, g := open("acc", 8), open("g", 4)
	scale := s.vec()
	VBROADCASTSD(address(Param("scale")), scale)
	nan, t := all64bits(s.vec(), nan64), s.vec()
	walk("g", s.lanes(8), []stream{acc, g}, s.mixed, func(k []*mask) {
		x, y, sum := s.half(), s.vec(), s.vec()
		s.load(g.mem(), x, pick(k, 0), 4)
		VCVTPS2PD(x, y)
		VMULPD(scale, y, y)
		if s.wide {
			VRNDSCALEPD(U8(8), y, y) // to nearest even
		} else {
			VROUNDPD(U8(8), y, y)
		}
		s.load(acc.mem(), sum, pick(k, 1), 8)
		VADDPD(y, sum, sum)
		s.quiet64(sum, nan, t)
		s.store(sum, acc.mem(), pick(k, 1), 8)
	})
	finish()
}

func maxBits(s isa) {
	s.function("maxBits")
	x := open("x", 4)
	abs, m := all32bits(s.vec(), math.MaxInt32), s.vec()
	VXORPS(m, m, m)
	walk("x", s.lanes(4), []stream{x}, s.narrow, func(k []*mask) {
		v := s.vec()
		s.load(x.mem(), v, pick(k, 0), 4)
		VANDPS(abs, v, v)
		VPMAXUD(v, m, m)
	})
	r := GP32()
	VMOVD(s.fold(m, 4, func(from, into VecVirtual) { VPMAXUD(from, into, into) }), r)
	Store(r, ReturnIndex(0))
	finish()
}

// fold joins the lanes of v into its first, for elements of 4 or 8 bytes.
func (s isa) fold(v VecVirtual, size int, join func(from, into VecVirtual)) VecVirtual {
	if s.wide {
		upper := YMM()
		VEXTRACTI64X4(U8(1), v, upper)
		join(upper, v.(Vec).AsY().(VecVirtual))
	}
	upper, low := XMM(), v.(Vec).AsX().(VecVirtual)
	VEXTRACTI128(U8(1), v.(Vec).AsY(), upper)
	join(upper, low)
	for _, order := range []uint8{0x4e, 0xb1}[:8/size] { // swap halves, swap neighbours
		VPSHUFD(U8(order), low, upper)
		join(upper, low)
	}
	return low
}

func relu(s isa) {
	s.function("relu")
	dst, x := open("dst", 4), open("x", 4)
	zero := s.vec()
	VXORPS(zero, zero, zero)
	walk("x", s.lanes(4), []stream{dst, x}, s.narrow, func(k []*mask) {
		v := s.vec()
		s.load(x.mem(), v, pick(k, 0), 4)
		VMAXPS(zero, v, v) // of NaN and 0, and of two zeros, the first operand written
		s.store(v, dst.mem(), pick(k, 0), 4)
	})
	finish()
}

func reluGrad(s isa) {
	s.function("reluGrad")
	dx, dy, y := open("dx", 4), open("dy", 4), open("y", 4)
	nan, t, zero := all32bits(s.vec(), nan32), s.vec(), s.vec()
	VXORPS(zero, zero, zero)
	walk("y", s.lanes(4), []stream{dx, dy, y}, s.narrow, func(k []*mask) {
		const greater = U8(0x1e)
		v, d := s.vec(), s.vec()
		s.load(y.mem(), v, pick(k, 0), 4)
		s.load(dy.mem(), d, pick(k, 0), 4)
		s.quiet32(d, nan, t)
		if s.wide {
			positive := K()
			VCMPPS(greater, zero, v, positive)
			VMOVAPS_Z(d, positive, d)
		} else {
			VCMPPS(greater, zero, v, v)
			VANDPS(v, d, d)
		}
		s.store(d, dx.mem(), pick(k, 0), 4)
	})
	finish()
}

func adam(s isa) {
	s.function("adam")
	p, g, m, v := open("p", 4), open("g", 4), open("m", 4), open("v", 4)
	c := Param("c")
	all := func(field string) VecVirtual {
		x := s.vec()
		VBROADCASTSS(address(c.Field(field)), x)
		return x
	}
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk("g", s.lanes(4), []stream{p, g, m, v}, s.narrow, func(k []*mask) {
		gi, mi, vi, w := s.vec(), s.vec(), s.vec(), s.vec()
		s.load(g.mem(), gi, pick(k, 0), 4)
		s.load(m.mem(), mi, pick(k, 0), 4)
		s.load(v.mem(), vi, pick(k, 0), 4)
		s.load(p.mem(), w, pick(k, 0), 4)
		square, step := s.vec(), s.vec()
		VMULPS(gi, gi, square)
		VMULPS(all("beta1"), mi, mi)
		VMULPS(all("rest1"), gi, gi)
		VADDPS(gi, mi, mi)
		VMULPS(all("beta2"), vi, vi)
		VMULPS(all("rest2"), square, square)
		VADDPS(square, vi, vi)

		VMULPS(all("c2"), vi, square)
		VSQRTPS(square, square)
		VADDPS(all("eps"), square, square)
		VMULPS(all("c1"), mi, step)
		VDIVPS(square, step, step)
		VMULPS(all("lr"), step, step)
		VMULPS(all("shrink"), w, square)
		VSUBPS(square, w, w)
		VSUBPS(step, w, w)
		for _, x := range []struct {
			v  VecVirtual
			at stream
		}{{w, p}, {mi, m}, {vi, v}} {
			s.quiet32(x.v, nan, t)
			s.store(x.v, x.at.mem(), pick(k, 0), 4)
		}
	})
	finish()
}

// momentum writes both forms: with nesterov the step is g + momentum*v.
func momentum(s isa, name string, nesterov bool) {
	s.function(name)
	p, g, v := open("p", 4), open("g", 4), open("v", 4)
	lr, mu := s.vec(), s.vec()
	VBROADCASTSS(address(Param("lr")), lr)
	VBROADCASTSS(address(Param("momentum")), mu)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk("g", s.lanes(4), []stream{p, g, v}, s.narrow, func(k []*mask) {
		gi, vi, w, step := s.vec(), s.vec(), s.vec(), s.vec()
		s.load(g.mem(), gi, pick(k, 0), 4)
		s.load(v.mem(), vi, pick(k, 0), 4)
		s.load(p.mem(), w, pick(k, 0), 4)
		VMULPS(mu, vi, vi)
		VADDPS(gi, vi, vi)
		s.quiet32(vi, nan, t)
		if nesterov {
			VMULPS(mu, vi, step)
			VADDPS(step, gi, step)
			VMULPS(lr, step, step)
		} else {
			VMULPS(lr, vi, step)
		}
		VSUBPS(step, w, w)
		s.quiet32(w, nan, t)
		s.store(w, p.mem(), pick(k, 0), 4)
		s.store(vi, v.mem(), pick(k, 0), 4)
	})
	finish()
}

func rmsprop(s isa) {
	s.function("rmsprop")
	p, g, v := open("p", 4), open("g", 4), open("v", 4)
	all := func(name string) VecVirtual {
		x := s.vec()
		VBROADCASTSS(address(Param(name)), x)
		return x
	}
	lr, rho, rest, eps := all("lr"), all("rho"), all("rest"), all("eps")
	nan, t := all32bits(s.vec(), nan32), s.vec()
	walk("g", s.lanes(4), []stream{p, g, v}, s.narrow, func(k []*mask) {
		gi, vi, w, x := s.vec(), s.vec(), s.vec(), s.vec()
		s.load(g.mem(), gi, pick(k, 0), 4)
		s.load(v.mem(), vi, pick(k, 0), 4)
		s.load(p.mem(), w, pick(k, 0), 4)
		VMULPS(gi, gi, x)
		VMULPS(rest, x, x)
		VMULPS(rho, vi, vi)
		VADDPS(x, vi, vi)
		VADDPS(eps, vi, x)
		VSQRTPS(x, x)
		VMULPS(lr, gi, gi)
		VDIVPS(x, gi, gi)
		VSUBPS(gi, w, w)
		s.quiet32(w, nan, t)
		s.quiet32(vi, nan, t)
		s.store(w, p.mem(), pick(k, 0), 4)
		s.store(vi, v.mem(), pick(k, 0), 4)
	})
	finish()
}
