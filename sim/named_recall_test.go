package sim

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/train"
)

// A gradient is wrong, and all go back to what they had before; and something else
// happens at the same time.

// miscomputes has all gradients of a node be wrong from now on, and so little that no
// grid is too small: they are in the states of all until they are probed.
func (c *Cluster) miscomputes(l *life) {
	c.checks.flipped = &flip{who: l, what: "gradients", at: l.host.Node().State().Transition, gradient: true, bit: 21}
	l.logf("computes wrongly from now on")
}

// wrong has a life compute all its gradients wrongly.
func (l *life) wrong() {
	l.engine.Spoil(func(a *train.Attempt, mb, lo int, grads []float32) {
		if lo == 0 {
			grads[0] = math.Float32frombits(math.Float32bits(grads[0]) ^ 1<<21)
		}
	})
}

// recalls lists the steps that were gone back to, by whom it was.
func recalls(r *Result) (all []string) {
	for _, line := range r.Trace {
		if _, text, ok := strings.Cut(line, "recall: "); ok {
			all = append(all, text)
		}
	}
	return all
}

// through plays a schedule with several seeds. None may fail; in one at least what it is
// about has to have happened.
func through(t *testing.T, seeds uint64, play func(seed uint64) (r *Result, happened bool)) {
	t.Helper()
	some := false
	for seed := range seeds {
		r, happened := play(seed)
		some = some || happened
		if r.Failure != nil {
			t.Errorf("seed %d: %v\n%s", seed, r.Failure, strings.Join(r.Trace[max(0, len(r.Trace)-60):], "\n"))
		}
	}
	if !some {
		t.Error("what this is about has happened with no seed")
	}
}

// cutOff flips the gradients of node-4, and cuts node-3 off when another node has heard
// that somebody is wrong, before it has heard so itself. It returns node-3.
func (c *Cluster) cutOff() *life {
	c.begin(10)
	bad, e := c.of("node-4"), c.of("node-3")
	c.miscomputes(bad)
	e.disk.rotten = true // what it writes alone nobody has proved
	dispute, cut := false, false
	c.see(func(l *life, x any) {
		if a, is := x.(*train.Attempt); is && a.Dispute != nil {
			dispute = true
		}
		if _, ok := x.(*reduced); ok && dispute && !cut && l != e && l != bad {
			cut = true
			c.split(e.id)
			for _, d := range c.living() {
				if d != e {
					d.slow = 40
				}
			}
		}
	})
	c.await(time.Minute, "somebody is cut off", func() bool { return cut })
	c.await(time.Minute, "the others go back", func() bool { return c.checks.flipped.back })
	return e
}

// Who has not heard of a recall and is cut off once more while it copies the state that
// the others went back to must not give them its own.
func TestWhoCopiesAfterARecallHasNotGoneBackYet(t *testing.T) {
	through(t, 8, func(seed uint64) (*Result, bool) {
		donorDied := false
		o := directed(seed, long(t), 5)
		o.Trace, o.MinNodes = true, 2
		r := direct(o, func(c *Cluster) {
			e := c.cutOff()
			c.see(func(l *life, x any) {
				r, is := x.(rpc.FetchRequest)
				if !is || l != e || donorDied {
					return
				}
				for _, d := range c.living() {
					if v, _ := d.host.Node().View(); d != e && v != nil && v.Name().Fence() == r.View && d.last == r.Transition {
						donorDied = true
						d.kill(killed)
						return
					}
				}
			})
			c.run(500 * time.Millisecond)
			c.mendAll()
			c.run(8 * time.Second)
		})
		return r, donorDied
	})
}

// What a node keeps to go back to, having walked on alone with a gradient that others
// have proved wrong, is not to be gone back to when it is with them again.
func TestWhatIsKeptAloneIsForgottenAmongOthers(t *testing.T) {
	through(t, 6, func(seed uint64) (*Result, bool) {
		again := false
		o := directed(seed, long(t), 5)
		o.Trace = true
		r := direct(o, func(c *Cluster) {
			e := c.cutOff()
			copied := false
			c.see(func(l *life, x any) {
				if _, is := x.(rpc.FetchRequest); is && l == e {
					copied = true
				}
				if _, is := x.(train.Committed); is && l == e && copied && !again && c.checks.flipped.cured {
					again = true
					second := c.of("node-5")
					c.checks.flipped.who, c.checks.flipped.named, c.checks.flipped.cured = second, false, false
					for _, d := range c.living() {
						d.clean, d.cleansed = false, false
					}
					second.wrong()
				}
			})
			c.await(time.Minute, "it goes on alone", func() bool { return e.last > 26 })
			c.mendAll()
			c.run(20 * time.Second)
		})
		return r, again
	})
}

// Who is in dispute may die before it is known who was wrong: the others go back all the same.
func TestADisputeOutlivesWhoIsInIt(t *testing.T) {
	through(t, 4, func(seed uint64) (*Result, bool) {
		dead := false
		o := directed(seed, theLoads(t)[0], 4)
		o.Trace = true
		r := direct(o, func(c *Cluster) {
			c.begin(10)
			bad := c.of("node-3")
			c.miscomputes(bad)
			c.see(func(l *life, e any) {
				if a, is := e.(*train.Attempt); is && a.Dispute != nil && l == bad && bad.alive {
					dead = true
					bad.kill(killed)
				}
			})
			c.await(time.Minute, "it dies", func() bool { return !bad.alive })
		})
		return r, dead && len(recalls(r)) > 0
	})
}

