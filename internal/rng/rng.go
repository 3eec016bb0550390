// Package rng is the only source of randomness in a trajectory: the
// counter-based generator Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel
// random numbers: as easy as 1, 2, 3", SC'11).
//
// A generator with a state that moves would tie a random number to how many
// were drawn before it, and so to who computed what. Here a number is a pure
// function of where it is used: (seed, purpose, three coordinates, index). Any
// node may ask for any of them, in any order, any number of times.
//
//	seed ──┐
//	purpose├─► Philox ─► key of a Stream ──┐
//	a, b, c┘                               ├─► Philox ─► four words
//	                              index i ─┘
package rng

import "math/bits"

// Purpose keeps the uses of one seed apart.
type Purpose uint32

// The purposes. Their numbers are part of every trajectory and never change.
const (
	Shuffle Purpose = 1 // order of an epoch: coordinates (epoch)
	Init    Purpose = 2 // initial weights: (tensor)
	Dropout Purpose = 3 // dropout masks: (step, sample id, layer)
	Augment Purpose = 4 // augmentation: (epoch, sample id)
	Audit   Purpose = 5 // what is recomputed to watch for faults: (transition)
	Data    Purpose = 6 // synthetic data sets: (sample id)
)

// Stream is an unbounded, randomly accessible sequence of 32-bit words.
// It is a value; copying it costs nothing and shares nothing.
type Stream struct{ k0, k1 uint32 }

// New returns the stream that belongs to a purpose and its coordinates under
// seed. Coordinates that a purpose does not use are 0.
func New(seed uint64, p Purpose, a, b, c uint64) Stream {
	k := philox(uint32(seed), uint32(seed>>32), [4]uint32{uint32(p), uint32(a), uint32(a >> 32), 0})
	k = philox(k[0], k[1], [4]uint32{uint32(b), uint32(b >> 32), uint32(c), uint32(c >> 32)})
	return Stream{k[0], k[1]}
}

// Key is what makes the stream, for who computes many of its words at once: block i
// is Philox of counter i under this key.
func (s Stream) Key() (k0, k1 uint32) { return s.k0, s.k1 }

// OfKey is the reverse of Key.
func OfKey(k0, k1 uint32) Stream { return Stream{k0, k1} }

// Block returns words 4i to 4i+3 of the stream.
func (s Stream) Block(i uint64) [4]uint32 {
	return philox(s.k0, s.k1, [4]uint32{uint32(i), uint32(i >> 32), 0, 0})
}

// Uint32 returns word i of the stream.
func (s Stream) Uint32(i uint64) uint32 {
	b := s.Block(i / 4)
	return b[i%4]
}

// Uint64 returns words 2i and 2i+1 of the stream as one number.
func (s Stream) Uint64(i uint64) uint64 {
	b := s.Block(i / 2)
	if i%2 == 0 {
		return uint64(b[0]) | uint64(b[1])<<32
	}
	return uint64(b[2]) | uint64(b[3])<<32
}

// Unit32 maps a random word to [0, 1): the upper 24 bits, exactly.
func Unit32(u uint32) float32 { return float32(float32(u>>8) * (1.0 / (1 << 24))) }

// Unit64 maps a random number to [0, 1): the upper 53 bits, exactly.
func Unit64(u uint64) float64 { return float64(float64(u>>11) * (1.0 / (1 << 53))) }

// philox is the ten-round bijection of the paper's section 3.3 and table 2.
func philox(k0, k1 uint32, c [4]uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xD2511F53, c[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{hi1 ^ c[1] ^ k0, lo1, hi0 ^ c[3] ^ k1, lo0}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}
