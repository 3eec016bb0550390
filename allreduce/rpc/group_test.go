package rpc

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// reduce runs one op on all nodes and checks the results.
func reduce(t *testing.T, nodes []*node, seq uint64, length int) {
	t.Helper()
	for _, n := range nodes {
		n.group.Start(n.op(seq, length))
	}
	for _, n := range nodes {
		r := wait(t, "result of "+n.id, n.done)
		if r.seq != seq || len(r.headers) != len(nodes) || len(r.out) != length {
			t.Fatalf("%s: op %d, %d headers, %d elements", n.id, r.seq, len(r.headers), len(r.out))
		}
		if want := len(nodes) * length * (length - 1) / 2; r.total != uint64(want) {
			t.Fatalf("%s, op %d: the totals' sum is %d, want %d", n.id, seq, r.total, want)
		}
		for rank, h := range r.headers {
			if h != nodes[rank].id {
				t.Fatalf("%s: header of rank %d is %q", n.id, rank, h)
			}
		}
		for i, x := range r.out {
			if x != float32(i*len(nodes)) {
				t.Fatalf("%s, op %d: element %d is %v", n.id, seq, i, x)
			}
		}
	}
}

func TestAllGroupsOfAViewGetTheSameSums(t *testing.T) {
	for _, world := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(world), func(t *testing.T) {
			nodes := newWorld(t, world, nil)
			for i, length := range []int{100_000, 0, 1, 5000, 100_000} {
				reduce(t, nodes, uint64(i+1), length)
			}
			p := nodes[0].group.Progress()
			if !p.Computing || p.Op != 5 || (world > 1) != (p.FramesIn > 0 && p.BytesOut > 0) {
				t.Fatalf("%+v", p)
			}
		})
	}
}

func TestPackedFramesGiveTheSameSumsInFewerBytes(t *testing.T) {
	const length = 300_000
	var bytes [2]uint64
	for i, packing := range []Packing{PackNever, PackAlways} {
		nodes := newWorld(t, 3, func(c *GroupConfig) {
			c.Packing = packing
			c.Group.Config.SegmentBytes = 256 << 10
		})
		up(t, nodes)
		for seq := range uint64(3) {
			reduce(t, nodes, seq+1, length)
		}
		bytes[i] = nodes[0].group.Progress().BytesOut
	}
	if 2*bytes[1] > bytes[0] {
		t.Errorf("%d bytes packed, %d raw", bytes[1], bytes[0])
	}
}

func TestPackingIsWorthWhatTheLinkSays(t *testing.T) {
	g, k := &Group{}, &packer{frames: 1, speed: 4e9, ratio: 0.6}
	g.cfg.Addrs = []string{"10.0.0.1:7000", "10.0.0.2:7000", "10.0.0.1:7001"}
	p := &peer{rank: 1}
	for beta, want := range map[time.Duration]bool{0: true, 200 * time.Microsecond: false, 8 * time.Millisecond: true} {
		p.prober.link.Beta = beta
		if g.packs(p, k) != want {
			t.Errorf("a MiB in %s: packed %v", beta, !want)
		}
		if p.local = true; g.packs(p, k) {
			t.Errorf("packed for a node of the same machine")
		}
		p.local = false
	}
	if p := (&peer{rank: 2}); g.packs(p, k) {
		t.Error("packed for a node that seems to be of this machine, over a link that nobody knows yet")
	}
}

// probed waits until every node has measured a link of its own. What more there is to know than how far the
// other end is, a busy machine may hide.
func probed(t *testing.T, nodes []*node) {
	t.Helper()
	eventually(t, "links are measured", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) (missing bool) {
			n.group.locked(func() { missing = n.group.near.Alpha <= 0 })
			return missing
		})
	})
}

func TestLinksAreMeasuredAndAllChooseAlike(t *testing.T) {
	nodes := newWorld(t, 4, nil)
	up(t, nodes)
	probed(t, nodes)
	for seq, length := range []int{10, 10, 100_000, 10} {
		reduce(t, nodes, uint64(seq+1), length)
		for _, n := range nodes {
			if a, b := n.group.machine.Algorithm(), nodes[0].group.machine.Algorithm(); a != b || seq == 0 && a != allreduce.Ring || length == 10 && seq > 0 && a == allreduce.Ring {
				t.Errorf("op %d: %v and %v", seq+1, a, b)
			}
		}
	}
}

