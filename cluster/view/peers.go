package view

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// peer is what this node knows of another one. Whoever changes one calls
// Machine.regard, which keeps the counts.
type peer struct {
	fact     Fact
	marks    marks
	gone     bool          // left, or proved dead; any later sign of life clears it
	pinging  bool          // a suspicion is open
	left     bool          // said good-bye
	told     bool          // reported as a stranger
	sore     bool          // it is in Machine.sore
	timed    bool          // it is in Machine.timed
	called   bool          // it counts as able though it copies in the background
	reporter Node          // who reported a broken link to it, while pinging
	mute     bool          // it was lost for its silence, which proves nothing
	timeout  time.Duration // of a ping; see forbear
	lost     int           // how often it was lost since it last completed a transition with us
	passed   time.Time     // not taken for the coordinator until then; zero if it may be
	barred   time.Time     // kept out until then: it was lost, and may be again at once; zero if not
	pinged   time.Time     // when it was last pinged
	heard    time.Time     // when it last gave a sign of life itself
	buried   time.Time     // when it was last found gone
	expelled string        // why it is never a member again; "" if it may be
}

// marks are what a peer counts as. After an event a machine asks how many there
// are of a kind, and looks at each peer only if there are any.
type marks uint8

const (
	able      marks = 1 << iota // could be in the next view
	joining                     // able, and no member of the last view
	asked                       // able, and being pinged
	stranger                    // lives, and walks another trajectory
	finisher                    // walks ours and says that it is finished
	following                   // could be able, but copies in the background
	kinds     = iota
)

// grave is where a peer is found when it is time to forget it.
type grave struct {
	p     *peer
	since time.Time
}

// How long, and how many, dead nodes are remembered. A node that comes back
// under its old incarnation after that is greeted as a new one.
const (
	remember  = 10 * time.Minute
	maxGraves = 4096
)

// many tells how many peers have a mark.
func (m *Machine) many(k marks) int {
	for i := range m.tally {
		if k == 1<<i {
			return m.tally[i]
		}
	}
	return 0
}

// sameStanding tells whether two facts of one node differ only in what decides
// nothing.
func sameStanding(a, b Fact) bool {
	return a.Entry == b.Entry && a.Leaving == b.Leaving && a.Finished == b.Finished && a.Following == b.Following &&
		a.Addr == b.Addr && a.Zone == b.Zone && a.Trajectory == b.Trajectory
}

// regard brings all that is counted up to date after a change of p.
func (m *Machine) regard(p *peer) {
	was := p.marks
	p.marks = m.marksOf(p)
	for i := range m.tally {
		m.tally[i] += int(p.marks>>i&1) - int(was>>i&1)
	}
	if p.marks&^was&joining != 0 {
		m.arrived = m.now
	}
	if was&^p.marks&able != 0 && m.mine != nil && m.mine.view.Rank(p.fact.Node()) >= 0 {
		m.mine.broken = true
	}
	switch {
	case !m.chiefKnown:
	case p == m.chief:
		m.chiefKnown = false
	case m.eligible(p):
		m.chiefKnown = bySeniority(m.seniority(p.fact), m.chiefSeat) > 0
	}
}

// regardAll is for what changes the standing of all: another view.
func (m *Machine) regardAll() {
	m.chiefKnown = false
	for _, p := range m.peers {
		m.regard(p)
	}
}

func (m *Machine) marksOf(p *peer) (k marks) {
	if p.fact.Trajectory != m.self.Trajectory {
		if !p.gone {
			k = stranger
		}
		return k
	}
	if m.unwanted(p) {
		return 0
	}
	if p.fact.Finished && (p.left || m.counts(p)) {
		k |= finisher
	}
	if !m.counts(p) || !p.barred.IsZero() {
		return k
	}
	if p.fact.Following && !p.called && m.last != nil && m.last.Rank(p.fact.Node()) < 0 {
		return k | following
	}
	k |= able
	if p.pinging {
		k |= asked
	}
	if m.last == nil || m.last.Rank(p.fact.Node()) < 0 {
		k |= joining
	}
	return k
}

