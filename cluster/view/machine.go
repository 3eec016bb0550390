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
//	                             in a running view only if all its members stay.
//	                             Who has the last view gets a Change of it, and
//	                             may Ask for the whole
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
	Follow    bool          // outside, this node copies in the background until Caught: see Fact.Following
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

// proposal is a view that this node has proposed and that does not run yet.
type proposal struct {
	view    *View
	name    Name
	change  *Change // from this node's last view, nil if only the whole one will do
	remind  *Change // for those who have it
	seats   []seat  // by rank
	missing int     // acknowledgements
	broken  bool    // a member was lost, or goes
	sent    time.Time
	pause   time.Duration // until it is sent again; it grows with what there is to send
	scanned time.Time     // when the silent were last looked for
	stop    string        // why the run ends instead; "" if it does not
}

// seat is what a proposal knows of a member.
type seat struct {
	peer  *peer // nil for this node
	acked bool
	has   bool // it has the view, and comes
	whole bool // it lacks what the change starts from
	ack   Ack
	heard time.Time // last sign of progress
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

	now  time.Time // this machine's own time: see advance
	seen time.Time // what it was last told

	tally      [kinds]int // how many peers have each mark
	chiefKnown bool
	chief      *peer  // the coordinator, nil for this node; valid if chiefKnown
	chiefSeat  Member // its seniority
	timed      []*peer
	lapses     time.Time // when the next moment of timed, or asideUntil, comes; zero if none does
	graves     []grave   // in the order of death
	sore       []*peer   // who has something to be forgiven
	canvassed  time.Time // when all members were last asked at once
	healed     time.Time // when something last was

	phase phase
	last  *View // installed last, and still valid for seniority; nil for a newcomer
	start Start // with which last was started, if this node proposed it
	stand Stand // of the state; valid while idle

	gen      uint64 // order of the newest proposal ever accepted or heard of
	genName  Name
	accepted *View // acknowledged, or held until the group is gone
	doomed   bool  // not all of the running group would be in accepted, though none of them leaves
	ackSent  time.Time
	mine     *proposal

	born       time.Time
	joinsSince time.Time // since when nodes wait to join the running view, or the first one
	arrived    time.Time // when the last of them came
	lost       Node      // by whose loss the last group ended, zero if nobody was lost
	noticed    bool      // it was this node that noticed, and the coordinator is not told yet
	graceUntil time.Time // somebody else asked for the boundary and is about to propose
	waiting    time.Time // since when a proposal is awaited
	helloed    time.Time // when a coordinator was last asked for a proposal
	asideUntil time.Time // standing down as coordinator; zero if not
	refusals   int       // of this node's proposals, in a row
	failures   int       // views in a row that brought no transition
	notBefore  time.Time // back-off of proposals after failures
	bad        map[pair]*badLink
	expulsions map[string]int // of lives of a node, by id
	complaint  string         // what is waited for
	complained time.Time      // since when; told once it has lasted
	told       bool
	measured   int  // calls of Measured since the last that was announced
	ready      bool // gossip has found others, or there are none to find
	leaving    bool
}

