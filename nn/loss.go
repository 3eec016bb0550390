package nn

import (
	"errors"
	"fmt"
	"math"

	"github.com/dlnode/dlnode/internal/fmath"
)

// loss is the end of the chain. Both methods look at one sample, whose last
// forward is the workspace's present one: p is its output, y its label.
type loss interface {
	// value is the sample's loss. Its order of operations is fixed.
	value(i int, p, y []float32) float64
	// gradient writes the derivative of value: by the logits for a
	// cross-entropy, which skips the last activation, else by p.
	gradient(i int, p, y, d []float32)
}

// bindLoss returns a loss that reads logits from the op the model ends with.
func (m *Model) bindLoss(last op) loss {
	switch m.loss {
	case sparseCE:
		return &sparseCrossEntropy{last.(*softmax), m.smoothing}
	case categoricalCE:
		return &crossEntropy{last.(*softmax), m.smoothing}
	case binaryCE:
		return &binaryCrossEntropy{last.(*pointwise), m.smoothing}
	case meanSquared:
		return squaredError{}
	case meanAbsolute:
		return absoluteLoss{}
	case huber:
		return huberLoss{}
	}
	panic("nn: no loss " + m.loss)
}

// fused tells whether the loss takes the last activation into itself.
func (m *Model) fused() bool {
	return m.loss == sparseCE || m.loss == categoricalCE || m.loss == binaryCE
}

// weight is what a sample's class makes its loss count in training. A share of two
// classes is rounded to one of them, as in Keras.
func (m *Model) weight(y []float32) float64 {
	if len(y) == 1 {
		return m.weights[int(math.RoundToEven(float64(y[0])))]
	}
	return m.weights[argmax(y)]
}

// Penalty is what the regularizers add to a loss that is reported, in training and
// in evaluation, as in Keras: Σ L1·Σ|w| + L2·Σw² over the tensors that learn. It is
// a function of the parameters alone: each |w| and each w² is exact in float64, and
// added in a fixed order.
func (m *Model) Penalty(params []float32) float64 {
	var sum float64
	for _, t := range m.tensors {
		r := t.Regularizer
		if t.Use != Weight {
			continue
		}
		if r.L1 != 0 {
			sum += float64(r.L1 * absolutes(t.of(params)))
		}
		if r.L2 != 0 {
			sum += float64(r.L2 * squares(t.of(params)))
		}
	}
	return sum
}

// absolutes is Σ|x|: element i goes to sum i mod 4, but for what is left of the
// last four.
func absolutes(x []float32) float64 {
	var a, b, c, d float64
	for ; len(x) >= 4; x = x[4:] {
		a += math.Abs(float64(x[0]))
		b += math.Abs(float64(x[1]))
		c += math.Abs(float64(x[2]))
		d += math.Abs(float64(x[3]))
	}
	for _, v := range x {
		a += math.Abs(float64(v))
	}
	return (a + b) + (c + d)
}

// squares is Σx², in the order of absolutes.
func squares(x []float32) float64 {
	var a, b, c, d float64
	for ; len(x) >= 4; x = x[4:] {
		a += float64(float64(x[0]) * float64(x[0]))
		b += float64(float64(x[1]) * float64(x[1]))
		c += float64(float64(x[2]) * float64(x[2]))
		d += float64(float64(x[3]) * float64(x[3]))
	}
	for _, v := range x {
		a += float64(float64(v) * float64(v))
	}
	return (a + b) + (c + d)
}

// fitWeights checks that there is a weight for every class.
func (b *builder) fitWeights() error {
	if len(b.m.weights) == 0 {
		return nil
	}
	classes := b.m.classes()
	switch t := b.m.target; {
	case b.m.loss == binaryCE && t.Len == 1:
		classes = 2
	case b.m.loss == sparseCE, b.m.loss == categoricalCE:
	default:
		return fmt.Errorf("got class_weight, want labels that name a class: %s or %s, or %s of one unit", sparseCE, categoricalCE, binaryCE)
	}
	if len(b.m.weights) != classes {
		return fmt.Errorf("got %d numbers in class_weight and %d classes, want equal numbers", len(b.m.weights), classes)
	}
	return nil
}

// keepLogits takes the last activation of a fused loss out of place: its input
// is what the loss is computed from.
func (m *Model) keepLogits() {
	if !m.fused() {
		return
	}
	last := &m.chain.plans[len(m.chain.plans)-1]
	switch p := (*last).(type) {
	case softmax:
		p.inPlace = false
		*last = p
	case pointwise:
		p.inPlace = false
		*last = p
	}
}

