package allreduce

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// GroupConfig describes one member's place in the group of a view.
type GroupConfig struct {
	Config Config
	Names  []string // of all nodes, by rank
}

// self is the name of this node.
func (c GroupConfig) self() string { return c.Names[c.Config.Rank] }

// Outlet takes what a Group has to say. It is called from inside the Group's
// methods.
type Outlet interface {
	// Send takes a frame for some peers; see Emit.
	Send(to []int, f Frame)

	// Done gives the result of an op, in order; headers are by rank, valid until
	// the next Start, and total is Reducer.Total. It may call Start and Close,
	// and nothing else of the Group.
	Done(seq uint64, headers [][]byte, total uint64, out []float32)

	// End tells, once, that the group is dead, and why. All peers are to be told
	// by a closing frame with the note, as far as they can be. Nothing is said
	// after it. It may call nothing of the Group.
	End(note ClosingNote)
}

// Group is one member's part in the group of one view as a machine: its
// reducer, its links to peers, and how it ends. It knows no stream, goroutine or
// clock; a driver has those, and calls from one goroutine at a time.
//
//	peer ── Admit, Receive, Lost ──►┌───────┐── Send ──► peers
//	        Taken, Refused ────────►│ Group │── End ──►
//	        Start, Ready, Head ────►└───────┘── Done, End ──► whoever trains
//	        Close
//
// A link is one for both directions. One of its ends opens it (see Opens), the
// other admits it. After the first cause of an end a group is dead, and stays
// dead of that one.
type Group struct {
	cfg    GroupConfig
	outlet Outlet
	sum    *Reducer
	peers  []int     // ranks that this one has links to
	up     []bool    // by rank: the link is there
	out    []float32 // of the op in progress
	inOp   bool
	ended  bool
	note   ClosingNote
}

// NewGroup makes a group whose links are not up yet. It panics as New does, and
// if a node has no name.
func NewGroup(cfg GroupConfig, outlet Outlet) *Group {
	c := cfg.Config
	sum := New(c)
	if len(cfg.Names) != c.World || slices.Contains(cfg.Names, "") {
		panic("allreduce: a group of nodes without names")
	}
	return &Group{cfg: cfg, outlet: outlet, sum: sum, peers: Peers(c.Rank, c.World, c.Zones), up: make([]bool, c.World)}
}

// Ended returns how the group ended, if it has.
func (g *Group) Ended() (ClosingNote, bool) { return g.note, g.ended }

// Peers lists the ranks that there are links to.
func (g *Group) Peers() []int { return g.peers }

// Up tells whether the link to a peer is there.
func (g *Group) Up(peer int) bool { return g.up[peer] }

// Computing tells that no op is in progress: the others wait for this member.
func (g *Group) Computing() bool { return !g.inOp }

// Awaited lists the peers for whom the op in progress waits: those that owe
// something of their own or, where there are none, those that owe what they
// have of others.
func (g *Group) Awaited() (peers []int) {
	if !g.inOp {
		return nil
	}
	worst := Others
	for _, p := range g.peers {
		switch d := g.sum.Owes(p); {
		case d > worst:
			worst, peers = d, append(peers[:0], p)
		case d == worst:
			peers = append(peers, p)
		}
	}
	return peers
}

// SetModel has this member tell what its links cost; see Model.
func (g *Group) SetModel(m Model) { g.sum.SetModel(m) }

// Algorithm returns how the op last started is done.
func (g *Group) Algorithm() Algorithm { return g.sum.Algorithm() }

// Start begins the next op; see Op. It may come before the links are up. In a
// group that has ended it is dropped. It panics as Reducer.Start does.
func (g *Group) Start(op Op) {
	if g.ended {
		return
	}
	g.out, g.inOp = op.Out, true
	from, err := g.sum.Start(op, g.outlet.Send)
	g.settle(from, err)
}

// Ready tells that elements of an open op are final; see Reducer.Ready. In a
// group that has ended it is dropped.
func (g *Group) Ready(lo, hi int) {
	if !g.ended {
		g.sum.Ready(lo, hi, g.outlet.Send)
		g.settle(0, nil)
	}
}

// Head gives the header of an open op. In a group that has ended it is dropped.
func (g *Group) Head(header []byte) {
	if !g.ended {
		g.sum.Head(header, g.outlet.Send)
		g.settle(0, nil)
	}
}

