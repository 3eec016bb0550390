package fmath

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// bigFMA32 rounds once, in arithmetic wide enough to be exact.
func bigFMA32(a, b, c float32) float32 {
	x := new(big.Float).SetPrec(1000).SetFloat64(float64(a))
	x.Mul(x, new(big.Float).SetFloat64(float64(b)))
	x.Add(x, new(big.Float).SetFloat64(float64(c)))
	if x.Sign() == 0 {
		return float32(float64(float64(a)*float64(b)) + float64(c)) // the sign of zero
	}
	r, _ := x.Float32()
	return r
}

func checkFMA(t interface{ Fatalf(string, ...any) }, a, b, c float32) {
	got, want := FMA32(a, b, c), bigFMA32(a, b, c)
	if math.Float32bits(got) != math.Float32bits(want) {
		t.Fatalf("FMA32(%x, %x, %x) = %x (%08x), want %x (%08x)", a, b, c,
			got, math.Float32bits(got), want, math.Float32bits(want))
	}
}

func TestFMA32RoundsOnce(t *testing.T) {
	got := FMA32(1+0x1p-20, (1-0x1p-20)*0x1p-24, 1+0x1p-23)
	if math.Float32bits(got) != 0x3f800001 {
		t.Errorf("the case of two roundings gives %08x, want 3f800001", math.Float32bits(got))
	}
	for _, v := range [][3]float32{
		// Subnormal results, where ties lie at other bits.
		{(0x1p23 + 1) * 0x1p-98, (0x1p24 - 2) * 0x1p-99, 0x1p-127},
		{(0x1p23 + 1) * 0x1p-98, (0x1p24 - 2) * 0x1p-99, 0x1p-127 + 0x1p-149},
		{0x1p-75, 0x1p-75, 0}, {0x1.000002p-75, 0x1p-75, 0}, {-0x1p-75, 0x1p-76, 0},
		{0x1p-75, 0x1p-75, 0x1p-149}, {0x1.fffffep127, 1, 0x1p103}, {0x1.fffffep127, 1, 0x1.fffffep102},
		{1, 0, float32(math.Copysign(0, -1))}, {-1, 0, 0}, {-1, 0, float32(math.Copysign(0, -1))},
	} {
		checkFMA(t, v[0], v[1], v[2])
	}
}

// finite draws numbers with few bits or many, of exponents that meet.
func finite(t *rapid.T, label string, lo, hi int) float32 {
	m := rapid.Uint32Range(0, 1<<23-1).Draw(t, label+" mantissa")
	m &= rapid.SampledFrom([]uint32{1<<23 - 1, 0x7ff800, 0x600007, 3, 0}).Draw(t, label+" mask")
	e := uint32(rapid.IntRange(lo, hi).Draw(t, label+" exponent"))
	s := uint32(rapid.IntRange(0, 1).Draw(t, label+" sign"))
	return math.Float32frombits(s<<31 | e<<23 | m)
}

func TestFMA32MatchesExactArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			checkFMA(t, finite(t, "a", 0, 254), finite(t, "b", 0, 254), finite(t, "c", 0, 254))
			checkFMA(t, finite(t, "a", 120, 130), finite(t, "b", 100, 110), finite(t, "c", 120, 130))
			checkFMA(t, finite(t, "a", 60, 66), finite(t, "b", 45, 65), finite(t, "c", 0, 2))
		}
	})
}

func TestFMA32CarriesInfinityAndNaN(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, v := range []struct{ a, b, c, want float32 }{
		{inf, 1, 1, inf},
		{inf, -1, 1, -inf},
		{1, 1, -inf, -inf},
		{inf, 1, -inf, nan},
		{inf, 0, 1, nan},
		{nan, 1, 1, nan},
		{1, 1, nan, nan},
		{0x1p127, 2, -inf, -inf},
	} {
		if got := FMA32(v.a, v.b, v.c); got != v.want && (got == got || v.want == v.want) {
			t.Errorf("FMA32(%v, %v, %v) = %v, want %v", v.a, v.b, v.c, got, v.want)
		}
	}
}
