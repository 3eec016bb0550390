package kernel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"testing"
)

// golden is the SHA-256 of what the functions below make of fixed inputs. It
// changes only with a definition, and then every trajectory changes too: raise
// the program's numerics version with it.
const golden = "22c4bef4553c42c0903e450625f235dd4800237f1f1cd523d99799eba5289a80"

// goldenSteps is the same for what came later: whole steps of layers.
const goldenSteps = "0136e19c4797401188ef917f1b7e9fef5b39593b2bc82ed4017b080f8b1d9357"

func TestStepsAreTheRecordedOnes(t *testing.T) {
	each(t, func(t *testing.T) {
		if got := digestSteps(); got != goldenSteps {
			t.Errorf("the steps' SHA-256 is %s, recorded is %s", got, goldenSteps)
		}
	})
}

func digestSteps() string {
	src, h := source(2027), sha256.New()
	var s Scratch
	for _, kind := range []func(n int) []float32{src.normal, src.harsh} {
		for _, d := range [][3]int{{1, 300, 600}, {33, 70, 300}, {130, 10, 40}, {700, 40, 300}} {
			m, n, k := d[0], d[1], d[2]
			c := make([]float32, m*n)
			Affine(&s, m, n, k, kind(m*k), kind(k*n), kind(n), c, m%2 == 0)
			put32(h, c)
		}
		g := Conv{H: 9, W: 15, C: 5, KH: 3, KW: 4, F: 33, SH: 2, SW: 1, Top: 1, Left: 1, OH: 5, OW: 14}
		x, w, y := kind(g.H*g.W*g.C), kind(g.KH*g.KW*g.C*g.F), make([]float32, g.OH*g.OW*g.F)
		g.Forward(&s, x, w, kind(g.F), true, y)
		put32(h, y)
		g.WeightGrad(&s, x, y, w, true)
		put32(h, w)
		flipped := make([]float32, len(w))
		g.Flip(flipped, w)
		g.InputGrad(&s, y, flipped, x)
		put32(h, x)
		b := lstmBuffers(kind, 3, 37)
		LSTMForward(37, b[0], b[1], b[2], b[3], b[4])
		put32(h, b[0])
		LSTMBackward(37, b[0], b[1], b[3], b[5], b[6])
		for _, x := range b {
			put32(h, x)
		}
		u := gruBuffers(kind, 3, 37)
		GRUForward(37, u[0], u[1], u[2], u[3])
		put32(h, u[0])
		GRUBackward(37, u[0], u[1], u[2], u[4])
		for _, x := range u {
			put32(h, x)
		}
		pool := Pool{H: 7, W: 8, C: 19, KH: 3, KW: 2, SH: 2, SW: 2, Top: 1, OH: 4, OW: 4}
		x, y = kind(7*8*19), kind(4*4*19)
		arg := make([]float32, len(y))
		pool.Max(x, y, arg)
		pool.MaxGrad(y, arg, x)
		put32(h, x)
		pool.Average(x, y)
		pool.AverageGrad(y, x)
		put32(h, x)
		p, v := kind(len(x)), src.normal(len(x))
		Momentum(p, x, v, 1e-2, 0.9, false)
		Momentum(p, x, v, 1e-2, 0.9, true)
		put32(h, append(p, v...))
		v = src.normal(len(x))
		Exp(v, v)
		RMSprop(p, x, v, 1e-3, 0.9, 1e-7)
		put32(h, append(p, v...))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestResultsAreTheRecordedOnes(t *testing.T) {
	each(t, func(t *testing.T) {
		if got := digest(); got != golden {
			t.Errorf("the results' SHA-256 is %s, recorded is %s", got, golden)
		}
	})
}

// digest runs every function over inputs of many shapes.
func digest() string {
	src, h := source(2026), sha256.New()
	var s Scratch
	for _, d := range [][3]int{{32, 128, 784}, {784, 128, 32}, {32, 10, 128}, {7, 45, 300}, {3, 1, 40}, {40, 33, 1}, {5, 5, 0}} {
		m, n, k := d[0], d[1], d[2]
		for _, g := range products {
			for _, kind := range []func(n int) []float32{src.normal, src.harsh} {
				a, b, c := kind(m*k), kind(k*n), kind(m*n)
				g.run(&s, m, n, k, a, b, c, false)
				put32(h, c)
				g.run(&s, m, n, k, a, b, c, true)
				put32(h, c)
			}
		}
	}
	for _, n := range []int{1, 16, 77, 1000} {
		vectors(h, &src, n)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// harsh is nasty with Inf and NaN.
func (s *source) harsh(n int) []float32 { return s.nasty(n, true) }

func vectors(h hash.Hash, src *source, n int) {
	x, y, m, v := src.harsh(n), src.normal(n), src.normal(n), src.normal(n)
	acc := make([]float64, n)
	for _, f := range []func(dst, x []float32){Exp, Log, Tanh, Sigmoid, ReLU, AddBias} {
		for _, in := range [][]float32{x, y} {
			dst := make([]float32, n)
			f(dst, in)
			put32(h, dst)
		}
	}
	ReLUGrad(m, y, x)
	RoundAdd(acc, x, 0x1p40)
	AddF64(acc, acc)
	put32(h, m)
	put64(h, acc)
	Adam(x, y, m, v, 1e-3, 0.9, 0.999, 1e-7, 10, 1000, 1e-2)
	for _, z := range [][]float32{x, m, v} {
		put32(h, z)
	}
	dst := make([]float32, 7)
	SumRows(dst, y[:n/7*7], false)
	put32(h, append(dst, Sum(y), Sum(x), Max(y), Max(x), float32(MaxExponent(y))))
}

func put32(h hash.Hash, x []float32) {
	var b []byte
	for _, e := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(e))
	}
	h.Write(b)
}

func put64(h hash.Hash, x []float64) {
	var b []byte
	for _, e := range x {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(e))
	}
	h.Write(b)
}

func TestProductsWriteNothingOutsideTheirResult(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(9)
		var s Scratch
		for range 200 {
			m, n, k := int(src.next()%20), int(src.next()%50), int(src.next()%20)
			for _, g := range products {
				c, check := fenced(t, src.normal(m*n))
				a, b := src.normal(m*k), src.normal(k*n)
				g.check(t, &s, m, n, k, a[:m*k:m*k], b[:k*n:k*n], c, true)
				check()
			}
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(10)
		const m, n, k = 32, 128, 50
		a, b, c := src.normal(m*k), src.normal(k*n), src.normal(m*n)
		dst, acc := make([]float32, n), make([]float64, m*n)
		p, v := src.normal(m*n), src.normal(m*n)
		var s Scratch
		run := func() {
			for _, g := range products {
				g.run(&s, m, n, k, a, b, c, false)
			}
			AddBias(c, dst)
			SumRows(dst, c, false)
			ReLU(c, c)
			ReLUGrad(c, c, c)
			LSTMForward(n, a[:4*n], dst, dst, c[:n], c[n:2*n])
			LSTMBackward(n, a[:4*n], dst, dst, c[:n], c[n:2*n])
			GRUForward(n, a[:3*n], dst, dst, dst)
			GRUBackward(n, a[:3*n], dst, dst, dst)
			Transpose(p[:len(a)], a, k)
			for _, a := range activations {
				a.f(c, c)
			}
			for _, a := range slopes {
				a.f(c, c, c)
			}
			Exp(c, c)
			Log(c, c)
			Tanh(c, c)
			Sigmoid(c, c)
			RoundAdd(acc, c, 1)
			AddF64(acc, acc)
			_ = Narrow(c, acc, 1) + NarrowDiv(c, acc, 1, 3)
			Adam(p, c, c, v, 1, 1, 1, 1, 1, 1, float32(MaxExponent(c))+Sum(c)+Max(c))
		}
		if got := testing.AllocsPerRun(10, run); got != 0 {
			t.Errorf("a round of all functions allocates %v times", got)
		}
	})
}

func TestUseNamesWhatIsThere(t *testing.T) {
	err := Use("sse")
	if err == nil || Use(Variants()[0]) != nil {
		t.Fatalf("Use(sse) gave %v", err)
	}
	if Name() != Variants()[0] || Variants()[len(Variants())-1] != "generic" {
		t.Errorf("variants are %v, in use is %s", Variants(), Name())
	}
	if (Lacks() == "") == (len(Variants()) == 1) {
		t.Errorf("variants are %v, and what the CPU lacks is %q", Variants(), Lacks())
	}
	if err := CheckMode(); err != nil {
		t.Error(err)
	}
}
