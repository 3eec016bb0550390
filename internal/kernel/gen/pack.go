package main

import (
	"fmt"
	"math"
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// packer writes packing and unpacking, block by block of 64 elements. Numbers are
// worked on as 64 bits, a float32 in the upper half of them, a register of eight (or
// four) after the other; a group is eight numbers.
type packer struct {
	s    isa
	size int // bytes of an element
}

const (
	packBlock  = 64
	packHeader = 3
	packSlack  = 64
)

// one is the bit at which exponents begin.
func (p packer) one() int {
	if p.size == 4 {
		return 55
	}
	return 52
}

// registers returns how many registers a block takes.
func (p packer) registers() int { return packBlock / p.s.lanes(8) }

// parts returns how many registers a group takes.
func (p packer) parts() int { return 8 / p.s.lanes(8) }

// load reads register i of a block as bits.
func (p packer) load(x stream, i int) VecVirtual {
	v, at := p.s.vec(), x.at(i*p.s.lanes(8))
	if p.size == 4 {
		VPMOVZXDQ(at, v)
		VPSLLQ(U8(32), v, v)
		return v
	}
	p.s.load(at, v, nil, 8)
	return v
}

// store is the reverse of load.
func (p packer) store(v VecVirtual, x stream, i int) {
	at := x.at(i * p.s.lanes(8))
	if p.size == 8 {
		p.s.store(v, at, nil, 8)
		return
	}
	if p.s.wide {
		VPSRLQ(U8(32), v, v)
		VPMOVQD(v, at)
		return
	}
	// The upper halves of both lanes, side by side.
	half := XMM()
	VEXTRACTI128(U8(1), v, half)
	VSHUFPS(U8(0xdd), half, v.(Vec).AsX(), half)
	VMOVUPS(half, at)
}

func (s isa) and(x, y, dst VecVirtual) {
	if s.wide {
		VPANDQ(x, y, dst)
	} else {
		VPAND(x, y, dst)
	}
}

func (s isa) or(x, y VecVirtual) {
	if s.wide {
		VPORQ(x, y, y)
	} else {
		VPOR(x, y, y)
	}
}

// broadcast returns a register with r in every lane.
func (s isa) broadcast(r GPVirtual) VecVirtual {
	v := s.vec()
	if s.wide {
		VPBROADCASTQ(r, v)
		return v
	}
	VMOVQ(r, v.(Vec).AsX())
	VPBROADCASTQ(v.(Vec).AsX(), v)
	return v
}

// count returns r as a count of shifts.
func count(r GPVirtual) VecVirtual {
	x := XMM()
	VMOVQ(r, x)
	return x
}

// shape is what a header says, in registers.
type shape struct {
	w     GPVirtual // bits of a code
	bytes GPVirtual // w/8

	drop, lift, whole VecVirtual // counts: of drop, of 64-w, of 8*bytes
	base, sign        VecVirtual // in every lane: base, and the highest bit of a code
}

// shapeOf makes a shape of a header's parts. It uses base up.
func (p packer) shapeOf(w, drop, base GPVirtual) shape {
	h := shape{w: w, bytes: GP64(), drop: count(drop)}
	t, one := GP64(), GP64()
	SHLQ(U8(uint8(p.one())), base)
	h.base = p.s.broadcast(base)
	LEAQ(Mem{Base: w, Disp: -1}, t)
	MOVQ(U32(1), one)
	SHLXQ(t, one, one)
	h.sign = p.s.broadcast(one)
	MOVQ(U32(64), t)
	SUBQ(w, t)
	h.lift = count(t)
	MOVQ(w, h.bytes)
	SHRQ(U8(3), h.bytes)
	LEAQ(Mem{Base: h.bytes, Index: h.bytes, Scale: 1}, t)
	SHLQ(U8(2), t)
	h.whole = count(t)
	return h
}

// putSign ors the sign of u into the code c: u >> (64-w) has it at its place.
func (p packer) putSign(u, c VecVirtual, h shape) {
	t := p.s.vec()
	VPSRLQ(h.lift, u, t)
	if p.s.wide {
		VPTERNLOGQ(U8(0xf8), h.sign, t, c) // c | t&sign
		return
	}
	VPAND(h.sign, t, t)
	VPOR(t, c, c)
}

// pack is described at Pack64.
func pack(s isa, size int) {
	p := packer{s: s, size: size}
	s.function(fmt.Sprintf("pack%d", 8*size))
	dst, x := Load(Param("dst").Base(), GP64()).(GPVirtual), open("x", size)
	n := Load(Param("x").Len(), GP64()).(GPVirtual)
	var codes Mem
	if !s.wide {
		codes = AllocLocal(8 * packBlock)
	}

	Label("block")
	CMPQ(n, U32(packBlock))
	JL(LabelRef("end"))
	w, drop, base := p.describe(x)
	header := GP64()
	MOVQ(base, header)
	SHLQ(U8(6), header)
	ORQ(drop, header)
	SHLQ(U8(7), header)
	ORQ(w, header)
	MOVL(header.As32(), Mem{Base: dst})
	ADDQ(U32(packHeader), dst)
	p.emit(x, dst, p.shapeOf(w, drop, base), codes)

	Label("next")
	ADDQ(U32(uint32(packBlock*size)), x.ptr)
	SUBQ(U32(packBlock), n)
	JMP(LabelRef("block"))

	Label("zeros")
	MOVB(U8(0), Mem{Base: dst})
	ADDQ(U32(1), dst)
	JMP(LabelRef("next"))

	Label("end")
	SUBQ(address(Param("dst").Base()), dst)
	Store(dst, ReturnIndex(0))
	finish()
}

// describe returns the parts of a block's header, or goes to zeros. The least and the
// greatest exponent are found in the upper halves of 64 bits.
func (p packer) describe(x stream) (w, drop, base GPVirtual) {
	s := p.s
	any, least, most := s.vec(), s.vec(), s.vec()
	abs, minus := all64bits(s.vec(), math.MaxInt64), all64bits(s.vec(), math.MaxUint64)
	for i := range p.registers() {
		u, a := p.load(x, i), s.vec()
		if i == 0 {
			s.and(abs, u, most)
			VPADDQ(minus, most, least)
			any = u
			continue
		}
		s.or(u, any)
		s.and(abs, u, a)
		VPMAXUD(a, most, most)
		VPADDQ(minus, a, a)
		VPMINUD(a, least, least)
	}
	scalar := func(v VecVirtual, join func(from, into VecVirtual)) GPVirtual {
		r := GP64()
		VMOVQ(s.fold(v, 8, join), r)
		return r
	}
	all := scalar(any, func(from, into VecVirtual) { VPOR(from, into, into) })
	TESTQ(all, all)
	JZ(LabelRef("zeros"))
	base = scalar(least, func(from, into VecVirtual) { VPMINUD(from, into, into) })
	top := scalar(most, func(from, into VecVirtual) { VPMAXUD(from, into, into) })

	ones, none, limit := GP64(), GP64(), GP64()
	drop, w = GP64(), GP64()
	MOVQ(all, ones)
	BTRQ(U8(63), ones)
	MOVQ(U32(uint32(p.one())), limit)
	TZCNTQ(ones, drop)
	CMPQ(drop, limit)
	CMOVQGT(limit, drop)
	SHRQ(U8(uint8(p.one())), base)
	XORQ(none, none)
	TESTQ(ones, ones)
	CMOVQEQ(none, base)

	// The longest code in bits: of the upper halves' difference, or, if there is none,
	// of all lower halves.
	MOVQ(base, w)
	SHLQ(U8(uint8(p.one())), w)
	SHRQ(U8(32), top)
	SHLQ(U8(32), top)
	SUBQ(w, top)
	MOVL(all.As32(), w.As32())
	ORQ(top, w)
	SHRXQ(drop, w, w)
	LEAQ(Mem{Base: w, Index: w, Scale: 1, Disp: 1}, w)
	BSRQ(w, w)
	ADDQ(U32(1), w)
	return w, drop, base
}

// emit writes the codes of a block to dst and moves it on. What is above the whole
// bytes of all codes must be known before the first group is stored, as each store
// spills over the next group.
func (p packer) emit(x stream, dst GPVirtual, h shape, codes Mem) {
	s := p.s
	abs, zero := all64bits(s.vec(), math.MaxInt64), zero(s)
	var kept []VecVirtual
	tops := make([]VecVirtual, p.parts()) // of four or eight groups, eight bits a number
	for i := range p.registers() {
		c := s.vec()
		p.encode(p.load(x, i), c, h, abs, zero)
		if s.wide {
			kept = append(kept, c)
		} else {
			s.store(c, codes.Offset(32*i), nil, 8)
		}
		p.gather(tops, i, c, h)
	}
	var pairs []VecVirtual
	for _, v := range tops {
		p.byGroup(v)
		s.transposeBits(v)
		pairs = append(pairs, s.quarters(v)...)
	}
	squeeze := p.squeezer(h)
	for group := range 8 {
		if s.wide {
			squeeze(kept[group], dst, 0)
		} else {
			for part := range 2 {
				c := s.vec()
				s.load(codes.Offset(32*(2*group+part)), c, nil, 8)
				squeeze(c, dst, part)
			}
		}
		top := Mem{Base: dst, Index: h.bytes, Scale: 8}
		if pair := pairs[group/2]; group%2 == 0 {
			VMOVQ(pair, top)
		} else {
			VMOVHPS(pair, top)
		}
		ADDQ(h.w, dst)
	}
}

// quarters returns each 16 bytes of v in a register of their own.
func (s isa) quarters(v VecVirtual) []VecVirtual {
	all := []VecVirtual{v.(Vec).AsX().(VecVirtual)}
	for i := 1; i < s.lanes(16); i++ {
		q := XMM()
		if s.wide {
			VEXTRACTI64X2(U8(uint8(i)), v, q)
		} else {
			VEXTRACTI128(U8(uint8(i)), v, q)
		}
		all = append(all, q)
	}
	return all
}

// encode sets c to the codes of u.
func (p packer) encode(u, c VecVirtual, h shape, abs, zero VecVirtual) {
	s, a := p.s, p.s.vec()
	s.and(abs, u, a)
	if s.wide {
		k := K()
		VPTESTMQ(a, a, k)
		VPSUBQ_Z(h.base, a, k, c)
	} else {
		t := s.vec()
		VPCMPEQQ(zero, a, t)
		VPSUBQ(h.base, a, a)
		VPANDN(a, t, c)
	}
	VPSRLQ(h.drop, c, c)
	p.putSign(u, c, h)
}

// gather puts what register i of the codes has above its whole bytes into the byte of
// its group. With AVX2 the second half of a group goes four bytes up.
func (p packer) gather(tops []VecVirtual, i int, c VecVirtual, h shape) {
	group, part := i/p.parts(), i%p.parts()
	per := 8 / len(tops)
	up, into := 8*(group%per)+32*part, group/per
	t := p.s.vec()
	VPSRLQ(h.whole, c, t)
	if up > 0 {
		VPSLLQ(U8(uint8(up)), t, t)
	}
	if group%per == 0 && part == 0 {
		tops[into] = t
		return
	}
	p.s.or(t, tops[into])
}

// byGroup brings the bytes of a group side by side, those of its numbers in order.
func (p packer) byGroup(v VecVirtual) {
	if p.s.wide {
		VPSHUFB(p.table("packPairs", 64, 1, func(i int) int { return i/2%8 + i%2*8 }), v, v)
		order := p.s.vec()
		p.s.load(p.table("packGroups", 32, 2, func(i int) int { return i/4 + i%4*8 }), order, nil, 8)
		VPERMW(v, order, v)
		return
	}
	VPSHUFB(p.table("packPairs", 32, 1, func(i int) int { return i/4%4 + i%2*8 + i/2%2*4 }), v, v)
	order := p.s.vec()
	p.s.load(p.table("packGroups", 8, 4, func(i int) int { return i/2 + i%2*4 }), order, nil, 8)
	VPERMD(v, order, v)
	VPSHUFB(p.table("packOrder", 32, 1, func(i int) int { return []int{0, 1, 4, 5, 2, 3, 6, 7}[i%8] + i%16/8*8 }), v, v)
}

// transposeBits is its namesake in kernel/pack.go, in every lane of 64 bits.
func (s isa) transposeBits(v VecVirtual) {
	t, u := s.vec(), s.vec()
	for _, step := range []struct {
		shift uint8
		mask  uint64
	}{{7, 0x00aa00aa00aa00aa}, {14, 0x0000cccc0000cccc}, {28, 0x00000000f0f0f0f0}} {
		VPSRLQ(U8(step.shift), v, t)
		s.xor(v, t)
		s.and(all64bits(s.vec(), step.mask), t, t)
		VPSLLQ(U8(step.shift), t, u)
		s.xor(t, v)
		s.xor(u, v)
	}
}

// squeezer returns what stores the lowest bytes of codes: part 0 or 1 of a group.
func (p packer) squeezer(h shape) func(c VecVirtual, dst GPVirtual, part int) {
	// The two numbers of 16 bytes, for each number of bytes that they shrink to.
	order := p.perBytes("packSqueeze", h, 16, 1, func(bytes, i int) int {
		if i < 2*bytes {
			return i/bytes*8 + i%bytes
		}
		return 0x80
	})
	if p.s.wide {
		lanes := p.s.vec()
		p.s.load(p.perBytes("packJoin", h, 32, 2, func(bytes, i int) int {
			if i < 4*bytes {
				return i/bytes*8 + i%bytes
			}
			return 0
		}), lanes, nil, 8)
		bytes := p.s.vec()
		VBROADCASTI32X4(order, bytes)
		return func(c VecVirtual, dst GPVirtual, _ int) {
			t := p.s.vec()
			VPSHUFB(bytes, c, t)
			VPERMW(t, lanes, t)
			p.s.store(t, Mem{Base: dst}, nil, 8)
		}
	}
	bytes, at := p.s.vec(), p.corners(h)
	VBROADCASTI128(order, bytes)
	return func(c VecVirtual, dst GPVirtual, part int) {
		VPSHUFB(bytes, c, c)
		VMOVDQU(c.(Vec).AsX(), at(dst, 2*part))
		VEXTRACTI128(U8(1), c, at(dst, 2*part+1))
	}
}

// widener returns what loads the lowest bytes of codes: part 0 or 1 of a group.
func (p packer) widener(h shape) func(src GPVirtual, part int) VecVirtual {
	order := p.perBytes("packWiden", h, 16, 1, func(bytes, i int) int {
		if i%8 < bytes {
			return i/8*bytes + i%8
		}
		return 0x80
	})
	if p.s.wide {
		lanes := p.s.vec()
		p.s.load(p.perBytes("packPart", h, 32, 2, func(bytes, i int) int {
			return min(i/8*bytes+i%8, 31)
		}), lanes, nil, 8)
		bytes := p.s.vec()
		VBROADCASTI32X4(order, bytes)
		return func(src GPVirtual, _ int) VecVirtual {
			c := p.s.vec()
			VPERMW(Mem{Base: src}, lanes, c)
			VPSHUFB(bytes, c, c)
			return c
		}
	}
	bytes, at := p.s.vec(), p.corners(h)
	VBROADCASTI128(order, bytes)
	return func(src GPVirtual, part int) VecVirtual {
		c := p.s.vec()
		VBROADCASTI128(at(src, 2*part), c)
		VINSERTI128(U8(1), at(src, 2*part+1), c, c)
		VPSHUFB(bytes, c, c)
		return c
	}
}

// corners returns what tells where each two numbers of a group have their bytes.
func (p packer) corners(h shape) func(base GPVirtual, i int) Mem {
	triple := GP64()
	LEAQ(Mem{Base: h.bytes, Index: h.bytes, Scale: 2}, triple)
	return func(base GPVirtual, i int) Mem {
		return []Mem{
			{Base: base},
			{Base: base, Index: h.bytes, Scale: 2},
			{Base: base, Index: h.bytes, Scale: 4},
			{Base: base, Index: triple, Scale: 2},
		}[i]
	}
}

var packTables = map[string]Mem{}

// table returns read-only memory of n numbers of some bytes, f(0), f(1) and so on.
func (p packer) table(name string, n, size int, f func(i int) int) Mem {
	name += p.s.name
	m, ok := packTables[name]
	if !ok {
		words := make([]uint64, n*size/8)
		for i := range n {
			words[i*size/8] |= uint64(f(i)) << (8 * (i * size % 8))
		}
		m = p.s.row(name, words)
		packTables[name] = m
	}
	return m
}

// perBytes returns that one of nine tables which is for h.bytes.
func (p packer) perBytes(name string, h shape, n, size int, f func(bytes, i int) int) Mem {
	m := p.table(name, 9*n, size, func(i int) int { return f(i/n, i%n) })
	at, start := GP64(), GP64()
	MOVQ(h.bytes, at)
	SHLQ(U8(uint8(bits.Len(uint(n*size))-1)), at)
	LEAQ(m, start)
	ADDQ(start, at)
	return Mem{Base: at}
}

// unpack is described at Unpack64, with add at UnpackAdd64.
func unpack(s isa, size int, add bool) {
	p := packer{s: s, size: size}
	name, to := "unpack", "dst"
	if add {
		name, to = "unpackAdd", "acc"
	}
	s.function(fmt.Sprintf("%s%d", name, 8*size))
	dst, src := open(to, size), Load(Param("src").Base(), GP64()).(GPVirtual)
	n, left := Load(Param(to).Len(), GP64()).(GPVirtual), Load(Param("src").Len(), GP64()).(GPVirtual)
	var above Mem
	if !s.wide {
		above = AllocLocal(64)
	}

	Label("block")
	CMPQ(n, U32(packBlock))
	JL(LabelRef("end"))
	TESTQ(left, left)
	JZ(LabelRef("end"))
	w, drop, base := p.parse(src, left)
	ADDQ(U32(packHeader), src)
	h := p.shapeOf(w, drop, base)
	p.absorb(dst, src, h, above, add)
	SHLQ(U8(3), w)
	ADDQ(U32(packHeader), w)
	SUBQ(w, left)

	Label("next")
	ADDQ(U32(uint32(packBlock*size)), dst.ptr)
	SUBQ(U32(packBlock), n)
	JMP(LabelRef("block"))

	Label("zeros")
	if !add {
		zero := zero(s)
		for i := 0; i < packBlock; i += s.lanes(size) {
			s.store(zero, dst.at(i), nil, 8)
		}
	}
	ADDQ(U32(1), src)
	SUBQ(U32(1), left)
	JMP(LabelRef("next"))

	Label("end")
	done := Load(Param(to).Len(), GP64()).(GPVirtual)
	SUBQ(n, done)
	Store(done, ReturnIndex(0))
	SUBQ(address(Param("src").Base()), src)
	Store(src, ReturnIndex(1))
	finish()
}

// parse reads a header, and goes to zeros if there is none, and to end if it is
// malformed or src so short that reading the block might go beyond.
func (p packer) parse(src, left GPVirtual) (w, drop, base GPVirtual) {
	w, drop, base = GP64(), GP64(), GP64()
	MOVBLZX(Mem{Base: src}, w.As32())
	TESTL(w.As32(), w.As32())
	JZ(LabelRef("zeros"))
	ANDL(U32(127), w.As32())
	JZ(LabelRef("end"))
	need := GP64()
	MOVQ(w, need)
	SHLQ(U8(3), need)
	ADDQ(U32(packHeader+packSlack), need)
	CMPQ(left, need)
	JL(LabelRef("end"))
	MOVL(Mem{Base: src}, drop.As32())
	MOVL(drop.As32(), base.As32())
	SHRL(U8(7), drop.As32())
	ANDL(U32(63), drop.As32())
	SHRL(U8(13), base.As32())
	ANDL(U32(1<<11-1), base.As32())
	sum := GP64()
	LEAQ(Mem{Base: w, Index: drop, Scale: 1}, sum)
	CMPQ(sum, U32(64))
	JG(LabelRef("end"))
	CMPQ(drop, U32(uint32(p.one())))
	JG(LabelRef("end"))
	if p.size == 4 {
		CMPQ(drop, U32(32))
		JL(LabelRef("end"))
		CMPQ(base, U32(1<<8))
		JGE(LabelRef("end"))
	}
	return w, drop, base
}

// absorb sets or adds to the elements of a block, and moves src behind it.
func (p packer) absorb(dst stream, src GPVirtual, h shape, above Mem, add bool) {
	s := p.s
	tops := p.takeTops(src, h, above)
	widen := p.widener(h)
	zero, top := zero(s), all64bits(s.vec(), 1<<63)
	var nan, t VecVirtual
	if add {
		nan, t = all64bits(s.vec(), nan64), s.vec()
	}
	for i := range p.registers() {
		c, up := widen(src, i%p.parts()), s.vec()
		VPMOVZXBQ(tops[i], up)
		VPSLLQ(h.whole, up, up)
		s.or(up, c)
		x := p.decode(c, h, zero, top)
		if add {
			acc := s.vec()
			s.load(dst.at(i*s.lanes(8)), acc, nil, 8)
			VADDPD(x, acc, x)
			s.quiet64(x, nan, t)
		}
		p.store(x, dst, i)
		if i%p.parts() == p.parts()-1 {
			ADDQ(h.w, src)
		}
	}
}

// takeTops returns what the numbers have above their whole bytes, a byte of each, for
// each register of them.
func (p packer) takeTops(src GPVirtual, h shape, above Mem) (tops []Op) {
	s := p.s
	at, keep, rest := GP64(), GP64(), GP64()
	MOVQ(I32(-1), keep)
	MOVQ(h.w, rest)
	ANDQ(U32(7), rest)
	SHLQ(U8(3), rest)
	BZHIQ(rest, keep, keep)
	mask := s.broadcast(keep)
	LEAQ(Mem{Base: src, Index: h.bytes, Scale: 8}, at)
	var pairs [4]VecVirtual // of groups, each in a register of its own
	for i := range pairs {
		v := s.vec()
		VPBROADCASTQ(Mem{Base: at}, v)
		ADDQ(h.w, at)
		VPINSRQ(U8(1), Mem{Base: at}, v.(Vec).AsX(), v.(Vec).AsX())
		ADDQ(h.w, at)
		pairs[i] = v
	}
	join := func(low, high VecVirtual) VecVirtual {
		VINSERTI128(U8(1), high.(Vec).AsX(), low.(Vec).AsY(), low.(Vec).AsY())
		return low
	}
	for i := range p.parts() {
		v := join(pairs[2*i], pairs[2*i+1])
		if s.wide {
			VINSERTI64X4(U8(1), join(pairs[2], pairs[3]).(Vec).AsY(), v, v)
		}
		s.and(mask, v, v)
		s.transposeBits(v)
		if s.wide {
			for _, q := range s.quarters(v) {
				high := XMM()
				VPSRLDQ(U8(8), q, high)
				tops = append(tops, q, high)
			}
			continue
		}
		s.store(v, above.Offset(32*i), nil, 8) // there are too few registers
		for j := range 8 {
			tops = append(tops, above.Offset(32*i+4*j))
		}
	}
	return tops
}

// decode returns the bits that the code c stands for.
func (p packer) decode(c VecVirtual, h shape, zero, top VecVirtual) VecVirtual {
	s := p.s
	a, x := s.vec(), s.vec()
	if s.wide {
		k := K()
		VPANDNQ(c, h.sign, a)
		VPSLLQ(h.drop, a, x)
		VPTESTMQ(a, a, k)
		VPADDQ(h.base, x, k, x)
		VPSLLQ(h.lift, c, c)
		VPTERNLOGQ(U8(0x78), top, c, x) // x ^ c&top
		return x
	}
	VPANDN(c, h.sign, a)
	VPSLLQ(h.drop, a, x)
	VPCMPEQQ(zero, a, a)
	VPANDN(h.base, a, a)
	VPADDQ(a, x, x)
	VPSLLQ(h.lift, c, c)
	VPAND(top, c, c)
	VPXOR(c, x, x)
	return x
}
