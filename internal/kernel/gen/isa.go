package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// isa is one of the two instruction sets.
type isa struct {
	name string
	wide bool // 512 bits rather than 256
	rows int  // of the largest tile of a product two registers wide

	rowsOne  int // of the largest tile one register wide
	rowsFour int // of the largest tile four registers wide
}

var (
	avx2   = isa{name: "AVX2", rows: 6, rowsOne: 8, rowsFour: 2}
	avx512 = isa{name: "AVX512", wide: true, rows: 12, rowsOne: 14, rowsFour: 4}
)

// lanes returns how many elements of so many bytes a register holds.
func (s isa) lanes(size int) int {
	if s.wide {
		return 64 / size
	}
	return 32 / size
}

// vec allocates a full register.
func (s isa) vec() VecVirtual {
	if s.wide {
		return ZMM()
	}
	return YMM()
}

// half allocates a register of half the width: what as many float32 need as a
// full one holds float64.
func (s isa) half() VecVirtual {
	if s.wide {
		return YMM()
	}
	return XMM()
}

// like allocates a register as wide as v.
func like(v VecVirtual) VecVirtual {
	if v.Size() == 64 {
		return ZMM()
	}
	return YMM()
}

// mask selects the first lanes of a register. A nil mask selects all.
type mask struct{ reg Register }

// maskFor returns the mask of the first n lanes of the given element size, for n
// from 1 to lanes. For AVX2 a mask is a vector, loaded from a row of ones followed
// by zeros; half says that it is for a half register.
func (s isa) maskFor(n GPVirtual, size int, half bool) *mask {
	if s.wide {
		t, k := GP32(), K()
		MOVL(I32(-1), t)
		BZHIL(n.As32(), t, t)
		KMOVW(t, k)
		return &mask{k}
	}
	v, p, back := s.vec(), GP64(), GP64()
	if half {
		v = s.half()
	}
	LEAQ(maskTable(), p)
	MOVQ(n, back)
	NEGQ(back)
	VMOVDQU(Mem{Base: p, Index: back, Scale: uint8(size), Disp: 32}, v)
	return &mask{v}
}

var table *Mem

// maskTable is 32 bytes of ones and 32 of zeros.
func maskTable() Mem {
	if table == nil {
		m := GLOBL("masks", 8|16)
		for i := range 4 {
			DATA(8*i, U64(math.MaxUint64))
		}
		for i := range 4 {
			DATA(32+8*i, U64(0))
		}
		table = &m
	}
	return *table
}

// load reads float32, or float64 if size is 8; masked-off lanes read as +0.
func (s isa) load(m Mem, v Op, k *mask, size int) {
	switch {
	case k == nil && size == 4:
		VMOVUPS(m, v)
	case k == nil:
		VMOVUPD(m, v)
	case s.wide && size == 4:
		VMOVUPS_Z(m, k.reg, v)
	case s.wide:
		VMOVUPD_Z(m, k.reg, v)
	case size == 4:
		VMASKMOVPS(m, k.reg, v)
	default:
		VMASKMOVPD(m, k.reg, v)
	}
}

// store is the reverse of load.
func (s isa) store(v Op, m Mem, k *mask, size int) {
	switch {
	case k == nil && size == 4:
		VMOVUPS(v, m)
	case k == nil:
		VMOVUPD(v, m)
	case s.wide && size == 4:
		VMOVUPS(v, k.reg, m)
	case s.wide:
		VMOVUPD(v, k.reg, m)
	case size == 4:
		VMASKMOVPS(v, k.reg, m)
	default:
		VMASKMOVPD(v, k.reg, m)
	}
}

// quiet32 replaces every NaN of v by nan. The vectors may be full or half ones;
// t is a vector of the same width.
func (s isa) quiet32(v, nan, t Op) {
	if s.wide {
		k := K()
		VCMPPS(U8(3), v, v, k)
		VMOVAPS(nan, k, v)
		return
	}
	VCMPPS(U8(3), v, v, t)
	VBLENDVPS(t, nan, v, v)
}

// flush32 replaces what is smaller in size than tiny by +0; t is another vector.
func (s isa) flush32(v, tiny, t Op) {
	const notLess = U8(5)
	VANDPS(all32bits(s.vec(), math.MaxInt32), v, t)
	if s.wide {
		k := K()
		VCMPPS(notLess, tiny, t, k)
		VMOVAPS_Z(v, k, v)
		return
	}
	VCMPPS(notLess, tiny, t, t)
	VANDPS(t, v, v)
}

