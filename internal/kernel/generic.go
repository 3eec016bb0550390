package kernel

import (
	"math"

	"github.com/dlnode/dlnode/internal/fmath"
)

// generic is portable Go: the twin that assembly is compared with, and the one
// that runs where there is none.
var generic = variant{
	name: "generic",
	rows: 8, cols: 8,
	product:  productGeneric,
	add:      addGeneric,
	addF64:   addF64Generic,
	roundAdd: roundAddGeneric,
	maxBits:  maxBitsGeneric,
	relu:     reluGeneric,
	reluGrad: reluGradGeneric,
	exp:      expGeneric,
	tanh:     tanhGeneric,
	sigmoid:  sigmoidGeneric,
	adam:     adamGeneric,
}

// productGeneric takes eight columns at once: eight independent chains hide the
// latency of one.
func productGeneric(w *panel) {
	for i := range w.rows * w.tile {
		a, c := w.a[i*w.ars:], w.c[i*w.crs:][:w.cols]
		if w.load == 0 {
			clear(c)
		}
		if w.cols == 8 {
			row8(w, a, (*[8]float32)(c))
		} else {
			rowN(w, a, c)
		}
		for j, x := range c {
			c[j] = quiet32(x)
		}
	}
}

// row8 adds to eight neighbours in one row of c.
func row8(w *panel, a []float32, c *[8]float32) {
	b, brs, acs := w.b, w.brs, w.acs
	s := *c
	for p := range w.k {
		x := a[p*acs]
		y := (*[8]float32)(b[p*brs:])
		s[0] = fmath.FMA32(x, y[0], s[0])
		s[1] = fmath.FMA32(x, y[1], s[1])
		s[2] = fmath.FMA32(x, y[2], s[2])
		s[3] = fmath.FMA32(x, y[3], s[3])
		s[4] = fmath.FMA32(x, y[4], s[4])
		s[5] = fmath.FMA32(x, y[5], s[5])
		s[6] = fmath.FMA32(x, y[6], s[6])
		s[7] = fmath.FMA32(x, y[7], s[7])
	}
	*c = s
}

// rowN adds to a shorter piece of a row of c.
func rowN(w *panel, a, c []float32) {
	for p := range w.k {
		x := a[p*w.acs]
		for j, y := range w.b[p*w.brs:][:len(c)] {
			c[j] = fmath.FMA32(x, y, c[j])
		}
	}
}

func addGeneric(dst, src []float32) {
	for i, x := range src {
		dst[i] = quiet32(dst[i] + x)
	}
}

func addF64Generic(dst, src []float64) {
	for i, x := range src {
		dst[i] = quiet64(dst[i] + x)
	}
}

func roundAddGeneric(acc []float64, g []float32, scale float64) {
	for i, x := range g {
		acc[i] = quiet64(acc[i] + math.RoundToEven(float64(float64(x)*scale)))
	}
}

func maxBitsGeneric(x []float32) uint32 {
	var m uint32
	for _, e := range x {
		m = max(m, math.Float32bits(e)&absMask32)
	}
	return m
}

func reluGeneric(dst, x []float32) {
	for i, e := range x {
		if !(e > 0) {
			e = 0
		}
		dst[i] = e
	}
}

func reluGradGeneric(dx, dy, y []float32) {
	for i, e := range y {
		d := quiet32(dy[i])
		if !(e > 0) {
			d = 0
		}
		dx[i] = d
	}
}

func adamGeneric(p, g, m, v []float32, c *adamConst) {
	for i, gi := range g {
		mi := float32(c.beta1*m[i]) + float32(c.rest1*gi)
		vi := float32(c.beta2*v[i]) + float32(c.rest2*float32(gi*gi))
		d := float32(math.Sqrt(float64(float32(c.c2*vi)))) + c.eps
		w := p[i] - float32(c.shrink*p[i])
		p[i] = quiet32(w - float32(c.lr*(float32(c.c1*mi)/d)))
		m[i] = quiet32(mi)
		v[i] = quiet32(vi)
	}
}
