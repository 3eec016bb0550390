package rpc

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

const (
	// smallFrame is the largest payload that is copied, in bytes: several small frames share a message.
	smallFrame = 8 << 10
	// smallMessage is what a message of small frames may grow to.
	smallMessage = 32 << 10
	// atOnce is how many bytes of a link gRPC may have with a message that is sent by whoever has made it.
	atOnce = 32 << 10
)

// parcel is a message on its way.
type parcel struct {
	small   *[]byte         // of newSmall: small frames, back to back; or nil:
	large   allreduce.Frame // one whose payload is sent from where it lies
	payload mem.Buffer      // which that is
	frames  int
	bytes   int // payload
}

// outbox holds what the machine has for one peer until it is sent: at once, by whoever has it, if it is
// little and nobody else is sending; or by the link's own goroutine. Its bound is the op's: a rank sends at
// most 12 bytes per element to a peer. A bounded box would let all ranks wait for one another, each too
// busy sending to receive.
//
// Who sends at once is often the loop of the node, which watches the others, or the reader of another link. It must not
// wait for a peer, which may be frozen. gRPC makes its caller wait for one thing, the stream's quota: 64 KiB, less what
// its writer has not taken yet of all messages before. That is never more than held, whoever sent them: a
// buffer comes back after its bytes have been taken. With at most atOnce held, and nobody else sending, there is quota.
type outbox struct {
	mu      sync.Mutex
	idle    *sync.Cond // signalled when nobody is sending
	stream  stream     // nil until the link is up
	parcels []parcel
	sending bool // somebody is
	closed  bool // nothing is taken any more
	spare   []parcel

	held atomic.Int64 // bytes of messages that gRPC has not given back

	ready chan struct{} // holds one token if the link's goroutine has something to do
}

func newOutbox() *outbox {
	o := &outbox{ready: make(chan struct{}, 1)}
	o.idle = sync.NewCond(&o.mu)
	return o
}

// newSmall returns a message of bulkPool that has no frames yet and room for one with a payload of n bytes.
func newSmall(n int) *[]byte {
	b := bulkPool.Get(max(leastPooled, messagePad+allreduce.FrameOverhead+n))
	*b = (*b)[:messagePad]
	clear(*b)
	return b
}

// pack copies a small frame into the last message, or into a new one.
func (o *outbox) pack(f allreduce.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	n := len(o.parcels)
	if n == 0 || o.parcels[n-1].small == nil || len(*o.parcels[n-1].small)+8+allreduce.FrameOverhead+len(f.Payload) > smallMessage {
		o.parcels = append(o.parcels, parcel{small: newSmall(len(f.Payload))})
		n++
	}
	p := &o.parcels[n-1]
	b := append(*p.small, make([]byte, (messagePad-len(*p.small))&7)...)
	*p.small = f.Append(b)
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
	if len(o.parcels) > 1 || o.parcels[0].small == nil || o.held.Load()+int64(messagePrefix+len(*o.parcels[0].small)) > atOnce {
		o.mu.Unlock()
		o.wake()
		return
	}
	one := o.parcels[0]
	o.parcels = o.parcels[:0]
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
	if c.payload != nil {
		c.share(p)
	}
	var m message
	if c.payload == nil {
		m.bufs = mem.BufferSlice{p.out.hold(c.small, len(*c.small), nil)}
	} else {
		head := c.large.AppendHead(make([]byte, messagePad, messagePad+allreduce.FrameOverhead))
		payload := c.payload.ReadOnlyData()
		m.bufs = mem.BufferSlice{mem.SliceBuffer(head), p.out.hold(&payload, len(head)+len(payload), c.payload)}
	}
	if s.SendMsg(&m) == nil {
		p.seen.sent(&p.g.watch, c.frames, c.bytes)
	}
}

// holding is a message that gRPC has. It is the pool of the message's last buffer, which comes back after the others.
type holding struct {
	out     *outbox
	bytes   int64
	payload mem.Buffer // whose memory the buffer is; nil for bulkPool's
}

// hold makes the last buffer of a message of so many bytes.
func (o *outbox) hold(last *[]byte, bytes int, payload mem.Buffer) mem.Buffer {
	h := &holding{o, int64(messagePrefix + bytes), payload}
	o.held.Add(h.bytes)
	return mem.NewBuffer(last, h)
}

// Get implements mem.BufferPool. Nobody takes memory from here.
func (h *holding) Get(int) *[]byte { panic("rpc: memory taken from a holding") }

// Put implements mem.BufferPool.
func (h *holding) Put(b *[]byte) {
	h.out.held.Add(-h.bytes)
	if h.payload != nil {
		h.payload.Free()
	} else {
		bulkPool.Put(b)
	}
}

// share puts a payload into the memory that the link's ends share, if it can, and makes the message a small one that
// says where.
func (c *parcel) share(p *peer) {
	f := c.large
	if p.memory == nil || f.Encoding != allreduce.Raw || !fits(len(f.Payload)) {
		return
	}
	place, ok, err := p.memory.put(f.Payload)
	if err != nil {
		p.tell(func(m *allreduce.Group) { m.Protocol(p.rank, err) })
	}
	if !ok {
		return
	}
	c.payload.Free()
	c.payload = nil
	f.Encoding, f.Payload = allreduce.Shared, place[:]
	c.small = newSmall(placeBytes)
	*c.small = f.Append(*c.small)
}
