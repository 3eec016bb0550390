package exact

import (
	"fmt"
	"math"
)

// CountExponent is what grids of counts start from, as Commit would leave them
// after a 1: so a count that comes up for the first time is no reason to repeat
// anything.
const CountExponent = 1 + headroom

// Scalars adds numbers of single samples, losses and metrics, under the rules of
// Sum: Overflow, Raise, Commit, MergeSeen and FirstNonFinite apply to their
// exponents as to those of tensors. Sums come in groups, and those of a group
// share a grid, as the elements of a tensor do. Each sample's value is rounded
// before any addition, so that the size of the batches in which samples were
// evaluated does not matter. It belongs to one goroutine and allocates nothing
// after NewScalars.
//
// Losses come from float32 arithmetic. What float32 cannot hold, a value of
// 2^128 or more in size, is non-finite here too; values below 2^−126 fit every
// grid and go unseen, as float32's subnormals do.
type Scalars struct {
	terms int // most samples that may be added, over all ranks
	bits  int // Bits(terms)

	first []int // of each group its first sum, and the number of sums behind the last
	scale []float64
	exps  []int16
	seen  []int16
	acc   []float64 // of each sum
	added []uint64  // likewise
}

// NewScalars returns groups of so many sums each, of at most terms samples in all
// ranks together. Reset them before use.
func NewScalars(widths []int, terms int) *Scalars {
	s := &Scalars{
		terms: terms,
		bits:  Bits(terms),
		first: make([]int, 1, len(widths)+1),
		scale: make([]float64, len(widths)),
		exps:  make([]int16, len(widths)),
		seen:  make([]int16, len(widths)),
	}
	sums := 0
	for _, w := range widths {
		sums += w
		s.first = append(s.first, sums)
	}
	s.acc, s.added = make([]float64, sums), make([]uint64, sums)
	return s
}

// Reset empties the sums and puts them on the grids of exps, one for each group.
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

// Add rounds the values of some samples and adds them to the first sum of group i. It
// returns how far they are beyond its grid.
func (s *Scalars) Add(i int, values []float64) (beyond int) {
	at := s.first[i]
	s.count(at, uint64(len(values)))
	acc, scale := s.acc[at], s.scale[i]
	for _, v := range values {
		acc += math.RoundToEven(float64(v * scale))
	}
	s.acc[at] = acc
	seen := SeenOf(values)
	s.seen[i] = max(s.seen[i], seen)
	return Beyond(seen, s.exps[i])
}

// SeenOf is what is seen of values.
func SeenOf(values []float64) int16 {
	seen := int16(None)
	for _, v := range values {
		seen = max(seen, exponent64(v))
	}
	return seen
}

// Put rounds what one sample gives to sum j of group i, and adds it. It returns what
// Add does.
func (s *Scalars) Put(i, j int, v float64) (beyond int) {
	at := s.first[i] + j
	if j < 0 || at >= s.first[i+1] {
		panic(fmt.Sprintf("exact: sum %d of %d", j, s.first[i+1]-s.first[i]))
	}
	s.count(at, 1)
	s.acc[at] += math.RoundToEven(float64(v * s.scale[i]))
	seen := exponent64(v)
	s.seen[i] = max(s.seen[i], seen)
	return Beyond(seen, s.exps[i])
}

// Merge adds what o holds, sums on the same grids.
func (s *Scalars) Merge(o *Scalars) {
	if len(o.acc) != len(s.acc) || len(o.exps) != len(s.exps) || o.bits != s.bits {
		panic("exact: merging scalars of different shape")
	}
	for i, e := range o.exps {
		if e != s.exps[i] {
			panic(fmt.Sprintf("exact: merging grids 2^%d and 2^%d of scalar %d", s.exps[i], e, i))
		}
	}
	for at, x := range o.acc {
		s.count(at, o.added[at])
		s.acc[at] += x
	}
	MergeSeen(s.seen, o.seen)
}

// Acc returns the accumulators themselves, group by group.
func (s *Scalars) Acc() []float64 { return s.acc }

// Seen returns the largest exponent seen in each group, valid until the next
// call that changes the sums.
func (s *Scalars) Seen() []int16 { return s.seen }

// Counts returns how many values each sum holds, valid likewise.
func (s *Scalars) Counts() []uint64 { return s.added }

// Bits returns B, which Value needs.
func (s *Scalars) Bits() int { return s.bits }

// Value turns a total into the sum it stands for: (total+0)·2^(e−B), exactly.
func Value(total float64, e int16, bits int) float64 {
	return float64((total + 0) * pow2(checked(e)-bits))
}

func (s *Scalars) count(at int, n uint64) {
	s.added[at] += n
	if s.added[at] > uint64(s.terms) {
		panic(fmt.Sprintf("exact: sample %d of a sum of %d", s.added[at], s.terms))
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
