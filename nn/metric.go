package nn

import (
	"fmt"
	"math"
	"strings"
)

// Metric is what a model tells beside its loss. It is a function of sums over
// samples, Width of them, so that who computed which sample, and in which order,
// can be in no bit of it: the sums are added exactly, and Value is taken once.
type Metric struct {
	Name    string
	Width   int  // how many sums there are
	Mean    bool // the mean of one number of each sample: [Workspace.MetricValues]; else see [Workspace.Marks]
	Classes int  // of a confusion matrix, which has a Table and no Value; else 0

	number  func(p, y []float32) float64 // of a Mean
	counter counter                      // of any other
}

// counter is a metric that counts. Output p and label y are those of one sample.
type counter interface {
	// count adds what the sample gives to the sums.
	count(t *tally, p, y []float32)
	// value is the metric; 0/0 is 0, as Keras has it.
	value(sums []float64) float64
}

// Value is the metric of count samples, at least 1, with sums [Width].
func (m Metric) Value(sums []float64, count uint64) float64 {
	if m.Mean {
		return sums[0] / float64(count)
	}
	return m.counter.value(sums)
}

// Table is the confusion matrix with sums [Width]: in row i and column j stands
// how many samples of class i were taken for class j.
func (m Metric) Table(sums []float64) [][]uint64 {
	rows := make([][]uint64, m.Classes)
	for i := range rows {
		for _, n := range sums[i*m.Classes : (i+1)*m.Classes] {
			rows[i] = append(rows[i], uint64(n))
		}
	}
	return rows
}

// Mark is what one sample adds to one of a metric's sums.
type Mark struct {
	Sum   int
	Value float64
}

// tally collects the marks of a batch. A sample marks each sum once at most,
// whatever it adds to it, so that a sum has as many terms as there are samples.
type tally struct {
	sums    []float64 // [Width], of the sample at hand
	touched []int
	marks   []Mark
}

// newTally has room for as many marks as samples can make that add to at most
// most sums each.
func newTally(width, most, samples int) *tally {
	return &tally{sums: make([]float64, width), touched: make([]int, 0, most), marks: make([]Mark, 0, most*samples)}
}

// add gives v, at least 0, to sum i.
func (t *tally) add(i int, v float64) {
	if v == 0 {
		return
	}
	if t.sums[i] == 0 {
		t.touched = append(t.touched, i)
	}
	t.sums[i] += v
}

// next ends a sample.
func (t *tally) next() {
	for _, i := range t.touched {
		t.marks = append(t.marks, Mark{i, t.sums[i]})
		t.sums[i] = 0
	}
	t.touched = t.touched[:0]
}

func (t *tally) bytes() int { return 8*(len(t.sums)+cap(t.touched)) + 16*cap(t.marks) }

// maxSums bounds the sums of all metrics of a model: every node tells every other
// all of them in each step.
const maxSums = 1 << 16

// MetricError is what is wrong with one of a spec's metrics.
type MetricError struct {
	Index int // in Spec.Metrics
	Name  string
	Err   error
}

