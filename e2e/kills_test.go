//go:build unix

package e2e

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
)

// fault is one SIGKILL, or two at once.
type fault struct {
	victim  string        // worker, coordinator, pair or joiner
	after   float64       // of the steps of the run
	jitter  time.Duration // then
	restart bool          // the victims come back under their names
	early   bool          // the joiner dies before it is let in
}

// killPlan is a run with faults.
type killPlan struct {
	nodes  int
	faults []fault
}

var victims = []string{"worker", "coordinator", "pair", "joiner"}

// newKillPlan draws one to three faults between the first steps and the last.
// The first fault goes through the victims in turn, so that few runs meet all.
func newKillPlan(run int, rnd *rand.Rand) killPlan {
	p := killPlan{nodes: 3 + rnd.IntN(2), faults: make([]fault, 1+rnd.IntN(3))}
	for i := range p.faults {
		p.faults[i] = fault{
			victim:  victims[rnd.IntN(len(victims))],
			after:   0.05 + 0.6*rnd.Float64(),
			jitter:  time.Duration(rnd.IntN(40)) * time.Millisecond,
			restart: rnd.IntN(2) == 0,
			early:   rnd.IntN(3) == 0,
		}
	}
	p.faults[0].victim = victims[run%len(victims)]
	for i := range p.faults {
		p.faults[i].victim = cmp.Or(*only, p.faults[i].victim)
	}
	slices.SortFunc(p.faults, func(a, b fault) int { return int(1e6 * (a.after - b.after)) })
	return p
}

// cut is a fault that was carried out.
type cut struct {
	at      time.Time // zero if there was nobody to kill
	victims []string
	what    string
}

// strike carries out a fault.
func (f *fleet) strike(x fault, steps uint64, n int) cut {
	f.t.Helper()
	f.reach(uint64(x.after * float64(steps)))
	time.Sleep(x.jitter)
	var dead []*process
	switch x.victim {
	case "joiner":
		dead = f.joiner(fmt.Sprintf("fresh-%d", n), x.early)
	case "coordinator":
		dead = f.pick(1, true)
	case "worker":
		dead = f.pick(1, false)
	case "pair":
		dead = f.pick(2, false)
	}
	c := cut{what: fmt.Sprintf("step %d: %s", f.step(), x.victim)}
	for i, p := range dead {
		at := p.kill()
		if i == 0 {
			c.at = at
		}
		c.victims = append(c.victims, p.ID)
		c.what += " " + p.ID
	}
	if x.restart {
		c.what += ", restarted"
		for _, p := range dead {
			p.exit()
			f.start(p.ID, options{})
		}
	}
	return c
}

// pick chooses victims, and leaves at least one node that has the state.
func (f *fleet) pick(n int, coordinator bool) []*process {
	f.t.Helper()
	var chosen []*process
	alive := f.members()
	n = min(n, len(alive)-1)
	head := f.coordinator()
	if coordinator && head != nil && n > 0 {
		return []*process{head}
	}
	for _, p := range alive {
		if p != head && len(chosen) < n {
			chosen = append(chosen, p)
		}
	}
	return chosen
}

// members are the living who take part in training now.
func (f *fleet) members() (all []*process) {
	for _, p := range f.living() {
		if p.now().World > 0 {
			all = append(all, p)
		}
	}
	return all
}

// joiner starts a fresh node and returns it when it is about to die: as soon as
// it listens, or when it has been let in and starts to copy the state.
func (f *fleet) joiner(id string, early bool) []*process {
	p := f.start(id, options{})
	if early {
		p.await("its ready line", func(now lives.Told) bool { return now.Ready != nil })
	} else {
		p.event("view")
	}
	return []*process{p}
}

// step is the furthest that anybody told.
func (f *fleet) step() (most uint64) {
	for _, p := range f.living() {
		most = max(most, p.now().Step)
	}
	return most
}

// Issue: SIGKILLs at random moments, of anybody, cost time and nothing else.
func TestNoKillChangesABit(t *testing.T) {
	j := theJob(t)
	want := j.oracle(t)
	n := *runs
	if n == 0 {
		n = 3
		if *full {
			n = 30
		}
	}
	t.Logf("seed %d, %d runs", *seed, n)
	var known, next, still []time.Duration
	kills := 0
	for run := range n {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			f := newFleet(t, j)
			cuts := f.suffer(newKillPlan(run, rand.New(rand.NewPCG(*seed, uint64(run)))), want)
			kills += len(cuts)
			still = append(still, lives.Standstill(f.lives()))
			for _, c := range cuts {
				a := lives.After(f.lives(), c.at, c.victims...)
				known = append(known, a.Known...)
				line := c.what + ": nobody's loss"
				if a.OK {
					next = append(next, a.Next)
					line = fmt.Sprintf("%s: known after %.0f ms, next step after %.0f ms", c.what, lives.Millis(lives.Quantile(a.Known, 1)), lives.Millis(a.Next))
				}
				t.Log(line)
			}
		})
	}
	t.Logf("%d runs, %d faults, one hash, every sample used once", n, kills)
	t.Logf("kill to the others know:           %s", lives.Figures(known))
	t.Logf("kill to the next completed step:   %s", lives.Figures(next))
	t.Logf("longest time without a step, of each run: %s", lives.Figures(still))
}

// suffer runs the plan to the end and checks everything that must hold.
func (f *fleet) suffer(p killPlan, want verdict) (cuts []cut) {
	f.t.Helper()
	f.launch(p.nodes, options{})
	for i, x := range p.faults {
		cuts = append(cuts, f.strike(x, want.step, i))
	}
	f.finish(want)
	first, last := lives.Span(f.audit(want))
	for _, c := range cuts {
		if !c.at.IsZero() && (c.at.Before(first) || c.at.After(last)) {
			f.t.Errorf("%s was killed at %s, training went from %s to %s", c.what, c.at.Format(time.StampMilli), first.Format(time.StampMilli), last.Format(time.StampMilli))
		}
	}
	if f.t.Failed() {
		f.t.Logf("plan: %+v", p)
	}
	return slices.DeleteFunc(cuts, func(c cut) bool { return c.at.IsZero() })
}
