// Package view agrees, as far as it is needed, on who trains together.
//
// Training is a deterministic replicated state machine: whoever computes a step
// gets the same bits. So a wrong idea about who is alive costs time and never
// correctness, and membership needs no quorum and no log: the newest view wins.
// What is left is to get quickly from "something changed" to "these nodes, in
// this ring, from this transition on", whatever happens on the way.
//
//	    Up Down Receive Undelivered Ponged PingFailed Quiet Tick
//	                            │
//	                ┌───────────▼───────────┐
//	                │        Machine        │   a value: no goroutine, no
//	                │ idle → running → idle │   clock, no socket, no lock
//	                └───────────┬───────────┘
//	                            ▼
//	Send Ping Boundary Halt Install Announce Stranger Over Fail Note
//
// The protocol of one change, with C the coordinator, the most senior living node:
//
//	C → all   Propose(view)      accepted if newer than whatever was accepted;
//	                             in a running view only if all its members stay
//	all → C   Hold | Refuse      "coming, at the end of this step" | "I know a newer one"
//	all → C   Ack(transition, digest)  my older group is gone, my state is whole
//	C → all   Start(transition, digest, donors)  the greatest transition wins
//
// A running group ends in one of two ways. A link breaks: the group is dead, all
// its members learn it from their neighbours within milliseconds, the lost node
// is pinged, and C proposes the rest. Or somebody wants a boundary (C because
// nodes wait to join, a member because it leaves or has accepted a wider view):
// it says so in its header of the step's all-reduce, all members read it there
// and end the group after that very step. Nothing is thrown away.
//
// Every message is repeated until answered, so none has to arrive; every wait
// ends in a ping, so none lasts longer than a peer's life.
package view

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Config says who this node is and how patient it may be. The durations are
// floors: what a slow cluster needs is learnt and doubled.
type Config struct {
	Self      Fact          // ID, Incarnation, Addr, Trajectory, Zone
	MinNodes  int           // below it training waits; the coordinator's value counts
	Expect    int           // nodes worth waiting for before the very first view
	ExpectFor time.Duration // and for how long
	Gather    time.Duration // joins within this time enter together
	Retry     time.Duration // between repetitions of an unanswered message
	PingAfter time.Duration // how long a ping may take before a node counts as lost
	Patience  time.Duration // without any progress in an exchange, until its partner is passed over
}

// DefaultConfig returns the timing for one room or one continent alike.
func DefaultConfig(self Fact) Config {
	return Config{
		Self: self, MinNodes: 1, ExpectFor: 10 * time.Second,
		Gather: 200 * time.Millisecond, Retry: 200 * time.Millisecond,
		PingAfter: time.Second, Patience: 10 * time.Second,
	}
}

type phase int

const (
	idle     phase = iota // no group; the state is at a transition
	running               // a group is installed
	stopping              // it has been asked to end
)

func (p phase) String() string { return [...]string{"idle", "running", "stopping"}[p] }

// peer is what this node knows of another one.
type peer struct {
	fact     Fact
	gone     bool          // left, or proved dead; any later sign of life clears it
	pinging  bool          // a suspicion is open
	reporter Node          // who reported a broken link to it, while pinging
	timeout  time.Duration // of a ping; doubled whenever a suspicion proves false
	passed   time.Time     // not taken for the coordinator until then
	pinged   time.Time     // when it was last pinged
	lost     int           // how often it was lost since it last completed a transition with us
	barred   time.Time     // kept out until then: it was lost, and may be again at once
	left     bool          // said good-bye
	told     bool          // reported as a stranger
}

// proposal is a view that this node has proposed and that does not run yet.
type proposal struct {
	view  *View
	name  Name
	acks  map[Node]Ack
	heard map[Node]time.Time // last sign of progress of each member
	sent  time.Time
}

// badLink remembers a link that broke while both its ends lived.
type badLink struct {
	count int
	until time.Time
}

