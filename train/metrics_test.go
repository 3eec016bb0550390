package train

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/internal/testjobs"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/shard"
)

// fitCase is a training by Keras' Model.fit: see nn/testdata/metrics.py.
type fitCase struct {
	Name, Loss   string
	Classes      int
	Rate         float64
	Epochs       int
	Smoothing    float64
	X            []float32
	IDs          []float32
	SampleWeight []float32 `json:"sample_weight"`
	ClassWeight  []float64 `json:"class_weight"`
	Regularizer  nn.Regularizer
	Start, End   []float32
	History      map[string][]float64
}

func readFits(t *testing.T) []fitCase {
	t.Helper()
	b, err := os.ReadFile("../nn/testdata/metrics.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Fits []fitCase }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all.Fits
}

// task is the same training as a job.
func (c fitCase) task(t *testing.T) *Task {
	t.Helper()
	samples := len(c.IDs)
	info := dataset.Info{Name: c.Name, Input: []int{len(c.X) / samples}, Target: 1, Classes: c.Classes}
	m, err := dataset.NewMemory(info, nil, c.X, c.IDs)
	if err == nil && c.SampleWeight != nil {
		m, err = m.Weigh(c.SampleWeight)
	}
	if err != nil {
		t.Fatal(err)
	}
	j := job.Default()
	hidden, end := nn.NewDense(5, "tanh"), nn.NewDense(3, "softmax")
	hidden.KernelRegularizer = c.Regularizer
	if c.Loss == "binary_crossentropy" {
		end = nn.NewDense(1, "sigmoid")
	}
	j.Model, j.Loss, j.ClassWeight, j.LabelSmoothing = []job.Section{hidden, end}, c.Loss, c.ClassWeight, c.Smoothing
	for name := range c.History {
		if !strings.HasPrefix(name, "val_") && name != "loss" {
			j.Metrics = append(j.Metrics, name)
		}
	}
	slices.Sort(j.Metrics)
	j.Optimizer = &optim.SGD{LearningRate: optim.Constant(c.Rate)}
	j.Batch, j.Epochs = job.Batch{Global: samples, Microbatch: 5}, c.Epochs
	j.Validation = &job.Validation{Split: 1. / 3}
	task, err := NewTask(j, labelled(j, m), nil)
	if err != nil {
		t.Fatal(err)
	}
	copy(task.start.params, c.Start)
	return task
}

// What fit says of each epoch, and the weights in the end, with weights of samples
// (of validation samples too), of classes, and with regularizers. Both are float32.
func TestEpochsAreThoseOfKeras(t *testing.T) {
	for _, c := range readFits(t) {
		t.Run(c.Name, func(t *testing.T) {
			task := c.task(t)
			fit, err := Fit(t.Context(), task, 2, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range c.History {
				for i, e := range fit.History {
					if got := float64(task.Monitored(e, name)); !(math.Abs(got-want[i]) <= 3e-6) {
						t.Errorf("epoch %d: %s is %v, want %v", e.Epoch, name, got, want[i])
					}
				}
			}
			for i, want := range c.End {
				if got := fit.Params[i]; !(math.Abs(float64(got-want)) <= 3e-6) {
					t.Fatalf("parameter %d is %v, want %v", i, got, want)
				}
			}
		})
	}
}

// countsTask counts by class and by threshold, with weights for its samples.
func countsTask(t *testing.T) *Task {
	t.Helper()
	for _, f := range testjobs.Whole() {
		if f.Name != "counts" {
			continue
		}
		j, err := job.Parse(f.Name, f.Text)
		if err != nil {
			t.Fatal(err)
		}
		train, _, err := j.Data.(*dataset.Synthetic).Generate()
		if err != nil {
			t.Fatal(err)
		}
		weights := make([]float32, train.Len())
		for i := range weights {
			weights[i] = float32(i%7) / 3
		}
		if train, err = train.Weigh(weights); err != nil {
			t.Fatal(err)
		}
		task, err := NewTask(j, train, nil)
		if err != nil {
			t.Fatal(err)
		}
		return task
	}
	t.Fatal("no test job is called counts")
	return nil
}

// Any ranks, in any order, on any number of workers: the same sums of losses with
// weights and of counts, in training and in evaluation.
func TestAnySplitOfTheSamplesGivesTheSameSums(t *testing.T) {
	task := countsTask(t)
	s := task.Start()
	for _, kind := range []Kind{Update, Evaluate} {
		a := task.attempt(s)
		if kind == Evaluate {
			a = &Attempt{Kind: Evaluate, Scalar: task.startExponents(Evaluate)}
		}
		exact.Raise(a.Scalar, slices.Repeat([]int16{6}, len(a.Scalar)))
		total := func(cuts []int) []float64 {
			sums := make([]float64, task.sums(kind))
			for i := range len(cuts) - 1 {
				e := NewEngine(task, 1)
				c, err := e.Compute(context.Background(), a, shard.Range{Lo: cuts[i], Hi: cuts[i+1]}, s.params, nil)
				if err != nil {
					t.Fatal(err)
				}
				for j, x := range c.Scalars.Acc() {
					sums[j] += x
				}
			}
			return sums
		}
		n := task.microbatches(a)
		want := total([]int{0, n})
		rapid.Check(t, func(t *rapid.T) {
			cuts := append(rapid.SliceOf(rapid.IntRange(0, n)).Draw(t, "cuts"), 0, n)
			slices.Sort(cuts)
			if got := total(cuts); !slices.Equal(bitsOf(got), bitsOf(want)) {
				t.Fatalf("%s cut at %v: %v, want %v", kind, cuts, got, want)
			}
		})
	}
}

// In evaluation a sample is rounded by itself, so that batches may have any size.
func TestTheSizeOfBatchesIsInNoCount(t *testing.T) {
	task := countsTask(t)
	params := task.Start().params
	want, err := task.Evaluate(t.Context(), params, task.Train)
	if err != nil {
		t.Fatal(err)
	}
	var counted uint64
	for _, row := range want.Confusion {
		for _, n := range row {
			counted += n
		}
	}
	if counted != uint64(task.Train.Len()) {
		t.Errorf("the confusion matrix counts %d of %d samples", counted, task.Train.Len())
	}
	for _, micro := range []int{1, 4, 50} {
		other := *task
		other.Plan.Micro = micro
		got, err := other.Evaluate(t.Context(), params, task.Train)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("batches of %d: got %v, want %v", micro, got, want)
		}
	}
}

func TestWeightsChangeLossAndTrajectoryAndNoMetric(t *testing.T) {
	with := countsTask(t)
	without := func() *Task {
		train, _, err := with.Job.Data.(*dataset.Synthetic).Generate()
		if err != nil {
			t.Fatal(err)
		}
		task, err := NewTask(with.Job, train, nil)
		if err != nil {
			t.Fatal(err)
		}
		return task
	}()
	if with.Trajectory == without.Trajectory {
		t.Error("weights are not in the trajectory's name")
	}
	params := with.Start().params
	a, err := with.Evaluate(t.Context(), params, with.Validation)
	if err != nil {
		t.Fatal(err)
	}
	b, err := with.Evaluate(t.Context(), params, without.Validation)
	if err != nil {
		t.Fatal(err)
	}
	if a.Scalars[0] == b.Scalars[0] || !slices.Equal(a.Scalars[1:], b.Scalars[1:]) || !reflect.DeepEqual(a.Confusion, b.Confusion) {
		t.Errorf("with weights %v, without %v", a, b)
	}
}

// No count is a reason to make an attempt again: its grid is known.
func TestCountsAreNotLearnedByRepeating(t *testing.T) {
	task := countsTask(t)
	e := NewEngine(task, 1)
	for _, a := range []*Attempt{task.attempt(task.Start()), {Kind: Evaluate, Scalar: task.startExponents(Evaluate)}} {
		c, err := e.Compute(context.Background(), a, shard.Range{Hi: task.microbatches(a)}, task.Start().params, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, column := range task.summed(a.Kind) {
			if fits := c.Scalars.Seen()[i] <= a.Scalar[i]; fits == column.metric.Mean {
				t.Errorf("%s, %s: fits its first grid is %v", a.Kind, column.metric.Name, fits)
			}
		}
	}
}

// The counts of an epoch are those of all its steps together, whole numbers.
func TestAnEpochsCountsAreWhole(t *testing.T) {
	task := countsTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	s := f.node.State()
	checked := false
	for f.exit == nil {
		for _, e := range f.node.Take() {
			f.do(e)
		}
		for _, c := range task.summed(Update) {
			if c.metric.Mean || s.Samples == 0 {
				continue
			}
			checked = true
			for _, x := range s.Running[c.lo:c.hi] {
				if x != Number(math.Trunc(float64(x))) || float64(x) > float64(s.Samples)*4 {
					t.Fatalf("%s: a sum of %v over %d samples", c.metric.Name, x, s.Samples)
				}
			}
		}
	}
	if f.exit.Err != nil || !checked {
		t.Errorf("ended with %v, looked at sums: %v", f.exit.Err, checked)
	}
}

func TestEarlyStoppingWatchesAUC(t *testing.T) {
	task := countsTask(t)
	f := newFitter(t.Context(), task, 2, nil)
	defer f.pool.close()
	fit, err := f.run()
	if err != nil {
		t.Fatal(err)
	}
	s := f.node.State()
	best, at := math.Inf(-1), 0
	for _, e := range fit.History {
		if auc := float64(task.Monitored(e, "val_auc")); auc > best+0.02 {
			best, at = auc, e.Epoch
		}
	}
	if s.Stopping.BestEpoch != at || float64(s.Stopping.Best) != best || s.Stopping.Stopped != len(fit.History) || at == len(fit.History) {
		t.Fatalf("stopped as %+v, the greatest AUC is %v in epoch %d of %d", s.Stopping, best, at, len(fit.History))
	}
	for _, e := range fit.History {
		if kept := e.Epoch == at || e.Epoch == len(fit.History); kept != (e.Confusion != nil) {
			t.Errorf("the confusion matrix of epoch %d is kept: %v", e.Epoch, e.Confusion != nil)
		}
	}
	e, err := task.Evaluate(t.Context(), fit.Params, task.Validation)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(e.Confusion, fit.History[at-1].Confusion) {
		t.Errorf("the confusion matrix of the best weights is %v, in the history stands %v", e.Confusion, fit.History[at-1].Confusion)
	}
	for i, v := range fit.History[at-1].Validation {
		if math.Abs(e.Scalars[i]-float64(v)) > 1e-12 {
			t.Errorf("%s of the best weights is %v, in the history stands %v", task.Scalars()[i], e.Scalars[i], v)
		}
	}
}

func TestTablesAreInStateCheckpointAndWatch(t *testing.T) {
	task := countsTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	if _, err := f.run(); err != nil {
		t.Fatal(err)
	}
	s := f.node.State()
	again, err := task.restore(task.snapshot(s))
	if err != nil {
		t.Fatal(err)
	}
	if task.digest(again) != task.digest(s) || !reflect.DeepEqual(again.History, s.History) {
		t.Error("a restored state is another one")
	}
	s.Transition = 0 // the block that the history is watched with
	before := s.watch(inTurn)
	s.History[len(s.History)-1].Confusion[1][2]++
	if s.watch(inTurn) == before {
		t.Error("a changed count is not seen")
	}
}

func TestOutputsThatAreNoNumbersAreNoLossAndPredictNothing(t *testing.T) {
	task := countsTask(t)
	params := task.Start().params
	for i := range params {
		params[i] = float32(math.NaN())
	}
	e, err := task.Evaluate(t.Context(), params, task.Train)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range task.Scalars() {
		switch got := e.Scalars[i]; name {
		case "loss":
			if !math.IsNaN(got) {
				t.Errorf("the loss is %v, want NaN", got)
			}
		case "auc":
			if got != 0.5 {
				t.Errorf("auc is %v, want that of equal outputs", got)
			}
		case "accuracy": // class 0 is the first of equals
		default:
			if got != 0 {
				t.Errorf("%s is %v, want 0", name, got)
			}
		}
	}
}

func TestAMetricThatDoesNotFitIsToldAtItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"metrics: [accuracy, f1_score]": "j.yaml:8: metrics[1]: metric f1_score: got 3 units, want 1: over several, say how they are averaged: f1_score_macro, f1_score_micro or f1_score_weighted",
		"class_weight: [1, 2, 3]":       "j.yaml:8: class_weight: the samples of data set synthetic have weights of their own (want one or the other, as in Keras)",
	} {
		j, err := job.Parse("j.yaml", []byte(fmt.Sprintf(`
data: {synthetic: {samples: 40, features: 4, classes: 3}}
model:
  - dense: {units: 3, activation: softmax}
optimizer: adam
batch: {global: 8, microbatch: 4}
loss: sparse_categorical_crossentropy
%s
`, text)))
		if err != nil {
			t.Fatal(err)
		}
		train, _, err := j.Data.(*dataset.Synthetic).Generate()
		if err != nil {
			t.Fatal(err)
		}
		if train, err = train.Weigh(make([]float32, train.Len())); err != nil {
			t.Fatal(err)
		}
		if _, err = NewTask(j, train, nil); err == nil || err.Error() != want {
			t.Errorf("got %v,\nwant %s", err, want)
		}
	}
}

func TestPredictNamesASampleThatTheModelCannotTake(t *testing.T) {
	for _, f := range testjobs.Whole() {
		if f.Name != "gru" {
			continue
		}
		task := testTask(t, f)
		x := make([]float32, 3*task.Model.InputLen())
		x[2*task.Model.InputLen()+1] = 16
		_, err := task.Predict(t.Context(), task.Start().params, x)
		if err == nil || !strings.HasPrefix(err.Error(), "sample 2: ") {
			t.Errorf("got %v, want what is wrong with sample 2", err)
		}
		return
	}
	t.Fatal("no test job is called gru")
}