// quiet64 is quiet32 for float64.
func (s isa) quiet64(v, nan, t Op) {
	if s.wide {
		k := K()
		VCMPPD(U8(3), v, v, k)
		VMOVAPD(nan, k, v)
		return
	}
	VCMPPD(U8(3), v, v, t)
	VBLENDVPD(t, nan, v, v)
}

var constants = map[uint64]Mem{}

// word returns a read-only constant of 8 bytes.
func word(bits uint64) Mem {
	m, ok := constants[bits]
	if !ok {
		m = GLOBL(fmt.Sprintf("c%016x", bits), 8|16)
		DATA(0, U64(bits))
		constants[bits] = m
	}
	return m
}

// all64 returns v with x in every lane.
func all64(v VecVirtual, x float64) VecVirtual {
	VBROADCASTSD(word(math.Float64bits(x)), v)
	return v
}

// all64bits returns v with the same 64 bits in every lane.
func all64bits(v VecVirtual, bits uint64) VecVirtual {
	VBROADCASTSD(word(bits), v)
	return v
}

// all32bits returns v with the same 32 bits in every lane.
func all32bits(v VecVirtual, bits uint32) VecVirtual {
	VBROADCASTSS(word(uint64(bits)<<32|uint64(bits)), v)
	return v
}

const (
	nan32 = 0x7fc00000
	nan64 = 0x7ff8000000000000

	tinyBits = (127 - 100) << 23 // 2^-100
)

// toFloat32 rounds a register of float64 into half a register of float32.
func (s isa) toFloat32(v, half VecVirtual) {
	if s.wide {
		VCVTPD2PS(v, half)
		return
	}
	VCVTPD2PSY(v, half)
}

// inDouble computes with float32 in float64, one half of the registers after the
// other, and rounds once. op leaves its result in x[0].
func (s isa) inDouble(dst VecVirtual, src []VecVirtual, op func(x []VecVirtual)) {
	var halves [2]VecVirtual
	for i := range halves {
		x := make([]VecVirtual, len(src))
		for j, v := range src {
			half := s.half()
			x[j] = s.vec()
			s.extract(i, v, half)
			VCVTPS2PD(half, x[j])
		}
		op(x)
		halves[i] = s.half()
		s.toFloat32(x[0], halves[i])
	}
	if s.wide {
		VINSERTF64X4(U8(1), halves[1], halves[0].(Vec).AsZ(), dst)
		return
	}
	VINSERTF128(U8(1), halves[1], halves[0].(Vec).AsY(), dst)
}

// extract copies the lower half of v, or with i = 1 the upper one.
func (s isa) extract(i int, v, half VecVirtual) {
	if s.wide {
		VEXTRACTF64X4(U8(uint8(i)), v, half)
		return
	}
	VEXTRACTF128(U8(uint8(i)), v, half)
}

// tiny returns what writes a jump that is taken if a lane of some x is smaller
// than the limit of that x, and not 0.
func (s isa) tiny(limits ...float32) func(label string, xs ...VecVirtual) {
	// Twice the bits of a float32 know no sign. Less 1, as unsigned integers, those
	// of 0 are the greatest of all.
	one := all32bits(s.vec(), 1)
	var bounds []VecVirtual
	for _, l := range limits {
		bounds = append(bounds, all32bits(s.vec(), 2*math.Float32bits(l)-2))
	}
	if s.wide {
		return func(label string, xs ...VecVirtual) {
			found := K()
			for i, x := range xs {
				y, k := s.vec(), K()
				VPADDD(x, x, y)
				VPSUBD(one, y, y)
				if i == 0 {
					k = found
				}
				VPCMPUD(U8(2), bounds[i], y, k) // y <= bound
				if i > 0 {
					KORW(k, found, found)
				}
			}
			KTESTW(found, found)
			JNE(LabelRef(label))
		}
	}
	return func(label string, xs ...VecVirtual) {
		found := s.vec()
		for i, x := range xs {
			y, least := s.vec(), s.vec()
			VPADDD(x, x, y)
			VPSUBD(one, y, y)
			VPMINUD(bounds[i], y, least)
			VPCMPEQD(least, y, y)
			if i == 0 {
				found = y
			} else {
				VPOR(y, found, found)
			}
		}
		VPTEST(found, found)
		JNE(LabelRef(label))
	}
}