// Machine is one node's part in views. Feed it events; after each, Take returns
// what is to be done. It is not safe for concurrent use.
type Machine struct {
	cfg   Config
	self  Fact
	peers map[Node]*peer
	out   []Effect

	phase      phase
	last       *View  // installed last, and still valid for seniority; nil for a newcomer
	start      Start  // with which last was started, if this node proposed it
	transition uint64 // of the state; valid while idle
	digest     [32]byte

	gen      uint64 // order of the newest proposal ever accepted or heard of
	genName  Name
	accepted *View // acknowledged, or held until the group is gone
	ackSent  time.Time
	mine     *proposal

	born       time.Time
	joinsSince time.Time // since when nodes wait to join the running view
	graceUntil time.Time // somebody else asked for the boundary and is about to propose
	waiting    time.Time // since when a proposal is awaited
	asideUntil time.Time // standing down as coordinator
	refusals   int       // of this node's proposals, in a row
	failures   int       // views in a row that brought no transition
	notBefore  time.Time // back-off of proposals after failures
	bad        map[pair]*badLink
	complaint  string    // what is waited for
	complained time.Time // since when; told once it has lasted
	told       bool
	ready      bool // gossip has found others, or there are none to find
	leaving    bool
}

// New returns the machine of a node whose state is at the given transition.
func New(cfg Config, transition uint64, digest [32]byte, now time.Time) *Machine {
	m := &Machine{
		cfg: cfg, self: cfg.Self, peers: map[Node]*peer{}, bad: map[pair]*badLink{},
		transition: transition, digest: digest, born: now, waiting: now,
	}
	m.self.Transition = transition
	m.emit(Announce{m.self})
	return m
}

// Take returns the effects since the last call, in order.
func (m *Machine) Take() []Effect {
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) emit(e Effect) { m.out = append(m.out, e) }

// Self returns this node's name.
func (m *Machine) Self() Node { return m.self.Node() }

// Fact returns what this node tells of itself.
func (m *Machine) Fact() Fact { return m.self }

// Running returns the view whose group is up, or nil.
func (m *Machine) Running() *View {
	if m.phase == idle {
		return nil
	}
	return m.last
}

// Up takes gossip's word that a node lives, or has news.
func (m *Machine) Up(now time.Time, f Fact) {
	m.learn(f)
	m.reconsider(now)
}

// Down takes gossip's word that a node left, or seems dead, with the last that
// it said of itself. A node that seems dead is asked first: gossip starves
// before links do.
func (m *Machine) Down(now time.Time, f Fact, left bool) {
	n := f.Node()
	if left && m.peers[n] == nil && f.check() == nil && f.Trajectory == m.self.Trajectory {
		m.learn(f)
	}
	p := m.peers[n]
	if p == nil || n == m.Self() {
		return
	}
	if left {
		p.left, p.fact.Finished = true, p.fact.Finished || f.Finished
	}
	if left && !m.runsWith(n) {
		p.gone = true
	} else {
		m.suspect(now, n, Node{})
	}
	m.reconsider(now)
}

// Suspect takes training's word that a member of the running view is silent.
func (m *Machine) Suspect(now time.Time, n Node) {
	m.suspect(now, n, Node{})
	m.reconsider(now)
}

// Ponged takes the answer to a ping.
func (m *Machine) Ponged(now time.Time, n Node, a Pong) {
	p := m.peers[n]
	if p == nil || a.Fact.Node() != n || a.Fact.check() != nil {
		return
	}
	if p.pinging {
		p.timeout = min(2*p.timeout, 8*m.cfg.PingAfter)
		m.linkBroke(now, n, p.reporter)
	}
	m.learn(a.Fact)
	m.hearGeneration(a.Generation)
	if a.Coordinator != n && m.coordinator(now) == n && now.Sub(m.waiting) > 3*m.cfg.Retry {
		p.passed = now.Add(5 * m.cfg.Retry)
	}
	m.reconsider(now)
}

// PingFailed tells that a ping was not answered, and why. It is certain where the
// connection was refused or reset. Silence proves something only about a node
// that was suspected before; of any other it is a first suspicion.
func (m *Machine) PingFailed(now time.Time, n Node, certain bool, reason string) {
	if p := m.peers[n]; p != nil && !p.pinging && !certain {
		m.suspect(now, n, Node{})
	} else {
		m.lose(now, n, reason)
	}
	m.reconsider(now)
}

// Undelivered tells that a message could not be delivered. That may be the fault
// of an old connection, so the node is asked; where nobody listens, the answer
// comes within a millisecond.
func (m *Machine) Undelivered(now time.Time, n Node) {
	m.suspect(now, n, Node{})
	m.reconsider(now)
}