// counts tells whether p could be a member of the next view, unless it is barred.
func (m *Machine) counts(p *peer) bool {
	return !p.gone && !p.fact.Leaving && p.fact.Trajectory == m.self.Trajectory
}

// eligible tells whether p may coordinate.
func (m *Machine) eligible(p *peer) bool { return p.marks&able != 0 && p.passed.IsZero() }

// coordinator returns the most senior node that lives, stays and has not been
// passed over. It is remembered until something changes that could change it.
func (m *Machine) coordinator() Node {
	if !m.chiefKnown {
		m.findChief()
	}
	if m.chief == nil {
		return m.Self()
	}
	return m.chief.fact.Node()
}

func (m *Machine) findChief() {
	m.chief, m.chiefSeat = nil, m.seniority(m.self)
	found := !m.leaving && m.asideUntil.IsZero()
	for _, p := range m.peers {
		if !m.eligible(p) {
			continue
		}
		if s := m.seniority(p.fact); !found || bySeniority(s, m.chiefSeat) < 0 {
			m.chief, m.chiefSeat, found = p, s, true
		}
	}
	m.chiefKnown = found
}

// seniority returns n's place in the order of coordinators. Only members of the
// last installed view have entered; a newcomer, who has none, believes facts.
func (m *Machine) seniority(f Fact) Member {
	s := Member{ID: f.ID, Incarnation: f.Incarnation, Addr: f.Addr, Zone: f.Zone}
	if m.last == nil {
		s.Entry = f.Entry
	} else if r := m.last.Rank(f.Node()); r >= 0 {
		s.Entry = m.last.Members[r].Entry
	}
	return s
}

// wanted lists who should be in the next view, this node included.
func (m *Machine) wanted() []Member {
	want := append(make([]Member, 0, 1+m.many(able)), m.seniority(m.self))
	for _, p := range m.peers {
		if p.marks&able != 0 {
			want = append(want, m.seniority(p.fact))
		}
	}
	slices.SortFunc(want, bySeniority)
	return want
}

// first returns the first by name of the peers with a mark that is also so, or nil.
func (m *Machine) first(k marks, so func(*peer) bool) (first *peer) {
	if m.many(k) == 0 {
		return nil
	}
	for _, p := range m.peers {
		if p.marks&k != 0 && so(p) && (first == nil || byName(p.fact.Node(), first.fact.Node()) < 0) {
			first = p
		}
	}
	return first
}

func byName(a, b Node) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Incarnation, b.Incarnation))
}

// strangerGoesFirst decides which of two nodes on different trajectories does
// not belong: the one that has not trained yet, or else the later name.
func (m *Machine) strangerGoesFirst(f Fact) bool {
	if (f.Entry != 0) != (m.self.Entry != 0) {
		return f.Entry != 0
	}
	return f.ID < m.self.ID
}

// bury takes a node for gone. It is forgotten after a while.
func (m *Machine) bury(now time.Time, p *peer) {
	p.gone, p.pinging, p.buried = true, false, now
	m.graves = append(m.graves, grave{p, now})
	m.regard(p)
	m.forget(now)
}

// forget drops those who have been gone for long, so that a run of many lives
// remembers the living and a bounded number of others.
func (m *Machine) forget(now time.Time) {
	for len(m.graves) > 0 && (len(m.graves) > maxGraves || now.Sub(m.graves[0].since) > remember) {
		g := m.graves[0]
		m.graves = m.graves[1:]
		if n := g.p.fact.Node(); g.p.gone && g.p.buried.Equal(g.since) && m.peers[n] == g.p {
			g.p.left = false // so that it counts as nothing
			m.regard(g.p)
			delete(m.peers, n)
		}
	}
}

// forbear gives p more time to answer: it lives, and took long to show it. One who
// was lost for that gets all there is: what is learnt step by step costs a view each.
func (m *Machine) forbear(p *peer) {
	most := time.Duration(mostPatient * float64(m.cfg.PingAfter))
	if p.timeout = min(2*p.timeout, most); p.mute {
		p.timeout = most
	}
	p.mute = false
	m.hurts(p)
}

