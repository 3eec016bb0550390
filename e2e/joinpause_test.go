//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
	"github.com/dlnode/dlnode/train"
)

var (
	joins = flag.Int("joins", 0, "how many nodes join in turn (default 1, with -full 20)")
	units = flag.Int("units", 0, "of the model's wide layer, a thousand parameters each (default 1000, with -full 19300): a tenth of them over a tenth of the rate costs the wire the same time, and the processor a tenth")
	rate  = flag.String("rate", "", "of each node's link, as tc says it, such as 1gbit: nodes have network namespaces of their own (needs root); default loopback")
)

// Issue: who joins copies the state while the others train on.
func TestAJoinPausesTheOthersForOneStepAtMost(t *testing.T) {
	n := network{samples: 2000, features: 1024, units: 1000, epochs: 10000, global: 32, micro: 8, every: 1000000}
	count := 1
	if *full {
		n.units, count = 19300, 20 // 20 million parameters
	}
	if *joins > 0 {
		count = *joins
	}
	if *units > 0 {
		n.units = *units
	}
	f := newFleet(t, n.job("joins"))
	at := func(int) options { return options{} }
	if *rate != "" {
		at = links(t, *rate, 4)
	}
	for i := range 3 {
		o := at(i)
		o.expect = 3
		f.start(fmt.Sprintf("node-%d", i+1), o)
	}
	f.reach(8)
	var came, gone []time.Time // when a newcomer was started, and when it was no more
	for i := range count {
		came = append(came, time.Now())
		p := f.start(fmt.Sprintf("late-%d", i+1), at(3))
		p.event("caught up")
		p.await("a view with the others", func(now lives.Told) bool { return now.Progress.World == 4 })
		f.reach(f.node("node-1").now().Step + 2)
		p.kill()
		<-p.Gone()
		gone = append(gone, time.Now())
		f.reach(f.node("node-1").now().Step + 5)
	}
	for _, p := range f.living() {
		p.kill()
		<-p.Gone()
	}
	all := f.lives()
	first := all[slices.IndexFunc(all, func(l lives.Life) bool { return l.Node == "node-1" })]
	usual, copying, pauses := joinGaps(first, came, gone)
	step := lives.Quantile(usual, 0.5)
	t.Logf("a step of three: %s", lives.Figures(usual))
	t.Logf("a step of three while a fourth copies: %s", lives.Figures(copying))
	t.Logf("no step because somebody joined, beyond a usual one: %s; in steps: p50 %.2f, p99 %.2f, most %.2f", lives.Figures(pauses),
		lives.Quantile(pauses, 0.5).Seconds()/step.Seconds(), lives.Quantile(pauses, 0.99).Seconds()/step.Seconds(), lives.Quantile(pauses, 1).Seconds()/step.Seconds())
	if len(pauses) != count {
		t.Errorf("%d nodes have joined, the journal tells of %d", count, len(pauses))
	}
	if *full && lives.Quantile(pauses, 0.99) > step {
		t.Errorf("a join costs more than a step")
	}
}

// joinGaps reads the times between steps in the journal of a node that was there
// all the time: where nobody was about to join, where somebody was, and how much
// longer than usual the step took with which a newcomer began.
func joinGaps(l lives.Life, came, gone []time.Time) (usual, copying, pauses []time.Duration) {
	var at time.Time
	var world int
	var entered []time.Duration
	l.Steps(func(r train.Record) {
		gap := r.Time.Sub(at)
		switch {
		case r.Kind != "update" || at.IsZero() || r.Step < 4:
		case r.World == 4 && world == 3:
			entered = append(entered, gap)
		case r.World != 3 || world != 3:
		case within(r.Time, came, gone):
			copying = append(copying, gap)
		default:
			usual = append(usual, gap)
		}
		at, world = r.Time, r.World
	})
	for _, gap := range entered {
		pauses = append(pauses, max(0, gap-lives.Quantile(usual, 0.5)))
	}
	return usual, copying, pauses
}

// within tells whether a moment lies between the begin and the end of a span, or
// shortly after.
func within(at time.Time, begins, ends []time.Time) bool {
	for i := range begins {
		if at.After(begins[i]) && at.Before(ends[i].Add(time.Second)) {
			return true
		}
	}
	return false
}

// links gives each node a network namespace, and a link that carries so much each way. It
// returns how the i-th node is started.
func links(t *testing.T, rate string, nodes int) func(i int) options {
	t.Helper()
	n, err := lives.NewNamespaces(nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range nodes {
		if err := n.Limit(i, rate, "512kb"); err != nil {
			t.Fatal(err)
		}
	}
	return func(i int) options {
		return options{through: append(n.Through(i), program), more: []string{"--bind", n.IP(i) + ":7946", "--insecure"}}
	}
}