// Progress tells that the running group has completed a transition.
func (m *Machine) Progress(transition uint64) {
	m.failures = 0
	m.self.Transition = transition
	for _, w := range m.last.Members {
		if p := m.peers[w.Node()]; p != nil {
			p.lost = 0
			p.timeout -= (p.timeout - m.cfg.PingAfter) / 64
		}
	}
}

// Measured tells how fast this node is, in samples per second, and has gossip
// tell how far it has come. Call it about once a second.
func (m *Machine) Measured(speed float32) {
	m.self.Speed = speed
	m.emit(Announce{m.self})
}

// Ready tells that gossip has found the others, or that there are none to be
// found. Before that a node that never trained does not start alone.
func (m *Machine) Ready(now time.Time) {
	m.ready = true
	m.reconsider(now)
}

// Finished tells that the state is final.
func (m *Machine) Finished() {
	if !m.self.Finished {
		m.self.Finished = true
		m.emit(Announce{m.self})
	}
}

// Leave starts an orderly exit: at the end of the step if a group runs. The
// caller goes once the group is gone and the node is not Bound.
func (m *Machine) Leave(now time.Time) {
	if m.leaving {
		return
	}
	m.leaving, m.self.Leaving = true, true
	if m.mine != nil {
		m.dropProposal()
	}
	m.emit(Announce{m.self})
	m.boundary("this node leaves")
}

// Quiet tells that the running group's goroutines are gone and the state is at
// a transition. A zero cause is a boundary; leaving lists the members that
// said in the last header that they go.
func (m *Machine) Quiet(now time.Time, transition uint64, digest [32]byte, cause Cause, leaving []Node) {
	asked := m.phase == stopping
	m.phase, m.transition, m.digest = idle, transition, digest
	m.self.Transition = transition
	m.waiting, m.joinsSince = now, time.Time{}
	m.emit(Announce{m.self})
	for _, n := range leaving {
		if p := m.peers[n]; p != nil {
			p.fact.Leaving = true
		}
	}
	switch {
	case !cause.Blame.IsZero():
		m.suspect(now, cause.Blame, cause.By)
	case cause.Reason == "" && len(leaving) == 0 && !asked:
		m.graceUntil = now.Add(2 * m.cfg.Retry)
	}
	if m.accepted != nil {
		m.acknowledge(now)
	}
	m.reconsider(now)
}

// Receive takes a message.
func (m *Machine) Receive(now time.Time, msg Msg) {
	if msg.From.Trajectory != m.self.Trajectory || msg.From.Node() == m.Self() {
		return
	}
	m.learn(msg.From)
	from := msg.From.Node()
	switch {
	case msg.Propose != nil:
		m.onPropose(now, from, msg.Propose)
	case msg.Hold != nil:
		m.onHold(now, from, *msg.Hold)
	case msg.Ack != nil:
		m.onAck(now, from, *msg.Ack)
	case msg.Refuse != nil:
		m.onRefuse(now, from, *msg.Refuse)
	case msg.Start != nil:
		m.onStart(now, from, *msg.Start)
	case msg.Stop != nil && m.bound(msg.Stop.View, from):
		m.emit(Fail{fmt.Errorf("%s stopped the run: %s", from.ID, msg.Stop.Reason)})
	}
	m.reconsider(now)
}

// Bound tells whether this node has promised to be in a view that has not started
// yet. Whoever leaves keeps the promise, and goes at the end of its first step.
func (m *Machine) Bound() bool { return m.accepted != nil }

// bound tells whether from is a member of the view called name, and that view
// runs here or is accepted.
func (m *Machine) bound(name Name, from Node) bool {
	for _, v := range []*View{m.Running(), m.accepted} {
		if v != nil && v.Name() == name && v.Rank(from) >= 0 {
			return true
		}
	}
	return false
}

// Tick lets time pass.
func (m *Machine) Tick(now time.Time) { m.reconsider(now) }

// --- what is known of others ---

func (m *Machine) learn(f Fact) {
	if f.Node() == m.Self() || f.ID == "" {
		return
	}
	p := m.peers[f.Node()]
	if p == nil {
		p = &peer{timeout: m.cfg.PingAfter}
		m.peers[f.Node()] = p
	}
	p.fact, p.gone, p.left, p.pinging, p.reporter = f, false, false, false, Node{}
	m.hearGeneration(f.Generation)
	if f.Trajectory != m.self.Trajectory && !p.told {
		p.told = true
		m.emit(Stranger{f, m.strangerGoesFirst(f)})
	}
}