// Nodes that have come back from a checkpoint go back to that, not to the start of the run.
func TestARecallAfterARestartGoesBackToTheCheckpoint(t *testing.T) {
	through(t, 3, func(seed uint64) (*Result, bool) {
		o := directed(seed, long(t), 3)
		o.Trace = true
		from := uint64(0)
		r := direct(o, func(c *Cluster) {
			c.begin(60)
			for _, l := range c.living() {
				l.kill(killed)
			}
			c.run(time.Second)
			for _, id := range c.ids() {
				from = max(from, c.boot(id, 3).last)
			}
			c.miscomputes(c.of("node-2"))
			c.await(time.Minute, "all go back", func() bool { return c.checks.flipped.cured })
			c.run(time.Second)
			for _, l := range c.living() {
				if l.last < from {
					t.Errorf("seed %d: %s is at transition %d, the checkpoint at %d", seed, l.name(), l.last, from)
				}
			}
			c.run(4 * time.Second)
		})
		return r, len(recalls(r)) > 0
	})
}

// One who remembers a recall of long ago does not take back what nodes have done that
// came back from checkpoints since.
func TestAnOldRecallTakesNothingBackThatWasProvedSince(t *testing.T) {
	through(t, 3, func(seed uint64) (*Result, bool) {
		o := directed(seed, long(t), 5)
		o.Trace = true
		r := direct(o, func(c *Cluster) {
			c.begin(10)
			c.miscomputes(c.of("node-4"))
			c.await(time.Minute, "all go back", func() bool { return c.checks.flipped.cured })
			c.together(5)
			old := c.of("node-3")
			old.freeze()
			c.train(200)
			for _, l := range c.living() {
				if l != old {
					l.kill(killed)
				}
			}
			for _, id := range c.ids() {
				if id != old.id {
					c.boot(id, 4)
				}
			}
			c.train(20)
			before := c.furthest()
			old.thaw()
			c.run(3 * time.Second)
			for _, l := range c.living() {
				if l.last < before {
					t.Errorf("seed %d: %s is at transition %d, all were at %d", seed, l.name(), l.last, before)
				}
			}
		})
		return r, len(recalls(r)) > 0
	})
}

// A newcomer that has copied what the members then take back is not at fault.
func TestANewcomerIsNotAtFaultForWhatOthersTakeBack(t *testing.T) {
	through(t, 8, func(seed uint64) (*Result, bool) {
		o := directed(seed, long(t), 4)
		o.Trace = true
		o.Faults.Transfer = 500 * time.Millisecond
		unfit := false
		r := direct(o, func(c *Cluster) {
			c.begin(10)
			bad := c.of("node-4")
			var late *life
			c.see(func(l *life, x any) {
				if r, is := x.(rpc.FollowRequest); is && l == late && !r.State && r.Transition != ^uint64(0) && c.checks.flipped == nil {
					c.miscomputes(bad)
				}
			})
			late = c.boot("late", 5)
			c.run(10 * time.Second)
			if late.exit != nil && late.exit.Err != nil {
				t.Errorf("seed %d: the newcomer has ended: %v", seed, late.exit.Err)
			}
		})
		for _, line := range r.Trace {
			unfit = unfit || strings.Contains(line, "gone back meanwhile")
		}
		return r, unfit
	})
}

// Who has copied the final state, and is left by all others then, has finished: it waits
// for nobody.
func TestWhoCopiesTheFinalStateHasFinished(t *testing.T) {
	through(t, 4, func(seed uint64) (*Result, bool) {
		o := directed(seed, brief(t), 3)
		o.Trace, o.MinNodes = true, 2
		o.Faults.Transfer = 300 * time.Millisecond
		var b *life
		r := direct(o, func(c *Cluster) {
			c.startNodes()
			c.together(3)
			var first *life
			last := uint64(0)
			c.see(func(l *life, x any) {
				if k, is := x.(train.Committed); is && k.Kind == train.Finish && first == nil {
					first, last = l, k.Transition
					c.resetStreams()
				}
			})
			c.await(time.Minute, "one has finished", func() bool { return first != nil })
			c.await(time.Minute, "one has copied that", func() bool {
				for _, l := range c.living() {
					if l != first && l.last == last {
						b = l
					}
				}
				return b != nil
			})
			for _, l := range c.living() {
				if l != b {
					l.kill(killed)
				}
			}
			c.await(time.Minute, "it ends alone", func() bool { return !b.alive })
		})
		return r, b != nil
	})
}

// Who goes back from the final state has not finished.
func TestWhoGoesBackFromTheFinalStateHasNotFinished(t *testing.T) {
	through(t, 6, func(seed uint64) (*Result, bool) {
		o := directed(seed, long(t), 4)
		o.Trace = true
		r := direct(o, func(c *Cluster) {
			c.startNodes()
			c.together(4)
			bad := c.of("node-4")
			c.see(func(l *life, x any) {
				if k, is := x.(train.Committed); is && k.Kind == train.Finish && c.checks.flipped == nil {
					c.resetStreams()
					c.miscomputes(bad)
				}
			})
			c.await(time.Minute, "the end", func() bool { return c.checks.flipped != nil })
			c.until(5*time.Second, func() bool { return c.checks.flipped.cured })
			c.run(50 * time.Millisecond)
			for _, l := range c.living() {
				if l.host.Node().State().Next != train.Done && l.fact.Finished {
					t.Errorf("seed %d: %s says that it has finished, at transition %d", seed, l.name(), l.last)
				}
			}
			c.boot("late", 0)
			c.run(20 * time.Second)
		})
		return r, len(recalls(r)) > 0
	})
}