// Receive takes a frame from a peer, in the order in which that peer sent them.
func (g *Group) Receive(from int, f Frame) {
	switch {
	case g.ended:
	case f.Kind == Closing:
		g.closedBy(from, f)
	default:
		g.settle(from, g.sum.Receive(from, f, g.outlet.Send))
	}
}

// Admit takes a link that a peer has opened, and returns the peer's rank, or
// says why it is refused. A link to a group that has ended is taken and gets the
// note; its rank is -1.
func (g *Group) Admit(from string) (rank int, err error) {
	rank = slices.Index(g.cfg.Names, from)
	self := g.cfg.Config.Rank
	switch {
	case g.ended:
		return -1, nil
	case rank < 0 || !slices.Contains(g.peers, rank) || !Opens(rank, self, g.cfg.Config.World):
		return -1, fmt.Errorf("%s has no stream to open to %s in view %v", from, g.cfg.self(), g.cfg.Config.Fence)
	case g.up[rank]:
		return -1, fmt.Errorf("%s has its stream of view %v already", from, g.cfg.Config.Fence)
	}
	g.isUp(rank)
	return rank, nil
}

// Taken tells that a peer has taken the link that was opened to it.
func (g *Group) Taken(peer int) { g.isUp(peer) }

func (g *Group) isUp(peer int) {
	g.up[peer] = true
	if !slices.ContainsFunc(g.peers, func(p int) bool { return !g.up[p] }) {
		g.sum.Linked()
	}
}

// Unreached tells that there is no way to a peer at present. A neighbour in the
// ring is lost then; true means that it is another one, to whom a way may be
// found later.
func (g *Group) Unreached(peer int, reason string) (again bool) {
	if Neighbours(g.cfg.Config.Rank, peer, g.cfg.Config.World) {
		g.Lost(peer, reason)
	}
	return !g.ended
}

// Lost tells that a peer is gone without a note.
func (g *Group) Lost(peer int, reason string) {
	g.end(ClosingNote{By: g.cfg.self(), Blame: g.cfg.Names[peer], Reason: strings.TrimSpace(reason)})
}

// Refused tells that a peer lives and has said no: it is in another view, and
// nobody is to blame.
func (g *Group) Refused(peer int, reason string) {
	g.end(ClosingNote{By: g.cfg.self(), Reason: fmt.Sprintf("refused by %s: %s", g.cfg.Names[peer], reason)})
}

// Protocol tells that a peer sent what it must not.
func (g *Group) Protocol(peer int, err error) { g.Lost(peer, "protocol: "+err.Error()) }

// Setup ends the group if a link to a neighbour in the ring is missing; limit is
// how long they all had. Who has not taken a link is blamed before who has not
// opened one.
func (g *Group) Setup(limit time.Duration) {
	self, world := g.cfg.Config.Rank, g.cfg.Config.World
	for _, opens := range [...]bool{true, false} {
		for _, p := range g.peers {
			switch {
			case g.up[p] || Opens(self, p, world) != opens || !Neighbours(self, p, world):
			case opens:
				g.Lost(p, fmt.Sprintf("has not taken the stream within %s", limit))
			default:
				g.Lost(p, fmt.Sprintf("has not opened its stream within %s", limit))
			}
		}
	}
}

// Close ends the group from here. Blame is "" where nobody is to blame.
func (g *Group) Close(ending Ending, blame, reason string) {
	g.end(ClosingNote{By: g.cfg.self(), Blame: blame, Reason: reason, Ending: ending})
}

// settle follows a move of the reducer: it gives the result of a completed op, or
// ends the group.
func (g *Group) settle(from int, err error) {
	if err != nil {
		g.Protocol(from, err)
		return
	}
	headers, ok := g.sum.Done()
	if !ok || !g.inOp {
		return
	}
	out := g.out
	g.out, g.inOp = nil, false
	g.outlet.Done(g.sum.Seq(), headers, g.sum.Total(), out)
}

// closedBy ends the group as a peer's closing frame says.
func (g *Group) closedBy(peer int, f Frame) {
	if f.Fence != g.cfg.Config.Fence {
		g.Protocol(peer, fmt.Errorf("%v instead of a closing note of view %v", f, g.cfg.Config.Fence))
		return
	}
	note, err := ParseClosingNote(f.Payload)
	if err != nil {
		g.Protocol(peer, err)
		return
	}
	g.end(note)
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
