package rpc

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Progress is what a group has done, and what it waits for since when.
type Progress struct {
	Op        uint64 // number of the op last started, 0 before the first
	Computing bool   // no op is in progress: the node computes and the ring waits for its own Start
	LeftUp    bool   // the left neighbour's stream is here
	RightUp   bool   // the right neighbour has taken our stream

	FramesIn, FramesOut uint64 // frames of ops received, and handed to the transport
	BytesIn, BytesOut   uint64 // their payloads

	// WaitingSince is when the op in progress was started or the last frame came, whichever is later:
	// since then the group waits for Left. Zero while Computing.
	WaitingSince time.Time

	// SendingSince is when the send in progress began, zero if there is none. One that lasts means
	// that Right takes nothing any more.
	SendingSince time.Time
}

// watch counts what Progress tells. Times are what now gives, 0 for none: since base and not since an
// epoch, so that they follow the monotonic clock whatever is done to the other one.
type watch struct {
	base                                       time.Time // has a monotonic reading
	op, framesIn, framesOut, bytesIn, bytesOut atomic.Uint64
	waiting, sending                           atomic.Int64
	heard, spoke                               atomic.Int64 // last sign of life of Left, last frame taken for Right
	leftUp, rightUp                            atomic.Bool
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

// reset says that a neighbour's connection has broken, and how long after its last sign of life.
func (w *watch) reset(last *atomic.Int64) string {
	return fmt.Sprintf("stream reset after %s of silence", brief(time.Duration(w.now()-last.Load())))
}

// links notes which links are up.
func (w *watch) links(left, right bool) {
	w.leftUp.Store(left)
	w.rightUp.Store(right)
}

// started notes that an op began.
func (w *watch) started(seq uint64) {
	w.op.Store(seq)
	w.waiting.Store(w.now())
}

// completed notes that the op is complete.
func (w *watch) completed() { w.waiting.Store(0) }

// received notes a frame of n bytes.
func (w *watch) received(n int) {
	w.framesIn.Add(1)
	w.bytesIn.Add(uint64(n))
	now := w.now()
	w.heard.Store(now)
	if w.waiting.Load() != 0 {
		w.waiting.Store(now)
	}
}

// sent notes a frame of n bytes.
func (w *watch) sent(n int) {
	w.framesOut.Add(1)
	w.bytesOut.Add(uint64(n))
	w.spoke.Store(w.now())
	w.sending.Store(0)
}

// Progress tells how far the group is. It may be called at any time from any goroutine.
func (g *Group) Progress() Progress {
	w := &g.watch
	p := Progress{
		Op: w.op.Load(), FramesIn: w.framesIn.Load(), FramesOut: w.framesOut.Load(),
		BytesIn: w.bytesIn.Load(), BytesOut: w.bytesOut.Load(),
		WaitingSince: w.timeOf(w.waiting.Load()), SendingSince: w.timeOf(w.sending.Load()),
		LeftUp: w.leftUp.Load(), RightUp: w.rightUp.Load(),
	}
	p.Computing = p.WaitingSince.IsZero()
	return p
}
