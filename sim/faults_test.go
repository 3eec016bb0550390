package sim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/train"
)

// Directed schedules: nothing goes wrong in them but what the test does, once
// training has come to a certain point. The checks look on as always.

// stage is a cluster that a test directs.
type stage struct {
	*Cluster
	t testing.TB
}

// newStage starts nodes in a world with latency and without faults. Computing
// takes long enough for others to have news meanwhile.
func newStage(t testing.TB, l *Load, nodes int, seed uint64) stage {
	o := alone(l)
	o.Nodes, o.Seed, o.Compute, o.Trace = nodes, seed, 15*time.Millisecond, true
	s := stage{newCluster(o), t}
	s.play(s.startNodes)
	return s
}

// play has something happen. What a check finds fails the test.
func (s stage) play(do func()) {
	s.t.Helper()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *Failure:
			s.fatalf("%s", p)
		default:
			panic(p)
		}
	}()
	do()
}

// await lets time pass until something is so.
func (s stage) await(what string, bound time.Duration, is func() bool) {
	s.t.Helper()
	s.play(func() {
		if !s.until(bound, is) {
			s.fatalf("%s did not come within %s: %s", what, bound, s.standing())
		}
	})
}

func (s stage) awaitEnd(bound time.Duration) {
	s.t.Helper()
	s.await("the end of all", bound, s.allGone)
}

// awaitTransition waits until a node has come so far.
func (s stage) awaitTransition(l *life, t uint64) {
	s.t.Helper()
	s.await(fmt.Sprintf("transition %d of %s", t, l.name()), time.Minute, func() bool { return stateOf(l).Transition >= t })
}

func (s stage) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf(format+"\n%s", append(args, tail(s.trace.lines, 60))...)
}

// finished returns the lives that ended with the final state.
func (s stage) finished() (ls []*life) {
	for _, l := range s.lives {
		if l.exit != nil && l.exit.Finished {
			ls = append(ls, l)
		}
	}
	return ls
}

// words returns what those who ended with an error said, each thing once.
func (s stage) words() (said []string) {
	s.t.Helper()
	for _, l := range s.lives {
		if l.exit == nil || l.exit.Err == nil {
			s.fatalf("%s has no error to tell: %+v", l.name(), l.exit)
		}
		if text := l.exit.Err.Error(); !slices.Contains(said, text) {
			said = append(said, text)
		}
	}
	return said
}

// story tells whether the trace has some words.
func (s stage) story(words string) bool {
	return strings.Contains(strings.Join(s.trace.lines, "\n"), words)
}

func stateOf(l *life) *train.State { return l.host.Node().State() }

