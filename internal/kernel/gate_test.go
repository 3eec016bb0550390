package kernel

import (
	"math"
	"slices"
	"testing"
)

// gateInputs returns n numbers around the limits of the gates' functions, their
// neighbours, and where a power of two or the way to tanh changes.
func gateInputs(src *source, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		at := []float64{87, 10, 16.635532, 9.0109, math.Ln2 / 2, math.Ln2 / 4, 3 * math.Ln2 / 2, math.Log(2) / 2, 0x1p-126, 0x1p-63}
		u := src.next()
		bits := math.Float32bits(float32(at[u%uint64(len(at))])) + uint32(u>>32%5) - 2
		x[i] = math.Float32frombits(bits | uint32(u>>63)<<31)
	}
	return x
}

// Every element of a step is what the functions of gate.go and the loops in the doc
// comments give, in every variant, of every kind of number, for every length.
func TestGatesAreTheSameInEveryVariant(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(31)
		around := func(n int) []float32 { return gateInputs(&src, n) }
		for _, n := range append(lengths(), 70, 2000, lstmPiece+17) {
			for _, kind := range []func(int) []float32{src.normal, src.harsh, src.everyKind, around} {
				l, lwant := lstmBuffers(kind, 1, max(n, 1)), [7][]float32{}
				g, gwant := gruBuffers(kind, 1, max(n, 1)), [5][]float32{}
				for i := range l {
					l[i] = l[i][:len(l[i])/max(n, 1)*n]
					lwant[i] = slices.Clone(l[i])
				}
				for i := range g {
					g[i] = g[i][:len(g[i])/max(n, 1)*n]
					gwant[i] = slices.Clone(g[i])
				}
				LSTMForward(max(n, 1), l[0], l[1], l[2], l[3], l[4])
				GRUForward(max(n, 1), g[0], g[1], g[2], g[3])
				for s := 0; s < n; s++ {
					z := lwant[0]
					lwant[2][s], lwant[3][s], lwant[4][s] = lstmOne(&z[s], &z[n+s], &z[2*n+s], &z[3*n+s], lwant[1][s])
					a := gwant[0]
					gwant[3][s] = gruOne(&a[s], &a[n+s], &a[2*n+s], gwant[1][s], gwant[2][s])
				}
				for i, name := range []string{"z", "c", "next", "squashed", "h"} {
					sameBits32(t, "LSTM's "+name, l[i], lwant[i])
				}
				for i, name := range []string{"a", "b", "h", "next"} {
					sameBits32(t, "GRU's "+name, g[i], gwant[i])
				}
			}
		}
	})
}

// lstmOne and gruOne are one element of LSTMForward and of GRUForward.
func lstmOne(i, f, g, o *float32, c float32) (next, squashed, h float32) {
	*i, *f, *g, *o = sigmoidGate(*i), sigmoidGate(*f), tanhGate(*g), sigmoidGate(*o)
	kept, new := float32(*f*c), float32(*i**g)
	next = quiet32(kept + new)
	squashed = tanhGate(next)
	return next, squashed, quiet32(*o * squashed)
}

func gruOne(z, r, g *float32, b, h float32) (next float32) {
	*z, *r = sigmoidGate(*z), sigmoidGate(*r)
	reset := float32(*r * b)
	*g = tanhGate(*g + reset)
	kept, grown := float32(*z*h), float32((1-*z)**g)
	return quiet32(kept + grown)
}

// gatesOf runs LSTMForward for its gates: y[0] are sigmoids of x, y[1] their tanh.
func gatesOf(x []float32) (y [2][]float32) {
	n := len(x)
	z, rest := slices.Concat(x, x, x, x), make([]float32, n)
	LSTMForward(n, z, rest, make([]float32, n), make([]float32, n), make([]float32, n))
	return [2][]float32{z[:n], z[2*n : 3*n]}
}

func TestGatesAreWithinTwoUlp(t *testing.T) {
	const stride = 10007 // of the bit patterns of float32
	truths := [2]func(float64) float64{func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, math.Tanh}
	names, worst, at := [2]string{"sigmoid", "tanh"}, [2]float64{}, [2]float32{}
	x := make([]float32, 2000)
	for u := uint64(0); u < 1<<32; {
		for i := range x {
			x[i] = math.Float32frombits(uint32(min(u, 1<<32-1)))
			u += stride
		}
		for f, y := range gatesOf(x) {
			for i, e := range x {
				if f == 0 && e < -sigmoidLimit {
					if math.Float32bits(y[i]) != 0 {
						t.Fatalf("sigmoid(%x) = %x, want +0", e, y[i])
					}
					continue
				}
				if bad, err := judge(y[i], truths[f](float64(e))); bad {
					t.Fatalf("%s(%x) = %x, want %x", names[f], e, y[i], truths[f](float64(e)))
				} else if err > worst[f] {
					worst[f], at[f] = err, e
				}
			}
		}
	}
	for f, name := range names {
		t.Logf("%s: largest error %.4f ulp, at %x", name, worst[f], at[f])
		if worst[f] > 2 {
			t.Errorf("%s: largest error %.4f ulp, at %x, want at most 2", name, worst[f], at[f])
		}
	}
}

func TestGatesAtTheEdges(t *testing.T) {
	inf, minus := float32(math.Inf(1)), float32(math.Copysign(0, -1))
	each(t, func(t *testing.T) {
		for _, c := range []struct{ x, sigmoid, tanh float32 }{
			{0, 0.5, 0},
			{minus, 0.5, minus},
			{inf, 1, 1},
			{-inf, 0, -1},
			{math.MaxFloat32, 1, 1},
			{-math.MaxFloat32, 0, -1},
			{0x1p-149, 0.5, 0x1p-149},
			{-0x1.8p-127, 0.5, -0x1.8p-127},
			{-0x1p-30, 0.5, -0x1p-30},
			{-87.00001, 0, -1},
			{11, sigmoidGate(11), 1},
			{math.Float32frombits(0xffc12345), float32(math.NaN()), float32(math.NaN())},
			{math.Float32frombits(0x7f800001), float32(math.NaN()), float32(math.NaN())},
		} {
			y := gatesOf([]float32{c.x})
			sameBits32(t, "sigmoid", y[0], []float32{quiet32(c.sigmoid)})
			sameBits32(t, "tanh", y[1], []float32{quiet32(c.tanh)})
		}
	})
}

// The polynomial of gateParts alone, in float64: its coefficients are those of least
// error, so that another digit wrong in one of them shows.
func TestGateCoefficientsAreTheBest(t *testing.T) {
	worst := 0.0
	for r := -math.Ln2 / 2; r <= math.Ln2/2; r += 0x1p-16 {
		p := 0.0
		for _, c := range gateCoeff {
			p = p*r + float64(c)
		}
		if truth := math.Expm1(r); r != 0 {
			worst = max(worst, math.Abs((p*r*r+r-truth)/truth))
		}
	}
	if got := math.Log2(worst); !(got < -25.97) {
		t.Errorf("the relative error of q is 2^%.3f, want below 2^-25.97", got)
	}
}