// A frame for several links is given back by each when it has been sent there: by a quick one before the
// next has it.
func TestALinkMaySendItsFrameBeforeTheNextOneHasIt(t *testing.T) {
	for name, c := range map[string]struct {
		packing Packing
		lent    int64 // while the second link has not sent its own
	}{"raw": {PackNever, 1}, "packed": {PackAlways, 0}} {
		t.Run(name, func(t *testing.T) {
			g := &Group{cfg: GroupConfig{Packing: c.packing}, drained: make(chan struct{}, 1)}
			g.peers = []*peer{nil, newPeer(g, 1), newPeer(g, 2)}
			g.peers[1].out.drop() // gives back at once what it is to send
			f := allreduce.Frame{Kind: allreduce.Gather, Payload: make([]byte, 2*smallFrame)}
			outlet{g}.Send([]int{1, 2}, f)
			if n := len(g.peers[2].out.parcels[0].payload.ReadOnlyData()); n == 0 || g.lent.Load() != c.lent {
				t.Errorf("the second link has %d bytes, and %d payloads are lent", n, g.lent.Load())
			}
			g.peers[2].out.drop()
			if g.lent.Load() != 0 {
				t.Errorf("%d payloads are lent after all", g.lent.Load())
			}
		})
	}
}

// giveOpen starts an op whose vector comes piece by piece, from several goroutines at once, and its header
// last. It returns when all is given.
func (n *node) giveOpen(op allreduce.Op, givers int) {
	op.Open, op.Header, op.Eager = true, nil, true
	op.Each = func(pieces int, do func(i int)) {
		var all sync.WaitGroup
		for i := range pieces {
			all.Go(func() { do(i) })
		}
		all.Wait()
	}
	n.group.Start(op)
	var all sync.WaitGroup
	const piece = 1000
	for g := range givers {
		all.Go(func() {
			for lo := g * piece; lo < len(op.Vec); lo += givers * piece {
				n.group.Ready(lo, min(lo+piece, len(op.Vec)))
			}
		})
	}
	all.Wait()
	n.group.Head([]byte(n.id))
}

func TestAnOpIsGivenByManyAtOnce(t *testing.T) {
	const length = 40_123
	for _, packing := range []Packing{PackNever, PackAlways} {
		nodes := newWorld(t, 4, func(c *GroupConfig) { c.Group.Config.SegmentBytes, c.Packing = 16<<10, packing })
		up(t, nodes)
		reduce(t, nodes, 1, 10) // whose headers tell that all links are there
		for seq := uint64(2); seq < 10; seq++ {
			var all sync.WaitGroup
			for _, n := range nodes {
				op := n.op(seq, length)
				op.Algorithm = allreduce.Algorithms(4, nil)[int(seq)%4]
				all.Go(func() { n.giveOpen(op, 3) })
			}
			all.Wait()
			for _, n := range nodes {
				r := wait(t, fmt.Sprintf("op %d of %s", seq, n.id), n.done)
				for i, x := range r.out {
					if x != float32(4*i) {
						t.Fatalf("op %d, element %d is %v", seq, i, x)
					}
				}
			}
		}
	}
}

func TestAGroupMayEndWhileAnOpIsGiven(t *testing.T) {
	nodes := newWorld(t, 4, func(c *GroupConfig) { c.Group.Config.SegmentBytes = 16 << 10 })
	up(t, nodes)
	reduce(t, nodes, 1, 10)
	var all sync.WaitGroup
	for _, n := range nodes[1:] {
		all.Go(func() { n.giveOpen(n.op(2, 2<<20), 2) })
	}
	kill(nodes, 0)
	for _, n := range nodes[1:] {
		if d := wait(t, "Down of "+n.id, n.down); d.Blame != "node-0" {
			t.Errorf("%s blames %q: %s", n.id, d.Blame, d.Reason)
		}
	}
	all.Wait()
}

