package sim

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// Directed schedules: each makes one situation with its own hands, says so if the
// situation did not arise (that is a failure, check "window"), and then goes on to
// the end as every schedule does. Random schedules (TestSeeds) may pass a narrow
// window by a thousand times; these go through it.

var traceLines = flag.Int("lines", 60, "how many lines of a trace a failed directed schedule prints")

// named plays a directed schedule with its trace at hand if it fails.
func named(t *testing.T, o Options, safety func(*Cluster)) *Result {
	t.Helper()
	r := direct(o, safety)
	if r.Failure != nil {
		o.Trace = true
		a := direct(o, safety)
		t.Fatalf("%v\n%s", r.Failure, tail(a.Trace, *traceLines))
	}
	return r
}

// perSeed plays a directed schedule under several seeds, on all cores.
func perSeed(t *testing.T, n int, play func(t *testing.T, seed uint64)) {
	t.Helper()
	for s := range uint64(n) {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			play(t, s)
		})
	}
}

// directed is a world in which only the director makes something fail.
func directed(seed uint64, l *Load, nodes int) Options {
	return Options{
		Seed: seed, Load: l, Nodes: nodes, Compute: 20 * time.Millisecond, Faults: Calm(),
		FormBound: time.Minute, EndBound: 2 * time.Minute,
	}
}

// extraLoads are a short one, for schedules that are played by the hundred, and a
// long one, for those that last minutes.
var extraLoads = sync.OnceValues(func() (both [2]*Load, err error) {
	for i, epochs := range []int{2, 110} {
		both[i], err = newLoad(func(j *job.Job) {
			plain(j)
			j.Name, j.Epochs = fmt.Sprintf("plain-%d", epochs), epochs
		})
		if err != nil {
			return both, err
		}
		c := newCluster(alone(both[i]))
		c.startNodes()
		if !c.until(10*time.Minute, func() bool { return len(c.living()) == 0 }) {
			return both, fmt.Errorf("%s does not end: %s", both[i].Name, c.standing())
		}
		both[i].Want = c.lives[0].host.Node().Digest()
	}
	return both, nil
})

func brief(t testing.TB) *Load { return extra(t, 0) }
func long(t testing.TB) *Load  { return extra(t, 1) }

func extra(t testing.TB, i int) *Load {
	t.Helper()
	both, err := extraLoads()
	if err != nil {
		t.Fatal(err)
	}
	return both[i]
}

func theLoad(t testing.TB, name string) *Load {
	t.Helper()
	for _, l := range theLoads(t) {
		if l.Name == name {
			return l
		}
	}
	t.Fatalf("no load %s", name)
	return nil
}

// --- what a director says ---

// missed ends the schedule: the situation that it is named after did not arise.
func (c *Cluster) missed(format string, args ...any) { c.checks.fail("window", format, args...) }

// await goes on until something is so; if it is not within the bound, the
// situation has not arisen.
func (c *Cluster) await(bound time.Duration, what string, so func() bool) {
	if !c.until(bound, so) {
		c.missed("not within %s: %s; %s", bound, what, c.standing())
	}
}

// see adds an observer of what crosses the borders of lives.
func (c *Cluster) see(observe func(l *life, e any)) {
	before := c.hook
	c.hook = func(l *life, e any) {
		if before != nil {
			before(l, e)
		}
		observe(l, e)
	}
}

// begin starts the nodes, has them train together and do some transitions.
func (c *Cluster) begin(transitions uint64) {
	c.startNodes()
	c.together(c.opt.Nodes)
	c.train(transitions)
}

// together waits for one view of all who live, who are so many.
func (c *Cluster) together(nodes int) {
	c.await(30*time.Second, fmt.Sprintf("one view of %d nodes", nodes), func() bool { return len(c.living()) == nodes && c.whole() })
}

// train waits until so many transitions more are done.
func (c *Cluster) train(transitions uint64) { c.reach(c.furthest() + transitions) }

// reach waits until somebody has come to a transition.
func (c *Cluster) reach(to uint64) {
	c.await(time.Minute, fmt.Sprintf("transition %d", to), func() bool { return c.furthest() >= to })
}

// furthest is the greatest transition that anybody has come to.
func (c *Cluster) furthest() (t uint64) {
	for _, l := range c.lives {
		t = max(t, l.last)
	}
	return t
}

// progress lets time pass; it returns how many transitions were completed and the
// longest time without one.
func (c *Cluster) progress(d time.Duration) (done uint64, longest time.Duration) {
	begun, at, since := c.furthest(), c.furthest(), c.now
	end := c.now + d
	c.until(d, func() bool {
		if t := c.furthest(); t > at {
			at, longest, since = t, max(longest, c.now-since), c.now
		}
		return c.now >= end
	})
	return at - begun, max(longest, c.now-since)
}

