package train_test

import (
	"context"
	"fmt"
	"log"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/train"
)

// A Go program trains without a job file or a cluster. Run, with a
// cluster.Config, makes the same task a distributed one.
func Example() {
	data := &dataset.Synthetic{Samples: 600, TestSamples: 200, Features: 8, Classes: 3, Seed: 1}
	samples, test, err := data.Generate()
	if err != nil {
		log.Fatal(err)
	}
	adam, _ := optim.NewSpec("adam")

	j := job.Default()
	j.Data = data
	j.Model = []job.Section{nn.NewDense(32, "relu"), nn.NewDropout(0.1), nn.NewDense(3, "softmax")}
	j.Loss, j.Metrics = "sparse_categorical_crossentropy", []string{"accuracy"}
	j.Optimizer = adam
	j.Batch = job.Batch{Global: 32, Microbatch: 8}
	j.Epochs = 40

	task, err := train.NewTask(j, samples, test)
	if err != nil {
		log.Fatal(err)
	}
	fit, err := train.Fit(context.Background(), task, 2, nil)
	if err != nil {
		log.Fatal(err)
	}
	scores, err := task.Evaluate(context.Background(), fit.Params, test)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d steps, test accuracy %.2f\n", fit.Steps, scores.Scalars[1])
	// Output: 760 steps, test accuracy 0.92
}
