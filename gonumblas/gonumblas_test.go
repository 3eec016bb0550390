package gonumblas

import (
	"fmt"
	"math"
	"runtime"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/gonum"
	"pgregory.net/rapid"
)

// problem is the arguments of one call.
type problem struct {
	tA, tB        blas.Transpose
	m, n, k       int
	alpha, beta   float32
	a, b, c       []float32
	lda, ldb, ldc int
}

func (p problem) run(i blas.Float32) []float32 {
	c := append([]float32(nil), p.c...)
	i.Sgemm(p.tA, p.tB, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, c, p.ldc)
	return c
}

func numbers(n int, seed uint64) []float32 {
	x := make([]float32, n)
	for i := range x {
		seed = seed*6364136223846793005 + 1442695040888963407
		x[i] = float32(int32(seed>>32)) / (1 << 31)
	}
	return x
}

func draw(t *rapid.T) problem {
	trans := rapid.SampledFrom([]blas.Transpose{blas.NoTrans, blas.Trans, blas.ConjTrans})
	size, more := rapid.IntRange(0, 80), rapid.IntRange(0, 5)
	factor := rapid.SampledFrom([]float32{0, 1, -1, 0.5, 3})
	p := problem{
		tA: trans.Draw(t, "tA"), tB: trans.Draw(t, "tB"),
		m: size.Draw(t, "m"), n: size.Draw(t, "n"), k: size.Draw(t, "k"),
		alpha: factor.Draw(t, "alpha"), beta: factor.Draw(t, "beta"),
	}
	p.lda, p.ldb, p.ldc = max(1, p.k)+more.Draw(t, "lda"), max(1, p.n)+more.Draw(t, "ldb"), max(1, p.n)+more.Draw(t, "ldc")
	if p.tA != blas.NoTrans {
		p.lda += max(1, p.m) - max(1, p.k)
	}
	if p.tB != blas.NoTrans {
		p.ldb += max(1, p.k) - max(1, p.n)
	}
	seed := rapid.Uint64().Draw(t, "seed")
	p.a, p.b, p.c = numbers((p.m+p.k)*p.lda, seed), numbers((p.n+p.k)*p.ldb, seed+1), numbers((p.m+1)*p.ldc, seed+2)
	if p.beta == 0 && p.k > 0 && p.alpha != 0 {
		p.c[0] = float32(math.NaN()) // must not be read
		if p.m == 0 || p.n == 0 {
			p.c[0] = 0
		}
	}
	return p
}

func TestProductsAreGonums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := draw(t)
		got, want := p.run(Implementation{}), p.run(gonum.Implementation{})
		for i := range want {
			// One rounding a term, on either side, of terms below alpha.
			if d := math.Abs(float64(got[i] - want[i])); !(d <= 1e-6*float64(p.k+2)*3) {
				t.Fatalf("element %d is %g, gonum's is %g", i, got[i], want[i])
			}
		}
	})
}

func TestWrongArgumentsPanicAsGonumDoes(t *testing.T) {
	panicOf := func(i blas.Float32, p problem) (what string) {
		defer func() { what = fmt.Sprint(recover()) }()
		p.run(i)
		return ""
	}
	x := numbers(100, 1)
	good := problem{blas.NoTrans, blas.NoTrans, 3, 4, 5, 1, 1, x, x, x, 5, 4, 4}
	for name, spoil := range map[string]func(p *problem){
		"nothing": func(p *problem) {},
		"tA":      func(p *problem) { p.tA = 'x' },
		"m":       func(p *problem) { p.m = -1 },
		"k":       func(p *problem) { p.k = -1 },
		"lda":     func(p *problem) { p.lda = 4 },
		"ldb":     func(p *problem) { p.ldb = 3 },
		"ldc":     func(p *problem) { p.ldc = 0 },
		"short a": func(p *problem) { p.a = x[:14] },
		"short c": func(p *problem) { p.c = x[:11] },
	} {
		p := good
		spoil(&p)
		if got, want := panicOf(Implementation{}, p), panicOf(gonum.Implementation{}, p); got != want {
			t.Errorf("%s: panic %q, gonum's is %q", name, got, want)
		}
	}
}

// Shapes that are cut by rows and by columns, of factors that lie either way.
func TestThreadsDoNotChangeABit(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, d := range [][3]int{{300, 300, 300}, {900, 30, 400}, {30, 900, 400}, {700, 200, 90}, {200, 700, 90}} {
		for trans := range 4 {
			p := large(d[0], d[1], d[2], trans&1 != 0, trans&2 != 0)
			runtime.GOMAXPROCS(1)
			want := p.run(Implementation{})
			for _, threads := range []int{2, 5} {
				runtime.GOMAXPROCS(threads)
				for i, x := range p.run(Implementation{}) {
					if math.Float32bits(x) != math.Float32bits(want[i]) {
						t.Fatalf("%v %v %v, %d threads: element %d is %g, alone it is %g", d, p.tA, p.tB, threads, i, x, want[i])
					}
				}
			}
		}
	}
}

// large is a product that pays for several threads, its factors no longer than
// they must be.
func large(m, n, k int, transA, transB bool) problem {
	p := problem{blas.NoTrans, blas.NoTrans, m, n, k, 1, 0.5, numbers(m*k, 1), numbers(n*k, 2), numbers(m*n, 3), k, n, n}
	if transA {
		p.tA, p.lda = blas.Trans, m
	}
	if transB {
		p.tB, p.ldb = blas.Trans, k
	}
	return p
}

func ExampleImplementation() {
	blas32.Use(Implementation{})
	defer blas32.Use(gonum.Implementation{})
	a := blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: []float32{1, 2, 3, 4}}
	c := blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: make([]float32, 4)}
	blas32.Gemm(blas.NoTrans, blas.Trans, 1, a, a, 0, c)
	fmt.Println(c.Data)
	// Output: [5 11 11 25]
}

func BenchmarkSgemm(b *testing.B) {
	const n = 512
	x, y, c := numbers(n*n, 1), numbers(n*n, 2), make([]float32, n*n)
	for name, i := range map[string]blas.Float32{"dlnode": Implementation{}, "gonum": gonum.Implementation{}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				i.Sgemm(blas.NoTrans, blas.NoTrans, n, n, n, 1, x, n, y, n, 0, c, n)
			}
			b.ReportMetric(2*n*n*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