func TestADoneCallbackMayStartTheNextOp(t *testing.T) {
	const ops = 20
	last := make(chan uint64, 2)
	var nodes []*node
	nodes = append(nodes, newNode(t, 0), newNode(t, 1))
	for rank, n := range nodes {
		ready := make(chan struct{})
		n.start(rank, nodes, func(c *GroupConfig) {
			c.Done = func(seq uint64, _ [][]byte, _ uint64, _ []float32) {
				<-ready
				if seq == ops {
					last <- seq
				} else {
					n.group.Start(n.op(seq+1, 1000))
				}
			}
		})
		close(ready)
	}
	for _, n := range nodes {
		n.group.Start(n.op(1, 1000))
	}
	for range nodes {
		wait(t, "the last op", last)
	}
}

// Whoever hears of the end has heard of all results before.
func TestDownComesAfterTheDoneThatIsBeingTold(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	downs := make(chan bool, 1)
	var told atomic.Bool
	nodes := newWorld(t, 1, func(c *GroupConfig) {
		c.Done = func(uint64, [][]byte, uint64, []float32) {
			close(inside)
			<-leave
			told.Store(true)
		}
		c.Down = func(allreduce.ClosingNote) { downs <- told.Load() }
	})
	go nodes[0].group.Start(allreduce.Op{Seq: 1})
	<-inside
	nodes[0].group.Close(allreduce.Orderly, "", "while a result is told")
	select {
	case <-downs:
		close(leave)
		t.Fatal("Down while Done is being called")
	case <-time.After(50 * time.Millisecond): // it may only come after
	}
	close(leave)
	if !<-downs {
		t.Error("Down before Done")
	}
}

// The next result is complete while one is told, and gRPC holds memory of it, as the group ends.
func TestAResultThatIsCompleteIsToldBeforeDown(t *testing.T) {
	var told []uint64
	var n *node
	downs := make(chan []uint64, 1)
	n = newWorld(t, 1, func(c *GroupConfig) {
		c.Done = func(seq uint64, _ [][]byte, _ uint64, _ []float32) {
			told = append(told, seq)
			if seq == 2 {
				return
			}
			n.group.lent.Add(1)
			n.group.Start(allreduce.Op{Seq: 2})
			n.group.Close(allreduce.Orderly, "", "while a result is told")
			eventually(t, "all else is gone", func() bool {
				_, note, _ := n.server.groups.find(fence)
				return note != nil
			})
			time.Sleep(20 * time.Millisecond) // Down may only come after
		}
		c.Down = func(allreduce.ClosingNote) { downs <- told }
	})[0]
	n.group.Start(allreduce.Op{Seq: 1})
	if got := wait(t, "Down", downs); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("told %v before Down", got)
	}
}

func TestADoneCallbackMayClose(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	for rank, n := range nodes {
		n.start(rank, nodes, func(c *GroupConfig) {
			c.Done = func(seq uint64, _ [][]byte, _ uint64, _ []float32) {
				n.group.Close(allreduce.Orderly, "", "done")
				n.group.Start(n.op(seq+1, 10)) // dropped
				n.group.Start(n.op(seq+1, 10))
			}
		})
	}
	up(t, nodes)
	for _, n := range nodes {
		n.group.Start(n.op(1, 1000))
	}
	for _, n := range nodes {
		if d := wait(t, "Down of "+n.id, n.down); d.Ending != allreduce.Orderly || d.Blame != "" || d.Reason != "done" {
			t.Errorf("%s: %+v", n.id, d.ClosingNote)
		}
		if p := n.group.Progress(); p.Op != 1 {
			t.Errorf("%s: %+v", n.id, p)
		}
	}
}

func TestWhatCameBeforeAClosingNoteCounts(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[1].start(1, nodes, nil)
	nodes[1].group.Start(nodes[1].op(1, 0))
	eventually(t, "the op is started", func() bool { return nodes[1].group.Progress().Op == 1 })
	stream, err := openRaw(t, nodes[1], "node-0", fence)
	if err != nil {
		t.Fatal(err)
	}
	header := allreduce.Frame{Fence: fence, Seq: 1, Kind: allreduce.Header, Algorithm: nodes[1].group.machine.Algorithm()}
	for _, wire := range [][]byte{header.Append(make([]byte, messagePad)), closingMessage(fence, allreduce.ClosingNote{By: "node-0"})} {
		if err := stream.SendMsg(whole(wire)); err != nil {
			t.Fatal(err)
		}
	}
	if d := wait(t, "Down", nodes[1].down); d.By != "node-0" || len(nodes[1].done) != 1 {
		t.Errorf("%+v after %d results", d.ClosingNote, len(nodes[1].done))
	}
}

