package kernel

import (
	"math"
	"testing"
)

// gruBuffers are a, b, h, next and dh for n samples, filled by kind.
func gruBuffers(kind func(int) []float32, n, units int) (b [5][]float32) {
	for i := range b {
		b[i] = kind(n * units)
	}
	b[0] = kind(3 * n * units)
	return b
}

func TestGRUStepsMatchTheirLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(18)
		for units := 1; units < 70; units++ {
			kind := src.normal
			if units%2 == 0 {
				kind = src.harsh
			}
			in := gruBuffers(kind, 1+units%3, units)
			var got, want [5][]float32
			var checks [5]func()
			for i := range in {
				want[i] = append([]float32(nil), in[i]...)
				got[i], checks[i] = fenced(t, in[i])
			}
			GRUForward(units, got[0], got[1], got[2], got[3])
			GRUBackward(units, got[0], got[1], got[2], got[4])
			slowGRU(units, want)
			for i, name := range []string{"da", "db", "h", "next", "dh"} {
				sameBits32(t, name, got[i], want[i])
				checks[i]()
			}
		}
	})
}

// slowGRU is the doc comments of both directions, one element at a time.
func slowGRU(units int, x [5][]float32) {
	for j, h := range x[2] {
		at := j/units*3*units + j%units
		a := func(g int) *float32 { return &x[0][at+g*units] }
		b := x[1][j]
		z, r := sigmoidGate(*a(0)), sigmoidGate(*a(1))
		reset := float32(r * b)
		g := tanhGate(*a(2) + reset)
		rest := 1 - z
		kept, grown := float32(z*h), float32(rest*g)
		x[3][j] = quiet32(kept + grown)

		d, square := x[4][j], float32(g*g)
		dg := float32(float32(d*rest) * (1 - square))
		dz, dr := float32(d*(h-g)), float32(dg*b)
		*a(0) = flush32(float32(float32(dz*z) * rest))
		*a(1) = flush32(float32(float32(dr*r) * (1 - r)))
		*a(2) = flush32(dg)
		x[1][j] = flush32(float32(dg * r))
		x[4][j] = flush32(float32(d * z))
	}
}

// TestGRUGradientsAreThoseOfTheStep compares with differences of the same step in
// float64.
func TestGRUGradientsAreThoseOfTheStep(t *testing.T) {
	step := func(x [5]float64, dh float64) float64 { // a, b and h
		sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
		z := sigmoid(x[0])
		return dh * (z*x[4] + (1-z)*math.Tanh(x[2]+sigmoid(x[1])*x[3]))
	}
	src := source(19)
	for range 100 {
		b := gruBuffers(src.normal, 1, 1)
		dh := float64(b[4][0])
		in := [5]float64{float64(b[0][0]), float64(b[0][1]), float64(b[0][2]), float64(b[1][0]), float64(b[2][0])}
		GRUForward(1, b[0], b[1], b[2], b[3])
		GRUBackward(1, b[0], b[1], b[2], b[4])
		got := [5]float32{b[0][0], b[0][1], b[0][2], b[1][0], b[4][0]}
		const e = 1e-5
		for i, name := range []string{"dz", "dr", "dg", "db", "dh"} {
			up, down := in, in
			up[i] += e
			down[i] -= e
			near(t, name, got[i], (step(up, dh)-step(down, dh))/(2*e))
		}
	}
}

// What goes back through steps ends before its products are subnormal, but a NaN,
// an infinity and what is not tiny go on.
func TestTinyGradientsEnd(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, c := range []struct{ dh, want float32 }{
			{0x1p-99, 0x1p-100},
			{-0x1p-99, -0x1p-100},
			{0x1.fffffep-100, 0},
			{-0x1.fffffep-100, 0},
			{-0x1p-149, 0},
			{float32(math.Inf(-1)), float32(math.Inf(-1))},
		} {
			a, b, h, dh := []float32{0.5, 0.5, 0}, []float32{0}, []float32{0}, []float32{c.dh}
			GRUBackward(1, a, b, h, dh)
			if math.Float32bits(dh[0]) != math.Float32bits(c.want) {
				t.Errorf("half of %x becomes %x, want %x", c.dh, dh[0], c.want)
			}
			z, o, none, dc := []float32{0, 0.5, 0, 0}, []float32{0}, []float32{0}, []float32{c.dh}
			LSTMBackward(1, z, o, none, []float32{0}, dc)
			if math.Float32bits(dc[0]) != math.Float32bits(c.want) {
				t.Errorf("half of %x becomes %x, want %x", c.dh, dc[0], c.want)
			}
		}
	})
}