// sparseCrossEntropy is -log p_c for the class id c = y[0], from logits z:
// log Σ_j exp(z_j - max z) + max z - z_c. With a share s of the label smoothed,
// z_c becomes (1-s)·z_c + s·(mean of z).
type sparseCrossEntropy struct {
	end   *softmax
	share float64
}

func (l *sparseCrossEntropy) value(i int, _, y []float32) float64 {
	z := l.end.logits(i)
	if l.share == 0 {
		return l.end.logSum(i) - float64(z[classOf(y)])
	}
	var sum float64
	for _, v := range z {
		sum += float64(v)
	}
	return l.end.logSum(i) - (float64((1-l.share)*float64(z[classOf(y)])) + float64(l.share*(sum/float64(len(z)))))
}

func (l *sparseCrossEntropy) gradient(_ int, p, y, d []float32) {
	copy(d, p)
	if l.share == 0 {
		d[classOf(y)] -= 1
		return
	}
	each := float32(l.share / float64(len(p)))
	for j := range d {
		d[j] -= each
	}
	d[classOf(y)] -= float32(1 - l.share)
}

// logSum is log Σ_j exp(z_j) of sample i.
func (s *softmax) logSum(i int) float64 {
	return fmath.Log(float64(s.sum[i])) + float64(s.max[i])
}

// logits are the inputs of sample i.
func (s *softmax) logits(i int) []float32 { return row(s.x, i, s.width) }

// classOf is the class id of a label that CheckTarget has let pass.
func classOf(y []float32) int { return int(y[0]) }

// crossEntropy is -Σ_j y_j·log p_j for a distribution y over the classes.
type crossEntropy struct {
	end   *softmax
	share float64 // of the label that is smoothed
}

func (l *crossEntropy) value(i int, _, y []float32) float64 {
	lse, z := l.end.logSum(i), l.end.logits(i)
	var sum float64
	for j, v := range y {
		sum += float64(smoothed(v, l.share, len(y)) * (lse - float64(z[j])))
	}
	return sum
}

// smoothed is what is left of a label's value where each of n gets its part of
// the share s.
func smoothed(v float32, s float64, n int) float64 {
	if s == 0 {
		return float64(v)
	}
	return float64(float64(v)*(1-s)) + float64(s/float64(n))
}

// gradient: p·Σy - y, which is p - y where y sums to 1.
func (l *crossEntropy) gradient(_ int, p, y, d []float32) {
	var mass float32
	for _, v := range y {
		mass += float32(smoothed(v, l.share, len(y)))
	}
	for j, v := range y {
		d[j] = float32(p[j]*mass) - float32(smoothed(v, l.share, len(y)))
	}
}

// binaryCrossEntropy is the mean over units of -y·log p - (1-y)·log(1-p), from
// logits z: max(z, 0) - z·y + log(1 + exp(-|z|)).
type binaryCrossEntropy struct {
	end   *pointwise
	share float64 // of the label that is smoothed, between its two classes
}

func (l *binaryCrossEntropy) value(i int, _, y []float32) float64 {
	var sum float64
	for j, z := range row(l.end.x, i, len(y)) {
		z := float64(z)
		sum += max(z, 0) - float64(z*smoothed(y[j], l.share, 2)) + fmath.Log(1+fmath.Exp(-math.Abs(z)))
	}
	return sum / float64(len(y))
}

func (l *binaryCrossEntropy) gradient(_ int, p, y, d []float32) {
	n := float32(len(y))
	for j, v := range y {
		d[j] = (p[j] - float32(smoothed(v, l.share, 2))) / n
	}
}

// squaredError is the mean over outputs of (p - y)².
type squaredError struct{}

func (squaredError) value(_ int, p, y []float32) float64 {
	var sum float64
	for j, v := range y {
		d := float64(p[j]) - float64(v)
		sum += float64(d * d)
	}
	return sum / float64(len(y))
}

func (squaredError) gradient(_ int, p, y, d []float32) {
	n := float32(len(y))
	for j, v := range y {
		d[j] = 2 * (p[j] - v) / n
	}
}

// absoluteLoss is the mean over outputs of |p - y|; its slope at 0 is 0.
type absoluteLoss struct{}

func (absoluteLoss) value(_ int, p, y []float32) float64 { return absoluteError(p, y) }

func (absoluteLoss) gradient(_ int, p, y, d []float32) {
	share := 1 / float32(len(y))
	for j, v := range y {
		switch e := p[j] - v; {
		case e > 0:
			d[j] = share
		case e < 0:
			d[j] = -share
		default:
			d[j] = e // 0 or NaN
		}
	}
}

