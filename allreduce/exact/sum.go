package exact

import (
	"fmt"
	"math"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/pages"
)

// Sum adds microbatch gradients of one flat parameter vector, each tensor on
// its own grid. After NewSum it allocates nothing.
//
// The vector is cut into blocks, each within one tensor. Since integers add up to
// the same in any order, several goroutines may add to one sum, each a microbatch
// of its own, as long as a block belongs to one of them at a time. All else is for
// one goroutine, while nobody adds.
type Sum struct {
	windows []Window
	terms   int // most that may be added, over all ranks
	bits    int // Bits(terms)

	exps   []int16   // per tensor, in force between Reset and Reset
	scale  []float64 // likewise 2^(B−e)
	acc    []float64 // integers, never −0
	blocks []block
	seen   []int16 // per tensor, as Seen returns it
}

// block is a part of the vector and what has been added there. It fills a cache
// line, so that who adds to one does not disturb who adds to the next.
type block struct {
	Window
	tensor int
	added  int    // terms in acc; acc is rubbish while there are none
	ints   uint64 // their sum mod 2^64, as they were rounded
	seen   int16  // largest exponent, or None or NonFinite
	_      [22]byte
}

// blockLen is the greatest length of a block: what a kernel does in one call.
const blockLen = 8192

// NewSum returns a sum over tensors that lie end to end from 0, of at most
// terms microbatches in all ranks together (V of the package comment). Reset
// it before use. The windows are kept, not copied.
func NewSum(windows []Window, terms int) *Sum {
	s := &Sum{
		windows: windows,
		terms:   terms,
		bits:    Bits(terms),
		exps:    make([]int16, len(windows)),
		scale:   make([]float64, len(windows)),
		acc:     pages.Float64s(length(windows)),
		seen:    make([]int16, len(windows)),
	}
	for i, w := range windows {
		for lo := w.Lo; lo < w.Hi; lo += blockLen {
			s.blocks = append(s.blocks, block{Window: Window{lo, min(lo+blockLen, w.Hi)}, tensor: i})
		}
	}
	return s
}

// Reset empties the sum and puts it on the grids of exps, one per tensor.
func (s *Sum) Reset(exps []int16) {
	mustMatch(exps, s.seen)
	copy(s.exps, exps)
	for i, e := range exps {
		s.scale[i] = pow2(s.bits - checked(e))
	}
	for i := range s.blocks {
		b := &s.blocks[i]
		b.added, b.ints, b.seen = 0, 0, None
	}
}

// Blocks returns how many blocks there are.
func (s *Sum) Blocks() int { return len(s.blocks) }

// Block returns which elements block i is. Blocks lie end to end from 0.
func (s *Sum) Block(i int) Window { return s.blocks[i].Window }

// Add rounds one microbatch's gradient, as long as the vector, and adds it.
func (s *Sum) Add(g []float32) {
	if len(g) != len(s.acc) {
		panic(fmt.Sprintf("exact: gradient of %d elements for a sum of %d", len(g), len(s.acc)))
	}
	for i := range s.blocks {
		s.AddBlock(i, g[s.blocks[i].Lo:s.blocks[i].Hi])
	}
}

// AddBlock rounds block i of one microbatch's gradient and adds it. It returns how
// many terms the block has now, and how far this one is beyond its grid. Every
// microbatch must come with a block before that is used.
func (s *Sum) AddBlock(i int, g []float32) (terms, beyond int) {
	b := &s.blocks[i]
	if b.added++; b.added > s.terms {
		panic(fmt.Sprintf("exact: term %d of a sum of %d", b.added, s.terms))
	}
	round := kernel.RoundAdd
	if b.added == 1 {
		round = kernel.RoundNew
	}
	ints, field := round(s.acc[b.Lo:b.Hi], g, s.scale[b.tensor])
	b.ints += ints
	seen := exponent(field)
	b.seen = max(b.seen, seen)
	return b.added, Beyond(seen, s.exps[b.tensor])
}

// Memory returns where Acc will be, for who takes the sum block by block, as they
// get their last term. What is in other blocks is rubbish.
func (s *Sum) Memory() []float64 { return s.acc }

// Acc returns the accumulator itself, +0 where nothing was added: the ring may
// add into it, and Reset takes it back.
func (s *Sum) Acc() []float64 {
	for i := range s.blocks {
		b := &s.blocks[i]
		if b.added != s.blocks[0].added {
			panic(fmt.Sprintf("exact: %d terms at element %d, %d at 0", b.added, b.Lo, s.blocks[0].added))
		}
		if b.added == 0 {
			clear(s.acc[b.Lo:b.Hi])
		}
	}
	return s.acc
}

// Ints returns the sum mod 2^64 of all integers that were added, as they were
// when they were rounded. It is linear, so the totals of all ranks have the sum
// of all ranks' sums: a bit that flips in between, in the accumulator or on the
// way, shows. Of sums that did not fit their grids it says nothing.
func (s *Sum) Ints() (sum uint64) {
	for i := range s.blocks {
		sum += s.blocks[i].ints
	}
	return sum
}

// Seen returns the largest exponent seen of each tensor, valid until the next
// call.
func (s *Sum) Seen() []int16 {
	for i := range s.seen {
		s.seen[i] = None
	}
	for i := range s.blocks {
		b := &s.blocks[i]
		s.seen[b.tensor] = max(s.seen[b.tensor], b.seen)
	}
	return s.seen
}

// Bits returns B, which Finish needs.
func (s *Sum) Bits() int { return s.bits }

// Finish turns totals into what they stand for, with one division in float64
// and one rounding to float32:
//
//	dst[i] = float32((total[i]+0)·2^(e−B) / denom)
//
// It returns the sum mod 2^64 of the totals that it has read, to be compared with
// all ranks' Ints.
//
// dst and total hold elements lo, lo+1, … of the vector, a chunk that need not
// keep to tensor boundaries; windows and exps are those of the whole vector. A
// denominator (samples, tokens, weights) is a positive number, summed exactly.
func Finish(dst []float32, total []float64, lo int, windows []Window, exps []int16, bits int, denom float64) (sum uint64) {
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
			sum += finish(dst[a:b], total[a:b], pow2(checked(exps[i])-bits), denom)
			done += b - a
		}
	}
	if done != len(dst) {
		panic(fmt.Sprintf("exact: chunk [%d, %d) is not covered by tensors", lo, lo+len(dst)))
	}
	return sum
}

// finish multiplies where that gives the same bits: a float64 divided by a power
// of two is exact, and that much smaller it is far from being subnormal.
func finish(dst []float32, total []float64, unit, denom float64) (sum uint64) {
	if fraction, _ := math.Frexp(denom); fraction == 0.5 && denom < 1<<64 {
		return kernel.Narrow(dst, total, unit/denom)
	}
	return kernel.NarrowDiv(dst, total, unit, denom)
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
