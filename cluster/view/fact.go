package view

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Node names one life of a node: the name a person gave it and the random
// number its process drew at start. A node that comes back after a crash has
// the same ID and another Incarnation, so nothing said to or by its former
// life can be mistaken for it.
type Node struct {
	ID          string
	Incarnation uint64
}

// String returns the form used in logs and as the gossip name.
func (n Node) String() string { return fmt.Sprintf("%s#%016x", n.ID, n.Incarnation) }

// IsZero tells whether n names no node.
func (n Node) IsZero() bool { return n == Node{} }

// Fact is what gossip carries about a node: small, soft state that anyone may
// be late to learn. Nothing is decided by facts alone; views are.
type Fact struct {
	ID          string
	Incarnation uint64
	Addr        string   // host:port of its gRPC server
	Trajectory  [32]byte // the trajectory it walks
	Generation  uint64   // of the view it runs or ran last, 0 none
	Entry       uint64   // generation in which this life became a member, 0 none
	Transition  uint64   // how far its state is
	Speed       float32  // samples per second, 0 unknown
	Zone        string   // nodes of one zone are neighbours in the ring
	Leaving     bool     // it has been told to go
	Finished    bool     // its state is final
	Following   bool     `json:",omitempty"` // it is no member, copies what one has, and asks nobody to wait for it
}

// Node returns the life that the fact is about.
func (f Fact) Node() Node { return Node{f.ID, f.Incarnation} }

// MaxFactBytes is what gossip allows for one node's fact.
const MaxFactBytes = 512

const factVersion = 1

// Append appends the encoded fact to dst.
func (f Fact) Append(dst []byte) []byte {
	dst = append(dst, factVersion, bit(f.Leaving)|bit(f.Finished)<<1|bit(f.Following)<<2)
	dst = appendString(dst, f.ID)
	dst = appendString(dst, f.Addr)
	dst = appendString(dst, f.Zone)
	dst = append(dst, f.Trajectory[:]...)
	for _, v := range [...]uint64{f.Incarnation, f.Generation, f.Entry, f.Transition} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(f.Speed))
}

var errShortFact = errors.New("view: a node's fact ends early")

// ParseFact decodes what Append wrote. It never keeps b.
func ParseFact(b []byte) (Fact, error) {
	if len(b) < 2 {
		return Fact{}, errShortFact
	}
	if b[0] != factVersion {
		return Fact{}, fmt.Errorf("view: a node's fact has version %d, this program speaks %d", b[0], factVersion)
	}
	f := Fact{Leaving: b[1]&1 != 0, Finished: b[1]&2 != 0, Following: b[1]&4 != 0}
	b = b[2:]
	for _, s := range [...]*string{&f.ID, &f.Addr, &f.Zone} {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return Fact{}, errShortFact
		}
		*s, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	if len(b) != 32+4*8+4 {
		return Fact{}, errShortFact
	}
	copy(f.Trajectory[:], b)
	b = b[32:]
	for _, v := range [...]*uint64{&f.Incarnation, &f.Generation, &f.Entry, &f.Transition} {
		*v, b = binary.LittleEndian.Uint64(b), b[8:]
	}
	f.Speed = math.Float32frombits(binary.LittleEndian.Uint32(b))
	return f, f.check()
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// appendString appends s behind its length. Names are limited to 120 bytes
// where they enter the program, so a byte is enough.
func appendString(dst []byte, s string) []byte {
	if len(s) > 255 {
		panic("view: a name of more than 255 bytes")
	}
	return append(append(dst, byte(len(s))), s...)
}