// strangerGoesFirst decides which of two nodes on different trajectories does
// not belong: the one that has not trained yet, or else the later name.
func (m *Machine) strangerGoesFirst(f Fact) bool {
	if (f.Entry != 0) != (m.self.Entry != 0) {
		return f.Entry != 0
	}
	return f.ID < m.self.ID
}

func (m *Machine) hearGeneration(g uint64) {
	if g > m.gen {
		m.gen, m.genName = g, Name{}
	}
}

// runsWith tells whether n is a member of the running view.
func (m *Machine) runsWith(n Node) bool { return m.phase != idle && m.last.Rank(n) >= 0 }

// suspect asks a node whether it lives. by tells who reported a broken link.
func (m *Machine) suspect(now time.Time, n, by Node) {
	p := m.peers[n]
	if p == nil || p.gone || p.pinging {
		return
	}
	p.pinging, p.pinged, p.reporter = true, now, by
	m.emit(Ping{n, p.fact.Addr, p.timeout})
}

// lose takes a node for dead until it gives a sign of life.
func (m *Machine) lose(now time.Time, n Node, reason string) {
	p := m.peers[n]
	if p == nil || p.gone {
		return
	}
	p.gone, p.pinging = true, false
	p.lost++
	p.barred = now.Add(m.cfg.Retry << min(p.lost, 8))
	if m.runsWith(n) {
		m.phase = stopping
		m.emit(Halt{Cause{Blame: n, By: m.Self(), Reason: reason}})
	}
}

// linkBroke remembers that the link between two living nodes broke. Once may
// be chance; the second time they are kept apart for a doubling while.
func (m *Machine) linkBroke(now time.Time, a, b Node) {
	if b.IsZero() {
		return
	}
	k := pairOf(a, b)
	l := m.bad[k]
	if l == nil {
		l = &badLink{}
		m.bad[k] = l
	}
	l.count++
	l.until = now
	if l.count >= 2 {
		l.until = now.Add(m.cfg.Patience << min(l.count-2, 6))
		m.emit(Note{"link", a, fmt.Sprintf("the link between %s and %s broke %d times while both live: kept apart for %s", a.ID, b.ID, l.count, l.until.Sub(now))})
	}
}

func noneBad(a, b Node) bool { return false }

func (m *Machine) isBad(now time.Time) func(a, b Node) bool {
	return func(a, b Node) bool {
		l := m.bad[pairOf(a, b)]
		return l != nil && now.Before(l.until)
	}
}

// seniority returns n's place in the order of coordinators. Only members of the
// last installed view have entered; a newcomer, who has none, believes facts.
func (m *Machine) seniority(f Fact) Member {
	s := Member{ID: f.ID, Incarnation: f.Incarnation, Addr: f.Addr, Zone: f.Zone, Share: 1}
	if m.last == nil {
		s.Entry = f.Entry
	} else if r := m.last.Rank(f.Node()); r >= 0 {
		s.Entry = m.last.Members[r].Entry
	}
	return s
}

// coordinator returns the most senior node that lives, stays and has not been
// passed over.
func (m *Machine) coordinator(now time.Time) Node {
	var best *Member
	consider := func(f Fact) {
		if s := m.seniority(f); best == nil || bySeniority(s, *best) < 0 {
			best = &s
		}
	}
	if !m.leaving && !now.Before(m.asideUntil) {
		consider(m.self)
	}
	for _, p := range m.peers {
		if m.counts(p) && !now.Before(p.passed) && !now.Before(p.barred) {
			consider(p.fact)
		}
	}
	if best == nil {
		return m.Self()
	}
	return best.Node()
}

// counts tells whether p could be a member of the next view.
func (m *Machine) counts(p *peer) bool {
	return !p.gone && !p.fact.Leaving && p.fact.Trajectory == m.self.Trajectory
}

// wanted lists who should be in the next view, this node included.
func (m *Machine) wanted(now time.Time) []Member {
	want := []Member{m.seniority(m.self)}
	for _, p := range m.peers {
		if m.counts(p) && !now.Before(p.barred) {
			want = append(want, m.seniority(p.fact))
		}
	}
	slices.SortFunc(want, bySeniority)
	return want
}

// --- the coordinator's side ---

