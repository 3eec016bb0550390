package rpc

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Between processes of one machine large payloads go through memory that both have mapped, while their frames' heads
// go through gRPC as ever: order, ends and progress are those of any link.
//
// Each end has a region that it alone can write, and the other one reads. A region is a ring: payloads lie in it in the
// order of their frames, each in one piece, so both ends know where the next one lies. How far a region has been read
// stands in the head of the other one. A sender that finds no room writes there how far must have been read, and
// sleeps until the other end rings; one that is never read waits as for a socket that is not read.
//
//	region of A, written by A:  │ read of B's │ wanted of B │ payloads for B ... │
//	region of B, written by B:  │ read of A's │ wanted of A │ payloads for A ... │
//
// What a peer writes is believed as little as a frame: a place that is not the next one, or a count that can't be, ends
// the group and is blamed. What it does to a payload while that is added spoils a number, as it could have before.
// Packed payloads, whose reader must find the same bytes twice, don't go this way.
//
// Both have to be processes of one user, or root's, so a link is of a unix socket that is trusted; see local.go. Where
// anything is missing, payloads go through the socket.

// Sizes of a region, in bytes.
const (
	// ringBytes is room for four segments of the usual size, so that one is written and one read while two wait, and all
	// of it stays in a second-level cache. From half to four times as much was no quicker. All of it is taken when the
	// link comes up: 2 MiB for both ends.
	ringBytes   = 1 << 20
	regionHead  = 4096
	regionBytes = regionHead + ringBytes

	mostShared = ringBytes / 2 // of a payload, so that it has room when all before it has been read
	align      = 64            // of where payloads lie

	readAt, wantedAt = 0, 64 // in the head
)

// memory is what the two ends of a link have mapped, as one of them sees it. One goroutine at a time may send, and one
// may read.
type memory struct {
	own, other []byte // regions; other can't be written
	bell       bell
	state      atomic.Int32

	sent uint64 // how much was put into the own ring, gaps included
	seen uint64 // how far the other end had read of it, when that was last looked at

	taken  uint64 // how far this end has read in the other ring
	ending uint64 // where what it reads now ends
	rung   uint64 // for which the bell was rung last
}

// States of a memory: it belongs to its connection, to the link that has come to be on it, or to nobody.
const (
	waiting = iota
	linked
	freed
)

// take makes the memory a link's, which frees it then; false if its connection is gone.
func (m *memory) take() bool { return m.state.CompareAndSwap(waiting, linked) }

// drop frees what no link has taken.
func (m *memory) drop() {
	if m.state.CompareAndSwap(waiting, freed) {
		m.unmap()
	}
}

// free frees what a link has taken. Nobody may be sending or reading any more.
func (m *memory) free() {
	if m.state.CompareAndSwap(linked, freed) {
		m.unmap()
	}
}

func word(region []byte, at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&region[at])) // regions begin with a page
}

// spot is where a payload of n bytes lies that is put into a ring after so many bytes, and how much there is then.
func spot(at uint64, n int) (begin, end uint64) {
	if room := ringBytes - at%ringBytes; uint64(n) > room {
		at += room
	}
	return at, (at + uint64(n) + align - 1) &^ (align - 1)
}

// fits tells whether a payload may be put into the ring at all.
func fits(n int) bool { return n > 0 && n <= mostShared }

// room tells whether what ends there has room now.
func (m *memory) room(end uint64) (bool, error) {
	if end-m.seen <= ringBytes {
		return true, nil
	}
	read := word(m.other, readAt).Load()
	if read < m.seen || read > m.sent {
		return false, fmt.Errorf("rpc: %d bytes of shared memory read, after %d, of %d", read, m.seen, m.sent)
	}
	m.seen = read
	return end-read <= ringBytes, nil
}

// put copies a payload into the ring and returns what to send in its stead. It waits for room; false means that the wait
// was interrupted, or that the other end has hung up.
func (m *memory) put(payload []byte) (place [placeBytes]byte, ok bool, err error) {
	begin, end := spot(m.sent, len(payload))
	for wanted := max(end, m.sent+ringBytes/2) - ringBytes; ; {
		if ok, err = m.room(end); ok || err != nil {
			break
		}
		word(m.own, wantedAt).Store(wanted)
		if ok, err = m.room(end); ok || err != nil { // it may have been read before it was wanted
			break
		}
		if !m.bell.wait() {
			return place, false, nil
		}
	}
	if err != nil {
		return place, false, err
	}
	copy(m.own[regionHead+begin%ringBytes:], payload)
	m.sent = end
	binary.LittleEndian.PutUint64(place[:], begin)
	binary.LittleEndian.PutUint64(place[8:], uint64(len(payload)))
	return place, true, nil
}

// placeBytes is the length of a Shared frame's payload: where in the ring its own lies, and how long that is.
const placeBytes = 16

// get returns the payload that lies at a place, valid until done.
func (m *memory) get(place []byte) ([]byte, error) {
	if len(place) != placeBytes {
		return nil, fmt.Errorf("rpc: %d bytes say where in shared memory a payload lies, %d expected", len(place), placeBytes)
	}
	at, n := binary.LittleEndian.Uint64(place), binary.LittleEndian.Uint64(place[8:])
	if n == 0 || n > mostShared {
		return nil, fmt.Errorf("rpc: a payload of %d bytes in shared memory, 1 to %d allowed", n, mostShared)
	}
	begin, end := spot(m.taken, int(n))
	if at != begin {
		return nil, fmt.Errorf("rpc: a payload at %d of shared memory, %d is next", at, begin)
	}
	m.ending = end
	return m.other[regionHead+begin%ringBytes:][:n:n], nil
}

// done tells the other end that what get returned has been read.
func (m *memory) done() {
	m.taken = m.ending
	word(m.own, readAt).Store(m.taken)
	if w := word(m.other, wantedAt).Load(); w > m.rung && w <= m.taken {
		m.rung = w
		m.bell.ring()
	}
}
