package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/pages"
)

// follower is the way of a newcomer into a group that trains. It copies the state
// of a member, and then the records of the transitions since, while the members go
// on; when it has all that there is, it asks to be taken in. What it lacks at the
// boundary, the record of a step, it gets while the others begin the next one.
//
//	Fact.Following ─► state ─► records ─► caught up: the fact no longer says Following
//	                    ▲         │           │
//	                    └─────────┴ failed    └─► a view: the last record, instead of a copy
//
// A state comes from one donor, a record from several at a time, piece by piece:
// each of them gives what it has room for on its way out, beside the all-reduce.
// They are asked for the next record before there is one, each for the elements that it
// has first, and answer when those are there: maybe before the members have committed.
//
// A donor may fall silent without an end of its connections. If others answer
// meanwhile, it is asked no more: what it was asked for is had from them, and if that
// was the state, the copy begins anew with the one that answered last.
//
// Whatever cannot be had from anybody any more, it begins again with another donor;
// after maxTries it asks to be taken in as it is, and copies in the view, while all
// wait.
type follower struct {
	donors []donor
	lender int // the donor that lends its state, too
	silent int // doublings of the silence that is borne
	asks   map[uint64]asking
	newest uint64 // transition that a donor was last heard to stand at
	told   bool   // that this node has caught up

	coming   []*coming // items in the making: the state, or records in a row
	hasState bool      // the state has been copied
	spare    [][]float32

	begun   time.Time
	copied  time.Time // when the state was whole; zero before
	behind  uint64    // transitions of the donors since, then
	records int
	bytes   int64
}

// donor is a member that lends.
type donor struct {
	view.Fact
	first   uint64    // it has no record of a transition before
	own     span      // elements of gradients that it has before others do
	asks    int       // under way
	strikes int       // in a row
	heard   time.Time // when it answered last
}

// gone tells that a donor is asked no more.
func (d *donor) gone() bool { return d.strikes >= maxStrikes }

// asking is a request under way.
type asking struct {
	donor int
	what  *coming // nil: only to be told of by, and to hear from, the donor
	span  span    // of its elements; none for the head
}

// span is elements [lo, hi).
type span struct{ lo, hi int }

// coming is a state or a record in the making.
type coming struct {
	transition uint64
	isState    bool
	asked      bool // for the head
	head       *itemHead
	state      *State    // of which body is the vectors, or:
	mean       []float32 // memory for a record's gradient
	body       [][]float32
	open       []span // elements that nobody is asked for
	left       int    // elements that are not here
	early      []part // those that came while their attempt was under way
}

// part is elements of the gradient of an attempt.
type part struct {
	span
	attempt uint64
}

func expected(transition uint64, mean []float32) *coming {
	c := &coming{transition: transition, mean: mean}
	c.want([][]float32{mean})
	return c
}

// want has the elements of vectors asked for.
func (c *coming) want(body [][]float32) {
	c.body, c.open, c.left, c.early = body, nil, elements(body), nil
	end := 0
	for _, v := range body {
		if len(v) > 0 {
			c.open = append(c.open, span{end, end + len(v)})
		}
		end += len(v)
	}
}

// empty tells that there is no gradient.
func (c *coming) empty() { c.want(nil) }

func (c *coming) whole() bool { return c.head != nil && c.left == 0 }

