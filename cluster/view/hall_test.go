package view

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// hall is a room full of bare machines whose messages get lost, come twice and
// overtake one another. Training is a fake: it is quiet as soon as it is asked.
type hall struct {
	rnd      *rand.Rand
	now      time.Time
	machines []*Machine
	dead     []bool
	mail     []letter
	state    []uint64 // transition of each
	loss     int      // percent
	installs []Install
	since    []time.Time // of the installation
	wants    []bool      // a boundary was asked of it
	failed   error
	skew     map[int]time.Duration // of clocks
	log      []string              // of effects, if told to keep it
	logs     bool
}

// at tells what m's clock shows.
func (h *hall) at(m *Machine) time.Time { return h.now.Add(h.skew[h.index(m.Self())]) }

type letter struct {
	at   time.Time
	to   int
	do   func(m *Machine)
	back func() // what happens if nobody is there
}

func newHall(n int) *hall {
	h := &hall{rnd: rand.New(rand.NewPCG(uint64(n), 2)), now: time.Unix(1e9, 0), skew: map[int]time.Duration{}}
	for i := range n {
		h.add(i)
	}
	return h
}

func (h *hall) add(i int) {
	f := Fact{ID: fmt.Sprintf("n%d", i), Incarnation: uint64(i + 1), Addr: fmt.Sprint(i), Trajectory: [32]byte{1}}
	h.machines = append(h.machines, New(DefaultConfig(f), Stand{}, h.now))
	h.dead, h.state, h.installs, h.wants = append(h.dead, false), append(h.state, 0), append(h.installs, Install{}), append(h.wants, false)
	h.since = append(h.since, h.now)
	h.machines[i].Ready(h.now)
}

func (h *hall) later(to int, do func(m *Machine), back func()) {
	for copies := 1 + h.rnd.IntN(10)/9; copies > 0; copies-- {
		if h.rnd.IntN(100) >= h.loss {
			h.mail = append(h.mail, letter{h.now.Add(time.Duration(h.rnd.IntN(30)) * time.Millisecond), to, do, back})
		}
	}
}

func (h *hall) index(n Node) int { return int(n.Incarnation) - 1 }

// step lets ten milliseconds pass.
func (h *hall) step() {
	h.now = h.now.Add(10 * time.Millisecond)
	var rest []letter
	due := h.mail
	h.mail = nil
	for _, l := range due {
		switch {
		case l.at.After(h.now):
			rest = append(rest, l)
		case h.dead[l.to]:
			if l.back != nil {
				l.back()
			}
		default:
			l.do(h.machines[l.to])
		}
	}
	h.mail = append(h.mail, rest...)
	for i, m := range h.machines {
		if !h.dead[i] {
			m.Tick(h.at(m))
			h.train(i)
			h.perform(i)
		}
	}
}

// train ends groups that were asked to end, and groups of which a member died.
func (h *hall) train(i int) {
	m := h.machines[i]
	v := m.Running()
	if v == nil {
		return
	}
	for _, w := range v.Members {
		o := h.index(w.Node())
		if h.dead[o] {
			m.Quiet(h.at(m), Stand{Transition: h.state[i]}, Cause{Blame: w.Node(), By: m.Self(), Reason: "dead"}, nil)
			return
		}
		if other := h.machines[o].Running(); other == nil || other.Name() != v.Name() {
			if h.now.Sub(h.since[i]) > 2*time.Second { // its link never came up, or was closed
				m.Quiet(h.at(m), Stand{Transition: h.state[i]}, Cause{Blame: w.Node(), By: m.Self(), Reason: "no stream"}, nil)
				return
			}
			continue
		}
		if h.wants[o] { // said in its header: all end together
			m.Quiet(h.at(m), Stand{Transition: h.state[i]}, Cause{}, nil)
			return
		}
	}
}

