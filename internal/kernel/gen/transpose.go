package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// transpose writes the copy of blocks of 8 by 8, which lie side by side in src and
// one below the other in dst. Rows r and r+4 of src share a register, so that the
// two halves of a register are two transposes of 4 by 4, and never mix.
func transpose() {
	Implement("transposeAVX2")
	dst := Load(Param("dst"), GP64()).(GPVirtual)
	src := Load(Param("src"), GP64()).(GPVirtual)
	blocks := Load(Param("blocks"), GP64()).(GPVirtual)
	to := Load(Param("dstStride"), GP64()).(GPVirtual)
	from := Load(Param("srcStride"), GP64()).(GPVirtual)
	SHLQ(U8(2), to)
	SHLQ(U8(2), from)
	from3, lower := GP64(), GP64()
	LEAQ(Mem{Base: from, Index: from, Scale: 2}, from3)
	LEAQ(Mem{Base: src, Index: from, Scale: 4}, lower)

	Label("loop")
	for half := range 2 {
		var v, t [4]VecVirtual
		for r, index := range []GPVirtual{nil, from, from, from3} {
			v[r], t[r] = YMM(), YMM()
			at := func(base GPVirtual) Mem {
				m := Mem{Base: base, Disp: 16 * half}
				if index != nil {
					m.Index, m.Scale = index, uint8(1+r%3/2) // 1, 2, 1 for rows 1, 2, 3
				}
				return m
			}
			VMOVUPS(at(src), v[r].(Vec).AsX())
			VINSERTF128(U8(1), at(lower), v[r], v[r])
		}
		VUNPCKLPS(v[1], v[0], t[0])
		VUNPCKLPS(v[3], v[2], t[1])
		VUNPCKHPS(v[1], v[0], t[2])
		VUNPCKHPS(v[3], v[2], t[3])
		VUNPCKLPD(t[1], t[0], v[0])
		VUNPCKHPD(t[1], t[0], v[1])
		VUNPCKLPD(t[3], t[2], v[2])
		VUNPCKHPD(t[3], t[2], v[3])
		for r := range 4 {
			VMOVUPS(v[r], Mem{Base: dst})
			ADDQ(to, dst)
		}
	}
	ADDQ(U8(32), src)
	ADDQ(U8(32), lower)
	DECQ(blocks)
	JNZ(LabelRef("loop"))
	finish()
}
