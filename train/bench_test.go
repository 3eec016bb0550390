package train

import (
	"context"
	"fmt"
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
)

// BenchmarkStep is a whole step of one process alone, from the record on disk's
// bytes in memory to the committed state, of dense networks over MNIST: 0.1, 1.9
// and 19 million parameters.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name   string
		units  []int
		global int
	}{
		{"small", []int{128}, 32},
		{"small", []int{128}, 128},
		{"small", []int{128}, 512},
		{"wide", []int{1024, 1024}, 128},
		{"large", []int{4000, 4000}, 32},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s-%d/threads=%d", c.name, c.global, threads), func(b *testing.B) {
				benchmarkStep(b, mnistTask(b, c.units, c.global, c.global/threads), threads)
			})
		}
	}
}

func benchmarkStep(b *testing.B, t *Task, threads int) {
	f := newFitter(b.Context(), t, threads, nil)
	defer f.pool.close()
	for f.node.State().Step < 20 {
		f.turn()
	}
	b.ReportAllocs()
	for b.Loop() {
		for step := f.node.State().Step; f.node.State().Step == step; {
			f.turn()
		}
	}
	b.ReportMetric(float64(t.Plan.Global)*float64(b.N)/b.Elapsed().Seconds(), "samples/s")
}

// mnistTask trains a dense network for ever.
func mnistTask(tb testing.TB, units []int, global, micro int) *Task {
	tb.Helper()
	train, _, err := dataset.Open(context.Background(), &dataset.MNIST{}, dataset.Env{CacheDir: mnistDir(tb), Offline: true})
	if err != nil {
		tb.Fatal(err)
	}
	j := job.Default()
	j.Data, j.Loss, j.Metrics = &dataset.MNIST{}, "sparse_categorical_crossentropy", []string{"accuracy"}
	j.Model = []job.Section{nn.NewFlatten()}
	for _, n := range units {
		j.Model = append(j.Model, nn.NewDense(n, "relu"))
	}
	j.Model = append(j.Model, nn.NewDense(10, "softmax"))
	j.Optimizer, _ = optim.NewSpec("adam")
	j.Batch, j.Epochs = job.Batch{Global: global, Microbatch: micro}, 1<<20
	t, err := NewTask(j, train, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}
