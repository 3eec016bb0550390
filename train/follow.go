package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/pages"
)

// follower is the way of a newcomer into a group that trains. It copies the state
// of a member, and then the records of the transitions since, piece by piece, while
// the members go on; when it has all that there is, it asks to be taken in. What
// it lacks at the boundary, the record of a step or two, it gets while the others
// begin the next one.
//
//	Fact.Following ─► state, piece by piece ─► records ─► caught up: the fact no longer says Following
//	                        ▲                      │           │
//	                        └── another donor ◄────┴ lapsed    └─► a view: the last records, instead of a copy
//
// Whatever goes wrong, it begins again with another donor; after maxTries it asks
// to be taken in as it is, and copies in the view, while all wait.
type follower struct {
	donor   view.Fact
	request rpc.FollowRequest // what is asked for, or will be next
	number  uint64            // of the last request: answers to others are nobody's
	asking  bool
	newest  uint64 // transition of the donor, as it last answered
	told    bool   // that this node has caught up

	in       intake
	rest     []byte // bytes that have come and are not taken yet
	ahead    []byte // those of the next piece
	hasState bool   // the state has been copied
	at       uint64 // transition of what is in the making
	state    *State // in the making; nil once it is whole
	head     *stateHead
	record   *recordHead // in the making
	mean     []float32   // its gradient
	whole    bool        // what is in the making is complete

	begun   time.Time
	copied  time.Time // when the state was whole; zero before
	behind  uint64    // transitions of the donor since, then
	records int
	bytes   int64
}

type (
	// Follow asks a donor for a piece of its state or of its records; it is answered
	// by Followed, unless CancelFollow comes before. There is one at a time.
	Follow struct {
		Donor   view.Fact
		Number  uint64
		Request rpc.FollowRequest
	}
	// CancelFollow ends the Follow that is under way, if any.
	CancelFollow struct{}
)

// A newcomer begins to copy in the background maxTries times. Once it has the
// state, it may take catchUpFloor and catchUpShare times as long as for that until
// it has the records, too, and the floor alone if it lags no less after
// catchUpRecords: then it never will.
const (
	maxTries       = 3
	catchUpFloor   = 3 * time.Second
	catchUpShare   = 2
	catchUpRecords = 4
)

// wantsToFollow tells that this node is outside and nobody is to wait for it.
func (n *Node) wantsToFollow() bool {
	return n.gen == nil && n.views.Fact().Following && !n.views.Bound() && !n.leaving && n.parting == nil && !n.over
}

// mayMove tells that the state is bound by no word given to others, or is on its
// way to the transition that its view starts from.
func (n *Node) mayMove() bool {
	if g := n.gen; g != nil {
		return g.catching && !g.closing
	}
	return !n.views.Bound() && !n.leaving && n.parting == nil
}

// Pursue does the next thing that can be done for coming in, and reports whether
// there may be more. What it asks of the donor is under way while it is called again:
// a piece comes while the one before is used.
func (n *Node) Pursue(now time.Time) (more bool) {
	if n.follower == nil && n.wantsToFollow() {
		n.follow(now)
	}
	f := n.follower
	switch {
	case f == nil || n.over:
		return false
	case f.lags(now):
		n.stopFollowing(now, "the members are faster than their records come here")
	case !f.asking && f.ahead == nil:
		f.ask(n)
	case f.whole && !n.mayMove():
		return false
	case f.whole || len(f.rest) > 0:
		if err := n.take(now); err != nil {
			n.unfollow(now, err)
		}
	case f.ahead != nil:
		f.rest, f.ahead = f.ahead, nil
	default:
		return n.caughtUp(now)
	}
	n.drain(now)
	return true
}

// take uses what has come, up to the end of an item, or goes where that leads.
func (n *Node) take(now time.Time) (err error) {
	f := n.follower
	if f.whole {
		return n.moveOn(now)
	}
	f.rest, f.whole, err = f.in.take(f.rest, func(head []byte) ([][]float32, error) { return n.opens(f, head) })
	return err
}

