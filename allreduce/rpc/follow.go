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
	Next       Place  // where the next piece begins
	Bytes      []byte // none where nothing new has come for a while
}

// Place is where a piece begins, as in a FollowRequest.
type Place struct {
	State      bool
	Transition uint64
	Offset     uint64
}

// pieceHead is how many bytes go before those of a piece: five numbers, LE.
const pieceHead = 5 * 8

func (p Piece) head() (b []byte) {
	state := uint64(0)
	if p.Next.State {
		state = 1
	}
	for _, v := range [...]uint64{p.Newest, p.Transition, state, p.Next.Transition, p.Next.Offset} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func parsePiece(b []byte) Piece {
	var v [pieceHead / 8]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return Piece{v[0], v[1], Place{v[2] != 0, v[3], v[4]}, b[pieceHead:]}
}

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
	return parsePiece(blob), nil
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
	return s.sendBlob(stream, nil, p.head(), p.Bytes)
}
