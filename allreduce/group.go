package allreduce

import (
	"fmt"
	"strings"
	"time"
)

// GroupConfig describes one member's place in the group of a view.
type GroupConfig struct {
	Ring  Config
	Self  string // name of this node, told to its neighbours
	Left  string // of rank-1, the only one whose link is taken; unused in a world of one
	Right string // of rank+1; likewise
}

// Outlet takes what a Group has to say. It is called from inside the Group's
// methods.
type Outlet interface {
	// Send takes a frame for the right neighbour, in order. The payload is valid
	// until Send returns.
	Send(f Frame)

	// Done gives the result of an op, in order; headers are by rank, valid until
	// the next Start, and total is Ring.Total. It may call Start and Close, and
	// nothing else of the Group.
	Done(seq uint64, headers [][]byte, total uint64, out []float32)

	// End tells, once, that the group is dead, and why. Both neighbours are to be
	// told by a closing frame with the note, as far as they can be. Nothing is
	// said after it. It may call nothing of the Group.
	End(note ClosingNote)
}

// Group is one member's part in the group of one view as a machine: its ring,
// its two links, and how it ends. It knows no stream, goroutine or clock; a
// driver has those, and calls from one goroutine.
//
//	left ── Admit, Receive, LeftLost ──►┌───────┐── Send ──► right
//	     ◄── End ───────────────────────│ Group │◄── Taken, Reply, RightLost, RightRefused
//	              Start, Close ────────►└───────┘── Done, End ──► whoever trains
//
// After the first cause of an end a group is dead, and stays dead of that one.
type Group struct {
	cfg     GroupConfig
	outlet  Outlet
	ring    *Ring
	out     []float32 // of the op in progress
	inOp    bool
	leftUp  bool // the left neighbour's link is here
	rightUp bool // the right neighbour has taken ours
	ended   bool
	note    ClosingNote
}

// NewGroup makes a group whose links are not up yet. It panics as New does, and
// if a neighbour has no name.
func NewGroup(cfg GroupConfig, outlet Outlet) *Group {
	alone := cfg.Ring.World == 1
	if !alone && (cfg.Left == "" || cfg.Right == "") {
		panic("allreduce: a group without neighbours")
	}
	return &Group{cfg: cfg, outlet: outlet, ring: New(cfg.Ring), leftUp: alone, rightUp: alone}
}

// Ended returns how the group ended, if it has.
func (g *Group) Ended() (ClosingNote, bool) { return g.note, g.ended }

// Links tells which links are up.
func (g *Group) Links() (left, right bool) { return g.leftUp, g.rightUp }

// Computing tells that no op is in progress: the ring waits for this member.
func (g *Group) Computing() bool { return !g.inOp }

// Start begins the next op; see Op. It may come before the links are up. In a
// group that has ended it is dropped. It panics as Ring.Start does.
func (g *Group) Start(op Op) {
	if g.ended {
		return
	}
	g.out, g.inOp = op.Out, true
	g.settle(g.ring.Start(op, g.outlet.Send))
}

// Receive takes a frame from the left neighbour, in the order in which it sent them.
func (g *Group) Receive(f Frame) {
	switch {
	case g.ended:
	case f.Kind == Closing:
		g.closedBy(g.cfg.Left, f)
	default:
		g.settle(g.ring.Receive(f, g.outlet.Send))
	}
}

// Reply takes what the right neighbour sends back: only a closing frame may come.
func (g *Group) Reply(f Frame) {
	if g.ended {
		return
	}
	if f.Kind != Closing {
		g.Protocol(g.cfg.Right, fmt.Errorf("%v instead of a closing note", f))
		return
	}
	g.closedBy(g.cfg.Right, f)
}

// Admit takes the left neighbour's link into the group, or says why not. A link
// to a group that has ended is taken and gets the note.
func (g *Group) Admit(from string) error {
	switch {
	case g.ended:
		return nil
	case g.cfg.Ring.World == 1 || from != g.cfg.Left:
		return fmt.Errorf("%s is not left of %s in view %v", from, g.cfg.Self, g.cfg.Ring.Fence)
	case g.leftUp:
		return fmt.Errorf("%s has its stream of view %v already", from, g.cfg.Ring.Fence)
	}
	g.leftUp = true
	return nil
}

// Taken tells that the right neighbour has taken the link.
func (g *Group) Taken() { g.rightUp = true }

// LeftLost tells that the left neighbour's link broke without a note.
func (g *Group) LeftLost(reason string) { g.lost(g.cfg.Left, reason) }

// RightLost tells that the right neighbour is gone without a note, or was never reached.
func (g *Group) RightLost(reason string) { g.lost(g.cfg.Right, reason) }

// RightRefused tells that the right neighbour lives and has said no: it is in
// another view, and nobody is to blame.
func (g *Group) RightRefused(reason string) {
	g.end(ClosingNote{By: g.cfg.Self, Reason: fmt.Sprintf("refused by %s: %s", g.cfg.Right, reason)})
}

// Protocol tells that a neighbour sent what it must not.
func (g *Group) Protocol(id string, err error) { g.lost(id, "protocol: "+err.Error()) }

// Setup ends the group if a link is missing; limit is how long both had.
func (g *Group) Setup(limit time.Duration) {
	switch {
	case !g.rightUp:
		g.lost(g.cfg.Right, fmt.Sprintf("has not taken the stream within %s", limit))
	case !g.leftUp:
		g.lost(g.cfg.Left, fmt.Sprintf("has not opened its stream within %s", limit))
	}
}

// Close ends the group from here. Blame is "" where nobody is to blame.
func (g *Group) Close(ending Ending, blame, reason string) {
	g.end(ClosingNote{By: g.cfg.Self, Blame: blame, Reason: reason, Ending: ending})
}

// settle follows a move of the ring: it gives the result of a completed op, or
// ends the group.
func (g *Group) settle(err error) {
	if err != nil {
		g.Protocol(g.cfg.Left, err)
		return
	}
	headers, ok := g.ring.Done()
	if !ok || !g.inOp {
		return
	}
	out := g.out
	g.out, g.inOp = nil, false
	g.outlet.Done(g.ring.Seq(), headers, g.ring.Total(), out)
}

// closedBy ends the group as a neighbour's closing frame says.
func (g *Group) closedBy(id string, f Frame) {
	if f.Fence != g.cfg.Ring.Fence {
		g.Protocol(id, fmt.Errorf("%v instead of a closing note of view %v", f, g.cfg.Ring.Fence))
		return
	}
	note, err := ParseClosingNote(f.Payload)
	if err != nil {
		g.Protocol(id, err)
		return
	}
	g.end(note)
}

func (g *Group) lost(id, reason string) {
	g.end(ClosingNote{By: g.cfg.Self, Blame: id, Reason: strings.TrimSpace(reason)})
}

// end makes the group die of the first cause that it is told, and only of that.
func (g *Group) end(note ClosingNote) {
	if g.ended {
		return
	}
	g.ended, g.note = true, note
	g.out, g.inOp = nil, false
	g.outlet.End(note)
}
