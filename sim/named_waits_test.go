package sim

import (
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

// Nobody is lost in a cluster in which nothing happens, however slow it is, though
// its nodes are not equally fast.
func TestASlowClusterLosesNobody(t *testing.T) {
	for _, compute := range paces {
		t.Run(compute.String(), func(t *testing.T) {
			perSeed(t, 2, func(t *testing.T, seed uint64) {
				o := directed(seed, theLoad(t, "plain"), 3)
				o.Compute = compute
				named(t, o, func(c *Cluster) {
					c.startNodes()
					c.together(3)
					c.of("node-2").slow = 3
					c.steps(8) // in which they learn how fast they are
					before := c.generation()
					c.steps(12)
					if n := c.generation() - before; n > 0 {
						c.missed("%d views end", n)
					}
				})
			})
		})
	}
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
	for _, compute := range paces {
		t.Run(compute.String(), func(t *testing.T) {
			perSeed(t, 2, func(t *testing.T, seed uint64) {
				o := directed(seed, theLoad(t, "plain"), 3)
				o.Compute = compute
				named(t, o, func(c *Cluster) {
					c.startNodes()
					c.together(3)
					c.steps(5)
					before := c.generation()
					c.of("node-2").slow = 10
					c.steps(12)
					if n := c.generation() - before; n > 0 {
						c.missed("%d views end", n)
					}
				})
			})
		})
	}
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
