package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// FollowRequest names a piece of what a member lends to a node that copies while
// the others train: of a state, and of the records of the transitions since.
type FollowRequest struct {
	Trajectory [32]byte
	From       string // who asks
	Begin      bool   // with a state, and the answer says of which transition
	State      bool   // the piece begins in the state, else in the record of the transition
	Transition uint64
	Offset     uint64 // in bytes
}

// Piece answers a FollowRequest.
type Piece struct {
	Newest     uint64 // transition of the donor's state
	Transition uint64 // the request's, or that of the state with which the copy begins
	Bytes      []byte // none where nothing new has come for a while
}

// pieceHead is how many bytes go before those of a piece.
const pieceHead = 16

// Follow gets a piece from the node at addr. The caller verifies it.
func (c *Client) Follow(ctx context.Context, addr string, r FollowRequest) (Piece, error) {
	request := &nodepb.FollowRequest{
		Trajectory: r.Trajectory[:], From: r.From, Begin: r.Begin, State: r.State, Transition: r.Transition, Offset: r.Offset,
	}
	blob, err := c.bulk(ctx, "follow", addr, func(ctx context.Context, n nodepb.NodeClient) (grpc.ClientStream, error) {
		return n.Follow(ctx, request)
	})
	if err != nil {
		return Piece{}, err
	}
	if len(blob) < pieceHead {
		return Piece{}, &Error{Op: "follow", Addr: addr, Kind: Rejected, Message: fmt.Sprintf("a piece of %d bytes has no head of %d", len(blob), pieceHead)}
	}
	return Piece{binary.LittleEndian.Uint64(blob), binary.LittleEndian.Uint64(blob[8:]), blob[pieceHead:]}, nil
}

// Follow answers with a piece.
func (s *service) Follow(m *nodepb.FollowRequest, stream grpc.ServerStreamingServer[nodepb.Raw]) error {
	r := FollowRequest{From: m.GetFrom(), Begin: m.GetBegin(), State: m.GetState(), Transition: m.GetTransition(), Offset: m.GetOffset()}
	if len(m.GetTrajectory()) != len(r.Trajectory) {
		return s.refuseStream(stream, errors.New("malformed request"))
	}
	copy(r.Trajectory[:], m.GetTrajectory())
	if s.server.cfg.Handlers.Follow == nil {
		return s.refuseStream(stream, errNoHandler)
	}
	p, err := s.server.cfg.Handlers.Follow(stream.Context(), r)
	if err != nil {
		return s.refuseStream(stream, err)
	}
	head := binary.LittleEndian.AppendUint64(nil, p.Newest)
	return sendBlob(stream, binary.LittleEndian.AppendUint64(head, p.Transition), p.Bytes)
}
