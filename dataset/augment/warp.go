package augment

import (
	"fmt"
	"math"

	"github.com/dlnode/dlnode/internal/fmath"
)

// point is the number of fractional bits of a place.
const point = 32

// affine is the map from a pixel (x, y) to the place (u, v) that it is read from,
// in fixed point:
//
//	u = ux·x + uy·y + u0    column of the source
//	v = vx·x + vy·y + v0    row
type affine struct{ ux, uy, u0, vx, vy, v0 int64 }

// fixed rounds to fixed point. The product is exact: a shift.
func fixed(x float64) int64 { return int64(math.RoundToEven(x * (1 << point))) }

// affineOf composes the geometry of a transform; see the package's comment. Half
// pixels of the centre are halved last, so they are exact.
func (a *Augmenter) affineOf(t Transform) (m affine) {
	const degree = math.Pi / 180
	sin, cos := fmath.Sin(float64(t.Theta*degree)), fmath.Cos(float64(t.Theta*degree))
	sinS, cosS := fmath.Sin(float64(t.Shear*degree)), fmath.Cos(float64(t.Shear*degree))
	w1, h1 := int64(a.w-1), int64(a.h-1)

	m.ux, m.uy = fixed(float64(cos*t.Zx)), fixed(float64((float64(-cos*sinS)-float64(sin*cosS))*t.Zy))
	m.vx, m.vy = fixed(float64(sin*t.Zx)), fixed(float64((float64(cos*cosS)-float64(sin*sinS))*t.Zy))
	m.u0 = fixed(float64(cos*t.Dx)-float64(sin*t.Dy)) + (w1<<point-m.ux*w1-m.uy*h1)>>1
	m.v0 = fixed(float64(sin*t.Dx)+float64(cos*t.Dy)) + (h1<<point-m.vx*w1-m.vy*h1)>>1

	if t.FlipX {
		m.u0, m.ux = m.u0+m.ux*w1, -m.ux
		m.v0, m.vx = m.v0+m.vx*w1, -m.vx
	}
	if t.FlipY {
		m.u0, m.uy = m.u0+m.uy*h1, -m.uy
		m.v0, m.vy = m.v0+m.vy*h1, -m.vy
	}
	m.u0 += m.ux*int64(t.CropX) + m.uy*int64(t.CropY)
	m.v0 += m.vx*int64(t.CropX) + m.vy*int64(t.CropY)
	return m
}

// Apply writes src, changed by a transform, into dst. Both are [h, w, c] and must
// not overlap; other lengths panic. It allocates nothing.
func (a *Augmenter) Apply(dst, src []float32, t Transform) {
	if len(dst) != a.Len() || len(src) != a.Len() {
		panic(fmt.Sprintf("augment: images of %d and %d values, want %d", len(dst), len(src), a.Len()))
	}
	a.warp(dst, src, a.affineOf(t))
	if t.Brightness != 1 {
		brighten(dst, t.Brightness)
	}
	if a.spec.Cutout > 0 {
		a.cut(dst, t.HoleX, t.HoleY)
	}
}

// warp reads every pixel of dst where the map says. In each row the pixels between
// whose four sources no border lies are a run; those around it look where they read.
func (a *Augmenter) warp(dst, src []float32, m affine) {
	row := a.w * a.c
	for y := range a.h {
		out := dst[y*row : (y+1)*row]
		u, v := m.u0+m.uy*int64(y), m.v0+m.vy*int64(y)
		ulo, uhi := span(u, m.ux, int64(a.w-1)<<point, a.w)
		vlo, vhi := span(v, m.vx, int64(a.h-1)<<point, a.w)
		lo := max(ulo, vlo)
		hi := max(lo, min(uhi, vhi))
		a.border(out[:lo*a.c], src, u, m.ux, v, m.vx)
		a.inner(out[lo*a.c:hi*a.c], src, u+m.ux*int64(lo), m.ux, v+m.vx*int64(lo), m.vx)
		a.border(out[hi*a.c:], src, u+m.ux*int64(hi), m.ux, v+m.vx*int64(hi), m.vx)
	}
}

// span returns the x of 0 .. n-1 for which start + step·x lies in [0, limit): all
// from lo up to hi, none if hi <= lo.
func span(start, step, limit int64, n int) (lo, hi int) {
	switch {
	case step > 0:
		lo, hi = within(ceilDiv(-start, step), n), within(ceilDiv(limit-start, step), n)
	case step < 0:
		lo, hi = within(ceilDiv(start-limit+1, -step), n), within(ceilDiv(start+1, -step), n)
	case start >= 0 && start < limit:
		hi = n
	}
	return lo, hi
}

func within(x int64, n int) int { return int(max(0, min(x, int64(n)))) }

// ceilDiv returns a/b rounded up, b > 0.
func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b > 0 {
		q++
	}
	return q
}

