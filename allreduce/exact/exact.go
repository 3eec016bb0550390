// Package exact sums what crosses microbatches as integers on a power-of-two
// grid, so that the order and the grouping of the additions cannot matter.
//
// A float sum depends on its order, and the order of a ring depends on its
// size. So each tensor p carries an exponent e, with the claim |g| < 2^e for
// every element g of every microbatch's gradient, and an element is rounded
// once, to nearest even, to
//
//	n = g · 2^(B−e),  |n| ≤ 2^B,  B = 53 − ceil(log2 V)
//
// where V is how many terms are added at most. Such integers, held in float64,
// add exactly up to 2^53 on every processor, in any order, on any number of
// threads and nodes. The total becomes float32 once (Finish).
//
//	g ──round──► n ─┐
//	g ──round──► n ─┼─ + (exact, any order) ──► total ──· 2^(e−B) / denom──► float32
//	g ──round──► n ─┘
//	└──exponent──► max (exact, any order) ──► seen ──► Overflow? Raise, repeat : Commit
//
// Whether the claim held is known only afterwards. Beside the sum travels, for
// each tensor, the largest exponent seen. When it exceeds e, every rank sees
// that, raises e (Raise) and the attempt is repeated; one repeat is always
// enough, and its bits are those that a right first guess would have given.
// When it does not, Commit prepares e for the next step. Both are functions of
// replicated values alone, so all nodes walk through the same exponents.
//
// # Why nothing is lost at the edges
//
// Exponents of tensors live in [−126, 136] and B in [0, 53], so every scale is
// a power of two between 2^−136 and 2^179 and every float32, subnormals
// included, times any of them is a normal float64: scaling never rounds and
// never underflows, in either direction. Subnormals have the exponent field 0
// and fit each grid; with V up to 2^30 they are exact on the finest one. A
// value that does not fit its grid may lose bits, but then the attempt is
// thrown away.
//
// A total is never −0: accumulators start at +0, and in round-to-nearest
// neither +0 + −0 nor x + −x is −0. Finish adds +0 to what came in by the
// wire, so that packing may rely on it.
package exact

import (
	"fmt"
	"math"
	"math/bits"
)

// Exponents are of the form max exponent field − 126, so that |g| < 2^exponent.
const (
	// MinExponent is the least exponent of a grid, and the one that a run
	// starts from: the first step learns the true ones by repeating itself.
	MinExponent = -126
	// NonFinite is what is seen of a tensor with a NaN or an Inf in it.
	NonFinite = 255 - 126
	// None is what is seen of a tensor without a normal number in it. Such a
	// tensor fits any grid, and its exponent stays as it is.
	None = math.MinInt16
)

// headroom is how far above what was seen the next step's grid reaches: a
// gradient may grow by 2^8 from one step to the next before a repeat is due.
const headroom = 8

// mantissa is the number of bits of an integer that float64 holds exactly.
const mantissa = 53

// Window is one tensor's place in the flat vector: elements [Lo, Hi).
type Window struct{ Lo, Hi int }

// Bits returns B, the size of one rounded term in bits, when at most terms of
// them are added: terms · 2^B ≤ 2^53.
func Bits(terms int) int {
	if terms < 1 {
		panic(fmt.Sprintf("exact: a sum of %d terms", terms))
	}
	b := mantissa - bits.Len64(uint64(terms)-1)
	if b < 0 {
		panic(fmt.Sprintf("exact: %d terms leave no bits for each", terms))
	}
	return b
}

// Overflow reports whether some tensor's claim |g| < 2^e did not hold, so that
// the attempt has to be repeated with raised exponents, or, if FirstNonFinite
// says so, to be given up. It is false exactly when the sum is exact.
func Overflow(exps, seen []int16) bool {
	mustMatch(exps, seen)
	for i, s := range seen {
		if s == NonFinite || s > exps[i] {
			return true
		}
	}
	return false
}

// Beyond is by how many powers of two what was seen is too large for a grid: 0 if it
// fits, NoNumber if no grid holds it. Overflow is true where it is not 0.
func Beyond(seen, e int16) int {
	if seen == NonFinite {
		return NoNumber
	}
	return max(0, int(seen)-int(e))
}

// NoNumber is how far a NaN or an Inf is beyond a grid.
const NoNumber = math.MaxInt16

// Raise sets each exponent to max(e, seen), for the repeat of an attempt that
// overflowed. Ask FirstNonFinite first: no grid holds a NaN.
func Raise(exps, seen []int16) {
	mustBeFinite(exps, seen)
	for i, s := range seen {
		exps[i] = max(exps[i], s)
	}
}

// Commit sets each exponent for the next step, after an attempt that did not
// overflow: max(seen+8, e−1, −126), unchanged where nothing was seen. So a grid
// follows a growing gradient at once and a shrinking one slowly.
func Commit(exps, seen []int16) {
	mustBeFinite(exps, seen)
	for i, s := range seen {
		if s != None {
			exps[i] = max(s+headroom, exps[i]-1, MinExponent)
		}
	}
}

// MergeSeen sets dst to what was seen by either.
func MergeSeen(dst, src []int16) {
	mustMatch(dst, src)
	for i, s := range src {
		dst[i] = max(dst[i], s)
	}
}

// FirstNonFinite returns the first tensor in which a NaN or an Inf was seen.
// An attempt always runs over every microbatch and tensor, so that the answer
// does not depend on who computed what.
func FirstNonFinite(seen []int16) (tensor int, ok bool) {
	for i, s := range seen {
		if s == NonFinite {
			return i, true
		}
	}
	return 0, false
}

// StartExponents returns what n grids start from: MinExponent each.
func StartExponents(n int) []int16 {
	exps := make([]int16, n)
	for i := range exps {
		exps[i] = MinExponent
	}
	return exps
}

// pow2 returns 2^k, for k in the range of normal float64 exponents.
func pow2(k int) float64 {
	return math.Float64frombits(uint64(k+1023) << 52)
}

func mustMatch(a, b []int16) {
	if len(a) != len(b) {
		panic(fmt.Sprintf("exact: exponents of %d and %d tensors", len(a), len(b)))
	}
}

func mustBeFinite(exps, seen []int16) {
	mustMatch(exps, seen)
	if i, bad := FirstNonFinite(seen); bad {
		panic(fmt.Sprintf("exact: tensor %d is not finite", i))
	}
}
