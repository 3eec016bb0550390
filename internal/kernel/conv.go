package kernel

import "fmt"

// Conv is the shape of a convolution of one sample, channels last:
//
//	x [H, W, C]   w [KH, KW, C, F]   y [OH, OW, F]
//
//	y[oy,ox,f] = bias[f] + Σ x[oy·SH+ky-Top, ox·SW+kx-Left, c] · w[ky,kx,c,f]
//
// with the sum over ky, kx, c in this order, and x outside its image +0. It is a
// product of matrices whose left one, a row for each pixel of y and a column for
// each element of the window, is never formed. In one row of y its rows begin SW·C
// elements apart in x and overlap, and within a row of the window its columns are
// neighbours: so a panel reads x where it is, in KH runs of KW·C steps.
//
//	x  ┌───────────────────────────┐
//	   │    ┌──kx,c──┐             │
//	   │ ky │▒▒▒▒▒▒▒▒│  run 0      │      one chain: run 0, 1, 2, each to the right
//	   │    │▒▒▒▒▒▒▒▒│  run 1      │
//	   │    │▒▒▒▒▒▒▒▒│  run 2      │
//	   │    └────────┘             │
//	   └───────────────────────────┘
//
// A layer calls Forward for each sample; backwards WeightGrad for each sample with
// accumulate from the second on, so that the chains of dw run over all pixels of
// all samples; Flip once a batch and InputGrad for each sample. The bias' gradient
// is SumRows of dy.
type Conv struct {
	H, W, C   int
	KH, KW, F int
	SH, SW    int // strides
	Top, Left int // rows and columns of zeros before x
	OH, OW    int // what the window reads behind x is zeros, too
}

func (g Conv) check(what string, x, w, y int) {
	if min(g.H, g.W, g.C, g.KH, g.KW, g.F, g.SH, g.SW, g.OH, g.OW) < 1 || min(g.Top, g.Left) < 0 ||
		x != g.H*g.W*g.C || w != g.KH*g.KW*g.C*g.F || y != g.OH*g.OW*g.F {
		panic(fmt.Sprintf("kernel: %s: %+v with %d, %d and %d elements", what, g, x, w, y))
	}
}

// Forward computes y, which the bias, if it isn't nil, and relu end:
//
//	for oy, ox, f:
//		s := +0
//		for ky, kx, c:
//			s = fma(x[oy*SH+ky-Top, ox*SW+kx-Left, c], w[ky,kx,c,f], s)
//		s = s + bias[f]
//		y[oy,ox,f] = s, or s > 0 ? s : +0 if relu
func (g Conv) Forward(s *Scratch, x, w, bias []float32, relu bool, y []float32) {
	g.check("Conv.Forward", len(x), len(w), len(y))
	if bias != nil {
		same("Conv.Forward: bias", len(bias), g.F)
	}
	x, width := g.padded(s, x)
	p := plane{
		from: x, row: g.SH * width * g.C, pixel: g.SW * g.C, next: width * g.C,
		runs: g.KH, steps: g.KW * g.C,
		to: y, toRow: g.OW * g.F, toPixel: g.F,
		rows: g.OH, pixels: g.OW, cols: g.F,
	}
	s.convolve(p, w, epilogue{bias, relu})
}

// padded returns x with its border of zeros, and its width.
func (g Conv) padded(s *Scratch, x []float32) ([]float32, int) {
	h, w := (g.OH-1)*g.SH+g.KH, (g.OW-1)*g.SW+g.KW
	if g.Top == 0 && g.Left == 0 && h <= g.H && w <= g.W {
		return x, g.W
	}
	h, w = max(h, g.Top+g.H), max(w, g.Left+g.W)
	to := grow(&s.image, h*w*g.C)
	frame(to, x, h, w, g.H, g.W, g.C, g.Top, g.Left)
	return to, w
}

// frame copies an image [h, w, c] into a larger one of zeros, [H, W, c].
func frame(to, from []float32, H, W, h, w, c, top, left int) {
	clear(to[:top*W*c])
	for i := range h {
		row := to[(top+i)*W*c:][:W*c]
		clear(row[:left*c])
		copy(row[left*c:], from[i*w*c:][:w*c])
		clear(row[(left+w)*c:])
	}
	clear(to[(top+h)*W*c : H*W*c])
}

