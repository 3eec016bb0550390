package shard

import (
	"container/heap"
	"fmt"
)

// Range is a run of microbatches [Lo, Hi) of one step.
type Range struct{ Lo, Hi int }

// Len returns the number of microbatches in the range.
func (r Range) Len() int { return r.Hi - r.Lo }

// Speed is what is known of how fast a rank computes.
type Speed struct {
	Wave    float64 // time in which each of its threads computes one microbatch, in any unit; above 0
	Threads int     // microbatches that it computes at the same time, at least 1
}

// takes returns the time for n microbatches.
func (s Speed) takes(n int) float64 { return float64((n+s.Threads-1)/s.Threads) * s.Wave }

// Assign deals the microbatches of a step to the ranks so that the slowest is done
// as soon as possible: result[rank] is what the rank computes. The ranges are
// contiguous, in the order of the ranks, and cover every microbatch once.
//
// Microbatches are dealt one after the other, each to the rank that would be done
// first with it, which is best for the slowest rank, since no rank gets done earlier
// by doing more. Of ranks that would be done at the same time the one with the
// fewest microbatches gets it, then the lowest. So ranks of one speed differ by one
// at most, and with more ranks than microbatches some get an empty range.
//
// The ranks exchange their ranges in a circle, rotation places along, when
// something is to be computed on other hardware than the first time: a rotation of
// 1 moves every microbatch to another rank if there are two. No result of training
// depends on any argument but the first.
func Assign(microbatches int, speeds []Speed, rotation int) []Range {
	if microbatches < 0 || len(speeds) == 0 {
		panic(fmt.Sprintf("shard: assigning %d microbatches to %d ranks", microbatches, len(speeds)))
	}
	ranges := make([]Range, len(speeds))
	at := 0
	for rank, n := range deal(microbatches, speeds) {
		ranges[rank] = Range{at, at + n}
		at += n
	}
	return rotate(ranges, rotation)
}

// rotate gives each rank the range of the one by places further on.
func rotate(ranges []Range, by int) []Range {
	n := len(ranges)
	rotated := make([]Range, n)
	for rank := range ranges {
		rotated[rank] = ranges[((rank+by)%n+n)%n]
	}
	return rotated
}

// deal returns how many microbatches each rank gets.
func deal(microbatches int, speeds []Speed) []int {
	q := make(queue, len(speeds))
	for rank, s := range speeds {
		if !(s.Wave > 0) || s.Threads < 1 {
			panic(fmt.Sprintf("shard: rank %d: a wave takes %v on %d threads", rank, s.Wave, s.Threads))
		}
		q[rank] = worker{speed: s, rank: rank, done: s.takes(1)}
	}
	heap.Init(&q)
	counts := make([]int, len(speeds))
	for range microbatches {
		w := &q[0]
		counts[w.rank]++
		w.count++
		w.done = w.speed.takes(w.count + 1)
		heap.Fix(&q, 0)
	}
	return counts
}

// worker is a rank to which microbatches are dealt.
type worker struct {
	speed Speed
	rank  int
	count int     // of its microbatches
	done  float64 // when it would be done with one more
}

// queue has the worker in front that gets the next microbatch.
type queue []worker

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q queue) Less(i, j int) bool {
	a, b := &q[i], &q[j]
	switch {
	case a.done != b.done:
		return a.done < b.done
	case a.count != b.count:
		return a.count < b.count
	}
	return a.rank < b.rank
}

// Push and Pop complete heap.Interface; the queue never grows or shrinks.
func (q *queue) Push(any) { panic("shard: a queue does not grow") }
func (q *queue) Pop() any { panic("shard: a queue does not shrink") }
