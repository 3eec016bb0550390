package kernel

import "fmt"

// Scratch holds the packing buffer of products. The zero value is ready; it grows
// to what the largest product needs and then stays. One goroutine at a time.
type Scratch struct {
	packed []float32
	panel  panel
}

// panel is one call of a variant: a column of tiles of c.
//
//	for i in 0..rows*tiles, j in 0..cols:
//		s := +0, or c[i*crs+j] if load != 0
//		for p in 0..k:
//			s = fma(a[i*ars+p*acs], b[p*brs+j], s)
//		c[i*crs+j] = s, or the one NaN
//
// Strides count elements. Assembly reads the fields; after a change, generate it.
type panel struct {
	a    []float32
	b    []float32
	c    []float32
	ars  int // between rows of a
	acs  int // between columns of a
	brs  int // between rows of b
	crs  int // between rows of c
	k    int // > 0
	rows int // of one tile, 1 to variant.rows
	tile int // how many tiles, one below the other, > 0
	cols int // of each tile, 1 to variant.cols
	load int // 1 to start from what c holds, 0 to start from +0

	wide [][8]float64 // portable only: b in float64
}

// kBlock cuts the chains of a product: so many rows of b, one tile wide, stay in
// the first-level cache while the tiles of a column pass over them.
const kBlock = 256

// callSteps bounds tiles*k of one call, so that a call in assembly, which can't
// be preempted, stays far below 100 µs.
const callSteps = 8192

// GemmNN computes c[m,n] = a[m,k]·b[k,n], or adds to c if accumulate:
//
//	for i in 0..m, j in 0..n:
//		s := +0, or c[i,j] if accumulate
//		for p in 0..k:
//			s = fma(a[i,p], b[p,j], s)
//		c[i,j] = s
//
// Matrices are row-major and dense; the slices may be longer than they need be
// and must not overlap c.
func GemmNN(s *Scratch, m, n, k int, a, b, c []float32, accumulate bool) {
	checkGemm(m, n, k, a, b, c)
	s.gemm(m, n, k, matrix{a, k, 1}, matrix{b, n, 1}, c, accumulate)
}

// GemmNT computes c[m,n] = a[m,k]·b[n,k]ᵀ, or adds to c if accumulate: the loop
// of GemmNN with b[j,p] for b[p,j].
func GemmNT(s *Scratch, m, n, k int, a, b, c []float32, accumulate bool) {
	checkGemm(m, n, k, a, b, c)
	s.gemm(m, n, k, matrix{a, k, 1}, matrix{b, 1, k}, c, accumulate)
}

// GemmTN computes c[m,n] = a[k,m]ᵀ·b[k,n], or adds to c if accumulate: the loop
// of GemmNN with a[p,i] for a[i,p].
func GemmTN(s *Scratch, m, n, k int, a, b, c []float32, accumulate bool) {
	checkGemm(m, n, k, a, b, c)
	s.gemm(m, n, k, matrix{a, 1, m}, matrix{b, n, 1}, c, accumulate)
}

func checkGemm(m, n, k int, a, b, c []float32) {
	if m < 0 || n < 0 || k < 0 || len(a) < m*k || len(b) < k*n || len(c) < m*n {
		panic(fmt.Sprintf("kernel: a product of m=%d n=%d k=%d with %d, %d and %d elements",
			m, n, k, len(a), len(b), len(c)))
	}
}

// matrix is a view of elements with a stride for rows and one for columns, one
// of which is 1.
type matrix struct {
	x      []float32
	rs, cs int
}

// from returns the elements from (i, j) on.
func (m matrix) from(i, j int) []float32 { return m.x[i*m.rs+j*m.cs:] }

// gemm cuts c into columns as wide as a tile and k into blocks, and hands each
// column down as one or a few calls. The first block of k starts the chains, the
// others go on from c.
func (s *Scratch) gemm(m, n, k int, a, b matrix, c []float32, accumulate bool) {
	if m == 0 || n == 0 {
		return
	}
	if k == 0 {
		start(c[:m*n], accumulate)
		return
	}
	v := active
	w := &s.panel
	w.ars, w.acs, w.crs = a.rs, a.cs, n
	for p := 0; p < k; p += kBlock {
		w.k = min(kBlock, k-p)
		w.load = 0
		if accumulate || p > 0 {
			w.load = 1
		}
		for j := 0; j < n; j += v.cols {
			w.cols = min(v.cols, n-j)
			s.chooseB(b, p, j)
			s.column(v, m, a, p, c[j:])
		}
	}
	s.panel = panel{wide: w.wide} // holds on to nothing of the caller's
}

// chooseB points the panel at block (p, j) of b, packed if its rows aren't
// contiguous.
func (s *Scratch) chooseB(b matrix, p, j int) {
	w := &s.panel
	if b.cs == 1 {
		w.b, w.brs = b.from(p, j), b.rs
		return
	}
	if need := kBlock * maxCols; len(s.packed) < need {
		s.packed = make([]float32, need)
	}
	active.pack(s.packed, b.from(p, j), w.k, w.cols, b.cs)
	w.b, w.brs = s.packed, w.cols
}

// maxCols is the widest tile of any variant.
const maxCols = 32

// pack sets dst[k,cols] to the transpose of src[cols,k], whose rows lie stride
// apart: blocks of 8 by 8 the fast way, if there is one, the edges one by one.
func (v *variant) pack(dst, src []float32, k, cols, stride int) {
	var kFast, colsFast int
	if v.transpose != nil {
		kFast, colsFast = k&^7, cols&^7
	}
	for j := 0; j < colsFast && kFast > 0; j += 8 {
		v.transpose(&dst[j], &src[j*stride], kFast/8, cols, stride)
	}
	for j := range cols {
		first := 0
		if j < colsFast {
			first = kFast
		}
		row := src[j*stride:][:k]
		for p := first; p < k; p++ {
			dst[p*cols+j] = row[p]
		}
	}
}

// column computes one column of tiles. The m rows are shared out evenly, so that
// no tile is much lower than the others: a low tile has too few chains to keep
// the multipliers busy.
func (s *Scratch) column(v *variant, m int, a matrix, p int, c []float32) {
	tiles := (m + v.rows - 1) / v.rows
	low := m / tiles // rows of the lower tiles; the first m%tiles have one more
	high := m % tiles
	s.stack(v, a, p, c, 0, low+1, high)
	s.stack(v, a, p, c, high*(low+1), low, tiles-high)
}

// stack computes tiles of equal height, from row i on, in calls of bounded length.
func (s *Scratch) stack(v *variant, a matrix, p int, c []float32, i, rows, tiles int) {
	w := &s.panel
	w.rows = rows
	most := max(1, callSteps/w.k)
	for tiles > 0 {
		w.tile = min(tiles, most)
		w.a, w.c = a.from(i, p), c[i*w.crs:]
		v.product(w)
		i += w.tile * rows
		tiles -= w.tile
	}
}

// start is a product with k = 0.
func start(c []float32, accumulate bool) {
	if !accumulate {
		clear(c)
	}
	for i, x := range c {
		c[i] = quiet32(x)
	}
}
