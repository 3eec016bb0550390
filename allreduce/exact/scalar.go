package exact

import (
	"fmt"
	"math"
)

// Scalars adds per-sample losses and metrics, a few sums side by side, each on
// its own grid, under the rules of Sum: Overflow, Raise, Commit, MergeSeen and
// FirstNonFinite apply to their exponents as to those of tensors. Each sample's
// value is rounded before any addition, so that the size of the batches in
// which samples were evaluated does not matter. It belongs to one goroutine
// and allocates nothing after NewScalars.
//
// Losses come from float32 arithmetic. What float32 cannot hold, a value of
// 2^128 or more in size, is non-finite here too; values below 2^−126 fit every
// grid and go unseen, as float32's subnormals do.
type Scalars struct {
	terms int // most samples that may be added, over all ranks
	bits  int // Bits(terms)

	scale []float64
	exps  []int16
	acc   []float64
	seen  []int16
	added []uint64
}

// NewScalars returns sums of at most terms samples each, in all ranks together.
// Reset them before use.
func NewScalars(sums, terms int) *Scalars {
	return &Scalars{
		terms: terms,
		bits:  Bits(terms),
		scale: make([]float64, sums),
		exps:  make([]int16, sums),
		acc:   make([]float64, sums),
		seen:  make([]int16, sums),
		added: make([]uint64, sums),
	}
}

// Reset empties the sums and puts them on the grids of exps.
func (s *Scalars) Reset(exps []int16) {
	mustMatch(exps, s.exps)
	copy(s.exps, exps)
	for i, e := range exps {
		s.scale[i] = pow2(s.bits - checked(e))
		s.seen[i] = None
	}
	clear(s.acc)
	clear(s.added)
}

// Add rounds the values of some samples and adds them to sum i.
func (s *Scalars) Add(i int, values []float64) {
	s.count(i, uint64(len(values)))
	acc, seen, scale := s.acc[i], s.seen[i], s.scale[i]
	for _, v := range values {
		acc += math.RoundToEven(float64(v * scale))
		seen = max(seen, exponent64(v))
	}
	s.acc[i], s.seen[i] = acc, seen
}

// Merge adds what o holds, sums on the same grids.
func (s *Scalars) Merge(o *Scalars) {
	if len(o.acc) != len(s.acc) || o.bits != s.bits {
		panic("exact: merging scalars of different shape")
	}
	for i, e := range o.exps {
		if e != s.exps[i] {
			panic(fmt.Sprintf("exact: merging grids 2^%d and 2^%d of scalar %d", s.exps[i], e, i))
		}
		s.count(i, o.added[i])
		s.acc[i] += o.acc[i]
	}
	MergeSeen(s.seen, o.seen)
}

// Acc returns the accumulators themselves.
func (s *Scalars) Acc() []float64 { return s.acc }

// Seen returns the largest exponent seen of each sum, valid until the next
// call that changes the sums.
func (s *Scalars) Seen() []int16 { return s.seen }

// Counts returns how many samples each sum holds, valid likewise.
func (s *Scalars) Counts() []uint64 { return s.added }

// Bits returns B, which Mean needs.
func (s *Scalars) Bits() int { return s.bits }

// Mean turns a total over count samples into their mean, with one rounding in
// float64: (total+0)·2^(e−B) / count.
func Mean(total float64, e int16, bits int, count uint64) float64 {
	if count == 0 {
		panic("exact: mean of no samples")
	}
	return float64((total+0)*pow2(checked(e)-bits)) / float64(count)
}

func (s *Scalars) count(i int, n uint64) {
	s.added[i] += n
	if s.added[i] > uint64(s.terms) {
		panic(fmt.Sprintf("exact: sample %d of a sum of %d", s.added[i], s.terms))
	}
}

// exponent64 is exponent for a float64 held to float32's range.
func exponent64(v float64) int16 {
	e := int(math.Float64bits(v)>>52&0x7ff) - 1022
	switch {
	case e <= MinExponent:
		return None
	case e >= NonFinite:
		return NonFinite
	}
	return int16(e)
}
