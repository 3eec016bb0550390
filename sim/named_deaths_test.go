package sim

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
)

// change is a change of view, and what brings it about.
type change struct {
	name   string
	from   uint64 // transition
	nodes  int    // before
	after  int    // and after it, if nobody dies of it
	strike func(c *Cluster)
}

var changes = []change{
	{"join", 1, 3, 4, func(c *Cluster) { c.boot("node-4", 0) }},
	{"loss", 1, 4, 3, func(c *Cluster) { c.of("node-4").kill(killed) }},
	{"loss-of-the-coordinator", 1, 4, 3, func(c *Cluster) { c.of("node-1").kill(powerLoss) }},
	{"leave", 1, 4, 3, func(c *Cluster) {
		l := c.of("node-4")
		l.leaving = true
		l.happen(l.host.Leave)
	}},
	{"end", 8, 3, 0, func(*Cluster) {}},
}

// point is a moment in which a node dies in the middle of a change of view.
type point struct {
	change change
	victim string
	index  int  // of what crosses the victim's border in the change; it dies right before
	after  bool // or right after
	how    death
}

func (p point) String() string {
	when := "before"
	if p.after {
		when = "after"
	}
	return fmt.Sprintf("%s/%s dies %s effect %d", p.change.name, p.victim, when, p.index)
}

// TestANodeDiesAtEveryPointOfAChange has the coordinator, and a plain member, and
// whoever joins and whom it copies from, die right before each single thing that it
// says or does in the course of a change of view: messages, pings, facts, frames,
// groups, copies, attempts, ends. A sample of the points is also taken right after.
func TestANodeDiesAtEveryPointOfAChange(t *testing.T) {
	var points []point
	for i, ch := range changes {
		coordinator := "node-1"
		if ch.name == "loss-of-the-coordinator" {
			coordinator = "node-2"
		}
		victims := []string{coordinator, "node-3"}
		if ch.name == "join" {
			victims = []string{coordinator, "node-2", "node-4"}
		}
		for j, victim := range victims {
			frames, course := courseOf(t, ch, victim)
			t.Logf("%s: %s gives %d effects, %d of them frames, from %s to %s", ch.name, victim, len(frames), count(frames), course[0], course[len(course)-1])
			for n := range frames {
				p := point{ch, victim, n, false, killed}
				if (n+i+j)%3 == 0 {
					p.how = powerLoss
				}
				points = append(points, p)
				if n%4 == 0 {
					p.after = true
					points = append(points, p)
				}
			}
		}
	}
	t.Logf("%d points", len(points))
	l := brief(t)
	onAllCores(len(points), func(i int) {
		p := points[i]
		if r := direct(options(l, p.change), p.play); r.Failure != nil {
			o := options(l, p.change)
			o.Trace = true
			t.Errorf("%s: %v\n%s", p, r.Failure, tail(direct(o, p.play).Trace, *traceLines))
		}
	})
}

func count(are []bool) (n int) {
	for _, is := range are {
		if is {
			n++
		}
	}
	return n
}

func onAllCores(n int, do func(i int)) {
	var wg sync.WaitGroup
	todo := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range todo {
				do(i)
			}
		})
	}
	for i := range n {
		todo <- i
	}
	close(todo)
	wg.Wait()
}

func options(l *Load, ch change) Options {
	o := directed(uint64(len(ch.name)), l, ch.nodes)
	o.Compute = 150 * time.Millisecond // few steps in the time that a change takes
	return o
}

// courseOf plays a change undisturbed. It tells of each thing that crosses the
// victim's border meanwhile whether it is a frame, and what it is.
func courseOf(t *testing.T, ch change, victim string) (frames []bool, what []string) {
	named(t, options(brief(t), ch), func(c *Cluster) {
		frames, what = nil, nil
		c.begin(0)
		c.reach(ch.from)
		c.see(func(who *life, e any) {
			if who.id == victim {
				_, frame := e.(allreduce.Frame)
				frames, what = append(frames, frame), append(what, wordOf(e))
			}
		})
		ch.strike(c)
		c.together(ch.after)
		to := c.furthest() + 1
		c.await(time.Minute, "all do a transition together", func() bool {
			return !slices.ContainsFunc(c.living(), func(l *life) bool { return l.last < to })
		})
		c.hook = nil
	})
	kinds := []string{"allreduce.GroupConfig", "allreduce.Op", "allreduce.Frame", "*train.Attempt", "train.Committed"}
	if ch.after == 0 {
		kinds = []string{"allreduce.Op", "allreduce.Frame", "*train.Attempt", "train.Committed", "*checkpoint.Snapshot"}
	}
	switch {
	case victim == "node-4":
		kinds = append(kinds, "rpc.FollowRequest", "Ack")
	case victim == "node-2" && ch.name == "join":
		kinds = append(kinds, "sim.loan")
	case ch.after > 0 && victim != "node-3": // it coordinates: so it also dies between proposal and start
		kinds = append(kinds, "Start")
	}
	for _, kind := range kinds {
		if !slices.Contains(what, kind) {
			t.Errorf("%s: no %s crosses the border of %s", ch.name, kind, victim)
		}
	}
	return frames, what
}

// wordOf names what crosses a border: a message by what it says, all else by its type.
func wordOf(e any) string {
	if m, ok := e.(letter); ok {
		word, _, _ := strings.Cut(msgText(m.Msg), "(")
		return word
	}
	return fmt.Sprintf("%T", e)
}

// play is the change with the death in it.
func (p point) play(c *Cluster) {
	c.begin(0)
	c.reach(p.change.from)
	var l *life
	n := 0
	c.see(func(who *life, e any) {
		if who.id != p.victim {
			return
		}
		l = who
		switch {
		case n == p.index && !p.after:
			l.kill(p.how)
		case n == p.index:
			c.after(0, func() { l.kill(p.how) })
		}
		n++
	})
	p.change.strike(c)
	c.await(time.Minute, "the victim dies", func() bool { return l != nil && !l.alive && l.exit == nil })
	c.hook = nil
	c.await(time.Minute, "the others go on", func() bool {
		return c.whole() && !slices.ContainsFunc(c.living(), func(l *life) bool { return l.leaving })
	})
}
