package kernel

import (
	"fmt"
	"math"
)

// AddBias adds a vector to every row: y[i,j] = y[i,j] + bias[j], with
// len(y)/len(bias) rows.
func AddBias(y, bias []float32) {
	n := len(bias)
	checkRows("AddBias", len(y), n)
	for ; len(y) > 0; y = y[n:] {
		add(y[:n], bias)
	}
}

// SumRows sums the rows of x[m,n], m = len(x)/len(dst), in their order:
//
//	for j in 0..n:
//		s := +0, or dst[j] if accumulate
//		for i in 0..m:
//			s = s + x[i,j]
//		dst[j] = s
func SumRows(dst, x []float32, accumulate bool) {
	n := len(dst)
	checkRows("SumRows", len(x), n)
	start(dst, accumulate)
	for lo, hi := piece(0, n); lo < hi; lo, hi = piece(hi, n) {
		some := 1 << 15 / (hi - lo)
		for i := 0; i < len(x); i += some * n {
			active.sumRows(dst[lo:hi], x[i+lo:], min(some, (len(x)-i)/n), n)
		}
	}
}

func add(dst, src []float32) {
	for lo, hi := piece(0, len(src)); lo < hi; lo, hi = piece(hi, len(src)) {
		active.add(dst[lo:hi], src[lo:hi])
	}
}

// piece returns the next range of elements for one call in assembly, which can't
// be preempted: short enough to take far less than 100 µs, even from memory.
func piece(done, n int) (lo, hi int) { return done, min(done+8192, n) }

func checkRows(what string, elements, n int) {
	if elements > 0 && (n == 0 || elements%n != 0) {
		panic(fmt.Sprintf("kernel: %s: %d elements are no rows of %d", what, elements, n))
	}
}

// Transpose sets dst to the transpose of src, whose rows have cols elements.
func Transpose(dst, src []float32, cols int) {
	same("Transpose", len(src), len(dst))
	checkRows("Transpose", len(src), cols)
	if len(src) > 0 {
		active.pack(dst, src, cols, len(src)/cols, cols)
	}
}

// lanes is the number of partial sums of Sum, whatever the width of registers.
const lanes = 16

// Sum returns the sum of x: element i is added to lane i%16, in order, from +0,
// and the lanes are added as a tree, upper half onto lower half.
//
//	var l [16]float32
//	for i := range x { l[i%16] += x[i] }
//	for h := 8; h > 0; h /= 2 {
//		for j := range h { l[j] += l[j+h] }
//	}
//	return l[0]
func Sum(x []float32) float32 {
	var l [lanes]float32
	whole := len(x) &^ (lanes - 1)
	for lo, hi := piece(0, whole); lo < hi; lo, hi = piece(hi, whole) {
		l = active.sumLanes(l, x[lo:hi])
	}
	for j, e := range x[whole:] {
		l[j] += e
	}
	for h := lanes / 2; h > 0; h /= 2 {
		for j := range h {
			l[j] += l[j+h]
		}
	}
	return quiet32(l[0])
}

// sumLanesGeneric adds x, whole sixteens, to the lanes.
func sumLanesGeneric(l [lanes]float32, x []float32) [lanes]float32 {
	for ; len(x) >= lanes; x = x[lanes:] {
		for j, e := range (*[lanes]float32)(x) {
			l[j] += e
		}
	}
	return l
}

// Max returns the greatest element of x: NaN if one is NaN, +0 rather than -0,
// -Inf if x is empty.
func Max(x []float32) float32 {
	m, whole := key(float32(math.Inf(-1))), len(x)&^(lanes-1)
	for lo, hi := piece(0, whole); lo < hi; lo, hi = piece(hi, whole) {
		m = max(m, active.maxKey(x[lo:hi]))
	}
	m = max(m, maxKeyGeneric(x[whole:]))
	return math.Float32frombits(uint32(m ^ m>>31&absMask32))
}

// key turns a number into an integer; they are ordered as the numbers are, with -0
// below +0 and NaN above all. The same again turns it back.
func key(x float32) int32 {
	u := int32(math.Float32bits(quiet32(x)))
	return u ^ u>>31&absMask32
}

func maxKeyGeneric(x []float32) int32 {
	m := int32(math.MinInt32)
	for _, e := range x {
		m = max(m, key(e))
	}
	return m
}

// ReLU sets dst[i] to x[i] if x[i] > 0 and to +0 otherwise, NaN included.
// dst may be x.
func ReLU(dst, x []float32) {
	same("ReLU", len(x), len(dst))
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		active.relu(dst[lo:hi], x[lo:hi])
	}
}

// ReLUGrad sets dx[i] to dy[i] where y[i] > 0 and to +0 elsewhere; y is ReLU's
// result or its argument. dx may be dy.
func ReLUGrad(dx, dy, y []float32) {
	same("ReLUGrad: dy", len(dy), len(dx))
	same("ReLUGrad: y", len(y), len(dx))
	for lo, hi := piece(0, len(y)); lo < hi; lo, hi = piece(hi, len(y)) {
		active.reluGrad(dx[lo:hi], dy[lo:hi], y[lo:hi])
	}
}

// MaxExponent returns the greatest biased exponent field of the raw bits of x:
// 255 if something is infinite or NaN, 0 if all are zero or subnormal or x is
// empty. |x[i]| < 2^(MaxExponent(x)-126) for every finite x[i].
func MaxExponent(x []float32) uint8 {
	var m uint32
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		m = max(m, active.maxBits(x[lo:hi]))
	}
	return uint8(m >> 23)
}

