package train

import (
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
)

// simTask is small and has all that decides: dropout, validation, early stopping
// with the best weights.
func simTask(t testing.TB) *Task {
	t.Helper()
	j, train, test := smallJob(t)
	j.Batch, j.Epochs = job.Batch{Global: 40, Microbatch: 8}, 14
	j.Validation = &job.Validation{Split: 0.2}
	j.EarlyStopping = &job.EarlyStopping{Monitor: "val_loss", Patience: 4, Mode: "auto", RestoreBest: true}
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// smallJob trains a net of two layers with dropout on 200 samples; batch and epochs are
// the caller's.
func smallJob(t testing.TB) (j *job.Job, train, test dataset.Dataset) {
	t.Helper()
	spec := &dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}
	train, test, err := spec.Generate()
	if err != nil {
		t.Fatal(err)
	}
	j = job.Default()
	j.Seed, j.Loss, j.Metrics, j.Data = 7, "sparse_categorical_crossentropy", []string{"accuracy"}, spec
	j.Model = []job.Section{nn.NewDense(16, "relu"), nn.NewDropout(0.2), nn.NewDense(3, "softmax")}
	j.Optimizer, _ = optim.NewSpec("adam")
	return j, train, test
}
