package shard

import (
	"fmt"
	"math/bits"

	"github.com/dlnode/dlnode/internal/rng"
)

// rounds of the Feistel network. Four make a permutation that chance cannot be
// told from when the halves are wide (Luby and Rackoff, 1988); small data sets
// have narrow halves and get the double.
const rounds = 8

// Permutation is the order of one epoch: a bijection of [0, n) that is keyed by
// (seed, epoch), needs no memory that grows with n, and answers any position
// in constant time. It is a value; copies share nothing.
//
// It is a Feistel network on the fewest bits that hold n, with round keys drawn
// from Philox. A result that falls outside [0, n) is sent through again until
// it falls inside (cycle walking: Black and Rogaway, "Ciphers with arbitrary
// finite domains", 2002), which takes less than two passes on average, since
// the domain is less than twice as large as n.
type Permutation struct {
	n      uint64
	lo, hi uint // widths of the two halves in bits, equal or one apart
	keys   [rounds]uint64
}

// NewPermutation returns the order of n samples in an epoch.
func NewPermutation(seed, epoch uint64, n int) Permutation {
	if n < 0 {
		panic(fmt.Sprintf("shard: an order of %d samples", n))
	}
	width := uint(0)
	if n > 0 {
		width = uint(bits.Len64(uint64(n) - 1))
	}
	p := Permutation{n: uint64(n), lo: width / 2, hi: width - width/2}
	s := rng.New(seed, rng.Shuffle, epoch, 0, 0)
	for i := range p.keys {
		p.keys[i] = s.Uint64(uint64(i))
	}
	return p
}

// At returns the sample at position i of the epoch, 0 ≤ i < n.
func (p *Permutation) At(i int) int {
	x := uint64(i)
	if x >= p.n {
		panic(fmt.Sprintf("shard: position %d of %d samples", i, p.n))
	}
	for {
		if x = p.pass(x); x < p.n {
			return int(x)
		}
	}
}

// pass is the network: a bijection of [0, 2^(lo+hi)). Each round changes one
// half by a function of the other, which the same round would undo.
func (p *Permutation) pass(x uint64) uint64 {
	maskLo, maskHi := uint64(1)<<p.lo-1, uint64(1)<<p.hi-1
	l, h := x&maskLo, x>>p.lo
	for r := 0; r < rounds; r += 2 {
		h ^= scramble(l^p.keys[r]) & maskHi
		l ^= scramble(h^p.keys[r+1]) & maskLo
	}
	return h<<p.lo | l
}

// Mix spreads a sample's id over 64 bits, so that the sum of the mixed ids
// mod 2^64 tells one set of samples from another: sums of plain ids agree for
// {1, 4} and {2, 3}. It is a bijection (SplitMix64: Steele, Lea, Flood, 2014).
func Mix(id uint64) uint64 { return scramble(id + 0x9e3779b97f4a7c15) }

// scramble is the finaliser of SplitMix64.
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
