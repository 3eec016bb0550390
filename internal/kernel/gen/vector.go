package main

import (
	"fmt"
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
	skip int // elements before the first
}

// open loads the pointer of a slice argument.
func open(name string, size int) stream {
	return stream{ptr: Load(Param(name).Base(), GP64()).(GPVirtual), size: size}
}

func (x stream) mem() Mem { return x.at(0) }

// at is the address of the element i places further on.
func (x stream) at(i int) Mem { return Mem{Base: x.ptr, Disp: (x.skip + i) * x.size} }

// from is the same stream i elements further on.
func (x stream) from(i int) stream { return stream{x.ptr, x.size, x.skip + i} }

// walk writes a loop over as many elements as the slice named by count has: unit
// of them in each turn, what remains in a last, masked one.
func walk(count string, unit int, streams []stream, masks func(n GPVirtual) []*mask, turn func(k []*mask)) {
	n := Load(Param(count).Len(), GP64()).(GPVirtual)
	repeat("loop", n, unit, streams, turn)
	rest(n, masks, turn)
}

// far is how many bytes ahead a loop over more than the caches hold asks for memory.
const far = 2048

// ahead asks for what streams read or write far on, in turns without a mask: the
// processor foresees no stream beyond its page of 4 KB, and waits at each one's start.
func ahead(k []*mask, streams ...stream) {
	for _, x := range streams {
		if k == nil {
			PREFETCHT0(Mem{Base: x.ptr, Disp: far})
		}
	}
}

// repeat writes a loop that takes unit elements in each turn, while n has as many.
func repeat(label string, n GPVirtual, unit int, streams []stream, turn func(k []*mask)) {
	Label(label)
	CMPQ(n, U32(uint32(unit)))
	JL(LabelRef("under" + label))
	turn(nil)
	for _, x := range streams {
		ADDQ(U32(uint32(unit*x.size)), x.ptr)
	}
	SUBQ(U32(uint32(unit)), n)
	JMP(LabelRef(label))
	Label("under" + label)
}