func TestManyMayCloseAtOnce(t *testing.T) {
	nodes := newWorld(t, 2, nil)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() { nodes[i%2].group.Close(allreduce.Broken, "", "enough") })
	}
	all.Wait()
	for _, n := range nodes {
		if d := wait(t, "Down of "+n.id, n.down); d.Reason != "enough" {
			t.Errorf("%s: %+v", n.id, d.ClosingNote)
		}
	}
}

func TestAllOthersKnowWhoWasKilled(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "in an op": true} {
		t.Run(name, func(t *testing.T) {
			nodes := newWorld(t, 4, nil)
			reduce(t, nodes, 1, 1000)
			if busy { // all but the victim
				for _, n := range []*node{nodes[0], nodes[2], nodes[3]} {
					n.group.Start(n.op(2, 100_000))
				}
				time.Sleep(10 * time.Millisecond)
			}
			up(t, nodes)
			killed := time.Now()
			kill(nodes, 1)
			for _, rank := range []int{0, 2, 3} {
				d := wait(t, "Down of "+nodes[rank].id, nodes[rank].down)
				if took := d.at.Sub(killed); d.Blame != "node-1" || took > 250*time.Millisecond {
					t.Errorf("%s: after %v blames %q: %v", nodes[rank].id, took, d.Blame, d.Reason)
				}
				if d.By == "node-1" || !strings.HasPrefix(d.Reason, "stream reset after ") {
					t.Errorf("%s: %+v", nodes[rank].id, d.ClosingNote)
				}
			}
		})
	}
}

// kill ends a node's connections as if its process were gone: those that it has accepted, and those that
// it has opened. It has no time to blame anybody.
func kill(nodes []*node, rank int) {
	nodes[rank].group.mu.Lock()
	defer nodes[rank].group.mu.Unlock()
	nodes[rank].listener.Close()
	nodes[rank].listener.cut()
	for _, p := range nodes[rank].group.peers {
		if p == nil || p.link.Load() == nil {
			continue
		}
		l := p.link.Load()
		l.mu.Lock()
		if c, ok := l.conn.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
			c.Close()
		}
		l.mu.Unlock()
	}
}

func TestClosingIsToldToAllAndOnlyOnce(t *testing.T) {
	nodes := newWorld(t, 4, nil)
	up(t, nodes)
	nodes[2].group.Close(allreduce.Orderly, "node-9", "a member leaves")
	nodes[2].group.Close(allreduce.Broken, "node-8", "again")
	for _, n := range nodes {
		d := wait(t, "Down of "+n.id, n.down)
		if d.ClosingNote != (allreduce.ClosingNote{By: "node-2", Blame: "node-9", Reason: "a member leaves", Ending: allreduce.Orderly}) {
			t.Errorf("%s blames %q: %v", n.id, d.Blame, d.Reason)
		}
		n.group.Wait()
		n.group.Start(n.op(1, 10)) // dropped
		n.group.Start(n.op(1, 10))
	}
}

func TestCloseOfAServerEndsItsGroup(t *testing.T) {
	nodes := newWorld(t, 2, nil)
	up(t, nodes)
	nodes[0].server.Close()
	for _, n := range nodes {
		if d := wait(t, "Down of "+n.id, n.down); d.ClosingNote != (allreduce.ClosingNote{By: "node-0", Reason: "the node stops"}) {
			t.Errorf("%s blames %q: %v", n.id, d.Blame, d.Reason)
		}
	}
	nodes[0].group.Wait()
	nodes[0].start(0, nodes, nil)
	if d := wait(t, "Down on a closed server", nodes[0].down); d.Blame != "" {
		t.Errorf("blames %q", d.Blame)
	}
}

func TestAStreamWaitsForItsGroup(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[0].start(0, nodes, nil)
	nodes[0].group.Start(nodes[0].op(1, 5000))
	time.Sleep(100 * time.Millisecond)
	nodes[1].start(1, nodes, nil)
	nodes[1].group.Start(nodes[1].op(1, 5000))
	for _, n := range nodes {
		wait(t, "result of "+n.id, n.done)
	}
}