// weight is the part of a place behind the point, its upper 24 bits, exactly.
func weight(place int64) float32 {
	return float32(int32(uint32(place)>>8)) * (1.0 / (1 << 24))
}

// mix goes from a to b by weight t. Where t is 0, or a and b are one, it is a.
func mix(a, b, t float32) float32 { return a + float32(t*(b-a)) }

// inner fills dst from places that have four pixels around them.
func (a *Augmenter) inner(dst, src []float32, u, du, v, dv int64) {
	switch a.c {
	case 1:
		inner1(dst, src, a.w, u, du, v, dv)
	case 3:
		inner3(dst, src, a.w, u, du, v, dv)
	default:
		innerN(dst, src, a.w, a.c, u, du, v, dv)
	}
}

func inner1(dst, src []float32, w int, u, du, v, dv int64) {
	for x := range dst {
		i := int(v>>point)*w + int(u>>point)
		p, q := src[i:i+2:i+2], src[i+w:i+w+2:i+w+2]
		s, t := weight(u), weight(v)
		dst[x] = mix(mix(p[0], p[1], s), mix(q[0], q[1], s), t)
		u, v = u+du, v+dv
	}
}

func inner3(dst, src []float32, w int, u, du, v, dv int64) {
	for ; len(dst) >= 3; dst = dst[3:] {
		i := (int(v>>point)*w + int(u>>point)) * 3
		p, q := src[i:i+6:i+6], src[i+3*w:i+3*w+6:i+3*w+6]
		s, t := weight(u), weight(v)
		dst[0] = mix(mix(p[0], p[3], s), mix(q[0], q[3], s), t)
		dst[1] = mix(mix(p[1], p[4], s), mix(q[1], q[4], s), t)
		dst[2] = mix(mix(p[2], p[5], s), mix(q[2], q[5], s), t)
		u, v = u+du, v+dv
	}
}

func innerN(dst, src []float32, w, c int, u, du, v, dv int64) {
	for ; len(dst) >= c; dst = dst[c:] {
		i := (int(v>>point)*w + int(u>>point)) * c
		blend(dst[:c], src[i:], src[i+c:], src[i+w*c:], src[i+w*c+c:], weight(u), weight(v))
		u, v = u+du, v+dv
	}
}

// blend mixes four pixels: p and q side by side, r and s below them.
func blend(dst, p, q, r, s []float32, t, down float32) {
	for k := range dst {
		dst[k] = mix(mix(p[k], q[k], t), mix(r[k], s[k], t), down)
	}
}

// border fills dst from places that may lie anywhere.
func (a *Augmenter) border(dst, src []float32, u, du, v, dv int64) {
	for ; len(dst) >= a.c; dst = dst[a.c:] {
		if a.mode == constant && (outside(u, a.w) || outside(v, a.h)) {
			fill(dst[:a.c], a.cval)
		} else {
			x0, x1 := a.mode.pair(u, a.w)
			y0, y1 := a.mode.pair(v, a.h)
			at := func(y, x int) []float32 { return src[(y*a.w+x)*a.c:] }
			blend(dst[:a.c], at(y0, x0), at(y0, x1), at(y1, x0), at(y1, x1), weight(u), weight(v))
		}
		u, v = u+du, v+dv
	}
}

// outside reports whether a place lies beyond the centres of the outermost pixels.
func outside(place int64, n int) bool { return place < 0 || place > int64(n-1)<<point }

func fill(dst []float32, v float32) {
	for i := range dst {
		dst[i] = v
	}
}

// pair returns the two of n pixels that a place lies between.
func (m mode) pair(place int64, n int) (int, int) {
	i := int(place >> point)
	return m.pixel(i, n), m.pixel(i+1, n)
}

// pixel returns which of n pixels lies at i, which may be any number.
func (m mode) pixel(i, n int) int {
	switch m {
	case reflect:
		i = modulo(i, 2*n)
		return min(i, 2*n-1-i)
	case wrap:
		return modulo(i, n)
	}
	return max(0, min(i, n-1))
}

// modulo returns i mod n in 0 .. n-1.
func modulo(i, n int) int {
	if i %= n; i < 0 {
		i += n
	}
	return i
}

// brighten multiplies and cuts off at 0 and 1.
func brighten(x []float32, factor float32) {
	for i, v := range x {
		x[i] = max(0, min(1, float32(v*factor)))
	}
}

// cut fills a square around (x, y) with cval, as far as it lies in the image. One
// with an even side has one more pixel before its centre than behind it.
func (a *Augmenter) cut(dst []float32, x, y int) {
	side := a.spec.Cutout
	x0, x1 := max(0, x-side/2), min(a.w, x-side/2+side)
	y0, y1 := max(0, y-side/2), min(a.h, y-side/2+side)
	for row := y0; row < y1; row++ {
		fill(dst[(row*a.w+x0)*a.c:(row*a.w+x1)*a.c], a.cval)
	}
}
