package train

import (
	"math"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/nn"
)

// column is the loss or a metric, as sums over samples. Its sums share a grid.
type column struct {
	metric nn.Metric // the loss is a mean, too
	index  int       // in nn.Model.Metrics; of the loss -1
	lo, hi int       // its sums among all
}

// columnsOf lists loss and metrics: first the numbers, in the job's order, and
// behind them what only an evaluation sums up, a confusion matrix.
func columnsOf(m *nn.Model) (all []column, names []string) {
	add := func(metric nn.Metric, index int) {
		lo := 0
		if len(all) > 0 {
			lo = all[len(all)-1].hi
		}
		all = append(all, column{metric, index, lo, lo + metric.Width})
	}
	add(nn.Metric{Name: "loss", Width: 1, Mean: true}, -1)
	for i, metric := range m.Metrics() {
		if metric.Classes == 0 {
			add(metric, i)
		}
	}
	for _, c := range all {
		names = append(names, c.metric.Name)
	}
	for i, metric := range m.Metrics() {
		if metric.Classes > 0 {
			add(metric, i)
		}
	}
	return all, names
}

// summed lists the columns that attempts of a kind sum up.
func (t *Task) summed(k Kind) []column {
	if k == Evaluate {
		return t.columns
	}
	return t.columns[:len(t.scalars)]
}

// sums is how many sums attempts of a kind have.
func (t *Task) sums(k Kind) int {
	all := t.summed(k)
	return all[len(all)-1].hi
}

// newScalars returns the sums of a kind of attempts, empty.
func (t *Task) newScalars(k Kind, terms int) *exact.Scalars {
	var widths []int
	for _, c := range t.summed(k) {
		widths = append(widths, c.hi-c.lo)
	}
	return exact.NewScalars(widths, terms)
}

// startExponents is what their grids start from. How large a loss is must be
// learned; a count is 1 for most samples.
func (t *Task) startExponents(k Kind) []int16 {
	all := t.summed(k)
	exps := exact.StartExponents(len(all))
	for i, c := range all {
		if !c.metric.Mean {
			exps[i] = exact.CountExponent
		}
	}
	return exps
}

// of turns totals on a grid into the column's sums, exactly.
func (c column) of(totals []float64, e int16, bits int) []float64 {
	sums := make([]float64, c.hi-c.lo)
	for i := range sums {
		sums[i] = exact.Value(totals[c.lo+i], e, bits)
	}
	return sums
}

// account adds a step to the sums of its epoch, and tells its figures. A mean is
// carried on as the step's mean times its samples, which has the penalty in it;
// counts are carried on as they are.
func (t *Task) account(s *State, a *Attempt, vd *verdict) {
	bits := exact.Bits(t.Plan.Global)
	for i, c := range t.summed(Update) {
		sums := c.of(vd.scalars, a.Scalar[i], bits)
		figure := c.metric.Value(sums, vd.count)
		if i == 0 {
			figure += t.Model.Penalty(s.params)
		}
		if c.metric.Mean {
			sums[0] = float64(figure * float64(vd.count))
		}
		for j, x := range sums {
			s.Running[c.lo+j] += Number(x)
		}
		vd.figures = append(vd.figures, figure)
	}
}

// running returns the figures of the epoch in hand, as Task.Scalars; there must be
// samples in it.
func (t *Task) running(s *State) (figures []Number) {
	for _, c := range t.summed(Update) {
		sums := make([]float64, c.hi-c.lo)
		for j := range sums {
			sums[j] = float64(s.Running[c.lo+j])
		}
		figures = append(figures, Number(c.metric.Value(sums, s.Samples)))
	}
	return figures
}

// Evaluation is what a model does on a data set.
type Evaluation struct {
	Scalars []float64 // as Task.Scalars; NaN where some sample's is not finite
	// Confusion counts, if the job asks for confusion_matrix: in row i and column j
	// stands how many samples of class i were taken for class j.
	Confusion [][]uint64
}

// evaluation makes figures of the totals of an attempt that fitted. bad tells the
// columns that no grid holds; penalty is what the loss has beside its samples'.
func (t *Task) evaluation(a *Attempt, totals []float64, bits int, count uint64, penalty float64, bad []bool) *Evaluation {
	e := &Evaluation{}
	for i, c := range t.summed(Evaluate) {
		switch {
		case c.metric.Classes > 0:
			if !bad[i] {
				e.Confusion = c.metric.Table(c.of(totals, a.Scalar[i], bits))
			}
		case bad[i]:
			e.Scalars = append(e.Scalars, math.NaN())
		default:
			e.Scalars = append(e.Scalars, c.metric.Value(c.of(totals, a.Scalar[i], bits), count))
		}
	}
	e.Scalars[0] += penalty
	return e
}