// huberLoss is the mean over outputs of e²/2 where |e| = |p - y| is at most 1,
// and of |e| - 1/2 beyond (Huber 1964, δ = 1).
type huberLoss struct{}

func (huberLoss) value(_ int, p, y []float32) float64 {
	var sum float64
	for j, v := range y {
		e := math.Abs(float64(p[j]) - float64(v))
		if e > 1 {
			sum += e - 0.5
		} else {
			sum += float64(0.5 * float64(e*e))
		}
	}
	return sum / float64(len(y))
}

func (huberLoss) gradient(_ int, p, y, d []float32) {
	n := float32(len(y))
	for j, v := range y {
		d[j] = max(-1, min(1, p[j]-v)) / n
	}
}

// fitLoss checks that the end of the model, the loss and the labels fit.
func (b *builder) fitLoss() error {
	if b.m.fused() {
		if err := b.fitActivation(); err != nil {
			return err
		}
	}
	switch t := b.m.target; {
	case b.m.loss == sparseCE && t.Len != 1:
		return fmt.Errorf("got labels of length %d, want one class id: %s takes one value a class", t.Len, categoricalCE)
	case b.m.loss == sparseCE && t.Classes > b.width:
		return fmt.Errorf("got %d classes but %d units, want at least one unit a class", t.Classes, b.width)
	case b.m.loss == sparseCE:
		return nil
	case b.m.loss == categoricalCE && t.Len == 1:
		return fmt.Errorf("got class ids, want one value a class: %s takes class ids", sparseCE)
	case b.m.loss == binaryCE && t.Len == 1 && t.Classes > 2:
		return fmt.Errorf("got %d classes, want 2: %s takes more", t.Classes, sparseCE)
	}
	return b.fitWidth()
}

// fitActivation checks the activation that a cross-entropy is fused with.
func (b *builder) fitActivation() error {
	want := "softmax"
	if b.m.loss == binaryCE {
		want = "sigmoid"
	}
	if b.end == want {
		return nil
	}
	return fmt.Errorf("got a model that ends with %s, want %s at the end: the loss is computed from its logits", b.end, want)
}

// fitWidth checks that outputs and labels can be compared one by one.
func (b *builder) fitWidth() error {
	if len(b.shape) != 1 {
		return errors.New("got samples of shape " + shapeString(b.shape) + ", want one axis: put flatten before the end")
	}
	if b.m.target.Len != b.width {
		return fmt.Errorf("got labels of length %d but %d units, want equal numbers", b.m.target.Len, b.width)
	}
	return nil
}

// CheckTarget checks one label, [Target.Len] values as the data has them,
// against what the loss can use. Forward relies on it: who loads data calls it.
func (m *Model) CheckTarget(y []float32) error {
	if len(y) != m.target.Len {
		return fmt.Errorf("label has %d values, want %d", len(y), m.target.Len)
	}
	switch m.loss {
	case sparseCE:
		return m.checkClass(y[0])
	case meanSquared, meanAbsolute, huber:
		return checkRange(y, -math.MaxFloat32, math.MaxFloat32, "a finite number")
	case binaryCE:
		return checkRange(y, 0, 1, "a number from 0 to 1")
	default:
		return checkDistribution(y)
	}
}

// classes is the number of class ids that a label may be of.
func (m *Model) classes() int {
	if m.target.Classes > 0 {
		return m.target.Classes
	}
	return m.output
}

func (m *Model) checkClass(c float32) error {
	classes := m.classes()
	if !(c >= 0 && c < float32(classes)) || float32(int(c)) != c {
		return fmt.Errorf("label is %v, want a class id from 0 to %d", c, classes-1)
	}
	return nil
}

func checkRange(y []float32, lo, hi float32, want string) error {
	for j, v := range y {
		if !(v >= lo && v <= hi) {
			return fmt.Errorf("value %d of the label is %v, want %s", j, v, want)
		}
	}
	return nil
}

// distributionSlack is how far the sum of a label may be from 1: what rounding
// a few thousand shares to float32 can do, and no more.
const distributionSlack = 1e-3

func checkDistribution(y []float32) error {
	if err := checkRange(y, 0, 1, "a share from 0 to 1"); err != nil {
		return err
	}
	var sum float64
	for _, v := range y {
		sum += float64(v)
	}
	if math.Abs(sum-1) > distributionSlack {
		return fmt.Errorf("values of the label sum to %v, want 1: one class is 1 and the others are 0", sum)
	}
	return nil
}
