package allreduce

import (
	"fmt"
	"math/bits"
	"slices"
)

// Algorithm is a way to do an all-reduce. All give the same bits, since what is added are integers.
type Algorithm uint8

// The algorithms. Package documentation says what each costs.
const (
	Auto     Algorithm = iota // whichever the costs of the links speak for, see Model
	Ring                      // each chunk goes through all ranks in turn, and back
	Direct                    // all send a chunk straight to its owner, who sends it to all
	Tree                      // all of the vector in one chunk, up a binomial tree and down
	TwoLevel                  // inside a zone, across zones, back
	Exchange                  // all send all to all, and each rank finishes everything
)

var algorithmNames = [...]string{"auto", "ring", "direct", "tree", "two-level", "exchange"}

// String returns the algorithm's name in lower case.
func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// MaxMesh is the largest world in which every rank has a link to every other one. In larger ones
// links follow Ring, Tree and TwoLevel, and the other algorithms are not to be had.
const MaxMesh = 16

// Algorithms lists those that a world can do. zones has the zone of each rank, or is nil where there
// is one.
func Algorithms(world int, zones []int) []Algorithm {
	all := []Algorithm{Ring, Tree}
	if world <= MaxMesh {
		all = append(all, Direct, Exchange)
	}
	if severalZones(zones) {
		all = append(all, TwoLevel)
	}
	return all
}

func severalZones(zones []int) bool {
	return slices.ContainsFunc(zones, func(z int) bool { return z != zones[0] })
}

// Schedule is one rank's part in an algorithm: its place in each of the trees along which frames
// travel. Sums go up the tree of their chunk, from Children to Parent, and end at its root, the
// chunk's owner; results come down the same tree. Rank r's header starts at r and comes down Heads[r].
type Schedule struct {
	Algorithm Algorithm
	Chunks    []Place // by chunk; in an Exchange the one place is alone
	Heads     []Place // by rank
}

// Place is where one rank is in a tree.
type Place struct {
	Root     int   // the rank where the tree is rooted
	Parent   int   // towards the root; -1 at the root
	Children []int // away from it
}

// NewSchedule makes a rank's schedule. It is a pure function: all ranks' schedules fit together. zones
// matters to TwoLevel alone. It panics if a is not one of Algorithms.
func NewSchedule(a Algorithm, rank, world int, zones []int) Schedule {
	if !slices.Contains(Algorithms(world, zones), a) {
		panic(fmt.Sprintf("allreduce: %v in a world of %d", a, world))
	}
	s := Schedule{Algorithm: a, Heads: make([]Place, world)}
	switch a {
	case Tree:
		s.Chunks = []Place{binomial(rank, world)}
		for q := range world {
			s.Heads[q] = towards(s.Chunks[0], rank, q)
		}
		return s
	case Exchange:
		s.Chunks = []Place{{Root: rank, Parent: -1}}
	}
	for q := range world {
		switch a {
		case Ring:
			s.Heads[q] = chain(q, rank, world)
		case TwoLevel:
			s.Heads[q] = twoLevels(q, rank, zones)
		default:
			s.Heads[q] = star(q, rank, world)
		}
	}
	if s.Chunks == nil {
		s.Chunks = s.Heads // a chunk is owned by the rank of its number
	}
	return s
}

// chain is the ring, cut between root and the rank after it: root+1, root+2, ..., root.
func chain(root, rank, world int) Place {
	p := Place{Root: root, Parent: (rank + 1) % world}
	if rank == root {
		p.Parent = -1
	}
	if left := (rank + world - 1) % world; left != root && world > 1 {
		p.Children = []int{left}
	}
	return p
}

// star has all ranks around its root, beginning with the one after it, so that not all ranks begin
// with the same one.
func star(root, rank, world int) Place {
	if rank != root {
		return Place{Root: root, Parent: root}
	}
	p := Place{Root: root, Parent: -1}
	for i := 1; i < world; i++ {
		p.Children = append(p.Children, (root+i)%world)
	}
	return p
}

// binomial is the tree rooted at 0 in which a rank's parent is the rank without its lowest bit.
func binomial(rank, world int) Place {
	p := Place{Parent: rank & (rank - 1)}
	if rank == 0 {
		p.Parent = -1
	}
	for bit := 1; rank&bit == 0 && rank|bit < world; bit <<= 1 {
		p.Children = append(p.Children, rank|bit)
	}
	return p
}

// towards is the binomial tree hung up at rank q: its edges stay, and lead away from q.
func towards(p Place, rank, q int) Place {
	at := Place{Root: q, Parent: -1}
	if rank != q {
		at.Parent = p.Parent
		for _, c := range p.Children { // below c are the ranks from c on that differ from it in lower bits only
			if low := 1<<bits.TrailingZeros(uint(c)) - 1; q&^low == c {
				at.Parent = c
			}
		}
	}
	for _, n := range append([]int{p.Parent}, p.Children...) {
		if n >= 0 && n != at.Parent {
			at.Children = append(at.Children, n)
		}
	}
	return at
}

// twoLevels has the root's own zone around it, and one rank of each other zone, with that zone around
// it. Which one, goes round with the root.
func twoLevels(root, rank int, zones []int) Place {
	p := Place{Root: root, Parent: root}
	turn := 0 // of the root within its zone
	for q := range root {
		if zones[q] == zones[root] {
			turn++
		}
	}
	head := headOf(zones, zones[rank], turn)
	switch {
	case rank == root:
		p.Parent = -1
		for q, z := range zones {
			if q != root && (z == zones[root] || q == headOf(zones, z, turn)) {
				p.Children = append(p.Children, q)
			}
		}
	case zones[rank] == zones[root]:
	case rank != head:
		p.Parent = head
	default:
		for q, z := range zones {
			if z == zones[rank] && q != rank {
				p.Children = append(p.Children, q)
			}
		}
	}
	return p
}

// headOf is the turn-th rank of a zone, counted round.
func headOf(zones []int, zone, turn int) int {
	var members []int
	for q, z := range zones {
		if z == zone {
			members = append(members, q)
		}
	}
	return members[turn%len(members)]
}

// Peers lists the ranks that a rank has links to, in order: all that any of Algorithms needs.
func Peers(rank, world int, zones []int) (peers []int) {
	linked := make([]bool, world)
	for _, a := range Algorithms(world, zones) {
		s := NewSchedule(a, rank, world, zones)
		for _, places := range [][]Place{s.Chunks, s.Heads} {
			for _, p := range places {
				if p.Parent >= 0 {
					linked[p.Parent] = true
				}
				for _, c := range p.Children {
					linked[c] = true
				}
			}
		}
	}
	for q := range world {
		if linked[q] {
			peers = append(peers, q)
		}
	}
	return peers
}

// Neighbours tells whether two ranks are next to one another in the ring. Without the link between them
// there is no group; other links may come late, or never.
func Neighbours(a, b, world int) bool { return (a+1)%world == b || (b+1)%world == a }

// Opens tells whether rank opens the link to peer, or waits for it: the one opens that has fewer steps
// to the right, so that each rank is called by another one and its death is known at once; of two that
// are opposite, the lower.
func Opens(rank, peer, world int) bool {
	steps := (peer - rank + world) % world
	return 2*steps < world || 2*steps == world && rank < peer
}
