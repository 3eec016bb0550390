package train

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/optim"
)

// trio starts three nodes and returns once all are at work.
func trio(t *testing.T, task *Task) *world {
	w := newWorld(t, task, 77)
	for i := range 3 {
		w.boot(fmt.Sprintf("node-%d", i+1), 3)
	}
	return w
}

// TestAFlippedBitStopsTheRunAndNamesTheNode is I9: replicas compare digests.
func TestAFlippedBitStopsTheRunAndNamesTheNode(t *testing.T) {
	task := simTask(t)
	flips := map[string]func(s *State){
		"parameter": func(s *State) { s.params[5] += 1e-3 },
		"exponent":  func(s *State) { s.GradExps[1] += 30 },
	}
	for what, flip := range flips {
		t.Run(what, func(t *testing.T) {
			w := trio(t, task)
			w.silent = true // the oracle of the simulation would notice first
			w.after(900*time.Millisecond, func() { flip(w.nodes["node-2"].node.state) })
			w.play(10 * time.Minute)
			for id, e := range w.ended {
				if e.Err == nil || !strings.Contains(e.Err.Error(), "the state of node-2 differs from that of 2 others") {
					t.Errorf("%s ended with %v", id, e.Err)
				}
			}
		})
	}
}

func TestTwoNodesThatDifferCannotKnowWhoIsRight(t *testing.T) {
	task := simTask(t)
	w := newWorld(t, task, 78)
	w.silent = true
	w.boot("node-1", 2)
	w.boot("node-2", 2)
	w.after(880*time.Millisecond, func() { w.nodes["node-2"].node.state.params[0]++ })
	w.play(10 * time.Minute)
	for id, e := range w.ended {
		if e.Err == nil || !strings.Contains(e.Err.Error(), "nobody can know who is right") {
			t.Errorf("%s ended with %v", id, e.Err)
		}
	}
}

// wrongRecord is a data set one of whose records is another than its index says.
type wrongRecord struct{ dataset.Dataset }

func (d wrongRecord) Read(i int, x, y []float32) (uint64, error) {
	id, err := d.Dataset.Read(i, x, y)
	if i == 17 {
		id++
	}
	return id, err
}

// TestARecordThatIsNotThePlannedOneStopsTheRun is I6: what was loaded is held
// against the plan.
func TestARecordThatIsNotThePlannedOneStopsTheRun(t *testing.T) {
	task := simTask(t)
	task.Train = wrongRecord{task.Train}
	_, err := Fit(context.Background(), task, 1, nil)
	if err == nil || !strings.Contains(err.Error(), "alone loaded 40 of its 40 samples, or others") {
		t.Errorf("got %v", err)
	}
}

func explosive(t *testing.T, onNonfinite string) *Task {
	base := simTask(t)
	j := *base.Job
	sgd, _ := optim.NewSpec("sgd")
	sgd.(*optim.SGD).LearningRate = optim.Constant(1e30)
	j.Optimizer, j.OnNonfinite, j.EarlyStopping = sgd, onNonfinite, nil
	j.Validation, j.Epochs = &job.Validation{Split: 0.2}, 2
	train, test, err := j.Data.(*dataset.Synthetic).Generate()
	if err != nil {
		t.Fatal(err)
	}
	task, err := NewTask(&j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestANonFiniteGradientStopsEveryNodeAtTheSameStep(t *testing.T) {
	w := trio(t, explosive(t, "stop"))
	w.play(10 * time.Minute)
	said := map[string]bool{}
	for id, e := range w.ended {
		if e.Err == nil || !strings.Contains(e.Err.Error(), "is not finite; lower the learning rate") {
			t.Fatalf("%s ended with %+v", id, e)
		}
		said[e.Err.Error()] = true
	}
	if len(said) != 1 || len(w.ended) != 3 {
		t.Errorf("%d nodes ended and said %v", len(w.ended), said)
	}
	if !strings.Contains(strings.Join(w.trace, "\n"), "computed once more, by others") {
		t.Error("it was believed at once")
	}
}

func TestANonFiniteGradientIsSkippedEverywhere(t *testing.T) {
	task := explosive(t, "skip")
	want := oracle(t, task)
	w := trio(t, task)
	w.play(10 * time.Minute)
	for id, d := range w.final {
		if d != want {
			t.Errorf("%s ends with %x, want %x", id, d, want)
		}
	}
	if len(w.final) != 3 || w.nodes["node-1"].node.State().Skipped == 0 {
		t.Errorf("%d finished, %d updates skipped", len(w.final), w.nodes["node-1"].node.State().Skipped)
	}
}

// TestEarlyStoppingSurvivesKillsAndResumes: patience and best weights are state.
func TestEarlyStoppingSurvivesKillsAndResumes(t *testing.T) {
	base := simTask(t)
	j := *base.Job
	j.Epochs = 60
	j.EarlyStopping = &job.EarlyStopping{Monitor: "val_loss", Patience: 6, MinDelta: 0.05, Mode: "auto", RestoreBest: true}
	train, test, err := j.Data.(*dataset.Synthetic).Generate()
	if err != nil {
		t.Fatal(err)
	}
	task, err := NewTask(&j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	want := oracle(t, task)
	w := trio(t, task)
	w.after(850*time.Millisecond, func() {
		for _, id := range []string{"node-1", "node-2", "node-3"} {
			w.logf("kill %s", id)
			w.nodes[id].die()
		}
		w.boot("node-1", 0)
		w.boot("node-3", 0)
	})
	w.play(10 * time.Minute)
	for id, d := range w.final {
		if d != want {
			t.Errorf("%s ends with %x, want %x", id, d, want)
		}
	}
	s := w.nodes["node-1"].node.State()
	if len(w.final) != 2 || s.Stopping.Stopped == 0 || s.Stopping.Stopped >= j.Epochs || s.Stopping.BestEpoch == s.Stopping.Stopped {
		t.Errorf("%d finished; stopped after epoch %d, best %d: the test shows nothing\n%s", len(w.final), s.Stopping.Stopped, s.Stopping.BestEpoch, w.tail(30))
	}
}

// TestABrokenLinkCostsOneOfThemAtMost cuts node-2 and node-3 from each other;
// both reach the rest. The others must get on, and in the end all do.
func TestABrokenLinkCostsOneOfThemAtMost(t *testing.T) {
	task := simTask(t)
	want := oracle(t, task)
	w := newWorld(t, task, 80)
	for i := range 4 {
		w.boot(fmt.Sprintf("node-%d", i+1), 4)
	}
	w.after(700*time.Millisecond, func() {
		w.cut = func(a, b string) bool { return a+b == "node-2node-3" || a+b == "node-3node-2" }
	})
	w.play(2 * time.Minute)
	for id, d := range w.final {
		if d != want {
			t.Errorf("%s ends with %x, want %x", id, d, want)
		}
	}
	if len(w.final) < 3 {
		t.Errorf("%d of 4 finished\n%s", len(w.final), w.tail(60))
	}
}

func TestAFinishedNodeWaitsForNobody(t *testing.T) {
	task := simTask(t)
	w := newWorld(t, task, 81)
	w.boot("node-1", 1)
	w.play(10 * time.Minute)
	w.minNodes = 2
	w.boot("node-1", 3)
	w.play(10 * time.Second)
	if e := w.ended["node-1"]; !e.Finished || e.Err != nil {
		t.Errorf("ended with %+v", e)
	}
}