type (
	// Follow asks a donor for a piece of its state or of its records; it is answered
	// by Followed, unless CancelFollow comes before. Several are under way at a time.
	Follow struct {
		Donor   view.Fact
		Number  uint64
		Request rpc.FollowRequest
		Silence time.Duration // the longest
	}
	// CancelFollow ends a Follow that is under way.
	CancelFollow struct{ Number uint64 }
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

const (
	// maxDonors is how many members are asked. docs/scaling.md has why.
	maxDonors = 8
	// asksPerDonor is how many pieces each is asked for at a time: one is under way
	// while the other is asked for.
	asksPerDonor = 2
	// maxComing is how many records are in the making: one, and the one after it.
	maxComing = 2
	// maxStrikes is how often in a row a donor may fail.
	maxStrikes = 3
	// shortestSilence is how long nothing may come from a donor at first, which answers
	// within holdFor; each silence doubles it up to longestSilence, as for a chunk on a
	// thin link.
	shortestSilence = holdFor + 2*time.Second
	longestSilence  = 10 * time.Second
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
// there may be more. What it asks of donors is under way while it is called again:
// pieces come while those before are used.
func (n *Node) Pursue(now time.Time) (more bool) {
	if n.follower == nil && n.wantsToFollow() {
		n.follow(now)
	}
	f := n.follower
	switch {
	case f == nil || n.over:
		return false
	case n.gen == nil && f.lags(now, n.state.Transition):
		n.stopFollowing(now, "the members are faster than their records come here")
	case n.ask():
	case f.forsaken():
		n.unfollow(now, errors.New("nobody lends any more what is lacking here"))
	case len(f.coming) > 0 && f.coming[0].whole() && n.mayMove():
		if err := n.moveOn(now); err != nil {
			n.tell(now, "unfit", "", fmt.Sprintf("what was copied from %s in the background does not fit: %v", n.follower.names(), err), 0)
			n.unfollow(now, err)
		}
	default:
		return n.caughtUp(now)
	}
	n.drain(now)
	return true
}

// follow begins with a member of the newest view: with another one each time.
func (n *Node) follow(now time.Time) {
	facts := n.lenders()
	if len(facts) == 0 {
		return
	}
	first := facts[(n.views.Self().Incarnation+uint64(n.tries))%uint64(len(facts))]
	n.follower = &follower{donors: []donor{{Fact: first}}, asks: map[uint64]asking{}, begun: now, coming: []*coming{{isState: true, left: 1}}}
	n.enlist()
}

// lenders lists the members of the newest view.
func (n *Node) lenders() (facts []view.Fact) {
	for _, p := range n.views.Peers() {
		if p.Trajectory != n.task.Trajectory || p.Entry == 0 || p.Leaving || p.Finished {
			continue
		}
		if len(facts) > 0 && p.Generation != facts[0].Generation {
			if p.Generation < facts[0].Generation {
				continue
			}
			facts = facts[:0]
		}
		facts = append(facts, p)
	}
	return facts
}

// enlist asks more members, as gossip tells of them. Who has come back as another
// life is asked no more as the one before, whose end nobody may have told of.
func (n *Node) enlist() {
	f := n.follower
	for _, p := range n.lenders() {
		for i, d := range f.donors {
			if d.ID == p.ID && d.Incarnation != p.Incarnation && d.Entry < p.Entry {
				n.dismiss(i)
			}
		}
		known := func(d donor) bool { return d.Node() == p.Node() }
		if len(f.donors) < maxDonors && !slices.ContainsFunc(f.donors, known) {
			f.donors = append(f.donors, donor{Fact: p})
		}
	}
}

// lags tells that it is no use to wait until this node has caught up.
func (f *follower) lags(now time.Time, at uint64) bool {
	if f.told || f.copied.IsZero() || now.Sub(f.copied) < catchUpFloor {
		return false
	}
	return now.Sub(f.copied) > catchUpFloor+catchUpShare*f.copied.Sub(f.begun) ||
		f.records >= catchUpRecords && f.newest >= at+f.behind
}

// --- asking ---

// ask asks the donors for as much as they may be asked for at a time, in turns. It
// reports whether there was something to ask.
func (n *Node) ask() (asked bool) {
	f := n.follower
	for range asksPerDonor {
		for i := range f.donors {
			if d := &f.donors[i]; d.gone() || d.asks >= asksPerDonor {
				continue
			}
			if a, ok := n.want(i); ok {
				n.send(a)
				asked = true
			}
		}
	}
	return asked
}

// want returns what a donor is to be asked for next.
func (n *Node) want(i int) (asking, bool) {
	f := n.follower
	d := &f.donors[i]
	for k := 0; ; k++ {
		if k == len(f.coming) && !n.expectMore() {
			break
		}
		if c := f.coming[k]; c.isState && i != f.lender || !c.isState && c.transition < d.first {
			continue
		} else if s, ok := c.take(n.lending.Piece, d.own, c.isState || f.newest > c.transition); ok {
			return asking{i, c, s}, true
		}
	}
	// Who is asked for nothing yet is to keep records already.
	return asking{donor: i}, d.asks == 0 && n.gen == nil
}

// expectMore has the next record in the making, if there is one to expect.
func (n *Node) expectMore() bool {
	f, next := n.follower, n.state.Transition
	if k := len(f.coming); k > 0 {
		next = f.coming[k-1].transition + 1
	}
	if !f.hasState || len(f.coming) >= maxComing || len(f.coming) > 0 && next > f.newest || n.gen != nil && next >= n.gen.start.Transition {
		return false
	}
	var mean []float32
	if k := len(f.spare); k > 0 {
		mean, f.spare = f.spare[k-1], f.spare[:k-1]
	} else {
		mean = pages.Float32s(len(n.state.params))
	}
	f.coming = append(f.coming, expected(next, mean))
	return true
}

// take returns what to ask a donor for next of an item: its head, then some of the
// elements that the donor has first; others only if all of the item is known to be there.
func (c *coming) take(most int, own span, all bool) (s span, ok bool) {
	if !c.asked {
		c.asked = true
		return s, true
	}
	for i, o := range c.open {
		if s = (span{max(o.lo, own.lo), min(o.hi, own.hi, max(o.lo, own.lo)+most)}); s.lo < s.hi {
			c.cut(i, s)
			return s, true
		}
	}
	if !all || len(c.open) == 0 {
		return span{}, false
	}
	s = span{c.open[0].lo, min(c.open[0].hi, c.open[0].lo+most)}
	c.cut(0, s)
	return s, true
}

// cut takes s out of the i-th open span.
func (c *coming) cut(i int, s span) {
	o := c.open[i]
	c.open = slices.Delete(c.open, i, i+1)
	if o.lo < s.lo {
		c.open = append(c.open, span{o.lo, s.lo})
	}
	if s.hi < o.hi {
		c.open = append(c.open, span{s.hi, o.hi})
	}
}

// back takes back what was asked for in vain.
func (c *coming) back(s span) {
	switch {
	case c == nil:
	case s == span{}:
		c.asked = false
	case c.left > 0: // else it has become known that there are none
		c.open = append(c.open, s)
	}
}

// settle takes the head of a record, and has elements that came of another attempt than
// the one that was committed asked for again.
func (c *coming) settle(h *recordHead) {
	for _, p := range c.early {
		if p.attempt != h.ID {
			c.left += p.hi - p.lo
			c.open = append(c.open, p.span)
		}
	}
	c.early = nil
}

func (n *Node) send(a asking) {
	f := n.follower
	r := rpc.FollowRequest{
		Trajectory: n.task.Trajectory, From: n.views.Self().String(), At: n.state.Transition,
		Transition: ^uint64(0), Lo: uint64(a.span.lo), Hi: uint64(a.span.hi),
	}
	if c := a.what; c != nil {
		r.Transition, r.State = c.transition, c.isState
		if r.Begin = c.isState && a.span == (span{}); r.State {
			r.At = c.transition
		}
	}
	n.asked++
	f.asks[n.asked] = a
	f.donors[a.donor].asks++
	n.emit(Follow{f.donors[a.donor].Fact, n.asked, r, min(shortestSilence<<f.silent, longestSilence)})
}

// forsaken tells that nobody is left who could give what is needed next.
func (f *follower) forsaken() bool {
	if len(f.coming) == 0 {
		return !slices.ContainsFunc(f.donors, func(d donor) bool { return !d.gone() })
	}
	c := f.coming[0]
	for i := range f.donors {
		if d := &f.donors[i]; !d.gone() && (i == f.lender || !c.isState) && (c.isState || d.first <= c.transition) {
			return false
		}
	}
	return !c.whole()
}

// --- taking ---

// Followed takes the piece that a Follow was answered with, or why there is none.
// An empty one says that the donor had nothing new for a while, or has it no more.
func (n *Node) Followed(now time.Time, number uint64, p rpc.Piece, err error) {
	f := n.follower
	if f == nil || n.over {
		return
	}
	a, ok := f.asks[number]
	if !ok {
		return
	}
	delete(f.asks, number)
	d := &f.donors[a.donor]
	d.asks--
	if err == nil {
		d.heard = now
		f.newest, d.first, d.own = max(f.newest, p.Newest), max(d.first, p.First), span{int(p.Lo), int(p.Hi)}
		f.bytes += int64(len(p.Bytes))
		err = n.use(now, a, p)
	}
	if n.follower != f {
		return
	}
	if err == nil {
		d.strikes = 0
		return
	}
	a.what.back(a.span)
	if rpc.KindOf(err) == rpc.Timeout {
		f.silent = min(f.silent+1, 2)
		if n.passOver(now, a.donor) {
			return
		}
	}
	if d.strikes++; d.gone() {
		n.tell(now, "copy", d.ID, fmt.Sprintf("%s is not copied from any more: %v", d.ID, err), 0)
		n.dismiss(a.donor)
	}
}

// passOver dismisses a donor that was silent while others answered, and reports whether
// there are any: else it may be this node that is cut off, or was frozen. If the donor
// lent its state, the one that answered last does now.
func (n *Node) passOver(now time.Time, silent int) bool {
	f := n.follower
	last := -1
	for i := range f.donors {
		d := &f.donors[i]
		if i != silent && !d.gone() && now.Sub(d.heard) < shortestSilence && (last < 0 || d.heard.After(f.donors[last].heard)) {
			last = i
		}
	}
	if last < 0 {
		return false
	}
	n.tell(now, "copy", f.donors[silent].ID, fmt.Sprintf("%s is silent while others answer: it is not copied from any more", f.donors[silent].ID), 0)
	n.dismiss(silent)
	if silent == f.lender {
		f.lender = last
		if !f.hasState {
			f.coming = []*coming{{isState: true, left: 1}}
		}
	}
	return true
}

// dismiss asks a donor no more, and others for what it was asked for.
func (n *Node) dismiss(donor int) {
	f := n.follower
	f.donors[donor].strikes = maxStrikes
	n.drop(func(a asking) bool { return a.donor == donor })
}

// drop takes back requests.
func (n *Node) drop(these func(a asking) bool) {
	f := n.follower
	for _, number := range slices.Sorted(maps.Keys(f.asks)) {
		if a := f.asks[number]; these(a) {
			delete(f.asks, number)
			f.donors[a.donor].asks--
			a.what.back(a.span)
			n.emit(CancelFollow{number})
		}
	}
}

// use takes a piece. An error says that it is to be had from somebody else.
func (n *Node) use(now time.Time, a asking, p rpc.Piece) error {
	c := a.what
	switch {
	case c == nil || !slices.Contains(n.follower.coming, c):
		return nil
	case len(p.Bytes) == 0 && p.Elements == 0 && a.span != (span{}) && !c.isState && p.Newest > c.transition && p.First <= c.transition:
		c.empty()
		return nil
	case len(p.Bytes) == 0 && n.gen != nil:
		return errors.New("it has not what the view starts from")
	case len(p.Bytes) == 0:
		c.back(a.span)
		return nil
	case a.span == span{}:
		return n.open(now, c, p)
	}
	v, ok := window(c.body, uint64(a.span.lo), uint64(a.span.hi))
	if !ok { // it has become known meanwhile that there are none
		return nil
	}
	if p.Attempt != 0 && c.head != nil && p.Attempt != c.head.Record.ID {
		c.back(a.span)
		return nil
	}
	if err := readElements(v, p.Bytes, p.Packed); err != nil {
		return err
	}
	if p.Attempt != 0 && c.head == nil {
		c.early = append(c.early, part{a.span, p.Attempt})
	}
	c.left -= len(v)
	return nil
}

// open reads the head of an item, and makes room for the vectors of a state.
func (n *Node) open(now time.Time, c *coming, p rpc.Piece) error {
	var h itemHead
	if err := json.Unmarshal(p.Bytes, &h); err != nil {
		return fmt.Errorf("the head of an item: %w", err)
	}
	switch {
	case c.isState && h.State != nil && h.State.Meta.Transition == p.Transition:
		if p.Transition <= n.state.Transition { // they may have to copy from this node
			n.stopFollowing(now, "")
			return nil
		}
		c.transition, c.state = p.Transition, n.task.openState(h.State)
		c.want(c.state.vectors())
	case !c.isState && h.Record != nil && h.Record.Attempt.Transition == c.transition && h.Record.Elements == 0:
		c.empty()
	case !c.isState && h.Record != nil && h.Record.Attempt.Transition == c.transition && h.Record.Elements == elements(c.body):
		c.settle(h.Record)
	default:
		return errors.New("an item that was not asked for")
	}
	c.head = &h
	return nil
}

// moveOn takes the state that has been copied, or goes over the transition of the
// record that has come.
func (n *Node) moveOn(now time.Time) error {
	f := n.follower
	c := f.coming[0]
	if c.isState && c.state.Next == Done || !c.isState && c.head.Record.Attempt.Kind == Finish {
		n.stopFollowing(now, "the run comes to its end")
		return nil
	}
	if c.isState {
		if err := c.head.State.check(n.task, c.state, n.each); err != nil {
			return err
		}
		n.adopt(c.state)
		f.hasState, f.copied, f.behind = true, now, f.newest-min(f.newest, n.state.Transition)
		n.tell(now, "copied", f.donors[f.lender].ID, fmt.Sprintf("copied the state of step %d from %s in the background (%d bytes)", n.state.Step, f.donors[f.lender].ID, f.bytes), now.Sub(f.begun))
	} else {
		if err := n.task.replay(n.state, c.head.Record, c.mean, n.each); err != nil {
			return err
		}
		f.records++
		f.spare = append(f.spare, c.mean)
	}
	n.blob = nil
	f.coming = slices.Delete(f.coming, 0, 1)
	if n.gen != nil {
		n.arrive(now)
		return nil
	}
	n.views.Moved(n.stand())
	return nil
}

// caughtUp asks to be taken in, once, when all that the donors had is here.
func (n *Node) caughtUp(now time.Time) bool {
	f := n.follower
	if f.told || !f.hasState || n.gen != nil || n.state.Transition < f.newest {
		return false
	}
	f.told, n.tries = true, 0
	n.tell(now, "caught up", f.donors[f.lender].ID, fmt.Sprintf("caught up with %s at step %d: %d records", f.names(), n.state.Step, f.records), now.Sub(f.begun))
	n.views.Caught(now)
	n.drain(now)
	return true
}

// names lists those who lend.
func (f *follower) names() string {
	var names []string
	for _, d := range f.donors {
		if !d.gone() {
			names = append(names, d.ID)
		}
	}
	return strings.Join(names, ", ")
}

// catchUp goes to the transition that the view starts from by records, if there is
// a donor that stands there. It reports whether it can.
func (n *Node) catchUp() bool {
	f, g := n.follower, n.gen
	if f == nil || !f.hasState || n.state.Transition >= g.start.Transition { // as far, and another state: others have gone back
		return false
	}
	for i := range f.donors {
		if rank := g.view.Rank(f.donors[i].Node()); !slices.Contains(g.start.Donors, rank) {
			n.dismiss(i)
		}
	}
	if f.names() == "" {
		return false
	}
	beyond := func(c *coming) bool { return c == nil || c.transition >= g.start.Transition }
	n.drop(func(a asking) bool { return beyond(a.what) })
	f.newest = max(f.newest, g.start.Transition)
	f.coming = slices.DeleteFunc(f.coming, beyond)
	g.catching = true
	return true
}

// arrive begins to train if the state is the one that the view starts from.
func (n *Node) arrive(now time.Time) {
	g := n.gen
	if n.state.Transition < g.start.Transition {
		return
	}
	g.catching = false
	n.letGo()
	if n.mark() != g.start.Digest {
		n.tell(now, "copy", "", "the records do not lead to the state that the view starts from", 0)
		n.fetch()
		return
	}
	n.enter(now)
}

// unfollow ends this try.
func (n *Node) unfollow(now time.Time, err error) {
	n.letGo()
	n.tell(now, "copy", "", fmt.Sprintf("copying in the background failed: %v", err), 0)
	if n.tries++; n.tries >= maxTries || n.gen != nil {
		n.stopFollowing(now, "")
	}
}

// stopFollowing has the others take this node in as it is: where they have already, it
// copies while they wait.
func (n *Node) stopFollowing(now time.Time, why string) {
	n.letGo()
	if why != "" {
		n.tell(now, "copy", "", "no more copying in the background: "+why, 0)
	}
	if g := n.gen; g != nil {
		if g.catching && !g.closing {
			n.fetch()
		}
		g.catching = false
		return
	}
	n.views.Caught(now)
}

// letGo forgets the follower.
func (n *Node) letGo() {
	if n.follower != nil {
		n.drop(func(asking) bool { return true })
		n.follower = nil
	}
}

// mark names the state in acknowledgements and starts.
func (n *Node) mark() [32]byte {
	if n.agreed == n.state.Transition && n.agreedOn != (witness{}) {
		return n.state.mark(n.agreedOn)
	}
	return n.state.mark(n.state.witness(n.each))
}