// RoundAdd adds multiples of a grid, as whole numbers:
//
//	for i := range g {
//		n := RoundToEven(float64(g[i])*scale) + 0
//		acc[i] += n
//		ints += uint64(int64(n))
//		field = max(field, MaxExponent(g[i:i+1]))
//	}
//
// With scale a power of two this is the sum of package exact: whole
// numbers below 2^53 add exactly. No -0 ever arises where acc has none. ints is
// what Narrow's sum of acc grows by, if all |n| ≤ 2^53; else it is some number. field
// is MaxExponent(g).
func RoundAdd(acc []float64, g []float32, scale float64) (ints uint64, field uint8) {
	return round(active.roundAdd, acc, g, scale)
}

// RoundNew is RoundAdd to an acc of +0, whose elements it does not read.
func RoundNew(acc []float64, g []float32, scale float64) (ints uint64, field uint8) {
	return round(active.roundNew, acc, g, scale)
}

func round(part func(acc []float64, g []float32, scale float64) (uint64, uint32), acc []float64, g []float32, scale float64) (ints uint64, field uint8) {
	same("RoundAdd", len(g), len(acc))
	top := uint32(0)
	for lo, hi := piece(0, len(g)); lo < hi; lo, hi = piece(hi, len(g)) {
		n, t := part(acc[lo:hi], g[lo:hi], scale)
		ints, top = ints+n, max(top, t)
	}
	return ints, uint8(top >> 23)
}

// Narrow turns totals into what they stand for, and adds up mod 2^64 what it has
// read of them, whole numbers with |x[i]| ≤ 2^53:
//
//	for i := range x {
//		dst[i] = float32((x[i]+0) * scale)
//		n := int64(x[i])
//		sum += uint64(n) + bits(x[i]-float64(n))
//	}
//
// The sum's second term is 0 for them. It is there for what is no whole number, or
// a -0: a bit that flipped in x changes the sum, whichever bit it was. The sum of
// anything that is not below 2^63 is some number.
func Narrow(dst []float32, x []float64, scale float64) (sum uint64) {
	same("Narrow", len(x), len(dst))
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		sum += active.narrow(dst[lo:hi], x[lo:hi], scale)
	}
	return sum
}

// NarrowDiv is Narrow with a division before the last rounding:
//
//	dst[i] = float32((x[i]+0) * scale / denom)
func NarrowDiv(dst []float32, x []float64, scale, denom float64) (sum uint64) {
	same("NarrowDiv", len(x), len(dst))
	for lo, hi := piece(0, len(x)); lo < hi; lo, hi = piece(hi, len(x)) {
		sum += active.narrowDiv(dst[lo:hi], x[lo:hi], scale, denom)
	}
	return sum
}

// Unit turns bytes into numbers from 0 to 1: dst[i] = float32(src[i]) / 255.
func Unit(dst []float32, src []byte) {
	same("Unit", len(dst), len(src))
	whole := len(src) &^ 15
	for lo, hi := piece(0, whole); lo < hi; lo, hi = piece(hi, whole) {
		active.unit(dst[lo:hi], src[lo:hi])
	}
	unitGeneric(dst[whole:], src[whole:])
}

// AddF64 adds vectors: dst[i] += src[i].
func AddF64(dst, src []float64) {
	same("AddF64", len(src), len(dst))
	for lo, hi := piece(0, len(src)); lo < hi; lo, hi = piece(hi, len(src)) {
		active.addF64(dst[lo:hi], src[lo:hi])
	}
}

// adamConst holds what Adam's loop derives from its arguments once.
type adamConst struct {
	lr, beta1, beta2, eps, c1, c2 float32
	rest1, rest2, shrink          float32
}

// Adam makes one update of Adam with decoupled weight decay (Kingma and Ba 2015,
// algorithm 1; Loshchilov and Hutter 2019) to the parameters p, from the gradient
// g, in place, together with its moments m and v. c1 and c2 are the corrections
// 1/(1-beta1^t) and 1/(1-beta2^t); decay is 0 for plain Adam.
//
//	rest1, rest2, shrink := 1-beta1, 1-beta2, lr*decay
//	for i := range p {
//		m[i] = beta1*m[i] + rest1*g[i]
//		v[i] = beta2*v[i] + rest2*(g[i]*g[i])
//		w := p[i] - shrink*p[i]
//		p[i] = w - lr*((c1*m[i])/(sqrt(c2*v[i])+eps))
//	}
//
// Every operation is rounded to float32, none is fused.
func Adam(p, g, m, v []float32, lr, beta1, beta2, eps, c1, c2, decay float32) {
	same("Adam: g", len(g), len(p))
	same("Adam: m", len(m), len(p))
	same("Adam: v", len(v), len(p))
	c := adamConst{
		lr: lr, beta1: beta1, beta2: beta2, eps: eps, c1: c1, c2: c2,
		rest1: 1 - beta1, rest2: 1 - beta2, shrink: float32(lr * decay),
	}
	for lo, hi := piece(0, len(g)); lo < hi; lo, hi = piece(hi, len(g)) {
		active.adam(p[lo:hi], g[lo:hi], m[lo:hi], v[lo:hi], c)
	}
}