// reconsider does whatever the present state asks for. It is called after every
// event, so no case has to be remembered anywhere else.
func (m *Machine) reconsider(now time.Time) {
	if m.over() {
		return
	}
	if m.leaving {
		if m.accepted != nil {
			m.awaitStart(now)
		}
		return
	}
	switch {
	case m.mine != nil:
		m.pursue(now)
	case m.accepted != nil:
		m.awaitStart(now)
	case m.coordinator(now) != m.Self():
		m.joinsSince = time.Time{}
		m.awaitProposal(now)
	case m.phase == running:
		m.gatherJoins(now)
	case m.phase == idle:
		m.considerProposing(now)
	}
}

// over tells a newcomer that the run it came for is finished.
func (m *Machine) over() bool {
	if m.self.Finished || m.last != nil || m.phase != idle {
		return false
	}
	for _, p := range m.peers {
		if p.fact.Trajectory == m.self.Trajectory && p.fact.Finished && (p.left || m.counts(p)) {
			m.emit(Over{p.fact})
			return true
		}
	}
	return false
}

// gatherJoins asks for a boundary once somebody has waited long enough to join.
func (m *Machine) gatherJoins(now time.Time) {
	joins := slices.ContainsFunc(m.wanted(now), func(w Member) bool {
		return m.last.Rank(w.Node()) < 0 && !m.keptOut(now, w.Node())
	})
	switch {
	case !joins || m.self.Finished:
		m.joinsSince = time.Time{}
	case m.joinsSince.IsZero():
		m.joinsSince = now
	case now.Sub(m.joinsSince) >= m.cfg.Gather:
		m.boundary("nodes wait to join")
	}
}

// keptOut tells whether n would be left out of the ring again for a bad link.
func (m *Machine) keptOut(now time.Time, n Node) bool {
	_, out := arrange(m.wanted(now), m.isBad(now))
	return slices.ContainsFunc(out, func(o Member) bool { return o.Node() == n })
}

func (m *Machine) boundary(reason string) {
	if m.phase == running {
		m.phase = stopping
		m.emit(Boundary{reason})
	}
}

// considerProposing proposes the next view unless there is a reason to wait.
func (m *Machine) considerProposing(now time.Time) {
	want := m.wanted(now)
	if reason := m.whyWait(now, want); reason != "" {
		m.complain(now, reason)
		return
	}
	m.complain(now, "")
	m.propose(now, want)
}

func (m *Machine) whyWait(now time.Time, want []Member) string {
	for _, p := range m.peers {
		if !p.gone && p.fact.Trajectory != m.self.Trajectory && m.strangerGoesFirst(p.fact) {
			return "word from " + p.fact.ID + ", which walks another trajectory"
		}
	}
	for _, w := range want {
		if p := m.peers[w.Node()]; p != nil && p.pinging {
			return aMoment
		}
	}
	switch {
	case now.Before(m.notBefore), now.Before(m.graceUntil), now.Before(m.asideUntil):
		return aMoment
	case m.self.Finished: // nothing is left to wait for
	case len(want) < m.cfg.MinNodes:
		return fmt.Sprintf("%d nodes, %d here (%s)", m.cfg.MinNodes, len(want), ids(want))
	case m.last == nil && !m.ready && now.Sub(m.born) < m.cfg.ExpectFor:
		return "others to be found"
	case m.last == nil && len(want) < m.cfg.Expect && now.Sub(m.born) < m.cfg.ExpectFor:
		return fmt.Sprintf("%d nodes to start with, %d here (%s)", m.cfg.Expect, len(want), ids(want))
	}
	return ""
}

// aMoment is a wait too short to tell of.
const aMoment = "a moment"

// complain tells what is waited for, once, if it lasts.
func (m *Machine) complain(now time.Time, reason string) {
	if (reason == "") != (m.complaint == "") || m.complained.IsZero() {
		m.complained, m.told = now, false
	}
	m.complaint = reason
	if reason != "" && reason != aMoment && !m.told && now.Sub(m.complained) >= 2*time.Second {
		m.told = true
		m.emit(Note{"waiting", m.Self(), "waiting for " + reason})
	}
}

func ids(ms []Member) string {
	s := make([]string, len(ms))
	for i, m := range ms {
		s[i] = m.ID
	}
	return strings.Join(s, ", ")
}

