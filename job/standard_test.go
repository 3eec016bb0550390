package job

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func examples(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	return paths
}

// shapes are those of the data that the examples train on.
var shapes = map[string]struct {
	input   []int
	classes int
}{
	"mnist":        {[]int{28, 28}, 10},
	"imdb":         {[]int{200}, 2},
	"cats_vs_dogs": {[]int{150, 150, 3}, 2},
}

func TestEveryExampleIsAJobThatCanBeBuilt(t *testing.T) {
	for _, path := range examples(t) {
		j, err := Load(path)
		if err != nil {
			t.Error(err)
			continue
		}
		network, err := j.Network()
		if err != nil {
			t.Error(err)
		}
		shape, ok := shapes[j.Data.Kind()]
		if !ok {
			t.Fatalf("%s: no shape of %s is written down here", path, j.Data.Kind())
		}
		model, err := nn.Build(network, shape.input, nn.Target{Len: 1, Classes: shape.classes})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if !strings.Contains(model.Table(), "trainable") {
			t.Errorf("%s: the model's summary tells of no parameters:\n%s", path, model.Table())
		}
		if units := j.Batch.Microbatches(); units < 4 {
			t.Errorf("%s: %d microbatches a step, want some for four nodes", path, units)
		}
		var (
			_ optim.Spec   = j.Optimizer
			_ dataset.Spec = j.Data
		)
	}
}

func TestEveryExampleShowsAndRestoresAsItself(t *testing.T) {
	for _, path := range examples(t) {
		want, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := want.Show(&text); err != nil {
			t.Fatal(err)
		}
		got, err := Parse("shown.yaml", text.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Job{})); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
		maths, err := Restore(want.Canonical())
		if err != nil {
			t.Fatal(err)
		}
		if lines := Diff(want.Canonical(), maths.Canonical()); lines != nil {
			t.Errorf("%s: %v", path, lines)
		}
	}
}

// TestTheWideExampleFeedsEightNodes holds what the runs with many nodes need.
func TestTheWideExampleFeedsEightNodes(t *testing.T) {
	j, err := Load("../examples/mnist-mlp-wide.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if n := j.Batch.Microbatches(); n < 12 {
		t.Errorf("%d microbatches, want at least 12", n)
	}
}

// TestDefaultsOfSectionsSurviveShow is for each part of the program, since Show
// leaves out some fields that are zero.
func TestDefaultsOfSectionsSurviveShow(t *testing.T) {
	reg := Standard()
	for path, family := range map[string]Family{"data": reg.Datasets, "model[0]": reg.Layers, "optimizer": reg.Optimizers} {
		for _, kind := range family.Kinds() {
			s, ok := family.New(kind)
			if !ok || s.Kind() != kind {
				t.Errorf("%s: %q is listed but not made", path, kind)
				continue
			}
			for _, f := range fieldsOf(indirect(s)) {
				if f.omitEmpty && !f.value.IsZero() {
					t.Errorf("%s.%s.%s is left out when zero, but its default is not zero", path, kind, f.name)
				}
			}
		}
	}
}

func TestMistakesInRealSectionsFindTheirLine(t *testing.T) {
	_, err := Parse("job.yaml", []byte(`data:
  synthetic:
    classes: 1
model:
  - dense:
      units: 0
  - dense: {units: 10, activation: relo}
  - dropout: {rate: 1}
  - activation: {kind: mish}
loss: mse
optimizer:
  adam:
    learning_rate: {schedule: step, decay_steps: 10}
    beta_1: 1
    epsilon: -1
`))
	if err == nil {
		t.Fatal("no error")
	}
	golden(t, "mistakes.txt", []byte(err.Error()+"\n"))
}

func TestLaterProblemsAreToldWithTheirLine(t *testing.T) {
	j := parse(t, small)
	cause := errors.New("got samples of shape [28 28], want one axis")
	err := j.Blame("model[1]", cause)
	if got, want := err.Error(), "job.yaml:5: model[1]: "+cause.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, cause) || j.Blame("model[1]", nil) != nil {
		t.Error("the cause is lost, or made up")
	}
	if got := testRegistry().Default().Blame("data", cause).Error(); got != "data: "+cause.Error() {
		t.Errorf("without a file: %q", got)
	}
}

func TestLayersOfAnotherProgramAreNamed(t *testing.T) {
	_, err := parse(t, small).Network()
	if err == nil || err.Error() != "model[0]: *job.flatten_ is not a layer of package nn" {
		t.Errorf("got %v", err)
	}
}

func TestAutoFollowsWhatIsBetter(t *testing.T) {
	for monitor, want := range map[string]bool{
		"loss": false, "val_loss": false, "val_accuracy": true, "val_auc": true, "recall_macro": true, "val_f1_score_weighted": true,
		"precision": true, "val_mean_absolute_error": false, "mean_squared_error": false, "sparse_top_k_categorical_accuracy": true,
	} {
		e, r := &EarlyStopping{Monitor: monitor, Mode: "auto"}, &ReduceOnPlateau{Monitor: monitor, Mode: "auto"}
		if e.Maximizes() != want || r.Maximizes() != want {
			t.Errorf("%s: greater is better: %v and %v, want %v", monitor, e.Maximizes(), r.Maximizes(), want)
		}
	}
	if e := (&EarlyStopping{Monitor: "val_auc", Mode: "min"}); e.Maximizes() {
		t.Error("mode min maximizes")
	}
}

func TestAConfusionMatrixIsNothingToMonitor(t *testing.T) {
	_, err := Parse("job.yaml", []byte(`data: synthetic
model:
  - dense: {units: 4, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [confusion_matrix, auc]
validation: {split: 0.2}
early_stopping: {monitor: val_confusion_matrix}
`))
	want := `job.yaml:7: early_stopping.monitor: "val_confusion_matrix" is not allowed (want val_loss, val_auc, loss or auc)`
	if err == nil || err.Error() != want {
		t.Errorf("got %v,\nwant %s", err, want)
	}
}
