package main

import (
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// foldCRC writes the folding of a message into the 256 bytes before it. Sixteen lanes of
// 128 bits a go forward by 2048 bits at a time:
//
//	a = clmul(low half of a, x^(2048+32)) ^ clmul(high half of a, x^(2048-32)) ^ next
//
// which leaves the remainder modulo the polynomial of CRC-32C as it is. Bits are reflected,
// as that has them. Gopal and others, Fast CRC Computation for Generic Polynomials Using
// PCLMULQDQ Instruction, Intel 2009.
func foldCRC() {
	Implement("foldCRC")
	state := Load(Param("state"), GP64()).(GPVirtual)
	src := Load(Param("p").Base(), GP64()).(GPVirtual)
	n := Load(Param("p").Len(), GP64()).(GPVirtual)

	low, high := GP64(), GP64()
	MOVQ(U64(power(2048+32)), low)
	MOVQ(U64(power(2048-32)), high)
	k := ZMM()
	VMOVQ(low, k.AsX())
	VPINSRQ(U8(1), high, k.AsX(), k.AsX())
	VSHUFI32X4(U8(0), k, k, k)

	var a [4]VecVirtual
	for i := range a {
		a[i] = ZMM()
		VMOVDQU64(Mem{Base: state, Disp: 64 * i}, a[i])
	}
	SHRQ(U8(8), n)
	JZ(LabelRef("done"))
	Label("loop")
	for i := range a {
		t := ZMM()
		VPCLMULQDQ(U8(0x00), k, a[i], t)
		VPCLMULQDQ(U8(0x11), k, a[i], a[i])
		VPTERNLOGQ(U8(0x96), Mem{Base: src, Disp: 64 * i}, t, a[i]) // exclusive or of the three
	}
	ADDQ(U32(256), src)
	DECQ(n)
	JNZ(LabelRef("loop"))
	Label("done")
	for i := range a {
		VMOVDQU64(a[i], Mem{Base: state, Disp: 64 * i})
	}
	finish()
}

// power is x^n modulo the polynomial of CRC-32C, reflected in 33 bits: a product of two
// reflected factors is short of a bit, which this makes up for.
func power(n int) uint64 {
	const castagnoli = 0x1edc6f41
	r := uint32(1)
	for range n {
		if carry := r>>31 == 1; carry {
			r = r<<1 ^ castagnoli
		} else {
			r <<= 1
		}
	}
	return uint64(bits.Reverse32(r)) << 1
}
