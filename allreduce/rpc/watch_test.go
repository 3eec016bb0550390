package rpc

import (
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
)

// A wall clock that is set while a group waits must not make the wait look longer: times must be
// comparable by the monotonic clock, which Round(0) takes away.
func TestTimesOfProgressFollowTheMonotonicClock(t *testing.T) {
	nodes := []*node{newNode(t, 0), newNode(t, 1)}
	nodes[0].start(0, nodes, func(c *GroupConfig) { c.Addrs[1] = silent(t) })
	g := nodes[0].group
	quiet := func() {
		t.Helper()
		p := g.Progress()
		if !p.Computing || !p.Peers[1].WaitingSince.IsZero() || !p.Peers[1].SendingSince.IsZero() {
			t.Fatalf("%+v", p)
		}
	}
	quiet()
	before := time.Now()
	g.Start(nodes[0].op(1, 10))
	g.peers[1].seen.sending.Store(g.watch.now())
	after := time.Now()
	p := g.Progress()
	for name, at := range map[string]time.Time{"waiting": p.Peers[1].WaitingSince, "sending": p.Peers[1].SendingSince} {
		if at == at.Round(0) {
			t.Errorf("%s: %v has no monotonic reading", name, at)
		}
		if at.Before(before) || at.After(after) {
			t.Errorf("%s: %v is not within %v and %v", name, at, before, after)
		}
	}
	g.peers[1].seen.sent(&g.watch, 1, 1)
	g.Close(allreduce.Broken, "", "enough")
	quiet()
}

// The first instant is a time too, and 0 is none.
func TestNoTimeIsTakenForNone(t *testing.T) {
	w := watch{base: time.Now().Add(time.Hour)}
	if w.now() < 1 || w.timeOf(w.now()).IsZero() || !w.timeOf(0).IsZero() {
		t.Fatal(w.now())
	}
}
