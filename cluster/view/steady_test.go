package view

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// describe tells all that an effect says.
func describe(e Effect) string {
	switch e := e.(type) {
	case Send:
		return fmt.Sprintf("send to %s at %s: %q", e.To, e.Addr, e.Msg.Encode())
	case Install:
		return fmt.Sprintf("install %s rank %d %+v", e.View.Name(), e.Rank, e.Start)
	}
	return fmt.Sprintf("%T%+v", e, e)
}

// scenario is a run of a hall with everything that makes a machine look at many
// peers: joins, deaths, strangers, nodes that are finished, lost messages.
func scenario(seed uint64) []string {
	h := newHall(9)
	h.rnd, h.loss, h.logs = rand.New(rand.NewPCG(seed, 3)), 8, true
	for step := range 1500 {
		if step%100 == 50 {
			h.disturb()
		}
		h.step()
	}
	return h.log
}

func (h *hall) disturb() {
	m := h.machines[h.rnd.IntN(len(h.machines))]
	f := Fact{ID: fmt.Sprint("x", h.rnd.IntN(9)), Incarnation: 1 + h.rnd.Uint64N(4), Addr: "0", Trajectory: [32]byte{1}}
	switch h.rnd.IntN(5) {
	case 0:
		f.Trajectory = [32]byte{2}
		m.Up(h.at(m), f)
	case 1:
		f.Finished = true
		m.Down(h.at(m), f, true)
	case 2:
		h.add(len(h.machines))
	default:
		h.dead[h.index(m.Self())] = living(h) > 2
	}
}

func TestTheSameEventsGiveTheSameEffects(t *testing.T) {
	for seed := range uint64(4) {
		a, b := scenario(seed), scenario(seed)
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Fatalf("seed %d, effect %d of %d:\n%s\n%s", seed, i, len(a), a[i], b[i])
			}
		}
		if len(a) != len(b) || len(a) < 500 {
			t.Errorf("seed %d: %d effects and %d", seed, len(a), len(b))
		}
	}
}

// TestWhatIsCountedIsSo compares what a machine keeps with what it would find by
// looking at each peer.
func TestWhatIsCountedIsSo(t *testing.T) {
	for seed := range uint64(20) {
		h := newHall(6)
		h.rnd, h.loss = rand.New(rand.NewPCG(seed, 4)), int(seed%3)*8
		for step := range 1000 {
			if step%80 == 40 {
				h.disturb()
			}
			h.step()
			for i, m := range h.machines {
				if !h.dead[i] {
					recount(t, m)
				}
			}
		}
	}
}

func recount(t *testing.T, m *Machine) {
	t.Helper()
	var tally [kinds]int
	for n, p := range m.peers {
		if n != p.fact.Node() || p.marks != m.marksOf(p) {
			t.Fatalf("%s is kept as %s with %b, it is %b", p.fact.Node(), n, p.marks, m.marksOf(p))
		}
		for i := range tally {
			tally[i] += int(p.marks >> i & 1)
		}
	}
	was := m.coordinator()
	m.chiefKnown = false
	if tally != m.tally || m.coordinator() != was {
		t.Fatalf("counted %v, there are %v; coordinator %s, found %s", m.tally, tally, was, m.coordinator())
	}
}

func TestTheLongDeadAreForgotten(t *testing.T) {
	h := newHall(1)
	m := h.machines[0]
	for life := range uint64(3 * maxGraves) {
		f := Fact{ID: "ghost", Incarnation: 1 + life, Trajectory: m.self.Trajectory}
		m.Up(h.now, f)
		m.Down(h.now, f, true)
		m.Take()
	}
	if n := len(m.peers); n > maxGraves {
		t.Errorf("%d dead are remembered", n)
	}
	alive := Fact{ID: "ghost", Incarnation: 3 * maxGraves, Trajectory: m.self.Trajectory}
	m.Up(h.now, alive) // rises from its grave
	for end := h.now.Add(remember + time.Minute); h.now.Before(end); h.now = h.now.Add(maxStride) {
		m.Tick(h.now)
	}
	recount(t, m)
	if len(m.peers) != 1 || len(m.graves) != 0 || m.Peers()[0] != alive {
		t.Errorf("%d peers and %d graves are left", len(m.peers), len(m.graves))
	}
}

func TestAClockThatLeapsHoldsUpNothing(t *testing.T) {
	leaps := []time.Duration{5 * time.Minute, -10 * time.Minute, time.Hour, -time.Hour}
	for seed := range uint64(60) {
		h := newHall(5)
		h.rnd, h.loss = rand.New(rand.NewPCG(seed, 5)), int(seed%2)*8
		for range 6 {
			h.comeOrGo()
			for range h.rnd.IntN(30) {
				h.step()
			}
			for range 3 {
				h.skew[h.rnd.IntN(len(h.machines))] += leaps[h.rnd.IntN(len(leaps))]
			}
			h.settle(t, 2*time.Minute) // two whose pings are lost again and again are kept apart for 80 s
		}
	}
}

// comeOrGo lets a node die, or come.
func (h *hall) comeOrGo() {
	if h.rnd.IntN(2) == 0 && living(h) > 2 {
		h.dead[h.rnd.IntN(len(h.machines))] = true
	} else {
		h.add(len(h.machines))
	}
}

func TestALeapAloneBreaksNothing(t *testing.T) {
	h := newHall(4)
	h.settle(t, time.Minute)
	name := h.machines[0].Running().Name()
	for i, leap := range []time.Duration{time.Hour, -time.Minute, 10 * time.Minute, -time.Hour} {
		h.skew[i%2] += leap
		for range 100 {
			h.step()
		}
	}
	for i, m := range h.machines {
		if v := m.Running(); v == nil || v.Name() != name {
			t.Errorf("n%d left the view", i)
		}
	}
}