// follow begins with the next of the members of the newest view.
func (n *Node) follow(now time.Time) {
	var donors []view.Fact
	for _, p := range n.views.Peers() {
		if p.Trajectory != n.task.Trajectory || p.Entry == 0 || p.Leaving || p.Finished {
			continue
		}
		if len(donors) > 0 && p.Generation != donors[0].Generation {
			if p.Generation < donors[0].Generation {
				continue
			}
			donors = donors[:0]
		}
		donors = append(donors, p)
	}
	if len(donors) == 0 {
		return
	}
	self := n.views.Self()
	n.follower = &follower{
		donor: donors[(self.Incarnation+uint64(n.tries))%uint64(len(donors))], begun: now, number: n.asked,
		request: rpc.FollowRequest{Trajectory: n.task.Trajectory, From: self.String(), Begin: true, State: true},
	}
}

// lags tells that it is no use to wait until this node has caught up.
func (f *follower) lags(now time.Time) bool {
	if f.told || f.copied.IsZero() || now.Sub(f.copied) < catchUpFloor {
		return false
	}
	return now.Sub(f.copied) > catchUpFloor+catchUpShare*f.copied.Sub(f.begun) ||
		f.records >= catchUpRecords && f.newest >= f.at+f.behind
}

func (f *follower) ask(n *Node) {
	n.asked++
	f.asking, f.number = true, n.asked
	n.emit(Follow{f.donor, f.number, f.request})
}

// Followed takes the piece that a Follow was answered with, or why there is none.
// An empty one says that the donor had nothing new for a while.
func (n *Node) Followed(now time.Time, number uint64, p rpc.Piece, err error) {
	f := n.follower
	if f == nil || f.number != number || !f.asking || n.over {
		return
	}
	f.asking = false
	if err == nil && len(p.Bytes) == 0 && n.gen != nil {
		err = errors.New("it has not what the view starts from")
	}
	switch {
	case err != nil:
		n.unfollow(now, err)
	case len(p.Bytes) == 0: // it takes the donor long to have something
		f.newest = p.Newest
	case f.request.Begin && p.Transition <= n.state.Transition: // they may have to copy from this node
		n.stopFollowing(now, "")
	default:
		if f.request.Begin {
			f.at = p.Transition
		}
		f.request.Begin, f.request.State, f.request.Transition, f.request.Offset = false, p.Next.State, p.Next.Transition, p.Next.Offset
		f.newest, f.ahead = p.Newest, p.Bytes
		f.bytes += int64(len(p.Bytes))
	}
	n.drain(now)
}

// opens reads the head of an item and says where its vectors go.
func (n *Node) opens(f *follower, head []byte) ([][]float32, error) {
	var h itemHead
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("the head of an item: %w", err)
	}
	switch {
	case !f.hasState && h.State != nil:
		if h.State.Meta.Transition != f.at {
			return nil, fmt.Errorf("a state of transition %d, want %d", h.State.Meta.Transition, f.at)
		}
		f.head, f.state = h.State, n.task.openState(h.State)
		return f.state.vectors(), nil
	case f.hasState && h.Record != nil && (h.Record.Elements == 0 || h.Record.Elements == len(n.state.params)):
		f.record = h.Record
		if f.mean == nil {
			f.mean = pages.Float32s(len(n.state.params))
		}
		return [][]float32{f.mean[:h.Record.Elements]}, nil
	}
	return nil, errors.New("an item that was not asked for, or of another model")
}