// New returns the machine of a node whose state stands there.
func New(cfg Config, s Stand, now time.Time) *Machine {
	m := &Machine{
		cfg: cfg, self: cfg.Self, peers: map[Node]*peer{}, bad: map[pair]*badLink{}, expulsions: map[string]int{},
		stand: s, born: now, waiting: now, now: now, seen: now,
	}
	m.self.Transition, m.self.Following = s.Transition, cfg.Follow
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

// maxStride is the longest that a machine believes to have passed between two
// events.
const maxStride = time.Second

// advance translates the time that an event was given into the machine's own,
// which never goes back and never leaps: a clock that is set steps no deadline
// over and none out of reach, and whoever has not looked for a minute, having
// been suspended, can call nobody silent for that.
func (m *Machine) advance(told time.Time) time.Time {
	m.now = m.now.Add(min(max(told.Sub(m.seen), 0), maxStride))
	m.seen = told
	m.lapse(m.now)
	m.forget(m.now)
	return m.now
}

// Up takes gossip's word that a node lives, or has news. It is hearsay: one that
// is being asked whether it lives has to answer itself, for others may reach it
// where this node does not.
func (m *Machine) Up(now time.Time, f Fact) {
	now = m.advance(now)
	if p := m.peers[f.Node()]; p != nil && p.pinging {
		m.hearGeneration(f.Generation)
		p.fact = f
		m.regard(p)
	} else {
		m.learn(f)
	}
	m.reconsider(now)
}

// Down takes gossip's word that a node left, or seems dead, with the last that
// it said of itself. A node that seems dead is asked first: gossip starves
// before links do.
func (m *Machine) Down(now time.Time, f Fact, left bool) {
	now = m.advance(now)
	n := f.Node()
	if left && m.peers[n] == nil && f.check() == nil && f.Trajectory == m.self.Trajectory {
		m.learn(f)
	}
	p := m.peers[n]
	if p == nil {
		return
	}
	if left {
		p.left, p.fact.Finished = true, p.fact.Finished || f.Finished
		m.regard(p)
	}
	if m.matters(n, left) {
		m.suspect(now, n, Node{})
	} else if !p.gone {
		m.bury(now, p)
	}
	m.reconsider(now)
}

// matters tells whether it is worth a question if n lives. While a view runs that
// it is no member of, it is not: when many die at once each node would ask for
// all of them, and one who lives after all will say so.
func (m *Machine) matters(n Node, left bool) bool {
	return m.runsWith(n) || !left && (m.phase == idle || m.accepted != nil)
}

// Suspect takes training's word that a member of the running view is silent.
func (m *Machine) Suspect(now time.Time, n Node) {
	now = m.advance(now)
	m.suspect(now, n, Node{})
	m.reconsider(now)
}

// Ponged takes the answer to a ping.
func (m *Machine) Ponged(now time.Time, n Node, a Pong) {
	now = m.advance(now)
	p := m.peers[n]
	if p == nil || a.Fact.Node() != n || a.Fact.check() != nil {
		return
	}
	p.heard = now
	if p.pinging {
		p.mute = p.mute || !p.reporter.IsZero() // somebody has taken it for lost
		if p.mute || now.Sub(p.pinged) > p.timeout/2 {
			m.forbear(p)
		}
		m.linkBroke(now, n, p.reporter)
	}
	m.learn(a.Fact)
	m.hearGeneration(a.Generation)
	if a.Coordinator != n && m.coordinator() == n && now.Sub(m.waiting) > 3*m.cfg.Retry {
		m.pass(p, now.Add(5*m.cfg.Retry))
	}
	m.reconsider(now)
}

// PingFailed tells that a ping was not answered, and why. It is certain where the
// connection was refused or reset. Silence proves something only about a node
// that was suspected before and has not been heard since it was asked; of any other it is a
// first suspicion.
func (m *Machine) PingFailed(now time.Time, ping Ping, certain bool, reason string) {
	now = m.advance(now)
	n := ping.To
	p := m.peers[n]
	if p != nil && !certain && (!p.pinging || p.heard.After(ping.Sent)) {
		m.suspect(now, n, Node{})
	} else {
		m.lose(now, n, reason)
	}
	if p != nil && p.gone {
		p.mute = !certain
	}
	m.reconsider(now)
}

// Undelivered tells that a message could not be delivered. That may be the fault
// of an old connection, so the node is asked; where nobody listens, the answer
// comes within a millisecond.
func (m *Machine) Undelivered(now time.Time, n Node) {
	now = m.advance(now)
	m.suspect(now, n, Node{})
	m.reconsider(now)
}

// Progress tells that the running group has completed a transition.
func (m *Machine) Progress(transition uint64) {
	m.failures = 0
	m.self.Transition = transition
	m.heal()
}

// Moved tells that the state of a node outside, which has promised nothing, has
// come to another transition.
func (m *Machine) Moved(s Stand) {
	m.stand = s
	m.self.Transition = s.Transition
}

// Caught tells that this node need not copy any longer before it is taken in: it
// keeps up with the members, or cannot, and they have to wait for it.
func (m *Machine) Caught(now time.Time) {
	now = m.advance(now)
	if !m.self.Following {
		return
	}
	m.self.Following, m.waiting = false, now
	m.emit(Announce{m.self})
	if p := m.peers[m.coordinator()]; p != nil && m.phase == idle && m.accepted == nil {
		m.send(p.fact.Node(), p.fact.Addr, Msg{Hello: &Hello{}})
	}
	m.reconsider(now)
}

// Measured tells how fast this node is, in samples per second, and has gossip
// tell how far it has come, now and then where there are many. Call it about
// once a second.
func (m *Machine) Measured(speed float32) {
	m.self.Speed = speed
	m.measured++
	if m.measured > m.many(able)/crowd {
		m.measured = 0
		m.emit(Announce{m.self})
	}
}

// crowd is how many nodes may each announce something every second. Gossip
// carries some 25 facts a second, whatever the number of nodes; more of them
// would hold up the news of who comes and goes.
const crowd = 32

// tellProgress announces what is good to know but decides nothing, where it
// does not hold up anything that does.
func (m *Machine) tellProgress() {
	if m.many(able) <= crowd {
		m.emit(Announce{m.self})
	}
}

// Ready tells that gossip has found the others, or that there are none to be
// found. Before that a node that never trained does not start alone.
func (m *Machine) Ready(now time.Time) {
	now = m.advance(now)
	m.ready = true
	m.reconsider(now)
}

// Finished tells whether the state is final.
func (m *Machine) Finished(is bool) {
	if m.self.Finished != is {
		m.self.Finished = is
		m.emit(Announce{m.self})
	}
}

// Leave starts an orderly exit: at the end of the step if a group runs. The
// caller goes once the group is gone and the node is not Bound.
func (m *Machine) Leave(now time.Time) {
	if m.leaving {
		return
	}
	m.advance(now)
	m.leaving, m.self.Leaving, m.chiefKnown = true, true, false
	if m.mine != nil {
		m.dropProposal()
	}
	m.emit(Announce{m.self})
	m.boundary("this node leaves")
}

// Quiet tells that the running group's goroutines are gone, and where the state
// stands. A zero cause is a boundary; leaving lists the members that
// said in the last header that they go.
func (m *Machine) Quiet(now time.Time, s Stand, cause Cause, leaving []Node) {
	now = m.advance(now)
	asked := m.phase == stopping
	m.phase, m.stand = idle, s
	m.self.Transition = s.Transition
	m.waiting, m.joinsSince = now, time.Time{}
	m.lost, m.noticed = cause.Blame, cause.By == m.Self() && !cause.Blame.IsZero()
	m.tellProgress()
	for _, n := range leaving {
		if p := m.peers[n]; p != nil {
			p.fact.Leaving = true
			m.regard(p)
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
	now = m.advance(now)
	m.learn(msg.From)
	from := msg.From.Node()
	m.peers[from].heard = now
	switch p := m.peers[from]; {
	case m.unwanted(p):
		m.dismiss(p)
	case msg.Expel != nil && msg.Expel.Incarnation == m.self.Incarnation:
		m.emit(Expelled{msg.Expel.Reason, msg.Expel.Final})
	case msg.Hello != nil:
		m.onHello(now, *msg.Hello)
	case msg.Change != nil:
		m.onChange(now, from, msg.Change)
	case msg.Ask != nil:
		m.onAsk(now, from, *msg.Ask)
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
func (m *Machine) Tick(now time.Time) { m.reconsider(m.advance(now)) }

// --- what is known of others ---

func (m *Machine) learn(f Fact) {
	if f.Node() == m.Self() || f.ID == "" {
		return
	}
	m.hearGeneration(f.Generation)
	p := m.peers[f.Node()]
	if p == nil {
		p = &peer{timeout: m.cfg.PingAfter, gone: true}
		m.peers[f.Node()] = p
	}
	if !p.gone && !p.left && !p.pinging && sameStanding(p.fact, f) {
		p.fact = f
		return
	}
	if p.gone && p.mute {
		m.forbear(p)
	}
	p.fact, p.gone, p.left, p.pinging, p.reporter = f, false, false, false, Node{}
	m.regard(p)
	if f.Trajectory != m.self.Trajectory && !p.told {
		p.told = true
		m.emit(Stranger{f, m.strangerGoesFirst(f)})
	}
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
	if p == nil || p.gone {
		return
	}
	if p.pinging {
		if p.reporter.IsZero() {
			p.reporter = by
		}
		return
	}
	p.pinging, p.reporter = true, by
	m.regard(p)
	m.ping(now, p)
}

func (m *Machine) ping(now time.Time, p *peer) {
	p.pinged = now
	m.emit(Ping{p.fact.Node(), p.fact.Addr, p.timeout, now})
}

// canvass asks all members of a view at once whether they live, and has them ask
// likewise, as soon as one of them takes long to answer: a network that is cut in two
// takes many, who cost one ping's time together and not one after another. Where there
// are very many, all asking all would be too much: the ring finds them one by one.
func (m *Machine) canvass(now time.Time) {
	v := m.accepted
	if v == nil {
		v = m.last
	}
	if v == nil || m.many(asked) == 0 || v.World() > crowd || now.Sub(m.canvassed) < m.cfg.PingAfter {
		return
	}
	slow := slices.IndexFunc(v.Members, func(w Member) bool {
		p := m.peers[w.Node()]
		return p != nil && p.marks&asked != 0 && now.Sub(p.pinged) >= m.cfg.Retry
	})
	if slow < 0 {
		return
	}
	m.canvassed = now
	for _, w := range v.Members {
		p := m.peers[w.Node()]
		if p == nil || p.gone || p.pinging {
			continue
		}
		m.suspect(now, w.Node(), Node{})
		if m.phase != idle && m.last == v {
			m.send(w.Node(), w.Addr, Msg{Hello: &Hello{View: v.Name(), Lost: v.Members[slow].Node()}})
		}
	}
}

// lose takes a node for dead until it gives a sign of life.
func (m *Machine) lose(now time.Time, n Node, reason string) {
	p := m.peers[n]
	if p == nil || p.gone {
		return
	}
	p.lost++
	p.barred = now.Add(m.cfg.Retry << min(p.lost, 8))
	m.ends(p, p.barred)
	m.bury(now, p)
	m.hurts(p)
	if m.runsWith(n) {
		m.phase = stopping
		m.emit(Halt{Cause{Blame: n, By: m.Self(), Reason: reason}})
	}
}

// --- the coordinator's side ---

// reconsider does whatever the present state asks for. It is called after every
// event, so no case has to be remembered anywhere else.
func (m *Machine) reconsider(now time.Time) {
	if m.over() {
		return
	}
	m.canvass(now)
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
	case m.coordinator() != m.Self():
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
	if m.self.Finished || m.last != nil || m.phase != idle || m.accepted != nil { // who has promised to come gets the state
		return false
	}
	if p := m.first(finisher, func(*peer) bool { return true }); p != nil {
		m.emit(Over{p.fact})
		return true
	}
	return false
}

// gatherJoins asks for a boundary once somebody has waited long enough to join.
func (m *Machine) gatherJoins(now time.Time) {
	switch {
	case m.many(joining) == 0 || m.self.Finished:
		m.joinsSince = time.Time{}
	case m.joinsSince.IsZero():
		m.joinsSince = now
	case now.Sub(m.joinsSince) < m.cfg.Gather || m.crowding(now):
	case m.keptOut(now):
		m.joinsSince = time.Time{}
	default:
		m.boundary("nodes wait to join")
	}
}

// flock is how many joins make it likely that more are on their way.
const flock = 8

// crowding tells whether a flock waits to join and grows: then it is better to
// wait a little longer than to change views for each few of them.
func (m *Machine) crowding(now time.Time) bool {
	return m.many(joining) > flock && now.Sub(m.arrived) < m.cfg.Gather && now.Sub(m.joinsSince) < 10*m.cfg.Gather
}

func (m *Machine) boundary(reason string) {
	if m.phase == running {
		m.phase = stopping
		m.emit(Boundary{reason})
	}
}

// considerProposing proposes the next view unless there is a reason to wait.
func (m *Machine) considerProposing(now time.Time) {
	if m.joinsSince.IsZero() {
		m.joinsSince = now
	}
	if reason := m.whyWait(now); reason != "" {
		m.complain(now, reason)
		return
	}
	m.complain(now, "")
	m.propose(now, m.wanted())
}

func (m *Machine) whyWait(now time.Time) string {
	first := m.first(stranger, func(p *peer) bool { return m.strangerGoesFirst(p.fact) })
	m.callIn()
	here := 1 + m.many(able)
	switch {
	case first != nil:
		return "word from " + first.fact.ID + ", which walks another trajectory"
	case m.many(asked) > 0, now.Before(m.notBefore), now.Before(m.graceUntil), !m.asideUntil.IsZero():
		return aMoment
	case m.self.Finished: // nothing is left to wait for
	case here < m.cfg.MinNodes:
		return fmt.Sprintf("%d nodes, %s", m.cfg.MinNodes, m.present())
	case m.last != nil:
	case !m.ready && now.Sub(m.born) < m.cfg.ExpectFor:
		return "others to be found"
	case here < m.cfg.Expect && now.Sub(m.born) < m.cfg.ExpectFor:
		return fmt.Sprintf("%d nodes to start with, %s", m.cfg.Expect, m.present())
	case m.crowding(now) && (here < m.cfg.Expect || m.cfg.Expect == 0):
		return aMoment
	}
	return ""
}

// callIn counts on those who copy in the background, where nobody trains without
// them: then nobody is kept from it by waiting.
func (m *Machine) callIn() {
	if m.many(following) == 0 || 1+m.many(able) >= m.cfg.MinNodes {
		return
	}
	for _, p := range m.peers {
		if p.marks&following != 0 {
			p.called = true
			m.regard(p)
		}
	}
}

// present counts those who are here, and names them where they are few.
func (m *Machine) present() string {
	here := 1 + m.many(able)
	if here > 16 {
		return fmt.Sprintf("%d here", here)
	}
	return fmt.Sprintf("%d here (%s)", here, ids(m.wanted()))
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
	v := (&View{Trajectory: m.self.Trajectory, Generation: gen, Proposer: m.Self(), MinNodes: m.cfg.MinNodes, Members: ring}).sealed()
	if v.Rank(m.Self()) < 0 {
		m.standAside(now)
		return
	}
	m.mine = m.newProposal(now, v)
	m.accept(now, v)
	m.pursue(now)
}

func (m *Machine) newProposal(now time.Time, v *View) *proposal {
	p := &proposal{view: v, name: v.Name(), remind: reminder(v), seats: make([]seat, v.World()), missing: v.World(), scanned: now}
	if m.last != nil {
		p.change = changeOf(m.last, v)
	}
	for rank, w := range v.Members {
		p.seats[rank] = seat{peer: m.peers[w.Node()], heard: now, whole: p.change == nil || m.last.Rank(w.Node()) < 0}
	}
	return p
}

// pursue repeats the proposal to whoever has not acknowledged, gives it up when
// a member is lost, and starts the view when all have.
func (m *Machine) pursue(now time.Time) {
	p := m.mine
	if p.stop != "" {
		m.pursueStop(now, p)
		return
	}
	m.findSilent(now, p)
	switch {
	case p.broken:
		m.dropProposal()
		m.considerAgain(now)
	case p.missing == 0:
		m.startView(now)
	case p.sent.IsZero() || now.Sub(p.sent) >= p.pause:
		m.sendProposal(now, p)
	}
}

// findSilent asks members that are silent for longer than the sending takes
// whether they live, and gives up those of whom nothing comes.
func (m *Machine) findSilent(now time.Time, p *proposal) {
	if now.Sub(p.scanned) < m.cfg.Retry/4 {
		return
	}
	p.scanned = now
	late := p.pause - m.cfg.Retry // with a round of messages
	for i := range p.seats {
		s := &p.seats[i]
		if s.acked || s.peer == nil {
			continue
		}
		switch silent := now.Sub(s.heard); {
		case silent > m.patience(s.peer)+late:
			reason := "no answer to a proposal for " + m.patience(s.peer).String()
			m.lose(now, s.peer.fact.Node(), reason)
			s.peer.mute = true
		case silent > 2*(m.cfg.Retry+late) && now.Sub(s.peer.pinged) >= m.cfg.Retry:
			m.suspect(now, s.peer.fact.Node(), Node{})
		}
	}
}

// sendProposal sends each member as little as it can make the view of.
func (m *Machine) sendProposal(now time.Time, p *proposal) {
	bytes := 0
	for rank := range p.seats {
		if s := &p.seats[rank]; !s.acked && s.peer != nil {
			bytes += m.sendTo(p, rank)
		}
	}
	p.sent = now
	p.pause = max(m.pace(len(p.seats)), time.Duration(bytes)*time.Second/repeatBytes)
}

func (m *Machine) sendTo(p *proposal, rank int) (bytes int) {
	s, w := &p.seats[rank], p.view.Members[rank]
	switch {
	case s.has:
		m.send(w.Node(), w.Addr, Msg{Change: p.remind})
		return len(p.remind.wire)
	case s.whole:
		m.send(w.Node(), w.Addr, Msg{Propose: p.view})
		return len(p.view.packed())
	}
	m.send(w.Node(), w.Addr, Msg{Change: p.change})
	return len(p.change.wire)
}

// A node that speaks with n others repeats itself so slowly that it need not
// hear more than 5000 of them a second, nor send more than half of what a link
// of 1 Gbit/s carries. Up to a thousand nodes Retry is slower than that.
const (
	perAnswer   = 200 * time.Microsecond
	repeatBytes = 60_000_000 // a second
)

// pace is the time between two repetitions where n nodes are spoken to, or speak
// to one.
func (m *Machine) pace(n int) time.Duration { return max(m.cfg.Retry, time.Duration(n)*perAnswer) }

func (m *Machine) dropProposal() { m.mine, m.accepted = nil, nil }

// considerAgain proposes anew at once where that is this node's part.
func (m *Machine) considerAgain(now time.Time) {
	if m.phase == idle && m.coordinator() == m.Self() {
		m.considerProposing(now)
	}
}

func (m *Machine) send(to Node, addr string, msg Msg) {
	msg.From = m.self
	m.emit(Send{to, addr, msg})
}

// startView picks where training goes on: the greatest transition wins, of the states
// that outlive the last recall.
func (m *Machine) startView(now time.Time) {
	p := m.mine
	start := Start{View: p.name}
	for _, s := range p.seats {
		if r := s.ack.Recall; r.Generation > start.Recall.Generation {
			start.Recall = r
		}
	}
	for _, s := range p.seats {
		if s.ack.outlives(start.Recall) {
			start.Transition = max(start.Transition, s.ack.Transition)
		}
	}
	if !m.compare(now, p, start) {
		return
	}
	for rank := range p.seats {
		if a := p.seats[rank].ack; a.at(start) {
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

// stopAll ends the run. Whoever did not hear of it might go on alone, and be the
// very node at fault: so it is said until all have gone.
func (m *Machine) stopAll(now time.Time, p *proposal, reason string) {
	p.stop, p.sent = reason, time.Time{}
	for i := range p.seats {
		p.seats[i].heard = now
	}
	m.pursueStop(now, p)
}

func (m *Machine) pursueStop(now time.Time, p *proposal) {
	waiting := false
	again := now.Sub(p.sent) >= m.cfg.Retry
	for rank, w := range p.view.Members {
		q := m.peers[w.Node()]
		if w.Node() == m.Self() || q == nil || q.gone || now.Sub(p.seats[rank].heard) > m.cfg.Patience {
			continue
		}
		waiting = true
		if again {
			m.send(w.Node(), w.Addr, Msg{Stop: &Stop{p.name, p.stop}})
			m.suspect(now, w.Node(), Node{})
		}
	}
	if again {
		p.sent = now
	}
	if !waiting {
		m.dropProposal()
		m.emit(Fail{fmt.Errorf("view: %s", p.stop)})
	}
}

// standAside lets another node coordinate for a doubling while.
func (m *Machine) standAside(now time.Time) {
	m.refusals++
	m.asideUntil = now.Add(m.cfg.Retry << min(m.refusals, 6))
	m.wake(m.asideUntil)
	m.chiefKnown = false
}

// --- the member's side ---

// onHello takes the word of one whose group has broken while ours, the same, has
// not yet, or who asks a member and gets no answer: whoever it lost is asked. So is
// whoever we have not asked since.
func (m *Machine) onHello(now time.Time, h Hello) {
	p := m.peers[h.Lost]
	if p == nil || m.last == nil || h.View != m.last.Name() || m.last.Rank(h.Lost) < 0 {
		return
	}
	if m.phase != idle && now.Sub(p.pinged) >= m.cfg.Retry || m.phase == idle && p.pinged.Before(m.waiting) {
		m.suspect(now, h.Lost, Node{})
	}
}

// onChange makes the view that a change leads to, and takes it as proposed.
func (m *Machine) onChange(now time.Time, from Node, c *Change) {
	switch {
	case m.leaving:
		m.refuse(from, c.View, "leaving")
		return
	case m.accepted != nil && m.accepted.Name() == c.View: // a repetition
		m.answer(now, from, m.accepted)
		return
	case !newer(c.Generation, c.View, m.gen, m.genName):
		m.refuse(from, c.View, fmt.Sprintf("generation %d is older than %d", c.Generation, m.gen))
		return
	}
	for _, base := range [...]*View{m.accepted, m.last} {
		if base == nil || base.Name() != c.Base {
			continue
		}
		if v, err := c.from(base); err == nil {
			m.onPropose(now, from, v)
			return
		}
	}
	m.send(from, m.peers[from].fact.Addr, Msg{Ask: &Ask{c.View}})
}

// onAsk sends the whole view to a member that could not make it of a change.
func (m *Machine) onAsk(now time.Time, from Node, a Ask) {
	if m.mine == nil || m.mine.name != a.View {
		return
	}
	if rank := m.mine.view.Rank(from); rank >= 0 {
		s := &m.mine.seats[rank]
		s.has, s.whole, s.heard = false, true, now
		m.sendTo(m.mine, rank)
	}
}

func (m *Machine) onPropose(now time.Time, from Node, v *View) {
	name := v.sealed().Name()
	if m.mine != nil && m.mine.stop != "" {
		return
	}
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
	m.doomed = m.phase != idle && m.losesIn(v)
	m.boundary("a wider view is accepted")
	if m.phase == idle {
		m.acknowledge(now)
	}
}

// losesIn tells whether a member of the running group that does not leave is
// missing in v: then the proposer knows that our group is broken.
func (m *Machine) losesIn(v *View) bool {
	return slices.ContainsFunc(m.last.Members, func(w Member) bool {
		p := m.peers[w.Node()]
		return v.Rank(w.Node()) < 0 && p != nil && !p.fact.Leaving
	})
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
	a := Ack{m.accepted.Name(), m.accepted.Generation, m.stand}
	if m.mine != nil && m.mine.name == a.View {
		m.mine.acknowledged(now, m.Self(), a)
		return
	}
	if p := m.peers[m.accepted.Proposer]; p != nil {
		m.send(m.accepted.Proposer, p.fact.Addr, Msg{Ack: &a})
	}
}

// acknowledged notes the acknowledgement of a member.
func (p *proposal) acknowledged(now time.Time, n Node, a Ack) {
	s := &p.seats[p.view.Rank(n)]
	if !s.acked {
		p.missing--
	}
	s.acked, s.has, s.ack, s.heard = true, true, a, now
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
	if m.phase != idle && m.doomed && now.Sub(m.waiting) >= 2*m.cfg.Retry {
		// Those who hear of a break from their neighbours hear it one after another.
		m.doomed, m.phase = false, stopping
		m.emit(Halt{Cause{By: m.accepted.Proposer, Reason: fmt.Sprintf("generation %d goes on without all of this group", m.accepted.Generation)}})
	}
	if pause := 2 * m.pace(m.accepted.World()); m.phase == idle && now.Sub(m.waiting) >= pause && now.Sub(p.pinged) >= pause {
		m.suspect(now, p.fact.Node(), Node{}) // it may have gone since it proposed, and nothing else would tell
	}
	if m.phase == idle && now.Sub(m.ackSent) >= m.pace(m.accepted.World()) {
		if now.Sub(m.waiting) > 3*m.cfg.Patience {
			m.pass(p, now.Add(m.cfg.Patience))
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
	n := m.coordinator()
	p := m.peers[n]
	every := m.pace(m.many(able))
	if p == nil || p.pinging || now.Sub(p.pinged) < every || !m.noticed && now.Sub(m.waiting) < every-m.cfg.Retry {
		return
	}
	if m.many(able) > 8*crowd && now.Sub(m.helloed) < m.cfg.Retry { // a newcomer may take one after another for the coordinator
		return
	}
	if m.self.Following && p.fact.Entry != 0 {
		m.waiting = now // for nothing, yet
	}
	if now.Sub(m.waiting) > m.cfg.Patience {
		m.pass(p, now.Add(m.cfg.Patience))
		m.waiting = now
		return
	}
	m.helloed, m.noticed = now, false
	hello := Hello{Lost: m.lost}
	if m.last != nil {
		hello.View = m.last.Name()
	}
	m.send(n, p.fact.Addr, Msg{Hello: &hello})
	if p.heard.Before(p.pinged) { // the last one is not answered yet
		m.suspect(now, n, Node{})
	} else {
		m.ping(now, p)
	}
	if now.Sub(m.waiting) > m.cfg.Patience/2 {
		m.complain(now, "a proposal of the coordinator "+n.ID)
	}
}

func (m *Machine) onHold(now time.Time, from Node, h Hold) {
	if m.mine == nil || m.mine.name != h.View {
		return
	}
	if rank := m.mine.view.Rank(from); rank >= 0 {
		s := &m.mine.seats[rank]
		s.has, s.heard = true, now
	}
}

func (m *Machine) onAck(now time.Time, from Node, a Ack) {
	switch {
	case m.mine != nil && m.mine.name == a.View && m.mine.view.Rank(from) >= 0:
		m.mine.acknowledged(now, from, a)
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
		m.last, m.self.Entry, m.self.Following = nil, 0, m.cfg.Follow
		m.regardAll()
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
	entered := m.self.Entry != v.Members[rank].Entry
	m.mine, m.accepted = nil, nil
	m.phase, m.last = running, v
	m.self.Generation, m.self.Entry, m.self.Following = v.Generation, v.Members[rank].Entry, false
	m.joinsSince, m.complaint, m.lost, m.noticed, m.doomed = time.Time{}, "", Node{}, false, false
	for _, w := range v.Members { // the proposer has heard of each of them
		if p := m.peers[w.Node()]; p != nil {
			if p.gone && p.mute {
				m.forbear(p)
			}
			p.gone, p.pinging, p.called, p.fact.Following = false, false, false, false
		}
	}
	m.regardAll()
	m.failures++
	if m.failures > 2 {
		m.notBefore = now.Add(m.cfg.Retry << min(m.failures-2, 4))
	}
	for k, l := range m.bad {
		if now.Sub(l.until) > 8*m.cfg.Patience {
			delete(m.bad, k)
		}
	}
	if entered {
		m.emit(Announce{m.self})
	} else {
		m.tellProgress()
	}
	m.emit(Install{v, rank, s})
}

// Status is what a person or a ping may ask.
func (m *Machine) Status(time.Time) (coordinator Node, waitingFor string) {
	return m.coordinator(), m.complaint
}

// Generation returns the newest generation that this node has heard of.
func (m *Machine) Generation() uint64 { return m.gen }
