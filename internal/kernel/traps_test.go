package kernel

import (
	"math"
	"testing"
)

// shapes are small and great ones, with every kind of tile.
var trapShapes = [][2]int{{1, 1}, {1, 10}, {3, 7}, {8, 8}, {13, 33}, {4, 70}, {40, 16}, {30, 100}}

// filled returns n times x.
func filled(n int, x float32) []float32 {
	all := make([]float32, n)
	for i := range all {
		all[i] = x
	}
	return all
}

// A sum in float64 that is rounded to float32 afterwards is rounded twice. This
// is a case in which that shows; random ones hardly ever hit it.
func TestAProductRoundsEachStepOnce(t *testing.T) {
	const a, b, c, want = 1 + 0x1p-20, (1 - 0x1p-20) * 0x1p-24, 1 + 0x1p-23, 0x3f800001
	each(t, func(t *testing.T) {
		var s Scratch
		for _, d := range trapShapes {
			for _, g := range products {
				sum := filled(d[0]*d[1], c)
				g.run(&s, d[0], d[1], 1, filled(d[0], a), filled(d[1], b), sum, true)
				for i, x := range sum {
					if math.Float32bits(x) != want {
						t.Fatalf("%s %v: element %d is %08x, want %08x", g.name, d, i, math.Float32bits(x), want)
					}
				}
			}
		}
	})
}

// Nothing is added to a chain, which would turn -0 into +0 and Inf into NaN, and
// nothing is left out of it: zero times infinity is no zero.
func TestNoTermOfAProductIsAddedOrSkipped(t *testing.T) {
	inf, minus := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	each(t, func(t *testing.T) {
		var s Scratch
		for _, c := range []struct {
			what      string
			a, b, sum float32
			k         int
			want      uint32
		}{
			{"-0 plus nothing", 1, 1, minus, 0, 0x80000000},
			{"-0 plus -0", minus, 1, minus, 3, 0x80000000},
			{"-0 plus +0", 0, 1, minus, 3, 0},
			{"infinity times 1", inf, 1, 1, 5, 0x7f800000},
			{"0 times infinity", 0, inf, 1, 1, nanBits32},
			{"infinity times 0", inf, 0, 1, 7, nanBits32},
		} {
			for _, d := range trapShapes {
				for _, g := range products {
					got := filled(d[0]*d[1], c.sum)
					g.run(&s, d[0], d[1], c.k, filled(d[0]*c.k, c.a), filled(c.k*d[1], c.b), got, true)
					for i, x := range got {
						if math.Float32bits(x) != c.want {
							t.Fatalf("%s, %s %v: element %d is %08x, want %08x", c.what, g.name, d, i, math.Float32bits(x), c.want)
						}
					}
				}
			}
		}
	})
}

// Rounding to nearest makes -0 of what is a little below 0; a rank that has no
// share would add +0 to it, and one process alone would not.
func TestRoundingMakesNoMinusZero(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, n := range lengths() {
			for _, x := range []float32{-0.3, float32(math.Copysign(0, -1)), -0.5, -0x1p-149, 0.3} {
				acc := make([]float64, n)
				for what, round := range map[string]func(acc []float64, g []float32, scale float64) (uint64, uint8){"RoundNew": RoundNew, "RoundAdd": RoundAdd} {
					round(acc, filled(n, x), 1)
					for i, v := range acc {
						if math.Float64bits(v) != 0 {
							t.Fatalf("%s makes %016x of element %d of %d, %v; want +0", what, math.Float64bits(v), i, n, x)
						}
					}
				}
			}
		}
	})
}

func TestReLUOfTroublesomeNumbers(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, n := range lengths() {
			for in, want := range map[uint32]uint32{
				0x80000000: 0, 0: 0, 0xff800000: 0, 0x7f800000: 0x7f800000,
				0x7fc00000: 0, 0xffc12345: 0, 1: 1, 0x80000001: 0, 0x3f800000: 0x3f800000,
			} {
				x := filled(n, math.Float32frombits(in))
				ReLU(x, x)
				for i := range x {
					if got := math.Float32bits(x[i]); got != want {
						t.Fatalf("element %d of %d: the relu of %08x is %08x, want %08x", i, n, in, got, want)
					}
				}
			}
		}
	})
}
