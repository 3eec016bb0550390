package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

// GroupConfig describes one node's place in the group of one view.
type GroupConfig struct {
	Group     allreduce.GroupConfig
	RightAddr string // host:port of the right neighbour; unused in a world of one

	SetupTimeout time.Duration // both streams must be up by then; 0 means 5 s
	Linger       time.Duration // the longest that an end waits until neighbours have its note; 0 means 100 ms
	TLS          *tls.Config   // nil means plain TCP

	// Done gives the result of an op, in order. It is called by the goroutine that owns the machine:
	// it must not block, and may call Start and Close, but not Wait. headers are by rank, valid until
	// the next Start; total is the ring's, see allreduce.Ring.Total.
	Done func(seq uint64, headers [][]byte, total uint64, out []float32)

	// Down is called exactly once, when the group has ended and its goroutines are gone but for the
	// one that calls, which must not Wait. An op in progress has no result; its vectors
	// belong to the caller again. The note says why, and whom to suspect.
	Down func(note allreduce.ClosingNote)
}

// maxRingMessage bounds a frame on the wire.
const maxRingMessage = 64 << 20

// check panics if the caller breaks a promise; NewGroup checks the rest.
func (c GroupConfig) check() {
	switch {
	case c.Done == nil || c.Down == nil:
		panic("rpc: a group without callbacks")
	case c.Group.Ring.SegmentBytes+allreduce.FrameOverhead > maxRingMessage:
		panic(fmt.Sprintf("rpc: segments of %d bytes", c.Group.Ring.SegmentBytes))
	case c.Group.Ring.World > 1 && c.RightAddr == "":
		panic("rpc: a group without the address of its right neighbour")
	}
}

// Group drives an allreduce.Group, which decides everything, with two streams, goroutines and a clock.
// Start an op, wait for Done or Down.
type Group struct {
	cfg    GroupConfig
	server *Server
	pool   *framePool
	queue  sendQueue
	watch  watch

	machine *allreduce.Group // owned by run, which is told by these:
	ops     chan allreduce.Op
	left    chan arrival               // what the left link brings, in order
	events  chan func()                // all else that happens to a link; see post
	closing chan allreduce.ClosingNote // holds what Close was given
	closed  atomic.Bool                // Close was called

	ctx    context.Context // of the outgoing stream; cancelled when there is no more time to be polite
	cancel context.CancelFunc
	tasks  sync.WaitGroup        // all goroutines but run
	dying  chan struct{}         // closed when the machine has ended
	note   allreduce.ClosingNote // why; set before dying is closed
	gone   chan struct{}         // closed when Down has returned
}

// arrival is a frame from the left neighbour with the buffer that its payload lies in, or, without a
// buffer, how its link ended.
type arrival struct {
	frame allreduce.Frame
	buf   mem.Buffer
	end   func()
}

// free gives the buffer back.
func (a arrival) free() {
	if a.buf != nil {
		a.buf.Free()
	}
}

// StartGroup makes the group of a view on this node and returns at once; streams are set up in the
// background, and ops may be started before they are. It panics if cfg breaks a promise or s has a
// group of this view already. On a closed server the group is Down at once.
func StartGroup(s *Server, cfg GroupConfig) *Group {
	cfg.check()
	setDefault(&cfg.SetupTimeout, 5*time.Second)
	setDefault(&cfg.Linger, 100*time.Millisecond)
	setDefault(&cfg.Group.Ring.SegmentBytes, allreduce.DefaultSegmentBytes)
	g := &Group{
		cfg: cfg, server: s,
		pool:    &framePool{size: cfg.Group.Ring.SegmentBytes + allreduce.FrameOverhead},
		queue:   newSendQueue(),
		watch:   watch{base: time.Now()},
		ops:     make(chan allreduce.Op, 1),
		left:    make(chan arrival, 16),
		events:  make(chan func()),
		closing: make(chan allreduce.ClosingNote, 1),
		dying:   make(chan struct{}), gone: make(chan struct{}),
	}
	g.machine = allreduce.NewGroup(cfg.Group, outlet{g})
	g.watch.links(g.machine.Links())
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if !s.groups.add(g) {
		g.Close(allreduce.Broken, "", "the node stops")
	} else if cfg.Group.Ring.World > 1 {
		g.tasks.Add(1)
		go g.send()
	}
	go g.run()
	return g
}

