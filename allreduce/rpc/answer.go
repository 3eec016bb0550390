package rpc

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// What a caller that says nothing more, or takes nothing, costs a node is bounded in time and in memory,
// whichever call it makes:
//
//	connecting      ConnectTimeout, for TLS and the greetings of HTTP/2
//	idle            PingIdle, and a third of it to answer a ping of the transport
//	asking          AnswerTimeout, from the head of a call to its request's end, and maxMessage
//	being answered  AnswerTimeout, whatever deadline the caller has named, but for data, see Part
//	taking          each chunk within AnswerTimeout, or the connection is closed, and all it holds with it
//	a group's link  lives as long as the group, which ends by Close within GroupConfig.Linger
//
// Those who ask for a small answer have one AnswerTimeout for both. maxStreams bounds how many calls of a connection may
// have something that the caller has not taken.
const maxStreams = 128

// limits are the options by which all of this holds for every call.
func (s *service) limits() []grpc.ServerOption {
	c := &s.server.cfg
	return []grpc.ServerOption{
		grpc.ConnectionTimeout(c.ConnectTimeout),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: c.PingIdle, Timeout: c.PingIdle / 3}),
		grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
			if !isUnary(info.FullMethodName) { // a stream may take as long as there are messages
				return ctx, nil
			}
			ctx, cancel := context.WithTimeout(ctx, c.AnswerTimeout)
			context.AfterFunc(ctx, cancel) // gRPC ends what this comes from with the call
			return ctx, nil
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			limit := c.AnswerTimeout
			switch info.FullMethod {
			case nodepb.Node_Ring_FullMethodName:
				return handle(srv, stream)
			case nodepb.Node_Part_FullMethodName:
				limit = partDeadline
			}
			ctx, cancel := context.WithTimeout(stream.Context(), limit)
			defer cancel()
			return handle(srv, &bounded{stream, ctx, c.AnswerTimeout})
		}),
	}
}

// isUnary tells whether a method has one request and one small answer.
func isUnary(method string) bool {
	return slices.ContainsFunc(nodepb.Node_ServiceDesc.Methods, func(m grpc.MethodDesc) bool {
		return method == "/"+nodepb.Node_ServiceDesc.ServiceName+"/"+m.MethodName
	})
}

// bounded is a stream whose call has a deadline of ours: for the handler, while each message has its own.
type bounded struct {
	grpc.ServerStream
	ctx      context.Context
	patience time.Duration // for a message to come, or to be taken
}

func (b *bounded) Context() context.Context { return b.ctx }

// RecvMsg implements grpc.ServerStream.
func (b *bounded) RecvMsg(m any) error {
	defer b.expect()()
	return b.ServerStream.RecvMsg(m)
}

// SendMsg implements grpc.ServerStream. It returns when gRPC has room for the next message, or has done with this one,
// if that tells.
func (b *bounded) SendMsg(m any) error {
	defer b.expect()()
	if err := b.ServerStream.SendMsg(m); err != nil {
		return err
	}
	if m, ok := m.(*message); ok && m.gone != nil {
		select {
		case <-m.gone:
		case <-b.ServerStream.Context().Done(): // gRPC need not tell any more
			return status.FromContextError(b.ServerStream.Context().Err()).Err()
		}
	}
	return nil
}

// expect closes the connection of a caller that does nothing until the returned function is called.
func (b *bounded) expect() (stop func() bool) {
	conn := infoOf(b.ctx).conn
	return time.AfterFunc(b.patience, func() { conn.Close() }).Stop
}

// sendBlob sends a blob, given in parts, in chunks, which are windows of them, never copies. It returns when the last one
// is taken: until then all of the blob is held. t, if not nil, is told of each chunk.
func sendBlob(stream grpc.ServerStream, t *taker, parts ...[]byte) error {
	left := 0
	for _, p := range parts {
		left += len(p)
	}
	if err := stream.SetHeader(metadata.Pairs(sizeKey, strconv.Itoa(left))); err != nil {
		return err
	}
	for _, p := range parts {
		for c := range slices.Chunk(p, blobChunk) {
			m := whole(c)
			if left -= len(c); left == 0 {
				m = telling(c)
			}
			if err := stream.SendMsg(m); err != nil {
				return err
			}
			if t != nil {
				t.takes()
			}
		}
	}
	return nil
}

// queue lets at most so many calls be answered with data at a time. Where others wait, callers that take
// what they are given more slowly than anybody has to lose their place, and their connections, the slowest
// first: they may come again.
type queue struct {
	room  chan struct{} // holds one for each call that is being answered
	grace time.Duration // how long a chunk may take while others wait

	mu     sync.Mutex
	takers map[*taker]struct{}
}

// taker is a caller that is being sent something.
type taker struct {
	conn net.Conn
	took atomic.Pointer[time.Time] // when it took the last chunk, or began
}

func newQueue(places int, grace time.Duration) *queue {
	return &queue{room: make(chan struct{}, places), grace: grace, takers: map[*taker]struct{}{}}
}

// enter waits for a place, which leave gives back.
func (q *queue) enter(ctx context.Context) (err error) {
	select {
	case q.room <- struct{}{}:
		return nil
	default:
	}
	look := time.NewTicker(q.grace / 4)
	defer look.Stop()
	for {
		select {
		case q.room <- struct{}{}:
			return nil
		case now := <-look.C:
			q.hurry(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (q *queue) leave() { <-q.room }

// sends notes that a caller takes what it has asked for, until done.
func (q *queue) sends(conn net.Conn) (t *taker, done func()) {
	t = &taker{conn: conn}
	t.takes()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.takers[t] = struct{}{}
	return t, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.takers, t)
	}
}

// takes notes that the caller has taken a chunk.
func (t *taker) takes() {
	now := time.Now()
	t.took.Store(&now)
}

// hurry ends the call of whoever has been at a chunk for longest, if that is too long.
func (q *queue) hurry(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var worst *taker
	longest := q.grace
	for t := range q.takers {
		if at := now.Sub(*t.took.Load()); at > longest {
			worst, longest = t, at
		}
	}
	if worst != nil {
		delete(q.takers, worst)
		worst.conn.Close()
	}
}
