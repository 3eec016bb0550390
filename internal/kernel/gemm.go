package kernel

import "fmt"

// Scratch holds the packing buffers of products. The zero value is ready; it grows
// to what the largest product needs and then stays. One goroutine at a time.
type Scratch struct {
	packed  []float32 // columns of b as wide as a tile, kBlock rows each
	packedA []float32 // a block of a
	turn    *turnBuffers
	image   []float32 // of a convolution, with its border
	panel   panel

	// Of the block of a at hand: where it is, whether tile by tile in packedA, and
	// how its rows are shared out.
	a      matrix
	tiled  bool
	height heights
	keep   bool // b is packed once for all blocks of rows

	readers int // how many tiles read a column of b
}

// panel is one call of a variant: a column of tiles of c.
//
//	for t in 0..tile, i in 0..rows, j in 0..cols:
//		s := +0, or c[(t*rows+i)*crs+j] if load != 0
//		for q in 0..runs, p in 0..k:
//			s = fma(a[t*ats+i*ars+q*(k*acs+jump)+p*acs], b[(q*k+p)*brs+j], s)
//		if bias != nil:
//			s = s + bias[j]
//		if relu != 0:
//			s = s if s > 0, +0 otherwise
//		c[(t*rows+i)*crs+j] = s, or the one NaN
//
// With pack, for one tile, b[p*brs+j] is copied to pack[p*variant.cols+j] as it is
// read, and what lies beside it there is overwritten: the copy costs a tile that is
// busy multiplying nothing, and the tiles below read it instead of b.
//
// Strides count elements. Assembly reads the fields; after a change, generate it.
type panel struct {
	a    []float32
	b    []float32
	c    []float32
	ars  int // between rows of a
	acs  int // between columns of a
	ats  int // between tiles of a
	brs  int // between rows of b
	crs  int // between rows of c
	k    int // > 0
	runs int // of k steps each, > 0
	jump int // in a from the end of a run to the beginning of the next
	//lint:ignore U1000 assembly counts here
	left int // runs still to do
	rows int // of one tile, 1 to variant.rows, or rowsOne if a tile is half as wide
	tile int // how many tiles, one below the other, > 0
	cols int // of each tile, 1 to variant.cols, or twice that if rows <= variant.rowsFour
	load int // 1 to start from what c holds, 0 to start from +0
	relu int // 1 to end with relu

	bias []float32
	pack []float32

	wide [][8]float64 // portable only: b in float64
}

// kBlock cuts the chains of a product: so many rows of b, one tile wide, stay in
// the first-level cache while the tiles of a column pass over them.
const kBlock = 256

// mBlock cuts the rows: so many of a, kBlock wide, stay in the second-level cache
// while the columns of tiles pass over them.
const mBlock = 600

// nBlock cuts the columns where there are several blocks of rows: so many of b,
// kBlock high, are kept packed from one block of rows to the next.
const nBlock = 2048

// callSteps bounds tiles*k of one call, so that a call in assembly, which can't
// be preempted, stays far below 100 µs.
const callSteps = 8192

// tileSteps is how many steps a tile takes at least, with all that is done once for it.
const tileSteps = 16

// streamSteps is the same for calls all of whose b may come from memory.
const streamSteps = 2048

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
	s.gemm(m, n, k, matrix{a, k, 1}, matrix{b, n, 1}, c, n, accumulate, epilogue{})
}

// GemmNT computes c[m,n] = a[m,k]·b[n,k]ᵀ, or adds to c if accumulate: the loop
// of GemmNN with b[j,p] for b[p,j].
func GemmNT(s *Scratch, m, n, k int, a, b, c []float32, accumulate bool) {
	checkGemm(m, n, k, a, b, c)
	s.gemm(m, n, k, matrix{a, k, 1}, matrix{b, 1, k}, c, n, accumulate, epilogue{})
}

// GemmTN computes c[m,n] = a[k,m]ᵀ·b[k,n], or adds to c if accumulate: the loop
// of GemmNN with a[p,i] for a[i,p].
func GemmTN(s *Scratch, m, n, k int, a, b, c []float32, accumulate bool) {
	checkGemm(m, n, k, a, b, c)
	s.gemm(m, n, k, matrix{a, 1, m}, matrix{b, n, 1}, c, n, accumulate, epilogue{})
}

// Affine computes c[m,n] = a[m,k]·b[k,n] + bias[n], without bias if that is nil, and
// with relu: GemmNN, AddBias and ReLU in one pass over c.
func Affine(s *Scratch, m, n, k int, a, b, bias, c []float32, relu bool) {
	checkGemm(m, n, k, a, b, c)
	if bias != nil {
		same("Affine: bias", len(bias), n)
	}
	s.gemm(m, n, k, matrix{a, k, 1}, matrix{b, n, 1}, c, n, false, epilogue{bias, relu})
}