func TestAnotherViewIsRefusedWithTheGeneration(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[1].start(1, nodes, func(c *GroupConfig) { c.Group.Config.Fence[0]++; c.SetupTimeout = time.Minute })
	start := time.Now()
	nodes[0].start(0, nodes, nil)
	d := wait(t, "Down", nodes[0].down)
	if d.Blame != "" || d.Reason != "refused by node-1: no group of view fece0000 here, at generation 7" {
		t.Fatalf("%+v", d.ClosingNote)
	}
	if took := time.Since(start); took < 300*time.Millisecond || took > time.Second {
		t.Fatalf("refused after %v", took)
	}
}

func TestALateStreamIsToldHowItsGroupEnded(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1), newNode(t, 2)}
	nodes[1].start(1, nodes, nil)
	nodes[1].group.Close(allreduce.Fatal, "node-2", "no answer")
	wait(t, "Down of the first", nodes[1].down)
	nodes[0].start(0, nodes, nil)
	d := wait(t, "Down of the late one", nodes[0].down)
	if d.ClosingNote != (allreduce.ClosingNote{By: "node-1", Blame: "node-2", Reason: "no answer", Ending: allreduce.Fatal}) {
		t.Fatalf("blames %q: %v", d.Blame, d.Reason)
	}
}

func TestOnlyWhoIsToOpenAStreamMayDoSoAndOnce(t *testing.T) {
	for name, c := range map[string]struct{ from, want string }{
		"a stranger":  {"node-9", "node-9 has no stream to open to node-1"},
		"from right":  {"node-2", "node-2 has no stream to open to node-1"},
		"a duplicate": {"node-0", "node-0 has its stream of view fece0000 already"},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := newWorld(t, 3, nil)
			up(t, nodes)
			_, err := openRaw(t, nodes[1], c.from, fence)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			reduce(t, nodes, 1, 100) // nobody was disturbed
		})
	}
}

// openRaw opens a ring stream to n by hand, and returns once it is accepted.
func openRaw(t *testing.T, n *node, from string, f allreduce.Fence) (ringStream, error) {
	t.Helper()
	l := newLink(linkConfig{addr: n.listener.addr(), timeout: time.Second, bulk: true, local: UnixSocket})
	t.Cleanup(l.close)
	return openOn(t, l, from, f)
}

func openOn(t *testing.T, l *link, from string, f allreduce.Fence) (ringStream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, fromKey, from, fenceKey, string(f[:]))
	stream, err := nodepb.NewNodeClient(l.cc).Ring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := stream.Header(); err != nil || len(head.Get(fromKey)) == 0 {
		return nil, stream.RecvMsg(&message{})
	}
	return stream, nil
}

func pad() []byte { return make([]byte, messagePad) }

func TestBadFramesEndTheGroupAndSayWhich(t *testing.T) {
	gather := allreduce.Frame{Fence: fence, Seq: 1, Kind: allreduce.Gather, Algorithm: allreduce.Ring}
	alien := allreduce.Frame{Fence: allreduce.Fence{1}, Seq: 1, Kind: allreduce.Header, Algorithm: allreduce.Ring}
	badNote := allreduce.Frame{Fence: fence, Kind: allreduce.Closing, Payload: []byte{1}}
	alienNote := allreduce.Frame{Kind: allreduce.Closing, Payload: allreduce.ClosingNote{By: "x"}.Append(nil)}
	header := allreduce.Frame{Fence: fence, Seq: 1, Kind: allreduce.Header, Algorithm: allreduce.Ring, Payload: make([]byte, 2<<20)}
	short := append(pad(), gather.Append(nil)...)
	short[messagePad+12] = 1 // of its payload
	flood := pad()
	for range maxProbes + 1 {
		flood = allreduce.Frame{Fence: fence, Kind: allreduce.Probe}.Append(flood)
	}
	for want, wire := range map[string][]byte{
		"protocol: allreduce: frame of version 120":                                                                            bytes.Repeat([]byte("x"), 1<<20),
		"protocol: allreduce: refused frame (view fece0000, op 1, ring, header, chunk 0, segment 0, 2097152 bytes)":            header.Append(pad()),
		"protocol: allreduce: frame (view fece0000, op 1, ring, gather, chunk 0, segment 0, 0 bytes): payload of 1 bytes":      short,
		"protocol: allreduce: refused frame (view fece0000, op 0, auto, probe, chunk 0, segment 0, 0 bytes): no part of an op": flood,
		"protocol: allreduce: frame of 4 bytes":                                                                                []byte("garbage"),
		"protocol: allreduce: refused frame (view fece0000, op 1,":                                                             gather.Append(pad()),
		"protocol: allreduce: refused frame (view 01000000, op 1,":                                                             alien.Append(pad()),
		"protocol: allreduce: malformed closing note":                                                                          badNote.Append(pad()),
		"protocol: frame (view 00000000, op 0, auto, closing,":                                                                 alienNote.Append(pad()),
	} {
		t.Run(want, func(t *testing.T) {
			nodes := []*node{newNode(t, 0), newNode(t, 1)}
			nodes[1].start(1, nodes, nil)
			stream, err := openRaw(t, nodes[1], "node-0", fence)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.SendMsg(whole(wire)); err != nil {
				t.Fatal(err)
			}
			d := wait(t, "Down", nodes[1].down)
			if d.Blame != "node-0" || !strings.HasPrefix(d.Reason, want) {
				t.Fatalf("blames %q: %v", d.Blame, d.Reason)
			}
			var f allreduce.Frame
			for f.Kind != allreduce.Closing { // after probes
				var m message
				if err := stream.RecvMsg(&m); err != nil {
					t.Fatal(err)
				}
				if f, _, err = allreduce.NextFrame(frames(m.buf.ReadOnlyData())); err != nil {
					t.Fatal(err)
				}
			}
			if note, err := allreduce.ParseClosingNote(f.Payload); err != nil || note.Blame != "node-0" || note.By != "node-1" {
				t.Fatalf("told %+v: %v", note, err)
			}
		})
	}
}

