package view

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// Name is the SHA-256 of a view's whole content. Whatever is said inside a
// group carries it, so two groups can share nothing by accident.
type Name [32]byte

// String returns the first eight hex digits, enough for people.
func (n Name) String() string { return hex.EncodeToString(n[:4]) }

// Fence is the part of the name that every frame carries.
func (n Name) Fence() [16]byte { return [16]byte(n[:16]) }

// Member is a node's place in a view.
type Member struct {
	ID          string
	Incarnation uint64
	Addr        string // of its gRPC server
	Zone        string
	Entry       uint64 // generation in which it became a member: seniority
}

// Node returns the life that holds the place.
func (m Member) Node() Node { return Node{m.ID, m.Incarnation} }

// View is one immutable membership: who trains, in which ring
// order. A change of any of it is another view.
type View struct {
	Trajectory [32]byte
	Generation uint64 // orders proposals; it fences nothing, Name does
	Proposer   Node
	MinNodes   int
	Members    []Member // the index is the rank

	seal *seal
}

// seal holds what follows from a view's content, computed once: a view is never
// changed after its first use in a machine. It belongs to the view at of; a copy
// of the view, which somebody may change, has none.
type seal struct {
	of    *View
	name  Name
	ranks map[Node]int
	wire  []byte // packed, once somebody needs it
}

// sealed returns v with its seal. Only the machine that makes a view, or whoever
// decodes it, seals it: from then on any goroutine may read it.
func (v *View) sealed() *View {
	if v.own() == nil {
		s := &seal{of: v, name: v.hash(), ranks: make(map[Node]int, len(v.Members))}
		for rank, m := range v.Members {
			s.ranks[m.Node()] = rank
		}
		v.seal = s
	}
	return v
}

func (v *View) own() *seal {
	if v.seal != nil && v.seal.of == v {
		return v.seal
	}
	return nil
}

// packed returns the wire form, made once for all who get it.
func (v *View) packed() []byte {
	s := v.own()
	if s == nil {
		return packView(v)
	}
	if s.wire == nil {
		s.wire = packView(v)
	}
	return s.wire
}

// Equal tells whether two views are the same, or both none.
func (v *View) Equal(w *View) bool {
	if v == nil || w == nil {
		return v == w
	}
	return v.Name() == w.Name()
}

// Name hashes the whole content.
func (v *View) Name() Name {
	if s := v.own(); s != nil {
		return s.name
	}
	return v.hash()
}

func (v *View) hash() Name {
	b := append([]byte("dlnode view 1"), v.Trajectory[:]...)
	b = appendUint64(b, v.Generation, v.Proposer.Incarnation, uint64(v.MinNodes), uint64(len(v.Members)))
	b = appendString(b, v.Proposer.ID)
	for _, m := range v.Members {
		b = appendString(appendString(appendString(b, m.ID), m.Addr), m.Zone)
		b = appendUint64(b, m.Incarnation, m.Entry)
	}
	return sha256.Sum256(b)
}

func appendUint64(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// Rank returns the rank of n, or -1.
func (v *View) Rank(n Node) int {
	if s := v.own(); s != nil {
		if rank, ok := s.ranks[n]; ok {
			return rank
		}
		return -1
	}
	return slices.IndexFunc(v.Members, func(m Member) bool { return m.Node() == n })
}

// World is the number of members.
func (v *View) World() int { return len(v.Members) }

// Includes tells whether every member of w is a member of v too.
func (v *View) Includes(w *View) bool {
	return !slices.ContainsFunc(w.Members, func(m Member) bool { return v.Rank(m.Node()) < 0 })
}

// IDs lists the members' names by rank.
func (v *View) IDs() []string {
	ids := make([]string, len(v.Members))
	for i, m := range v.Members {
		ids[i] = m.ID
	}
	return ids
}

// newer tells whether (generation, name) a comes after b in the order of
// proposals. Names break ties, so of two proposals that meet one wins everywhere.
func newer(genA uint64, a Name, genB uint64, b Name) bool {
	if genA != genB {
		return genA > genB
	}
	return slices.Compare(a[:], b[:]) > 0
}

// bySeniority orders members: the earlier entry first, newcomers last, then names.
func bySeniority(a, b Member) int {
	return cmp.Or(cmp.Compare(entryRank(a.Entry), entryRank(b.Entry)),
		cmp.Compare(a.ID, b.ID), cmp.Compare(a.Incarnation, b.Incarnation))
}

// entryRank puts those who never were members behind all others.
func entryRank(entry uint64) uint64 { return entry - 1 }

// pair is an unordered pair of nodes.
type pair [2]Node

func pairOf(a, b Node) pair {
	if cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Incarnation, b.Incarnation)) > 0 {
		a, b = b, a
	}
	return pair{a, b}
}

// arrange puts members into ring order: zones together, seniors first, and no
// two neighbours whose link is bad. Where that cannot be had (three nodes are
// all neighbours), the junior of a bad pair is left out and returned apart: it
// costs its help for a while, but the others train.
func arrange(members []Member, bad func(a, b Node) bool) (ring, out []Member) {
	ring = slices.Clone(members)
	slices.SortFunc(ring, ringOrder)
	for {
		untangle(ring, bad)
		i := firstBad(ring, bad)
		if i < 0 {
			return ring, out
		}
		j := (i + 1) % len(ring)
		if bySeniority(ring[i], ring[j]) > 0 {
			j = i
		}
		out = append(out, ring[j])
		ring = slices.Delete(ring, j, j+1)
	}
}

// untangle swaps members as long as a swap lowers the number of bad neighbours.
func untangle(ring []Member, bad func(a, b Node) bool) {
	for count := badNeighbours(ring, bad); count > 0; {
		if !improve(ring, bad, &count) {
			return
		}
	}
}

// improve makes the first swap that lowers the number of bad neighbours. Only a
// swap of somebody with a bad link can.
func improve(ring []Member, bad func(a, b Node) bool, count *int) bool {
	torn := make([]bool, len(ring))
	for i := range ring {
		if badAfter(ring, bad, i) {
			torn[i], torn[(i+1)%len(ring)] = true, true
		}
	}
	for i := range ring {
		for j := i + 1; j < len(ring); j++ {
			if !torn[i] && !torn[j] {
				continue
			}
			before := badAround(ring, bad, i, j)
			ring[i], ring[j] = ring[j], ring[i]
			if c := badAround(ring, bad, i, j); c < before {
				*count += c - before
				return true
			}
			ring[i], ring[j] = ring[j], ring[i]
		}
	}
	return false
}

// badAround counts the bad links at two places of the ring.
func badAround(ring []Member, bad func(a, b Node) bool, i, j int) (count int) {
	n := len(ring)
	links := [...]int{(i + n - 1) % n, i, (j + n - 1) % n, j}
	for k, l := range links {
		if !slices.Contains(links[:k], l) && badAfter(ring, bad, l) {
			count++
		}
	}
	return count
}

// badAfter tells whether the link from place i to the next is bad.
func badAfter(ring []Member, bad func(a, b Node) bool, i int) bool {
	return len(ring) > 1 && bad(ring[i].Node(), ring[(i+1)%len(ring)].Node())
}

func badNeighbours(ring []Member, bad func(a, b Node) bool) (count int) {
	for i := range ring {
		if badAfter(ring, bad, i) {
			count++
		}
	}
	return count
}

func firstBad(ring []Member, bad func(a, b Node) bool) int {
	for i := range ring {
		if badAfter(ring, bad, i) {
			return i
		}
	}
	return -1
}
