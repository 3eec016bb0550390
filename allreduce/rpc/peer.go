package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// ringStream is a stream as the node has it that opened it.
type ringStream = grpc.BidiStreamingClient[nodepb.Raw, nodepb.Raw]

// stream is what both ends have.
type stream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// peer is the link to another member: one stream for both directions, on a connection of its own.
type peer struct {
	g    *Group
	rank int
	link atomic.Pointer[link] // the last connection, if this node opens it
	out  *outbox
	seen peerWatch
	lent atomic.Int64 // payloads for this peer that gRPC has not given back

	pieces [][]byte // of the reader, for the message in hand
	prober prober
	memory *memory   // shared with the other end; nil for none; set when the link comes up, with the group's lock
	by     Transport // likewise
	conn   net.Conn  // likewise; nil before
	local  bool      // likewise: the other end is on this machine; the lock guards what prober has found, and flow, too
	flow   flow
	probes int  // that have come
	again  bool // the next step of the prober is due
}

func newPeer(g *Group, rank int) *peer {
	return &peer{g: g, rank: rank, out: newOutbox()}
}

func (p *peer) name() string { return p.g.cfg.Group.Names[p.rank] }

// tell tells the machine of what has happened to the link.
func (p *peer) tell(do func(m *allreduce.Group)) { p.g.move(func() { do(p.g.machine) }) }

func (p *peer) lost(reason string) { p.tell(func(m *allreduce.Group) { m.Lost(p.rank, reason) }) }

// reset says that the connection has broken, and how long after the last sign of life.
func (p *peer) reset() string {
	return fmt.Sprintf("stream reset after %s of silence", brief(p.g.watch.since(&p.seen.heard)))
}

// openAgain is the pause after an attempt to reach a peer that the group can do without.
const openAgain = time.Second

// open is the goroutine of a link that this node opens: it lives as long as that.
func (p *peer) open() {
	defer p.g.tasks.Done()
	for p.try() {
		select {
		case <-time.After(openAgain):
		case <-p.g.dying:
			return
		}
	}
}

// try opens the stream and returns when it has ended; true if it has not come to be and might later.
func (p *peer) try() (again bool) {
	c := &p.g.cfg
	l := newLink(linkConfig{
		addr: c.Addrs[p.rank], timeout: c.SetupTimeout, tls: c.TLS, bulk: true, local: p.g.server.cfg.Local,
	})
	defer l.close() // ends the sender too, if it hangs
	p.link.Store(l)
	fence := c.Group.Config.Fence
	ctx := metadata.AppendToOutgoingContext(p.g.ctx, fenceKey, string(fence[:]), fromKey, c.Group.Names[c.Group.Config.Rank])
	s, err := nodepb.NewNodeClient(l.cc).Ring(ctx)
	if err != nil {
		return p.failed(err, l, nil)
	}
	head, err := s.Header()
	if names := head.Get(fromKey); err != nil || len(names) != 1 { // a note, or a refusal
		if err = p.read(s); err != nil {
			return p.failed(err, l, s.Trailer())
		}
		return false
	} else if names[0] != p.name() {
		p.lost("at its address is " + names[0])
		return false
	}
	p.seen.heard.CompareAndSwap(0, p.g.watch.now())
	p.tell(func(m *allreduce.Group) {
		p.attach(s, infoOf(s.Context()))
		m.Taken(p.rank)
	})
	p.g.tasks.Add(1)
	go p.send(s, s.CloseSend)
	p.probe()
	p.listen(s)
	return false
}

// serve is the goroutine of a link that the peer has opened. conn is the connection that it came by.
func (p *peer) serve(s grpc.BidiStreamingServer[nodepb.Raw, nodepb.Raw]) {
	defer p.g.tasks.Done()
	info := infoOf(s.Context())
	conn := info.conn
	defer conn.Close() // the link's own: nothing goes out after the end
	p.seen.heard.Store(p.g.watch.now())
	if s.SendHeader(metadata.Pairs(fromKey, p.g.cfg.Group.Names[p.g.cfg.Group.Config.Rank])) != nil {
		p.lost(p.reset())
		return
	}
	p.g.move(func() { p.attach(s, info) }) // and sends what waits
	p.g.tasks.Add(1)
	go p.send(s, func() error { return nil })
	p.probe()
	stop := context.AfterFunc(p.g.ctx, func() { conn.Close() }) // a server's stream knows nothing of the group's context
	defer stop()
	p.listen(s)
}

// infoOf is what there is to know of the connection of a stream.
func infoOf(ctx context.Context) connInfo {
	if from, ok := grpcpeer.FromContext(ctx); ok {
		if info, ok := from.AuthInfo.(connInfo); ok {
			return info
		}
	}
	panic("rpc: a stream without a connection")
}

// attach notes that the link is up. The group's lock is held.
func (p *peer) attach(s stream, info connInfo) {
	p.by, p.local, p.conn = info.transport(), isLocalConn(info.conn), info.conn
	if info.memory != nil && info.memory.take() {
		p.memory = info.memory
	}
	p.g.server.cfg.Log.Debug("a link is up", "peer", p.name(), "by", p.by, "no shared memory", info.why)
	p.out.attach(s)
}

// listen reads until the stream ends: after the peer's note, or without one.
func (p *peer) listen(s stream) {
	switch err := p.read(s); {
	case err == nil:
	case errors.Is(err, io.EOF):
		p.lost("ended its stream without a word")
	default:
		p.lost(p.reset())
	}
}

