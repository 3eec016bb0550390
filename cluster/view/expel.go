package view

import (
	"fmt"
	"strings"
	"time"
)

// MaxReturns is how often a node is let in again that was expelled: its process
// starts anew with nothing, and copies the state of others. One that is at fault once
// more after that stays out, whatever it says of itself.
const MaxReturns = 3

// Expel tells a node that others have proved it at fault and train without it.
type Expel struct {
	Incarnation uint64 // of the life that is expelled
	Reason      string // the evidence
	Final       bool   // no life of that node is let in again
}

// Expelled ends this life: it was proved to be at fault.
type Expelled struct {
	Reason string
	Final  bool // it need not come back
}

func (Expelled) effect() {}

// Expel takes training's word that a member is at fault. That life of it is never a
// member again, and after MaxReturns of them no other is.
func (m *Machine) Expel(now time.Time, n Node, reason string) {
	now = m.advance(now)
	if p := m.peers[n]; p != nil {
		m.expel(p, reason)
	}
	m.reconsider(now)
}

// Recall is an event: the members of a generation have gone back to an older state, since
// gradients in the one they had were proved wrong, or might be.
type Recall struct {
	Generation uint64 // 0 if there was none
	At         uint64 // transition of the state that they had: none of the gradients in question came later
}

// Stand is where the state of a node stands.
type Stand struct {
	Transition uint64
	Digest     [32]byte
	Proved     uint64 `json:",omitzero"` // transition up to which all gradients in it were found right, or came from a checkpoint
	Recall     Recall `json:",omitzero"` // the last one that this state has behind it
}

// outlives tells whether a state is as good as before a recall: it was made after that,
// or all that was in question then has been found right. Who knows nothing of a recall,
// having been cut off, is behind otherwise, however far it has come.
func (s *Stand) outlives(r Recall) bool { return s.Recall == r || s.Proved >= r.At }

// at tells whether a node's state is the one that a view starts from.
func (a *Ack) at(s Start) bool { return a.Transition == s.Transition && a.outlives(s.Recall) }

func (m *Machine) expel(p *peer, reason string) {
	if p.expelled != "" {
		return
	}
	p.expelled = reason
	m.expulsions[p.fact.ID]++
	m.regardAll()
	m.dismiss(p)
}

// unwanted tells that p is not to be a member, whatever it says.
func (m *Machine) unwanted(p *peer) bool {
	return p.expelled != "" || m.expulsions[p.fact.ID] > MaxReturns
}

// dismiss tells one that is unwanted. It is told whenever it says something.
func (m *Machine) dismiss(p *peer) {
	n := m.expulsions[p.fact.ID]
	reason := p.expelled
	if reason == "" {
		reason = fmt.Sprintf("%s was expelled %d times and is not let in again", p.fact.ID, n)
	}
	m.send(p.fact.Node(), p.fact.Addr, Msg{Expel: &Expel{p.fact.Incarnation, reason, n > MaxReturns}})
}

// Odd tells which of the digests at one transition differ from what most of them
// are; none do where all agree. known is false where there is no majority.
func Odd(digests [][]byte) (odd []int, known bool) {
	count := map[string]int{}
	major := ""
	for _, d := range digests {
		count[string(d)]++
		if count[string(d)] > count[major] {
			major = string(d)
		}
	}
	if len(count) > 1 && 2*count[major] <= len(digests) {
		return nil, false
	}
	for i, d := range digests {
		if string(d) != major {
			odd = append(odd, i)
		}
	}
	return odd, true
}

// Differs says of whom most others differ; it is the evidence.
func Differs(id string, transition uint64, others int) string {
	return fmt.Sprintf("the state of %s differs from that of %d others at transition %d: its memory, its processor or its program is at fault", id, others, transition)
}

// Undecided says that there is no majority.
func Undecided(ids []string, transition uint64) string {
	return fmt.Sprintf("the replicas of %s differ at transition %d and there is no majority: nobody can know who is right", strings.Join(ids, " and "), transition)
}

// compare holds the digests of those at one transition against each other: equal
// inputs give equal bits, so a difference is a fault of somebody's machine. Whoever is
// alone with it is expelled, and another view proposed. It reports whether all agree.
func (m *Machine) compare(now time.Time, p *proposal, start Start) bool {
	at := start.Transition
	var digests [][]byte
	var ranks []int
	var ids []string
	for rank := range p.seats {
		if a := &p.seats[rank].ack; a.at(start) {
			digests, ranks, ids = append(digests, a.Digest[:]), append(ranks, rank), append(ids, p.view.Members[rank].ID)
		}
	}
	odd, known := Odd(digests)
	switch {
	case !known:
		m.stopAll(now, p, Undecided(ids, at))
		return false
	case len(odd) == 0:
		return true
	}
	m.dropProposal()
	for _, i := range odd {
		m.blame(p, ranks[i], Differs(ids[i], at, len(digests)-len(odd)))
	}
	m.considerAgain(now)
	return false
}

// blame expels a member of a proposal, or ends this life if it is the one.
func (m *Machine) blame(p *proposal, rank int, reason string) {
	m.emit(Note{"fault", p.view.Members[rank].Node(), reason})
	if q := p.seats[rank].peer; q != nil {
		m.expel(q, reason)
	} else {
		m.emit(Expelled{Reason: reason})
	}
}
