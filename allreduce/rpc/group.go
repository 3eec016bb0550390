package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

// GroupConfig describes one node's place in the group of one view.
type GroupConfig struct {
	Ring      allreduce.Config
	Self      string // id of this node, told to its neighbours
	Left      string // id of the node of rank-1, the only one whose stream is taken
	Right     string // id of the node of rank+1
	RightAddr string // host:port of Right; unused in a world of one

	SetupTimeout time.Duration // both streams must be up by then; 0 means 5 s
	Linger       time.Duration // the longest that an end waits until neighbours have its note; 0 means 100 ms
	TLS          *tls.Config   // nil means plain TCP

	// Done gives the result of an op, in order. It is called by the goroutine that owns the ring: it
	// must not block, and may call Start and Close, but not Wait. headers are by rank, valid until
	// the next Start.
	Done func(seq uint64, headers [][]byte, out []float32)

	// Down is called exactly once, when the group has ended and its goroutines are gone but for the
	// one that calls, which must not Wait. An op in progress has no result; its vectors
	// belong to the caller again. blame is the id of the node to suspect, "" for none. cause is an
	// *Ended if a node closed the group, an *Error if Right could not be reached or refused.
	Down func(blame string, cause error)
}

// maxRingMessage bounds a frame on the wire.
const maxRingMessage = 64 << 20

// check panics if the caller breaks a promise.
func (c GroupConfig) check() {
	switch {
	case c.Done == nil || c.Down == nil:
		panic("rpc: a group without callbacks")
	case c.Ring.SegmentBytes+allreduce.FrameOverhead > maxRingMessage:
		panic(fmt.Sprintf("rpc: segments of %d bytes", c.Ring.SegmentBytes))
	case c.Ring.World > 1 && (c.Left == "" || c.Right == "" || c.RightAddr == ""):
		panic("rpc: a group without neighbours")
	}
}

// Group is the ring of one view on one node, with its two streams. Start an op, wait for Done or Down.
type Group struct {
	cfg    GroupConfig
	server *Server
	pool   *framePool
	ops    chan allreduce.Op
	in     chan arrival
	queue  sendQueue
	watch  watch

	ring *allreduce.Ring // this and the next two are owned by run
	out  []float32       // of the op in progress
	inOp bool            // an op is in progress

	ctx    context.Context // of the outgoing stream; cancelled when there is no more time to be polite
	cancel context.CancelFunc
	tasks  sync.WaitGroup // all goroutines but run
	dying  chan struct{}  // closed by end
	gone   chan struct{}  // closed when Down has returned

	mu      sync.Mutex
	ended   bool                  // dying is closed; note and cause are set and stay
	note    allreduce.ClosingNote // for the neighbours
	cause   error                 // for Down
	leftUp  bool                  // the left neighbour's stream is here
	rightUp bool                  // the right neighbour has taken our stream
}

// arrival is a frame with the buffer that its payload lies in.
type arrival struct {
	frame allreduce.Frame
	buf   mem.Buffer
}

