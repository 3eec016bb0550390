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

	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// What a caller that says nothing more, or takes nothing, costs a node is bounded in time and in memory,
// whichever call it makes:
//
//	connecting      ConnectTimeout, for TLS and the greetings of HTTP/2
//	idle            PingIdle, and a third of it to answer a ping of the transport
//	being answered  AnswerTimeout, whatever deadline the caller has named, but for data, see Part
//	taking          each chunk within AnswerTimeout, or the connection is closed, and all it holds with it
//	a group's link  lives as long as the group, which ends by Close within GroupConfig.Linger
//
// maxStreams bounds how many calls of a connection may have something that the caller has not taken.
const maxStreams = 128

// limits are the options by which all of this holds for every call.
func (s *service) limits() []grpc.ServerOption {
	c := &s.server.cfg
	return []grpc.ServerOption{
		grpc.ConnectionTimeout(c.ConnectTimeout),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: c.PingIdle, Timeout: c.PingIdle / 3}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, c.AnswerTimeout)
			defer cancel()
			return handle(ctx, request)
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
			return handle(srv, &bounded{stream, ctx})
		}),
	}
}

// bounded is a stream whose call has a deadline of ours: for the handler, while sending has its own.
type bounded struct {
	grpc.ServerStream
	ctx context.Context
}

func (b *bounded) Context() context.Context { return b.ctx }

// sendBlob sends a blob, given in parts, in chunks, which are windows of them, never copies. A caller that
// takes nothing for AnswerTimeout loses its connection. t, if not nil, is told of each chunk.
func (s *service) sendBlob(stream grpc.ServerStream, t *taker, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if err := stream.SetHeader(metadata.Pairs(sizeKey, strconv.Itoa(size))); err != nil {
		return err
	}
	conn := infoOf(stream.Context()).conn
	limit := s.server.cfg.AnswerTimeout
	silence := time.AfterFunc(limit, func() { conn.Close() })
	defer silence.Stop()
	for _, p := range parts {
		for c := range slices.Chunk(p, blobChunk) {
			if err := stream.SendMsg(whole(c)); err != nil {
				return err
			}
			silence.Reset(limit)
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
