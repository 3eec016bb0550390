package rpc

import (
	"testing"
	"time"
)

// A wall clock that is set while a group waits must not make the wait look longer: times must be
// comparable by the monotonic clock, which Round(0) takes away.
func TestTimesOfProgressFollowTheMonotonicClock(t *testing.T) {
	g := &Group{watch: watch{base: time.Now()}}
	if p := g.Progress(); !p.WaitingSince.IsZero() || !p.SendingSince.IsZero() || !p.Computing {
		t.Fatalf("%+v", p)
	}
	before := time.Now()
	g.watch.started(1)
	g.watch.sending.Store(g.watch.now())
	after := time.Now()
	p := g.Progress()
	for name, at := range map[string]time.Time{"waiting": p.WaitingSince, "sending": p.SendingSince} {
		if at == at.Round(0) {
			t.Errorf("%s: %v has no monotonic reading", name, at)
		}
		if at.Before(before) || at.After(after) {
			t.Errorf("%s: %v is not within %v and %v", name, at, before, after)
		}
	}
	g.watch.sent(1)
	g.watch.completed()
	if p := g.Progress(); !p.WaitingSince.IsZero() || !p.SendingSince.IsZero() || !p.Computing {
		t.Fatalf("%+v", p)
	}
}

// The first instant is a time too, and 0 is none.
func TestNoTimeIsTakenForNone(t *testing.T) {
	w := watch{base: time.Now().Add(time.Hour)}
	if w.now() < 1 || w.timeOf(w.now()).IsZero() || !w.timeOf(0).IsZero() {
		t.Fatal(w.now())
	}
}