// grow returns n elements of a buffer that only grows.
func grow(buffer *[]float32, n int) []float32 {
	if len(*buffer) < n {
		*buffer = make([]float32, n)
	}
	return (*buffer)[:n]
}

// plane is a product whose rows are the pixels of an image: strides count elements.
type plane struct {
	from  []float32
	row   int // in from between the windows of neighbours in a column
	pixel int // and in a row
	next  int // between rows of a window
	runs  int // rows of a window
	steps int // in each

	to      []float32
	toRow   int
	toPixel int

	rows, pixels, cols int
}

// runsOf cuts runs of steps into blocks of about kBlock steps in all: whole runs,
// or parts of one.
func runsOf(runs, steps int) (some, part int) {
	if steps >= kBlock {
		return 1, even(steps, kBlock, 8)
	}
	return even(runs, kBlock/steps, 1), steps
}

// convolve computes a plane from w [runs*steps, cols]. One block of w, a tile wide,
// serves all pixels before the next is looked at.
func (s *Scratch) convolve(g plane, w []float32, end epilogue) {
	v, p := active, &s.panel
	some, part := runsOf(g.runs, g.steps)
	tall := v.rows
	if 2*g.cols <= v.cols {
		tall = v.rowsOne
	}
	s.keep, s.tiled, s.height = false, false, share(g.pixels, tall)
	s.readers = s.height.tiles * g.rows
	s.growB(v, g.cols)
	p.crs = g.toPixel
	for q := 0; q < g.runs; q += some {
		for i := 0; i < g.steps; i += part {
			p.runs, p.k = min(some, g.runs-q), min(part, g.steps-i)
			p.jump = g.next - p.k
			p.load = min(q+i, 1)
			var at epilogue
			if q+some >= g.runs && i+part >= g.steps {
				at = end
			}
			b := matrix{w[(q*g.steps+i)*g.cols:], g.cols, 1}
			for j := 0; j < g.cols; j += v.cols {
				p.cols = min(v.cols, g.cols-j)
				at.set(p, j)
				for y := range g.rows {
					s.a = matrix{g.from[y*g.row+q*g.next+i:], g.pixel, 1}
					s.column(v, b, 0, j, y > 0, s.packed, g.to[y*g.toRow+j:])
				}
			}
		}
	}
	s.panel, s.a = panel{wide: p.wide}, matrix{}
}

// WeightGrad computes the gradient of the weights, or adds to it if accumulate:
//
//	for ky, kx, c, f:
//		s := +0, or dw[ky,kx,c,f] if accumulate
//		for oy, ox:
//			s = fma(x[oy*SH+ky-Top, ox*SW+kx-Left, c], dy[oy,ox,f], s)
//		dw[ky,kx,c,f] = s
func (g Conv) WeightGrad(s *Scratch, x, dy, dw []float32, accumulate bool) {
	g.check("Conv.WeightGrad", len(x), len(dw), len(dy))
	x, width := g.padded(s, x)
	v, p := active, &s.panel
	tall := v.rows
	if 2*g.F <= v.cols {
		tall = v.rowsOne
	}
	window := g.KW * g.C
	some, part := runsOf(g.OH, g.OW)
	s.keep, s.tiled, s.height = false, false, share(window, tall)
	s.readers = s.height.tiles * g.KH
	s.growB(v, g.F)
	p.crs = g.F
	for q := 0; q < g.OH; q += some {
		for i := 0; i < g.OW; i += part {
			p.runs, p.k = min(some, g.OH-q), min(part, g.OW-i)
			p.jump = g.SH*width*g.C - p.k*g.SW*g.C
			p.load = 1
			if q+i == 0 && !accumulate {
				p.load = 0
			}
			b := matrix{dy[(q*g.OW+i)*g.F:], g.F, 1}
			for j := 0; j < g.F; j += v.cols {
				p.cols = min(v.cols, g.F-j)
				for ky := range g.KH {
					s.a = matrix{x[((q*g.SH+ky)*width+i*g.SW)*g.C:], 1, g.SW * g.C}
					s.column(v, b, 0, j, ky > 0, s.packed, dw[ky*window*g.F+j:])
				}
			}
		}
	}
	s.panel, s.a = panel{wide: p.wide}, matrix{}
}