func TestAPeerThatHangsUpIsLost(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[1].start(1, nodes, nil)
	stream, err := openRaw(t, nodes[1], "node-0", fence)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if d := wait(t, "Down", nodes[1].down); d.Blame != "node-0" || d.Reason != "ended its stream without a word" {
		t.Fatalf("blames %q: %v", d.Blame, d.Reason)
	}
}

func TestNobodyListeningIsKnownAtOnce(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[1].server.Close()
	start := time.Now()
	nodes[0].start(0, nodes, nil)
	d := wait(t, "Down", nodes[0].down)
	if d.Reason != "connection refused" || d.Blame != "node-1" || time.Since(start) > 250*time.Millisecond {
		t.Fatalf("after %v blames %q: %v", time.Since(start), d.Blame, d.Reason)
	}
}

// silent returns the address of a listener that accepts and says nothing.
func silent(t testing.TB) string { return acceptor(t, func(net.Conn) {}) }

func TestSetupEndsWhenANeighbourSaysNothing(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1), newNode(t, 2)}
	quick := func(c *GroupConfig) { c.SetupTimeout = 100 * time.Millisecond }
	t.Run("who is called", func(t *testing.T) {
		nodes[0].start(0, nodes, func(c *GroupConfig) { quick(c); c.Addrs[1] = silent(t) })
		if d := wait(t, "Down", nodes[0].down); d.Blame != "node-1" || d.Reason != "has not taken the stream within 100ms" {
			t.Fatalf("blames %q: %v", d.Blame, d.Reason)
		}
	})
	t.Run("who is to call", func(t *testing.T) {
		nodes := []*node{newNode(t, 0), newNode(t, 1), newNode(t, 2)}
		nodes[2].start(2, nodes, func(c *GroupConfig) { c.Addrs[0] = silent(t) })
		nodes[1].start(1, nodes, quick)
		if d := wait(t, "Down", nodes[1].down); d.Blame != "node-0" || d.Reason != "has not opened its stream within 100ms" {
			t.Fatalf("blames %q: %v", d.Blame, d.Reason)
		}
	})
}

func TestCloseUnblocksAGroupThatIsBeingSetUp(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[0].start(0, nodes, func(c *GroupConfig) { c.Addrs[1] = silent(t); c.Linger = 20 * time.Millisecond })
	time.Sleep(20 * time.Millisecond)
	start := time.Now()
	nodes[0].group.Close(allreduce.Broken, "", "never mind")
	wait(t, "Down", nodes[0].down)
	if took := time.Since(start); took > 250*time.Millisecond {
		t.Fatalf("took %v", took)
	}
}

