package kernel

import (
	"math"
	"testing"
)

// lengths are all the short ones, which end in every way, and one longer than a
// call in assembly takes.
func lengths() []int {
	n := []int{8192 + 37}
	for i := range 70 {
		n = append(n, i)
	}
	return n
}

// fenced returns a copy of x inside a larger slice, off any alignment, and a
// function that fails the test if something beside it was written.
func fenced[T float32 | float64](t *testing.T, x []T) ([]T, func()) {
	const margin, mark = 17, 12345
	whole := make([]T, len(x)+2*margin)
	for i := range whole {
		whole[i] = mark
	}
	in := whole[margin:][:len(x):len(x)]
	copy(in, x)
	return in, func() {
		t.Helper()
		for i, v := range whole {
			if (i < margin || i >= margin+len(x)) && v != mark {
				t.Fatalf("length %d: element %d, outside, was overwritten", len(x), i-margin)
			}
		}
	}
}

func sameBits32(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d of %d is %x (%08x), want %x (%08x)", what, i, len(want),
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

func sameBits64(t *testing.T, what string, got, want []float64) {
	t.Helper()
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s: element %d of %d is %x (%016x), want %x (%016x)", what, i, len(want),
				got[i], math.Float64bits(got[i]), want[i], math.Float64bits(want[i]))
		}
	}
}

func TestVectorFunctionsMatchTheirLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(2)
		for _, n := range lengths() {
			x, y := src.nasty(n, true), src.nasty(n, true)
			unary(t, "ReLU", ReLU, x, func(e float32) float32 {
				if e > 0 {
					return e
				}
				return 0
			})
			for _, f := range []struct {
				name string
				fast func(dst, x []float32)
				slow func(dst, x []float32)
			}{{"Exp", Exp, expGeneric}, {"Tanh", Tanh, tanhGeneric}, {"Sigmoid", Sigmoid, sigmoidGeneric}} {
				unary(t, f.name, f.fast, x, func(e float32) float32 {
					one := []float32{e}
					f.slow(one, one)
					return one[0]
				})
			}
			checkReLUGrad(t, x, y)
			checkAdd(t, x, y)
			checkMaxExponent(t, x)
		}
	})
}

func unary(t *testing.T, name string, f func(dst, x []float32), x []float32, loop func(float32) float32) {
	t.Helper()
	want := make([]float32, len(x))
	for i, e := range x {
		want[i] = loop(e)
	}
	got, check := fenced(t, x)
	f(got, got)
	sameBits32(t, name, got, want)
	check()
}

func checkReLUGrad(t *testing.T, dy, y []float32) {
	t.Helper()
	want := make([]float32, len(y))
	for i := range want {
		if y[i] > 0 {
			want[i] = quiet32(dy[i])
		}
	}
	got, check := fenced(t, dy)
	ReLUGrad(got, got, y)
	sameBits32(t, "ReLUGrad", got, want)
	check()
}

func checkAdd(t *testing.T, x, bias []float32) {
	t.Helper()
	want := make([]float32, len(x))
	for i := range want {
		want[i] = quiet32(x[i] + bias[i])
	}
	got, check := fenced(t, x)
	AddBias(got, bias)
	sameBits32(t, "AddBias", got, want)
	check()
}

func checkMaxExponent(t *testing.T, x []float32) {
	t.Helper()
	for _, part := range [][]float32{x, x[len(x)/2:]} {
		var want uint8
		for _, e := range part {
			want = max(want, uint8(math.Float32bits(e)>>23))
		}
		if got := MaxExponent(part); got != want {
			t.Fatalf("MaxExponent of %d elements is %d, want %d", len(part), got, want)
		}
	}
}

