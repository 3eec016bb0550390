// Package kernel is the arithmetic over vectors and matrices that a training
// step consists of: the same bits on every CPU.
//
// Each element of a result is defined by one sequence of IEEE operations, and
// the doc comment of each function is that sequence as a loop in Go, with
// fma(a, b, c) for fmath.FMA32. How many elements are computed at once, in what
// order, by which instructions, is free; what happens within one element is not.
// So a product of matrices never splits its sum: one chain of fused multiply-adds,
// k ascending, from +0 or from the old value.
//
//	       k ──►                      c[i,j] = fma(a[i,k-1], b[k-1,j],
//	  ┌──────────────┐                           ... fma(a[i,1], b[1,j],
//	i │▒▒▒▒ a ▒▒▒▒▒▒▒│                             fma(a[i,0], b[0,j], +0)))
//	  └──────────────┘  ┌─┐ k
//	                    │▒│ │         a tile of c stays in registers, its
//	                    │b│ ▼         elements in different lanes, while k runs
//	                    │▒│
//	                    └─┘ j
//
// Nothing is padded along k and no zero is skipped: 0*Inf is NaN, and adding +0
// turns -0 into +0. Chains may be cut along k, since a float32 stored and loaded
// again is the same float32.
//
// There are three variants: assembly for AVX-512, assembly for AVX2 with FMA
// (both generated, see gen), and portable Go for everything else. Tests run all
// of them on the same input and compare bits; a recorded SHA-256 of fixed results
// guards the definitions themselves.
//
// # NaN
//
// Architectures disagree on the sign and payload of a NaN, so every NaN that a
// kernel writes is 0x7fc00000 (0x7ff8000000000000 in float64).
//
// # Rounding mode
//
// Round to nearest, subnormals kept: the state that the Go runtime sets up. A
// program that links C may change it; CheckMode tells.
package kernel

import (
	"fmt"
	"math"
)

// variant is one implementation of what the exported functions share out.
// Whole vectors of any length, 0 included, are handed down; lengths are checked.
type variant struct {
	name string

	rows, cols int          // largest tile of a product held in registers
	rowsOne    int          // height of the largest tile of half the width
	rowsFour   int          // up to which height a tile may be twice as wide
	packs      bool         // product knows panel.pack
	product    func(*panel) // see panel
	// transpose copies blocks of 8 by 8 elements, side by side in src, one below
	// the other in dst; nil if there is no fast way.
	transpose func(dst, src *float32, blocks, dstStride, srcStride int)
	add       func(dst, src []float32)
	addF64    func(dst, src []float64)
	roundAdd  func(acc []float64, g []float32, scale float64) (ints uint64, top uint32)
	roundNew  func(acc []float64, g []float32, scale float64) (ints uint64, top uint32)
	narrow    func(dst []float32, x []float64, scale float64) (sum uint64)
	narrowDiv func(dst []float32, x []float64, scale, denom float64) (sum uint64)
	maxBits   func(x []float32) uint32        // maximum of the bits without sign
	unit      func(dst []float32, src []byte) // lengths are multiples of 16
	relu      func(dst, x []float32)
	reluGrad  func(dx, dy, y []float32)
	exp       func(dst, x []float32)
	tanh      func(dst, x []float32)
	sigmoid   func(dst, x []float32)
	log       func(dst, x []float32)
	elu       func(dst, x []float32)
	gelu      func(dst, x []float32)
	swish     func(dst, x []float32)

	geluGrad    func(dx, dy, x []float32)
	swishGrad   func(dx, dy, x []float32)
	eluGrad     func(dx, dy, y []float32)
	sigmoidGrad func(dx, dy, y []float32)
	tanhGrad    func(dx, dy, y []float32)
	multiply    func(dst, x, y []float32)
	leaky       func(dst, x, y []float32, slope float32)
	sumLanes    func(l [lanes]float32, x []float32) [lanes]float32 // whole sixteens
	maxKey      func(x []float32) int32                            // of whole sixteens, see key
	adam        func(p, g, m, v []float32, c adamConst)

	lstmForward  func(i, f, g, o, c, next, squashed, h []float32)
	lstmBackward func(i, f, g, o, c, squashed, dh, dc []float32)
	gruForward   func(z, r, g, b, h, next []float32)
	gruBackward  func(z, r, g, b, h, dh []float32)
	momentum     func(p, g, v []float32, lr, momentum float32)
	nesterov     func(p, g, v []float32, lr, momentum float32)
	rmsprop      func(p, g, v []float32, lr, rho, rest, eps float32)

	poolMax         func(w pooling)
	poolMaxGrad     func(w pooling)
	poolAverage     func(w pooling)
	poolAverageGrad func(w pooling)

	sumRows      func(dst, x []float32, rows, stride int)
	normSums     func(sum, square []float64, x []float32, mean []float64, rows int)
	normApply    func(y, x []float32, mean, scale, shift []float64, rows int)
	normGradSums func(sum, along []float64, dy, x []float32, mean []float64, rows int)
	normGrad     func(dx, dy, x []float32, mean, p, q, r []float64, rows int)
	rowSums      func(x []float32, at float64) (sum, square float64)
	rowApply     func(y, x []float32, scale, shift []float64, mean, inv float64)
	rowGradSums  func(plain, along []float64, dy, x []float32, scale []float64, mean, inv float64) (sum, dot float64)
	rowGrad      func(dx, dy, x []float32, scale []float64, mean, inv, p, q float64)

	drop    func(dst, x []float32, k0, k1 uint32, first uint64, least int32, scale float32)
	mulRows func(dst, x, f []float32, rows int)

	// Whole blocks, see pack and unpack.
	pack64      func(dst []byte, x []float64) int
	unpack64    func(dst []float64, src []byte) (done, read int)
	unpackAdd64 func(acc []float64, src []byte) (done, read int)
	pack32      func(dst []byte, x []float32) int
	unpack32    func(dst []float32, src []byte) (done, read int)

	foldCRC func(state *[foldLen]byte, p []byte) // see CRC32C; p is of whole foldLens; nil if there is no fast way
}

