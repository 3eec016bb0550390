package nn

import (
	"fmt"
	"math"
)

// metric is a number of one sample from its output p and its label y. Metrics
// are means over samples of such numbers, so that they can be summed anywhere.
type metric func(p, y []float32) float64

// metricNamed resolves a name for a model. "accuracy" follows Keras (the shapes
// of labels and outputs decide which of three it is) except with
// binary_crossentropy over several units: there Keras compares the places of
// the two maxima, which means nothing for independent units; here it is
// binary_accuracy.
func (m *Model) metricNamed(name string) metric {
	switch name {
	case meanSquared:
		return squaredError{}.metric
	case meanAbsolute:
		return absoluteError
	case binaryAccuracy:
		return binaryHits
	case sparseTopK:
		return func(p, y []float32) float64 { return topHit(p, classOf(y)) }
	case topK:
		return func(p, y []float32) float64 { return topHit(p, argmax(y)) }
	case accuracy:
		return m.accuracy()
	}
	panic("nn: no metric " + name)
}

func (m *Model) accuracy() metric {
	switch {
	case m.output == 1 || m.loss == binaryCE:
		return binaryHits
	case m.target.Len == 1:
		return sparseHit
	}
	return categoricalHit
}

// fitMetric checks that a metric has a meaning for outputs and labels.
func (b *builder) fitMetric(name string) error {
	if name == sparseTopK {
		if b.m.loss == sparseCE {
			return nil
		}
		return fmt.Errorf("got loss %s, want %s: the labels are to be class ids", b.m.loss, sparseCE)
	}
	if name == accuracy || b.m.target.Len == b.width {
		return nil
	}
	return fmt.Errorf("got labels of length %d but %d units, want equal numbers", b.m.target.Len, b.width)
}

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
