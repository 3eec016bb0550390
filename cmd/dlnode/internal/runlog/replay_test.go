package runlog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/train"
)

// small is a task of four updates.
func small(t *testing.T) *train.Task {
	t.Helper()
	spec := &dataset.Synthetic{Samples: 64, TestSamples: 8, Features: 5, Classes: 3, Seed: 5}
	data, test, err := spec.Generate()
	if err != nil {
		t.Fatal(err)
	}
	j := job.Default()
	j.Seed, j.Loss, j.Data = 7, "sparse_categorical_crossentropy", spec
	j.Model = []job.Section{nn.NewDense(8, "relu"), nn.NewDense(3, "softmax")}
	j.Optimizer, _ = optim.NewSpec("adam")
	j.Batch, j.Epochs = job.Batch{Global: 32, Microbatch: 8}, 2
	task, err := train.NewTask(j, data, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func recomputer(t *testing.T, task *train.Task) *train.Recomputer {
	t.Helper()
	r, err := train.NewRecomputer(task, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// written is what two nodes would have written of a task: a has computed the first
// microbatch of each step, b the others.
func written(t *testing.T, task *train.Task) *Log {
	t.Helper()
	l := &Log{Nodes: []string{"a", "b"}, steps: map[uint64][]Word{}}
	for r := recomputer(t, task); !r.Done(); r.Commit() {
		got, err := r.Compute(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for i, node := range l.Nodes {
			w := Word{node, train.Record{
				T: "step", Kind: string(got.Kind), Transition: got.Transition, Step: got.Step, Generation: 1, World: 2, Samples: got.Samples,
				Watch: got.Watch, Gradient: got.Gradient, Lo: i, Hi: 1 + i*(got.Microbatches-1),
			}}
			if got.Kind == train.Update {
				if w.Own, err = r.Part(context.Background(), w.Lo, w.Hi); err != nil {
					t.Fatal(err)
				}
			} else {
				w.Lo, w.Hi = 0, 0
			}
			l.steps[got.Transition] = append(l.steps[got.Transition], w)
		}
	}
	return l
}

func TestTheFirstDifferenceIsNamed(t *testing.T) {
	task := small(t)
	tests := []struct {
		name   string
		change func(s map[uint64][]Word)
		step   uint64   // where it differs, 0 if nowhere
		lines  []string // that are told
	}{
		{"nothing", func(map[uint64][]Word) {}, 0, nil},
		{"a journal that is not there", func(s map[uint64][]Word) {
			for at := range s {
				s[at] = s[at][:1]
			}
		}, 0, nil},
		{"a record that is not there", func(s map[uint64][]Word) { delete(s, 2) }, 0, nil},
		{"a journal without digests", func(s map[uint64][]Word) {
			for at := range s {
				s[at][0].Gradient, s[at][0].Own = "", ""
				s[at] = s[at][:1]
			}
		}, 0, nil},
		{"a gradient", func(s map[uint64][]Word) { s[2][0].Gradient, s[2][1].Gradient, s[2][1].Own = "a1", "a1", "b1" }, 2,
			[]string{"step 2 (transition 2) differs", "recorded a1 by a, b; recomputed ", "a, microbatches [0, 1): part ", "as recomputed", "b, microbatches [1, 4): part b1, recomputed "}},
		{"one node's word", func(s map[uint64][]Word) { s[2][1].Gradient = "a1" }, 2, []string{"recorded a1 by b", "a, microbatches [0, 1): part "}},
		{"a part alone", func(s map[uint64][]Word) { s[3][0].Own = "b1" }, 3, []string{"a, microbatches [0, 1): part b1, recomputed "}},
		{"a part of who is alone here", func(s map[uint64][]Word) { s[3] = s[3][1:]; s[3][0].Gradient = "a1" }, 3,
			[]string{"microbatches [0, 1) are in no journal", "b, microbatches [1, 4): part ", "as recomputed"}},
		{"microbatches that there are not", func(s map[uint64][]Word) { s[3][0].Hi, s[3][0].Own = 9, "1" }, 3, []string{"a says microbatches [0, 9), of 4: that can't be"}},
		{"samples", func(s map[uint64][]Word) { s[1][0].Samples++; s[1][1].Samples++ }, 1, []string{"samples       recorded 33 by a, b; recomputed 32"}},
		{"the first state", func(s map[uint64][]Word) { s[1][0].Watch, s[1][1].Watch = "a1", "a1" }, 1, []string{"state before  recorded a1 by a, b; recomputed "}},
		{"a state after a gradient that is right", func(s map[uint64][]Word) { s[3][0].Watch, s[3][1].Watch = "a1", "a1" }, 2,
			[]string{"the state after step 2 differs, though its gradient does not", "state after   recorded a1 by a, b; recomputed "}},
		{"a state of one node", func(s map[uint64][]Word) { s[3][1].Watch = "a1" }, 2, []string{"recorded a1 by b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := written(t, task)
			tt.change(l.steps)
			p := &Replay{Log: l, Run: recomputer(t, task)}
			diff, err := p.To(context.Background(), 4)
			if err != nil {
				t.Fatal(err)
			}
			if tt.step == 0 {
				if diff != nil || p.Last.Step != 4 {
					t.Errorf("differs: %+v; the last step is %d", diff, p.Last.Step)
				}
				return
			}
			if diff == nil || diff.Step != tt.step {
				t.Fatalf("%+v, want a difference at step %d", diff, tt.step)
			}
			for text := strings.Join(diff.Lines, "\n"); len(tt.lines) > 0; tt.lines = tt.lines[1:] {
				if !strings.Contains(text, tt.lines[0]) {
					t.Errorf("no %q in\n%s", tt.lines[0], text)
				}
			}
		})
	}
}

func TestACheckpointIsHeldAgainstTheState(t *testing.T) {
	task := small(t)
	r := recomputer(t, task)
	known := map[uint64][32]byte{}
	for range 2 {
		if _, err := r.Compute(context.Background()); err != nil {
			t.Fatal(err)
		}
		r.Commit()
		known[r.Transition()] = r.Digest()
	}
	p := &Replay{Log: written(t, task), Run: recomputer(t, task), Known: known}
	if diff, err := p.To(context.Background(), 4); diff != nil || err != nil || !slices.Equal(p.Met, []uint64{1, 2}) {
		t.Errorf("met %v, want 1 and 2; %+v, %v", p.Met, diff, err)
	}
	known[2] = known[1]
	p = &Replay{Log: p.Log, Run: recomputer(t, task), Known: known}
	diff, err := p.To(context.Background(), 4)
	if err != nil || diff == nil || diff.Step != 2 || !strings.Contains(diff.Lines[0], fmt.Sprintf("its checkpoint has SHA-256 %x", known[1])) {
		t.Errorf("%+v, %v", diff, err)
	}
}
