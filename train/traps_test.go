package train

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
	"github.com/dlnode/dlnode/shard"
)

const rawSamples = 32

// rawTarget is at most size, and for most samples far less.
func rawTarget(i int, size float32) float32 {
	return size * (1 + float32(i)/37) / float32(int(2)<<(2*i%31))
}

// rawTargets is a regression whose targets are in the order of size: nobody has
// scaled them to 1.
func rawTargets(t *testing.T, size float32) *Task {
	t.Helper()
	const features = 3
	x, y := make([]float32, rawSamples*features), make([]float32, rawSamples)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	for i := range y {
		y[i] = rawTarget(i, size)
	}
	data, err := dataset.NewMemory(dataset.Info{Name: "raw", Input: []int{features}, Target: 1}, nil, x, y)
	if err != nil {
		t.Fatal(err)
	}
	j := job.Default()
	j.Loss, j.Data = "mean_squared_error", &dataset.Synthetic{}
	linear := nn.NewDense(1, "linear")
	linear.KernelInitializer = "zeros"
	j.Model = []job.Section{linear}
	j.Optimizer = &optim.SGD{LearningRate: optim.Constant(1e-3)}
	j.Batch, j.Epochs = job.Batch{Global: rawSamples, Microbatch: 8}, 3
	task, err := NewTask(j, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// What is accepted was added exactly: microbatches in another order give the same
// sums, of losses as of gradients.
func TestSumsOfRawSquaredErrorsAreExact(t *testing.T) {
	task := rawTargets(t, 1e15/3)
	s := task.Start()
	e, a := NewEngine(task, 1), task.attempt(s)
	last := task.microbatches(a)
	for i := range a.Grad {
		a.Grad[i] = 60 // more than enough: it is the losses that do not fit
	}
	for {
		c, err := e.Compute(context.Background(), a, shard.Range{Hi: last}, s.params, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.Rotation = 1
		vd := &verdict{grad: c.Grad.Seen(), scalar: c.Scalars.Seen(), scalars: c.Scalars.Acc(), count: c.Count}
		if task.judgeExponents(a, ranks(1), nil, vd); vd.again == nil {
			break
		}
		a = vd.again
	}
	losses, grads := slices.Clone(e.Collect(a).Scalars.Acc()), slices.Clone(e.Collect(a).Grad.Acc())
	e.Begin(a, 1, nil)
	for mb := last - 1; mb >= 0; mb-- {
		if err := e.Workers()[0].Microbatch(context.Background(), a, mb, s.params); err != nil {
			t.Fatal(err)
		}
	}
	c := e.Collect(a)
	if !slices.Equal(c.Scalars.Acc(), losses) || !slices.Equal(c.Grad.Acc(), grads) {
		t.Errorf("in reverse order the losses add up to %v and the gradients to %v, before to %v and %v", c.Scalars.Acc(), c.Grad.Acc(), losses, grads)
	}
}

// Squared errors of raw targets are of any size. The sum of the losses finds a
// grid of its own, as the gradient of each tensor does: the model starts with
// zeros, so the first loss is the mean square of the targets.
func TestSumsOfRawSquaredErrorsFindTheirGrid(t *testing.T) {
	for _, size := range []float32{1e-12, 1, 1e6, 1e15} {
		f := newFitter(context.Background(), rawTargets(t, size), 2, nil)
		fit, err := f.run()
		f.pool.close()
		if err != nil {
			t.Fatalf("targets of %g: %v", size, err)
		}
		var want float64
		for i := range rawSamples {
			y := float64(rawTarget(i, size))
			want += y * y / rawSamples
		}
		if got := float64(fit.History[0].Train[0]); !(math.Abs(got-want) <= 1e-6*want) {
			t.Errorf("targets of %g: the first mean loss is %g, the mean square of the targets %g", size, got, want)
		}
		if n := f.node.State().Repeats; n < 1 || n > 2 {
			t.Errorf("targets of %g: %d attempts were repeated to learn the sizes of the sums, want 1, or 2 where they grow", size, n)
		}
	}
}