func TestRoundAddAddsWholeNumbers(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(3)
		for _, n := range lengths() {
			g, acc, more := src.nasty(n, true), make([]float64, n), make([]float64, n)
			for i, e := range src.normal(n) {
				acc[i] = math.Floor(float64(e) * 0x1p45)
				more[i] = float64(e) * 0x1.8p-3
			}
			for _, scale := range []float64{0x1p45, 0x1p24, 1, 0x1p-40, 0.3} {
				want := make([]float64, n)
				for i := range want {
					want[i] = quiet64(acc[i] + math.RoundToEven(float64(float64(g[i])*scale)))
				}
				got, check := fenced(t, acc)
				RoundAdd(got, g, scale)
				sameBits64(t, "RoundAdd", got, want)
				check()
				for i := range want {
					want[i] = quiet64(got[i] + more[i])
				}
				AddF64(got, more)
				sameBits64(t, "AddF64", got, want)
				check()
			}
		}
	})
}

func TestRoundAddFromZeroNeverMakesMinusZero(t *testing.T) {
	each(t, func(t *testing.T) {
		g := []float32{-0.3, float32(math.Copysign(0, -1)), -0.5, 0.5, 0.3, -0x1p-149, 2.5, 3.5, -2.5}
		acc := make([]float64, len(g))
		RoundAdd(acc, g, 1)
		sameBits64(t, "RoundAdd", acc, []float64{0, 0, 0, 0, 0, 0, 2, 4, -2})
	})
}

func TestTheSumOfWhatIsNarrowedIsItsLoop(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(4)
		for _, n := range lengths() {
			x, fractions := make([]float64, n), make([]float64, n)
			var want uint64
			for i := range x {
				u := src.next()
				whole := int64(u) >> 10 >> (u & 63) // up to 2^53, of all sizes
				x[i] = float64(whole)
				want += uint64(whole)
				fractions[i] = math.Float64frombits(u &^ (1 << 62)) // below 2 in size
				if i%3 == 0 {
					fractions[i] = float64(int64(u)) // beyond 2^53
				}
			}
			got, check := fenced(t, x)
			if s := sumInts(t, got); s != want {
				t.Fatalf("the sum of %d whole numbers is %x, want %x", n, s, want)
			}
			check()
			want = 0
			for _, x := range fractions {
				want += whole(x)
			}
			if s := sumInts(t, fractions); s != want {
				t.Fatalf("the sum of %d numbers is %x, by its loop %x", n, s, want)
			}
		}
	})
}

func TestAnyBitOfAWholeNumberShowsInItsSum(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, n := range []float64{0, 1, -1, 2, 3, -4, 7, 1 << 25, 1<<26 - 1, -1 << 26, 1<<27 + 1, 1<<52 + 1, 1<<53 - 1, 1 << 53, -1 << 53} {
			for bit := range 64 {
				x := []float64{5, n, -7, 9, 1 << 40}
				before := sumInts(t, x)
				x[1] = math.Float64frombits(math.Float64bits(n) ^ 1<<bit)
				if sumInts(t, x) == before {
					t.Errorf("%v with bit %d flipped is %v, and the sum stays", n, bit, x[1])
				}
			}
		}
	})
}

func TestAdamIsItsLoop(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(4)
		for _, n := range lengths() {
			var in, want, got [4][]float32
			var checks [4]func()
			for j := range in {
				in[j] = src.nasty(n, n%2 == 0)
				want[j] = append([]float32(nil), in[j]...)
				got[j], checks[j] = fenced(t, in[j])
			}
			const lr, beta1, beta2, eps, c1, c2, decay = 1e-3, 0.9, 0.999, 1e-7, 5.26, 500.5, 0.01
			slowAdam(want[0], want[1], want[2], want[3], lr, beta1, beta2, eps, c1, c2, decay)
			Adam(got[0], got[1], got[2], got[3], lr, beta1, beta2, eps, c1, c2, decay)
			for j, name := range []string{"p", "g", "m", "v"} {
				sameBits32(t, "Adam's "+name, got[j], want[j])
				checks[j]()
			}
		}
	})
}

