package kernel

import (
	"math"
	"testing"
)

// lstmBuffers are z, c, next, squashed, h, dh and dc for n samples, filled by kind.
func lstmBuffers(kind func(int) []float32, n, units int) (b [7][]float32) {
	for i := range b {
		b[i] = kind(n * units)
	}
	b[0] = kind(4 * n * units)
	return b
}

func TestLSTMStepsMatchTheirLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(14)
		for units := 1; units < 70; units++ {
			n := 1 + units%3
			kind := src.normal
			if units%2 == 0 {
				kind = src.harsh
			}
			in := lstmBuffers(kind, n, units)
			var got, want [7][]float32
			var checks [7]func()
			for i := range in {
				want[i] = append([]float32(nil), in[i]...)
				got[i], checks[i] = fenced(t, in[i])
			}
			LSTMForward(units, got[0], got[1], got[2], got[3], got[4])
			LSTMBackward(units, got[0], got[1], got[3], got[5], got[6])
			slowLSTM(units, want)
			for i, name := range []string{"dz", "c", "next", "squashed", "h", "dh", "dc"} {
				sameBits32(t, name, got[i], want[i])
				checks[i]()
			}
		}
	})
}

// slowLSTM is the doc comments of both directions, one element at a time.
func slowLSTM(units int, b [7][]float32) {
	for j := range b[1] {
		at := j/units*4*units + j%units
		z := func(g int) *float32 { return &b[0][at+g*units] }
		i, f, g, o := sigmoidGate(*z(0)), sigmoidGate(*z(1)), tanhGate(*z(2)), sigmoidGate(*z(3))
		kept, new := float32(f*b[1][j]), float32(i*g)
		b[2][j] = quiet32(float32(kept + new))
		s := tanhGate(b[2][j])
		b[3][j], b[4][j] = s, quiet32(float32(o*s))

		do, square := float32(b[5][j]*s), float32(s*s)
		through := float32(float32(b[5][j]*o) * float32(1-square))
		d := float32(b[6][j] + through)
		square = float32(g * g)
		*z(0) = flush32(float32(float32(float32(d*g)*i) * float32(1-i)))
		*z(1) = flush32(float32(float32(float32(d*b[1][j])*f) * float32(1-f)))
		*z(2) = flush32(float32(float32(d*i) * float32(1-square)))
		*z(3) = flush32(float32(float32(do*o) * float32(1-o)))
		b[6][j] = flush32(float32(d * f))
	}
}

// TestLSTMGradientsAreThoseOfTheStep compares with differences of the same step in
// float64.
func TestLSTMGradientsAreThoseOfTheStep(t *testing.T) {
	step := func(z [4]float64, c, dh, dc float64) float64 { // dh·h + dc·next
		sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
		next := sigmoid(z[1])*c + sigmoid(z[0])*math.Tanh(z[2])
		return dh*sigmoid(z[3])*math.Tanh(next) + dc*next
	}
	src := source(15)
	b := lstmBuffers(src.normal, 1, 1)
	for range 100 {
		for i := range b {
			copy(b[i], src.normal(len(b[i])))
		}
		z, c, dh, dc := [4]float64{}, float64(b[1][0]), float64(b[5][0]), float64(b[6][0])
		for i, x := range b[0] {
			z[i] = float64(x)
		}
		LSTMForward(1, b[0], b[1], b[2], b[3], b[4])
		LSTMBackward(1, b[0], b[1], b[3], b[5], b[6])
		const e = 1e-5
		for i := range z {
			up, down := z, z
			up[i] += e
			down[i] -= e
			near(t, "dz", b[0][i], (step(up, c, dh, dc)-step(down, c, dh, dc))/(2*e))
		}
		near(t, "dc", b[6][0], (step(z, c+e, dh, dc)-step(z, c-e, dh, dc))/(2*e))
	}
}

func near(t *testing.T, what string, got float32, want float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > 2e-6*(1+math.Abs(want)) {
		t.Errorf("%s is %g, want %g", what, got, want)
	}
}
