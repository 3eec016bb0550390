package exact

import (
	"fmt"

	"github.com/dlnode/dlnode/internal/kernel"
)

// Sum adds microbatch gradients of one flat parameter vector, each tensor on
// its own grid. It belongs to one goroutine; several are merged. After NewSum
// it allocates nothing.
type Sum struct {
	windows []Window
	terms   int // most that may be added, over all ranks
	bits    int // Bits(terms)

	scale []float64 // per tensor 2^(B−e); valid between Reset and Reset
	exps  []int16   // per tensor e, as Reset was given them
	acc   []float64 // integers, never −0
	seen  []int16   // per tensor largest exponent, or None or NonFinite
	added int       // terms in acc, to keep the promise of exactness
}

// NewSum returns a sum over tensors that lie end to end from 0, of at most
// terms microbatches in all ranks together (V of the package comment). Reset
// it before use. The windows are kept, not copied.
func NewSum(windows []Window, terms int) *Sum {
	return &Sum{
		windows: windows,
		terms:   terms,
		bits:    Bits(terms),
		scale:   make([]float64, len(windows)),
		exps:    make([]int16, len(windows)),
		acc:     make([]float64, length(windows)),
		seen:    make([]int16, len(windows)),
	}
}

// Reset empties the sum and puts it on the grids of exps, one per tensor.
func (s *Sum) Reset(exps []int16) {
	mustMatch(exps, s.exps)
	copy(s.exps, exps)
	for i, e := range exps {
		s.scale[i] = pow2(s.bits - checked(e))
		s.seen[i] = None
	}
	clear(s.acc)
	s.added = 0
}

// Add rounds one microbatch's gradient, as long as the vector, and adds it.
func (s *Sum) Add(g []float32) {
	if len(g) != len(s.acc) {
		panic(fmt.Sprintf("exact: gradient of %d elements for a sum of %d", len(g), len(s.acc)))
	}
	s.count(1)
	for i, w := range s.windows {
		part := g[w.Lo:w.Hi]
		kernel.RoundAdd(s.acc[w.Lo:w.Hi], part, s.scale[i])
		s.seen[i] = max(s.seen[i], exponent(kernel.MaxExponent(part)))
	}
}

// Merge adds what o holds, a sum over the same tensors on the same grids.
func (s *Sum) Merge(o *Sum) {
	if len(o.acc) != len(s.acc) || o.bits != s.bits {
		panic("exact: merging sums of different shape")
	}
	for i, e := range o.exps {
		if e != s.exps[i] {
			panic(fmt.Sprintf("exact: merging grids 2^%d and 2^%d of tensor %d", s.exps[i], e, i))
		}
	}
	s.count(o.added)
	kernel.AddF64(s.acc, o.acc)
	MergeSeen(s.seen, o.seen)
}

// Acc returns the accumulator itself: the ring may add into it, and Reset
// takes it back.
func (s *Sum) Acc() []float64 { return s.acc }

// Ints returns the sum of the accumulator's integers mod 2^64. It is linear, so
// the totals of all ranks have the sum of all ranks' sums: a bit that flips on
// the way between them shows. Of sums that did not fit their grids it says nothing.
func (s *Sum) Ints() uint64 { return kernel.SumInts(s.acc) }

// Seen returns the largest exponent seen of each tensor, valid until the next
// call that changes the sum.
func (s *Sum) Seen() []int16 { return s.seen }

// Bits returns B, which Finish needs.
func (s *Sum) Bits() int { return s.bits }

// count keeps to the number of terms for which the additions are exact.
func (s *Sum) count(n int) {
	s.added += n
	if s.added > s.terms {
		panic(fmt.Sprintf("exact: term %d of a sum of %d", s.added, s.terms))
	}
}

// Finish turns totals into what they stand for, with one division in float64
// and one rounding to float32:
//
//	dst[i] = float32((total[i]+0)·2^(e−B) / denom)
//
// dst and total hold elements lo, lo+1, … of the vector, a chunk that need not
// keep to tensor boundaries; windows and exps are those of the whole vector. A
// denominator (samples, tokens, weights) is a positive number, summed exactly.
func Finish(dst []float32, total []float64, lo int, windows []Window, exps []int16, bits int, denom float64) {
	if len(dst) != len(total) || len(windows) != len(exps) {
		panic(fmt.Sprintf("exact: %d results of %d totals, %d windows on %d grids",
			len(dst), len(total), len(windows), len(exps)))
	}
	if !(denom > 0) {
		panic(fmt.Sprintf("exact: denominator %v", denom))
	}
	done := 0
	for i, w := range windows {
		a, b := max(w.Lo-lo, 0), min(w.Hi-lo, len(dst))
		if a < b {
			finish(dst[a:b], total[a:b], pow2(checked(exps[i])-bits), denom)
			done += b - a
		}
	}
	if done != len(dst) {
		panic(fmt.Sprintf("exact: chunk [%d, %d) is not covered by tensors", lo, lo+len(dst)))
	}
}

func finish(dst []float32, total []float64, unit, denom float64) {
	total = total[:len(dst)]
	for i := range dst {
		dst[i] = float32(float64((total[i]+0)*unit) / denom)
	}
}

// exponent maps a maximum exponent field of raw float32 bits to what is seen.
func exponent(field uint8) int16 {
	if field == 0 {
		return None
	}
	return int16(field) - 126
}

// checked returns a grid's exponent, which can be nothing that Raise and
// Commit could not have made.
func checked(e int16) int {
	if e < MinExponent || e >= NonFinite+headroom {
		panic(fmt.Sprintf("exact: a grid of 2^%d", e))
	}
	return int(e)
}

// length returns the length of the vector that windows tile.
func length(windows []Window) int {
	n := 0
	for i, w := range windows {
		if w.Lo != n || w.Hi < w.Lo {
			panic(fmt.Sprintf("exact: tensor %d is [%d, %d), after %d", i, w.Lo, w.Hi, n))
		}
		n = w.Hi
	}
	return n
}
