package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// drop writes dropout: Philox for as many blocks as a register has lanes of 64 bits,
// one lane for each word of a counter, since what is multiplied and what comes of it
// then need no shuffling. The upper halves of lanes hold what nobody reads.
func drop(s isa) {
	s.function("drop")
	dst, x := open("dst", 4), open("x", 4)
	all := func(name string) VecVirtual {
		v := s.vec()
		VBROADCASTSS(address(Param(name)), v)
		return v
	}
	// Blocks lie in such an order that unpacking puts them in theirs.
	counter := s.vec()
	order := []uint64{0, 2, 1, 3}
	if s.wide {
		order = []uint64{0, 4, 1, 5, 2, 6, 3, 7}
	}
	s.load(s.row("blocks"+s.name, order), counter, nil, 8)
	first := s.vec()
	VPBROADCASTQ(address(Param("first")), first)
	VPADDQ(first, counter, counter)
	lanes := s.lanes(4)
	masks := func(n GPVirtual) []*mask {
		low, high := GP64(), GP64()
		MOVQ(U32(uint32(lanes)), low)
		CMPQ(n, low)
		CMOVQLT(n, low)
		MOVQ(n, high)
		SUBQ(low, high)
		return []*mask{s.maskFor(low, 4, false), s.maskFor(high, 4, false)}
	}
	walk("x", 2*lanes, []stream{dst, x}, masks, func(k []*mask) {
		for half, w := range s.philox(counter) {
			m := func(base Register) Mem { return Mem{Base: base, Disp: 4 * lanes * half} }
			v, f := s.vec(), s.vec()
			VPSRLD(U8(8), w, w)
			if s.wide {
				keep := K()
				VPCMPGTD(all("least"), w, keep)
				VMOVAPS_Z(all("scale"), keep, f)
			} else {
				VPCMPGTD(all("least"), w, f)
				VANDPS(all("scale"), f, f)
			}
			s.load(m(x.ptr), v, pick(k, half), 4)
			VMULPS(f, v, v)
			s.quiet32(v, all32bits(s.vec(), nan32), s.vec())
			s.store(v, m(dst.ptr), pick(k, half), 4)
		}
		VPADDQ(all64bits(s.vec(), uint64(s.lanes(8))), counter, counter)
	})
	finish()
}

// row returns read-only memory that holds words of 64 bits.
func (s isa) row(name string, words []uint64) Mem {
	m := GLOBL(name, 8|16)
	for i, w := range words {
		DATA(8*i, U64(w))
	}
	return m
}

// philox returns the words of the blocks whose numbers the lanes of counter hold:
// two registers of them in the order of the stream.
func (s isa) philox(counter VecVirtual) [2]VecVirtual {
	key := [2]VecVirtual{s.vec(), s.vec()}
	VBROADCASTSS(address(Param("k0")), key[0])
	VBROADCASTSS(address(Param("k1")), key[1])
	c := [4]VecVirtual{s.vec(), s.vec(), s.vec(), s.vec()}
	VPADDQ(counter, zero(s), c[0])
	for _, v := range c[1:] {
		VPXOR(v.(Vec).AsX(), v.(Vec).AsX(), v.(Vec).AsX())
	}
	for round := range 10 {
		product := [2]VecVirtual{s.vec(), s.vec()}
		VPMULUDQ(all32bits(s.vec(), 0xd2511f53), c[0], product[0])
		VPMULUDQ(all32bits(s.vec(), 0xcd9e8d57), c[2], product[1])
		for i, from := range []int{1, 0} {
			high := s.vec()
			VPSRLQ(U8(32), product[from], high)
			s.xor(key[i], high)
			s.xor(high, c[2*i+1])
			c[2*i], c[2*i+1] = c[2*i+1], product[from]
		}
		if round < 9 {
			VPADDD(all32bits(s.vec(), 0x9e3779b9), key[0], key[0])
			VPADDD(all32bits(s.vec(), 0xbb67ae85), key[1], key[1])
		}
	}
	pair := func(even, odd VecVirtual) VecVirtual {
		v := s.vec()
		VPSLLQ(U8(32), odd, v)
		if s.wide {
			k, t := K(), GP32()
			MOVL(U32(0x5555), t)
			KMOVW(t, k)
			VMOVDQA32(even, k, v)
		} else {
			VPBLENDD(U8(0x55), even, v, v)
		}
		return v
	}
	a, b := pair(c[0], c[1]), pair(c[2], c[3])
	low, high := s.vec(), s.vec()
	VPUNPCKLQDQ(b, a, low)
	VPUNPCKHQDQ(b, a, high)
	return [2]VecVirtual{low, high}
}

func zero(s isa) VecVirtual {
	v := s.vec()
	VPXOR(v.(Vec).AsX(), v.(Vec).AsX(), v.(Vec).AsX())
	return v
}

// xor is y ^= x.
func (s isa) xor(x, y VecVirtual) {
	if s.wide {
		VPXORQ(x, y, y)
	} else {
		VPXOR(x, y, y)
	}
}

// mulRows multiplies the rows of a matrix by one row.
func mulRows(s isa) {
	s.function("mulRows")
	dst, x, f := open("dst", 4), open("x", 4), open("f", 4)
	nan, t := all32bits(s.vec(), nan32), s.vec()
	grid(s, "f", s.lanes(4), s.narrow, []stream{dst, x}, []stream{f}, func(k []*mask, at []stream) {
		v := s.get(x, s.vec(), pick(k, 0))
		VMULPS(s.get(at[0], s.vec(), pick(k, 0)), v, v)
		s.quiet32(v, nan, t)
		s.store(v, dst.mem(), pick(k, 0), 4)
	})
}
