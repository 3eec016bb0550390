package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// What a cluster waits for, and for how long, follows from how fast it is: nobody
// sets a time-out. These schedules have clusters of very different speeds.

// generation is that of the newest view that anybody runs.
func (c *Cluster) generation() (gen uint64) {
	for _, l := range c.lives {
		gen = max(gen, l.gen)
	}
	return gen
}

// steps waits for transitions that take their time.
func (c *Cluster) steps(n uint64) {
	to := c.furthest() + n
	c.await(time.Duration(n+8)*(40*c.opt.Compute+time.Second), "some steps", func() bool { return c.furthest() >= to })
}

var paces = []time.Duration{2 * time.Millisecond, 200 * time.Millisecond, 20 * time.Second}

// atEachPace lets something happen in clusters of three of which no view may end.
func atEachPace(t *testing.T, happen func(c *Cluster) (before uint64)) {
	for _, compute := range paces {
		t.Run(compute.String(), func(t *testing.T) {
			perSeed(t, 2, func(t *testing.T, seed uint64) {
				o := directed(seed, theLoad(t, "plain"), 3)
				o.Compute = compute
				named(t, o, func(c *Cluster) {
					c.startNodes()
					c.together(3)
					before := happen(c)
					c.steps(12)
					if n := c.generation() - before; n > 0 {
						c.missed("%d views end", n)
					}
				})
			})
		})
	}
}

// Nobody is lost in a cluster in which nothing happens, however slow it is, though
// its nodes are not equally fast.
func TestASlowClusterLosesNobody(t *testing.T) {
	atEachPace(t, func(c *Cluster) (before uint64) {
		c.of("node-2").slow = 3
		c.steps(8) // in which they learn how fast they are
		return c.generation()
	})
}

// A frozen node is noticed within seconds in a cluster of any speed.
func TestAFrozenNodeIsNoticedAtAnySpeed(t *testing.T) {
	for _, compute := range paces {
		t.Run(compute.String(), func(t *testing.T) {
			t.Parallel()
			var took []time.Duration
			for seed := range uint64(12) {
				o := directed(seed, theLoad(t, "plain"), 3)
				o.Compute = compute
				named(t, o, func(c *Cluster) {
					c.startNodes()
					c.together(3)
					c.steps(4)
					c.run(c.between(0, compute))
					before, begun := c.generation(), c.now
					c.of("node-2").freeze()
					c.await(time.Minute, "a view of the others", func() bool { return c.generation() > before })
					took = append(took, c.now-begun)
				})
			}
			slices.Sort(took)
			p50, p99 := took[len(took)/2], took[len(took)*99/100]
			t.Logf("steps of %s: a frozen node is out after %s (p50), %s (p99)", compute, p50.Round(time.Millisecond), p99.Round(time.Millisecond))
			limit := 5 * time.Second
			if compute > limit { // while all compute nobody waits for it, and gossip notices
				limit += 2 * time.Second
			}
			if p99 > limit {
				t.Errorf("p99 is %s, want at most %s", p99, limit)
			}
		})
	}
}

// A node that becomes ten times slower is waited for: it shows that it gets on.
func TestAChangeOfSpeedCostsNobody(t *testing.T) {
	atEachPace(t, func(c *Cluster) (before uint64) {
		c.steps(5)
		c.of("node-2").slow = 10
		return c.generation()
	})
}

// A node on whose machine everything stands still for seconds, again and again, is
// lost in vain once: then it is known how long it may take.
func TestAStormOfSwappingCostsOneLoss(t *testing.T) {
	perSeed(t, 4, func(t *testing.T, seed uint64) {
		named(t, directed(seed, long(t), 3), func(c *Cluster) {
			c.startNodes()
			c.together(3)
			c.steps(5)
			before := c.generation()
			for range 8 {
				c.of("node-2").freeze()
				c.run(2500 * time.Millisecond)
				c.of("node-2").thaw()
				c.run(c.between(200*time.Millisecond, 2*time.Second))
			}
			if n := c.generation() - before; n > 2 { // without it, and with it again
				c.missed("%d views end", n)
			}
		})
	})
}

// A computation that never ends, since a read of its data does not, is noticed and
// named by the others, who go on without it, and the node ends.
func TestAComputationThatNeverEndsHoldsNobody(t *testing.T) {
	for _, compute := range paces {
		t.Run(compute.String(), func(t *testing.T) {
			perSeed(t, 2, func(t *testing.T, seed uint64) {
				o := directed(seed, theLoad(t, "plain"), 3)
				o.Compute = compute
				named(t, o, func(c *Cluster) {
					c.checks.meant = "does not end within 5s, though nobody waits for it any more: it waits for a disk"
					c.startNodes()
					c.together(3)
					c.steps(5)
					sick := c.of("node-2")
					sick.hangs = true
					limit := max(10*time.Second, 9*compute) + 12*time.Second
					c.await(limit+2*compute, "the end of the node that hangs", func() bool { return !sick.alive })
					c.await(5*time.Second, "a view of the others", c.whole)
					c.steps(3)
				})
			})
		})
	}
}

