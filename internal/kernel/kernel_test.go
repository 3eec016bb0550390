package kernel

import (
	"math"
	"testing"

	"github.com/dlnode/dlnode/internal/fmath"
)

// each runs a test once for every variant that this CPU has.
func each(t *testing.T, f func(t *testing.T)) {
	before := Name()
	defer func() { must(t, Use(before)) }()
	for _, name := range Variants() {
		must(t, Use(name))
		t.Run(name, f)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source is a small generator of test inputs (xorshift64*).
type source uint64

func (s *source) next() uint64 {
	*s ^= *s >> 12
	*s ^= *s << 25
	*s ^= *s >> 27
	return uint64(*s) * 2685821657736338717
}

// normal returns n numbers around 1 with random signs and full mantissas.
func (s *source) normal(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		u := s.next()
		x[i] = math.Float32frombits(uint32(u>>32)&0x807fffff | uint32(124+u%5)<<23)
	}
	return x
}

// nasty returns n numbers among which every trouble occurs: zeros of both signs,
// subnormals, exact small ones that make ties, and, if special, Inf and NaN.
func (s *source) nasty(n int, special bool) []float32 {
	x := make([]float32, n)
	for i := range x {
		u := s.next()
		bits := uint32(u >> 32)
		switch kind := u % 64; {
		case kind < 8:
			bits &= 0x80000000
		case kind < 16:
			bits &= 0x807fffff // subnormal
		case kind < 24:
			bits = bits&0x80000000 | 63<<23 | bits&0x7f<<16 // products are near the smallest normal
		case kind < 40:
			bits = bits&0x80000003 | uint32(100+u>>8%50)<<23 // few bits, far apart
		case kind == 63 && special:
			bits |= 0x7f800000
			if u>>9&1 == 0 {
				bits &= 0xff800000
			}
		default:
			bits = bits&0x807fffff | uint32(110+u>>8%30)<<23
		}
		x[i] = math.Float32frombits(bits)
	}
	return x
}

// twin is the definition of all three products, as slow as it is obvious.
func twin(m, n, k int, a, b func(i, j int) float32, c []float32, accumulate bool) {
	for i := range m {
		for j := range n {
			var s float32
			if accumulate {
				s = c[i*n+j]
			}
			for p := range k {
				s = fmath.FMA32(a(i, p), b(p, j), s)
			}
			c[i*n+j] = quiet32(s)
		}
	}
}

type product struct {
	name string
	run  func(s *Scratch, m, n, k int, a, b, c []float32, accumulate bool)
	a, b func(x []float32, m, n, k int) func(i, j int) float32
}

func rowMajor(x []float32, cols int) func(i, j int) float32 {
	return func(i, j int) float32 { return x[i*cols+j] }
}

func transposed(x []float32, cols int) func(i, j int) float32 {
	return func(i, j int) float32 { return x[j*cols+i] }
}

var products = []product{
	{
		"NN", GemmNN,
		func(x []float32, m, n, k int) func(i, j int) float32 { return rowMajor(x, k) },
		func(x []float32, m, n, k int) func(i, j int) float32 { return rowMajor(x, n) },
	},
	{
		"NT", GemmNT,
		func(x []float32, m, n, k int) func(i, j int) float32 { return rowMajor(x, k) },
		func(x []float32, m, n, k int) func(i, j int) float32 { return transposed(x, k) },
	},
	{
		"TN", GemmTN,
		func(x []float32, m, n, k int) func(i, j int) float32 { return transposed(x, m) },
		func(x []float32, m, n, k int) func(i, j int) float32 { return rowMajor(x, n) },
	},
}

// check compares one product with its twin, on the variant in use.
func (g product) check(t *testing.T, s *Scratch, m, n, k int, a, b, c []float32, accumulate bool) {
	t.Helper()
	want := append([]float32(nil), c...)
	twin(m, n, k, g.a(a, m, n, k), g.b(b, m, n, k), want, accumulate)
	g.run(s, m, n, k, a, b, c, accumulate)
	for i := range c {
		if math.Float32bits(c[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s m=%d n=%d k=%d accumulate=%v: element %d,%d is %x (%08x), want %x (%08x)",
				g.name, m, n, k, accumulate, i/n, i%n, c[i], math.Float32bits(c[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

func TestProductsOfEveryShapeMatchTheirTwin(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(1)
		var s Scratch
		shapes := [][3]int{{9, 40, 784}, {32, 10, 128}, {200, 10, 32}, {17, 33, 300}, {50, 70, 20}, {1, 1, 1000}, {4, 128, 784}, {1, 300, 600}, {8, 300, 600}, {5, 160, 513}, {81, 9, 70}, {330, 11, 9}, {700, 300, 270}, {130, 2100, 33}}
		for range 150 {
			shapes = append(shapes, [3]int{int(src.next() % 41), int(src.next() % 70), int(src.next() % 41)})
		}
		for i, d := range shapes {
			m, n, k := d[0], d[1], d[2]
			if testing.Short() && m*n*k > 1<<20 {
				continue // an emulator takes most of a minute for these
			}
			for _, g := range products {
				a, b, c := src.normal(m*k), src.normal(k*n), src.normal(m*n)
				if i%3 != 0 {
					a, b, c = src.nasty(m*k, i%3 == 1), src.nasty(k*n, i%3 == 1), src.nasty(m*n, i%3 == 1)
				}
				g.check(t, &s, m, n, k, a, b, c, i%2 == 0)
			}
		}
	})
}

func TestAProductEndsWithBiasAndReLU(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(16)
		var s Scratch
		for i := range 60 {
			m, n, k := int(src.next()%40), 1+int(src.next()%70), int(src.next()%600)
			kind := src.normal
			if i%2 == 0 {
				kind = src.harsh
			}
			a, b, bias := kind(m*k), kind(k*n), kind(n)
			if i%3 == 0 {
				bias = nil
			}
			want := make([]float32, m*n)
			twin(m, n, k, rowMajor(a, k), rowMajor(b, n), want, false)
			if bias != nil {
				AddBias(want, bias)
			}
			if i%4 < 2 {
				ReLU(want, want)
			}
			got, check := fenced(t, src.normal(m*n))
			Affine(&s, m, n, k, a, b, bias, got, i%4 < 2)
			sameBits32(t, "Affine", got, want)
			check()
		}
	})
}

func TestPartsOfMatricesAreMultiplied(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(17)
		var s Scratch
		for i := range 80 {
			m, n, k := int(src.next()%50), 1+int(src.next()%50), int(src.next()%300)
			transA, transB := i&1 != 0, i&2 != 0
			lda, ldb, ldc := k+int(src.next()%9), n+int(src.next()%9), n+int(src.next()%9)
			if transA {
				lda = m + int(src.next()%9)
			}
			if transB {
				ldb = k + int(src.next()%9)
			}
			a, b, c := src.normal((m+k)*lda), src.normal((k+n)*ldb), src.normal(m*ldc+n)
			at := func(x []float32, stride int, trans bool) func(i, j int) float32 {
				if trans {
					return transposed(x, stride)
				}
				return rowMajor(x, stride)
			}
			want := append([]float32(nil), c...)
			for row := range m {
				twin(1, n, k, func(_, p int) float32 { return at(a, lda, transA)(row, p) }, at(b, ldb, transB), want[row*ldc:], i&4 != 0)
			}
			Gemm(&s, transA, transB, m, n, k, a, lda, b, ldb, c, ldc, i&4 != 0)
			sameBits32(t, "Gemm", c, want)
		}
	})
}
