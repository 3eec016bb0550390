package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

// GroupConfig describes one node's place in the group of one view.
type GroupConfig struct {
	Group allreduce.GroupConfig
	Addrs []string // host:port of all nodes, by rank; those that this one opens no stream to are unused

	Packing      Packing       // of large frames
	SetupTimeout time.Duration // all streams must be up by then; 0 means 5 s
	Linger       time.Duration // the longest that an end waits until peers have its note; 0 means 100 ms
	TLS          *tls.Config   // nil means no TLS

	// Done gives the result of an op, in order. It is called by whichever goroutine brought the op to
	// its end, maybe from inside Start: it must not block, and may call all of the Group but Wait.
	// headers are by rank, valid until the next Start; total is allreduce.Reducer.Total.
	Done func(seq uint64, headers [][]byte, total uint64, out []float32)

	// Down is called exactly once, when the group has ended and its goroutines are gone but for the
	// one that calls, which must not Wait. An op in progress has no result; its vectors
	// belong to the caller again. The note says why, and whom to suspect.
	Down func(note allreduce.ClosingNote)
}

// check panics if the caller breaks a promise; allreduce.NewGroup checks the rest.
func (c GroupConfig) check() {
	switch {
	case c.Done == nil || c.Down == nil:
		panic("rpc: a group without callbacks")
	case c.Group.Config.SegmentBytes+allreduce.FrameOverhead > maxMessage:
		panic(fmt.Sprintf("rpc: segments of %d bytes", c.Group.Config.SegmentBytes))
	case len(c.Addrs) != c.Group.Config.World:
		panic(fmt.Sprintf("rpc: %d addresses of a world of %d", len(c.Addrs), c.Group.Config.World))
	}
}

// Group drives an allreduce.Group, which decides everything, with streams, goroutines and a clock.
// Start an op, wait for Done or Down.
type Group struct {
	cfg    GroupConfig
	server *Server
	peers  []*peer // by rank; nil where there is no link
	watch  watch

	mu      sync.Mutex       // guards machine and result
	machine *allreduce.Group // is told by whoever has something to tell, one at a time
	result  *result          // of an op that is complete and not told yet
	telling bool             // somebody is in deliver
	told    sync.Cond        // telling has become false
	near    allreduce.Link   // the slowest link measured within the zone
	far     allreduce.Link   // and the slowest to another one
	packers [2]packer        // of sums, and of results, which have fewer bits to leave out

	lent    atomic.Int64  // payloads that gRPC has not given back
	drained chan struct{} // holds a token when lent has become 0

	ctx    context.Context // of the streams; cancelled when there is no more time to be polite
	cancel context.CancelFunc
	tasks  sync.WaitGroup        // all goroutines but run
	dying  chan struct{}         // closed when the machine has ended
	note   allreduce.ClosingNote // why; set before dying is closed
	gone   chan struct{}         // closed when Down has returned
}

// result is what Done is told.
type result struct {
	seq     uint64
	headers [][]byte
	total   uint64
	out     []float32
	since   int64 // the time when it was here
}