func (h *hall) perform(i int) {
	m := h.machines[i]
	for _, e := range m.Take() {
		if h.logs {
			h.log = append(h.log, fmt.Sprintf("%s %s %s", h.now.Format(time.StampMilli), m.self.ID, describe(e)))
		}
		switch e := e.(type) {
		case Send:
			to := h.index(e.To)
			h.later(to, func(m *Machine) { m.Receive(h.at(m), e.Msg) }, func() {
				if !h.dead[i] {
					m.Undelivered(h.at(m), e.To)
				}
			})
		case Ping:
			h.ping(m, e)
		case Announce:
			for o := range h.machines {
				if o != i {
					f := e.Fact
					h.mail = append(h.mail, letter{h.now.Add(time.Duration(h.rnd.IntN(300)) * time.Millisecond), o, func(m *Machine) { m.Up(h.at(m), f) }, nil})
				}
			}
		case Boundary:
			h.wants[i] = true
		case Halt:
			m.Quiet(h.at(m), Stand{Transition: h.state[i]}, e.Cause, nil)
		case Install:
			h.installs[i], h.wants[i], h.since[i] = e, false, h.now
			h.state[i] = max(h.state[i], e.Start.Transition) + 1
			m.Progress(h.state[i])
		case Fail:
			h.failed = e.Err
		}
	}
}

// ping is answered, refused, or lost, which its sender is told after a while.
func (h *hall) ping(m *Machine, e Ping) {
	to := h.index(e.To)
	if h.rnd.IntN(100) < h.loss {
		h.mail = append(h.mail, letter{h.now.Add(e.Timeout), h.index(m.Self()), func(m *Machine) { m.PingFailed(h.at(m), e, false, "no answer") }, nil})
		return
	}
	h.mail = append(h.mail, letter{h.now.Add(time.Duration(h.rnd.IntN(30)) * time.Millisecond), to, func(o *Machine) {
		c, _ := o.Status(h.now)
		m.Ponged(h.at(m), e.To, Pong{Fact: o.Fact(), Generation: o.Generation(), Coordinator: c})
	}, func() { m.PingFailed(h.at(m), e, true, "refused") }})
}

// settled tells whether all living nodes run one view of exactly the living.
func (h *hall) settled() bool {
	var name Name
	living := 0
	for i, m := range h.machines {
		if h.dead[i] {
			continue
		}
		living++
		v := m.Running()
		if v == nil || h.wants[i] || name != (Name{}) && v.Name() != name {
			return false
		}
		name = v.Name()
	}
	for i, m := range h.machines {
		if !h.dead[i] {
			return m.Running().World() == living
		}
	}
	return false
}

func (h *hall) settle(t *testing.T, bound time.Duration) time.Duration {
	t.Helper()
	begun := h.now
	for !h.settled() {
		if h.now.Sub(begun) > bound {
			for i, m := range h.machines {
				if !h.dead[i] {
					c, w := m.Status(h.now)
					t.Logf("%s: %s generation %d, takes %s for the coordinator, waits for %q", m.self.ID, m.phase, m.gen, c.ID, w)
				}
			}
			t.Fatalf("no common view after %s (failure %v)", bound, h.failed)
		}
		h.step()
	}
	return h.now.Sub(begun)
}

func TestAllLivingNodesEndInOneView(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			n := 1 + int(seed%7)
			h := newHall(n)
			h.rnd = rand.New(rand.NewPCG(seed, 9))
			h.loss = int(seed%3) * 8
			h.settle(t, time.Minute)
			for range 4 {
				switch h.rnd.IntN(3) {
				case 0:
					h.add(len(h.machines))
				default:
					victim := h.rnd.IntN(len(h.machines))
					if living(h) > 1 {
						h.dead[victim] = true
					}
				}
				for range h.rnd.IntN(60) {
					h.step()
				}
			}
			h.settle(t, time.Minute)
			generations(t, h)
		})
	}
}

func living(h *hall) (n int) {
	for _, d := range h.dead {
		if !d {
			n++
		}
	}
	return n
}