// read hands frames to the machine until the stream ends, and returns how. What comes after the end of
// the group is not looked at.
func (p *peer) read(s stream) error {
	closed := false
	for {
		m := message{piecewise: true}
		if err := s.RecvMsg(&m); closed || isClosed(p.g.dying) && err != nil {
			return nil
		} else if err != nil {
			return err
		}
		var err error
		if m.pieces != nil {
			err = p.receiveLarge(m.pieces)
			m.pieces.Free()
		} else {
			err = p.receive(frames(m.buf.ReadOnlyData()), &closed)
			m.buf.Free()
		}
		if p.again {
			p.again = false
			p.probe()
		}
		if err != nil {
			p.tell(func(m *allreduce.Group) { m.Protocol(p.rank, err) })
		}
	}
}

// maxProbes is how many probes a peer may send: each has an answer, which the peer might never read.
const maxProbes = 64

// isProbe tells whether a frame is for the driver.
func (p *peer) isProbe(f allreduce.Frame) bool {
	if f.Kind == allreduce.Probe {
		if p.probes++; p.probes > maxProbes {
			return false
		}
	}
	return (f.Kind == allreduce.Probe || f.Kind == allreduce.Echo) && f.Fence == p.g.cfg.Group.Config.Fence
}

// receive gives the frames of one message to the machine.
func (p *peer) receive(b []byte, closed *bool) (err error) {
	p.tell(func(m *allreduce.Group) {
		for first := true; err == nil && (first || len(b) > 0); first = false {
			var f allreduce.Frame
			if f, b, err = allreduce.NextFrame(b); err != nil {
				return
			}
			shared := f.Encoding == allreduce.Shared
			if shared {
				if f, err = p.fetch(f); err != nil {
					return
				}
			}
			if p.isProbe(f) {
				p.probed(f)
			} else {
				if *closed = f.Kind == allreduce.Closing; !*closed {
					p.seen.received(&p.g.watch, len(f.Payload))
				}
				m.Receive(p.rank, f)
			}
			if shared {
				p.memory.done()
			}
		}
	})
	return err
}

// fetch returns a frame with its payload, which lies in shared memory.
func (p *peer) fetch(f allreduce.Frame) (allreduce.Frame, error) {
	if p.memory == nil {
		return f, fmt.Errorf("%v is in shared memory, and there is none", f)
	}
	payload, err := p.memory.get(f.Payload)
	f.Payload, f.Encoding = payload, allreduce.Raw
	return f, err
}

// receiveLarge gives the one frame of a large message to the machine, in the pieces in which it came.
func (p *peer) receiveLarge(bufs mem.BufferSlice) error {
	pieces := p.pieces[:0]
	n := 0
	for _, b := range bufs {
		pieces = append(pieces, b.ReadOnlyData())
		n += b.Len()
	}
	p.pieces = pieces
	pieces[0] = frames(pieces[0])
	f, err := allreduce.ParsePieces(pieces)
	if err == nil {
		p.tell(func(m *allreduce.Group) {
			if p.isProbe(f) {
				p.probed(f)
				return
			}
			p.seen.received(&p.g.watch, n-messagePad-allreduce.FrameOverhead)
			m.Receive(p.rank, f)
		})
	}
	clear(pieces)
	return err
}

// send is the goroutine that sends what is not sent at once, and in the end the closing note.
func (p *peer) send(s stream, end func() error) {
	defer p.g.tasks.Done()
	for {
		select {
		case <-p.out.ready:
			p.out.pump(p)
			continue
		case <-p.g.dying:
		}
		break
	}
	p.out.close()
	// A peer that is gone gets no note; the reader has seen it go.
	if s.SendMsg(whole(closingMessage(p.g.cfg.Group.Config.Fence, p.g.note))) == nil {
		_ = end() // nil always, as documented
	}
}

// failed tells how the stream to a peer could not be opened: the peer lives and has said no, or nobody is
// there, or there is no way to it, and then it may be tried again.
func (p *peer) failed(err error, l *link, trailer metadata.MD) (again bool) {
	dialErr := l.dialErr()
	e := classify("ring", p.g.cfg.Addrs[p.rank], err, dialErr, trailer)
	reason := fmt.Sprintf("%v: %s", e.Kind, e.Message)
	var errno syscall.Errno
	if errors.As(dialErr, &errno) {
		reason = errno.Error() // "connection refused" says all
	}
	switch {
	case errors.Is(err, io.EOF):
		p.lost("ended its stream without a word")
	case status.Code(err) == codes.FailedPrecondition:
		p.tell(func(m *allreduce.Group) {
			m.Refused(p.rank, fmt.Sprintf("%s, at generation %d", e.Message, e.Generation))
		})
	case errno == syscall.ECONNREFUSED:
		p.lost(reason)
	default:
		p.tell(func(m *allreduce.Group) { again = m.Unreached(p.rank, reason) })
	}
	return again
}

// isClosed reports whether a channel that nothing is sent to is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// serve takes a stream that another member has opened into the group, for as long as the group lives. An
// error means that it is refused.
func (g *Group) serve(from string, s grpc.BidiStreamingServer[nodepb.Raw, nodepb.Raw]) error {
	var p *peer
	var err error
	g.locked(func() {
		var rank int
		if rank, err = g.machine.Admit(from); err == nil && rank >= 0 {
			p = g.peers[rank]
			g.tasks.Add(1) // before the end, which waits for them
		}
	})
	switch {
	case err != nil:
		return err
	case p == nil:
		<-g.dying
		return sendNote(s, g.cfg.Group.Config.Fence, g.note)
	}
	p.serve(s)
	return nil
}
