package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/train"
)

// --- 6. back under the old name and address ---

// replace has a process die and come back at once at the same address, while
// nothing gets to or from it: what was under way comes to the new life.
func (c *Cluster) replace(id string) (old, young *life) {
	c.cutFor(150*time.Millisecond, "nothing gets to "+id, func(p, q string) bool { return q == id })
	old = c.of(id)
	old.kill(killed)
	return old, c.boot(id, 0)
}

// TestCallsOfAFormerLife: what was said to a process that died comes to the one
// that has its address now.
func TestCallsOfAFormerLife(t *testing.T) {
	perSeed(t, 6, func(t *testing.T, seed uint64) {
		o := directed(seed, theLoad(t, "stops"), 3)
		o.Faults.FixedPorts = true
		named(t, o, func(c *Cluster) {
			c.begin(3)
			var old, young *life
			came := 0
			c.see(func(l *life, e any) {
				if m, ok := e.(letter); ok && old == nil && m.addr == "node-2:7000" && l.id == "node-1" {
					if _, _, ok := proposed(m.Msg); ok {
						old = c.of("node-2")
						c.after(0, func() { _, young = c.replace("node-2") })
					}
				}
				if r, ok := e.(receipt); ok && young != nil && l == young && r.sent <= young.clock.born {
					came++
				}
			})
			c.boot("node-4", 0)
			c.await(20*time.Second, "a proposal for a former life comes to the new one", func() bool { return came > 0 })
			c.together(4)
			c.train(3)
		})
	})
}

// TestStreamsOfAFormerLife: a neighbour opens its stream to a process that died,
// and it comes to the one that has its address now.
func TestStreamsOfAFormerLife(t *testing.T) {
	perSeed(t, 6, func(t *testing.T, seed uint64) {
		o := directed(seed, theLoad(t, "plain"), 3)
		o.Faults.FixedPorts = true
		o.Compute = 300 * time.Millisecond // else a ping finds out before the stream has come
		named(t, o, func(c *Cluster) {
			c.begin(3)
			var young *life
			var stray string
			c.see(func(l *life, e any) {
				cfg, ok := e.(allreduce.GroupConfig)
				if !ok || young != nil || stray != "" {
					return
				}
				for rank, name := range cfg.Names {
					if rank == cfg.Config.Rank || !strings.HasPrefix(name, "node-2#") || !allreduce.Opens(cfg.Config.Rank, rank, cfg.Config.World) {
						continue
					}
					stray = name
					c.after(0, func() { _, young = c.replace("node-2") })
				}
			})
			c.boot("node-4", 0)
			c.await(20*time.Second, "a stream for a former life comes to the new one", func() bool {
				return young != nil && slices.ContainsFunc(young.offered, func(s *stream) bool { return s.from.cfg.Names[s.peer] == stray })
			})
			c.together(4)
			c.train(3)
		})
	})
}

// TestFramesOfAFormerLife: frames that a process sent before it died come to its
// neighbour when the new one lives already; and, what no network does, to the new
// one's own group.
func TestFramesOfAFormerLife(t *testing.T) {
	perSeed(t, 6, func(t *testing.T, seed uint64) {
		o := directed(seed, theLoad(t, "steep"), 3)
		o.Faults.FixedPorts = true
		o.Algorithm, o.SegmentBytes = allreduce.Ring, 256 // in which most frames go from each to its right
		named(t, o, func(c *Cluster) {
			c.begin(3)
			old := c.of("node-2")
			right := c.rightOf(old)
			g := right.current()
			c.cutFor(300*time.Millisecond, "nothing gets from node-2 to its right", func(p, q string) bool { return p == "node-2" && q == right.id })
			c.cutFor(900*time.Millisecond, "nor to its left, which hears of the death later", func(p, q string) bool { return p == "node-2" && q != right.id })
			c.await(time.Second, "frames wait in the old life's sockets", func() bool { return len(old.current().wayTo(right).queue) > 1 })
			out := old.current().wayTo(right)
			queued := slices.Clone(out.queue)
			old.kill(killed)
			out.queue = queued // of what was in its sockets nothing is lost
			young := c.boot("node-2", 0)
			frames := slices.Clone(c.stray)
			before := g.Progress().FramesIn
			c.await(5*time.Second, "frames of the old life come", func() bool { return g.Progress().FramesIn > before })
			if !young.alive {
				c.missed("the new life is gone before the frames of the old one come")
			}
			c.together(3)
			c.train(1)
			given := 0
			for _, p := range frames {
				if now := young.current(); now != nil && now.cfg.Config.World > 1 && p.fence != now.cfg.Config.Fence && given < 3 {
					given++
					young.happen(func() { now.receive(now.m.Peers()[0], p) })
				}
			}
			if given == 0 {
				c.missed("no frame of a former life is left")
			}
			c.train(3)
		})
	})
}

