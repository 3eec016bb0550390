package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"testing"
)

// activations are the functions of one argument and their portable twins.
var activations = []struct {
	name string
	f    func(dst, x []float32)
	twin func(dst, x []float32)
}{
	{"Exp", Exp, expGeneric},
	{"Log", Log, logGeneric},
	{"Tanh", Tanh, tanhGeneric},
	{"Sigmoid", Sigmoid, sigmoidGeneric},
	{"ELU", ELU, eluGeneric},
	{"GELU", GELU, geluGeneric},
	{"Swish", Swish, swishGeneric},
	{"LeakyReLU", func(dst, x []float32) { LeakyReLU(dst, x, 0.2) }, func(dst, x []float32) { leakyGeneric(dst, x, x, 0.2) }},
}

// slopes are the gradients, of dy and of x or y, and what looks like one.
var slopes = []struct {
	name string
	f    func(dx, dy, y []float32)
	twin func(dx, dy, y []float32)
}{
	{"ELUGrad", ELUGrad, eluGradGeneric},
	{"GELUGrad", GELUGrad, geluGradGeneric},
	{"SwishGrad", SwishGrad, swishGradGeneric},
	{"SigmoidGrad", SigmoidGrad, sigmoidGradGeneric},
	{"TanhGrad", TanhGrad, tanhGradGeneric},
	{"Multiply", Multiply, multiplyGeneric},
	{"LeakyReLUGrad", func(dx, dy, y []float32) { LeakyReLUGrad(dx, dy, y, 0.2) }, func(dx, dy, y []float32) { leakyGeneric(dx, dy, y, 0.2) }},
}

// everyKind returns n numbers: one of each exponent, then harsh ones.
func (s *source) everyKind(n int) []float32 {
	x := s.harsh(n)
	for i := range min(n, 512) {
		x[i] = math.Float32frombits(uint32(i)<<23 | uint32(s.next())&0x7fffff)
	}
	return x
}

func TestActivationsAreTheSameInEveryVariant(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(21)
		for _, n := range append(lengths(), 2000) {
			for _, x := range [][]float32{src.normal(n), src.harsh(n), src.everyKind(n)} {
				for _, a := range activations {
					want := make([]float32, n)
					a.twin(want, x)
					got, check := fenced(t, x)
					a.f(got, got)
					sameBits32(t, a.name, got, want)
					check()
				}
				for _, a := range slopes {
					dy, want := src.harsh(n), make([]float32, n)
					a.twin(want, dy, x)
					got, check := fenced(t, dy)
					a.f(got, got, x)
					sameBits32(t, a.name, got, want)
					check()
				}
			}
		}
	})
}

// goldenActivations is the SHA-256 of what activations and their gradients make of
// fixed inputs; see golden.
const goldenActivations = "08dae525fc35bb323a5bd04c45d12204ea81d189a12552bdd26064544cd8a71c"

func TestActivationsAreTheRecordedOnes(t *testing.T) {
	each(t, func(t *testing.T) {
		src, h := source(2028), sha256.New()
		for _, x := range [][]float32{src.normal(1000), src.everyKind(1000)} {
			for _, a := range activations {
				y := make([]float32, len(x))
				a.f(y, x)
				put32(h, y)
			}
			for _, a := range slopes {
				dx := src.normal(len(x))
				a.f(dx, dx, x)
				put32(h, dx)
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != goldenActivations {
			t.Errorf("the activations' SHA-256 is %s, recorded is %s", got, goldenActivations)
		}
	})
}

func TestGradientsOfActivationsAreClose(t *testing.T) {
	gelu := func(x float64) float64 {
		return math.Erfc(-x/math.Sqrt2)/2 + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	}
	swish := func(x float64) float64 {
		s := 1 / (1 + math.Exp(-x))
		return s + x*s/(1+math.Exp(x))
	}
	for _, f := range []struct {
		name  string
		f     func(dx, dy, y []float32)
		truth func(float64) float64
	}{{"GELUGrad", GELUGrad, gelu}, {"SwishGrad", SwishGrad, swish}} {
		worst := 0.0
		x, dx := make([]float32, 4096), make([]float32, 4096)
		ones := make([]float32, len(x))
		for i := range ones {
			ones[i] = 1
		}
		for u := uint64(0); u < 0x7f800000; {
			for i := range x {
				x[i] = math.Float32frombits(uint32(min(u, 0x7f7fffff)) | uint32(i)<<31)
				u += gradientStride
			}
			f.f(dx, ones, x)
			for i, e := range x {
				truth := f.truth(float64(e))
				if math.Abs(float64(e)) > 700 {
					truth = above(math.Copysign(1, float64(e)))
				}
				_, exp := math.Frexp(truth)
				last := math.Ldexp(1, max(exp-25, -150)) // half a unit of float32's last place
				err := math.Abs(float64(dx[i])-truth) - last
				if !(err <= 0x1p-38) {
					t.Fatalf("%s at %x is %x, want %x", f.name, e, dx[i], truth)
				}
				worst = max(worst, err)
			}
		}
		t.Logf("%s: the greatest error beyond the rounding is %.3g = 2^%.1f", f.name, worst, math.Log2(worst))
	}
}

const gradientStride = 5003

// A sum and a maximum that take several calls in assembly.
func TestSumAndMaxOfManyPieces(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(22)
		for _, n := range []int{15, 16, 17, 8192, 8193, 3*8192 + 77} {
			x := src.normal(n)
			if got, want := Sum(x), slowSum(x); math.Float32bits(got) != math.Float32bits(want) {
				t.Errorf("the sum of %d is %x, want %x", n, got, want)
			}
			for _, at := range []int{0, n / 2, n - 1} {
				x[at] = 1e30
				if got := Max(x); got != 1e30 {
					t.Errorf("the greatest of %d is %v, want what is at %d", n, got, at)
				}
				x[at] = math.Float32frombits(0xffc01234)
				if got := math.Float32bits(Max(x)); got != nanBits32 {
					t.Errorf("with a NaN at %d of %d the greatest is %08x", at, n, got)
				}
				x[at] = -1
			}
			for i := range x {
				x[i] = float32(math.Copysign(0, -1))
			}
			if got := math.Float32bits(Max(x)); got != 1<<31 {
				t.Errorf("the greatest of many -0 is %08x", got)
			}
			x[n/2] = 0
			if got := math.Float32bits(Max(x)); got != 0 {
				t.Errorf("the greatest of -0 and +0 is %08x", got)
			}
		}
	})
}

func slowSum(x []float32) float32 {
	var l [16]float32
	for i := range x {
		l[i%16] += x[i]
	}
	for h := 8; h > 0; h /= 2 {
		for j := range h {
			l[j] += l[j+h]
		}
	}
	return quiet32(l[0])
}