// slowAdam is Adam's doc comment with every rounding written out.
func slowAdam(p, g, m, v []float32, lr, beta1, beta2, eps, c1, c2, decay float32) {
	rest1, rest2, shrink := 1-beta1, 1-beta2, float32(lr*decay)
	for i := range p {
		old, grown := float32(beta1*m[i]), float32(rest1*g[i])
		mi := float32(old + grown)
		square := float32(g[i] * g[i])
		old, grown = float32(beta2*v[i]), float32(rest2*square)
		vi := float32(old + grown)
		root := float32(math.Sqrt(float64(float32(c2 * vi))))
		ratio := float32(float32(c1*mi) / float32(root+eps))
		shrunk := float32(shrink * p[i])
		w := float32(p[i] - shrunk)
		step := float32(lr * ratio)
		m[i], v[i], p[i] = quiet32(mi), quiet32(vi), quiet32(float32(w-step))
	}
}

func TestSumRowsGoesRowByRow(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(5)
		for n := 1; n < 40; n++ {
			m := int(src.next() % 9)
			x, dst := src.nasty(m*n, true), src.nasty(n, true)
			for _, accumulate := range []bool{false, true} {
				want := make([]float32, n)
				for j := range want {
					if accumulate {
						want[j] = dst[j]
					}
					for i := range m {
						want[j] += x[i*n+j]
					}
					want[j] = quiet32(want[j])
				}
				got, check := fenced(t, dst)
				SumRows(got, x, accumulate)
				sameBits32(t, "SumRows", got, want)
				check()
			}
		}
	})
}

func TestTransposeChangesRowsAndColumns(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(20)
		for _, d := range [][2]int{{0, 3}, {1, 1}, {1, 70}, {70, 1}, {8, 8}, {9, 23}, {33, 40}, {64, 19}} {
			x := src.harsh(d[0] * d[1])
			want := make([]float32, len(x))
			for i := range d[0] {
				for j := range d[1] {
					want[j*d[0]+i] = x[i*d[1]+j]
				}
			}
			got, check := fenced(t, src.normal(len(x)))
			Transpose(got, x, d[1])
			sameBits32(t, "Transpose", got, want)
			check()
		}
	})
}

func TestSumUsesSixteenLanes(t *testing.T) {
	src := source(6)
	for n := range 100 {
		x := src.normal(n)
		var l [16]float32
		for i := range x {
			l[i%16] += x[i]
		}
		want := ((l[0] + l[8]) + (l[4] + l[12]) + ((l[2] + l[10]) + (l[6] + l[14]))) +
			((l[1] + l[9]) + (l[5] + l[13]) + ((l[3] + l[11]) + (l[7] + l[15])))
		if got := Sum(x); got != want {
			t.Errorf("sum of %d elements is %x, want %x", n, got, want)
		}
	}
	minus := float32(math.Copysign(0, -1))
	if got := Sum([]float32{minus, minus}); math.Float32bits(got) != 0 {
		t.Errorf("a sum of -0 is %08x, want +0", math.Float32bits(got))
	}
}

func TestMaxOfTroublesomeNumbers(t *testing.T) {
	inf, nan, minus := float32(math.Inf(1)), math.Float32frombits(0xffc01234), float32(math.Copysign(0, -1))
	for _, c := range []struct {
		x    []float32
		want uint32
	}{
		{nil, 0xff800000},
		{[]float32{-inf}, 0xff800000},
		{[]float32{1, inf, 2}, 0x7f800000},
		{[]float32{1, nan, 2}, nanBits32},
		{[]float32{minus, 0}, 0},
		{[]float32{0, minus}, 0},
		{[]float32{minus, -1}, 0x80000000},
		{[]float32{-3, -2, -5}, math.Float32bits(-2)},
	} {
		if got := math.Float32bits(Max(c.x)); got != c.want {
			t.Errorf("Max(%v) = %08x, want %08x", c.x, got, c.want)
		}
	}
}

func TestBytesBecomeQuotientsRoundedOnce(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, n := range append(lengths(), 256) {
			src, want := make([]byte, n), make([]float32, n)
			for i := range src {
				src[i] = byte(i)
				want[i] = float32(float64(byte(i)) / 255) // a quotient of so small numbers may be rounded twice
			}
			got, check := fenced(t, make([]float32, n))
			Unit(got, src)
			sameBits32(t, "Unit", got, want)
			check()
		}
	})
}
