package nn

import (
	"cmp"
	"fmt"
	"math"

	"github.com/dlnode/dlnode/internal/kernel"
)

// BatchNormalization is y = gamma·(x - mean)/sqrt(variance + epsilon) + beta for
// each value of the last axis (Ioffe and Szegedy 2015), over all samples of a
// microbatch and all their places. Its tensors are NAME/gamma, NAME/beta, and
// two that are not weights: NAME/moving_mean and NAME/moving_variance, which
// evaluation uses. The variance is the mean of squares, as in Keras, so that of
// one value is 0, and one sample alone without places gives y = beta.
type BatchNormalization struct {
	Momentum float64 `yaml:"momentum" json:"momentum"` // what a step leaves of the moving statistics, in [0, 1)
	Epsilon  float64 `yaml:"epsilon" json:"epsilon"`
	Center   bool    `yaml:"center" json:"center"` // with beta
	Scale    bool    `yaml:"scale" json:"scale"`   // with gamma
	Common   `yaml:",inline"`
}

// LayerNormalization is y = gamma·(x - mean)/sqrt(variance + epsilon) + beta over
// the last axis of a sample (Ba, Kiros and Hinton 2016). Its tensors are
// NAME/gamma and NAME/beta.
type LayerNormalization struct {
	Epsilon float64 `yaml:"epsilon" json:"epsilon"`
	Center  bool    `yaml:"center" json:"center"` // with beta
	Scale   bool    `yaml:"scale" json:"scale"`   // with gamma
	Common  `yaml:",inline"`
}

// NewBatchNormalization returns a layer with Keras' defaults.
func NewBatchNormalization() *BatchNormalization {
	return &BatchNormalization{Momentum: 0.99, Epsilon: 1e-3, Center: true, Scale: true, Common: learning}
}

// NewLayerNormalization returns a layer with Keras' defaults.
func NewLayerNormalization() *LayerNormalization {
	return &LayerNormalization{Epsilon: 1e-3, Center: true, Scale: true, Common: learning}
}

func (*BatchNormalization) Kind() string { return "batch_normalization" }
func (*LayerNormalization) Kind() string { return "layer_normalization" }

// Validate implements [LayerSpec].
func (n *BatchNormalization) Validate() error {
	return cmp.Or(checkRate("momentum", n.Momentum), checkEpsilon(n.Epsilon), validName(n.Name))
}

// Validate implements [LayerSpec].
func (n *LayerNormalization) Validate() error {
	return cmp.Or(checkEpsilon(n.Epsilon), validName(n.Name))
}

func checkEpsilon(e float64) error {
	if float32(e) > 0 && e <= 1 {
		return nil
	}
	return fmt.Errorf("epsilon is %v, want above 0 and at most 1", e)
}

// normed lays out gamma and beta of the last axis.
func (b *builder) normed(scale, center bool, epsilon float64) (n norm, err error) {
	n = norm{c: b.shape[len(b.shape)-1], width: b.width, epsilon: float64(float32(epsilon)), inner: b.learn(), frozen: b.frozen}
	if scale {
		if n.gamma, err = b.tensor("gamma", "ones", n.c); err != nil {
			return n, err
		}
	}
	if center {
		if n.beta, err = b.tensor("beta", "zeros", n.c); err != nil {
			return n, err
		}
	}
	b.flops += 8 * int64(b.width)
	b.gradient(b.width)
	return n, nil
}

func (l *BatchNormalization) add(b *builder) error {
	if b.mask >= 0 {
		return fmt.Errorf("got sequences with padding, want layer_normalization here, or mask_zero: false: the statistics would count what is not there")
	}
	b.frozen = !l.Trainable
	n, err := b.normed(l.Scale, l.Center, l.Epsilon)
	if err != nil {
		return err
	}
	p := batchNorm{norm: n}
	if p.mean, err = b.statistic("moving_mean", "zeros", l.Momentum, n.c); err != nil {
		return err
	}
	if p.variance, err = b.statistic("moving_variance", "ones", l.Momentum, n.c); err != nil {
		return err
	}
	b.push(p, "batch_normalization", true)
	return nil
}

// statistic appends a tensor that is no weight.
func (b *builder) statistic(what, initializer string, momentum float64, n int) (Tensor, error) {
	t, err := b.tensor(what, initializer, n)
	if err == nil && !b.frozen {
		last := &b.m.tensors[len(b.m.tensors)-1]
		last.Use, last.Momentum = Statistic, momentum
		t = *last
	}
	return t, err
}

