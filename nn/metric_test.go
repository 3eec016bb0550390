package nn

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// metricCase is a set of outputs and labels, and what Keras and scikit-learn make
// of them: see testdata/metrics.py.
type metricCase struct {
	Name   string
	Loss   string
	Width  int
	P, Y   []float32
	Values map[string]float64
	Table  [][]uint64
}

func readMetrics(t testing.TB) []metricCase {
	t.Helper()
	b, err := os.ReadFile("testdata/metrics.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Metrics []metricCase }
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all.Metrics
}

// metricModel is a model with a loss and a number of outputs.
func metricModel(loss string, width int, metrics ...string) (*Model, error) {
	end, target := "softmax", Target{Len: width}
	switch {
	case loss == binaryCE:
		end = "sigmoid"
	case loss == sparseCE:
		target = Target{Len: 1, Classes: width}
	case loss != categoricalCE:
		end = "linear"
	}
	return Build(Spec{Layers: []LayerSpec{NewDense(width, end)}, Loss: loss, Metrics: metrics}, []int{2}, target)
}

// sumsOf adds up what samples give to a metric, in the order that next tells.
func sumsOf(m Metric, p, y []float32, outputs int, order []int) []float64 {
	n := len(p) / outputs
	t := newTally(m.Width, m.most(outputs), n)
	for _, i := range order {
		m.counter.count(t, row(p, i, outputs), row(y, i, len(y)/n))
		t.next()
	}
	sums := make([]float64, m.Width)
	for _, k := range t.marks {
		sums[k.Sum] += k.Value
	}
	return sums
}

func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// Keras divides in float32, and its AUC sums 200 terms there.
const (
	ratioRounding = 3e-7
	aucRounding   = 1e-6
)

func TestMetricsAreThoseOfKeras(t *testing.T) {
	for _, c := range readMetrics(t) {
		t.Run(c.Name, func(t *testing.T) {
			n := len(c.P) / c.Width
			for name, want := range c.Values {
				m, err := metricModel(c.Loss, c.Width, name)
				if err != nil {
					t.Fatal(err)
				}
				metric := m.Metrics()[0]
				got := metric.Value(sumsOf(metric, c.P, c.Y, c.Width, inOrder(n)), uint64(n))
				slack := ratioRounding
				if name == auc {
					slack = aucRounding
				}
				if !(math.Abs(got-want) <= slack) {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
			if c.Table != nil {
				m, err := metricModel(c.Loss, c.Width, confusion)
				if err != nil {
					t.Fatal(err)
				}
				metric := m.Metrics()[0]
				if got := metric.Table(sumsOf(metric, c.P, c.Y, c.Width, inOrder(n))); !reflect.DeepEqual(got, c.Table) {
					t.Errorf("the confusion matrix is %v, want %v", got, c.Table)
				}
			}
		})
	}
}

func TestEveryMetricThatCountsHasItsCases(t *testing.T) {
	seen := map[string]int{}
	for _, c := range readMetrics(t) {
		for name := range c.Values {
			seen[name]++
		}
		if c.Table != nil {
			seen[confusion]++
		}
	}
	for _, name := range Metrics() {
		if counts(name) && seen[name] < 3 {
			t.Errorf("%d cases of %s, want 3 or more", seen[name], name)
		}
	}
}

// counts tells the metrics that are no means.
func counts(name string) bool {
	return !slices.Contains([]string{accuracy, binaryAccuracy, meanAbsolute, meanSquared, sparseTopK, topK}, name)
}

// A sample marks a sum once, and all that it adds is a whole number where labels
// are: so the order of samples is in no bit.
func TestTheOrderOfSamplesIsInNoMetric(t *testing.T) {
	for _, c := range readMetrics(t) {
		n := len(c.P) / c.Width
		order := inOrder(n)
		slices.Reverse(order)
		for name := range c.Values {
			m, err := metricModel(c.Loss, c.Width, name)
			if err != nil {
				t.Fatal(err)
			}
			metric := m.Metrics()[0]
			a, b := sumsOf(metric, c.P, c.Y, c.Width, inOrder(n)), sumsOf(metric, c.P, c.Y, c.Width, order)
			if !slices.Equal(a, b) {
				t.Errorf("%s, %s: another order, other sums", c.Name, name)
			}
		}
	}
}

func TestNaNIsPredictedForNothing(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		name string
		loss string
		p, y []float32 // two samples
		want float64
	}{
		{precision, binaryCE, []float32{nan, 0.9}, []float32{1, 1}, 1},
		{recall, binaryCE, []float32{nan, 0.9}, []float32{1, 1}, 0.5},
		{f1Score, binaryCE, []float32{nan, 0.9}, []float32{1, 1}, 2. / 3},
		{auc, binaryCE, []float32{nan, 0.9}, []float32{0, 1}, 1},
		{auc, binaryCE, []float32{nan, 0.9}, []float32{1, 0}, 0},
		{recallMacro, sparseCE, []float32{nan, nan, 0.2, 0.8}, []float32{0, 1}, 0.5},
		{f1Micro, sparseCE, []float32{0.9, nan, 0.2, 0.8}, []float32{0, 1}, 2. / 3},
	} {
		width := len(c.p) / 2
		m, err := metricModel(c.loss, width, c.name)
		if err != nil {
			t.Fatal(err)
		}
		metric := m.Metrics()[0]
		if got := metric.Value(sumsOf(metric, c.p, c.y, width, inOrder(2)), 2); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("%s of %v is %v, want %v", c.name, c.p, got, c.want)
		}
	}
}

func TestAMetricThatDoesNotFitIsNamed(t *testing.T) {
	for _, c := range []struct {
		loss  string
		width int
		names []string
		want  string
	}{
		{meanSquared, 1, []string{meanAbsolute, auc}, "metric auc: got loss mean_squared_error, want a cross-entropy: outputs are to be probabilities"},
		{sparseCE, 3, []string{f1Score}, "metric f1_score: got 3 units, want 1: over several, say how they are averaged: f1_score_macro, f1_score_micro or f1_score_weighted"},
		{binaryCE, 1, []string{accuracy, precisionMacro}, "metric precision_macro: got 1 unit, want several to average over: precision is for one"},
		{binaryCE, 2, []string{confusion}, "metric confusion_matrix: got binary_crossentropy of 2 units, want labels that name a class: sparse_categorical_crossentropy or categorical_crossentropy, or one unit"},
		{sparseCE, 256, []string{confusion, auc}, "metric auc: with it the metrics have 65934 sums, want at most 65536: fewer classes, or fewer metrics that count by class"},
		{sparseCE, 257, []string{confusion}, "metric confusion_matrix: with it the metrics have 66049 sums, want at most 65536: fewer classes, or fewer metrics that count by class"},
	} {
		_, err := metricModel(c.loss, c.width, c.names...)
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v,\nwant %s", err, c.want)
			continue
		}
		var bad *MetricError
		if !errors.As(err, &bad) || bad.Index != len(c.names)-1 && bad.Index != 0 || !strings.Contains(c.want, bad.Name) {
			t.Errorf("%v is not about %s", bad, c.names)
		}
	}
}

