//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// job is a training job and what the tests must know of it.
type job struct {
	name    string
	yaml    string
	samples int // in an epoch of training, validation samples left out
	micro   int // microbatches in a full step
	mnist   bool
}

// network is a synthetic job: its size decides how long a step takes.
type network struct {
	samples, features, units, epochs int
	global, micro                    int
	every                            int    // steps between checkpoints
	more                             string // further lines of the job file
}

// job writes the network down as a job file.
func (n network) job(name string) job {
	text := fmt.Sprintf(`name: %s
data: {synthetic: {samples: %d, features: %d, classes: 10}}
model:
  - dense: {units: %d, activation: relu}
  - dropout: {rate: 0.2}
  - dense: {units: 10, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [accuracy]
batch: {global: %d, microbatch: %d}
epochs: %d
validation: {split: 0.1}
checkpoint: {every_steps: %d}
%s`, name, n.samples, n.features, n.units, n.global, n.micro, n.epochs, n.every, n.more)
	return job{name: name, yaml: text, samples: n.samples - n.samples/10, micro: (n.global + n.micro - 1) / n.micro}
}

// small trains for about a second and a half on four nodes: long enough to be
// killed, short enough for every test run. Twelve microbatches a step.
func small() job {
	return network{samples: 4000, features: 256, units: 256, epochs: 15, global: 96, micro: 8, every: 50}.job("small")
}

// wide is the example of the same name, on MNIST.
func wide(t *testing.T) job {
	t.Helper()
	text, err := os.ReadFile("../examples/mnist-mlp-wide.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return job{name: "mnist-mlp-wide", yaml: string(text), samples: 54000, micro: 12, mnist: true}
}

// theJob is MNIST in full runs, and small in short ones.
func theJob(t *testing.T) job {
	t.Helper()
	if *full && dataDir() != "" {
		return wide(t)
	}
	return small()
}

// dataDir returns a cache directory with MNIST in it, or "".
func dataDir() string {
	dir := os.Getenv("DLNODE_TEST_DATA")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(cache, "dlnode")
	}
	if _, err := os.Stat(filepath.Join(dir, "mnist")); err != nil {
		return ""
	}
	return dir
}

// oracles holds what one process alone makes of each job.
var oracles struct {
	sync.Mutex
	by map[string]verdict
}

// verdict is what a run comes to.
type verdict struct {
	model, state string // SHA-256
	step         uint64
	transition   uint64
}

// oracle trains the job in one process, from step 0 in an empty directory, once
// for each job file.
func (j job) oracle(t *testing.T) verdict {
	t.Helper()
	oracles.Lock()
	defer oracles.Unlock()
	if v, ok := oracles.by[j.yaml]; ok {
		return v
	}
	f := newFleet(t, j)
	p := f.start("alone", options{threads: 1})
	r := p.finish()
	v := verdict{r.ModelSHA256, r.StateSHA256, r.Step, r.Transition}
	if oracles.by == nil {
		oracles.by = map[string]verdict{}
	}
	oracles.by[j.yaml] = v
	t.Logf("oracle: %s alone: %d steps, model %s, state %s", j.name, v.step, v.model[:16], v.state[:16])
	return v
}