func (l *LayerNormalization) add(b *builder) error {
	b.frozen = !l.Trainable
	n, err := b.normed(l.Scale, l.Center, l.Epsilon)
	if err != nil {
		return err
	}
	if n.c == 1 {
		return fmt.Errorf("got samples of shape %s, want at least 2 values in the last axis: one alone is always its own mean", shapeString(b.shape))
	}
	b.push(layerNorm{norm: n}, "layer_normalization", true)
	return nil
}

// norm is what both normalizations have in common.
type norm struct {
	c, width      int // values of the last axis, and of a sample
	gamma, beta   Tensor
	epsilon       float64
	inner, frozen bool

	x, y []float32
}

// factor is gamma_j, 1 where there is none.
func factor(gamma []float32, j int) float32 {
	if len(gamma) == 0 {
		return 1
	}
	return gamma[j]
}

// scale returns the parameters, empty where there are none.
func (n *norm) scale(flat []float32) (gamma, beta []float32) {
	return n.gamma.of(flat), n.beta.of(flat)
}

// inverse is 1/sqrt(variance + epsilon).
func (n *norm) inverse(variance float64) float64 {
	return 1 / math.Sqrt(variance+n.epsilon)
}

// final says that the gradient of the layer is final.
func (n *norm) final(w *Workspace, rest Tensor) {
	switch {
	case n.frozen:
	case n.gamma.Len > 0:
		w.final(n.gamma)
	case n.beta.Len > 0:
		w.final(n.beta)
	case rest.Len > 0:
		w.final(rest)
	}
}

// batchNorm: see [BatchNormalization]. With m rows of c values in the batch,
//
//	mean_j = Σ x_ij / m    variance_j = Σ (x_ij - mean_j)² / m
//	x̂_ij = (x_ij - mean_j)·s_j,  s_j = 1/sqrt(variance_j + epsilon)
//	y_ij = gamma_j·x̂_ij + beta_j
//
// Sums are in float64, row by row, and of differences from the first row: so that
// mean and variance come of one pass, and without the cancellation that plain sums
// of squares suffer where the mean is large.
type batchNorm struct {
	norm
	mean, variance Tensor

	own     bool      // the last forward was by the batch's own statistics
	at, inv []float64 // [c] mean and s of the last forward
	sum     []float64 // [2, c]: mean and variance of the batch; then Σ dy and Σ dy·(x - mean)
	factors []float64 // [3, c] what the kernels multiply and add
}

func (b batchNorm) bind(mem *arena, maxBatch int) op {
	b.y = mem.take(maxBatch * b.width)
	b.at, b.inv = mem.wider(b.c), mem.wider(b.c)
	b.sum, b.factors = mem.wider(2*b.c), mem.wider(3*b.c)
	return &b
}

func (b *batchNorm) forward(w *Workspace, x []float32) []float32 {
	b.x, b.own = x, w.train && !b.frozen
	if b.own {
		b.measure(x)
	} else {
		for j, v := range b.mean.of(w.params) {
			b.at[j] = float64(v)
		}
		for j, v := range b.variance.of(w.params) {
			b.inv[j] = b.inverse(float64(v))
		}
	}
	gamma, beta := b.scale(w.params)
	factors, shifts := b.factors[:b.c], b.factors[b.c:2*b.c]
	for j, s := range b.inv {
		factors[j], shifts[j] = float64(s*float64(factor(gamma, j))), 0
	}
	for j, v := range beta {
		shifts[j] = float64(v)
	}
	y := b.y[:len(x)]
	kernel.NormApply(y, x, b.at, factors, shifts)
	return y
}

// measure computes the statistics of the batch; sum keeps mean and variance.
func (b *batchNorm) measure(x []float32) {
	mean, variance := b.sum[:b.c], b.sum[b.c:]
	clear(b.sum)
	for j, v := range x[:b.c] {
		b.at[j] = float64(v)
	}
	kernel.NormSums(mean, variance, x, b.at)
	rows := float64(len(x) / b.c)
	for j := range mean {
		d := mean[j] / rows
		mean[j] = b.at[j] + d
		variance[j] = max(0, variance[j]/rows-float64(d*d))
		b.at[j], b.inv[j] = mean[j], b.inverse(variance[j])
	}
}

// backward, with the batch's own statistics, over its m rows:
//
//	dgamma_j = Σ dy_ij·x̂_ij    dbeta_j = Σ dy_ij
//	dx_ij = gamma_j·s_j·(dy_ij - dbeta_j/m - x̂_ij·dgamma_j/m)
//
// and dx_ij = gamma_j·s_j·dy_ij with others.
func (b *batchNorm) backward(w *Workspace, dy []float32) []float32 {
	b.report(w)
	plain, along := b.sum[:b.c], b.sum[b.c:]
	clear(b.sum)
	kernel.NormGradSums(plain, along, dy, b.x, b.at)
	for j := range along {
		along[j] = float64(along[j] * b.inv[j]) // of x̂
	}
	if !b.frozen {
		dgamma, dbeta := b.scale(w.grads)
		narrow(dgamma, along)
		narrow(dbeta, plain)
		b.final(w, b.mean)
	}
	if !b.inner {
		return nil
	}
	b.weigh(w, float64(len(dy)/b.c))
	c := b.c
	kernel.NormGrad(dy, dy, b.x, b.at, b.factors[:c], b.factors[c:2*c], b.factors[2*c:])
	return dy
}

