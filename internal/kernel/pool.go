package kernel

import (
	"fmt"
	"math"
)

// Pool is the shape of a pooling of one sample, channels last:
//
//	x [H, W, C]   y [OH, OW, C]
//
// The window of y[oy,ox] are the elements x[oy·SH+ky-Top, ox·SW+kx-Left] that lie
// within the image; every window must have one.
type Pool struct {
	H, W, C   int
	KH, KW    int
	SH, SW    int
	Top, Left int
	OH, OW    int
}

func (g Pool) check(what string, x, y int) {
	if min(g.H, g.W, g.C, g.KH, g.KW, g.SH, g.SW, g.OH, g.OW) < 1 || x != g.H*g.W*g.C || y != g.OH*g.OW*g.C ||
		g.Top < 0 || g.Top >= g.KH || g.Left < 0 || g.Left >= g.KW ||
		(g.OH-1)*g.SH-g.Top >= g.H || (g.OW-1)*g.SW-g.Left >= g.W {
		panic(fmt.Sprintf("kernel: %s: %+v with %d and %d elements", what, g, x, y))
	}
}

// pooling is one call of a variant: a strip of pixels of y, one beside the other,
// whose windows have one form and lie evenly apart. Each of the four loops
//
//	for i in 0..pixels, ky in 0..kh, kx in 0..kw, j in 0..c:
//		x[i*step+ky*(kw*pixel+jump)+kx*pixel+j], y[i*to+j], arg[i*to+j]
//
// in its way. Strides count elements. Assembly reads the fields; after a change,
// generate it.
type pooling struct {
	x, y, arg []float32

	pixels int // > 0
	kh, kw int // rows and columns of a window within the image
	c      int // channels, > 0
	step   int // in x from window to window
	to     int // and in y
	pixel  int // in x between neighbours in a row of the window
	jump   int // and from the end of a row to the next

	load  int     // 1: what is in y, or for a gradient in x, counts; 0: it is overwritten
	first float32 // index of a window's first element
	skip  float32 // of indices between the end of a row and the next
	n     float32 // what a mean is divided by
}

// sweep calls do for strips that make up all of y.
func (g Pool) sweep(do func(pooling), x, y, arg []float32, load int, splits bool) {
	for oy := range g.OH {
		for ox := 0; ox < g.OW; {
			w := g.strip(oy, ox)
			w.load = load
			at := (oy*g.OW + ox) * g.C
			y0, x0 := max(oy*g.SH-g.Top, 0), max(ox*g.SW-g.Left, 0)
			w.x, w.y = x[(y0*g.W+x0)*g.C:], y[at:]
			if arg != nil {
				w.arg = arg[at:]
			}
			ox += w.pixels
			w.cut(do, g.C, splits)
		}
	}
}

// strip is the form of the windows from output pixel (oy, ox) on: of all in its row
// that lie within the image sideways, or of that one.
func (g Pool) strip(oy, ox int) pooling {
	y, x := oy*g.SH-g.Top, ox*g.SW-g.Left
	y0, y1, x0, x1 := max(y, 0), min(y+g.KH, g.H), max(x, 0), min(x+g.KW, g.W)
	w := pooling{pixels: 1, kh: y1 - y0, kw: x1 - x0, step: g.SW * g.C, to: g.C, pixel: g.C}
	if w.kw == g.KW {
		w.pixels = min(g.OW-ox, (g.W-x1)/g.SW+1)
	}
	w.jump = (g.W - w.kw) * g.C
	w.first, w.skip = float32((y0-y)*g.KW+x0-x), float32(g.KW-w.kw)
	w.n = float32(w.kh * w.kw)
	return w
}

// callTaps bounds the elements of x that one call looks at, and those that would fill
// up its registers.
const callTaps = 1 << 15

// wide is how many channels the registers that hold them have room for.
func (w *pooling) wide() int { return (w.c + 15) &^ 15 }

// cut calls do for a strip of so many channels in pieces of bounded length. A single
// window that is too large is cut into rows; if its sum or maximum is what is
// computed, which splits says, each goes on from what the ones before left in y.
func (w pooling) cut(do func(pooling), channels int, splits bool) {
	most := max(16, callTaps/w.kw&^15)
	for j := 0; j < channels; j += most {
		p := w
		p.c = min(most, channels-j)
		p.x, p.y = p.x[j:], p.y[j:]
		if p.arg != nil {
			p.arg = p.arg[j:]
		}
		if all := p.kh * p.kw * p.wide(); all > callTaps {
			p.cutRows(do, splits)
		} else {
			p.cutPixels(do, callTaps/all)
		}
	}
}

// cutPixels calls do for so many pixels at a time.
func (w pooling) cutPixels(do func(pooling), most int) {
	for left := w.pixels; left > 0; left -= w.pixels {
		w.pixels = min(most, left)
		do(w)
		if left > w.pixels {
			w.next(w.pixels)
		}
	}
}

// next moves on by so many pixels.
func (w *pooling) next(pixels int) {
	w.x, w.y = w.x[pixels*w.step:], w.y[pixels*w.to:]
	if w.arg != nil {
		w.arg = w.arg[pixels*w.to:]
	}
}