// Start begins the next op; see allreduce.Op. It does not block. In a group that has ended or was
// closed, the op is dropped: Down tells. It panics if an op is in progress.
func (g *Group) Start(op allreduce.Op) {
	if g.closed.Load() {
		return
	}
	select {
	case <-g.dying:
	case g.ops <- op:
	default:
		panic(fmt.Sprintf("rpc: op %d started while another is in progress", op.Seq))
	}
}

// Close ends the group: neighbours are told whom to blame ("" for nobody) and why, and Down follows
// within GroupConfig.Linger, whatever the neighbours do. It does not block. A group that has ended
// already stays as it is.
func (g *Group) Close(ending allreduce.Ending, blame, reason string) {
	if g.closed.CompareAndSwap(false, true) {
		g.closing <- allreduce.ClosingNote{Blame: blame, Reason: reason, Ending: ending}
	}
}

// Wait returns when Down has returned.
func (g *Group) Wait() { <-g.gone }

// run owns the machine: it is the only goroutine that touches it, and the last one to go.
func (g *Group) run() {
	defer close(g.gone)
	g.serve()
	g.tearDown()
	g.server.groups.remove(g)
	g.cfg.Down(g.note)
}

// serve tells the machine what happens, until it has ended. Whoever has something to tell and finds
// nobody here any more sees dying.
func (g *Group) serve() {
	setup := time.NewTimer(g.cfg.SetupTimeout)
	defer setup.Stop()
	for !isClosed(g.dying) {
		select {
		case op := <-g.ops:
			g.watch.started(op.Seq)
			g.machine.Start(op)
		case a := <-g.left:
			g.arrived(a)
		case event := <-g.events:
			event()
		case c := <-g.closing:
			g.machine.Close(c.Ending, c.Blame, c.Reason)
		case <-setup.C:
			g.machine.Setup(g.cfg.SetupTimeout)
		}
	}
}

// arrived tells the machine what the left link brought.
func (g *Group) arrived(a arrival) {
	if a.end != nil {
		a.end()
		return
	}
	if a.frame.Kind != allreduce.Closing {
		g.watch.received(len(a.frame.Payload))
	}
	g.machine.Receive(a.frame)
	a.buf.Free()
}

// post has the owner call f between two moves of the machine; false if there will be none. f must not
// use what the caller gives back when post returns: it may be called later.
func (g *Group) post(f func()) bool {
	select {
	case g.events <- f:
		return true
	case <-g.dying:
		return false
	}
}

// outlet is the machine's way out. All of it is called by the owner.
type outlet struct{ g *Group }

// Send copies a frame into the queue; the machine may change the payload at once.
func (o outlet) Send(f allreduce.Frame) {
	size := allreduce.FrameOverhead + len(f.Payload)
	if mem.IsBelowBufferPoolingThreshold(size) {
		o.g.queue.push(mem.SliceBuffer(f.Append(make([]byte, 0, size))))
		return
	}
	b := o.g.pool.Get(size)
	*b = f.Append((*b)[:0])
	o.g.queue.push(mem.NewBuffer(b, o.g.pool))
}

// Done passes a result on.
func (o outlet) Done(seq uint64, headers [][]byte, total uint64, out []float32) {
	o.g.watch.completed()
	o.g.cfg.Done(seq, headers, total, out)
}

// End has all goroutines say goodbye.
func (o outlet) End(note allreduce.ClosingNote) {
	o.g.note = note
	close(o.g.dying)
}

// tearDown waits for all other goroutines; those that wait for a neighbour get Linger to say goodbye.
func (g *Group) tearDown() {
	impatient := time.AfterFunc(g.cfg.Linger, g.cancel)
	g.tasks.Wait()
	impatient.Stop()
	g.cancel()
	for len(g.left) > 0 {
		(<-g.left).free()
	}
	for _, buf := range g.queue.take(nil) {
		buf.Free()
	}
}