// --- 7. far apart ---

// TestAnIsolatedNodeComesBackFarAhead: one side of a cut has had far more views
// than the other, and its state is far behind or far ahead.
func TestAnIsolatedNodeComesBackFarAhead(t *testing.T) {
	for _, w := range []struct {
		name           string
		inside, beyond float64 // how slow the nodes are
	}{{"behind", 40, 3}, {"ahead", 1, 40}} {
		t.Run(w.name, func(t *testing.T) {
			perSeed(t, 2, func(t *testing.T, seed uint64) {
				o := directed(seed, long(t), 5)
				o.Faults.CopyInView = true // node-5 comes in at once, dozens of times
				named(t, o, func(c *Cluster) { c.driftApart(w.inside, w.beyond) })
			})
		})
	}
}

func (c *Cluster) driftApart(inside, beyond float64) {
	c.begin(3)
	c.split("node-4", "node-5")
	for _, l := range c.living() {
		l.slow = beyond
	}
	four, one := c.of("node-4"), c.of("node-1")
	four.slow = inside
	c.of("node-5").slow = inside
	inView := func(n int) func() bool {
		return func() bool { v, _ := four.host.Node().View(); return v != nil && v.World() == n }
	}
	for range 11 {
		c.await(time.Minute, "node-4 alone", func() bool {
			if l := c.of("node-5"); l != nil && inView(2)() {
				l.kill(killed)
			}
			return inView(1)()
		})
		c.boot("node-5", 0).slow = inside
		c.await(time.Minute, "node-4 and node-5", inView(2))
	}
	c.of("node-5").kill(killed)
	c.await(time.Minute, "node-4 alone", inView(1))
	c.run(2 * time.Second)
	if g := four.generation() - one.generation(); int64(g) < 20 {
		c.missed("generation %d is not far ahead of %d", four.generation(), one.generation())
	}
	if d := int64(four.last) - int64(one.last); inside > beyond && d > -30 || inside < beyond && d < 30 {
		c.missed("transition %d is not far from %d", four.last, one.last)
	}
	for _, l := range c.living() {
		l.slow = 1
	}
	c.mendAll()
	c.together(4)
	c.train(2)
}

// --- 8. an evaluation on one side only ---

// TestAnEvaluationOnOneSideOnly: while the network is cut, one side records the
// evaluation of an epoch, the other stands before it. Then they meet, or the side
// that knows dies, with or without its disks.
func TestAnEvaluationOnOneSideOnly(t *testing.T) {
	for _, then := range []string{"they meet", string(killed), string(diskLost)} {
		t.Run(then, func(t *testing.T) {
			perSeed(t, 4, func(t *testing.T, seed uint64) {
				named(t, directed(seed, theLoad(t, "stops"), 4), func(c *Cluster) { c.evaluateOnOneSide(seed, death(then)) })
			})
		})
	}
}

func (c *Cluster) evaluateOnOneSide(seed uint64, then death) {
	c.begin(2)
	epoch := uint64(2 + seed)
	know, wait := []string{"node-1", "node-2"}, []string{"node-3", "node-4"}
	if seed%2 == 1 {
		know, wait = wait, know
	}
	at, before := uint64(0), 0
	c.see(func(l *life, e any) {
		a, ok := e.(*train.Attempt)
		if !ok || a.Kind != train.Evaluate || at > 0 || a.Step < epoch*c.load.Task.StepsPerEpoch() {
			return
		}
		if before++; before == 4 { // all stand before it, and nobody has computed all of it
			at = a.Transition
			c.split(know...)
			for _, id := range wait {
				c.of(id).freeze()
			}
		}
	})
	knows := func(id string) bool { l := c.of(id); return l.last > at+1 }
	c.await(30*time.Second, "one side evaluates and goes on", func() bool { return at > 0 && knows(know[0]) && knows(know[1]) })
	for _, id := range wait {
		if s := c.of(id).host.Node().State(); s.Transition != at || s.Next != train.Evaluate {
			c.missed("%s is at transition %d, %s is next, not before the evaluation of %d", id, s.Transition, s.Next, at)
		}
	}
	for _, id := range know {
		if then != "they meet" {
			c.of(id).kill(then)
		}
	}
	for _, id := range wait {
		c.of(id).thaw()
	}
	c.mendAll()
	if then != "they meet" {
		c.await(time.Minute, "the other side evaluates too", func() bool { return c.of(wait[0]).last > at })
	}
	c.bootAll()
	c.together(4)
}

