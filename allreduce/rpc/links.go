package rpc

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

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

// sendQueue holds frames from the ring until the sender takes them. Its bound is the op's.
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

// send is the goroutine of the outgoing link: it opens the stream, sends what the ring emits, and when
// the group ends sends the closing note and waits until the neighbour has read it.
func (g *Group) send() {
	defer g.tasks.Done()
	l := newLink(g.cfg.RightAddr, g.cfg.SetupTimeout, maxRingMessage, g.cfg.TLS, true)
	defer l.close()
	ctx := metadata.AppendToOutgoingContext(g.ctx, fenceKey, string(g.cfg.Ring.Fence[:]), fromKey, g.cfg.Self)
	stream, err := nodepb.NewNodeClient(l.cc).Ring(ctx)
	if err != nil {
		g.lostRight(err, l, nil)
		return
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.watchRight(stream, l)
	}()
	g.pump(stream)
	// A neighbour that is gone gets no note; the watcher has seen it go.
	if stream.SendMsg(&message{buf: mem.SliceBuffer(closingFrame(g.cfg.Ring.Fence, g.note))}) == nil {
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
			g.watch.sending.Store(time.Now().UnixNano())
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
	if head, err := stream.Header(); err == nil && len(head.Get(fromKey)) == 1 {
		g.watch.spoke.CompareAndSwap(0, time.Now().UnixNano())
		g.mu.Lock()
		g.rightUp = true
		g.mu.Unlock()
	}
	m := message{pool: g.pool}
	if err := stream.RecvMsg(&m); err != nil {
		g.lostRight(err, l, stream.Trailer())
		return
	}
	defer m.buf.Free()
	f, err := allreduce.ParseFrame(m.buf.ReadOnlyData())
	if err == nil {
		err = g.closedBy(f)
	}
	if err != nil {
		g.protocol(g.cfg.Right, err)
	}
}

// closedBy ends the group as a neighbour's closing frame says.
func (g *Group) closedBy(f allreduce.Frame) error {
	if f.Kind != allreduce.Closing || f.Fence != g.cfg.Ring.Fence {
		return fmt.Errorf("%v instead of a closing note of view %v", f, g.cfg.Ring.Fence)
	}
	note, err := allreduce.ParseClosingNote(f.Payload)
	if err != nil {
		return err
	}
	g.end(note, &Ended{note})
	return nil
}

// lostRight ends the group because the outgoing stream has ended without a note. A neighbour that
// refuses is alive, in another view: nobody is to blame.
func (g *Group) lostRight(err error, l *link, trailer metadata.MD) {
	g.mu.Lock()
	up := g.rightUp
	g.mu.Unlock()
	switch code := status.Code(err); {
	case code == codes.FailedPrecondition:
		cause := classify("ring", g.cfg.RightAddr, err, nil, trailer)
		g.end(allreduce.ClosingNote{By: g.cfg.Self, Reason: fmt.Sprintf("refused by %s: %v", g.cfg.Right, cause)}, cause)
	case errors.Is(err, io.EOF):
		g.lost(g.cfg.Right, errors.New("ended its stream without a word"))
	case code == codes.Unavailable && up:
		g.lost(g.cfg.Right, reset(&g.watch.spoke))
	default:
		g.lost(g.cfg.Right, classify("ring", g.cfg.RightAddr, err, l.dialErr(), trailer))
	}
}

// reset is the cause when a neighbour's connection has broken.
func reset(last *atomic.Int64) error {
	return fmt.Errorf("stream reset after %s of silence", brief(time.Since(timeOf(last.Load()))))
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
		if stream.SendHeader(metadata.Pairs(fromKey, g.cfg.Self)) != nil {
			g.lost(g.cfg.Left, reset(&g.watch.heard))
		}
		<-g.dying
	}
	return sendNote(stream, g.cfg.Ring.Fence, g.note)
}

// admit takes the left neighbour's stream into the group, with two goroutines that tearDown waits for.
// It does not if the group has ended.
func (g *Group) admit(from string) (joined bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.ended:
		return false, nil
	case g.cfg.Ring.World == 1 || from != g.cfg.Left:
		return false, fmt.Errorf("%s is not left of %s in view %v", from, g.cfg.Self, g.cfg.Ring.Fence)
	case g.leftUp:
		return false, fmt.Errorf("%s has its stream of view %v already", from, g.cfg.Ring.Fence)
	}
	g.leftUp = true
	g.watch.heard.Store(time.Now().UnixNano())
	g.tasks.Add(2)
	return true, nil
}

// readLeft hands frames to the owner of the ring until the stream ends, which it does at the latest
// when serveLeft has returned.
func (g *Group) readLeft(stream grpc.ServerStream) {
	defer g.tasks.Done()
	for {
		m := message{pool: g.pool}
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			g.lost(g.cfg.Left, errors.New("ended its stream without a word"))
			return
		} else if err != nil {
			g.lost(g.cfg.Left, reset(&g.watch.heard))
			return
		}
		if !g.take(m.buf) {
			m.buf.Free()
			return
		}
	}
}

// take hands one received frame on; false if it was the last one that matters.
func (g *Group) take(buf mem.Buffer) bool {
	f, err := allreduce.ParseFrame(buf.ReadOnlyData())
	if err == nil && f.Kind == allreduce.Closing {
		if err = g.closedBy(f); err == nil {
			return false
		}
	}
	if err != nil {
		g.protocol(g.cfg.Left, err)
		return false
	}
	select {
	case g.in <- arrival{f, buf}:
		return true
	case <-g.dying:
		return false
	}
}
