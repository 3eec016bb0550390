package rpc

import (
	"sync"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

const (
	// smallFrame is the largest payload that is copied, in bytes: several small frames share a message.
	smallFrame = 8 << 10
	// smallMessage is what a message of small frames may grow to.
	smallMessage = 32 << 10
	// atOnce is how much of an op may be sent by whoever has made it, before the peer must have shown that
	// it reads: far below what gRPC takes before it makes its caller wait.
	atOnce = 16 << 10
)

// parcel is a message on its way.
type parcel struct {
	small   []byte          // small frames, back to back; or:
	large   allreduce.Frame // one whose payload is sent from where it lies
	payload mem.Buffer      // which that is
	frames  int
	bytes   int // payload
}

// outbox holds what the machine has for one peer until it is sent: at once, by whoever has it, if it is
// little and nobody else is sending; or by the link's own goroutine. Its bound is the op's: a rank sends at
// most 12 bytes per element to a peer. A bounded box would let all ranks wait for one another, each too
// busy sending to receive.
type outbox struct {
	mu      sync.Mutex
	idle    *sync.Cond // signalled when nobody is sending
	stream  stream     // nil until the link is up
	parcels []parcel
	sending bool // somebody is
	closed  bool // nothing is taken any more
	ahead   int  // bytes sent at once since the peer was last heard
	spare   []parcel
	heard   int64 // when ahead was last reset

	ready chan struct{} // holds one token if the link's goroutine has something to do
}

func newOutbox() *outbox {
	o := &outbox{ready: make(chan struct{}, 1)}
	o.idle = sync.NewCond(&o.mu)
	return o
}

// pack copies a small frame into the last message, or into a new one.
func (o *outbox) pack(f allreduce.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	n := len(o.parcels)
	if n == 0 || o.parcels[n-1].small == nil || len(o.parcels[n-1].small)+8+allreduce.FrameOverhead+len(f.Payload) > smallMessage {
		o.parcels = append(o.parcels, parcel{small: make([]byte, messagePad, messagePad+allreduce.FrameOverhead+len(f.Payload))})
		n++
	}
	p := &o.parcels[n-1]
	p.small = append(p.small, make([]byte, (messagePad-len(p.small))&7)...)
	p.small = f.Append(p.small)
	if f.Kind < allreduce.Probe {
		p.frames++
		p.bytes += len(f.Payload)
	}
}

// ship takes a large frame, whose payload it frees.
func (o *outbox) ship(f allreduce.Frame, payload mem.Buffer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		payload.Free()
		return
	}
	c := parcel{large: f, payload: payload}
	if f.Kind < allreduce.Probe {
		c.frames, c.bytes = 1, payload.Len()
	}
	o.parcels = append(o.parcels, c)
}

// attach tells that the link is up.
func (o *outbox) attach(s stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stream = s
}

// flush sends what there is at once, or has the link's goroutine do so.
func (o *outbox) flush(p *peer) {
	o.mu.Lock()
	if len(o.parcels) == 0 || o.stream == nil || o.sending || o.closed {
		o.mu.Unlock()
		return
	}
	if h := p.seen.heard.Load(); h != o.heard {
		o.heard, o.ahead = h, 0
	}
	if len(o.parcels) > 1 || len(o.parcels[0].small) == 0 || o.ahead+len(o.parcels[0].small) > atOnce {
		o.mu.Unlock()
		o.wake()
		return
	}
	one := o.parcels[0]
	o.parcels = o.parcels[:0]
	o.ahead += len(one.small)
	o.sending = true
	o.mu.Unlock()
	one.send(p, o.stream)
	if o.done() {
		o.wake()
	}
}

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// done tells that nobody is sending any more; true if there is more to send.
func (o *outbox) done() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sending = false
	o.idle.Broadcast()
	return len(o.parcels) > 0
}

// pump sends all that there is. A stream that breaks is the reader's to tell.
func (o *outbox) pump(p *peer) {
	for {
		o.mu.Lock()
		if o.sending || o.closed || len(o.parcels) == 0 {
			o.mu.Unlock()
			return
		}
		some := o.parcels
		o.parcels, o.spare = o.spare[:0], some
		o.sending = true
		o.mu.Unlock()
		for i := range some {
			if isClosed(p.g.dying) {
				some[i].drop()
			} else {
				some[i].send(p, o.stream)
			}
		}
		clear(some)
		o.done()
	}
}

// close keeps everything further out, and returns when nobody is sending.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.closed = true; o.sending; {
		o.idle.Wait()
	}
}

// drop gives back what was not sent.
func (o *outbox) drop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for i := range o.parcels {
		o.parcels[i].drop()
	}
	o.parcels = nil
}

func (c *parcel) drop() {
	if c.payload != nil {
		c.payload.Free()
	}
}

// send gives a message to gRPC.
func (c *parcel) send(p *peer, s stream) {
	p.seen.sending.Store(p.g.watch.now())
	m := message{bufs: mem.BufferSlice{mem.SliceBuffer(c.small)}}
	if c.payload != nil {
		head, ok := c.share(p)
		if !ok {
			head = c.large.AppendHead(make([]byte, messagePad, messagePad+allreduce.FrameOverhead))
			m.bufs = append(m.bufs, c.payload)
		}
		m.bufs[0] = mem.SliceBuffer(head)
	}
	if s.SendMsg(&m) == nil {
		p.seen.sent(&p.g.watch, c.frames, c.bytes)
	}
}

// share puts a payload into the memory that the link's ends share, and returns the message that says so. false means
// that it has to be sent.
func (c *parcel) share(p *peer) (wire []byte, ok bool) {
	f := c.large
	if p.memory == nil || f.Encoding != allreduce.Raw || !fits(len(f.Payload)) {
		return nil, false
	}
	place, ok, err := p.memory.put(f.Payload)
	if err != nil {
		p.tell(func(m *allreduce.Group) { m.Protocol(p.rank, err) })
	}
	if !ok {
		return nil, false
	}
	c.payload.Free()
	f.Encoding, f.Payload = allreduce.Shared, place[:]
	return f.Append(make([]byte, messagePad, messagePad+allreduce.FrameOverhead+placeBytes)), true
}