// --- 9. some are finished and gone ---

// final is the transition with which a load ends.
func (l *Load) final(t testing.TB) uint64 {
	t.Helper()
	c := newCluster(alone(l))
	c.startNodes()
	c.until(10*time.Minute, func() bool { return len(c.living()) == 0 })
	return c.furthest()
}

// TestTheOthersHaveFinishedAndGone: a member is cut off, or frozen, before the
// finish, and comes back when nobody is there any more. It has to end by itself.
func TestTheOthersHaveFinishedAndGone(t *testing.T) {
	for _, how := range []string{"cut off", "frozen"} {
		for i, l := range theLoads(t) {
			t.Run(how+"/"+l.Name, func(t *testing.T) {
				t.Parallel()
				final := l.final(t)
				var who *life
				named(t, directed(uint64(i), l, 3), func(c *Cluster) {
					c.begin(1)
					c.reach(final - 3 - uint64(i))
					who = c.living()[i]
					who.slow = 500
					c.split(who.id)
					if how == "frozen" {
						who.freeze()
					}
					c.await(time.Minute, "the others finish and go", func() bool { return len(c.living()) == 1 })
					if c.living()[0] != who || who.last >= final {
						c.missed("%s is not left behind: it is at transition %d of %d", who.id, who.last, final)
					}
				})
				if !who.exit.Finished {
					t.Errorf("%s: %+v", who.name(), who.exit)
				}
			})
		}
	}
}

// TestOneDiesAtTheFarewell: all have committed the finish; one dies in the last
// all-reduce, its final checkpoint not yet written, and comes back when the others
// have gone.
func TestOneDiesAtTheFarewell(t *testing.T) {
	for i, l := range theLoads(t) {
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			named(t, directed(uint64(i), l, 3), func(c *Cluster) {
				c.begin(1)
				who := c.lives[i]
				died := false
				c.see(func(l *life, e any) {
					if _, op := e.(allreduce.Op); op && l == who && l.host.Node().State().Next == train.Done {
						died = true
						l.kill([]death{killed, powerLoss, diskLost}[i])
					}
				})
				c.await(time.Minute, "it dies at the farewell, and the others go", func() bool { return died && len(c.living()) == 0 })
				c.boot(who.id, 0)
			})
		})
	}
}

// TestALateJoinerAtTheVeryEnd: a node comes while the others do the last transitions,
// say farewell, write, go.
func TestALateJoinerAtTheVeryEnd(t *testing.T) {
	l := theLoad(t, "steep")
	final := l.final(t)
	perSeed(t, 12, func(t *testing.T, seed uint64) {
		o := directed(seed, l, 2)
		o.Faults.Disk = 300 * time.Millisecond
		named(t, o, func(c *Cluster) {
			c.begin(1)
			c.reach(final - min(seed/2, 4)*4)
			c.run(time.Duration(seed%2) * 10 * time.Millisecond)
			late := c.boot("late", 0)
			if len(c.living()) != 3 {
				c.missed("the others have gone before")
			}
			c.await(time.Minute, "it ends", func() bool { return !late.alive })
			if late.exit.Err != nil {
				c.checks.fail("error", "the late one ends with: %v", late.exit.Err)
			}
		})
	})
}

// --- 10. donors ---

// TestADonorDiesInMidTransfer: of two, and the only one.
func TestADonorDiesInMidTransfer(t *testing.T) {
	for nodes := 1; nodes <= 2; nodes++ {
		for _, how := range []death{killed, powerLoss, diskLost} {
			t.Run(fmt.Sprintf("donors=%d/%s", nodes, how), func(t *testing.T) {
				perSeed(t, 3, func(t *testing.T, seed uint64) {
					o := directed(seed, theLoads(t)[seed], nodes)
					o.Faults.Transfer, o.Faults.CopyInView = 4*time.Second, true
					named(t, o, func(c *Cluster) { c.loseDonor(how) })
				})
			})
		}
	}
}