// loadOf makes a load of the job that some functions describe, one after another.
func loadOf(t testing.TB, describe ...func(*job.Job)) *Load {
	t.Helper()
	l, err := newLoad(func(j *job.Job) {
		for _, d := range describe {
			d(j)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// withOracle has one node alone say what a load has to end with.
func withOracle(t testing.TB, l *Load) *Load {
	t.Helper()
	s := newStage(t, l, 1, 0)
	s.awaitEnd(10 * time.Minute)
	if len(s.finished()) != 1 {
		s.fatalf("one node alone does not finish")
	}
	l.Want = s.lives[0].host.Node().Digest()
	return l
}

// exploding makes a job whose first update leaves nothing finite.
func exploding(onNonfinite string) func(*job.Job) {
	return func(j *job.Job) {
		stops(j)
		j.Name, j.OnNonfinite = "exploding, "+onNonfinite, onNonfinite
		j.Optimizer = &optim.SGD{LearningRate: optim.Constant(1e30)}
		j.EarlyStopping, j.Epochs = nil, 12
	}
}

func TestANonFiniteGradientStopsEveryNodeAtTheSameStep(t *testing.T) {
	l := loadOf(t, exploding("stop"))
	for nodes := 1; nodes <= 5; nodes++ {
		s := newStage(t, l, nodes, uint64(nodes))
		s.checks.meant = "is not finite; lower the learning rate"
		s.awaitEnd(time.Minute)
		if said := s.words(); len(said) != 1 {
			s.fatalf("%d nodes say different things: %q", nodes, said)
		}
		for _, o := range s.lives {
			if got, want := stateOf(o).Transition, stateOf(s.lives[0]).Transition; got != want {
				s.fatalf("%s stops at transition %d, %s at %d", o.name(), got, s.lives[0].name(), want)
			}
		}
		if !s.story("computed once more, by others") {
			s.fatalf("it was believed at once")
		}
	}
}

func TestANonFiniteGradientIsSkippedEverywhere(t *testing.T) {
	l := withOracle(t, loadOf(t, exploding("skip")))
	s := newStage(t, l, 3, 77)
	s.awaitEnd(time.Minute)
	if n, skipped := len(s.finished()), stateOf(s.lives[0]).Skipped; n != 3 || skipped == 0 {
		s.fatalf("%d finished, %d updates skipped", n, skipped)
	}
	for seed := range uint64(20) {
		if r := Run(Draw(seed, []*Load{l})); r.Failure != nil {
			t.Errorf("seed %d: %s", seed, r.Failure)
		}
	}
}

// TestARecordThatIsNotThePlannedOneStopsTheRun is I6: what was loaded is held
// against the plan, whether one node's data lies or everybody's.
func TestARecordThatIsNotThePlannedOneStopsTheRun(t *testing.T) {
	for _, liar := range []string{"node-2", "everybody"} {
		s := newStage(t, theLoads(t)[0], 3, 79)
		s.checks.meant = "samples, or others"
		s.misread = func(l *life, i int, id uint64) uint64 {
			if i == 17 && (l.id == liar || liar == "everybody") {
				id++
			}
			return id
		}
		s.awaitEnd(time.Minute)
		said := s.words()
		if len(said) != 1 {
			s.fatalf("the nodes say different things: %q", said)
		}
		if liar == "node-2" && !strings.Contains(said[0], "node-2 loaded ") {
			s.fatalf("%s lied, and they say %q", liar, said[0])
		}
	}
}

// TestAFlippedBitExpelsTheNodeAndNobodyElse is I9: replicas compare digests. The
// node is named, returns with nothing, and finishes with the others; of two nodes
// nobody can know who is right.
func TestAFlippedBitExpelsTheNodeAndNobodyElse(t *testing.T) {
	for what, flip := range map[string]func(s *train.State){
		"parameter": func(s *train.State) { s.Params()[5] += 1e-3 },
		"slot":      func(s *train.State) { s.Slots()[1][40] += 1e-3 },
		"exponent":  func(s *train.State) { s.GradExps[1] += 30 },
		"metric":    func(s *train.State) { s.Running[0]++ },
		"step":      func(s *train.State) { s.Samples += 4 },
	} {
		for _, nodes := range []int{2, 3, 5} {
			t.Run(fmt.Sprintf("%s, %d nodes", what, nodes), func(t *testing.T) {
				flipAndTell(t, nodes, what, flip)
			})
		}
	}
}

func flipAndTell(t *testing.T, nodes int, what string, change func(*train.State)) {
	s := newStage(t, long(t), nodes, 77)
	odd := s.of("node-2")
	s.await("a moment between two computations", time.Minute, func() bool { return stateOf(odd).Transition == 22 && !odd.computing })
	s.checks.flipped = &flip{who: odd, what: what}
	change(stateOf(odd))
	s.awaitEnd(time.Minute)
	if nodes == 2 {
		if said := s.words(); len(said) != 1 || !strings.Contains(said[0], "nobody can know who is right") {
			s.fatalf("they say %q", said)
		}
		return
	}
	expelled := (*train.ExpelledError)(nil)
	if !errors.As(odd.exit.Err, &expelled) || expelled.Node != "node-2" || expelled.Final || !strings.Contains(expelled.Evidence, fmt.Sprintf("differs from that of %d others", nodes-1)) {
		s.fatalf("%s ends with %v", odd.name(), odd.exit.Err)
	}
	if n := len(s.finished()); n != nodes || len(s.lives) != nodes+1 {
		s.fatalf("%d of %d lives finished", n, len(s.lives))
	}
	if !s.story("node-2 expelled at step") {
		s.fatalf("nobody tells of it")
	}
}

// TestANodeThatIsAtFaultAgainAndAgainStaysOut: it is let in three times, and a process
// that is started anew after that is told so.
func TestANodeThatIsAtFaultAgainAndAgainStaysOut(t *testing.T) {
	s := newStage(t, long(t), 3, 78)
	s.play(func() { s.flipEvery("node-2") })
	var lives []*life
	s.await("the last return", time.Minute, func() bool {
		lives = slices.DeleteFunc(slices.Clone(s.lives), func(l *life) bool { return l.id != "node-2" })
		return len(lives) == 1+view.MaxReturns && !lives[view.MaxReturns].alive
	})
	s.run(time.Second)
	if s.of("node-2") != nil {
		s.fatalf("it returns once more")
	}
	var more *life
	s.play(func() { more = s.boot("node-2", 0) })
	s.await("its end", 10*time.Second, func() bool { return !more.alive })
	for i, l := range append(lives, more) {
		expelled := (*train.ExpelledError)(nil)
		if !errors.As(l.exit.Err, &expelled) || i < view.MaxReturns && expelled.Final || l == more && !expelled.Final {
			s.fatalf("life %d ends with %v", i, l.exit.Err)
		}
	}
	s.awaitEnd(time.Minute)
	if len(s.finished()) != 2 {
		s.fatalf("%d finished", len(s.finished()))
	}
}

// flipEvery has a bit flip in each life of a node that has trained a little.
func (c *Cluster) flipEvery(id string) {
	c.checks.meant = "node-2 was expelled 4 times and is not let in again"
	hit := map[*life]int{}
	c.see(func(l *life, e any) {
		if _, is := e.(train.Committed); !is || l.id != id {
			return
		}
		if hit[l]++; hit[l]%5 == 3 {
			c.checks.flipped = &flip{who: l, what: "each life"}
			stateOf(l).Params()[7] += 1e-3
		}
	})
}

// TestEarlyStoppingSurvivesKillsAndResumes: patience and best weights are state.
// All nodes die while epochs without improvement are being counted, and so does
// who was restarted, once more.
func TestEarlyStoppingSurvivesKillsAndResumes(t *testing.T) {
	l := withOracle(t, loadOf(t, stops, func(j *job.Job) {
		j.Epochs = 60
		j.EarlyStopping = &job.EarlyStopping{Monitor: "val_loss", Patience: 6, MinDelta: 0.05, Mode: "auto", RestoreBest: true}
	}))
	s := newStage(t, l, 3, 80)
	for round := range 2 {
		s.killWhileItCounts(round)
	}
	s.awaitEnd(time.Minute)
	stopped := stateOf(s.lives[len(s.lives)-1]).Stopping
	if len(s.finished()) != 2 || stopped.Stopped == 0 || stopped.Stopped >= s.load.Task.Job.Epochs || stopped.BestEpoch == stopped.Stopped {
		s.fatalf("%d finished; stopped after epoch %d, best %d: the test shows nothing", len(s.finished()), stopped.Stopped, stopped.BestEpoch)
	}
}

// killWhileItCounts kills everybody once a state that counts is on a disk, and
// restarts two.
func (s stage) killWhileItCounts(round int) {
	s.t.Helper()
	waits := map[uint64]int{} // by transition: all nodes have one state there
	counts := func(l *life) bool {
		n := stateOf(l)
		waits[n.Transition] = n.Stopping.Wait
		return waits[l.disk.durable] > round && n.Stopping.Stopped == 0
	}
	s.await("a checkpoint while it counts", time.Minute, func() bool { return slices.ContainsFunc(s.living(), counts) })
	s.play(func() {
		who := s.living()[slices.IndexFunc(s.living(), counts)].id
		for _, l := range s.living() {
			l.kill(killed)
		}
		other := map[bool]string{true: "node-2", false: "node-1"}[who == "node-1"]
		if l := s.boot(who, 0); stateOf(l).Stopping.Wait == 0 {
			s.fatalf("%s resumes without a count: the test shows nothing", l.name())
		}
		s.boot(other, 0)
	})
}

// TestABrokenLinkCostsOneOfThemAtMost cuts node-2 and node-3 from each other for
// good; both reach the rest. The others must get on, and in the end all do.
func TestABrokenLinkCostsOneOfThemAtMost(t *testing.T) {
	for seed := range uint64(10) {
		s := newStage(t, theLoads(t)[0], 4, seed)
		s.awaitTransition(s.lives[0], 10)
		s.cutFor(time.Hour, "the link between node-2 and node-3 is cut", func(p, q string) bool {
			return p+q == "node-2node-3" || p+q == "node-3node-2"
		})
		s.awaitEnd(2 * time.Minute)
		if n := len(s.finished()); n < 3 {
			s.fatalf("seed %d: %d of 4 finished", seed, n)
		}
	}
}

func TestAFinishedNodeWaitsForNobody(t *testing.T) {
	s := newStage(t, theLoads(t)[0], 1, 81)
	s.awaitEnd(10 * time.Minute)
	s.opt.MinNodes = 2
	var l *life
	s.play(func() { l = s.boot("node-1", 3) })
	s.awaitEnd(10 * time.Second)
	if e := l.exit; !e.Finished || e.Err != nil {
		s.fatalf("ended with %+v", e)
	}
}
