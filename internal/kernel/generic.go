package kernel

import (
	"math"

	"github.com/dlnode/dlnode/internal/fmath"
)

// generic is portable Go: the twin that assembly is compared with, and the one
// that runs where there is none.
var generic = variant{
	name: "generic",
	rows: 8, cols: 8, rowsOne: 8,
	product:   productGeneric,
	add:       addGeneric,
	addF64:    addF64Generic,
	roundAdd:  roundAddGeneric,
	roundNew:  roundNewGeneric,
	narrow:    narrowGeneric,
	maxBits:   maxBitsGeneric,
	narrowDiv: narrowDivGeneric,
	unit:      unitGeneric,
	relu:      reluGeneric,
	reluGrad:  reluGradGeneric,
	exp:       expGeneric,
	tanh:      tanhGeneric,
	sigmoid:   sigmoidGeneric,
	adam:      adamGeneric,

	log:         logGeneric,
	elu:         eluGeneric,
	gelu:        geluGeneric,
	swish:       swishGeneric,
	geluGrad:    geluGradGeneric,
	swishGrad:   swishGradGeneric,
	sigmoidGrad: sigmoidGradGeneric,
	tanhGrad:    tanhGradGeneric,
	multiply:    multiplyGeneric,
	eluGrad:     eluGradGeneric,
	leaky:       leakyGeneric,
	sumLanes:    sumLanesGeneric,
	maxKey:      maxKeyGeneric,

	lstmForward:  lstmForwardGeneric,
	lstmBackward: lstmBackwardGeneric,
	gruForward:   gruForwardGeneric,
	gruBackward:  gruBackwardGeneric,
	momentum:     momentumGeneric,
	nesterov:     nesterovGeneric,
	rmsprop:      rmspropGeneric,

	poolMax:         poolMaxGeneric,
	poolMaxGrad:     poolMaxGradGeneric,
	poolAverage:     poolAverageGeneric,
	poolAverageGrad: poolAverageGradGeneric,
	sumRows:         sumRowsGeneric,
	normSums:        normSumsGeneric,
	normApply:       normApplyGeneric,
	normGradSums:    normGradSumsGeneric,
	normGrad:        normGradGeneric,
	rowSums:         rowSumsGeneric,
	rowApply:        rowApplyGeneric,
	rowGradSums:     rowGradSumsGeneric,
	rowGrad:         rowGradGeneric,

	drop:    dropGeneric,
	mulRows: mulRowsGeneric,

	pack64:      pack64Generic,
	unpack64:    unpack64Generic,
	unpackAdd64: unpackAdd64Generic,
	pack32:      pack32Generic,
	unpack32:    unpack32Generic,
}

// productGeneric takes eight columns at once: eight independent chains hide the
// latency of one.
func productGeneric(w *panel) {
	run := *w
	run.runs, run.relu, run.bias = 1, 0, nil
	for q := range w.runs {
		run.a, run.b = w.a[q*(w.k*w.acs+w.jump):], w.b[q*w.k*w.brs:]
		if q > 0 {
			run.load = 1
		}
		if q == w.runs-1 {
			run.relu, run.bias = w.relu, w.bias
		}
		run.product()
	}
	w.wide = run.wide
}

// product is productGeneric for one run.
func (w *panel) product() {
	if w.cols == 8 {
		w.widen()
	}
	for i := range w.rows * w.tile {
		a, c := w.a[i/w.rows*w.ats+i%w.rows*w.ars:], w.c[i*w.crs:][:w.cols]
		if w.load == 0 {
			clear(c)
		}
		if w.cols == 8 {
			row8(w, a, (*[8]float32)(c))
		} else {
			rowN(w, a, c)
		}
		w.end(c)
	}
}

// end finishes a row of c whose chains are complete.
func (w *panel) end(c []float32) {
	if w.bias != nil {
		for j, x := range w.bias[:len(c)] {
			c[j] += x
		}
	}
	if w.relu != 0 {
		reluGeneric(c, c)
	}
	for j, x := range c {
		c[j] = quiet32(x)
	}
}

// widen converts b to float64, once for all rows of c.
func (w *panel) widen() {
	if len(w.wide) == 0 {
		w.wide = make([][8]float64, kBlock)
	}
	for p := range w.k {
		for j, y := range (*[8]float32)(w.b[p*w.brs:]) {
			w.wide[p][j] = float64(y)
		}
	}
}

// row8 adds to eight neighbours in one row of c. The rare steps that float64
// can't decide interrupt fast8, so that its loop calls nothing and its sums stay
// in registers.
func row8(w *panel, a []float32, c *[8]float32) {
	for p := 0; p < w.k; p++ {
		var done int
		p, done = fast8(w, a, c, p)
		if p == w.k {
			return
		}
		x, y := a[p*w.acs], w.b[p*w.brs:]
		for j := done; j < 8; j++ {
			c[j] = fmath.FMA32(x, y[j], c[j])
		}
	}
}

