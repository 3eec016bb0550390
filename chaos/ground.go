package chaos

import (
	"errors"
	"fmt"
	"slices"
)

// ground is what the nodes stand on: here, their network. Its methods are called by
// the goroutine that plays the script.
type ground interface {
	name() string
	kinds() []Kind // that strike knows
	// through is a command to run node i's program by, flags what the program is told
	// of its addresses, gossip where others find it, and server where it itself serves gRPC.
	through(i int) []string
	flags(i int) []string
	gossip(i int) string
	server(i int) string
	// started is told that node i has another process.
	started(i, pid int)
	// strike lets a fault of its kinds befall a node, until heal is called.
	strike(f Fault, victim int) (heal func() error, err error)
	// close takes all of it away.
	close() error
}

// linkRate is what a node's link carries each way where nothing is wrong, in Mbit/s: a step
// is then mostly a matter of the network, and the CPUs of the machine that all nodes share
// have time left. So what a fault costs is not the time of that machine.
const linkRate = 200

// nowhere is the ground of a node that is alone.
type nowhere struct{}

func (nowhere) name() string                            { return "alone" }
func (nowhere) kinds() []Kind                           { return nil }
func (nowhere) through(int) []string                    { return nil }
func (nowhere) flags(int) []string                      { return nil }
func (nowhere) gossip(int) string                       { return "" }
func (nowhere) server(int) string                       { return "" }
func (nowhere) started(int, int)                        {}
func (nowhere) strike(Fault, int) (func() error, error) { panic("chaos: nowhere is nothing to strike") }
func (nowhere) close() error                            { return nil }

// cuts counts, for each way from node to node, the faults that cut it.
type cuts [][]int

func newCuts(nodes int) cuts {
	c := make(cuts, nodes)
	for i := range c {
		c[i] = make([]int, nodes)
	}
	return c
}

// way leads from a node to another.
type way struct{ from, to int }

// ways returns what a fault of Partition or OneWay cuts.
func ways(f Fault, victim, nodes int) (all []way) {
	switch {
	case f.Kind == OneWay && f.Direction == Pair:
		return []way{{victim, f.other(victim, nodes)}}
	case f.Kind == OneWay && f.Direction == Out:
		for i := range nodes {
			if i != victim {
				all = append(all, way{victim, i})
			}
		}
	case f.Kind == OneWay:
		for i := range nodes {
			if i != victim {
				all = append(all, way{i, victim})
			}
		}
	case f.Kind == Partition:
		side := f.side(victim, nodes)
		for i := range nodes {
			for j := range nodes {
				if slices.Contains(side, i) != slices.Contains(side, j) {
					all = append(all, way{i, j})
				}
			}
		}
	default:
		panic(fmt.Sprintf("chaos: %s cuts nothing", f.Kind))
	}
	return all
}

// strike cuts ways, but for those that are cut already; heal opens those that no other
// fault cuts.
func (c cuts) strike(all []way, cut, open func([]way) error) (heal func() error, err error) {
	var changed []way
	for _, w := range all {
		if c[w.from][w.to]++; c[w.from][w.to] == 1 {
			changed = append(changed, w)
		}
	}
	heal = func() error {
		var free []way
		for _, w := range all {
			if c[w.from][w.to]--; c[w.from][w.to] == 0 {
				free = append(free, w)
			}
		}
		return open(free)
	}
	if err := cut(changed); err != nil {
		return nil, errors.Join(err, heal())
	}
	return heal, nil
}