func (e *MetricError) Error() string { return fmt.Sprintf("metric %s: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *MetricError) Unwrap() error { return e.Err }

// report resolves the metrics that a spec names. What they cannot do with this
// model is a MetricError.
func (b *builder) report(names []string) error {
	sums := 0
	for i, name := range names {
		if err := b.fitMetric(name); err != nil {
			return &MetricError{i, name, err}
		}
		m := b.m.metricNamed(name)
		if sums += m.Width; sums > maxSums {
			return &MetricError{i, name, fmt.Errorf("with it the metrics have %d sums, want at most %d: fewer classes, or fewer metrics that count by class", sums, maxSums)}
		}
		b.m.metrics = append(b.m.metrics, m)
	}
	return nil
}

// Increases tells whether greater values of a metric are better, as Keras has it.
func Increases(metric string) bool {
	switch metric {
	case auc, precision, precisionMacro, recall, recallMacro, f1Score, f1Macro, f1Micro, f1Weighted:
		return true
	}
	return strings.HasSuffix(metric, "accuracy")
}

// metricNamed resolves a name for a model. "accuracy" follows Keras (the shapes
// of labels and outputs decide which of three it is) except with
// binary_crossentropy over several units: there Keras compares the places of
// the two maxima, which means nothing for independent units; here it is
// binary_accuracy.
func (m *Model) metricNamed(name string) Metric {
	switch name {
	case meanSquared:
		return mean(name, squaredError{}.metric)
	case meanAbsolute:
		return mean(name, absoluteError)
	case binaryAccuracy:
		return mean(name, binaryHits)
	case sparseTopK:
		return mean(name, func(p, y []float32) float64 { return topHit(p, classOf(y)) })
	case topK:
		return mean(name, func(p, y []float32) float64 { return topHit(p, argmax(y)) })
	case accuracy:
		return mean(name, m.accuracy())
	case auc:
		return Metric{Name: name, Width: 2 * aucBuckets, counter: rocCurve{m.labels()}}
	case confusion:
		k := max(2, m.output)
		return Metric{Name: name, Width: k * k, Classes: k, counter: pairs{m.labels(), k}}
	}
	a := m.agreement(name)
	return Metric{Name: name, Width: 3 * a.classes, counter: a}
}

func mean(name string, number func(p, y []float32) float64) Metric {
	return Metric{Name: name, Width: 1, Mean: true, number: number}
}

func (m *Model) accuracy() func(p, y []float32) float64 {
	switch {
	case m.output == 1 || m.loss == binaryCE:
		return binaryHits
	case m.target.Len == 1:
		return sparseHit
	}
	return categoricalHit
}

// most is how many of its sums one sample can add to.
func (m Metric) most(outputs int) int {
	switch c := m.counter.(type) {
	case pairs:
		return 1
	case rocCurve:
		return min(m.Width, outputs)
	case *agreement:
		return 3 * min(c.classes, outputs)
	}
	return 0
}

// fitMetric checks that a metric has a meaning for outputs and labels.
func (b *builder) fitMetric(name string) error {
	switch name {
	case sparseTopK:
		if b.m.loss == sparseCE {
			return nil
		}
		return fmt.Errorf("got loss %s, want %s: the labels are to be class ids", b.m.loss, sparseCE)
	case accuracy:
		return nil
	case binaryAccuracy, topK, meanSquared, meanAbsolute:
		if b.m.target.Len == b.width {
			return nil
		}
		return fmt.Errorf("got labels of length %d but %d units, want equal numbers", b.m.target.Len, b.width)
	}
	return b.fitCounter(name)
}

// fitCounter checks the metrics that count: they take outputs for probabilities,
// and labels for what is so and what is not.
func (b *builder) fitCounter(name string) error {
	if !b.m.fused() {
		return fmt.Errorf("got loss %s, want a cross-entropy: outputs are to be probabilities", b.m.loss)
	}
	switch name {
	case f1Score:
		if b.width > 1 {
			return fmt.Errorf("got %d units, want 1: over several, say how they are averaged: %s, %s or %s", b.width, f1Macro, f1Micro, f1Weighted)
		}
	case f1Macro, f1Micro, f1Weighted, precisionMacro, recallMacro:
		if b.width == 1 {
			return fmt.Errorf("got 1 unit, want several to average over: %s is for one", name[:strings.LastIndex(name, "_")])
		}
	case confusion:
		if b.m.loss == binaryCE && b.width > 1 {
			return fmt.Errorf("got %s of %d units, want labels that name a class: %s or %s, or one unit", binaryCE, b.width, sparseCE, categoricalCE)
		}
	}
	return nil
}

// labels reads a label as Keras' metrics do: one value for each output.
type labels struct{ ids bool } // a label is a class id

func (m *Model) labels() labels { return labels{m.loss == sparseCE} }

func (l labels) at(y []float32, j int) float32 {
	switch {
	case !l.ids:
		return y[j]
	case classOf(y) == j:
		return 1
	}
	return 0
}

// class is the class that a label, or an output, of a sample names.
func (l labels) class(y []float32) int {
	switch {
	case l.ids:
		return classOf(y)
	case len(y) == 1:
		return int(hit(y[0] > 0.5))
	}
	return argmax(y)
}

// agreement counts, for each class or for all in one, how often it was predicted,
// how often it was there, and how often both: sums [classes, 3] of both, predicted,
// there. A class is predicted where its output is above one half, as in Keras'
// Precision and Recall, or is the greatest of all (all of equals are), as in Keras'
// F1Score; NaN predicts nothing.
type agreement struct {
	labels
	classes int  // 1: all outputs count as one
	top     bool // the greatest output, not those above one half
	shares  bool // a label's value counts, as in F1Score; else whether it is 0, as in Precision and Recall
	support bool // classes weigh as often as they are there

	score func(both, predicted, there float64) float64
}

// agreement resolves the metrics that are quotients of such counts. The averages
// predict as F1Score does if nothing is said, the class of the greatest output,
// where the outputs are those of a softmax.
func (m *Model) agreement(name string) *agreement {
	a := &agreement{labels: m.labels(), classes: 1, top: m.loss != binaryCE, score: precisionOf}
	switch name {
	case precision:
		a.top = false
	case recall:
		a.top, a.score = false, recallOf
	case precisionMacro:
		a.classes = m.output
	case recallMacro:
		a.classes, a.score = m.output, recallOf
	case f1Score, f1Micro:
		a.shares, a.score = true, f1Of
	case f1Macro, f1Weighted:
		a.classes, a.shares, a.score = m.output, true, f1Of
		a.support = name == f1Weighted
	default:
		panic("nn: no metric " + name)
	}
	return a
}

func precisionOf(both, predicted, _ float64) float64 { return quotient(both, predicted) }
func recallOf(both, _, there float64) float64        { return quotient(both, there) }

// f1Of is the harmonic mean of precision and recall.
func f1Of(both, predicted, there float64) float64 { return quotient(2*both, predicted+there) }

// quotient is a/b, and 0 where both are 0.
func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (a *agreement) count(t *tally, p, y []float32) {
	greatest := p[0]
	for _, v := range p[1:] {
		greatest = max(greatest, v) // NaN, where there is one: then nothing is predicted
	}
	for j, v := range p {
		predicted, there := v > 0.5, float64(a.at(y, j))
		if a.top {
			predicted = v >= greatest
		}
		if !a.shares {
			there = hit(there != 0)
		}
		at := 3 * min(j, a.classes-1)
		if predicted {
			t.add(at, there)
			t.add(at+1, 1)
		}
		t.add(at+2, there)
	}
}

func (a *agreement) value(sums []float64) float64 {
	var total, weights float64
	for ; len(sums) > 0; sums = sums[3:] {
		weight := 1.0
		if a.support {
			weight = sums[2]
		}
		total += float64(weight * a.score(sums[0], sums[1], sums[2]))
		weights += weight
	}
	return quotient(total, weights)
}

// aucBuckets is the number of places between the thresholds of Keras' AUC, of
// which there are 200 if nothing is said.
const aucBuckets = 199

// rocCurve counts, between each threshold i/199 and the next, outputs with a
// positive label and, behind those, outputs with another: sums [2, aucBuckets].
// It is Keras' AUC: all outputs of a sample count, labels other than 0 are
// positive, and the curve through the thresholds' points is made of straight
// lines. NaN lies above no threshold.
type rocCurve struct{ labels }

func (c rocCurve) count(t *tally, p, y []float32) {
	for j, v := range p {
		at := aucBucket(v)
		if c.at(y, j) == 0 {
			at += aucBuckets
		}
		t.add(at, 1)
	}
}

// aucBucket is in float32, like Keras': what a product is rounded to decides on
// which side of a threshold an output lies.
func aucBucket(v float32) int {
	switch {
	case !(v > 0):
		return 0
	case v >= 1:
		return aucBuckets - 1
	}
	return int(math.Ceil(float64(float32(v*aucBuckets)))) - 1
}

// value is the area under the true positives' share over that of the false ones,
// from the highest threshold down.
func (rocCurve) value(sums []float64) float64 {
	var area, above, negatives float64
	for i := aucBuckets - 1; i >= 0; i-- {
		positive, negative := sums[i], sums[aucBuckets+i]
		area += float64(negative * (above + float64(positive/2)))
		above += positive
		negatives += negative
	}
	return quotient(area, float64(above*negatives))
}

// pairs counts how often a class was taken for another: sums [classes, classes],
// the true one first.
type pairs struct {
	labels
	classes int
}

func (c pairs) count(t *tally, p, y []float32) {
	t.add(c.class(y)*c.classes+labels{}.class(p), 1)
}

func (pairs) value([]float64) float64 { panic("nn: a confusion matrix is no number") }

// sparseHit is 1 where the greatest output is that of the class id y[0].
func sparseHit(p, y []float32) float64 { return hit(argmax(p) == classOf(y)) }

// categoricalHit is 1 where output and label have their maximum at one place.
func categoricalHit(p, y []float32) float64 { return hit(argmax(p) == argmax(y)) }

// topPlaces is how many of the greatest outputs count, as Keras has it where
// nothing is said.
const topPlaces = 5

// topHit is 1 where fewer than topPlaces outputs are greater than that of class c.
func topHit(p []float32, c int) float64 {
	greater := 0
	for _, v := range p {
		if !(v <= p[c]) { // NaN is no hit, and hides none
			greater++
		}
	}
	return hit(greater < topPlaces)
}

// binaryHits is the share of outputs that, cut at one half, equal their label.
func binaryHits(p, y []float32) float64 {
	var hits float64
	for j, v := range p {
		hits += hit(hit(v > 0.5) == float64(y[j]))
	}
	return hits / float64(len(p))
}

func (l squaredError) metric(p, y []float32) float64 { return l.value(0, p, y) }

// absoluteError is the mean over outputs of |p - y|.
func absoluteError(p, y []float32) float64 {
	var sum float64
	for j, v := range p {
		sum += math.Abs(float64(v) - float64(y[j]))
	}
	return sum / float64(len(p))
}

// argmax is the place of the greatest value, the first of equals. NaN is never
// greater.
func argmax(x []float32) int {
	best := 0
	for j, v := range x {
		if v > x[best] {
			best = j
		}
	}
	return best
}

func hit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
