package shard

import (
	"fmt"
	"slices"
)

// Pace learns how fast the ranks of a view are, from what each of them tells all
// others with every step, and deals out the microbatches so that they are done at
// the same time. All ranks observe the same figures in the same order, so all of
// them deal alike without another message. What they deal decides who computes and
// how long that takes, never what comes out.
//
// A rank is as fast as the median of its last paceMemory steps says: one step in
// which the machine did something else tells nothing, and a few of them no more where
// steps vary, as they do for a process with a quota of CPU time. What is in force is
// replaced only when that would make a step shorter by more than paceGain, since
// whoever gets other microbatches has read the wrong ones ahead. Where the last
// paceWindow steps alone promise more than paceJump, a rank has become slower or faster: what
// was before is forgotten.
type Pace struct {
	waves   [][]float64 // by rank, the latest last; none where it has computed nothing
	threads []int       // by rank
	speeds  []Speed     // in force
	since   int         // steps observed since they came into force

	dealt    []Range // the last answer of Assign, and for what
	of, with int
}

const (
	paceWindow = 7              // steps, too, after which what is in force is looked at again
	paceMemory = 3 * paceWindow // steps
	paceGain   = 0.10           // of the time that a step computes
	paceJump   = 0.50           // likewise
)

// NewPace returns the pace of a view of which nothing is known: all ranks get the
// same.
func NewPace(world int) *Pace {
	p := &Pace{waves: make([][]float64, world), threads: make([]int, world), speeds: make([]Speed, world)}
	for rank := range world {
		p.threads[rank], p.speeds[rank] = 1, Speed{1, 1}
	}
	return p
}

// Assign deals the microbatches of a step, see the function of that name. The
// result is shared: read it, don't write to it.
func (p *Pace) Assign(microbatches, rotation int) []Range {
	if p.dealt == nil || p.of != microbatches || p.with != rotation {
		p.dealt, p.of, p.with = Assign(microbatches, p.speeds, rotation), microbatches, rotation
	}
	return p.dealt
}

// Work is what a rank tells of a step that it has computed.
type Work struct {
	Nanos   uint64 // from the start to the last of its microbatches
	Threads int    // that computed; below 1 counts as 1
}

// Observe takes what each rank tells of a step that was dealt as ranges, and
// reports whether the next one is dealt otherwise.
func (p *Pace) Observe(ranges []Range, work []Work) (changed bool) {
	if len(ranges) != len(p.waves) || len(work) != len(p.waves) {
		panic(fmt.Sprintf("shard: %d ranges and %d works of %d ranks", len(ranges), len(work), len(p.waves)))
	}
	microbatches := 0
	for rank, r := range ranges {
		microbatches += r.Len()
		p.learn(rank, r.Len(), work[rank])
	}
	if p.since++; p.since%paceWindow != 0 {
		return false
	}
	learned := p.learned(paceWindow)
	if p.gain(microbatches, learned) > paceJump {
		p.forget()
	} else if learned = p.learned(paceMemory); p.gain(microbatches, learned) <= paceGain {
		return false
	}
	p.speeds, p.since, p.dealt = learned, 0, nil
	return true
}

// gain is by how much a step would be shorter, as a part of it, were the microbatches
// dealt for these speeds, if they are true.
func (p *Pace) gain(microbatches int, speeds []Speed) float64 {
	now := slowest(p.Assign(microbatches, 0), speeds)
	if now == 0 {
		return 0
	}
	return 1 - slowest(Assign(microbatches, speeds, 0), speeds)/now
}

// forget keeps of each rank its latest waves alone.
func (p *Pace) forget() {
	for rank, seen := range p.waves {
		p.waves[rank] = append(seen[:0], latest(seen, paceWindow)...)
	}
}

// learn keeps the time of a wave. A rank that had nothing to do is given more and
// more credit, until it is tried again.
func (p *Pace) learn(rank, n int, w Work) {
	seen := p.waves[rank]
	if n == 0 {
		for i := range seen {
			seen[i] *= 0.97
		}
		return
	}
	p.threads[rank] = max(1, w.Threads)
	waves := Speed{1, p.threads[rank]}.takes(n)
	if len(seen) == paceMemory {
		seen = append(seen[:0], seen[1:]...)
	}
	p.waves[rank] = append(seen, max(1, float64(w.Nanos))/waves)
}

// learned returns what the latest figures, steps at most, say of each rank; one that has
// none is taken to be as fast as the others.
func (p *Pace) learned(steps int) []Speed {
	speeds := make([]Speed, len(p.waves))
	var known []float64
	for rank, seen := range p.waves {
		speeds[rank] = Speed{median(latest(seen, steps)), p.threads[rank]}
		if len(seen) > 0 {
			known = append(known, speeds[rank].Wave)
		}
	}
	for rank, seen := range p.waves {
		if len(seen) == 0 {
			speeds[rank].Wave = median(known)
		}
	}
	return speeds
}

// latest returns the last n values, or all if they are fewer.
func latest(values []float64, n int) []float64 { return values[max(0, len(values)-n):] }

// median returns the middle value, the lower of two; 1 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 1
	}
	var few [paceMemory]float64 // as many as there are in a steady state, on the stack
	sorted := append(few[:0], values...)
	slices.Sort(sorted)
	return sorted[(len(sorted)-1)/2]
}

// slowest returns when the last rank is done.
func slowest(ranges []Range, speeds []Speed) (t float64) {
	for rank, r := range ranges {
		t = max(t, speeds[rank].takes(r.Len()))
	}
	return t
}