// proposer is the node that proposed the view in which a life is.
func (c *Cluster) proposer(l *life) *life {
	v, _ := l.host.Node().View()
	return c.of(v.Proposer.ID)
}

// rightOf is the right neighbour in a life's present view.
func (c *Cluster) rightOf(l *life) *life {
	v, rank := l.host.Node().View()
	return c.of(v.Members[(rank+1)%v.World()].ID)
}

// leftOf is the left neighbour in a life's present view.
func (c *Cluster) leftOf(l *life) *life {
	v, rank := l.host.Node().View()
	return c.of(v.Members[(rank+v.World()-1)%v.World()].ID)
}

// wayTo is the way from a group to a member of its view.
func (g *group) wayTo(l *life) *way {
	_, rank := l.host.Node().View()
	return g.ways[rank]
}

// generation is that of the view that a life is or was last in.
func (l *life) generation() uint64 { return l.host.Node().Views().Fact().Generation }

// sever cuts all ways between two nodes until the end of the safety phase.
func (c *Cluster) sever(a, b string) {
	c.cutFor(time.Hour, fmt.Sprintf("the link between %s and %s is cut", a, b), func(p, q string) bool { return p == a && q == b || p == b && q == a })
}

// split cuts the network so that some nodes are on one side.
func (c *Cluster) split(side ...string) {
	in := map[string]bool{}
	for _, id := range side {
		in[id] = true
	}
	c.cutFor(time.Hour, fmt.Sprintf("%v are cut off", side), func(p, q string) bool { return in[p] != in[q] })
}

func (c *Cluster) mendAll() {
	for len(c.cuts) > 0 {
		c.mend(c.cuts[0])
	}
}

// bootAll starts every node that does not live.
func (c *Cluster) bootAll() {
	for _, id := range c.ids() {
		if c.of(id) == nil {
			c.boot(id, 0)
		}
	}
}

// proposed tells which view a message proposes.
func proposed(m view.Msg) (generation uint64, name view.Name, ok bool) {
	switch {
	case m.Propose != nil:
		return m.Propose.Generation, m.Propose.Name(), true
	case m.Change != nil:
		return m.Change.Generation, m.Change.View, true
	}
	return 0, view.Name{}, false
}

// --- 1. applied here, half there ---

// TestOneDiesHavingAppliedWhatItsNeighbourHasHalf: rank A has committed a step and
// dies while its right neighbour B holds half of the all-gather of that very step.
// Nobody else can have it whole. The survivors do the step again, to the same bits.
func TestOneDiesHavingAppliedWhatItsNeighbourHasHalf(t *testing.T) {
	for _, how := range []death{killed, powerLoss} {
		t.Run(string(how), func(t *testing.T) {
			perSeed(t, 8, func(t *testing.T, seed uint64) {
				l := theLoads(t)[seed%3]
				o := directed(seed, l, 4)
				o.Algorithm, o.SegmentBytes = allreduce.Ring, 256 // whose results go from each to its left neighbour alone
				named(t, o, func(c *Cluster) { c.dieAhead(int(seed)%4, how) })
			})
		})
	}
}

func (c *Cluster) dieAhead(who int, how death) {
	c.begin(4)
	a := c.lives[who]
	b := c.leftOf(a)
	_, rankB := b.host.Node().View()
	var seq, before uint64
	sent, all, finished, segments := 0, 0, map[uint64]int{}, 0 // all: sent in the op before
	c.see(func(l *life, e any) {
		f, ok := e.(allreduce.Frame)
		switch {
		case !ok || f.Kind != allreduce.Gather:
		case l == b && int(f.Chunk) == rankB:
			finished[f.Seq]++
		case l == a && f.Seq > seq:
			segments, seq, before, all, sent = finished[f.Seq-1], f.Seq, a.last, sent, 1
		case l == a:
			sent++
		}
	})
	queued := func() (n int) {
		for _, p := range a.current().wayTo(b).queue {
			if f := parse(c, p.raw); f.Kind == allreduce.Gather && f.Seq == seq {
				n++
			}
		}
		return n
	}
	c.await(time.Minute, "B has a part of an all-gather, and has given its own", func() bool {
		return segments > 0 && sent > queued() && sent-queued() < all && finished[seq] == segments && a.last == before && len(a.current().wayTo(b).queue) < 2
	})
	c.cutFor(300*time.Millisecond, "nothing gets from A to B", func(p, q string) bool { return p == a.id && q == b.id })
	died := false
	c.see(func(l *life, e any) {
		done, ok := e.(train.Committed)
		if !ok || l != a || died {
			return
		}
		died = true
		if n := queued(); n == 0 || n >= sent || done.Transition != before+1 || b.last > before {
			c.missed("A completes transition %d, B has %d of %d frames and is at %d", done.Transition, sent-n, sent, b.last)
		}
		a.kill(how)
	})
	c.await(10*time.Second, "A commits", func() bool { return died })
	c.train(2)
	c.bootAll()
}

