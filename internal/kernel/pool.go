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

// index is that of the first element of the window of output pixel i within the
// image, (y0, x0).
func (g Pool) index(i, y0, x0 int) int {
	return (y0-(i/g.OW*g.SH-g.Top))*g.KW + x0 - (i%g.OW*g.SW - g.Left)
}

// window returns the rows and columns of x that output pixel i sees.
func (g Pool) window(i int) (y0, y1, x0, x1 int) {
	y, x := i/g.OW*g.SH-g.Top, i%g.OW*g.SW-g.Left
	return max(y, 0), min(y+g.KH, g.H), max(x, 0), min(x+g.KW, g.W)
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
	for i := range g.OH * g.OW {
		m, at := y[i*g.C:(i+1)*g.C], arg[i*g.C:(i+1)*g.C]
		y0, y1, x0, x1 := g.window(i)
		first := g.index(i, y0, x0)
		for j, v := range x[(y0*g.W+x0)*g.C:][:g.C] {
			m[j], at[j] = quiet32(v), float32(first)
		}
		for iy := y0; iy < y1; iy++ {
			for ix := x0; ix < x1; ix++ {
				if iy == y0 && ix == x0 {
					continue
				}
				index := first + (iy-y0)*g.KW + ix - x0
				from := x[(iy*g.W+ix)*g.C:]
				for lo, hi := piece(0, g.C); lo < hi; lo, hi = piece(hi, g.C) {
					active.maxTap(m[lo:hi], at[lo:hi], from[lo:hi], float32(index))
				}
			}
		}
	}
}

// MaxGrad computes the gradient at x from that at y and Max's arg:
//
//	dx = +0
//	for oy, ox, then ky, kx of the window, c:
//		dx[its element] += dy[oy,ox,c] if arg[oy,ox,c] is its index, +0 otherwise
func (g Pool) MaxGrad(dy, arg, dx []float32) {
	g.check("Pool.MaxGrad", len(dx), len(dy))
	same("Pool.MaxGrad: arg", len(arg), len(dy))
	clear(dx)
	for i := range g.OH * g.OW {
		d, at := dy[i*g.C:(i+1)*g.C], arg[i*g.C:(i+1)*g.C]
		y0, y1, x0, x1 := g.window(i)
		first := g.index(i, y0, x0)
		for iy := y0; iy < y1; iy++ {
			for ix := x0; ix < x1; ix++ {
				index := first + (iy-y0)*g.KW + ix - x0
				to := dx[(iy*g.W+ix)*g.C:]
				for lo, hi := piece(0, g.C); lo < hi; lo, hi = piece(hi, g.C) {
					active.addTap(to[lo:hi], d[lo:hi], at[lo:hi], float32(index))
				}
			}
		}
	}
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
	for i := range g.OH * g.OW {
		sum := y[i*g.C : (i+1)*g.C]
		y0, y1, x0, x1 := g.window(i)
		clear(sum)
		for iy := y0; iy < y1; iy++ {
			for ix := x0; ix < x1; ix++ {
				add(sum, x[(iy*g.W+ix)*g.C:][:g.C])
			}
		}
		divide(sum, sum, (y1-y0)*(x1-x0))
	}
}

// AverageGrad computes the gradient at x. It replaces dy by dy/n.
//
//	dx = +0
//	for oy, ox, then each element of the window, ky before kx, c:
//		dx[the element] += dy[oy,ox,c] / n
func (g Pool) AverageGrad(dy, dx []float32) {
	g.check("Pool.AverageGrad", len(dx), len(dy))
	clear(dx)
	for i := range g.OH * g.OW {
		d := dy[i*g.C : (i+1)*g.C]
		y0, y1, x0, x1 := g.window(i)
		divide(d, d, (y1-y0)*(x1-x0))
		for iy := y0; iy < y1; iy++ {
			for ix := x0; ix < x1; ix++ {
				add(dx[(iy*g.W+ix)*g.C:][:g.C], d)
			}
		}
	}
}

func divide(dst, x []float32, n int) {
	by := float32(n)
	for i, v := range x {
		dst[i] = quiet32(v / by)
	}
}

func maxTapGeneric(m, arg, x []float32, index float32) {
	for i, v := range x {
		if m[i] == m[i] && !(v <= m[i]) {
			m[i], arg[i] = quiet32(v), index
		}
	}
}

func addTapGeneric(dx, dy, arg []float32, index float32) {
	for i, d := range dy {
		u := math.Float32bits(d)
		if arg[i] != index {
			u = 0
		}
		dx[i] = quiet32(dx[i] + math.Float32frombits(u))
	}
}
