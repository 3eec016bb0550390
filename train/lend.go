package train

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/pages"
)

// lender is what a member keeps for nodes that want to join while it trains: a
// copy of its state, and the records of the transitions since. Those who borrow
// ask for piece after piece, each as fast as it likes; the lender waits for none of
// them. What it keeps is bounded, and is let go when nobody asks for it. A newcomer
// asks one member for the state and several for each record, so all of these keep
// records, and one of them a state.
//
// Only a state is lent that all members have compared, as only such a one is
// written: a newcomer that has a bit of its own could outlive those who would have
// told it so. The copy is made while the workers compute.
//
//	           │◄──────────────── limit ────────────────►│
//	copy of S(m)   record m   record m+1  …   record t-1     the state, at t
//	└─ until all have it       └─ until all have it
type lender struct {
	wanted  bool   // a copy of a state is to be made
	draft   *State // the copy, until all have compared what it is a copy of
	state   *item  // the copy; nil once all have it
	at      uint64
	records []loan // of transitions in a row, up to the one before the state's
	first   uint64 // transition of the first record
	bytes   int    // of all records
	limit   int
	spare   []float32 // memory of a record that nobody needs any more
	asked   map[string]borrower
}

// loan is a record, and the memory of its gradient.
type loan struct {
	*item
	mean []float32
}

// borrower is a node that copies.
type borrower struct {
	at    uint64 // it has all before this transition
	state bool   // it still copies the state
	since time.Time
}

// Lending bounds what a node keeps for those who join, and the pieces they get.
type Lending struct {
	Records int // bytes of records kept at a time; 0 is three times the state, at least 64 MiB
	Piece   int // elements asked for and handed out at a time; 0 is 256 Ki, less than a millisecond's work
}

// forgetAfter is how long a node that copies may be silent.
const forgetAfter = 10 * time.Second

var (
	// errNotYet says that what is asked for has not happened yet.
	errNotYet = errors.New("that transition is still to come")
	errLapsed = errors.New("what is asked for is not kept any more")
)

func (l *Lending) withDefaults(s *State) {
	if l.Records == 0 {
		l.Records = max(64<<20, 3*4*elements(s.vectors()))
	}
	if l.Piece == 0 {
		l.Piece = 256 << 10
	}
}

// Lend bounds what the node keeps for those who join.
func (n *Node) Lend(l Lending) {
	l.withDefaults(n.state)
	n.lending = l
}

// Borrow hands out a piece to a node that copies, with the newest transition here.
// An empty one says that it is not kept any more: the piece tells which records are.
func (n *Node) Borrow(now time.Time, r rpc.FollowRequest) (rpc.Piece, error) {
	p := rpc.Piece{Newest: n.state.Transition, Transition: r.Transition}
	switch {
	case r.Trajectory != n.task.Trajectory:
		return p, fmt.Errorf("trajectory %x is not walked here, but %x", r.Trajectory[:4], n.task.Trajectory[:4])
	case n.over || n.parting != nil:
		return p, errGone
	case n.views.Fact().Entry == 0:
		return p, errors.New("it trains with nobody yet")
	case r.Hi-r.Lo > uint64(n.lending.Piece):
		return p, fmt.Errorf("a piece of %d elements is asked for, and at most %d are lent", r.Hi-r.Lo, n.lending.Piece)
	case n.lender == nil:
		n.lender = &lender{limit: n.lending.Records, first: n.state.Transition, asked: map[string]borrower{}}
	}
	l := n.lender
	l.forget(now)
	l.reach(n.state.Transition)
	if r.Begin {
		if l.wanted = l.wanted || !l.offers(); l.wanted {
			n.tryLend()
		}
		if l.wanted {
			l.asked[r.From] = borrower{at: n.state.Transition, state: true, since: now}
			return p, errNotYet
		}
		r.At, r.State, p.Transition = l.at, true, l.at
	}
	l.asked[r.From] = borrower{at: r.At, state: r.State, since: now}
	l.trim()
	p.First = l.first
	p.Lo, p.Hi = n.share()
	it, err := l.find(r.State, p.Transition)
	switch {
	case it != nil:
		return p, it.read(&p, r)
	case r.Transition == n.state.Transition && n.early.read(&p, r):
		return p, nil
	}
	return p, err
}

// find returns what is asked for: an error if it is still to come, or a state that
// is gone; nothing if it is a record that is.
func (l *lender) find(state bool, transition uint64) (*item, error) {
	switch {
	case state && (l.state == nil || l.at != transition):
		return nil, errLapsed
	case state:
		return l.state, nil
	case transition < l.first:
		return nil, nil
	case transition-l.first >= uint64(len(l.records)):
		return nil, errNotYet
	}
	return l.records[transition-l.first].item, nil
}