func (c *Cluster) loseDonor(how death) {
	c.begin(8)
	var donor, joiner *life
	c.see(func(l *life, e any) {
		if _, ok := e.(rpc.FetchRequest); ok {
			joiner = l
		}
		if _, ok := e.(gift); ok && donor == nil {
			donor = l
		}
	})
	c.boot("late", 0)
	c.await(20*time.Second, "a donor gives", func() bool { return donor != nil })
	c.run(2 * time.Millisecond)
	if !joiner.fetching || !donor.alive || joiner.last >= donor.last {
		c.missed("the transfer from %s to %s is over", donor.name(), joiner.name())
	}
	behind := joiner.last
	donor.kill(how)
	c.await(time.Minute, "the newcomer goes on", func() bool { return joiner.last > behind })
	c.bootAll()
	c.together(len(c.ids()))
}

// --- 11. all at one moment ---

// TestAllDieAtOneMoment, each at another transition. They start again from their
// disks; one of these may be lost.
func TestAllDieAtOneMoment(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("disk-lost=%t", lost), func(t *testing.T) {
			perSeed(t, 6, func(t *testing.T, seed uint64) {
				named(t, directed(seed, theLoads(t)[seed%3], 4), func(c *Cluster) { c.dieTogether(lost) })
			})
		})
	}
}

func (c *Cluster) dieTogether(lost bool) {
	c.begin(6)
	c.cutFor(time.Hour, "everybody is alone", func(string, string) bool { return true })
	for i, l := range c.living() {
		l.slow = []float64{5, 8, 12, 100}[i]
	}
	all := c.living()
	c.await(time.Minute, "each is at another transition", func() bool {
		at := map[uint64]bool{}
		for _, l := range all {
			at[l.last] = true
		}
		return len(at) == len(all) && c.furthest() > all[3].last+20
	})
	for i, l := range all {
		how := []death{killed, powerLoss, killed, powerLoss}[i]
		if lost && i == 0 {
			how = diskLost // of the one who is ahead
		}
		if !l.alive {
			c.missed("%s has ended before", l.name())
		}
		l.kill(how)
	}
	c.mendAll()
	c.bootAll()
	c.together(4)
	if !slices.ContainsFunc(c.living(), func(l *life) bool { return l.last > 0 }) {
		c.missed("no disk had a checkpoint")
	}
}

// --- 12. waiting ---

// TestFrozenLongerThanTheWholeRun: the others end without it, and go.
func TestFrozenLongerThanTheWholeRun(t *testing.T) {
	for i, l := range theLoads(t) {
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			var who *life
			named(t, directed(uint64(i), l, 3), func(c *Cluster) {
				c.begin(1)
				who = c.living()[i]
				who.freeze()
				begun := c.now
				c.await(10*time.Minute, "the others end", func() bool { return len(c.living()) == 1 })
				c.run(2 * (c.now - begun))
				if who.last > 5 {
					c.missed("%s is at transition %d", who.name(), who.last)
				}
			})
			if !who.exit.Finished {
				t.Errorf("%s: %+v", who.name(), who.exit)
			}
		})
	}
}

// TestOneLeftOfMinNodesTwo: the one who is left waits and says for what, and goes
// on when another comes.
func TestOneLeftOfMinNodesTwo(t *testing.T) {
	perSeed(t, 3, func(t *testing.T, seed uint64) {
		o := directed(seed, theLoads(t)[seed], 2)
		o.MinNodes, o.Trace = 2, true
		r := named(t, o, func(c *Cluster) {
			c.begin(5)
			c.of("node-2").kill([]death{killed, powerLoss, diskLost}[seed])
			one := c.of("node-1")
			c.run(5 * time.Second)
			at := one.last
			if done, _ := c.progress(2 * time.Minute); done > 0 {
				c.checks.fail("members", "%d transitions with one node of two", done)
			}
			if _, waits := one.host.Node().Views().Status(one.now()); waits != "2 nodes, 1 here (node-1)" {
				c.checks.fail("waiting", "it waits for %q", waits)
			}
			c.boot("node-3", 0)
			c.await(10*time.Second, "it goes on with another", func() bool { return one.last > at })
		})
		if !slices.ContainsFunc(r.Trace, func(line string) bool { return strings.Contains(line, "waiting for 2 nodes, 1 here (node-1)") }) {
			t.Error("the node that waits does not say for what")
		}
	})
}
