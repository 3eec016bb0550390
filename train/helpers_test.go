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
	train, test, err := (&dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}).Generate()
	if err != nil {
		t.Fatal(err)
	}
	j := job.Default()
	j.Seed, j.Loss, j.Metrics = 7, "sparse_categorical_crossentropy", []string{"accuracy"}
	j.Data = &dataset.Synthetic{Samples: 200, TestSamples: 20, Features: 6, Classes: 3, Seed: 5}
	j.Model = []job.Section{nn.NewDense(16, "relu"), nn.NewDropout(0.2), nn.NewDense(3, "softmax")}
	opt, _ := optim.NewSpec("adam")
	j.Optimizer = opt
	j.Batch, j.Epochs = job.Batch{Global: 40, Microbatch: 8}, 14
	j.Validation = &job.Validation{Split: 0.2}
	j.EarlyStopping = &job.EarlyStopping{Monitor: "val_loss", Patience: 4, Mode: "auto", RestoreBest: true}
	task, err := NewTask(j, train, test)
	if err != nil {
		t.Fatal(err)
	}
	return task
}