// fast8 adds the products from step p on. It returns the step that it could not
// finish, or w.k, and how many columns of that step are done.
func fast8(w *panel, a []float32, c *[8]float32, p int) (step, done int) {
	s0, s1, s2, s3 := float64(c[0]), float64(c[1]), float64(c[2]), float64(c[3])
	s4, s5, s6, s7 := float64(c[4]), float64(c[5]), float64(c[6]), float64(c[7])
	acs, b := w.acs, w.wide[:w.k]
	q := p * acs
loop:
	for ; p < len(b); p++ {
		x, y := float64(a[q]), &b[p]
		q += acs
		t := float64(x*y[0]) + s0
		if undecided(t) {
			done = 0
			break loop
		}
		s0 = float64(float32(t))
		t = float64(x*y[1]) + s1
		if undecided(t) {
			done = 1
			break loop
		}
		s1 = float64(float32(t))
		t = float64(x*y[2]) + s2
		if undecided(t) {
			done = 2
			break loop
		}
		s2 = float64(float32(t))
		t = float64(x*y[3]) + s3
		if undecided(t) {
			done = 3
			break loop
		}
		s3 = float64(float32(t))
		t = float64(x*y[4]) + s4
		if undecided(t) {
			done = 4
			break loop
		}
		s4 = float64(float32(t))
		t = float64(x*y[5]) + s5
		if undecided(t) {
			done = 5
			break loop
		}
		s5 = float64(float32(t))
		t = float64(x*y[6]) + s6
		if undecided(t) {
			done = 6
			break loop
		}
		s6 = float64(float32(t))
		t = float64(x*y[7]) + s7
		if undecided(t) {
			done = 7
			break loop
		}
		s7 = float64(float32(t))
	}
	*c = [8]float32{
		float32(s0), float32(s1), float32(s2), float32(s3),
		float32(s4), float32(s5), float32(s6), float32(s7),
	}
	return p, done
}

// undecided reports whether the float64 sum of a product and a float32 may not be
// rounded again: it lies halfway between two normal float32, or below them and is
// not 0. fmath.FMA32 has the reasons.
func undecided(sum float64) bool {
	const (
		tail    = 1<<29 - 1
		halfway = 1 << 28
		normal  = (1023 - 126) << 53 // 2^-126 without its sign
	)
	u := math.Float64bits(sum)
	return u&tail == halfway || u<<1-1 < normal-1
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

func roundAddGeneric(acc []float64, g []float32, scale float64) (ints uint64, top uint32) {
	for i, x := range g {
		n := math.RoundToEven(float64(float64(x)*scale)) + 0
		acc[i] = quiet64(acc[i] + n)
		ints += uint64(int64(n))
		top = max(top, math.Float32bits(x)&absMask32)
	}
	return ints, top
}

func roundNewGeneric(acc []float64, g []float32, scale float64) (ints uint64, top uint32) {
	for i, x := range g {
		n := math.RoundToEven(float64(float64(x)*scale)) + 0
		acc[i] = quiet64(n)
		ints += uint64(int64(n))
		top = max(top, math.Float32bits(x)&absMask32)
	}
	return ints, top
}

func narrowGeneric(dst []float32, x []float64, scale float64) (sum uint64) {
	for i, e := range x {
		dst[i] = quiet32(float32(float64((e + 0) * scale)))
		sum += whole(e)
	}
	return sum
}

func narrowDivGeneric(dst []float32, x []float64, scale, denom float64) (sum uint64) {
	for i, e := range x {
		dst[i] = quiet32(float32(float64((e+0)*scale) / denom))
		sum += whole(e)
	}
	return sum
}

// whole is what a total adds to Narrow's sum.
func whole(x float64) uint64 {
	n := int64(x)
	return uint64(n) + math.Float64bits(x-float64(n))
}

func maxBitsGeneric(x []float32) uint32 {
	var m uint32
	for _, e := range x {
		m = max(m, math.Float32bits(e)&absMask32)
	}
	return m
}

func unitGeneric(dst []float32, src []byte) {
	for i, b := range src {
		dst[i] = float32(b) / 255
	}
}

func reluGeneric(dst, x []float32) {
	for i, e := range x {
		u := math.Float32bits(e) // an integer is chosen without a branch
		if !(e > 0) {
			u = 0
		}
		dst[i] = math.Float32frombits(u)
	}
}

func reluGradGeneric(dx, dy, y []float32) {
	for i, e := range y {
		u := math.Float32bits(quiet32(dy[i]))
		if !(e > 0) {
			u = 0
		}
		dx[i] = math.Float32frombits(u)
	}
}

func adamGeneric(p, g, m, v []float32, c adamConst) {
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