func (m *Machine) propose(now time.Time, want []Member) {
	gen := m.gen + 1
	for i := range want {
		if want[i].Entry == 0 || m.last == nil {
			want[i].Entry = gen
		}
	}
	ring, _ := arrange(want, m.isBad(now))
	if len(ring) < m.cfg.MinNodes && !m.self.Finished { // better a bad link than fewer than the user allows
		ring, _ = arrange(want, noneBad)
	}
	v := &View{m.self.Trajectory, gen, m.Self(), m.cfg.MinNodes, ring}
	if v.Rank(m.Self()) < 0 {
		m.standAside(now)
		return
	}
	m.mine = &proposal{view: v, name: v.Name(), acks: map[Node]Ack{}, heard: map[Node]time.Time{}}
	for _, r := range ring {
		m.mine.heard[r.Node()] = now
	}
	m.accept(now, v)
	m.pursue(now)
}

// pursue repeats the proposal to whoever has not acknowledged, gives it up when
// a member is lost, and starts the view when all have.
func (m *Machine) pursue(now time.Time) {
	p := m.mine
	for _, w := range p.view.Members {
		n := w.Node()
		if _, acked := p.acks[n]; !acked && n != m.Self() && now.Sub(p.heard[n]) > m.cfg.Patience {
			m.lose(now, n, "no answer to a proposal for "+m.cfg.Patience.String())
		} else if !acked && n != m.Self() && now.Sub(p.heard[n]) > 2*m.cfg.Retry {
			m.suspect(now, n, Node{})
		}
		if q := m.peers[n]; q != nil && (q.gone || q.fact.Leaving) {
			m.dropProposal()
			m.considerAgain(now)
			return
		}
	}
	if len(p.acks) == p.view.World() {
		m.startView(now)
		return
	}
	if now.Sub(p.sent) < m.cfg.Retry {
		return
	}
	p.sent = now
	for _, w := range p.view.Members {
		if _, acked := p.acks[w.Node()]; !acked && w.Node() != m.Self() {
			m.send(w.Node(), w.Addr, Msg{Propose: p.view})
		}
	}
}

func (m *Machine) dropProposal() { m.mine, m.accepted = nil, nil }

// considerAgain proposes anew at once where that is this node's part.
func (m *Machine) considerAgain(now time.Time) {
	if m.phase == idle && m.coordinator(now) == m.Self() {
		m.considerProposing(now)
	}
}

func (m *Machine) send(to Node, addr string, msg Msg) {
	msg.From = m.self
	m.emit(Send{to, addr, msg})
}

// startView picks where training goes on: the greatest transition wins.
func (m *Machine) startView(now time.Time) {
	p := m.mine
	start := Start{View: p.name}
	for _, a := range p.acks {
		start.Transition = max(start.Transition, a.Transition)
	}
	if reason := p.divergence(start.Transition); reason != "" {
		m.stopAll(p, reason)
		return
	}
	for rank, w := range p.view.Members {
		if a := p.acks[w.Node()]; a.Transition == start.Transition {
			start.Donors, start.Digest = append(start.Donors, rank), a.Digest
		}
	}
	for _, w := range p.view.Members {
		if w.Node() != m.Self() {
			m.send(w.Node(), w.Addr, Msg{Start: &start})
		}
	}
	m.refusals, m.start = 0, start
	m.install(now, p.view, start)
}

// divergence compares the digests of those at one transition: equal inputs give
// equal bits, so a difference is a fault of somebody's machine.
func (p *proposal) divergence(at uint64) string {
	var digests [][]byte
	var names []string
	for _, w := range p.view.Members {
		if a := p.acks[w.Node()]; a.Transition == at {
			digests, names = append(digests, a.Digest[:]), append(names, w.ID)
		}
	}
	return OddOneOut(at, names, digests)
}

// OddOneOut names who differs from the majority of equal digests at one
// transition, or returns "" where all agree.
func OddOneOut(transition uint64, names []string, digests [][]byte) string {
	count := map[string]int{}
	major := ""
	for _, d := range digests {
		count[string(d)]++
		if count[string(d)] > count[major] {
			major = string(d)
		}
	}
	if len(count) < 2 {
		return ""
	}
	if 2*count[major] <= len(digests) {
		return fmt.Sprintf("the replicas of %s differ at transition %d and there is no majority: nobody can know who is right", strings.Join(names, " and "), transition)
	}
	var odd []string
	for i, d := range digests {
		if string(d) != major {
			odd = append(odd, names[i])
		}
	}
	return fmt.Sprintf("the state of %s differs from that of %d others at transition %d: its memory, its processor or its program is at fault", strings.Join(odd, ", "), count[major], transition)
}

