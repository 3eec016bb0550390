// Package shard says which samples belong to which step, microbatch and rank.
//
// Three questions, kept apart so that the world size appears in the last alone:
//
//	Permutation  which sample stands at position i of an epoch   (seed, epoch)
//	Plan         which positions make step t, microbatch m       (t, m)
//	Assign       which rank computes microbatch m                (shares, rotation)
//
//	epoch  │ s7 s2 s9 s0 │ s4 s1 s8 s5 │ s3 s6 │   positions, cut into global batches;
//	step   │      0      │      1      │   2   │   the last of an epoch may be short
//	mb     │  0  │  1  │ │  0  │  1  │ │ 0 │       of Micro samples, the last may be short
//	rank   │  0  │  1  │ │  0  │  1  │ │ 0 │       this line changes with every view
//
// All of it is arithmetic on values that every node holds, so nothing has to be
// sent or remembered, and a step that is computed again by whoever is left has
// the very same samples.
//
// Architecture invariant: nothing here knows what a sample is. Ids come from
// the records that were read, through a function of the caller's, because a
// plan that were checked against itself would prove nothing.
package shard

import "fmt"

// Plan is the order of training: N samples, visited once an epoch in a keyed
// order, Global of them in a step, Micro of them in a microbatch. It is a value.
type Plan struct {
	N      int    // samples of the data set
	Global int    // samples of a step
	Micro  int    // samples of a microbatch, the unit of work
	Seed   uint64 // of the order
}

// Validate says what keeps the plan from being one.
func (p Plan) Validate() error {
	switch {
	case p.N < 1:
		return fmt.Errorf("shard: the training set has %d samples, at least 1 is needed", p.N)
	case p.Global < 1:
		return fmt.Errorf("shard: a global batch of %d samples, at least 1 is needed", p.Global)
	case p.Micro < 1:
		return fmt.Errorf("shard: a microbatch of %d samples, at least 1 is needed", p.Micro)
	}
	return nil
}

// StepsPerEpoch returns how many steps an epoch has, a short one included.
func (p Plan) StepsPerEpoch() int { return ceil(p.N, p.Global) }

// Epoch returns the epoch that a step belongs to; both count from 0.
func (p Plan) Epoch(step uint64) uint64 { return step / uint64(p.StepsPerEpoch()) }

// StepRange returns the positions [lo, hi) of the step's epoch that make the
// step's global batch.
func (p Plan) StepRange(step uint64) (lo, hi int) {
	lo = int(step%uint64(p.StepsPerEpoch())) * p.Global
	return lo, lo + min(p.Global, p.N-lo)
}

// Count returns the number of samples of a step: Global, or fewer in the last
// step of an epoch. It is the true weight of the step.
func (p Plan) Count(step uint64) int {
	lo, hi := p.StepRange(step)
	return hi - lo
}

// Microbatches returns the number of microbatches of a step. All hold Micro
// samples but the last, which may be short; none is empty.
func (p Plan) Microbatches(step uint64) int { return ceil(p.Count(step), p.Micro) }

// MaxMicrobatches returns the most microbatches that a step can have, the
// number of terms of its exact sums.
func (p Plan) MaxMicrobatches() int { return ceil(min(p.Global, p.N), p.Micro) }

// Samples returns the samples of one microbatch in order, written over dst,
// which is grown if it is too small.
func (p Plan) Samples(step uint64, mb int, dst []int) []int {
	lo, hi := p.StepRange(step)
	a, b := slice(lo, hi, p.Micro, mb)
	order := NewPermutation(p.Seed, p.Epoch(step), p.N)
	dst = dst[:0]
	for i := a; i < b; i++ {
		dst = append(dst, order.At(i))
	}
	return dst
}

// IDSum returns the sum mod 2^64 of the mixed ids of a step's samples, with
// which every rank compares what the ranks say that they have loaded.
func (p Plan) IDSum(step uint64, id func(sample int) uint64) uint64 {
	lo, hi := p.StepRange(step)
	order := NewPermutation(p.Seed, p.Epoch(step), p.N)
	sum := uint64(0)
	for i := lo; i < hi; i++ {
		sum += Mix(id(order.At(i)))
	}
	return sum
}

// EvalPlan is the order of an evaluation: N samples as they lie, in
// microbatches of Micro samples. No result depends on Micro.
type EvalPlan struct {
	N     int
	Micro int
}

// Microbatches returns how many microbatches there are; the last may be short.
func (p EvalPlan) Microbatches() int { return ceil(p.N, p.Micro) }

// Range returns the samples [lo, hi) of one microbatch.
func (p EvalPlan) Range(mb int) (lo, hi int) { return slice(0, p.N, p.Micro, mb) }

// IDSum returns the sum mod 2^64 of the mixed ids of all samples.
func (p EvalPlan) IDSum(id func(sample int) uint64) uint64 {
	sum := uint64(0)
	for i := range p.N {
		sum += Mix(id(i))
	}
	return sum
}

// slice returns piece i of [lo, hi) cut into pieces of size; the last is short.
func slice(lo, hi, size, i int) (a, b int) {
	if i < 0 || i >= ceil(hi-lo, size) {
		panic(fmt.Sprintf("shard: microbatch %d of %d samples in microbatches of %d", i, hi-lo, size))
	}
	a = lo + i*size
	return a, a + min(size, hi-a)
}

// ceil returns n/size rounded up, without overflow for n near the largest int.
func ceil(n, size int) int {
	q := n / size
	if n%size != 0 {
		q++
	}
	return q
}