// Gemm is GemmNN for matrices that are parts of larger ones, or transposed: rows lie
// lda, ldb and ldc elements apart. With transA, a holds [k,m], with transB, b holds
// [n,k].
func Gemm(s *Scratch, transA, transB bool, m, n, k int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, accumulate bool) {
	x, y := view(a, lda, m, k, transA), view(b, ldb, k, n, transB)
	if m < 0 || n < 0 || k < 0 || ldc < n || m > 0 && len(c) < (m-1)*ldc+n {
		panic(fmt.Sprintf("kernel: a product of m=%d n=%d k=%d into %d elements, %d a row", m, n, k, len(c), ldc))
	}
	s.gemm(m, n, k, x, y, c, ldc, accumulate, epilogue{})
}

// view is the matrix [rows, cols] in x, which holds its transpose if trans.
func view(x []float32, stride, rows, cols int, trans bool) matrix {
	v := matrix{x, stride, 1}
	if trans {
		v, rows, cols = matrix{x, 1, stride}, cols, rows
	}
	if stride < cols || rows > 0 && len(x) < (rows-1)*stride+cols {
		panic(fmt.Sprintf("kernel: a factor of %d by %d in %d elements, %d a row", rows, cols, len(x), stride))
	}
	return v
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

// epilogue is what happens to the elements of a product when their chains are
// complete: the bias of their column is added, if there is one, and relu applied.
type epilogue struct {
	bias []float32
	relu bool
}

func (e epilogue) none() bool { return e.bias == nil && !e.relu }

// gemm cuts c into blocks of columns and rows and k into blocks, all about equal.
// Within each, columns as wide as a tile are handed down as a few calls. The first
// block of k starts the chains, the others go on from c.
func (s *Scratch) gemm(m, n, k int, a, b matrix, c []float32, ldc int, accumulate bool, end epilogue) {
	if m == 0 || n == 0 {
		return
	}
	if k == 0 {
		for i := range m {
			row := c[i*ldc:][:n]
			start(row, accumulate)
			end.apply(row, n)
		}
		return
	}
	v, w := active, &s.panel
	if v.packs && a.rs == 1 && n <= turnedMost && n > 1 && m >= v.cols && k >= 8 && !accumulate && end.none() && ldc == n {
		s.turned(v, m, n, k, a, b, c)
		return
	}
	tall := v.rows
	if 2*n <= v.cols {
		tall = v.rowsOne
	}
	w.crs, w.runs = ldc, 1
	mStep, nStep, kStep := even(m, mBlock, tall), n, even(k, kBlock, 8)
	if a.rs == 1 && a.cs > 1 && n < copyFrom {
		kStep = even(k, kBlock/2, 8) // a tile's columns of a take half a line more each
	}
	if m <= tall && b.cs == 1 && v.packs {
		kStep = even(k, streamSteps, 8) // nothing of b is read twice
	}
	s.keep = mStep < m
	if s.keep {
		nStep = even(n, nBlock, v.cols)
	}
	for j := 0; j < n; j += nStep {
		cols := min(nStep, n-j)
		s.growB(v, cols)
		for p := 0; p < k; p += kStep {
			w.k = min(kStep, k-p)
			w.load = 0
			if accumulate || p > 0 {
				w.load = 1
			}
			var at epilogue
			if p+w.k == k {
				at = end
			}
			for i := 0; i < m; i += mStep {
				rows := min(mStep, m-i)
				s.height = share(rows, tall)
				s.readers = s.height.tiles
				s.chooseA(v, a, i, p, rows, n)
				s.block(v, b, p, i, j, cols, c, at)
			}
		}
	}
	s.panel, s.a = panel{wide: w.wide}, matrix{} // holds on to nothing of the caller's
}

// block computes a block of c, whose rows of a have been chosen.
func (s *Scratch) block(v *variant, b matrix, p, i, j, cols int, c []float32, end epilogue) {
	w := &s.panel
	for q := 0; q < cols; q += w.cols {
		w.cols = min(v.cols, cols-q)
		if s.height.tiles*s.height.low <= v.rowsFour && b.cs == 1 && cols-q >= 2*v.cols {
			w.cols = 2 * v.cols
		}
		end.set(w, j+q)
		to := s.packed
		if s.keep {
			to = to[q*kBlock:]
		}
		s.column(v, b, p, j+q, i > 0, to, c[i*w.crs+j+q:])
	}
}

// turnedMost is the greatest n of a product that is computed as its transpose.
const turnedMost = 12

// turnBuffers hold a tile's width of columns of a transposed product, and its rows.
type turnBuffers struct {
	columns [16 * maxCols]float32
	rows    [turnedMost*maxCols + 16]float32
}

// turned computes a narrow product whose a has contiguous columns as the transpose
// of bᵀ·aᵀ: so the lanes, which n would leave half empty, are filled along m. The
// two factors of a product change places, which no bit of it depends on.
func (s *Scratch) turned(v *variant, m, n, k int, a, b matrix, c []float32) {
	if s.turn == nil {
		s.turn = new(turnBuffers)
	}
	w := &s.panel
	w.crs, w.brs, w.runs = v.cols, a.cs, 1
	s.tiled, s.height = false, share(n, v.rows)
	for i := 0; i < m; i += v.cols {
		w.cols = min(v.cols, m-i)
		for p := 0; p < k; p += streamSteps {
			w.k = min(streamSteps, k-p)
			w.load = min(p, 1)
			s.a = matrix{b.from(p, 0), b.cs, b.rs}
			w.b = a.from(i, p)
			h := s.height
			s.stack(s.turn.columns[:], 0, h.low+1, h.high)
			s.stack(s.turn.columns[:], h.high*(h.low+1), h.low, h.tiles-h.high)
		}
		// The transpose writes eight elements of a row at a time. What is too much
		// lies in rows below, which are written later, or behind the last.
		rows, tail := c[i*n:], (m-i-v.cols)*n < 16
		if tail {
			rows = s.turn.rows[:]
		}
		if n > 8 {
			v.transpose(&rows[8], &s.turn.columns[8*v.cols], v.cols/8, n, v.cols)
		}
		v.transpose(&rows[0], &s.turn.columns[0], v.cols/8, n, v.cols)
		if tail {
			copy(c[i*n:(i+w.cols)*n], rows)
		}
	}
	s.panel, s.a = panel{wide: w.wide}, matrix{}
}

// set has a panel end so, which begins at column j.
func (e epilogue) set(w *panel, j int) {
	w.relu, w.bias = 0, nil
	if e.relu {
		w.relu = 1
	}
	if e.bias != nil {
		w.bias = e.bias[j:]
	}
}

// even returns the size of the blocks into which n is cut: at most most but for
// rounding up to a multiple of unit, and about equal.
func even(n, most, unit int) int {
	blocks := (n + most - 1) / most
	size := (n + blocks - 1) / blocks
	if blocks > 1 {
		size = (size + unit - 1) / unit * unit
	}
	return size
}

// growB makes room for the packed form of b, of one or of all columns of tiles.
func (s *Scratch) growB(v *variant, cols int) {
	need := kBlock * maxCols
	if s.keep {
		need = kBlock * ((cols + maxCols - 1) / maxCols * maxCols)
	}
	if len(s.packed) < need {
		s.packed = make([]float32, need)
	}
}

// maxCols is the widest tile of any variant.
const maxCols = 32

// callBlocks bounds a call of transpose, each row of whose blocks may lie in a page of
// its own.
const callBlocks = 128

// pack sets dst[k,cols] to the transpose of src[cols,k], whose rows lie stride
// apart: blocks of 8 by 8 the fast way, if there is one, the edges one by one.
func (v *variant) pack(dst, src []float32, k, cols, stride int) {
	var kFast, colsFast int
	if v.transpose != nil {
		kFast, colsFast = k&^7, cols&^7
	}
	for j := 0; j < colsFast; j += 8 {
		for p := 0; p < kFast; p += 8 * callBlocks {
			v.transpose(&dst[p*cols+j], &src[j*stride+p], min(callBlocks, (kFast-p)/8), cols, stride)
		}
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

// heights says how many rows each tile of a column has: the first high tiles one
// more than low.
type heights struct{ tiles, low, high int }

// share shares m rows out evenly, so that no tile is much lower than the others:
// a low tile has too few chains to keep the multipliers busy.
func share(m, tall int) heights {
	tiles := (m + tall - 1) / tall
	return heights{tiles, m / tiles, m % tiles}
}

// chooseA decides from where block (i, p) of a is read: where it is, or from a copy
// if its rows or columns lie so far apart that they compete for the same lines of
// the first-level cache, and if enough columns of tiles share the work of copying.
func (s *Scratch) chooseA(v *variant, a matrix, i, p, rows, n int) {
	k := s.panel.k
	s.a, s.tiled = matrix{a.from(i, p), a.rs, a.cs}, false
	if !v.packs || max(a.rs, a.cs) < farApart || n < copyFrom || k < 32 || k > kBlock {
		return
	}
	if a.cs == 1 {
		s.copyRows(rows, k)
	} else {
		s.copyTiles(rows, k)
	}
}

// farApart is from which stride on a block of a is copied, copyFrom for how many
// columns of c.
const (
	farApart = 256
	copyFrom = 256
)

// bufferA returns the buffer for a block of a, with room for a whole row more.
func (s *Scratch) bufferA() []float32 {
	if len(s.packedA) == 0 {
		s.packedA = make([]float32, (mBlock+maxRows)*(kBlock+16)+maxRows)
	}
	return s.packedA
}

// maxRows is the height of the highest tile of any variant.
const maxRows = 14

// copyRows copies a block of a row by row.
func (s *Scratch) copyRows(rows, k int) {
	const stride = kBlock + 16
	to := s.bufferA()
	for i := range rows {
		copy(to[i*stride:][:k], s.a.from(i, 0))
	}
	s.a = matrix{to, stride, 1}
}

// copyTiles copies a block of a tile by tile, k step by k step. It walks along rows
// of the source a few at a time, so that pages and lines are touched in order.
func (s *Scratch) copyTiles(rows, k int) {
	const few = 8
	to, h, cs := s.bufferA(), s.height, s.a.cs
	for p := 0; p < k; p += few {
		i := 0
		for t := range h.tiles {
			high := h.low
			if t < h.high {
				high++
			}
			copyTile(to[i*k+p*high:], s.a.x[p*cs+i:], high, min(few, k-p), cs)
			i += high
		}
	}
	s.tiled = true
}

// copyTile copies high elements from each of k rows, which lie cs apart.
func copyTile(to, from []float32, high, k, cs int) {
	for p := range k {
		if x, y := from[p*cs:], to[p*high:]; len(x) >= 12 && high == 12 {
			*(*[12]float32)(y) = *(*[12]float32)(x)
		} else if len(x) >= 12 && high == 11 {
			*(*[11]float32)(y) = *(*[11]float32)(x)
		} else if high == 6 {
			*(*[6]float32)(y) = *(*[6]float32)(x)
		} else {
			copy(y[:high], x)
		}
	}
}

// column computes one column of tiles; packed says that its b is in buffer.
func (s *Scratch) column(v *variant, b matrix, p, j int, packed bool, buffer []float32, c []float32) {
	w, h := &s.panel, s.height
	i := 0
	switch {
	case b.cs != 1:
		w.b, w.brs = buffer, w.cols
		if !packed || !s.keep {
			v.pack(buffer, b.from(p, j), w.k, w.cols, b.cs)
		}
	case !v.packs || s.readers <= 2 || w.k*w.runs*b.rs <= nearEnough:
		w.b, w.brs = b.from(p, j), b.rs
	default:
		if !packed {
			rows := h.low + min(h.high, 1)
			w.b, w.brs, w.pack = b.from(p, j), b.rs, buffer
			s.stack(c, 0, rows, 1)
			w.pack = nil
			i = rows
			h.tiles--
			h.high = max(0, h.high-1)
		}
		w.b, w.brs = buffer, v.cols
	}
	s.stack(c, i, h.low+1, h.high)
	s.stack(c, i+h.high*(h.low+1), h.low, h.tiles-h.high)
}

// nearEnough is how many elements of b, all of its columns counted, stay in the
// first-level cache without being packed.
const nearEnough = 8192

// stack computes tiles of equal height, from row i on, in calls of bounded length.
func (s *Scratch) stack(c []float32, i, rows, tiles int) {
	w := &s.panel
	w.rows = rows
	w.ars, w.acs, w.ats = s.a.rs, s.a.cs, rows*s.a.rs
	if s.tiled {
		w.ars, w.acs, w.ats = 1, rows, rows*w.k
	}
	most := max(1, callSteps/max(w.k*w.runs, tileSteps))
	for tiles > 0 {
		w.tile = min(tiles, most)
		if s.tiled {
			w.a = s.packedA[i*w.k:]
		} else {
			w.a = s.a.from(i, 0)
		}
		w.c = c[i*w.crs:]
		active.product(w)
		i += w.tile * rows
		tiles -= w.tile
	}
}

// apply ends a product with k = 0.
func (e epilogue) apply(c []float32, n int) {
	if e.bias != nil {
		AddBias(c, e.bias)
	}
	if e.relu {
		ReLU(c, c)
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
