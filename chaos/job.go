package chaos

import "fmt"

// Job is what is trained: small steps, so that what a fault costs is the cluster's time
// and not the model's.
type Job struct {
	Data     string // of a job file
	Samples  int    // of an epoch, without those of validation
	Epochs   int
	Features int
}

// MNIST is the job on handwritten digits.
func MNIST() Job { return Job{Data: "mnist", Samples: 54000} }

// Synthetic is a job on made samples of the same form.
func Synthetic() Job {
	return Job{Data: "{synthetic: {samples: 20000, features: 784, classes: 10}}", Samples: 18000, Features: 784}
}

const (
	globalBatch = 384
	microbatch  = 32
)

// Micro is the number of microbatches of a full step.
func (j Job) Micro() int { return globalBatch / microbatch }

// Steps is the number of steps of an epoch.
func (j Job) Steps() int { return (j.Samples + globalBatch - 1) / globalBatch }

func (j Job) yaml() string {
	flatten := "  - flatten\n"
	if j.Features > 0 {
		flatten = ""
	}
	return fmt.Sprintf(`name: chaos
seed: 1
data: %s
model:
%s  - dense: {units: 64, activation: relu}
  - dropout: {rate: 0.2}
  - dense: {units: 10, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [accuracy]
optimizer:
  adam: {learning_rate: 0.001}
batch: {global: %d, microbatch: %d}
epochs: %d
validation: {split: 0.1}
checkpoint: {every_steps: 100, keep: 3}
`, j.Data, flatten, globalBatch, microbatch, j.Epochs)
}
