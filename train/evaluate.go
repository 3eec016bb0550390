package train

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/shard"
)

// Evaluate returns loss and metrics of weights over a data set. Sums are exact, so
// the figures are a function of weights and data alone, whatever the number of
// cores; what is not finite for some sample is NaN. It uses all cores, and takes the data twice: the first
// time tells the grid of the sums.
//
// data is Test, Validation or Train, or another data set of the same shape.
func (t *Task) Evaluate(ctx context.Context, params []float32, data dataset.Dataset) (*Evaluation, error) {
	if err := t.fits(data); err != nil {
		return nil, err
	}
	e := *t // the same task, but for what it validates on
	e.Validation, e.EvalPlan = data, shard.EvalPlan{N: data.Len(), Micro: t.Plan.Micro}
	workers := min(runtime.GOMAXPROCS(0), e.EvalPlan.Microbatches())
	p := newPool(NewEngine(&e, workers))
	defer p.close()
	a := &Attempt{Kind: Evaluate, Scalar: t.startExponents(Evaluate)}
	for {
		c, err := p.wait(ctx, a, shard.Range{Hi: e.EvalPlan.Microbatches()}, params)
		if err != nil {
			return nil, err
		}
		seen, bad := finite(c.Scalars.Seen())
		if !exact.Overflow(a.Scalar, seen) {
			return t.evaluation(a, c.Scalars.Acc(), c.Scalars.Bits(), c.Count, t.Model.Penalty(params), bad), nil
		}
		exact.Raise(a.Scalar, seen)
		a.Repeat++
	}
}

// fits checks that a data set has the shapes that the model was built for.
// Labels are checked one by one as they are read.
func (t *Task) fits(data dataset.Dataset) error {
	got, want := data.Info(), t.Train.Info()
	if !slices.Equal(got.Input, want.Input) || got.Target != want.Target {
		return fmt.Errorf("data set %s: got samples of shape %v with %d values as label, the model was made for %v with %d",
			got.Name, got.Input, got.Target, want.Input, want.Target)
	}
	if data.Len() == 0 {
		return fmt.Errorf("data set %s has no samples", got.Name)
	}
	return nil
}

// finite splits off the sums that hold a NaN or an infinity, which no grid holds.
func finite(all []int16) (seen []int16, bad []bool) {
	seen, bad = slices.Clone(all), make([]bool, len(all))
	for i := range seen {
		if _, bad[i] = exact.FirstNonFinite(seen[i : i+1]); bad[i] {
			seen[i] = exact.None
		}
	}
	return seen, bad
}