func TestNobodyIsCalledAgainAfterTheEnd(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1), newNode(t, 2), newNode(t, 3)}
	for rank, n := range nodes {
		n.start(rank, nodes, func(c *GroupConfig) {
			c.SetupTimeout = 300 * time.Millisecond
			if rank == 0 {
				c.Addrs[2], c.Linger = silent(t), 4*time.Second // the group can do without this link
			}
		})
	}
	eventually(t, "the call has failed", func() bool {
		l := nodes[0].group.peers[2].link.Load()
		return l != nil && l.dialErr() == net.ErrClosed
	})
	start := time.Now()
	nodes[0].group.Close(allreduce.Orderly, "", "done")
	if d := wait(t, "Down", nodes[0].down); d.at.Sub(start) > 500*time.Millisecond {
		t.Errorf("it took %v", d.at.Sub(start))
	}
}

func TestProgressShowsAFrozenNeighbourAndCloseUnblocks(t *testing.T) {
	const linger = 500 * time.Millisecond // enough for node 2 to be told on a busy machine
	nodes := newWorld(t, 3, func(c *GroupConfig) { c.Linger, c.Group.Config.SegmentBytes = linger, 256<<10 })
	reduce(t, nodes, 1, 1000)
	nodes[1].listener.freeze()
	for _, n := range []*node{nodes[0], nodes[2]} {
		n.group.Start(n.op(2, 2<<20))
	}
	var before Progress
	eventually(t, "a send to the frozen node lasts", func() bool {
		before = nodes[0].group.Progress()
		since := before.Peers[1].SendingSince
		return !since.IsZero() && time.Since(since) > 100*time.Millisecond
	})
	if before.Computing || before.Peers[1].WaitingSince.IsZero() || before.Op != 2 {
		t.Fatalf("%+v", before)
	}
	closed := time.Now()
	nodes[0].group.Close(allreduce.Broken, "node-1", "no answer for 3 s")
	for _, rank := range []int{0, 2} {
		d := wait(t, "Down of "+nodes[rank].id, nodes[rank].down)
		if took := d.at.Sub(closed); d.Blame != "node-1" || took > 6*linger { // else it hangs until the node is cut off
			t.Errorf("%s: after %v blames %q: %v", nodes[rank].id, took, d.Blame, d.Reason)
		}
	}
	nodes[1].listener.cut()
}

// A node that has given all it owes, and then freezes, is awaited by nobody. But what it is sent stays where
// it is, and nobody is told of the result meanwhile.
func TestProgressShowsWhoDoesNotTakeWhatAResultWaitsFor(t *testing.T) {
	nodes := newWorld(t, 2, func(c *GroupConfig) {
		c.Linger, c.Group.Config.SegmentBytes = 50*time.Millisecond, 2*streamWindow
		c.Packing = []Packing{PackNever, PackAlways}[c.Group.Config.Rank]
	})
	reduce(t, nodes, 1, 1000)
	probed(t, nodes) // large probes would take of the window that is not opened any more
	nodes[1].listener.freeze()
	for rank, n := range nodes {
		op := n.op(2, streamWindow/4) // one frame each, that of rank 0 twice as long as gRPC sends before it is read
		op.Algorithm = allreduce.Exchange
		clear(op.Vec[:rank*len(op.Vec)]) // and that of rank 1 a short one
		n.group.Start(op)
	}
	var p Progress
	eventually(t, "a payload stays where it is", func() bool {
		p = nodes[0].group.Progress()
		return len(nodes[0].done) == 0 && p.FramesIn == 4 && p.FramesOut >= 3 // that of a busy machine may wait for op 1's quota
	})
	eventually(t, "that is told", func() bool {
		p = nodes[0].group.Progress()
		since := p.Peers[1].SendingSince
		return !since.IsZero() && time.Since(since) > 20*time.Millisecond
	})
	if p.Computing {
		t.Errorf("nobody was told of the result, and the node is said to compute: %+v", p)
	}
	nodes[0].group.Close(allreduce.Broken, "node-1", "no answer for 3 s")
	nodes[1].listener.cut()
}

