package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// FollowRequest names a piece of what a member lends to a node that copies while
// the others train: of a state, or of the record of a transition since.
type FollowRequest struct {
	Trajectory [32]byte
	From       string // who asks
	At         uint64 // it needs nothing of transitions before this one
	Begin      bool   // the head of a state, and the answer says of which transition
	State      bool   // the piece is of the state at the transition, else of the transition's record
	Transition uint64
	Lo, Hi     uint64 // elements [Lo, Hi) of its vectors, one after the other; none for the head
	Packed     bool   // elements are wanted packed, as in package packing; set by Client.Follow
}

// Piece answers a FollowRequest.
type Piece struct {
	Newest     uint64        // transition of the donor's state
	First      uint64        // the oldest transition that the donor has a record of
	Transition uint64        // the request's, or that of the state with which the copy begins
	Elements   uint64        // of all vectors of the item; 0 for a transition without a gradient
	Attempt    uint64        // names the attempt at the transition that it is of, if that is still under way
	Lo, Hi     uint64        // which elements of gradients the donor has before others do
	Packed     bool          // what Bytes are, if they are elements; float32 LE if not
	Took       time.Duration // to pack them
	Bytes      []byte        // none where the donor does not have it, or not yet
}

// pieceHead is how many bytes go before those of a piece: eight numbers, LE.
const pieceHead = 8 * 8

func (p Piece) head() (b []byte) {
	took := uint64(p.Took) << 1
	if p.Packed {
		took |= 1
	}
	for _, v := range [...]uint64{p.Newest, p.First, p.Transition, p.Elements, p.Attempt, p.Lo, p.Hi, took} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func parsePiece(b []byte) Piece {
	var v [pieceHead / 8]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return Piece{
		Newest: v[0], First: v[1], Transition: v[2], Elements: v[3], Attempt: v[4], Lo: v[5], Hi: v[6],
		Packed: v[7]&1 != 0, Took: time.Duration(v[7] >> 1), Bytes: b[pieceHead:],
	}
}

// Follow gets a piece from the node at addr. The caller verifies it. Between two
// chunks, and before the first, silence may pass at most, then it is a [Timeout].
// Whether it comes packed is decided here, from what the link has carried lately.
func (c *Client) Follow(ctx context.Context, addr string, r FollowRequest, silence time.Duration) (Piece, error) {
	key := linkKey{addr, true}
	p := c.acquire(key)
	if p == nil {
		return Piece{}, &Error{Op: "follow", Addr: addr, Kind: Canceled, Message: "the client is closed"}
	}
	r.Packed = p.thrift.packs(p.staysHere() && c.cfg.TLS == nil) // as Group.packs has it for frames
	request := &nodepb.FollowRequest{
		Trajectory: r.Trajectory[:], From: r.From, At: r.At, Begin: r.Begin, State: r.State,
		Transition: r.Transition, Lo: r.Lo, Hi: r.Hi, Packed: r.Packed,
	}
	var first time.Time // when its first bytes were here
	blob, err := c.fetch(ctx, p.link, "follow", addr, silence, func(ctx context.Context, n nodepb.NodeClient) (grpc.ClientStream, error) {
		return n.Follow(ctx, request)
	}, func() {
		if first.IsZero() {
			first = time.Now()
		}
	})
	if err == nil && len(blob) < pieceHead {
		err = &Error{Op: "follow", Addr: addr, Kind: Rejected, Message: fmt.Sprintf("a piece of %d bytes has no head of %d", len(blob), pieceHead)}
	}
	c.release(key, p, err)
	if err != nil {
		return Piece{}, err
	}
	piece := parsePiece(blob)
	if r.Hi > r.Lo && len(piece.Bytes) > 0 {
		p.thrift.carried(piece, 4*(r.Hi-r.Lo), time.Since(first))
	}
	return piece, nil
}

// thrift knows what packing is worth on a connection over which pieces come.
type thrift struct {
	mu     sync.Mutex
	packer packer
	link   float64 // bytes a second, lately; 0 for unknown
}

// packs decides whether the next piece is to come packed.
func (t *thrift) packs(local bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.packer.frames++
	return !local && t.packer.pays(t.link)
}

// carried takes the time that a piece of so many bytes, before packing, was on the wire.
func (t *thrift) carried(p Piece, raw uint64, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lately(&t.link, float64(len(p.Bytes))/max(took.Seconds(), 1e-9))
	if p.Packed {
		t.packer.learn(float64(raw), float64(len(p.Bytes)), p.Took)
	}
}

// Follow answers with a piece.
func (s *service) Follow(m *nodepb.FollowRequest, stream grpc.ServerStreamingServer[nodepb.Raw]) error {
	r := FollowRequest{
		From: m.GetFrom(), At: m.GetAt(), Begin: m.GetBegin(), State: m.GetState(),
		Transition: m.GetTransition(), Lo: m.GetLo(), Hi: m.GetHi(), Packed: m.GetPacked(),
	}
	if len(m.GetTrajectory()) != len(r.Trajectory) || r.Hi < r.Lo {
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
	return sendBlob(stream, nil, p.head(), p.Bytes)
}