// read puts what is asked for into a piece.
func (it *item) read(p *rpc.Piece, r rpc.FollowRequest) error {
	p.Elements = uint64(elements(it.body))
	if r.Lo == r.Hi {
		p.Bytes = it.head
		return nil
	}
	if p.Elements == 0 {
		return nil
	}
	v, ok := window(it.body, r.Lo, r.Hi)
	if !ok {
		return fmt.Errorf("elements [%d, %d) are asked for, which do not lie in one vector", r.Lo, r.Hi)
	}
	p.Bytes, p.Packed = appendElements(nil, v, r.Packed)
	return nil
}

// offers tells that there is a state to begin with, and not too much since. Records from before it, which others
// still lack, are not in the way: they are the first to go.
func (l *lender) offers() bool {
	since := 0
	for i, r := range l.records {
		if l.first+uint64(i) >= l.at {
			since += r.bytes()
		}
	}
	return l.state != nil && since <= l.limit/2
}

// tryLend lends the state that stands here if all have compared it.
func (n *Node) tryLend() {
	n.draft()
	l := n.lender
	if l == nil || !l.wanted || n.sound != n.state.Transition || n.agreedOn == (witness{}) {
		return
	}
	s := l.draft
	l.state, l.at = newItem(itemHead{State: &stateHead{s.meta, n.agreedOn.watch, n.agreedOn.audit}}, s.vectors()), s.Transition
	l.wanted, l.draft = false, nil
}

// draft copies the state that is to be lent, once it is sure that it is the one
// that all are about to compare, or have.
func (n *Node) draft() {
	l := n.lender
	if l == nil || !l.wanted || l.draft != nil && l.draft.Transition == n.state.Transition {
		return
	}
	if g := n.gen; n.agreed == n.state.Transition && n.agreedOn != (witness{}) || g != nil && g.attempt != nil && g.audits() {
		if l.draft == nil {
			l.draft = n.task.blank()
		}
		n.aroundCopy(func() { l.draft.copyFrom(n.state, n.each) })
	}
}

// keep takes the record of a transition that is about to be committed.
func (l *lender) keep(t uint64, r loan) {
	l.reach(t)
	l.records = append(l.records, r)
	l.bytes += r.bytes()
	l.bound()
}

// reach has the records end where the state is. One that has leapt, since a copy was
// taken over or records of others led on, has no records of the way: who believed so
// would take what is missing for a transition without a gradient.
func (l *lender) reach(t uint64) {
	if t != l.first+uint64(len(l.records)) {
		l.drop(len(l.records))
		l.state, l.first = nil, t
	}
}

// vector is memory for a gradient: that of a record which nobody needs any more, if
// there is one.
func (l *lender) vector(n int) []float32 {
	if v := l.spare; v != nil {
		l.spare = nil
		return v
	}
	return pages.Float32s(n)
}

// bound lets the oldest records go when there are too many. Whoever needs them
// begins again, or is waited for in the end; training goes on.
func (l *lender) bound() {
	n, bytes := 0, l.bytes
	for bytes > l.limit && n < len(l.records) {
		bytes -= l.records[n].bytes()
		n++
	}
	l.drop(n)
}

// drop lets the first n records go, and the state before them.
func (l *lender) drop(n int) {
	for _, r := range l.records[:n] {
		l.bytes -= r.bytes()
		if r.mean != nil {
			l.spare = r.mean
		}
	}
	l.records = slices.Delete(l.records, 0, n)
	l.first += uint64(n)
	if l.at < l.first {
		l.state = nil
	}
}

// trim lets go what all who copy have.
func (l *lender) trim() {
	least, state := l.first+uint64(len(l.records)), false
	for _, b := range l.asked {
		least, state = min(least, b.at), state || b.state
	}
	if !state {
		l.state = nil
	}
	if least > l.first {
		l.drop(int(least - l.first))
	}
}

// forget drops those who have not asked for long. It reports whether anybody is left.
func (l *lender) forget(now time.Time) bool {
	for who, b := range l.asked {
		if now.Sub(b.since) > forgetAfter {
			delete(l.asked, who)
		}
	}
	return len(l.asked) > 0
}

// lend keeps the record of the attempt that is about to be committed, if somebody
// copies. Those who have become members copy no more.
func (n *Node) lend(a *Attempt, v *view.View, vd *verdict, headers [][]byte, total uint64) {
	if n.lender == nil {
		return
	}
	for _, m := range v.Members {
		delete(n.lender.asked, m.Node().String())
	}
	if len(n.lender.asked) == 0 {
		n.lender = nil
		return
	}
	l := n.lender
	l.trim()
	var to []float32
	if a.Kind == Update && !vd.skip {
		to = l.vector(len(n.mean))
	}
	l.keep(a.Transition, loan{newRecord(a, attemptID(v.Name(), a), vd, headers, total, n.mean, to, n.each), to})
}