// generations checks that nobody runs a view older than one it has heard of as
// running, and that all agree where to start from.
func generations(t *testing.T, h *hall) {
	for i, m := range h.machines {
		if h.dead[i] {
			continue
		}
		if got := h.installs[i].View.Name(); got != m.Running().Name() {
			t.Errorf("%s installed %s but runs %s", m.self.ID, got, m.Running().Name())
		}
		if h.installs[i].Rank != m.Running().Rank(m.Self()) {
			t.Errorf("%s has rank %d", m.self.ID, h.installs[i].Rank)
		}
	}
}

func TestADeadCoordinatorIsReplacedWithoutATimeout(t *testing.T) {
	h := newHall(4)
	h.settle(t, time.Minute)
	h.dead[0] = true
	if took := h.settle(t, time.Minute); took > 300*time.Millisecond {
		t.Errorf("a refused connection is certain, yet it took %s", took)
	}
	if c, _ := h.machines[1].Status(h.now); c.ID != "n1" {
		t.Errorf("the coordinator is %s, want the next in seniority", c.ID)
	}
}

func TestBelowMinNodesNothingIsProposed(t *testing.T) {
	h := newHall(0)
	f := Fact{ID: "n0", Incarnation: 1, Addr: "0", Trajectory: [32]byte{1}}
	cfg := DefaultConfig(f)
	cfg.MinNodes = 2
	m := New(cfg, Stand{}, h.now)
	m.Ready(h.now)
	told := ""
	for range 400 {
		h.now = h.now.Add(10 * time.Millisecond)
		m.Tick(h.now)
		for _, e := range m.Take() {
			switch e := e.(type) {
			case Install:
				t.Fatal("it trains alone")
			case Note:
				told = e.Text
			}
		}
	}
	if told != "waiting for 2 nodes, 1 here (n0)" {
		t.Errorf("it says %q", told)
	}
}

func TestOldAndForeignProposalsAreRefused(t *testing.T) {
	h := newHall(2)
	h.settle(t, time.Minute)
	m := h.machines[1]
	before := m.Running().Name()
	old := *m.Running()
	old.Generation--
	// Somebody else's view, in which one member of the running one would not stay.
	stranger := Member{ID: "x", Incarnation: 9, Addr: "9", Entry: 1}
	foreign := View{Trajectory: m.self.Trajectory, Generation: m.gen + 5, Proposer: stranger.Node(), MinNodes: 1, Members: []Member{stranger, m.Running().Members[m.Running().Rank(m.Self())]}}
	for _, v := range []View{old, foreign} {
		m.Receive(h.now, Msg{From: h.machines[0].Fact(), Propose: &v})
		refused := false
		for _, e := range m.Take() {
			if s, ok := e.(Send); ok && s.Msg.Refuse != nil {
				refused = true
			}
		}
		if !refused || m.Running().Name() != before {
			t.Errorf("generation %d of %d members: refused %v", v.Generation, len(v.Members), refused)
		}
	}
}

// Two nodes whose link broke twice are kept apart, but not below min_nodes: the
// user would rather have a bad link than fewer nodes.
func TestABadLinkDoesNotTakeAViewBelowMinNodes(t *testing.T) {
	h := newHall(2)
	for _, m := range h.machines {
		m.cfg.MinNodes = 2
	}
	h.settle(t, time.Minute)
	a, b := h.machines[0], h.machines[1]
	for range 2 {
		a.linkBroke(h.now, a.Self(), b.Self())
		b.linkBroke(h.now, a.Self(), b.Self())
	}
	for _, m := range h.machines {
		m.phase = idle
		m.considerProposing(h.now)
		if p := m.mine; p != nil && p.view.World() < 2 {
			t.Errorf("%s proposes a view of %d nodes, min_nodes is 2", m.Self(), p.view.World())
		}
	}
	if a.mine == nil && b.mine == nil {
		t.Error("nobody proposes anything")
	}
}
