package train

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
)

// Predict returns the model's output for samples without labels: x is [n,
// InputLen] and the result [n, OutputLen], as Keras' predict gives it. It uses
// all cores. The error names a sample that the model cannot take. x of another
// length panics.
func (t *Task) Predict(ctx context.Context, params, x []float32) ([]float32, error) {
	return predict(ctx, t.Model, params, x, t.Plan.Micro)
}

// Predictor is a trained model alone, without the data set it was trained on.
type Predictor struct {
	Model *nn.Model

	params []float32
	micro  int
	loss   string
}

// NewPredictor builds the model of a checkpoint for samples of the given shape.
// Its errors tell what does not fit.
func NewPredictor(snap *checkpoint.Snapshot, input []int) (*Predictor, error) {
	m, err := job.Restore(snap.Job)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint's job: %w", err)
	}
	spec, err := m.Network()
	if err != nil {
		return nil, err
	}
	labels, err := labelsOf(spec, input)
	if err != nil {
		return nil, fmt.Errorf("samples of shape %v: %w", input, err)
	}
	model, err := nn.Build(spec, input, labels)
	if err != nil {
		return nil, fmt.Errorf("samples of shape %v: %w", input, err)
	}
	p := &Predictor{Model: model, micro: m.Batch.Microbatch, loss: m.Loss, params: make([]float32, model.NumParams())}
	if err := copyTensors(tensors(model, "", p.params), snap.Model); err != nil {
		return nil, fmt.Errorf("samples of shape %v do not fit the checkpoint: %w", input, err)
	}
	return p, nil
}

// labelsOf says what labels a model was trained with: as many values as it has
// outputs, or one class id of so many.
func labelsOf(spec nn.Spec, input []int) (nn.Target, error) {
	width, err := nn.Outputs(spec.Layers, input)
	if err == nil && spec.Loss == "sparse_categorical_crossentropy" {
		return nn.Target{Len: 1, Classes: width}, nil
	}
	return nn.Target{Len: width}, err
}

// Predict returns the outputs, [n, Model.OutputLen], for x, [n, Model.InputLen]. The
// error names a sample that the model cannot take.
func (p *Predictor) Predict(ctx context.Context, x []float32) ([]float32, error) {
	return predict(ctx, p.Model, p.params, x, p.micro)
}

// Choice is a class, and how likely a model finds it.
type Choice struct {
	Class       int
	Probability float32
}

// Choices reads one sample's output, [Model.OutputLen], as the choice of a class:
// the k likeliest ones, the likeliest first and of equals the first. There are none
// where the model tells no classes apart.
func (p *Predictor) Choices(out []float32, k int) []Choice {
	all := p.probabilities(out)
	// NaN is less likely than anything.
	slices.SortStableFunc(all, func(a, b Choice) int { return cmp.Compare(b.Probability, a.Probability) })
	return all[:min(k, len(all))]
}

// probabilities lists all classes.
func (p *Predictor) probabilities(out []float32) (all []Choice) {
	switch p.loss {
	case "sparse_categorical_crossentropy", "categorical_crossentropy":
		for i, v := range out {
			all = append(all, Choice{i, v})
		}
	case "binary_crossentropy":
		if len(out) == 1 { // else they are independent of one another
			all = []Choice{{0, 1 - out[0]}, {1, out[0]}}
		}
	}
	return all
}

// predict deals microbatches out to one goroutine per core. An output is a
// function of its sample alone, so the grouping can't be seen in it.
func predict(ctx context.Context, m *nn.Model, params, x []float32, micro int) ([]float32, error) {
	in, out := m.InputLen(), m.OutputLen()
	n := len(x) / in
	if len(x) != n*in {
		panic(fmt.Sprintf("train: predict of %d values, want a multiple of %d", len(x), in))
	}
	for i := range n {
		if err := m.CheckInput(x[i*in : (i+1)*in]); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
	}
	y := make([]float32, n*out)
	workers := min(runtime.GOMAXPROCS(0), (n+micro-1)/micro)
	g, ctx := errgroup.WithContext(ctx)
	for rank := range workers {
		g.Go(func() error {
			w := m.NewWorkspace(min(micro, n))
			w.Cancelled = func() bool { return ctx.Err() != nil }
			for lo := rank * micro; lo < n; lo += workers * micro {
				hi := min(lo+micro, n)
				got := w.Forward(params, &nn.Batch{N: hi - lo, X: x[lo*in : hi*in]}, nn.Key{}, false)
				if w.Aborted() {
					return context.Cause(ctx)
				}
				copy(y[lo*out:hi*out], got)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return y, nil
}
