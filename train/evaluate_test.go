package train

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
)

// inputs returns all x and y of a data set.
func inputs(t testing.TB, d dataset.Dataset) (x, y []float32) {
	t.Helper()
	info := d.Info()
	nx, ny := info.InputLen(), info.Target
	x, y = make([]float32, d.Len()*nx), make([]float32, d.Len()*ny)
	for i := range d.Len() {
		if _, err := d.Read(i, x[i*nx:(i+1)*nx], y[i*ny:(i+1)*ny]); err != nil {
			t.Fatal(err)
		}
	}
	return x, y
}

// bitsOf makes figures comparable, NaN included.
func bitsOf(values []float64) (bits []uint64) {
	for _, v := range values {
		bits = append(bits, math.Float64bits(v))
	}
	return bits
}

func TestAnEvaluationIsAFunctionOfWeightsAndDataAlone(t *testing.T) {
	task := simTask(t)
	want, err := task.Evaluate(t.Context(), task.Start().params, task.Train)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(procs)
		for _, micro := range []int{1, 3, 8, 40} {
			other := *task
			other.Plan.Micro = micro
			got, err := other.Evaluate(t.Context(), task.Start().params, task.Train)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(bitsOf(got.Scalars), bitsOf(want.Scalars)) {
				t.Errorf("%d cores, microbatches of %d: got %v, want %v", procs, micro, got, want)
			}
		}
	}
}

func TestAnEvaluationGivesTheMeansOfItsSamples(t *testing.T) {
	task := simTask(t)
	params := task.Start().params
	got, err := task.Evaluate(t.Context(), params, task.Test)
	if err != nil {
		t.Fatal(err)
	}
	x, y := inputs(t, task.Test)
	n := task.Test.Len()
	w := task.Model.NewWorkspace(n)
	w.Forward(params, &nn.Batch{N: n, X: x, Y: y}, nn.Key{}, false)
	for i, values := range [][]float64{w.Losses(), w.MetricValues(0)} {
		var sum float64
		for _, v := range values {
			sum += v
		}
		if mean := sum / float64(n); math.Abs(got.Scalars[i]-mean) > 1e-12*math.Abs(mean) {
			t.Errorf("%s is %v, the mean is %v", task.Scalars()[i], got.Scalars[i], mean)
		}
	}
}

func TestWhatIsNotFiniteIsNaNAndTheRestIsTold(t *testing.T) {
	task := simTask(t)
	params := task.Start().params
	for i := range params {
		params[i] = 1e30
	}
	got, err := task.Evaluate(t.Context(), params, task.Test)
	if err != nil {
		t.Fatal(err)
	}
	if got := got.Scalars; !math.IsNaN(got[0]) || !(got[1] >= 0 && got[1] <= 1) {
		t.Errorf("loss and accuracy are %v, want NaN and a share", got)
	}
}

