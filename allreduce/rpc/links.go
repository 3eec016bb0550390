package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// ringStream is the outgoing stream, to the right neighbour.
type ringStream = grpc.BidiStreamingClient[nodepb.Raw, nodepb.Raw]

// sendQueue holds frames from the machine until the sender takes them. Its bound is the op's.
type sendQueue struct {
	mu    sync.Mutex
	bufs  []mem.Buffer
	ready chan struct{} // holds one token if bufs may not be empty
}

func newSendQueue() sendQueue { return sendQueue{ready: make(chan struct{}, 1)} }

// push appends a frame.
func (q *sendQueue) push(buf mem.Buffer) {
	q.mu.Lock()
	q.bufs = append(q.bufs, buf)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns all frames, and leaves the storage of empty for the next ones.
func (q *sendQueue) take(empty []mem.Buffer) []mem.Buffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	bufs := q.bufs
	clear(empty)
	q.bufs = empty[:0]
	return bufs
}

// send is the goroutine of the outgoing link: it opens the stream, sends what the machine emits, and
// when the group ends sends the closing note and waits until the neighbour has read it.
func (g *Group) send() {
	defer g.tasks.Done()
	l := newLink(g.cfg.RightAddr, g.cfg.SetupTimeout, maxRingMessage, g.cfg.TLS, true)
	defer l.close()
	fence := g.cfg.Group.Ring.Fence
	ctx := metadata.AppendToOutgoingContext(g.ctx, fenceKey, string(fence[:]), fromKey, g.cfg.Group.Self)
	stream, err := nodepb.NewNodeClient(l.cc).Ring(ctx)
	if err != nil {
		g.rightFailed(err, l, nil)
		return
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.watchRight(stream, l)
	}()
	g.pump(stream)
	// A neighbour that is gone gets no note; the watcher has seen it go.
	if stream.SendMsg(&message{buf: mem.SliceBuffer(closingFrame(fence, g.note))}) == nil {
		_ = stream.CloseSend() // returns nil always, as documented
	}
	<-watched
}

// pump sends frames until the group ends. A broken stream is the watcher's to tell.
func (g *Group) pump(stream ringStream) {
	var batch []mem.Buffer
	var m message
	for {
		select {
		case <-g.dying:
			return
		case <-g.queue.ready:
		}
		batch = g.queue.take(batch)
		for i := range batch {
			n := batch[i].Len() - allreduce.FrameOverhead
			m.buf = batch[i]
			g.watch.sending.Store(g.watch.now())
			if isClosed(g.dying) || stream.SendMsg(&m) != nil {
				<-g.dying
				return
			}
			g.watch.sent(n)
		}
	}
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

// watchRight waits for what the right neighbour has to say: that it takes the stream, and why it ends.
func (g *Group) watchRight(stream ringStream, l *link) {
	head, err := stream.Header()
	taken := err == nil && len(head.Get(fromKey)) == 1
	if taken {
		g.watch.spoke.CompareAndSwap(0, g.watch.now())
		g.post(func() {
			g.machine.Taken()
			g.watch.links(g.machine.Links())
		})
	}
	m := message{pool: g.pool}
	switch err := stream.RecvMsg(&m); {
	case err == nil:
		g.reply(m.buf)
	case errors.Is(err, io.EOF):
		g.rightLost("ended its stream without a word")
	case taken && status.Code(err) == codes.Unavailable:
		g.rightLost(g.watch.reset(&g.watch.spoke))
	default:
		g.rightFailed(err, l, stream.Trailer())
	}
}

// reply hands on what the right neighbour has sent back.
func (g *Group) reply(buf mem.Buffer) {
	f, err := allreduce.ParseFrame(bytes.Clone(buf.ReadOnlyData()))
	buf.Free()
	g.post(func() {
		if err != nil {
			g.machine.Protocol(g.cfg.Group.Right, err)
			return
		}
		g.machine.Reply(f)
	})
}

func (g *Group) rightLost(reason string) { g.post(func() { g.machine.RightLost(reason) }) }

// rightFailed tells how the outgoing stream has failed: the right neighbour lives and has said no, or
// there is no way to it.
func (g *Group) rightFailed(err error, l *link, trailer metadata.MD) {
	dialErr := l.dialErr()
	e := classify("ring", g.cfg.RightAddr, err, dialErr, trailer)
	var errno syscall.Errno
	switch {
	case status.Code(err) == codes.FailedPrecondition:
		g.post(func() { g.machine.RightRefused(fmt.Sprintf("%s, at generation %d", e.Message, e.Generation)) })
	case errors.As(dialErr, &errno):
		g.rightLost(errno.Error()) // "connection refused" says all
	default:
		g.rightLost(fmt.Sprintf("%v: %s", e.Kind, e.Message))
	}
}

// serveLeft is the goroutine of the incoming link: it lives from the left neighbour's call to the end
// of the group, and sends the closing note back. An error means that the stream is refused.
func (g *Group) serveLeft(from string, stream grpc.BidiStreamingServer[nodepb.Raw, nodepb.Raw]) error {
	joined, err := g.admit(from)
	if err != nil {
		return err
	}
	if joined {
		defer g.tasks.Done()
		go g.readLeft(stream)
		if stream.SendHeader(metadata.Pairs(fromKey, g.cfg.Group.Self)) != nil {
			g.leftLost(g.watch.reset(&g.watch.heard))
		}
		<-g.dying
	}
	return sendNote(stream, g.cfg.Group.Ring.Fence, g.note)
}

// admit asks the machine to take the left neighbour's stream. One that has joined has two goroutines
// that tearDown waits for; none joins a group that has ended.
func (g *Group) admit(from string) (joined bool, err error) {
	answer := make(chan error, 1)
	asked := g.post(func() {
		err := g.machine.Admit(from)
		if err == nil {
			g.tasks.Add(2) // by the goroutine that will wait for them
			g.watch.heard.Store(g.watch.now())
			g.watch.links(g.machine.Links())
		}
		answer <- err
	})
	if !asked {
		return false, nil
	}
	err = <-answer
	return err == nil, err
}

// readLeft hands frames to the owner of the machine until the stream ends, which it does at the latest
// when serveLeft has returned.
func (g *Group) readLeft(stream grpc.ServerStream) {
	defer g.tasks.Done()
	for {
		m := message{pool: g.pool}
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			g.leftLost("ended its stream without a word")
			return
		} else if err != nil {
			g.leftLost(g.watch.reset(&g.watch.heard))
			return
		}
		if !g.take(m.buf) {
			return
		}
	}
}

// take hands one received frame on; false if no more are wanted.
func (g *Group) take(buf mem.Buffer) bool {
	f, err := allreduce.ParseFrame(buf.ReadOnlyData())
	if err != nil {
		buf.Free()
		g.arrive(arrival{end: func() { g.machine.Protocol(g.cfg.Group.Left, err) }})
		return false
	}
	return g.arrive(arrival{frame: f, buf: buf})
}

// leftLost comes after the frames that came before.
func (g *Group) leftLost(reason string) {
	g.arrive(arrival{end: func() { g.machine.LeftLost(reason) }})
}

// arrive hands on what the left link brings, in order; false if the group has ended.
func (g *Group) arrive(a arrival) bool {
	select {
	case g.left <- a:
		return true
	case <-g.dying:
		a.free()
		return false
	}
}
