package shard

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// Range is a run of microbatches [Lo, Hi) of one step.
type Range struct{ Lo, Hi int }

// Len returns the number of microbatches in the range.
func (r Range) Len() int { return r.Hi - r.Lo }

// Assign deals the microbatches of a step to the ranks, in proportion to their
// shares: result[rank] is what the rank computes. The ranges are contiguous, in
// the order of the ranks, and cover every microbatch once.
//
// Each rank gets its quota rounded down, and those with the largest fractions
// one more, lower ranks first (largest remainders). So a larger share never
// gets less than a smaller one, equal shares differ by one at most, and a share
// of zero gets nothing. With more ranks than microbatches some get an empty
// range. When all shares are zero they count as equal.
//
// The ranks with a share exchange their ranges in a circle, rotation places
// along, when something is to be computed on other hardware than the first
// time: a rotation of 1 moves every microbatch to another rank if two have a
// share. No result of training depends on any argument but the first.
func Assign(microbatches int, shares []uint32, rotation int) []Range {
	if microbatches < 0 || len(shares) == 0 {
		panic(fmt.Sprintf("shard: assigning %d microbatches to %d ranks", microbatches, len(shares)))
	}
	counts, workers := apportion(microbatches, shares)
	ranges := make([]Range, len(shares))
	at := 0
	for rank, n := range counts {
		ranges[rank] = Range{at, at + n}
		at += n
	}
	return rotate(ranges, workers, rotation)
}

// rotate gives each worker the range of the one by places further on.
func rotate(ranges []Range, workers []int, by int) []Range {
	n := len(workers)
	by = (by%n + n) % n
	rotated := slices.Clone(ranges)
	for i, rank := range workers {
		rotated[rank] = ranges[workers[(i+by)%n]]
	}
	return rotated
}

// apportion returns how many microbatches each rank gets, and the ranks that
// take part, ascending.
func apportion(microbatches int, shares []uint32) (counts, workers []int) {
	weights, total := effective(shares)
	counts = make([]int, len(shares))
	fractions := make([]uint64, len(shares))
	left := microbatches
	for rank, w := range weights {
		if w == 0 {
			continue
		}
		workers = append(workers, rank)
		hi, lo := bits.Mul64(uint64(microbatches), w)
		quota, rest := bits.Div64(hi, lo, total) // hi < total, since w ≤ total
		counts[rank], fractions[rank] = int(quota), rest
		left -= int(quota)
	}
	for _, rank := range byFraction(workers, fractions)[:left] {
		counts[rank]++
	}
	return counts, workers
}

// effective returns the shares, all equal where all are zero, and their sum.
func effective(shares []uint32) (weights []uint64, total uint64) {
	weights = make([]uint64, len(shares))
	for i, s := range shares {
		weights[i] = uint64(s)
		total += weights[i]
	}
	if total > 0 {
		return weights, total
	}
	for i := range weights {
		weights[i] = 1
	}
	return weights, uint64(len(weights))
}

// byFraction returns the ranks by falling fraction, lower ranks first.
func byFraction(ranks []int, fractions []uint64) []int {
	sorted := slices.Clone(ranks)
	slices.SortStableFunc(sorted, func(a, b int) int { return cmp.Compare(fractions[b], fractions[a]) })
	return sorted
}
