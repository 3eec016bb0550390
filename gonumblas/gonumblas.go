// Package gonumblas gives gonum the matrix product of dlnode: about as fast as
// OpenBLAS, in Go without cgo, and with the same bits on every CPU and for any
// number of threads.
//
//	blas32.Use(gonumblas.Implementation{})
//
// From then on blas32.Gemm, and what is built on it, runs on these kernels. The
// package is named for whose interface it serves: whoever imports it has gonum
// already, and nothing else of dlnode comes with it.
//
// Everything but Sgemm is gonum's own code.
package gonumblas

import (
	"runtime"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/dlnode/dlnode/internal/kernel"
)

// Implementation is a blas.Float32. The zero value is ready, and any number of
// goroutines may use it.
type Implementation struct{ gonum.Implementation }

var _ blas.Float32 = Implementation{}

// scratches holds the packing buffers of calls to come.
var scratches = sync.Pool{New: func() any { return new(work) }}

// work is what one goroutine needs for a product.
type work struct {
	kernel.Scratch
	product []float32 // of a product that alpha multiplies
}

// Sgemm computes
//
//	C = alpha * op(A) * op(B) + beta * C
//
// where op(X) is X or its transpose. Each element of a product is one chain of
// fused multiply-adds, k ascending: from +0, or with alpha = 1 from beta*C. With
// another alpha the product is multiplied by alpha and added to beta*C. beta = 0
// means that C is not read.
//
// Large products are shared out over GOMAXPROCS goroutines, by rows or columns of C.
func (i Implementation) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	rowsA, colsA, rowsB, colsB := m, k, k, n
	transA, transB := tA != blas.NoTrans, tB != blas.NoTrans
	if transA {
		rowsA, colsA = colsA, rowsA
	}
	if transB {
		rowsB, colsB = colsB, rowsB
	}
	if m <= 0 || n <= 0 || k <= 0 || alpha == 0 || !known(tA) || !known(tB) ||
		!fits(a, lda, rowsA, colsA) || !fits(b, ldb, rowsB, colsB) || !fits(c, ldc, m, n) {
		i.Implementation.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) // little to do, or a panic
		return
	}
	share(m, n, k, func(r, c0 span) {
		w := scratches.Get().(*work)
		w.sgemm(transA, transB, r.len(), c0.len(), k, alpha,
			a[r.start(transA, lda):], lda, b[c0.start(!transB, ldb):], ldb, beta, c[r.lo*ldc+c0.lo:], ldc)
		scratches.Put(w)
	})
}

func known(t blas.Transpose) bool { return t == blas.NoTrans || t == blas.Trans || t == blas.ConjTrans }

// fits reports whether x holds a matrix of so many rows, stride apart.
func fits(x []float32, stride, rows, cols int) bool {
	return stride >= max(1, cols) && len(x) >= (rows-1)*stride+cols
}

// span is the rows, or the columns, [lo, hi) of C.
type span struct{ lo, hi int }

func (s span) len() int { return s.hi - s.lo }

// start is where a factor's part for these rows or columns of C begins: they are
// columns of the factor as it lies in memory, or rows of so many elements.
func (s span) start(columns bool, stride int) int {
	if columns {
		return s.lo
	}
	return s.lo * stride
}

// Parts are whole tiles of the kernels, so that each is as fast as it can be.
const (
	tileRows = 12
	tileCols = 32
)

// share calls f for parts that make up C [m, n], in as many goroutines as pay for
// themselves. C is cut along its longer side: each part copies the whole of the
// factor that belongs to the other one.
func share(m, n, k int, f func(rows, cols span)) {
	const enough = 1 << 22 // multiplications: some 40 µs, what it takes to wake a goroutine
	length, tile := m, tileRows
	if n > m {
		length, tile = n, tileCols
	}
	tiles := (length + tile - 1) / tile
	parts := min(runtime.GOMAXPROCS(0), m*n*k/enough, tiles)
	if parts < 2 {
		f(span{0, m}, span{0, n})
		return
	}
	part := func(p int) {
		s := span{p * tiles / parts * tile, min((p+1)*tiles/parts*tile, length)}
		if n > m {
			f(span{0, m}, s)
		} else {
			f(s, span{0, n})
		}
	}
	var all sync.WaitGroup
	for p := 1; p < parts; p++ {
		all.Go(func() { part(p) })
	}
	part(0)
	all.Wait()
}

func (w *work) sgemm(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	if alpha == 1 {
		scale(m, n, beta, c, ldc)
		kernel.Gemm(&w.Scratch, transA, transB, m, n, k, a, lda, b, ldb, c, ldc, beta != 0)
		return
	}
	if len(w.product) < m*n {
		w.product = make([]float32, m*n)
	}
	kernel.Gemm(&w.Scratch, transA, transB, m, n, k, a, lda, b, ldb, w.product, n, false)
	scale(m, n, beta, c, ldc)
	for i := range m {
		row := c[i*ldc:][:n]
		for j, x := range w.product[i*n:][:n] {
			if beta == 0 {
				row[j] = float32(alpha * x)
			} else {
				row[j] += float32(alpha * x)
			}
		}
	}
}

// scale multiplies c by beta unless that is 0 or 1.
func scale(m, n int, beta float32, c []float32, ldc int) {
	if beta == 0 || beta == 1 {
		return
	}
	for i := range m {
		row := c[i*ldc:][:n]
		for j := range row {
			row[j] = float32(beta * row[j])
		}
	}
}
