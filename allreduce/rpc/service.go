package rpc

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// service is the generated interface on a Server. Every refusal carries this node's generation.
type service struct {
	nodepb.UnimplementedNodeServer
	server *Server
}

// blobChunk is the size of a Fetch message, in bytes.
const blobChunk = 512 << 10

var errNoHandler = errors.New("this node does not answer such calls")

func (s *service) Deliver(ctx context.Context, m *nodepb.Envelope) (*nodepb.Receipt, error) {
	e := Envelope{From: m.GetFrom(), Payload: m.GetPayload()}
	if len(m.GetTrajectory()) != len(e.Trajectory) || len(m.GetView()) != len(e.View) {
		return nil, s.refuseCall(ctx, errors.New("malformed envelope"))
	}
	copy(e.Trajectory[:], m.GetTrajectory())
	copy(e.View[:], m.GetView())
	if s.server.cfg.Handlers.Deliver == nil {
		return nil, s.refuseCall(ctx, errNoHandler)
	}
	receipt, err := s.server.cfg.Handlers.Deliver(ctx, e)
	return &nodepb.Receipt{Payload: receipt}, s.refuseCall(ctx, err)
}

func (s *service) Ping(ctx context.Context, m *nodepb.PingRequest) (*nodepb.PingReply, error) {
	if s.server.cfg.Handlers.Ping == nil {
		return nil, s.refuseCall(ctx, errNoHandler)
	}
	payload, err := s.server.cfg.Handlers.Ping(ctx, m.GetIncarnation())
	return &nodepb.PingReply{Payload: payload}, s.refuseCall(ctx, err)
}

func (s *service) Describe(ctx context.Context, _ *nodepb.DescribeRequest) (*nodepb.Description, error) {
	if s.server.cfg.Handlers.Describe == nil {
		return nil, s.refuseCall(ctx, errNoHandler)
	}
	payload, err := s.server.cfg.Handlers.Describe(ctx)
	return &nodepb.Description{Payload: payload}, s.refuseCall(ctx, err)
}

func (s *service) Status(ctx context.Context, _ *nodepb.StatusRequest) (*nodepb.StatusReply, error) {
	if s.server.cfg.Handlers.Status == nil {
		return nil, s.refuseCall(ctx, errNoHandler)
	}
	page, err := s.server.cfg.Handlers.Status(ctx)
	return &nodepb.StatusReply{Json: page}, s.refuseCall(ctx, err)
}

func (s *service) Fetch(m *nodepb.FetchRequest, stream grpc.ServerStreamingServer[nodepb.Raw]) error {
	r := FetchRequest{Transition: m.GetTransition()}
	if len(m.GetView()) != len(r.View) {
		return s.refuseStream(stream, errors.New("malformed request"))
	}
	copy(r.View[:], m.GetView())
	if s.server.cfg.Handlers.Fetch == nil {
		return s.refuseStream(stream, errNoHandler)
	}
	blob, err := s.server.cfg.Handlers.Fetch(stream.Context(), r)
	if err != nil {
		return s.refuseStream(stream, err)
	}
	return sendBlob(stream, nil, blob)
}

// Ring serves the link that another member has opened for as long as their group lives. A group that is not here
// yet is waited for, since its members learn of their view one after another.
func (s *service) Ring(stream grpc.BidiStreamingServer[nodepb.Raw, nodepb.Raw]) error {
	fence, from, err := caller(stream.Context())
	if err != nil {
		return s.refuseStream(stream, err)
	}
	g, note := s.server.groups.wait(stream.Context(), fence, s.server.cfg.GroupWait)
	if note != nil {
		return sendNote(stream, fence, *note)
	}
	if g == nil {
		return s.refuseStream(stream, fmt.Errorf("no group of view %v here", fence))
	}
	if err := g.serve(from, stream); err != nil {
		return s.refuseStream(stream, err)
	}
	return nil
}

// caller reads who opens a ring stream, and for which view.
func caller(ctx context.Context) (fence allreduce.Fence, from string, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	f, id := md.Get(fenceKey), md.Get(fromKey)
	if len(f) != 1 || len(f[0]) != len(fence) || len(id) != 1 {
		return fence, "", errors.New("a ring stream without fence and sender")
	}
	return allreduce.Fence([]byte(f[0])), id[0], nil
}

// sendNote sends a closing note back to who has opened a stream.
func sendNote(stream grpc.ServerStream, fence allreduce.Fence, note allreduce.ClosingNote) error {
	return stream.SendMsg(whole(closingMessage(fence, note)))
}

// closingMessage returns the last message of a link.
func closingMessage(fence allreduce.Fence, note allreduce.ClosingNote) []byte {
	return allreduce.Frame{Fence: fence, Kind: allreduce.Closing, Payload: note.Append(nil)}.Append(make([]byte, messagePad))
}

// refuseCall makes the answer to a unary call of a handler's error; nil stays nil.
func (s *service) refuseCall(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if e := grpc.SetTrailer(ctx, s.generation()); e != nil {
		return e
	}
	return refusal(err)
}

// refuseStream makes the end of a stream of an error.
func (s *service) refuseStream(stream grpc.ServerStream, err error) error {
	stream.SetTrailer(s.generation())
	return refusal(err)
}

// refusal is FailedPrecondition with the error's text, unless the caller has gone or runs out of time.
func refusal(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}

// generation is the metadata that goes with a refusal.
func (s *service) generation() metadata.MD {
	var generation uint64
	if s.server.cfg.Generation != nil {
		generation = s.server.cfg.Generation()
	}
	return metadata.Pairs(generationKey, strconv.FormatUint(generation, 10))
}
