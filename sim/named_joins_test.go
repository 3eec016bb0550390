package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/train"
)

// wide is a load whose state is far larger than the heads of its records, as those
// of real models are: 8 KB of parameters.
func wide(t testing.TB) *Load {
	t.Helper()
	l, err := newLoad(func(j *job.Job) {
		plain(j)
		j.Name, j.Epochs = "wide", 120
		j.Model = []job.Section{nn.NewDense(200, "relu"), nn.NewDense(4, "softmax")}
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// stepTime is about how long computing a step takes in the schedules of joins.
const stepTime = 100 * time.Millisecond

func joining(t testing.TB, seed uint64) Options {
	o := directed(seed, wide(t), 3)
	o.Compute, o.EndBound, o.SegmentBytes = stepTime, 5*time.Minute, 4096
	o.Faults.Lending = train.Lending{Piece: 250}
	return o
}

// TestAJoinCostsTheOthersAtMostOneStep: copying the state takes as long as dozens of
// steps, and the record of a step half of one. The others go on as if nobody came,
// and when it is taken in they wait for less than a step takes. One that copies in
// its first view stops them for as long as that takes.
func TestAJoinCostsTheOthersAtMostOneStep(t *testing.T) {
	perSeed(t, 8, func(t *testing.T, seed uint64) {
		o := joining(t, seed)
		o.Faults.StatePiece = 3 * stepTime    // of some 25 pieces
		o.Faults.Transfer = 8 * stepTime / 20 // a record has nine: up to a twentieth of a step each
		usual, pause := joinPause(t, o)
		t.Logf("a step takes up to %s, and %s when somebody joins", usual, pause)
		if pause > 2*usual+linger { // one that has to be done, one lost, and the end of the group before
			t.Errorf("somebody joins, and no step is completed for %s; a step takes up to %s", pause, usual)
		}
	})
	o := joining(t, 99)
	o.Faults.CopyInView, o.Faults.Transfer = true, 50*stepTime
	if _, pause := joinPause(t, o); pause < 5*stepTime {
		t.Errorf("a copy takes as long as dozens of steps, and the others wait only %s for it", pause)
	}
}

// joinPause returns the longest time without a completed step before somebody
// joins, and from then until all have trained together.
func joinPause(t *testing.T, o Options) (usual, pause time.Duration) {
	named(t, o, func(c *Cluster) {
		c.begin(2)
		_, usual = c.progress(20 * stepTime)
		begun := c.furthest()
		late := c.boot("late", o.Nodes+1) // so that it does not begin alone
		at, since := c.furthest(), c.now
		watch := func() {
			if now := c.furthest(); now > at {
				pause, at, since = max(pause, c.now-since), now, c.now
			}
		}
		c.await(time.Minute, "the newcomer trains with the others", func() bool {
			watch()
			v, _ := late.host.Node().View()
			return v != nil && c.whole() && late.last == at && late.current() != nil && late.current().seq > 0
		})
		end := at + 3
		c.await(time.Minute, "three steps more", func() bool { watch(); return at >= end })
		if o.Faults.StatePiece > 0 && at-begun < 15 {
			c.missed("%d steps in the time of a copy that takes dozens", at-begun)
		}
		_, after := c.progress(10 * stepTime)
		usual = max(usual, after)
	})
	return usual, pause
}

// TestALenderDies while it lends its state, or the records after it: of three
// members, and the only one. The newcomer begins again elsewhere, or trains alone.
func TestALenderDies(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for _, state := range []bool{true, false} {
			for _, how := range []death{killed, powerLoss} {
				t.Run(fmt.Sprintf("members=%d/state=%v/%s", nodes, state, how), func(t *testing.T) {
					perSeed(t, 3, func(t *testing.T, seed uint64) {
						o := joining(t, seed)
						o.Nodes = nodes
						named(t, o, func(c *Cluster) { c.loseLender(state, how) })
					})
				})
			}
		}
	}
}

func (c *Cluster) loseLender(state bool, how death) {
	c.begin(5)
	var lender *life
	c.see(func(l *life, e any) {
		if loan, is := e.(loan); is && loan.state == state && lender == nil {
			lender = l
		}
	})
	late := c.boot("late", c.opt.Nodes+1) // so that it does not begin alone
	c.await(20*time.Second, "somebody lends", func() bool { return lender != nil })
	if v, _ := late.host.Node().View(); v != nil {
		c.missed("it has joined already")
	}
	lender.kill(how)
	c.await(time.Minute, "the newcomer trains", func() bool { v, _ := late.host.Node().View(); return v != nil && c.whole() })
	c.bootAll()
	c.together(len(c.ids()))
}

// TestRecordsThatAreLetGo: the lender may keep less than what the others do in the
// time of a copy. The newcomer tries three times; then they wait for it.
func TestRecordsThatAreLetGo(t *testing.T) {
	perSeed(t, 4, func(t *testing.T, seed uint64) {
		o := joining(t, seed)
		o.Faults.StatePiece = stepTime
		o.Faults.Lending.Records = 40_000
		named(t, o, func(c *Cluster) {
			c.begin(2)
			loans, copies := 0, 0
			c.see(func(l *life, e any) {
				switch e.(type) {
				case loan:
					loans++
				case gift:
					copies++
				}
			})
			c.boot("late", o.Nodes+1) // so that it does not begin alone
			c.await(time.Minute, "all train together, after a copy", func() bool { return len(c.living()) == 4 && c.whole() && copies > 0 })
			if loans < 9 || copies != 1 {
				c.missed("%d pieces were lent and %d states copied while all waited", loans, copies)
			}
			c.train(3)
		})
	})
}

// TestOneThatLagsIsTakenInAsItIs: records come slower than steps are done. After
// some seconds the others wait for it: it is no use to anybody otherwise.
func TestOneThatLagsIsTakenInAsItIs(t *testing.T) {
	perSeed(t, 4, func(t *testing.T, seed uint64) {
		o := joining(t, seed)
		o.Faults.StatePiece, o.Faults.Transfer = stepTime/20, 40*stepTime
		named(t, o, func(c *Cluster) {
			c.begin(2)
			copies := 0
			c.see(func(l *life, e any) {
				if _, is := e.(gift); is {
					copies++
				}
			})
			c.boot("late", o.Nodes+1) // so that it does not begin alone
			c.await(time.Minute, "all train together, after a copy", func() bool { return len(c.living()) == 4 && c.whole() && copies > 0 })
			if copies != 1 {
				c.missed("%d states copied while all waited", copies)
			}
			c.train(3)
		})
	})
}

// TestTwoJoinAtOnce: both copy from the only member, one after the other or at a time.
func TestTwoJoinAtOnce(t *testing.T) {
	perSeed(t, 4, func(t *testing.T, seed uint64) {
		o := joining(t, seed)
		o.Nodes = 1
		named(t, o, func(c *Cluster) {
			c.begin(2)
			begins, copies := 0, 0
			c.see(func(l *life, e any) {
				switch e.(type) {
				case loan:
					begins++
				case gift:
					copies++
				}
			})
			c.boot("late-1", 3) // so that it does not begin alone
			c.run(time.Duration(seed) * stepTime)
			c.boot("late-2", 3)
			c.await(time.Minute, "all train together", func() bool { return len(c.living()) == 3 && c.whole() })
			if begins == 0 || copies > 0 {
				c.missed("%d pieces were lent and %d states copied while all waited", begins, copies)
			}
			c.train(3)
		})
	})
}

// TestANewcomerMayTakeItsTimeInAView: below min_nodes it is taken in before it has
// caught up, and all wait. That its records come slowly is no reason to begin anew.
func TestANewcomerMayTakeItsTimeInAView(t *testing.T) {
	perSeed(t, 4, func(t *testing.T, seed uint64) {
		o := joining(t, seed)
		o.Nodes, o.MinNodes = 2, 2
		o.Faults.StatePiece, o.Faults.Transfer = stepTime/5, 32*stepTime // a record takes longer than a step
		named(t, o, func(c *Cluster) {
			c.begin(2)
			copies := 0
			var lender *life
			c.see(func(l *life, e any) {
				switch e := e.(type) {
				case gift:
					copies++
				case loan:
					if e.state {
						lender = l
					}
				}
			})
			members := c.living()
			late := c.boot("late", 3)
			c.await(time.Minute, "it lags behind", func() bool { at := late.host.Node().State().Transition; return at > 0 && c.furthest() > at+12 })
			if v, _ := late.host.Node().View(); v != nil {
				c.missed("it has joined already")
			}
			for _, l := range members {
				if l != lender {
					l.kill(killed)
				}
			}
			c.await(10*time.Second, "it is taken in", func() bool { v, _ := late.host.Node().View(); return v != nil })
			since, at := c.now, c.furthest()
			c.await(time.Minute, "both train", func() bool { return late.last > at })
			if took := c.now - since; took < 4*time.Second || copies > 0 {
				c.missed("it has caught up after %s, and %d states were copied while all waited", took, copies)
			}
			c.train(3)
		})
	})
}