// moveOn takes the state that has been copied, or goes over the transition of the
// record that has come.
func (n *Node) moveOn(now time.Time) error {
	f := n.follower
	if !f.hasState && f.state.Next == Done || f.hasState && f.record.Attempt.Kind == Finish {
		n.stopFollowing(now, "the run comes to its end")
		return nil
	}
	if !f.hasState {
		if err := f.head.check(n.task, f.state, n.each); err != nil {
			return err
		}
		n.state, n.wantSave, n.agreed = f.state, "", nobodyAgrees
		f.copied, f.behind = now, f.newest-min(f.newest, n.state.Transition)
		n.tell(now, "copied", f.donor.ID, fmt.Sprintf("copied the state of step %d from %s in the background (%d bytes)", n.state.Step, f.donor.ID, f.bytes), now.Sub(f.begun))
	} else {
		err := n.task.replay(n.state, f.record, f.mean, n.each)
		if errors.Is(err, errOdd) {
			n.exit(Exit{Err: n.ownFault(fmt.Sprintf("%s %v: its memory is at fault", n.views.Self().ID, err))})
			return nil
		}
		if err != nil {
			return err
		}
		f.records++
	}
	n.blob, f.head, f.state, f.record, f.whole = nil, nil, nil, nil, false
	f.in.reset()
	f.hasState, f.at = true, n.state.Transition
	if g := n.gen; g != nil {
		n.arrive(now)
		return nil
	}
	n.views.Moved(n.state.Transition, n.mark())
	return nil
}

// caughtUp asks to be taken in, once, when all that the donor had is here.
func (n *Node) caughtUp(now time.Time) bool {
	f := n.follower
	if f.told || !f.hasState || n.gen != nil || n.state.Transition < f.newest {
		return false
	}
	f.told, n.tries = true, 0
	n.tell(now, "caught up", f.donor.ID, fmt.Sprintf("caught up with %s at step %d: %d records", f.donor.ID, n.state.Step, f.records), now.Sub(f.begun))
	n.views.Caught(now)
	n.drain(now)
	return true
}

// catchUp goes to the transition that the view starts from by records, if the
// donor is one that stands there. It reports whether it can.
func (n *Node) catchUp() bool {
	f, g := n.follower, n.gen
	if f == nil || !f.hasState || n.state.Transition > g.start.Transition {
		return false
	}
	isDonor := func(d int) bool { return g.view.Members[d].Node() == f.donor.Node() }
	if !slices.ContainsFunc(g.start.Donors, isDonor) {
		return false
	}
	g.catching = true
	return true
}

// arrive begins to train if the state is the one that the view starts from.
func (n *Node) arrive(now time.Time) {
	g := n.gen
	if n.state.Transition < g.start.Transition {
		return
	}
	f := n.follower
	g.catching = false
	n.letGo()
	if n.mark() != g.start.Digest {
		n.tell(now, "copy", f.donor.ID, "the records do not lead to the state that the view starts from", 0)
		n.fetch()
		return
	}
	n.begin(now, n.task.attempt(n.state))
}

// unfollow ends this try.
func (n *Node) unfollow(now time.Time, err error) {
	f := n.follower
	n.letGo()
	n.tell(now, "copy", f.donor.ID, fmt.Sprintf("copying from %s in the background failed: %v", f.donor.ID, err), 0)
	n.tries++
	switch g := n.gen; {
	case g != nil && g.catching:
		g.catching = false
		n.fetch()
	case n.tries >= maxTries:
		n.stopFollowing(now, "")
	}
}

// stopFollowing has the others take this node in as it is.
func (n *Node) stopFollowing(now time.Time, why string) {
	n.letGo()
	if why != "" {
		n.tell(now, "copy", "", "no more copying in the background: "+why, 0)
	}
	n.views.Caught(now)
}

// letGo forgets the follower.
func (n *Node) letGo() {
	if f := n.follower; f != nil {
		n.follower = nil
		if f.asking {
			n.emit(CancelFollow{})
		}
	}
}

// mark names the state in acknowledgements and starts.
func (n *Node) mark() [32]byte {
	if n.agreed == n.state.Transition && n.agreedOn != (witness{}) {
		return n.state.mark(n.agreedOn)
	}
	return n.state.mark(n.state.witness(n.each))
}
