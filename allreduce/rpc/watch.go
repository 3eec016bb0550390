package rpc

import (
	"sync/atomic"
	"time"
)

// Progress is what a group has done, and whom it waits for since when.
type Progress struct {
	Op        uint64 // number of the op last started, 0 before the first
	Computing bool   // no op is in progress, and its result was told: the node computes and the others wait for its own Start

	FramesIn, FramesOut uint64 // frames of ops received, and handed to the transport
	BytesIn, BytesOut   uint64 // their payloads

	Peers []PeerProgress // by rank; zero for those without a link
}

// PeerProgress is the part of one link.
type PeerProgress struct {
	Linked              bool // there is to be a link
	Up                  bool // and there is one:
	Transport           Transport
	FramesIn, FramesOut uint64 // of ops

	// WaitingSince is when the op in progress was started or the last frame came from this peer, whichever
	// is later, if the op waits for it (allreduce.Group.Awaited): zero otherwise.
	WaitingSince time.Time

	// SendingSince is when the send in progress began. If there is none, but a result can't be told before gRPC
	// has given back what it has for this peer, it is when that came or the last send ended, whichever is later.
	// Zero if neither is so. One that lasts means that the peer takes nothing any more.
	SendingSince time.Time
}

// watch counts what Progress tells. Times are what now gives, 0 for none: since base and not since an
// epoch, so that they follow the monotonic clock whatever is done to the other one.
type watch struct {
	base                  time.Time // has a monotonic reading
	op, bytesIn, bytesOut atomic.Uint64
	waiting               atomic.Int64 // when the op in progress was started
}

// peerWatch is the part of one link.
type peerWatch struct {
	framesIn, framesOut atomic.Uint64
	heard               atomic.Int64 // last sign of life
	sending             atomic.Int64 // when the send in progress began
	taken               atomic.Int64 // when the last one ended
}

// now is the time in nanoseconds after base, never 0.
func (w *watch) now() int64 { return max(1, int64(time.Since(w.base))) }

// timeOf makes a time of what now gave; it has a monotonic reading. 0 gives the zero time.
func (w *watch) timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return w.base.Add(time.Duration(nanos))
}

// since is how long ago a time was.
func (w *watch) since(at *atomic.Int64) time.Duration { return time.Duration(w.now() - at.Load()) }

// started notes that an op began.
func (w *watch) started(seq uint64) {
	w.op.Store(seq)
	w.waiting.Store(w.now())
}

// completed notes that the op is complete.
func (w *watch) completed() { w.waiting.Store(0) }

// received notes a frame with a payload of n bytes.
func (p *peerWatch) received(w *watch, n int) {
	p.framesIn.Add(1)
	w.bytesIn.Add(uint64(n))
	p.heard.Store(w.now())
}

// sent notes frames with payloads of n bytes.
func (p *peerWatch) sent(w *watch, frames, n int) {
	p.framesOut.Add(uint64(frames))
	w.bytesOut.Add(uint64(n))
	p.taken.Store(w.now())
	p.sending.Store(0)
}

// Progress tells how far the group is. It may be called at any time from any goroutine.
func (g *Group) Progress() Progress {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := &g.watch
	p := Progress{
		Op: w.op.Load(), Computing: g.machine.Computing() && g.result == nil, BytesIn: w.bytesIn.Load(), BytesOut: w.bytesOut.Load(),
		Peers: make([]PeerProgress, len(g.peers)),
	}
	for rank, o := range g.peers {
		if o == nil {
			continue
		}
		q := &p.Peers[rank]
		*q = PeerProgress{
			Linked: true, Up: g.machine.Up(rank), Transport: o.by, FramesIn: o.seen.framesIn.Load(), FramesOut: o.seen.framesOut.Load(),
			SendingSince: w.timeOf(o.seen.sending.Load()),
		}
		if r := g.result; r != nil && q.SendingSince.IsZero() && o.lent.Load() > 0 {
			q.SendingSince = w.timeOf(max(r.since, o.seen.taken.Load()))
		}
		p.FramesIn += q.FramesIn
		p.FramesOut += q.FramesOut
	}
	for _, rank := range g.machine.Awaited() {
		p.Peers[rank].WaitingSince = w.timeOf(max(w.waiting.Load(), g.peers[rank].seen.heard.Load()))
	}
	return p
}
