package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// PartRequest names a part of a data set: bytes of a file, at most Length of them.
type PartRequest struct {
	Name   string
	Offset int64
	Length int // 0 is the whole file
}

// Limits of answering for data, so that no number of askers makes a node hold more than
// partCalls·MaxPart bytes for them, and none for longer than partDeadline, nor a chunk of it for longer than
// partGrace while others wait. Whole files may be longer than MaxPart: who has them holds them anyway.
const (
	// MaxPart is the longest part of a file that may be asked for.
	MaxPart      = 8 << 20
	partCalls    = 16
	partDeadline = 5 * time.Minute
	partGrace    = blobChunk / slowest * time.Second
	maxPartName  = 256
)

// Part implements nodepb.NodeServer.
func (s *service) Part(m *nodepb.PartRequest, stream grpc.ServerStreamingServer[nodepb.Raw]) error {
	answer := s.server.cfg.Handlers.Part
	if answer == nil {
		return s.refuseStream(stream, errNoHandler)
	}
	r, err := partRequest(stream.Context(), m)
	if err != nil {
		return s.refuseStream(stream, err)
	}
	if err := s.server.parts.enter(stream.Context()); err != nil {
		return status.FromContextError(err).Err()
	}
	defer s.server.parts.leave()
	blob, err := answer(stream.Context(), r)
	if errors.Is(err, fs.ErrNotExist) {
		return status.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return s.refuseStream(stream, err)
	}
	taker, done := s.server.parts.sends(infoOf(stream.Context()).conn)
	defer done()
	return sendBlob(stream, taker, blob)
}

// partRequest reads a request, which must not take long and not ask for much.
func partRequest(ctx context.Context, m *nodepb.PartRequest) (r PartRequest, err error) {
	until, bounded := ctx.Deadline()
	switch {
	case !bounded || time.Until(until) > partDeadline:
		return r, fmt.Errorf("a call for data without a deadline within %v", partDeadline)
	case len(m.GetName()) > maxPartName || m.GetOffset() > math.MaxInt64 || m.GetLength() > MaxPart:
		return r, errors.New("malformed request for data")
	}
	return PartRequest{Name: m.GetName(), Offset: int64(m.GetOffset()), Length: int(m.GetLength())}, nil
}

// Part copies a part of the data of the node at addr, of at most limit bytes. Its deadline is that of
// ctx, at most five minutes ahead; between two chunks, and before the first, silence may pass at most.
// fs.ErrNotExist says that the node doesn't have it. The caller verifies it.
func (c *Client) Part(ctx context.Context, addr string, r PartRequest, limit int64, silence time.Duration) ([]byte, error) {
	key := linkKey{addr, true}
	p := c.acquire(key)
	if p == nil {
		return nil, &Error{Op: "part", Addr: addr, Kind: Canceled, Message: "the client is closed"}
	}
	blob, err := c.part(ctx, p.link, addr, r, limit, silence)
	if errors.Is(err, fs.ErrNotExist) {
		c.release(key, p, nil) // the node has answered
	} else {
		c.release(key, p, err)
	}
	return blob, err
}

func (c *Client) part(ctx context.Context, l *link, addr string, r PartRequest, limit int64, silence time.Duration) ([]byte, error) {
	ctx, stop := context.WithTimeout(ctx, partDeadline-time.Second)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := &Error{Op: "part", Addr: addr, Kind: Timeout, Message: "nothing came for " + brief(silence)}
	watch := time.AfterFunc(silence, func() { cancel(silent) })
	defer watch.Stop()

	fail := func(stream grpc.ClientStream, err error) error {
		if cause, ok := context.Cause(ctx).(*Error); ok {
			return cause
		}
		if st, ok := status.FromError(err); ok && st.Code() == codes.NotFound {
			return fmt.Errorf("rpc: part %s: %s: %w", addr, st.Message(), fs.ErrNotExist)
		}
		if stream == nil {
			return classify("part", addr, err, l.dialErr(), nil)
		}
		return classify("part", addr, err, l.dialErr(), stream.Trailer())
	}
	stream, err := nodepb.NewNodeClient(l.cc).Part(ctx, &nodepb.PartRequest{Name: r.Name, Offset: uint64(r.Offset), Length: uint64(r.Length)})
	if err != nil {
		return nil, fail(nil, err)
	}
	blob, err := receiveBlob(stream, limit, func(_ int64, chunk int) {
		watch.Reset(silence)
		c.received.Add(uint64(chunk))
	})
	if err != nil {
		return nil, fail(stream, err)
	}
	return blob, nil
}
