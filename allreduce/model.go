package allreduce

import (
	"math/bits"
	"time"
)

// Model is what links cost, as one rank has measured it, in one word: six numbers of a byte each, on
// a logarithmic scale. It travels in headers, and all ranks choose by the slowest of all that were
// told: integers alone, so that they choose alike.
//
//	T = alpha · hops + frame · (frames of the busiest rank) + beta · (its bytes)
//
// A zero byte means that nothing is known. The top bit says that the rank has all of its links.
type Model uint64

// linked is the bit of a rank that has all of its links.
const linked Model = 1 << 63

// Link is what a link costs.
type Link struct {
	Alpha time.Duration // from the sending of a small frame to its arrival
	Frame time.Duration // by which each further frame is later
	Beta  time.Duration // by which each further MiB is later
}

// assumed is what a link costs while nothing is known.
var assumed = Link{Alpha: 50 * time.Microsecond, Frame: 8 * time.Microsecond, Beta: 500 * time.Microsecond}

// NewModel makes a model of the slowest link within the own zone and the slowest to another one.
func NewModel(near, far Link) Model {
	var m Model
	for i, d := range [...]time.Duration{near.Alpha, near.Frame, near.Beta, far.Alpha, far.Frame, far.Beta} {
		m |= Model(scaled(d)) << (8 * i)
	}
	return m
}

// steps are powers of 2^(1/8), times 256: a byte b counts 2^(b/8) ns.
var steps = [8]uint64{256, 279, 304, 332, 362, 395, 431, 470}

// scaled puts a duration on the scale: the greatest byte that counts no more; 0 for none.
func scaled(d time.Duration) byte {
	if d <= 0 {
		return 0
	}
	octave := bits.Len64(uint64(d)) - 1
	if octave > 31 {
		return 255
	}
	b := byte(8 * octave)
	for b&7 < 7 && unscaled(b+1) <= uint64(d) {
		b++
	}
	return max(b, 1)
}

// unscaled is what a byte counts, in nanoseconds.
func unscaled(b byte) uint64 { return steps[b&7] << (b >> 3) >> 8 }

// slowest merges two models.
func slowest(a, b Model) (m Model) {
	for i := 0; i < 48; i += 8 {
		m |= max(a>>i&255, b>>i&255) << i
	}
	return m
}

// costs are those of near or far links in nanoseconds.
type costs struct{ alpha, frame, beta uint64 }

// link reads the near (0) or far (3) part of a model; what is not known is as assumed.
func (m Model) link(at int) costs {
	c := [3]uint64{uint64(assumed.Alpha), uint64(assumed.Frame), uint64(assumed.Beta)}
	for i := range c {
		if b := byte(m >> (8 * (at + i))); b != 0 {
			c[i] = unscaled(b)
		}
	}
	return costs{c[0], c[1], c[2]}
}

// time is what work costs. It stays below 2^64 with the slowest link that a Model can tell of and the largest
// op.
func (c costs) time(w Work) uint64 {
	return c.alpha*w.Hops + c.frame*w.Frames + c.beta*(w.Bytes>>10)>>10
}

// SetModel has this rank tell what it has measured, from its next header on.
func (r *Reducer) SetModel(m Model) { r.measure = r.measure&linked | m&^linked }

// Linked has this rank tell that it has all of its links, from its next header on.
func (r *Reducer) Linked() { r.measure |= linked }

// Choose returns the algorithm that an op of so many elements takes next, if it is asked for a: Auto is the
// one that costs least by what the ranks told in the last op. As long as some rank has links to its
// neighbours in the ring alone, it is the ring. All ranks choose alike.
func (r *Reducer) Choose(a Algorithm, elements int) Algorithm {
	var m Model
	all := linked
	for _, o := range r.models {
		m = slowest(m, o)
		all &= o
	}
	switch {
	case r.cfg.World > 3 && all == 0: // of up to three, all are neighbours
		return Ring
	case a != Auto:
		return a
	}
	return Choose(m, elements, r.cfg.World, r.cfg.Zones, r.cfg.SegmentBytes)
}

// Choose is a table, computed: which algorithm costs least, the first of Algorithms where several do.
func Choose(m Model, elements, world int, zones []int, segmentBytes int) Algorithm {
	best, least := Auto, ^uint64(0)
	for _, a := range [...]Algorithm{Exchange, Direct, Tree, Ring, TwoLevel} {
		if world > MaxMesh && (a == Exchange || a == Direct) || a == TwoLevel && !severalZones(zones) {
			continue
		}
		if t := cost(a, m, elements, world, zones, segmentBytes); t < least {
			best, least = a, t
		}
	}
	return best
}

// Work is what an op is to the busiest rank: hops in sequence, and the frames and bytes that it takes in
// while it gives as many.
type Work struct{ Hops, Frames, Bytes uint64 }

// WorkOf counts an op of so many elements, as wide as they are before packing, with a header of each rank
// that has no length. In a world of several zones all counts as far but what a TwoLevel, which takes
// several, keeps within them; in a world of one zone all is near. Algorithms are counted in worlds of any
// size, those above MaxMesh among them that cannot have them.
func WorkOf(a Algorithm, elements, world int, zones []int, segmentBytes int) (near, far Work) {
	n, ranks, segment := uint64(elements), uint64(world), uint64(segmentBytes)
	others := ranks - 1
	frames := func(bytes uint64) uint64 { return (bytes + segment - 1) / segment }
	level := uint64(bits.Len64(others)) // of the binomial tree
	switch a {
	case Exchange:
		far = Work{1, others * (1 + frames(8*n)), 8 * n * others}
	case Direct:
		far = Work{2, others * (1 + 2*frames(8*n/ranks)), 12 * n * others / ranks}
	case Tree:
		// All headers pass the root, which gives each to all of its children but the one it came from.
		far = Work{2 * level, 2*level*frames(8*n) + level + others*(level-1), 12 * n * level}
	case Ring:
		far = Work{2 * others, others * (1 + 2*frames(8*n/ranks)), 12 * n * others / ranks}
	case TwoLevel:
		count, size := zoneSizes(zones)
		near = Work{2, 2 * size * (1 + frames(8*n/ranks)) * count, 12 * n * (size - 1) / size}
		far = Work{2, 2 * count, 12 * n * 2 * (count - 1) / ranks}
	}
	if !severalZones(zones) {
		near, far = far, near
	}
	return near, far
}

// cost is what the model says, in nanoseconds.
func cost(a Algorithm, m Model, elements, world int, zones []int, segmentBytes int) uint64 {
	near, far := WorkOf(a, elements, world, zones, segmentBytes)
	return m.link(0).time(near) + m.link(3).time(far)
}

// zoneSizes counts the zones, and the ranks of the largest.
func zoneSizes(zones []int) (count, size uint64) {
	in := map[int]uint64{}
	for _, z := range zones {
		in[z]++
		size = max(size, in[z])
	}
	return uint64(len(in)), size
}