// cutRows calls do for some rows of one window at a time, or for a part of one row.
func (w pooling) cutRows(do func(pooling), splits bool) {
	rows, cols := max(1, callTaps/(w.kw*w.wide())), min(w.kw, callTaps/w.wide())
	for pixels := w.pixels; pixels > 0; pixels-- {
		p := w
		p.pixels = 1
		for ky := 0; ky < w.kh; ky += rows {
			for kx := 0; kx < w.kw; kx += cols {
				p.x = w.x[ky*(w.kw*w.pixel+w.jump)+kx*w.pixel:]
				p.kh, p.kw = min(rows, w.kh-ky), min(cols, w.kw-kx)
				p.first = w.first + float32(float32(ky)*(float32(w.kw)+w.skip)) + float32(kx)
				if splits && ky+kx > 0 {
					p.load = 1
				}
				if splits && (ky+rows < w.kh || kx+cols < w.kw) {
					p.n = 1
				} else {
					p.n = w.n
				}
				do(p)
			}
		}
		if pixels > 1 {
			w.next(1)
		}
	}
}

// Max computes the greatest element of each window, and in arg, as long as y, which
// it is: ky*KW+kx as a float32. The first of equal ones counts, and NaN as greatest.
//
//	for oy, ox, c:
//		m, arg := the first of the window, its index
//		for the others x, ky before kx:
//			if m == m && !(x <= m) { m, arg = x, its index }
//		y[oy,ox,c] = m, or the one NaN
func (g Pool) Max(x, y, arg []float32) {
	g.check("Pool.Max", len(x), len(y))
	same("Pool.Max: arg", len(arg), len(y))
	g.sweep(active.poolMax, x, y, arg, 0, true)
}

// MaxGrad computes the gradient at x from that at y and Max's arg:
//
//	dx = +0
//	for oy, ox, then ky, kx of the window, c:
//		dx[its element] += dy[oy,ox,c] if arg[oy,ox,c] is its index, +0 otherwise
func (g Pool) MaxGrad(dy, arg, dx []float32) {
	g.check("Pool.MaxGrad", len(dx), len(dy))
	same("Pool.MaxGrad: arg", len(arg), len(dy))
	g.sweep(active.poolMaxGrad, dx, dy, arg, g.blank(dx), false)
}

// blank makes +0 of those elements of dx that no window will, and tells whether the
// windows add to what is there: where they lie side by side, each writes its own.
func (g Pool) blank(dx []float32) (load int) {
	if g.SH != g.KH || g.SW != g.KW {
		clear(dx)
		return 1
	}
	h, w := min(g.OH*g.SH-g.Top, g.H), min(g.OW*g.SW-g.Left, g.W)
	clear(dx[h*g.W*g.C:])
	for y := 0; y < h && w < g.W; y++ {
		clear(dx[(y*g.W+w)*g.C : (y+1)*g.W*g.C])
	}
	return 0
}

// Average computes the mean of each window, without what lies outside the image:
//
//	for oy, ox, c:
//		s := +0
//		for the n elements x of the window, ky before kx:
//			s = s + x
//		y[oy,ox,c] = s / n
func (g Pool) Average(x, y []float32) {
	g.check("Pool.Average", len(x), len(y))
	g.sweep(active.poolAverage, x, y, nil, 0, true)
}

// AverageGrad computes the gradient at x:
//
//	dx = +0
//	for oy, ox, then each element of the window, ky before kx, c:
//		dx[the element] += dy[oy,ox,c] / n
func (g Pool) AverageGrad(dy, dx []float32) {
	g.check("Pool.AverageGrad", len(dx), len(dy))
	g.sweep(active.poolAverageGrad, dx, dy, nil, g.blank(dx), false)
}

// each calls f for every element of a window of pixel i: where it lies in x, and its
// index.
func (w *pooling) each(i int, f func(at int, index float32)) {
	index := w.first
	for ky := range w.kh {
		for kx := range w.kw {
			f(i*w.step+ky*(w.kw*w.pixel+w.jump)+kx*w.pixel, index)
			index++
		}
		index += w.skip
	}
}

func poolMaxGeneric(w pooling) {
	for i := range w.pixels {
		m, arg := w.y[i*w.to:][:w.c], w.arg[i*w.to:][:w.c]
		if w.load == 0 {
			copy(m, w.x[i*w.step:])
			for j := range arg {
				arg[j] = w.first
			}
		}
		w.each(i, func(at int, index float32) {
			for j, v := range w.x[at:][:w.c] {
				if m[j] == m[j] && !(v <= m[j]) {
					m[j], arg[j] = v, index
				}
			}
		})
		for j, v := range m {
			m[j] = quiet32(v)
		}
	}
}

func poolMaxGradGeneric(w pooling) {
	for i := range w.pixels {
		dy, arg := w.y[i*w.to:][:w.c], w.arg[i*w.to:][:w.c]
		w.each(i, func(at int, index float32) {
			dx := w.x[at:][:w.c]
			if w.load == 0 {
				clear(dx)
			}
			for j, d := range dy {
				u := math.Float32bits(d)
				if arg[j] != index {
					u = 0
				}
				dx[j] = quiet32(dx[j] + math.Float32frombits(u))
			}
		})
	}
}

func poolAverageGeneric(w pooling) {
	for i := range w.pixels {
		sum := w.y[i*w.to:][:w.c]
		if w.load == 0 {
			clear(sum)
		}
		w.each(i, func(at int, _ float32) {
			for j, v := range w.x[at:][:w.c] {
				sum[j] += v
			}
		})
		for j, v := range sum {
			sum[j] = quiet32(v / w.n)
		}
	}
}

func poolAverageGradGeneric(w pooling) {
	for i := range w.pixels {
		dy := w.y[i*w.to:][:w.c]
		w.each(i, func(at int, _ float32) {
			dx := w.x[at:][:w.c]
			if w.load == 0 {
				clear(dx)
			}
			for j, d := range dy {
				dx[j] = quiet32(dx[j] + d/w.n)
			}
		})
	}
}