// mostPatient is how many times PingAfter the answer to a ping is waited for at most:
// so long that a machine which swaps can give one, and so short that a frozen node is
// out, and the others at work again, within five seconds all the same.
const mostPatient = 2.5

// patience is how long p may be without any progress in an exchange: twice as long, and
// twice that, where it was lost since it last completed a transition with us.
func (m *Machine) patience(p *peer) time.Duration { return m.cfg.Patience << min(p.lost, 2) }

// hurts has Progress look after p: it was lost, or suspected in vain.
func (m *Machine) hurts(p *peer) {
	if !p.sore {
		p.sore = true
		m.sore = append(m.sore, p)
	}
}

// healFor is how long it takes until what a peer's slowness has taught is forgotten, for the
// most part: longer than the pauses of a machine that swaps, or is frozen now and then.
const healFor = 30 * time.Second

// heal forgives the members of the running view a little: they completed a
// transition with us.
func (m *Machine) heal() {
	share := min(1, float64(m.now.Sub(m.healed))/float64(healFor))
	m.healed = m.now
	m.sore = slices.DeleteFunc(m.sore, func(p *peer) bool {
		n := p.fact.Node()
		if m.last.Rank(n) >= 0 {
			p.lost = 0
			if p.timeout -= time.Duration(share * float64(p.timeout-m.cfg.PingAfter)); p.timeout-m.cfg.PingAfter < m.cfg.PingAfter/100 {
				p.timeout = m.cfg.PingAfter
			}
		}
		p.sore = m.peers[n] == p && (p.lost > 0 || p.timeout > m.cfg.PingAfter)
		return !p.sore
	})
}

// pass has p not taken for the coordinator until then.
func (m *Machine) pass(p *peer, until time.Time) {
	p.passed = until
	m.ends(p, until)
	m.regard(p)
}

// ends has lapse look at a moment of p when it comes.
func (m *Machine) ends(p *peer, then time.Time) {
	if !p.timed {
		p.timed = true
		m.timed = append(m.timed, p)
	}
	m.wake(then)
}

// wake has lapse look at all moments then.
func (m *Machine) wake(then time.Time) {
	if m.lapses.IsZero() || then.Before(m.lapses) {
		m.lapses = then
	}
}

// lapse ends what has lasted its time: being barred, passed over, aside.
func (m *Machine) lapse(now time.Time) {
	if m.lapses.IsZero() || now.Before(m.lapses) {
		return
	}
	m.lapses = time.Time{}
	if m.came(now, &m.asideUntil) {
		m.chiefKnown = false
	}
	m.timed = slices.DeleteFunc(m.timed, func(p *peer) bool {
		barred, passed := m.came(now, &p.barred), m.came(now, &p.passed)
		if (barred || passed) && m.peers[p.fact.Node()] == p {
			m.regard(p)
		}
		p.timed = !p.barred.IsZero() || !p.passed.IsZero()
		return !p.timed
	})
}

// came clears a moment that has come; one that has not will be looked at again.
func (m *Machine) came(now time.Time, moment *time.Time) bool {
	switch {
	case moment.IsZero():
	case !now.Before(*moment):
		*moment = time.Time{}
		return true
	default:
		m.wake(*moment)
	}
	return false
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

// keptOut tells whether all who wait to join would be left out of the ring again
// for a bad link.
func (m *Machine) keptOut(now time.Time) bool {
	if len(m.bad) == 0 {
		return false
	}
	ring, _ := arrange(m.wanted(), m.isBad(now))
	return !slices.ContainsFunc(ring, func(w Member) bool { return w.Node() != m.Self() && m.last.Rank(w.Node()) < 0 })
}

// Peers lists what is known of the others that live, by name.
func (m *Machine) Peers() []Fact {
	var fs []Fact
	for _, p := range m.peers {
		if !p.gone {
			fs = append(fs, p.fact)
		}
	}
	slices.SortFunc(fs, func(a, b Fact) int { return byName(a.Node(), b.Node()) })
	return fs
}
