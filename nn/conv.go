package nn

import "github.com/dlnode/dlnode/internal/kernel"

// windows is how windows lie over images [h, w, c], row-major with the channels
// last. Window (oy, ox) covers the rows oy·sh - top to oy·sh - top + kh and the
// columns likewise; what of it lies outside the image is padding.
type windows struct {
	h, w, c   int
	kh, kw    int // size of a window
	sh, sw    int // strides
	oh, ow    int // how many windows
	top, left int // padding before the image
}

// volume is the number of values under one window.
func (g *windows) volume() int { return g.kh * g.kw * g.c }

// simple tells whether each window is one pixel, so that windows and pixels are
// the same rows.
func (g *windows) simple() bool { return g.kh == 1 && g.kw == 1 && g.sh == 1 && g.sw == 1 }

// span is the part of row ky of a window at column ox that lies inside the
// image: n values from x[at], which are those from lo on of the kw·c of the row.
func (g *windows) span(oy, ox, ky int) (at, lo, n int) {
	iy := oy*g.sh - g.top + ky
	if iy < 0 || iy >= g.h {
		return 0, 0, 0
	}
	ix := ox*g.sw - g.left
	from, to := max(ix, 0), min(ix+g.kw, g.w)
	if from >= to {
		return 0, 0, 0
	}
	return (iy*g.w + from) * g.c, (from - ix) * g.c, (to - from) * g.c
}

// unfold writes the windows [p0, p1) of one image, numbered row by row, as rows
// of cols [p1-p0, volume], zeros where there is padding.
func (g *windows) unfold(cols, x []float32, p0, p1 int) {
	width := g.kw * g.c
	for p := p0; p < p1; p++ {
		for ky := range g.kh {
			at, lo, n := g.span(p/g.ow, p%g.ow, ky)
			clear(cols[:lo])
			copy(cols[lo:lo+n], x[at:at+n])
			clear(cols[lo+n : width])
			cols = cols[width:]
		}
	}
}

// fold adds rows that unfold would have written back to where they came from,
// in their order.
func (g *windows) fold(dx, cols []float32, p0, p1 int) {
	width := g.kw * g.c
	for p := p0; p < p1; p++ {
		for ky := range g.kh {
			at, lo, n := g.span(p/g.ow, p%g.ow, ky)
			addTo(dx[at:at+n], cols[lo:lo+n])
			cols = cols[width:]
		}
	}
}

// addTo is dst_i += x_i.
func addTo(dst, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += x[i]
	}
}

// conv is a convolution as products: rows of windows times the kernel. One tile
// of the windows of one sample is unfolded at a time. The sums run as if all
// were unfolded at once, so the tile is in no result:
//
//	y[p, f]  = chain over the window's values v, row by row of the kernel, of
//	           fma(x[v], W[v, f]), padding taking part as +0; then + b[f]
//	dW[v, f] = chain over samples, and over windows p in their order
//	dx       = Σ over windows in their order of dy[p]·Wᵀ, each product a chain
//	           over filters
//
//	x [n, h·w·c]   W [kh·kw·c, filters]   b [filters]   y [n, oh·ow·filters]
type conv struct {
	windows
	filters int
	kernel  Tensor
	bias    Tensor // Len 0: there is none
	inner   bool   // somebody wants dx
	frozen  bool

	tile int // windows unfolded at a time
	x, y []float32
}

// tileFloats is what an unfolded tile has at most, if a window is not greater:
// half a second-level cache.
const tileFloats = 1 << 16

func (c conv) bind(mem *arena, maxBatch int) op {
	c.y = mem.take(maxBatch * c.oh * c.ow * c.filters)
	if !c.simple() {
		c.tile = min(c.oh*c.ow, max(1, tileFloats/c.volume()))
		mem.share(c.tile * c.volume())
	}
	return &c
}

func (c *conv) forward(w *Workspace, x []float32) []float32 {
	y := c.y[:w.n*c.oh*c.ow*c.filters]
	c.x = x
	W := c.kernel.of(w.params)
	if c.simple() {
		kernel.GemmNN(&w.scratch, w.n*c.oh*c.ow, c.filters, c.c, x, W, y, false)
	} else {
		c.tiles(w, func(i, p0, p1 int, cols []float32) {
			c.unfold(cols, row(x, i, c.h*c.w*c.c), p0, p1)
			kernel.GemmNN(&w.scratch, p1-p0, c.filters, c.volume(), cols, W, c.rows(y, i, p0, p1), false)
		})
	}
	if c.bias.Len > 0 {
		kernel.AddBias(y, c.bias.of(w.params))
	}
	return y
}

// tiles calls do for each tile [p0, p1) of the windows of each sample i.
func (c *conv) tiles(w *Workspace, do func(i, p0, p1 int, cols []float32)) {
	for i := range w.n {
		for p0 := 0; p0 < c.oh*c.ow; p0 += c.tile {
			p1 := min(p0+c.tile, c.oh*c.ow)
			do(i, p0, p1, w.work[:(p1-p0)*c.volume()])
		}
	}
}

// rows are the outputs of windows [p0, p1) of sample i.
func (c *conv) rows(y []float32, i, p0, p1 int) []float32 {
	first := i * c.oh * c.ow
	return y[(first+p0)*c.filters : (first+p1)*c.filters]
}

func (c *conv) backward(w *Workspace, dy []float32) []float32 {
	var dx []float32
	if c.inner {
		dx = w.otherGrad(w.n * c.h * c.w * c.c)
	}
	if c.simple() {
		c.backwardSimple(w, dx, dy)
	} else {
		c.backwardTiles(w, dx, dy)
	}
	if c.frozen {
		return dx
	}
	if c.bias.Len > 0 {
		kernel.SumRows(c.bias.of(w.grads), dy, false)
	}
	w.final(c.kernel)
	return dx
}

func (c *conv) backwardSimple(w *Workspace, dx, dy []float32) {
	pixels := w.n * c.oh * c.ow
	if !c.frozen {
		kernel.GemmTN(&w.scratch, c.c, c.filters, pixels, c.x, dy, c.kernel.of(w.grads), false)
	}
	if c.inner {
		kernel.GemmNT(&w.scratch, pixels, c.c, c.filters, dy, c.kernel.of(w.params), dx, false)
	}
}

func (c *conv) backwardTiles(w *Workspace, dx, dy []float32) {
	pixels := c.h * c.w * c.c
	clear(dx)
	c.tiles(w, func(i, p0, p1 int, cols []float32) {
		d := c.rows(dy, i, p0, p1)
		if !c.frozen {
			c.unfold(cols, row(c.x, i, pixels), p0, p1)
			kernel.GemmTN(&w.scratch, c.volume(), c.filters, p1-p0, cols, d, c.kernel.of(w.grads), i > 0 || p0 > 0)
		}
		if c.inner {
			kernel.GemmNT(&w.scratch, p1-p0, c.volume(), c.filters, d, c.kernel.of(w.params), cols, false)
			c.fold(row(dx, i, pixels), cols, p0, p1)
		}
	})
}
