package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/train"
)

// --- 13. a bit that flips in memory ---

// kindsOfVectors is how many kinds of places flipAt knows: parameters, the two
// slots of Adam, exponents, sums, gradients, one gradient.
const kindsOfVectors = 7

// A flip is found within as many transitions as the state has watched blocks, and
// two more until all have stopped.
const flipFoundWithin = 16 + 2

// TestABitFlipsInMemory: the node is named, or finds it out itself, and returns; or the
// flip has come to nothing. With two nodes that differ nobody can know. In no case does
// anybody end with another model.
func TestABitFlipsInMemory(t *testing.T) {
	for nodes := 2; nodes <= 4; nodes++ {
		for kind := range kindsOfVectors {
			t.Run(fmt.Sprintf("nodes=%d/kind=%d", nodes, kind), func(t *testing.T) {
				perSeed(t, 6, func(t *testing.T, seed uint64) {
					l := theLoads(t)[seed%3]
					at := 3 + 11*seed // up to the last steps
					named(t, directed(seed, l, nodes), func(c *Cluster) {
						c.begin(0)
						c.reach(at)
						c.flipAndSee(c.living()[int(seed)%nodes], kind)
					})
				})
			})
		}
	}
}

// flipAndSee flips a bit and follows what comes of it.
func (c *Cluster) flipAndSee(l *life, kind int) {
	nodes := len(c.living())
	c.flipAt(l, kind)
	from := c.furthest()
	if !c.until(time.Minute, c.allGone) {
		c.checks.fail("flip", "the run neither stops nor ends: %s", c.standing())
	}
	finished := 0
	for _, e := range c.checks.ended {
		switch d := int64(e.last) - int64(from); {
		case e.exit.Finished: // with the right state, see checks.exited
			finished++
		case e.returns > 0 && e.exit.Err == nil: // too late: the others have finished
		case nodes > 2 && e != l:
			c.checks.fail("flip", "%s ends with %v", e.name(), e.exit.Err)
		case d > flipFoundWithin:
			c.checks.fail("flip", "%s finds it %d transitions later", e.name(), d)
		}
	}
	if finished < nodes-1 && !(finished == 0 && c.checks.flipped.undecided) {
		c.checks.fail("flip", "%d of %d nodes have finished", finished, nodes)
	}
}

// TestABitFlipsInADonor: the donor's state changes right before a newcomer copies
// it. The copy is refused, or the donor is named; it is never believed.
func TestABitFlipsInADonor(t *testing.T) {
	for kind := range kindsOfVectors {
		t.Run(fmt.Sprintf("kind=%d", kind), func(t *testing.T) {
			perSeed(t, 3, func(t *testing.T, seed uint64) {
				o := directed(seed, theLoads(t)[seed%3], 3)
				o.Faults.CopyInView = true
				named(t, o, func(c *Cluster) {
					c.begin(5 + 3*seed)
					flipped := false
					c.see(func(l *life, e any) {
						r, ok := e.(rpc.FetchRequest)
						if !ok || flipped {
							return
						}
						for _, donor := range c.living() {
							if v, _ := donor.host.Node().View(); donor != l && v != nil && v.Name().Fence() == r.View && donor.last == r.Transition {
								flipped = true
								c.flipAt(donor, kind)
								return
							}
						}
					})
					c.boot("late", 0)
					c.await(30*time.Second, "a bit flips in a donor", func() bool { return flipped })
					c.await(time.Minute, "the run ends", c.allGone)
				})
			})
		})
	}
}

// TestABitFlipsInALender: the state of the member from which a newcomer is about to
// copy in the background changes. It is named, and the newcomer does not go on from
// what nobody has compared.
func TestABitFlipsInALender(t *testing.T) {
	for kind := range kindsOfVectors {
		t.Run(fmt.Sprintf("kind=%d", kind), func(t *testing.T) {
			perSeed(t, 3, func(t *testing.T, seed uint64) {
				named(t, directed(seed, theLoads(t)[seed%3], 3), func(c *Cluster) {
					c.begin(5 + 3*seed)
					var late, lender *life
					c.see(func(l *life, e any) {
						if r, is := e.(rpc.FollowRequest); is && r.Begin && l == late && lender == nil {
							lender = c.of(fmt.Sprintf("node-%d", 1+late.inc%3)) // as Node.follow chooses
							c.flipAt(lender, kind)
						}
					})
					late = c.boot("late", 4)
					c.await(30*time.Second, "a newcomer asks", func() bool { return lender != nil })
					c.await(time.Minute, "the run ends", c.allGone)
				})
			})
		})
	}
}