// goesOn waits until one of those nodes has completed a step in a view newer than a generation.
func (c *Cluster) goesOn(gen uint64, ids ...string) {
	from := c.furthest()
	for _, id := range ids {
		from = min(from, c.of(id).last)
	}
	c.await(30*time.Second, fmt.Sprintf("a step of %v", ids), func() bool {
		return slices.ContainsFunc(ids, func(id string) bool {
			l := c.of(id)
			return l != nil && l.gen > gen && l.last > from && !l.frozen
		})
	})
}

// swap has a node stand still for so long that it is lost in vain.
func (c *Cluster) swap(id string) {
	before := c.generation()
	c.of(id).freeze()
	c.run(3 * time.Second)
	c.of(id).thaw()
	if c.generation() == before {
		c.missed("%s is not lost", id)
	}
	c.together(c.opt.Nodes)
	c.run(c.between(0, 3*time.Second))
}

// Whoever was lost in vain is given more time, and still whoever is really gone is out within five
// seconds, alone or with others.
func TestTheNextStepAfterAFault(t *testing.T) {
	one := func(p, q string) func(string, string) bool {
		return func(from, to string) bool { return from == p && to == q }
	}
	apart := func(from, to string) bool { return (from < "node-3") != (to < "node-3") }
	for _, w := range []struct {
		name  string
		limit time.Duration
		fault func(c *Cluster) (sides [][]string)
	}{
		{"freeze", 2 * time.Second, func(c *Cluster) [][]string {
			c.of("node-1").freeze()
			return [][]string{{"node-2", "node-3", "node-4", "node-5"}}
		}},
		{"freeze after a vain loss", 3500 * time.Millisecond, func(c *Cluster) [][]string {
			c.swap("node-1")
			c.of("node-1").freeze()
			return [][]string{{"node-2", "node-3", "node-4", "node-5"}}
		}},
		{"freeze after many vain losses", 3500 * time.Millisecond, func(c *Cluster) [][]string {
			for _, id := range []string{"node-1", "node-2", "node-3"} {
				c.swap(id)
			}
			c.of("node-1").freeze()
			return [][]string{{"node-2", "node-3", "node-4", "node-5"}}
		}},
		{"one way, after a pause", 3500 * time.Millisecond, func(c *Cluster) [][]string {
			c.swap("node-1")
			c.of("node-2").freeze()
			c.run(400 * time.Millisecond)
			c.of("node-2").thaw()
			c.cutFor(20*time.Second, "nothing gets from node-1 to node-2", one("node-1", "node-2"))
			return [][]string{{"node-1", "node-2", "node-3", "node-4", "node-5"}}
		}},
		{"partition", 2500 * time.Millisecond, func(c *Cluster) [][]string {
			c.cutFor(20*time.Second, "two and three are apart", apart)
			return [][]string{{"node-1", "node-2"}, {"node-3", "node-4", "node-5"}}
		}},
		{"partition after vain losses", 3500 * time.Millisecond, func(c *Cluster) [][]string {
			c.swap("node-1")
			c.swap("node-4")
			c.cutFor(20*time.Second, "two and three are apart", apart)
			return [][]string{{"node-1", "node-2"}, {"node-3", "node-4", "node-5"}}
		}},
		{"a view cut as it begins", 2500 * time.Millisecond, func(c *Cluster) [][]string {
			c.boot("node-6", 0)
			var coordinator string
			c.see(func(l *life, e any) {
				if m, ok := e.(letter); ok && coordinator == "" {
					if _, _, ok := proposed(m.Msg); ok {
						coordinator = l.id
						c.cutFor(20*time.Second, "nothing gets to nor from the coordinator", func(p, q string) bool {
							return (p == coordinator) != (q == coordinator)
						})
					}
				}
			})
			c.await(20*time.Second, "a proposal", func() bool { return coordinator != "" })
			var others []string
			for _, l := range c.living() {
				if l.id != coordinator {
					others = append(others, l.id)
				}
			}
			return [][]string{others}
		}},
	} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			var took []time.Duration
			for seed := range uint64(3) {
				named(t, directed(seed, long(t), 5), func(c *Cluster) {
					c.startNodes()
					c.together(5)
					c.steps(5)
					c.run(c.between(0, c.opt.Compute))
					sides := w.fault(c)
					before, begun := c.generation(), c.now
					for _, side := range sides {
						c.goesOn(before, side...)
					}
					took = append(took, c.now-begun)
				})
			}
			slices.Sort(took)
			p50, most := took[len(took)/2], took[len(took)-1]
			t.Logf("%s: the next step comes after %s (p50), %s (most)", w.name, p50.Round(time.Millisecond), most.Round(time.Millisecond))
			if most > w.limit {
				t.Errorf("most is %s, want at most %s", most, w.limit)
			}
		})
	}
}