func TestDataOfAnotherShapeIsNotEvaluated(t *testing.T) {
	task := simTask(t)
	_, other, err := (&dataset.Synthetic{Samples: 9, TestSamples: 9, Features: 5, Classes: 3, Seed: 5}).Generate()
	if err != nil {
		t.Fatal(err)
	}
	_, err = task.Evaluate(t.Context(), task.Start().params, other)
	want := "data set synthetic: got samples of shape [5] with 1 values as label, the model was made for [6] with 1"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestACancelledEvaluationSaysSo(t *testing.T) {
	task := simTask(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	params := task.Start().params
	if _, err := task.Evaluate(ctx, params, task.Train); !errors.Is(err, context.Canceled) {
		t.Errorf("Evaluate: got %v, want %v", err, context.Canceled)
	}
	x, _ := inputs(t, task.Train)
	if _, err := task.Predict(ctx, params, x); !errors.Is(err, context.Canceled) {
		t.Errorf("Predict: got %v, want %v", err, context.Canceled)
	}
}

func TestAPredictionBelongsToItsSampleAlone(t *testing.T) {
	task := simTask(t)
	params := task.Start().params
	x, _ := inputs(t, task.Train)
	all, err := task.Predict(t.Context(), params, x)
	if err != nil {
		t.Fatal(err)
	}
	in, out := task.Model.InputLen(), task.Model.OutputLen()
	for i := range task.Train.Len() {
		one, err := task.Predict(t.Context(), params, x[i*in:(i+1)*in])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(one, all[i*out:(i+1)*out]) {
			t.Fatalf("sample %d: alone %v, among others %v", i, one, all[i*out:(i+1)*out])
		}
	}
}

func TestACheckpointPredictsWithoutItsDataSet(t *testing.T) {
	for _, loss := range []string{"sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy", "mean_squared_error"} {
		t.Run(loss, func(t *testing.T) {
			task := taskWithLoss(t, loss)
			x, _ := inputs(t, task.Test)
			want, err := task.Predict(t.Context(), task.Start().params, x)
			if err != nil {
				t.Fatal(err)
			}
			blob := checkpoint.Marshal(task.snapshot(task.Start()))
			snap, err := checkpoint.Unmarshal(blob)
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPredictor(snap, []int{6})
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Predict(t.Context(), x)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("got %v, %v, want %v", got, err, want)
			}
			if _, err := NewPredictor(snap, []int{7}); err == nil || !strings.Contains(err.Error(), "samples of shape [7] do not fit the checkpoint: tensor dense/kernel") {
				t.Errorf("samples of another shape: got %v", err)
			}
		})
	}
}

// taskWithLoss is a small task for a loss, opened as a job file's.
func taskWithLoss(t *testing.T, loss string) *Task {
	t.Helper()
	classes, units, end := 3, 3, "softmax"
	switch loss {
	case "binary_crossentropy":
		classes, units, end = 2, 1, "sigmoid"
	case "mean_squared_error":
		classes, units, end = 0, 1, "linear"
	}
	j := job.Default()
	j.Loss, j.Data = loss, &dataset.Synthetic{Samples: 50, TestSamples: 20, Features: 6, Classes: classes, Seed: 5}
	j.Model = []job.Section{nn.NewDense(8, "relu"), nn.NewDense(units, end)}
	j.Optimizer = simTask(t).Job.Optimizer
	train, test, err := OpenData(t.Context(), j, dataset.Env{})
	if err != nil {
		t.Fatal(err)
	}
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

func TestOutputsAreReadAsClasses(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		loss string
		out  []float32
		k    int
		want []Choice
	}{
		{"sparse_categorical_crossentropy", []float32{0.2, 0.5, 0.3}, 1, []Choice{{1, 0.5}}},
		{"sparse_categorical_crossentropy", []float32{0.2, 0.5, 0.3}, 2, []Choice{{1, 0.5}, {2, 0.3}}},
		{"sparse_categorical_crossentropy", []float32{nan, 0.5, nan}, 1, []Choice{{1, 0.5}}},
		{"categorical_crossentropy", []float32{0.2, 0.4, 0.4}, 9, []Choice{{1, 0.4}, {2, 0.4}, {0, 0.2}}},
		{"binary_crossentropy", []float32{0.75}, 1, []Choice{{1, 0.75}}},
		{"binary_crossentropy", []float32{0.5}, 1, []Choice{{0, 0.5}}},
		{"binary_crossentropy", []float32{0.25}, 2, []Choice{{0, 0.75}, {1, 0.25}}},
		{"binary_crossentropy", []float32{0.25, 0.75}, 1, nil},
		{"mean_squared_error", []float32{3}, 1, nil},
	} {
		p := &Predictor{loss: c.loss}
		if got := p.Choices(c.out, c.k); !slices.Equal(got, c.want) {
			t.Errorf("%s, %v: got %v, want %v", c.loss, c.out, got, c.want)
		}
	}
}

func TestDataThatCannotBeOpenedIsBlamedOnItsLine(t *testing.T) {
	j, err := job.Parse("job.yaml", []byte("name: x\ndata: {idx: {train_images: no-such, train_labels: file}}\n"+
		"model: [flatten, {dense: {units: 10, activation: softmax}}]\nloss: sparse_categorical_crossentropy\noptimizer: adam\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = OpenData(t.Context(), j, dataset.Env{})
	if e := (*job.Error)(nil); !errors.As(err, &e) || e.Line != 2 || e.Field != "data" {
		t.Errorf("got %v", err)
	}
}