// StartGroup makes the group of a view on this node and returns at once; streams are set up in the
// background, and ops may be started before they are. It panics if cfg breaks a promise or s has a
// group of this view already. On a closed server the group is Down at once.
func StartGroup(s *Server, cfg GroupConfig) *Group {
	cfg.check()
	setDefault(&cfg.SetupTimeout, 5*time.Second)
	setDefault(&cfg.Linger, 100*time.Millisecond)
	setDefault(&cfg.Ring.SegmentBytes, allreduce.DefaultSegmentBytes)
	g := &Group{
		cfg: cfg, server: s,
		ring:  allreduce.New(cfg.Ring),
		pool:  &framePool{size: cfg.Ring.SegmentBytes + allreduce.FrameOverhead},
		ops:   make(chan allreduce.Op, 1),
		in:    make(chan arrival, 16),
		queue: newSendQueue(),
		dying: make(chan struct{}), gone: make(chan struct{}),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.leftUp, g.rightUp = cfg.Ring.World == 1, cfg.Ring.World == 1
	if !s.groups.add(g) {
		g.Close("", "the node stops")
	} else if cfg.Ring.World > 1 {
		g.tasks.Add(1)
		go g.send()
	}
	go g.run()
	return g
}

// Start begins the next op; see allreduce.Op. It does not block. In a group that has ended, the op is
// dropped: Down tells. It panics if an op is in progress.
func (g *Group) Start(op allreduce.Op) {
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
func (g *Group) Close(blame, reason string) {
	note := allreduce.ClosingNote{By: g.cfg.Self, Blame: blame, Reason: reason}
	g.end(note, &Ended{note})
}

// Wait returns when Down has returned.
func (g *Group) Wait() { <-g.gone }

// run owns the ring: it is the only goroutine that touches it, and the last one to go.
func (g *Group) run() {
	defer close(g.gone)
	g.serve()
	g.tearDown()
	g.server.groups.remove(g, g.note)
	g.cfg.Down(g.note.Blame, g.cause)
}

// serve turns ops and frames into frames and results, until the group ends.
func (g *Group) serve() {
	setup := time.NewTimer(g.cfg.SetupTimeout)
	defer setup.Stop()
	for {
		select {
		case <-g.dying:
			return
		case op := <-g.ops:
			g.out, g.inOp = op.Out, true
			g.watch.started(op.Seq)
			g.settle(g.ring.Start(op, g.emit))
		case a := <-g.in:
			g.watch.received(len(a.frame.Payload))
			err := g.ring.Receive(a.frame, g.emit)
			a.buf.Free()
			g.settle(err)
		case <-setup.C:
			g.checkSetup()
		}
	}
}

// emit copies a frame into the queue; the ring may change the payload at once.
func (g *Group) emit(f allreduce.Frame) {
	size := allreduce.FrameOverhead + len(f.Payload)
	if mem.IsBelowBufferPoolingThreshold(size) {
		g.queue.push(mem.SliceBuffer(f.Append(make([]byte, 0, size))))
		return
	}
	b := g.pool.Get(size)
	*b = f.Append((*b)[:0])
	g.queue.push(mem.NewBuffer(b, g.pool))
}

// settle follows a move of the ring: it gives the result of a completed op, or ends the group.
func (g *Group) settle(err error) {
	if err != nil {
		g.protocol(g.cfg.Left, err)
		return
	}
	headers, ok := g.ring.Done()
	if !ok || !g.inOp {
		return
	}
	out := g.out
	g.out, g.inOp = nil, false
	g.watch.completed()
	g.cfg.Done(g.ring.Seq(), headers, out)
}

// checkSetup ends the group if a stream is missing when both should be up.
func (g *Group) checkSetup() {
	g.mu.Lock()
	leftUp, rightUp := g.leftUp, g.rightUp
	g.mu.Unlock()
	if !rightUp {
		g.lost(g.cfg.Right, fmt.Errorf("has not taken the stream within %s", brief(g.cfg.SetupTimeout)))
	} else if !leftUp {
		g.lost(g.cfg.Left, fmt.Errorf("has not opened its stream within %s", brief(g.cfg.SetupTimeout)))
	}
}

// lost ends the group because a neighbour is gone.
func (g *Group) lost(id string, cause error) {
	g.end(allreduce.ClosingNote{By: g.cfg.Self, Blame: id, Reason: fmt.Sprintf("lost %s: %v", id, cause)}, cause)
}

// protocol ends the group because a neighbour sent what it must not.
func (g *Group) protocol(id string, err error) {
	g.lost(id, fmt.Errorf("protocol: %w", err))
}

// end makes the group die of the first cause it is told, and only of that.
func (g *Group) end(note allreduce.ClosingNote, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.ended, g.note, g.cause = true, note, cause
	close(g.dying)
}

// tearDown waits for all other goroutines; those that wait for a neighbour get Linger to say goodbye.
func (g *Group) tearDown() {
	impatient := time.AfterFunc(g.cfg.Linger, g.cancel)
	g.tasks.Wait()
	impatient.Stop()
	g.cancel()
	for len(g.in) > 0 {
		(<-g.in).buf.Free()
	}
	for _, buf := range g.queue.take(nil) {
		buf.Free()
	}
}
