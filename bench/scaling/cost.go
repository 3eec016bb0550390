package main

import (
	"math"
	"math/bits"

	"github.com/dlnode/dlnode/allreduce"
)

// Link is what the network of a node is to the model.
type Link struct {
	Name  string
	Alpha float64 // seconds from the sending of a small frame to its arrival
	Rate  float64 // bytes per second that a node sends while it receives as many
}

// Machine is what the arithmetic and the system calls of a node cost, in CPU seconds.
type Machine struct {
	Frame    float64 // for a frame, whatever is in it
	Byte     float64 // to send a byte and to receive one, adding included
	Pack     float64 // to pack and unpack what was a byte before
	Param    float64 // to judge, convert, update and digest one parameter
	Overhead float64 // of a step, whatever is in it
}

// Net is a model that is trained. A node computes Local samples in Compute seconds.
type Net struct {
	Name           string
	Params         int
	Tensors        int
	Columns        int     // of the header: the loss and each metric
	Reduce, Gather float64 // bytes of a packed partial sum and of a packed result, for each parameter
	Local          int
	Compute        float64
	Global         int // samples of a step in the example, for strong scaling; 0 is none
	Micro          int
}

// Widths of an element before it is packed.
const reduceWidth, gatherWidth = 8, 4

// header is what a rank tells every other one in a step, in bytes on the wire: the header of package
// train, one sum in each column, what links cost, and the frame.
func (n Net) header() float64 {
	return float64(3+8*8+2*n.Tensors+(2+8)*n.Columns) + 8 + allreduce.FrameOverhead
}

// Work is what an op is to the busiest rank, as in [allreduce.Work].
type Work struct {
	Hops, Frames float64
	Elements     float64 // bytes of elements, packed
	Unpacked     float64 // the same before packing
	Headers      float64 // bytes of headers
}

// Bytes is all that the rank sends.
func (w Work) Bytes() float64 { return w.Elements + w.Headers }

// Algorithm is a way for sums to go.
type Algorithm struct {
	Name  string
	Most  int // the largest world that can have it; 0 is any
	Built bool
	Work  func(n Net, world int) Work
}

// Algorithms are those that dlnode has, counted by package allreduce itself, and two that would be new:
// direct between any number of ranks, and the recursive halving and doubling of Thakur, Rabenseifner and
// Gropp, which combines headers on their way.
var Algorithms = []Algorithm{
	{"exchange", allreduce.MaxMesh, true, counted(allreduce.Exchange)},
	{"direct", allreduce.MaxMesh, true, counted(allreduce.Direct)},
	{"tree", 0, true, counted(allreduce.Tree)},
	{"ring", 0, true, counted(allreduce.Ring)},
	{"two-level", 0, true, counted(allreduce.TwoLevel)},
	{"halving", 0, false, halving},
}

// named returns an algorithm.
func named(name string) Algorithm {
	for _, a := range Algorithms {
		if a.Name == name {
			return a
		}
	}
	panic("scaling: no algorithm " + name)
}

// zones cuts a world into about as many zones as each has ranks: what makes a TwoLevel's links fewest.
func zones(world int) []int {
	count := max(1, int(math.Round(math.Sqrt(float64(world)))))
	all := make([]int, world)
	for r := range all {
		all[r] = r * count / world
	}
	return all
}

// counted has package allreduce count, and packs what it has counted.
func counted(a allreduce.Algorithm) func(Net, int) Work {
	return func(n Net, world int) Work {
		near, far := allreduce.WorkOf(a, n.Params, world, zones(world), allreduce.DefaultSegmentBytes)
		w := Work{
			Hops: float64(near.Hops + far.Hops), Frames: float64(near.Frames + far.Frames),
			Unpacked: float64(near.Bytes + far.Bytes), Headers: float64(world-1) * n.header(),
		}
		w.Elements = w.Unpacked * (n.Reduce + n.Gather) / (reduceWidth + gatherWidth)
		switch a {
		case allreduce.Exchange: // nothing but partial sums
			w.Elements = w.Unpacked * n.Reduce / reduceWidth
		case allreduce.Tree: // the root gives each header to all children but one
			w.Headers *= float64(max(1, levels(world)-1))
		}
		return w
	}
}

// levels is the depth of a binomial tree.
func levels(world int) int { return bits.Len(uint(world - 1)) }

// halving is the work of recursive halving and doubling: all ranks exchange half of what they have with
// one at half the distance, log2 of the world times, and back.
func halving(n Net, world int) Work {
	level := float64(levels(world))
	part := float64(world-1) / float64(world) * float64(n.Params)
	return Work{
		Hops: 2 * level, Frames: 2*level + 2*math.Ceil(part*reduceWidth/allreduce.DefaultSegmentBytes),
		Elements: part * (n.Reduce + n.Gather), Unpacked: part * (reduceWidth + gatherWidth), Headers: 2 * level * n.header(),
	}
}

// Step is where the time of a step goes, in seconds.
type Step struct {
	Compute float64 // forward and backward
	Reduce  float64 // the all-reduce: the model of package allreduce
	After   float64 // judging, converting, updating
	Bytes   float64 // that the busiest node sends
	ByCPU   bool    // bytes cost the node more than the wire
	Hidden  float64 // the most of Reduce that could pass behind the backward pass
}

// Total is the time of the step with nothing hidden.
func (s Step) Total() float64 { return s.Compute + s.Reduce + s.After }

// Efficiency is the time of the step alone on one node, by that among many.
func (s Step) Efficiency() float64 { return (s.Compute + s.After) / s.Total() }

// Overlapped is the efficiency with all hidden that could be.
func (s Step) Overlapped() float64 { return (s.Compute + s.After) / (s.Total() - s.Hidden) }

// backward is the part of a sample's time that is its backward pass: two products of three.
const backward = 2. / 3

// Predict returns the step of a net on so many nodes.
func Predict(n Net, world int, l Link, m Machine, a Algorithm) Step {
	s := Step{Compute: n.Compute, After: m.Overhead + float64(n.Params)*m.Param}
	if world < 2 {
		return s
	}
	w := a.Work(n, world)
	each := max(1/l.Rate, m.Byte)
	packed, plain := each*w.Elements+m.Pack*w.Unpacked, each*w.Unpacked
	bytes := min(packed, plain)
	s.Bytes = w.Bytes()
	if plain < packed {
		s.Bytes = w.Unpacked + w.Headers
	}
	s.ByCPU = m.Byte > 1/l.Rate
	s.Reduce = w.Hops*l.Alpha + w.Frames*m.Frame + bytes + w.Headers*each
	// Only the way up passes behind the backward pass, and only what the node's CPU has no part in.
	up := n.Reduce / (n.Reduce + n.Gather)
	s.Hidden = up * (w.Hops*l.Alpha + max(0, 1/l.Rate-m.Byte)*w.Elements)
	s.Hidden = min(s.Hidden, backward*s.Compute)
	return s
}

// Best returns the algorithm that takes least, of those that dlnode has or of all.
func Best(n Net, world int, l Link, m Machine, all bool) (best Algorithm, least Step) {
	for _, a := range Algorithms {
		if !a.Built && !all || a.Most > 0 && world > a.Most || a.Name == "two-level" && world < 4 {
			continue
		}
		if s := Predict(n, world, l, m, a); best.Name == "" || s.Total() < least.Total() {
			best, least = a, s
		}
	}
	return best, least
}
