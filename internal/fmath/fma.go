package fmath

import "math"

const (
	signBit   = 1 << 63
	tailMask  = 1<<29 - 1                  // what a float64 has below a float32
	halfway   = 1 << 28                    // a tail in the middle between two float32
	minNormal = uint64(1023-126) << 52     // bits of 2^-126, float32's smallest normal
	nan64     = uint64(0x7ff8000000000000) // a quiet NaN
)

// FMA32 returns a*b + c with one rounding, as the hardware's fused instruction
// does. float32(math.FMA(a, b, c)) is not that: it rounds to 53 bits and then to
// 24, and is wrong where the first rounding lands on a tie of the second.
//
// The product of two float32 is exact in float64, so only the sum is rounded
// twice. That matters in two rare cases: the float64 sum lies halfway between
// two normal float32, or below the normal ones, where ties lie elsewhere. All
// others take the short way. Which NaN comes out is not specified.
func FMA32(a, b, c float32) float32 {
	s := float64(float64(a)*float64(b)) + float64(c)
	if u := math.Float64bits(s); u&tailMask != halfway && u&^signBit >= minNormal {
		return float32(s)
	}
	return fmaOdd(float64(float64(a)*float64(b)), float64(c))
}

// fmaOdd returns p+c rounded to float32 by way of "round to odd" (Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", 2008): the float64
// sum is truncated and its last bit set if anything was lost. Such a sum is
// never mistaken for a tie, since 53 >= 24+2.
func fmaOdd(p, c float64) float32 {
	s := p + c
	t := s - p
	lost := (p - (s - t)) + (c - t) // Knuth's TwoSum: s + lost is p + c exactly
	u := math.Float64bits(s)
	if lost != 0 && u&1 == 0 {
		if (lost > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}
