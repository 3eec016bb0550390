package kernel

import (
	"math"
	"testing"
)

// ulps returns the distance of a float32 from the truth in units of the last
// place of the truth.
func ulps(got float32, truth float64) float64 {
	_, e := math.Frexp(truth)
	unit := math.Ldexp(1, max(e-24, -149))
	return math.Abs(float64(got)-truth) / unit
}

func TestElementaryFunctionsAreAlmostCorrectlyRounded(t *testing.T) {
	const stride = 10007 // of the bit patterns of float32: every exponent, 400 000 points
	for _, f := range []struct {
		name  string
		f     func(dst, x []float32)
		truth func(float64) float64
		limit float64
	}{
		{"Exp", Exp, math.Exp, 0.501},
		{"Log", Log, math.Log, 0.501},
		{"Tanh", Tanh, math.Tanh, 0.501},
		{"Sigmoid", Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 0.501},
		{"ELU", ELU, func(x float64) float64 {
			if x > 0 {
				return x
			}
			return math.Expm1(x)
		}, 0.501},
		{"GELU", GELU, func(x float64) float64 { return finite(x, x*math.Erfc(-x/math.Sqrt2)/2) }, 0.501},
		{"Swish", Swish, func(x float64) float64 { return finite(x, x/(1+math.Exp(-x))) }, 0.501},
	} {
		t.Run(f.name, func(t *testing.T) {
			worst, at := 0.0, float32(0)
			x, y := make([]float32, 4096), make([]float32, 4096)
			for u := uint64(0); u < 1<<32; {
				for i := range x {
					x[i] = math.Float32frombits(uint32(min(u, 1<<32-1)))
					u += stride
				}
				f.f(y, x)
				for i, e := range x {
					if bad, err := judge(y[i], f.truth(float64(e))); bad {
						t.Fatalf("%s(%x) = %x, want %x", f.name, e, y[i], f.truth(float64(e)))
					} else if err > worst {
						worst, at = err, e
					}
				}
			}
			t.Logf("largest error %.7f ulp, at %x", worst, at)
			if worst > f.limit {
				t.Errorf("largest error %.5f ulp, at %x, want at most %v", worst, at, f.limit)
			}
		})
	}
}

// finite is y, or the limit of a function that is about x above 0 and 0 below where
// its terms have none.
func finite(x, y float64) float64 {
	if y != y && x == x {
		return above(x)
	}
	return y
}

// judge compares a result with the truth: bad if one is NaN or infinite and the
// other should not be.
func judge(got float32, truth float64) (bad bool, err float64) {
	const top = 0x1.ffffffp127 // what rounds to +Inf
	switch {
	case truth != truth:
		return math.Float32bits(got) != nanBits32, 0
	case math.Abs(truth) >= top:
		return float64(got) != math.Copysign(math.Inf(1), truth), 0
	}
	return got != got || math.IsInf(float64(got), 0), ulps(got, truth)
}

func TestElementaryFunctionsAtTheEdges(t *testing.T) {
	inf, nan, minus := float32(math.Inf(1)), float32(math.NaN()), float32(math.Copysign(0, -1))
	each(t, func(t *testing.T) {
		for _, c := range []struct {
			name    string
			f       func(dst, x []float32)
			x, want float32
		}{
			{"Exp", Exp, 0, 1},
			{"Exp", Exp, minus, 1},
			{"Exp", Exp, inf, inf},
			{"Exp", Exp, -inf, 0},
			{"Exp", Exp, -103, 0x1p-149},
			{"Exp", Exp, -104.5, 0},
			{"Exp", Exp, 88.73, inf},
			{"Log", Log, 1, 0},
			{"Log", Log, 0, -inf},
			{"Log", Log, minus, -inf},
			{"Log", Log, inf, inf},
			{"Log", Log, -1, nan},
			{"Log", Log, -inf, nan},
			{"Tanh", Tanh, minus, minus},
			{"Tanh", Tanh, 0, 0},
			{"Tanh", Tanh, inf, 1},
			{"Tanh", Tanh, -inf, -1},
			{"Tanh", Tanh, -0x1p-149, -0x1p-149},
			{"Sigmoid", Sigmoid, 0, 0.5},
			{"ELU", ELU, minus, 0},
			{"ELU", ELU, -inf, -1},
			{"ELU", ELU, inf, inf},
			{"GELU", GELU, minus, 0},
			{"GELU", GELU, -inf, minus},
			{"GELU", GELU, inf, inf},
			{"GELU", GELU, -20, minus},
			{"Swish", Swish, minus, minus},
			{"Swish", Swish, -inf, minus},
			{"Swish", Swish, inf, inf},
			{"Swish", Swish, -120, minus},
			{"Sigmoid", Sigmoid, inf, 1},
			{"Sigmoid", Sigmoid, -inf, 0},
			{"Sigmoid", Sigmoid, -95, float32(math.Exp(-95))},
		} {
			got := []float32{0}
			c.f(got, []float32{c.x})
			if math.Float32bits(got[0]) != math.Float32bits(quiet32(c.want)) {
				t.Errorf("%s(%x) = %x, want %x", c.name, c.x, got[0], c.want)
			}
		}
		for _, f := range []func(dst, x []float32){Exp, Log, Tanh, Sigmoid, ELU, GELU, Swish} {
			got := []float32{0}
			f(got, []float32{math.Float32frombits(0xffc12345)})
			if math.Float32bits(got[0]) != nanBits32 {
				t.Errorf("a NaN becomes %08x, want %08x", math.Float32bits(got[0]), nanBits32)
			}
		}
	})
}