// StartGroup makes the group of a view on this node and returns at once; streams are set up in the
// background, and ops may be started before they are. It panics if cfg breaks a promise or s has a
// group of this view already. On a closed server the group is Down at once.
func StartGroup(s *Server, cfg GroupConfig) *Group {
	cfg.check()
	setDefault(&cfg.SetupTimeout, 5*time.Second)
	setDefault(&cfg.Linger, 100*time.Millisecond)
	setDefault(&cfg.Group.Config.SegmentBytes, allreduce.DefaultSegmentBytes)
	g := &Group{
		cfg: cfg, server: s,
		peers:   make([]*peer, cfg.Group.Config.World),
		watch:   watch{base: time.Now()},
		drained: make(chan struct{}, 1),
		dying:   make(chan struct{}), gone: make(chan struct{}),
	}
	g.told.L = &g.mu
	g.machine = allreduce.NewGroup(cfg.Group, outlet{g})
	for _, rank := range g.machine.Peers() {
		g.peers[rank] = newPeer(g, rank)
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if s.groups.add(g) {
		g.open()
	} else {
		g.Close(allreduce.Broken, "", "the node stops")
	}
	go g.run()
	return g
}

// open begins to open the streams that are this node's to open.
func (g *Group) open() {
	c := g.cfg.Group.Config
	for _, p := range g.peers {
		if p != nil && allreduce.Opens(c.Rank, p.rank, c.World) {
			g.tasks.Add(1)
			go p.open()
		}
	}
}

// Start begins the next op; see allreduce.Op. It does not wait for anybody. In a group that has ended or
// was closed, the op is dropped: Down tells. It panics if an op is in progress.
func (g *Group) Start(op allreduce.Op) {
	g.move(func() {
		if _, ended := g.machine.Ended(); !ended {
			g.watch.started(op.Seq)
		}
		g.machine.Start(op)
	})
}

// Ready tells that elements [lo, hi) of an op that was started Open are final; see allreduce.Reducer.
// It lets what is ready begin to go before it returns.
func (g *Group) Ready(lo, hi int) {
	g.move(func() { g.machine.Ready(lo, hi) })
	runtime.Gosched() // else a link's goroutine waits until whoever computes has used up its time
}

// Head gives the header of an op that was started Open.
func (g *Group) Head(header []byte) { g.move(func() { g.machine.Head(header) }) }

// Close ends the group: peers are told whom to blame ("" for nobody) and why, and Down follows within
// GroupConfig.Linger, whatever the peers do. It does not wait for that. A group that has ended already
// stays as it is.
func (g *Group) Close(ending allreduce.Ending, blame, reason string) {
	g.move(func() { g.machine.Close(ending, blame, reason) })
}

// Wait returns when Down has returned.
func (g *Group) Wait() { <-g.gone }

// move makes one move of the machine, then sends what it has to say and tells results.
func (g *Group) move(do func()) {
	g.locked(do)
	for _, p := range g.peers {
		if p != nil {
			p.out.flush(p)
		}
	}
	g.deliver(false)
}

func (g *Group) locked(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}

// deliver tells results, once gRPC has given back the memory that they lie in, or anyhow: then nobody is in Done when
// it returns. What a callback brings about is told by the one that called it.
func (g *Group) deliver(anyhow bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for anyhow && g.telling { // what is told by Down comes after
		g.told.Wait()
	}
	for !g.telling && g.result != nil && (anyhow || g.lent.Load() == 0) {
		r := g.result
		g.result, g.telling = nil, true
		g.mu.Unlock()
		g.cfg.Done(r.seq, r.headers, r.total, r.out)
		g.mu.Lock()
		g.telling = false
		g.told.Broadcast()
	}
}

// run waits for the end, and for its own turn to go as the last one.
func (g *Group) run() {
	defer close(g.gone)
	g.live()
	g.tearDown()
	g.server.groups.remove(g)
	g.deliver(true)
	g.cfg.Down(g.note)
}

// live lasts until the machine has ended.
func (g *Group) live() {
	setup := time.NewTimer(g.cfg.SetupTimeout)
	defer setup.Stop()
	for {
		select {
		case <-g.dying:
			return
		case <-g.drained:
			g.deliver(false)
		case <-setup.C:
			g.move(func() { g.machine.Setup(g.cfg.SetupTimeout) })
		}
	}
}

// tearDown waits for all other goroutines; those that wait for a peer get Linger to say goodbye. When it
// returns no connection is left, so that what gRPC may still hold of an op goes nowhere.
func (g *Group) tearDown() {
	impatient := time.AfterFunc(g.cfg.Linger, g.cancel)
	g.tasks.Wait()
	impatient.Stop()
	g.cancel()
	for _, p := range g.peers {
		if p != nil {
			p.out.drop()
			if p.memory != nil {
				p.memory.free()
			}
		}
	}
}

// outlet is the machine's way out. All of it is called with the lock held.
type outlet struct{ g *Group }

// Send puts a frame into the boxes of some peers: a small one as a copy, the payload of a large one as it
// lies.
func (o outlet) Send(to []int, f allreduce.Frame) {
	if f.Kind == allreduce.Header || len(f.Payload) <= smallFrame {
		for _, rank := range to {
			o.g.peers[rank].out.pack(f)
		}
		return
	}
	packer := o.g.packerOf(f)
	packer.frames++
	var packed mem.Buffer // of which this function keeps a reference: a link may have sent its own before the next one has one
	frame := allreduce.Frame{}
	for _, rank := range to {
		p := o.g.peers[rank]
		switch packs := o.g.packs(p, packer); {
		case !packs:
			p.out.ship(f, p.lend(f.Payload))
		case packed == nil:
			frame, packed = packer.pack(f)
			fallthrough
		default:
			packed.Ref()
			p.out.ship(frame, packed)
		}
	}
	if packed != nil {
		packed.Free()
	}
}

// lend makes a buffer of memory that is the caller's again when gRPC has freed it everywhere.
func (p *peer) lend(b []byte) mem.Buffer {
	p.lent.Add(1)
	p.g.lent.Add(1)
	return mem.NewBuffer(&b, lender{p})
}

// lender is where lent memory comes back.
type lender struct{ p *peer }

// Get implements mem.BufferPool. Nobody takes memory from here.
func (l lender) Get(int) *[]byte { panic("rpc: memory taken from a lender") }

// Put implements mem.BufferPool. It is called by gRPC's goroutines, which must not be kept.
func (l lender) Put(*[]byte) {
	l.p.lent.Add(-1)
	if l.p.g.lent.Add(-1) > 0 {
		return
	}
	select {
	case l.p.g.drained <- struct{}{}:
	default:
	}
}

// Done keeps a result until it can be told.
func (o outlet) Done(seq uint64, headers [][]byte, total uint64, out []float32) {
	o.g.watch.completed()
	o.g.result = &result{seq, headers, total, out, o.g.watch.now()}
}

// End has all goroutines say goodbye.
func (o outlet) End(note allreduce.ClosingNote) {
	o.g.note = note
	close(o.g.dying)
	for _, p := range o.g.peers {
		if p != nil && p.memory != nil {
			p.memory.bell.interrupt()
		}
	}
}