// A member freezes. Whoever has something small for it then, and might send that itself, must not wait: it is the loop
// of the node, and watches. What gRPC had before, and could not get rid of, came from the link's own goroutine.
func TestNobodyWaitsWhoSendsAtOnce(t *testing.T) {
	for name, length := range map[string]int{
		"the window is open":      0,
		"the window is shut":      streamWindow/8 - 64,
		"gRPC has more than fits": streamWindow / 4,
	} {
		t.Run(name, func(t *testing.T) {
			n, other := newNode(t, 1), newNode(t, 0)
			n.start(1, []*node{other, n}, func(c *GroupConfig) {
				c.Packing, c.Group.Config.SegmentBytes = PackNever, 2*streamWindow
			})
			if _, err := openRaw(t, n, other.id, fence); err != nil { // which reads nothing
				t.Fatal(err)
			}
			up(t, []*node{n})
			op := n.op(1, length)
			op.Algorithm, op.Open, op.Header, op.Eager = allreduce.Exchange, true, nil, true
			n.group.Start(op)
			n.group.Ready(0, length)
			p := n.group.peers[0]
			eventually(t, "gRPC has the vector", func() bool {
				return n.group.Progress().BytesOut == uint64(8*length) && p.seen.sending.Load() == 0
			})
			begun := time.Now()
			n.group.Head([]byte(n.id))
			for range 2 * streamWindow >> 10 {
				p.out.pack(allreduce.Frame{Fence: fence, Kind: allreduce.Echo, Payload: make([]byte, 1<<10)})
				n.group.move(func() {})
			}
			if took := time.Since(begun); took > tolerance {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Else nothing would ever be sent at once.
func TestWhatGRPCHoldsComesBack(t *testing.T) {
	for _, packing := range []Packing{PackNever, PackAlways} {
		nodes := newWorld(t, 3, func(c *GroupConfig) { c.Packing, c.Group.Config.SegmentBytes = packing, 64<<10 })
		for i, length := range []int{1, 1000, 100_000} {
			reduce(t, nodes, uint64(i+1), length)
		}
		for _, n := range nodes {
			for _, p := range n.group.peers {
				if p != nil {
					eventually(t, "gRPC has nothing more for "+p.name(), func() bool { return p.out.held.Load() == 0 })
				}
			}
		}
	}
}

func TestALinkClosesAtOnceWhenThePeerReadsNothing(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[1].start(1, nodes, nil)
	l := newLink(linkConfig{addr: nodes[1].listener.addr(), timeout: time.Second, bulk: true, local: UnixSocket})
	stream, err := openOn(t, l, "node-0", fence)
	if err != nil {
		t.Fatal(err)
	}
	nodes[1].listener.freeze()
	if err := l.conn.(*net.TCPConn).SetWriteBuffer(4 << 10); err != nil { // stuck in the kernel, too
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for stream.SendMsg(whole(make([]byte, 1<<20))) == nil {
		}
	}()
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	l.close()
	if took := time.Since(start); took > 250*time.Millisecond {
		t.Fatalf("took %v", took)
	}
	wait(t, "the end of the send", sent)
}

func TestBrokenPromisesPanic(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	for name, do := range map[string]func(){
		"callbacks": func() { nodes[0].start(0, nodes, func(c *GroupConfig) { c.Down = nil }) },
		"addresses": func() { nodes[0].start(0, nodes, func(c *GroupConfig) { c.Addrs = nil }) },
		"segments": func() {
			nodes[0].start(0, nodes, func(c *GroupConfig) { c.Group.Config.SegmentBytes = maxMessage })
		},
		"two groups": func() { nodes[0].start(0, nodes, nil); nodes[0].start(0, nodes, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s := fmt.Sprint(recover()); !strings.HasPrefix(s, "rpc: ") {
					t.Fatalf("recovered %q", s)
				}
			}()
			do()
		})
	}
}

func BenchmarkAllReduce(b *testing.B) {
	for _, world := range []int{2, 4} {
		for _, bytes := range []int{4 << 10, 1 << 20, 16 << 20} { // of float32 result
			b.Run(fmt.Sprintf("world=%d/bytes=%d", world, bytes), func(b *testing.B) {
				nodes := newWorld(b, world, func(c *GroupConfig) { c.Group.Config.SegmentBytes = allreduce.DefaultSegmentBytes })
				up(b, nodes)
				var ops []allreduce.Op
				for _, n := range nodes {
					ops = append(ops, n.op(0, bytes/4))
				}
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				for b.Loop() {
					for rank, n := range nodes {
						ops[rank].Seq++
						n.group.Start(ops[rank])
					}
					for _, n := range nodes {
						<-n.done
					}
				}
			})
		}
	}
}