// --- 3. two coordinators ---

// TestTwoCoordinatorsPropose: both ends of a cut link take themselves for the
// coordinator and propose, at one time and under one generation, views that share
// members. One of the two wins everywhere.
func TestTwoCoordinatorsPropose(t *testing.T) {
	perSeed(t, 8, func(t *testing.T, seed uint64) {
		o := directed(1+seed, long(t), 4+int(seed%3))
		o.Compute = 100 * time.Millisecond
		o.Algorithm = allreduce.Direct
		named(t, o, func(c *Cluster) {
			c.begin(3)
			two := c.seeTwoProposals()
			first := c.proposer(c.lives[0])
			c.sever(first.id, c.rightOf(first).id)
			c.await(30*time.Second, "two proposals of one generation with a member in common", func() bool { return *two != "" })
			c.trace.logf(c.now, "test", "%s", *two)
			c.train(5)
		})
	})
}

// seeTwoProposals watches for two proposals of one generation by two nodes that
// reach one and the same member within the time that one of them is out.
func (c *Cluster) seeTwoProposals() *string {
	type offer struct {
		by   *life
		last time.Duration
		to   map[string]bool
	}
	offers := map[uint64]map[view.Name]*offer{}
	what := new(string)
	c.see(func(l *life, e any) {
		m, ok := e.(letter)
		if !ok {
			return
		}
		generation, name, ok := proposed(m.Msg)
		if !ok {
			return
		}
		all := offers[generation]
		if all == nil {
			all = map[view.Name]*offer{}
			offers[generation] = all
		}
		mine := all[name]
		if mine == nil {
			mine = &offer{by: l, to: map[string]bool{}}
			all[name] = mine
		}
		mine.last = c.now
		mine.to[m.addr] = true
		for other, o := range all {
			if other != name && o.by != l && c.now-o.last < 250*time.Millisecond && o.to[m.addr] {
				*what = fmt.Sprintf("%s and %s both propose generation %d to %s", l.name(), o.by.name(), generation, m.addr)
			}
		}
	})
	return what
}

// --- 4. one-way reachability ---

// TestOneWayReachability: for a minute packets go only one way between two nodes.
// Training goes on meanwhile, and afterwards all are back.
func TestOneWayReachability(t *testing.T) {
	for _, w := range []struct{ from, to int }{{0, 1}, {1, 0}, {0, 2}, {2, 0}, {1, 2}, {2, 1}} {
		for nodes := 3; nodes <= 4; nodes++ {
			t.Run(fmt.Sprintf("nodes=%d/%d-to-%d", nodes, w.from+1, w.to+1), func(t *testing.T) {
				t.Parallel()
				o := directed(uint64(nodes), long(t), nodes)
				o.Compute = 250 * time.Millisecond
				named(t, o, func(c *Cluster) {
					c.begin(3)
					from, to := c.of(fmt.Sprintf("node-%d", w.from+1)).id, c.of(fmt.Sprintf("node-%d", w.to+1)).id
					c.cutFor(time.Minute, fmt.Sprintf("nothing gets from %s to %s", from, to), func(p, q string) bool { return p == from && q == to })
					done, longest := c.progress(time.Minute)
					t.Logf("%d transitions, %s without one", done, longest)
					c.mustGoOn(done, longest)
				})
			})
		}
	}
}

// mustGoOn is what a minute with a broken link may cost: a pause of that many
// seconds, and most of the time training.
func (c *Cluster) mustGoOn(done uint64, longest time.Duration) {
	if longest > 15*time.Second || done < 40 {
		c.checks.fail("livelock", "%d transitions in a minute, none for %s; %s", done, longest, c.standing())
	}
}

// --- 5. a broken link between two who both reach the rest ---

// TestABrokenLinkDoesNotStopTraining: two nodes cannot reach one another for a
// minute, and both reach the others. At every moment somebody trains, or soon.
func TestABrokenLinkDoesNotStopTraining(t *testing.T) {
	for _, nodes := range []int{3, 4, 5} {
		t.Run(fmt.Sprintf("nodes=%d", nodes), func(t *testing.T) {
			perSeed(t, 3, func(t *testing.T, seed uint64) {
				o := directed(seed, long(t), nodes)
				o.Compute = 250 * time.Millisecond
				named(t, o, func(c *Cluster) {
					c.begin(3)
					c.sever("node-1", "node-2")
					done, longest := c.progress(time.Minute)
					t.Logf("%d transitions, %s without one", done, longest)
					c.mustGoOn(done, longest)
				})
			})
		})
	}
}