// variants lists what this CPU can run, best first. The portable one is last
// and always there.
var variants = append(native(), generic)

// active is the variant in use: the best, until Use names another.
var active = &variants[0]

// Use makes the named variant ("avx512", "avx2" or "generic") the one in use. An
// unknown or unsupported name is an error that lists what this CPU can run. It
// is meant for tests and for the start of a program: calls must not overlap with
// calls of other functions of this package.
func Use(name string) error {
	var names []string
	for i := range variants {
		if variants[i].name == name {
			active = &variants[i]
			return nil
		}
		names = append(names, variants[i].name)
	}
	err := fmt.Errorf("kernel %q is not among those this CPU runs: %q", name, names)
	if why := Lacks(); why != "" {
		err = fmt.Errorf("%w, since %s", err, why)
	}
	return err
}

// Name returns the name of the variant in use.
func Name() string { return active.name }

// Variants returns the names that Use accepts on this CPU, best first.
func Variants() []string {
	names := make([]string, len(variants))
	for i := range variants {
		names[i] = variants[i].name
	}
	return names
}

// Lacks says why none of the kernels in assembly runs on this CPU, so that what
// is left is portable Go: "this processor has no AVX2, FMA". It is "" where one runs.
func Lacks() string { return lacks() }

// CheckMode returns an error unless the calling thread keeps subnormal numbers
// and rounds to nearest. Go programs start so; code linked through cgo can break
// it, and a trajectory's bits with it.
func CheckMode() error {
	one := 1 + float32(opaque)
	up, down := float32(one+0x1.8p-24), float32(one-0x1.8p-26)
	if up != 1+0x1p-23 || down != 1 {
		return fmt.Errorf("the floating-point unit does not round to nearest")
	}
	tiny := math.Float32frombits(1 + opaque)
	if got := math.Float32bits(float32(tiny*0.75) + tiny); got != 2 {
		return fmt.Errorf("the floating-point unit flushes subnormal numbers to zero (2^-149 * 0.75 + 2^-149 gave %#x, want 2)", got)
	}
	return nil
}

// opaque is 0, unknown to the compiler, so that CheckMode runs at run time.
var opaque uint32

const (
	nanBits32 = 0x7fc00000
	nanBits64 = 0x7ff8000000000000
	absMask32 = 1<<31 - 1
)

// quiet32 replaces any NaN by the one that kernels write.
func quiet32(x float32) float32 {
	if x != x {
		return math.Float32frombits(nanBits32)
	}
	return x
}

// quiet64 is quiet32 for float64.
func quiet64(x float64) float64 {
	if x != x {
		return math.Float64frombits(nanBits64)
	}
	return x
}

// tiny is where gradients end that go back through the steps of a sequence: what is
// smaller in size becomes +0. Beside anything that it could be added to it is nothing,
// but its products would sink into the subnormal numbers, of which one costs some CPUs
// as much as a hundred others.
const tiny = 0x1p-100

// flush32 replaces what is tiny by +0, and any NaN by the one that kernels write.
func flush32(x float32) float32 {
	if -tiny < x && x < tiny {
		return 0
	}
	return quiet32(x)
}

// same panics unless the two lengths are equal.
func same(what string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("kernel: %s: got length %d, want %d", what, got, want))
	}
}