func (m *Machine) stopAll(p *proposal, reason string) {
	for _, w := range p.view.Members {
		if w.Node() != m.Self() {
			m.send(w.Node(), w.Addr, Msg{Stop: &Stop{p.name, reason}})
		}
	}
	m.dropProposal()
	m.emit(Fail{fmt.Errorf("view: %s", reason)})
}

// standAside lets another node coordinate for a doubling while.
func (m *Machine) standAside(now time.Time) {
	m.refusals++
	m.asideUntil = now.Add(m.cfg.Retry << min(m.refusals, 6))
}

// --- the member's side ---

func (m *Machine) onPropose(now time.Time, from Node, v *View) {
	name := v.Name()
	if m.leaving {
		m.refuse(from, name, "leaving")
		return
	}
	if m.accepted != nil && m.accepted.Name() == name { // a repetition
		m.answer(now, from, v)
		return
	}
	if v.Rank(m.Self()) < 0 || v.Trajectory != m.self.Trajectory {
		return
	}
	if reason := m.objection(v, name); reason != "" {
		m.refuse(from, name, reason)
		return
	}
	for _, w := range v.Members {
		if m.peers[w.Node()] == nil {
			m.learn(Fact{ID: w.ID, Incarnation: w.Incarnation, Addr: w.Addr, Zone: w.Zone, Trajectory: v.Trajectory})
		}
	}
	m.mine = nil
	m.accept(now, v)
	m.answer(now, from, v)
}

// objection says why a proposal is not accepted, or "".
func (m *Machine) objection(v *View, name Name) string {
	switch {
	case !newer(v.Generation, name, m.gen, m.genName):
		return fmt.Sprintf("generation %d is not newer than %d", v.Generation, m.gen)
	case m.phase != idle && m.last.Rank(v.Proposer) < 0 && !v.Includes(m.last): // a member that proposes has left the group: ours is dying too
		return fmt.Sprintf("generation %d runs and not all its members would stay", m.last.Generation)
	}
	return ""
}

func (m *Machine) refuse(to Node, name Name, reason string) {
	if p := m.peers[to]; p != nil {
		member := m.phase != idle && m.last.Rank(to) >= 0
		m.send(to, p.fact.Addr, Msg{Refuse: &Refuse{name, m.gen, member, reason}})
	}
}

// accept binds this node to v until it starts, is given up, or a newer one comes.
func (m *Machine) accept(now time.Time, v *View) {
	m.gen, m.genName, m.accepted = v.Generation, v.Name(), v
	m.waiting, m.graceUntil = now, time.Time{}
	m.boundary("a wider view is accepted")
	if m.phase == idle {
		m.acknowledge(now)
	}
}

// answer tells the proposer how far we are with its view.
func (m *Machine) answer(now time.Time, to Node, v *View) {
	p := m.peers[to]
	if m.phase == idle {
		m.acknowledge(now)
	} else if p != nil {
		m.send(to, p.fact.Addr, Msg{Hold: &Hold{v.Name()}})
	}
}

func (m *Machine) acknowledge(now time.Time) {
	m.ackSent = now
	a := Ack{m.accepted.Name(), m.accepted.Generation, m.transition, m.digest}
	if m.mine != nil && m.mine.name == a.View {
		m.mine.acks[m.Self()] = a
		return
	}
	if p := m.peers[m.accepted.Proposer]; p != nil {
		m.send(m.accepted.Proposer, p.fact.Addr, Msg{Ack: &a})
	}
}

// awaitStart repeats the acknowledgement; the proposer's death frees us.
func (m *Machine) awaitStart(now time.Time) {
	p := m.peers[m.accepted.Proposer]
	if p == nil || p.gone {
		m.accepted = nil
		m.waiting = now
		m.reconsider(now)
		return
	}
	if m.phase == idle && now.Sub(m.ackSent) >= m.cfg.Retry {
		if now.Sub(m.waiting) > 3*m.cfg.Patience {
			p.passed = now.Add(m.cfg.Patience)
			m.accepted = nil
			return
		}
		m.acknowledge(now)
	}
}

