//go:build unix

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

// Issue: a frozen node is left behind within seconds, and comes back by itself.
func TestAFrozenNodeIsLeftBehindAndComesBack(t *testing.T) {
	j, freeze := network{samples: 2000, features: 32, units: 32, epochs: 400, global: 96, micro: 8, every: 500}.job("light"), time.Duration(0)
	if *full {
		j, freeze = network{samples: 4000, features: 256, units: 256, epochs: 900, global: 96, micro: 8, every: 500}.job("heavy"), 20*time.Second
	}
	want := j.oracle(t)
	f := newFleet(t, j)
	f.launch(3, options{})
	f.reach(want.step / 50)
	frozen, other := f.node("node-2"), f.node("node-1")
	at := time.Now()
	frozen.signal(syscall.SIGSTOP)
	other.event("lost")
	time.Sleep(time.Until(at.Add(freeze)))
	woken := time.Now()
	frozen.signal(syscall.SIGCONT)
	f.finish(want)
	all := f.audit(want)

	a := lives.After(all, at, frozen.ID)
	if !a.OK || a.Next > 5*time.Second {
		t.Errorf("the others went on %s after the freeze (%v), want 5 s at most", a.Next, a.OK)
	}
	back, ok := firstAfter(all, frozen.ID, woken)
	if !ok {
		t.Fatal("the frozen node took no part any more")
	}
	t.Logf("frozen for %.1f s: the others went on after %.0f ms; it was back %.0f ms after it woke", woken.Sub(at).Seconds(), lives.Millis(a.Next), lives.Millis(back.Sub(woken)))
}

// firstAfter is when a node first completed a step with others after a moment, in a view
// that began later: what had come in before may complete one more step of the old one.
func firstAfter(all []lives.Life, node string, moment time.Time) (at time.Time, ok bool) {
	var old uint64 // generation
	for _, l := range all {
		if l.Node != node {
			continue
		}
		l.Steps(func(r train.Record) {
			switch {
			case r.Time.Before(moment):
				old = max(old, r.Generation)
			case !ok && r.World > 1 && r.Generation > old:
				at, ok = r.Time, true
			}
		})
	}
	return at, ok
}