// weigh writes dx as p_j·dy_ij + q_j·(x_ij - mean_j) + r_j into factors.
func (b *batchNorm) weigh(w *Workspace, rows float64) {
	gamma, _ := b.scale(w.params)
	p, q, r := b.factors[:b.c], b.factors[b.c:2*b.c], b.factors[2*b.c:]
	for j := range p {
		p[j], q[j], r[j] = float64(b.inv[j]*float64(factor(gamma, j))), 0, 0
		if b.own {
			q[j] = -float64(float64(p[j]*b.inv[j])*b.sum[b.c+j]) / rows
			r[j] = -float64(p[j]*b.sum[j]) / rows
		}
	}
}

// report puts the batch's statistics, times its samples, in the place of their
// gradients; zeros where they were not measured.
func (b *batchNorm) report(w *Workspace) {
	if b.frozen {
		return
	}
	mean, variance := b.mean.of(w.grads), b.variance.of(w.grads)
	if !b.own {
		clear(mean)
		clear(variance)
		return
	}
	n := float64(w.n)
	for j := range mean {
		mean[j], variance[j] = float32(b.sum[j]*n), float32(b.sum[b.c+j]*n)
	}
}

// narrow rounds x to float32, as much as dst takes, any NaN to the one that kernels
// write.
func narrow(dst []float32, x []float64) {
	for j := range dst {
		dst[j] = float32(x[j])
		if x[j] != x[j] {
			dst[j] = float32(math.NaN())
		}
	}
}

// layerNorm: see [LayerNormalization]. As [batchNorm], but each row of c values
// has statistics of its own.
type layerNorm struct {
	norm

	at, inv []float64 // [n, width/c] mean and s of each row
	sum     []float64 // [2, c]: Σ dy and Σ dy·x̂
	factors []float64 // [2, c]: gamma and beta
}

func (l layerNorm) bind(mem *arena, maxBatch int) op {
	l.y = mem.take(maxBatch * l.width)
	rows := maxBatch * (l.width / l.c)
	l.at, l.inv = mem.wider(rows), mem.wider(rows)
	l.sum, l.factors = mem.wider(2*l.c), mem.wider(2*l.c)
	return &l
}

func (l *layerNorm) forward(w *Workspace, x []float32) []float32 {
	l.x = x
	gamma, beta := l.scale(w.params)
	factors, shifts := l.factors[:l.c], l.factors[l.c:]
	for j := range factors {
		factors[j], shifts[j] = float64(factor(gamma, j)), 0
	}
	for j, v := range beta {
		shifts[j] = float64(v)
	}
	y := l.y[:len(x)]
	for i := range len(x) / l.c {
		v := row(x, i, l.c)
		mean, variance := moments(v)
		l.at[i], l.inv[i] = mean, l.inverse(variance)
		kernel.RowApply(row(y, i, l.c), v, factors, shifts, mean, l.inv[i])
	}
	return y
}

// moments are mean and variance of a row, by differences from its first value: see
// [batchNorm].
func moments(x []float32) (mean, variance float64) {
	n, first := float64(len(x)), float64(x[0])
	sum, square := kernel.RowSums(x, first)
	d := sum / n
	return first + d, max(0, square/n-float64(d*d))
}

// backward, for each row: dx_j = s·(gamma_j·dy_j - Σ gamma·dy / c - x̂_j·Σ gamma·dy·x̂ / c).
func (l *layerNorm) backward(w *Workspace, dy []float32) []float32 {
	plain, along := l.sum[:l.c], l.sum[l.c:]
	clear(l.sum)
	factors, n := l.factors[:l.c], float64(l.c)
	for i := range len(dy) / l.c {
		x, d := row(l.x, i, l.c), row(dy, i, l.c)
		sum, dot := kernel.RowGradSums(plain, along, d, x, factors, l.at[i], l.inv[i])
		kernel.RowGrad(d, d, x, factors, l.at[i], l.inv[i], sum/n, dot/n)
	}
	if !l.frozen {
		dgamma, dbeta := l.scale(w.grads)
		narrow(dgamma, along)
		narrow(dbeta, plain)
		l.final(w, Tensor{})
	}
	if !l.inner {
		return nil
	}
	return dy
}