// awaitProposal pings the coordinator while nothing comes from it.
func (m *Machine) awaitProposal(now time.Time) {
	if m.phase != idle {
		return
	}
	n := m.coordinator(now)
	p := m.peers[n]
	if p == nil || p.pinging || now.Sub(p.pinged) < m.cfg.Retry {
		return
	}
	if now.Sub(m.waiting) > m.cfg.Patience {
		p.passed, m.waiting = now.Add(m.cfg.Patience), now
		return
	}
	p.pinged = now
	m.send(n, p.fact.Addr, Msg{Hello: &Hello{}})
	m.emit(Ping{n, p.fact.Addr, p.timeout})
	if now.Sub(m.waiting) > m.cfg.Patience/2 {
		m.complain(now, "a proposal of the coordinator "+n.ID)
	}
}

func (m *Machine) onHold(now time.Time, from Node, h Hold) {
	if m.mine != nil && m.mine.name == h.View {
		m.mine.heard[from] = now
	}
}

func (m *Machine) onAck(now time.Time, from Node, a Ack) {
	switch {
	case m.mine != nil && m.mine.name == a.View && m.mine.view.Rank(from) >= 0:
		m.mine.acks[from], m.mine.heard[from] = a, now
	case m.phase != idle && m.start.View == a.View && m.last.Name() == a.View:
		start := m.start
		m.send(from, m.peers[from].fact.Addr, Msg{Start: &start}) // ours was lost
	default:
		m.refuse(from, a.View, "that view is not proposed any more")
	}
}

func (m *Machine) onRefuse(now time.Time, from Node, r Refuse) {
	m.hearGeneration(r.Generation)
	if m.accepted == nil || m.accepted.Name() != r.View {
		return
	}
	if m.mine == nil { // our Ack came too late
		if from == m.accepted.Proposer {
			m.accepted, m.waiting = nil, now
		}
		return
	}
	m.dropProposal()
	m.refusals++
	if !r.Member && m.peers[from].fact.Generation > m.self.Generation {
		m.beNewcomer(r.Generation)
	}
	m.emit(Note{"refused", from, fmt.Sprintf("%s refused the proposed view: %s", from.ID, r.Reason)})
	if m.refusals >= 2 {
		m.standAside(now)
	}
}

// beNewcomer takes the news that the others went on without us.
func (m *Machine) beNewcomer(gen uint64) {
	if m.phase == idle && m.last != nil {
		m.last, m.self.Entry = nil, 0
		m.emit(Note{"expelled", m.Self(), fmt.Sprintf("the others went on without us (generation %d): joining again", gen)})
		m.emit(Announce{m.self})
	}
}

func (m *Machine) onStart(now time.Time, from Node, s Start) {
	if m.accepted == nil || m.accepted.Proposer != from || m.accepted.Name() != s.View || m.phase != idle {
		return
	}
	if s.Donors[len(s.Donors)-1] < m.accepted.World() { // ascending, as checked
		m.install(now, m.accepted, s)
	}
}

// install starts a generation on this node.
func (m *Machine) install(now time.Time, v *View, s Start) {
	rank := v.Rank(m.Self())
	m.mine, m.accepted = nil, nil
	m.phase, m.last = running, v
	m.self.Generation, m.self.Entry = v.Generation, v.Members[rank].Entry
	m.joinsSince, m.complaint = time.Time{}, ""
	for _, w := range v.Members { // the proposer has heard of each of them
		if p := m.peers[w.Node()]; p != nil {
			p.gone, p.pinging = false, false
		}
	}
	m.failures++
	if m.failures > 2 {
		m.notBefore = now.Add(m.cfg.Retry << min(m.failures-2, 4))
	}
	for k, l := range m.bad {
		if now.Sub(l.until) > 8*m.cfg.Patience {
			delete(m.bad, k)
		}
	}
	m.emit(Announce{m.self})
	m.emit(Install{v, rank, s})
}

// Status is what a person or a ping may ask.
func (m *Machine) Status(now time.Time) (coordinator Node, waitingFor string) {
	return m.coordinator(now), m.complaint
}

// Generation returns the newest generation that this node has heard of.
func (m *Machine) Generation() uint64 { return m.gen }

// Peers lists what is known of the others: the living first, then by name.
func (m *Machine) Peers() []Fact {
	var fs []Fact
	for _, p := range m.peers {
		if !p.gone {
			fs = append(fs, p.fact)
		}
	}
	slices.SortFunc(fs, func(a, b Fact) int { return strings.Compare(a.Node().String(), b.Node().String()) })
	return fs
}