// Σ|w| and Σw² of the regularized tensors that learn, and no others.
func TestThePenaltyIsThatOfTheRegularizers(t *testing.T) {
	hidden, still, end := NewDense(3, "relu"), NewDense(3, "relu"), NewDense(1, "linear")
	hidden.KernelRegularizer = Regularizer{L1: 0.5, L2: 0.25}
	still.KernelRegularizer, still.Trainable = Regularizer{L2: 1}, false
	m, err := Build(Spec{Layers: []LayerSpec{still, hidden, end}, Loss: meanSquared}, []int{4}, Target{Len: 1})
	if err != nil {
		t.Fatal(err)
	}
	params := make([]float32, m.NumParams())
	for i := range params {
		params[i] = float32(i%5) - 2
	}
	var l1, l2 float64
	for _, tensor := range m.Tensors() {
		if tensor.Regularizer.L1 != 0 {
			for _, v := range tensor.of(params) {
				l1, l2 = l1+math.Abs(float64(v)), l2+float64(v)*float64(v)
			}
		}
	}
	if got, want := m.Penalty(params), 0.5*l1+0.25*l2; got != want || want == 0 {
		t.Errorf("the penalty is %v, want %v", got, want)
	}
}

// Keras rounds a label before it asks for the weight of its class, half to even.
func TestAShareHasTheWeightOfTheNearestClass(t *testing.T) {
	spec := Spec{Layers: []LayerSpec{NewDense(1, "sigmoid")}, Loss: binaryCE, ClassWeights: []float64{3, 5}}
	m, err := Build(spec, []int{2}, Target{Len: 1})
	if err != nil {
		t.Fatal(err)
	}
	for y, want := range map[float32]float64{0: 3, 0.4: 3, 0.5: 3, 0.7: 5, 1: 5} {
		if got := m.weight([]float32{y}); got != want {
			t.Errorf("label %v has the weight %v, want %v", y, got, want)
		}
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m, err := metricModel(categoricalCE, 5, auc, precision, f1Macro, confusion, accuracy)
	if err != nil {
		t.Fatal(err)
	}
	const n = 8
	b := &Batch{N: n, X: make([]float32, 2*n), Y: make([]float32, 5*n), W: make([]float32, n)}
	for i := range b.Y {
		b.Y[i] = 0.2
	}
	params := make([]float32, m.NumParams())
	m.Init(1, params)
	w := m.NewWorkspace(n)
	if allocs := testing.AllocsPerRun(3, func() { w.Forward(params, b, Key{}, false) }); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
	for i, metric := range m.Metrics() {
		if (w.Marks(i) == nil) != metric.Mean || (w.MetricValues(i) == nil) == metric.Mean {
			t.Errorf("%s: %d marks and %d values", metric.Name, len(w.Marks(i)), len(w.MetricValues(i)))
		}
	}
}