// rest writes the last, masked turn over the n elements that remain.
func rest(n GPVirtual, masks func(n GPVirtual) []*mask, turn func(k []*mask)) {
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

// wholePart returns what writes the instructions that take the whole part from
// the float64 in v, below 2^63, as an int64. What is left in v is the fraction. The
// lanes of zero are +0.
func (s isa) wholePart(zero VecVirtual) func(v VecVirtual) VecVirtual {
	if s.wide {
		return func(v VecVirtual) VecVirtual {
			n, t := s.vec(), s.vec()
			VCVTTPD2QQ(v, n)
			VCVTQQ2PD(n, t)
			VSUBPD(t, v, v)
			return n
		}
	}
	ints := s.toInts()
	return func(v VecVirtual) VecVirtual {
		t := s.vec()
		VROUNDPD(U8(11), v, t)
		VADDPD(zero, t, t) // an int64 knows no -0
		VSUBPD(t, v, v)
		return ints(t)
	}
}

// toInts returns what writes the instructions that turn the whole numbers in t,
// below 2^53 and no -0, into int64. It may overwrite t.
func (s isa) toInts() func(t VecVirtual) VecVirtual {
	if s.wide {
		return func(t VecVirtual) VecVirtual {
			n := s.vec()
			VCVTPD2QQ(t, n)
			return n
		}
	}
	// AVX2 converts no int64. A float64 to which 1.5*2^52 is added shows itself as
	// an integer in the low bits; what is above 2^26 goes the same way, 2^26 up.
	high, low := all64(s.vec(), 0x1.8p78), all64(s.vec(), 0x1.8p52)
	return func(t VecVirtual) VecVirtual {
		n, m := s.vec(), s.vec()
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

// round writes both forms: with fresh the result is stored, without it is added.
func round(s isa, name string, fresh bool) {
	s.function(name)
	acc, g := open("acc", 8), open("g", 4)
	scale := s.vec()
	VBROADCASTSD(address(Param("scale")), scale)
	nan, t, zero := all64bits(s.vec(), nan64), s.vec(), s.vec()
	VXORPD(zero, zero, zero)
	abs, top, sum := all32bits(s.half(), math.MaxInt32), s.half(), s.vec()
	VXORPS(top, top, top)
	VXORPD(sum, sum, sum)
	ints := s.toInts()
	walk("g", s.lanes(8), []stream{acc, g}, s.mixed, func(k []*mask) {
		ahead(k, acc, g)
		x, y := s.half(), s.vec()
		s.load(g.mem(), x, pick(k, 0), 4)
		VCVTPS2PD(x, y)
		VANDPS(abs, x, x)
		VPMAXUD(x, top, top)
		VMULPD(scale, y, y)
		if s.wide {
			VRNDSCALEPD(U8(8), y, y) // to nearest even
		} else {
			VROUNDPD(U8(8), y, y)
		}
		VADDPD(zero, y, y) // no -0
		into := y
		if !fresh {
			into = s.vec()
			s.load(acc.mem(), into, pick(k, 1), 8)
			VADDPD(y, into, into)
		}
		s.quiet64(into, nan, t)
		s.store(into, acc.mem(), pick(k, 1), 8)
		VPADDQ(ints(y), sum, sum)
	})
	whole := GP64()
	VMOVQ(s.fold(sum, 8, func(from, into VecVirtual) { VPADDQ(from, into, into) }), whole)
	Store(whole, ReturnIndex(0))
	r := GP32()
	VMOVD(s.fold(top, 4, func(from, into VecVirtual) { VPMAXUD(from, into, into) }), r)
	Store(r, ReturnIndex(1))
	finish()
}

// narrow writes both forms: with divide the product is divided before it is rounded.
// What is added up comes from the register that is narrowed, not from a second look
// at memory.
func narrow(s isa, name string, divide bool) {
	s.function(name)
	dst, x := open("dst", 4), open("x", 8)
	scale, denom, zero, sum := s.vec(), s.vec(), s.vec(), s.vec()
	VBROADCASTSD(address(Param("scale")), scale)
	if divide {
		VBROADCASTSD(address(Param("denom")), denom)
	}
	VXORPD(zero, zero, zero)
	VXORPD(sum, sum, sum)
	nan, t := all32bits(s.half(), nan32), s.half()
	split := s.wholePart(zero)
	walk("x", s.lanes(8), []stream{dst, x}, s.mixed, func(k []*mask) {
		ahead(k, dst, x)
		v, w, r := s.vec(), s.vec(), s.half()
		s.load(x.mem(), v, pick(k, 1), 8)
		VADDPD(zero, v, w)
		VMULPD(scale, w, w)
		if divide {
			VDIVPD(denom, w, w)
		}
		s.toFloat32(w, r)
		s.quiet32(r, nan, t)
		s.store(r, dst.mem(), pick(k, 0), 4)
		n := split(v)
		VPADDQ(n, v, v)
		VPADDQ(v, sum, sum)
	})
	r := GP64()
	VMOVQ(s.fold(sum, 8, func(from, into VecVirtual) { VPADDQ(from, into, into) }), r)
	Store(r, ReturnIndex(0))
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
	if v.Size() == 64 {
		upper := YMM()
		VEXTRACTI64X4(U8(1), v, upper)
		join(upper, v.(Vec).AsY().(VecVirtual))
	}
	upper, low := XMM(), v.(Vec).AsX().(VecVirtual)
	if v.Size() >= 32 {
		VEXTRACTI128(U8(1), v.(Vec).AsY(), upper)
		join(upper, low)
	}
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

// unit knows whole turns only. A quotient that is a little off, and what it leaves of
// the byte, give the quotient that is rounded once: all 256 are tested.
func unit(s isa) {
	s.function("unit")
	dst, src := open("dst", 4), open("src", 1)
	n := Load(Param("src").Len(), GP64()).(GPVirtual)
	divisor, inverse := s.vec(), s.vec()
	all32bits(divisor, math.Float32bits(255))
	all32bits(inverse, math.Float32bits(1.0/255))
	Label("loop")
	SUBQ(U32(uint32(s.lanes(4))), n)
	JL(LabelRef("done"))
	x, q := s.vec(), s.vec()
	VPMOVZXBD(src.mem(), x)
	VCVTDQ2PS(x, x)
	VMULPS(inverse, x, q)
	VFNMADD231PS(divisor, q, x) // x - 255*q
	VFMADD231PS(inverse, x, q)
	s.store(q, dst.mem(), nil, 4)
	for _, v := range []stream{dst, src} {
		ADDQ(U32(uint32(s.lanes(4)*v.size)), v.ptr)
	}
	JMP(LabelRef("loop"))
	Label("done")
	finish()
}

// arithmetic is how adam's loop multiplies, divides and takes roots.
type arithmetic struct {
	times func(constant string, x, dst VecVirtual) // dst = x times a constant
	mul   func(a, b, dst VecVirtual)
	div   func(a, b, dst VecVirtual) // dst = a/b
	sqrt  func(x, dst VecVirtual)
}

func adam(s isa) {
	s.function("adam")
	p, g, m, v := open("p", 4), open("g", 4), open("m", 4), open("v", 4)
	c := Param("c")
	all := func(field string, x VecVirtual) VecVirtual {
		VBROADCASTSS(address(c.Field(field)), x)
		return x
	}
	plain := arithmetic{
		times: func(constant string, x, dst VecVirtual) { VMULPS(all(constant, s.vec()), x, dst) },
		mul:   func(a, b, dst VecVirtual) { VMULPS(b, a, dst) },
		div:   func(a, b, dst VecVirtual) { VDIVPS(b, a, dst) },
		sqrt:  func(x, dst VecVirtual) { VSQRTPS(x, dst) },
	}
	// A subnormal operand or product stops the processor for some hundred cycles.
	// Conversions do not, and in float64 nothing here is subnormal. A product of two
	// float32 is exact there; a quotient or a root that is rounded to 53 bits is
	// rounded to 24 or fewer as if it had not been (Figueroa, 1995).
	careful := arithmetic{
		times: func(constant string, x, dst VecVirtual) {
			double := s.vec()
			VCVTPS2PD(all(constant, s.half()), double)
			s.inDouble(dst, []VecVirtual{x}, func(x []VecVirtual) { VMULPD(double, x[0], x[0]) })
		},
		mul: func(a, b, dst VecVirtual) {
			s.inDouble(dst, []VecVirtual{a, b}, func(x []VecVirtual) { VMULPD(x[1], x[0], x[0]) })
		},
		div: func(a, b, dst VecVirtual) {
			s.inDouble(dst, []VecVirtual{a, b}, func(x []VecVirtual) { VDIVPD(x[1], x[0], x[0]) })
		},
		sqrt: func(x, dst VecVirtual) {
			s.inDouble(dst, []VecVirtual{x}, func(x []VecVirtual) { VSQRTPD(x[0], x[0]) })
		},
	}
	nan, t := all32bits(s.vec(), nan32), s.vec()
	squares, moments, turns := s.tiny(0x1p-58, 0x1p-100), s.tiny(0x1p-100), 0
	walk("g", s.lanes(4), []stream{p, g, m, v}, s.narrow, func(k []*mask) {
		ahead(k, p, g, m, v)
		turns++
		tiny, dying, end := fmt.Sprintf("tiny%d", turns), fmt.Sprintf("dying%d", turns), fmt.Sprintf("end%d", turns)
		gi, mi, vi, w := s.vec(), s.vec(), s.vec(), s.vec()
		s.load(g.mem(), gi, pick(k, 0), 4)
		s.load(m.mem(), mi, pick(k, 0), 4)
		s.load(v.mem(), vi, pick(k, 0), 4)
		s.load(p.mem(), w, pick(k, 0), 4)
		squares(tiny, gi, vi)
		moments(dying, mi)
		adamTurn(plain, plain, gi, mi, vi, w, all)
		JMP(LabelRef(end))
		Label(dying) // as the first moment is where there is no gradient any more
		adamTurn(careful, plain, gi, mi, vi, w, all)
		JMP(LabelRef(end))
		Label(tiny)
		adamTurn(careful, careful, gi, mi, vi, w, all)
		Label(end)
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

// adamTurn moves moments and parameters by a gradient, which it overwrites: first
// says how it computes the first moment and the step, second all else.
func adamTurn(first, second arithmetic, g, m, v, p VecVirtual, all func(string, VecVirtual) VecVirtual) {
	square, step := like(g), like(g)
	second.mul(g, g, square)
	first.times("beta1", m, m)
	second.times("rest1", g, g)
	VADDPS(g, m, m)
	second.times("beta2", v, v)
	second.times("rest2", square, square)
	VADDPS(square, v, v)

	second.times("c2", v, square)
	second.sqrt(square, square)
	VADDPS(all("eps", like(g)), square, square)
	first.times("c1", m, step)
	first.div(step, square, step)
	first.times("lr", step, step)
	second.times("shrink", p, square)
	VSUBPS(square, p, p)
	VSUBPS(step, p, p)
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
		VSQRTPS(vi, x)
		VADDPS(eps, x, x)
		VDIVPS(x, gi, gi)
		VMULPS(lr, gi, gi)
		VSUBPS(gi, w, w)
		s.quiet32(w, nan, t)
		s.quiet32(vi, nan, t)
		s.store(w, p.mem(), pick(k, 0), 4)
		s.store(vi, v.mem(), pick(k, 0), 4)
	})
	finish()
}