// Flip prepares the weights for InputGrad: for each phase (ry, rx) of the strides
// the taps that meet it, in reverse, each transposed. dst is as long as w.
//
//	for ry in 0..SH, rx in 0..SW:
//		for ky in {ry, ry+SH, ...} downwards, kx in {rx, rx+SW, ...} downwards, f, c:
//			append w[ky,kx,c,f]
func (g Conv) Flip(dst, w []float32) {
	same("Conv.Flip", len(dst), len(w))
	for ry := range g.SH {
		for rx := range g.SW {
			for a := taps(g.KH, ry, g.SH) - 1; a >= 0; a-- {
				for b := taps(g.KW, rx, g.SW) - 1; b >= 0; b-- {
					tap := ((ry+a*g.SH)*g.KW + rx + b*g.SW) * g.C * g.F
					active.pack(dst, w[tap:], g.F, g.C, g.F)
					dst = dst[g.C*g.F:]
				}
			}
		}
	}
}

// taps is how many of r, r+s, r+2s, ... are below n.
func taps(n, r, s int) int { return (n - r + s - 1) / s }

// InputGrad computes the gradient at x from flipped, which Flip has made:
//
//	for iy, ix, c:
//		s := +0
//		for ky downwards with oy = (iy+Top-ky)/SH whole, kx downwards likewise, f:
//			s = fma(dy[oy,ox,f], w[ky,kx,c,f], s)
//		dx[iy,ix,c] = s
//
// where dy outside its image is +0. Pixels of x whose places differ by multiples of
// the strides meet the same taps; each such phase is a convolution of dy of stride 1.
func (g Conv) InputGrad(s *Scratch, dy, flipped, dx []float32) {
	g.check("Conv.InputGrad", len(dx), len(flipped), len(dy))
	top, left := taps(g.KH, 0, g.SH)-1, taps(g.KW, 0, g.SW)-1 // most zeros that a phase reads before dy
	h := max(top+g.OH, (g.Top+g.H-1)/g.SH+top+1)
	w := max(left+g.OW, (g.Left+g.W-1)/g.SW+left+1)
	from := dy
	if h > g.OH || w > g.OW {
		from = grow(&s.image, h*w*g.F)
		frame(from, dy, h, w, g.OH, g.OW, g.F, top, left)
	}
	for ry := range g.SH {
		for rx := range g.SW {
			ty, tx := taps(g.KH, ry, g.SH), taps(g.KW, rx, g.SW)
			size := ty * tx * g.F * g.C
			g.phase(s, ry, rx, ty, tx, from, w, top, left, flipped[:size], dx)
			flipped = flipped[size:]
		}
	}
}

// phase computes the pixels (iy, ix) of dx with iy+Top = u*SH+ry, ix+Left = v*SW+rx.
func (g Conv) phase(s *Scratch, ry, rx, ty, tx int, from []float32, width, top, left int, flipped, dx []float32) {
	u, rows := meets(g.H, g.Top, ry, g.SH)
	v, pixels := meets(g.W, g.Left, rx, g.SW)
	if rows <= 0 || pixels <= 0 {
		return
	}
	to := dx[((u*g.SH+ry-g.Top)*g.W+v*g.SW+rx-g.Left)*g.C:]
	if ty == 0 || tx == 0 {
		for y := range rows {
			for x := range pixels {
				clear(to[(y*g.SH*g.W+x*g.SW)*g.C:][:g.C])
			}
		}
		return
	}
	s.convolve(plane{
		from: from[((u+top-(ty-1))*width+v+left-(tx-1))*g.F:],
		row:  width * g.F, pixel: g.F, next: width * g.F,
		runs: ty, steps: tx * g.F,
		to: to, toRow: g.SH * g.W * g.C, toPixel: g.SW * g.C,
		rows: rows, pixels: pixels, cols: g.C,
	}, flipped, epilogue{})
}

// meets returns the first u with u*s+r >= before, and how many from there on are
// below before+n.
func meets(n, before, r, s int) (first, count int) {
	first = max(0, (before-r+s-1)/s)
	return first, taps(before+n, r, s) - first
}