// --- 14. no disk works ---

// TestNoDiskWorks: from the start to the end all disks are full, or fail now and
// then. Training goes on all the same; when the disks are sound again, the run
// comes to its right end.
func TestNoDiskWorks(t *testing.T) {
	for _, how := range []string{"full", "failing"} {
		t.Run(how, func(t *testing.T) {
			perSeed(t, 4, func(t *testing.T, seed uint64) {
				l := theLoads(t)[seed%3]
				final := l.final(t)
				named(t, directed(seed, l, 3), func(c *Cluster) {
					hurt := 0
					c.startNodes()
					for _, l := range c.living() {
						if l.disk.failing = how == "failing"; how == "full" {
							l.disk.full = true
							l.disk.SetCapacity(l.disk.Used() + 1)
						}
					}
					c.see(func(l *life, e any) {
						if done, ok := e.(train.Committed); ok && done.Transition == final {
							hurt++
						}
					})
					c.await(time.Minute, "all end", func() bool { return len(c.living()) == 0 })
					if hurt != 3 {
						c.missed("%d of 3 nodes train to the end without a disk", hurt)
					}
					for _, l := range c.lives {
						if how == "full" && (l.exit.Err == nil || l.disk.durable > 0) {
							c.missed("%s ends with %v, its disk has transition %d", l.name(), l.exit.Err, l.disk.durable)
						}
						l.disk.recover()
					}
					c.bootAll()
					c.together(3)
				})
			})
		})
	}
}

// --- 15. clocks ---

// TestAClockJumpsInAChange: in the middle of a change of view, when it is proposed,
// acknowledged or started, one clock jumps.
func TestAClockJumpsInAChange(t *testing.T) {
	says := map[string]func(m letter) bool{
		"proposed":     func(m letter) bool { _, _, ok := proposed(m.Msg); return ok },
		"acknowledged": func(m letter) bool { return m.Ack != nil },
		"started":      func(m letter) bool { return m.Start != nil },
	}
	for _, jump := range []time.Duration{time.Hour, -5 * time.Second} {
		for _, when := range []string{"proposed", "acknowledged", "started"} {
			for who := range 3 {
				t.Run(fmt.Sprintf("%s/%s/node-%d", jump, when, who+1), func(t *testing.T) {
					t.Parallel()
					o := directed(uint64(who), theLoad(t, "plain"), 4)
					named(t, o, func(c *Cluster) { c.jumpInAChange(fmt.Sprintf("node-%d", who+1), jump, says[when]) })
				})
			}
		}
	}
}

func (c *Cluster) jumpInAChange(who string, jump time.Duration, now func(letter) bool) {
	c.begin(5)
	jumped := time.Duration(0)
	c.see(func(_ *life, e any) {
		if m, ok := e.(letter); ok && jumped == 0 && now(m) {
			jumped = c.now
			if slices.ContainsFunc(c.living(), func(l *life) bool { v, _ := l.host.Node().View(); return v == nil }) {
				c.of(who).clock.offset += jump
				return
			}
			c.missed("the clock jumps when all are in a view")
		}
	})
	c.of("node-4").kill(killed)
	c.await(10*time.Second, "a clock jumps", func() bool { return jumped > 0 })
	c.together(3)
	if took := c.now - jumped; took > 5*time.Second {
		c.checks.fail("liveness", "a view of all takes %s after a clock has jumped by %s", took, jump)
	}
	if done, longest := c.progress(5 * time.Second); len(c.living()) > 0 && (done == 0 || longest > 3*time.Second) {
		c.checks.fail("liveness", "%d transitions, none for %s, after a clock has jumped by %s", done, longest, jump)
	}
}
