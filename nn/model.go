package nn

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Model is a checked chain of operations and the layout of its parameters.
// It is immutable and may be shared.
type Model struct {
	input  int // values of one sample
	output int
	target Target
	chain  chain
	widest int // most values of gradients of one sample that an operation has at once
	masks  int // slots of Workspace.masks

	smoothing float64   // share of a label
	weights   []float64 // of classes

	vocabulary int // of the embedding that the model begins with; 0: there is none
	loss       string
	metrics    []Metric
	tensors    []Tensor
	starts     []string // initializer of each tensor
	rows       []Row
	params     int
}

// Tensor is a named window of the flat parameter vector: params[Off : Off+Len],
// row-major. Windows lie one after another without gaps, in layer order.
type Tensor struct {
	Name  string // such as "dense_1/kernel"
	Shape []int
	Off   int
	Len   int
	Use   Use

	Momentum    float64 // of a Statistic: what a step leaves of it, in [0, 1)
	Regularizer Regularizer
}

// Use says what moves a tensor.
type Use byte

// Weights are moved by the optimizer. Frozen tensors stay as they are; their
// gradient is zero. A Statistic is no weight: what Backward puts in its place of
// the gradient is a statistic of the batch times the number of its samples, so
// that the sum over batches, divided by the samples, is its mean; a step moves
// the tensor towards that mean (see the package comment).
const (
	Weight Use = iota
	Frozen
	Statistic
)

// Row is a line of a model's summary.
type Row struct {
	Name   string // as in tensor names and errors
	Kind   string
	Output []int // shape of one sample behind the layer
	Params int
	Depth  int   // 1 for a layer of the model, 2 for one inside of another, ...
	FLOPs  int64 // of a forward, for one sample: products and sums of weights
	Memory int64 // bytes that the layer keeps of one sample in training
}

// Limits on values of one sample and on parameters of one flat vector (8 GiB).
const (
	maxInput  = 1 << 30
	maxParams = math.MaxInt32
)

// Build checks a spec against the shape of one sample and of its label, and
// lays the model out. An error that belongs to a layer is a [*LayerError], one that
// belongs to a metric a [*MetricError]; it says what was got and what is wanted.
func Build(spec Spec, input []int, target Target) (*Model, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	size, err := volume(input)
	if err != nil {
		return nil, err
	}
	named, err := nameLayers(spec.Layers)
	if err != nil {
		return nil, err
	}
	b := newBuilder(input, size)
	b.m.target, b.m.loss = target, spec.Loss
	b.m.smoothing, b.m.weights = spec.LabelSmoothing, slices.Clone(spec.ClassWeights)
	if err := b.layers("", named); err != nil {
		return nil, err
	}
	b.m.chain, b.m.output = *b.chain, b.width
	b.m.widest = max(b.m.widest, b.chain.widest(), b.width)
	last := len(named) - 1
	if err := b.finish(); err != nil {
		return nil, named[last].wrap("", last, err)
	}
	b.account()
	if err := b.report(spec.Metrics); err != nil {
		return nil, err
	}
	return b.m, nil
}

// Outputs tells how many values layers make of one sample.
func Outputs(layers []LayerSpec, input []int) (int, error) {
	size, err := volume(input)
	if err != nil {
		return 0, err
	}
	named, err := nameLayers(layers)
	if err != nil {
		return 0, err
	}
	if err := validate("", named); err != nil {
		return 0, err
	}
	b := newBuilder(input, size)
	err = b.layers("", named)
	return b.width, err
}

func newBuilder(input []int, size int) *builder {
	return &builder{shape: slices.Clone(input), width: size, m: &Model{input: size}, chain: newChain(false), mask: -1}
}

// Tensors returns the windows of the parameter vector. Not to be changed.
func (m *Model) Tensors() []Tensor { return m.tensors }

// NumParams is the length of the parameter vector.
func (m *Model) NumParams() int { return m.params }

// InputLen is the number of values of one sample.
func (m *Model) InputLen() int { return m.input }

// OutputLen is the number of values Forward returns for one sample.
func (m *Model) OutputLen() int { return m.output }

// TargetLen is the number of values of one label.
func (m *Model) TargetLen() int { return m.target.Len }

// Loss is the name of the loss.
func (m *Model) Loss() string { return m.loss }

// Metrics are the metrics in the spec's order, without the loss. Not to be
// changed.
func (m *Model) Metrics() []Metric { return m.metrics }

// Summary has one row a layer. Not to be changed.
func (m *Model) Summary() []Row { return m.rows }

// volume is the number of values of a shape.
func volume(shape []int) (int, error) {
	n := 1
	for _, d := range shape {
		if d < 1 || d > maxInput/n {
			return 0, fmt.Errorf("input shape %s: want axes of at least 1 and at most %d values in all", shapeString(shape), maxInput)
		}
		n *= d
	}
	if len(shape) == 0 {
		return 0, errors.New("input shape has no axes, want at least one")
	}
	return n, nil
}

// shapeString writes a shape as people do: 28x28.
func shapeString(shape []int) string {
	s := make([]string, len(shape))
	for i, d := range shape {
		s[i] = strconv.Itoa(d)
	}
	return strings.Join(s, "x")
}

// builder follows one sample through the layers while the model grows.
type builder struct {
	m     *Model
	chain *chain // the one that grows: the model's, or a branch's
	shape []int  // of the sample as it is now
	width int    // volume of shape
	index int    // of the outermost layer at hand
	draws uint64 // how many operations of that layer draw random numbers
	depth int
	name  string
	end   string // what the last op was, for errors: "softmax", "dense"
	spare bool   // nobody but the next op reads what the last one computed
	mask  int    // slot of the mask of the sample's first axis; -1: none
	flops int64  // of the layer at hand

	grads int // what the next operation has of gradients at once

	frozen bool           // the layer at hand has trainable: false
	parts  [][]namedLayer // of the layer at hand, if it is a container

	extents []extent // of the model's rows
}

// extent is what of a chain a row of the summary stands for.
type extent struct {
	chain  *chain
	lo, hi int // plans
	inside int // the first row of a layer inside
}

func (b *builder) layers(field string, layers []namedLayer) error {
	b.depth++
	defer func() { b.depth-- }()
	for i, l := range layers {
		if err := b.layer(i, l); err != nil {
			return l.wrap(field, i, err)
		}
	}
	return nil
}

// layer appends one layer, and its line to the summary.
func (b *builder) layer(i int, l namedLayer) error {
	if b.depth == 1 {
		b.index, b.draws = i, 0
	}
	b.name, b.flops, b.frozen, b.parts = l.name, 0, false, l.parts
	own := Row{Name: l.name, Kind: l.spec.Kind(), Depth: b.depth, Params: -b.m.params}
	plans, rows := len(b.chain.plans), len(b.m.rows)
	if err := l.spec.add(b); err != nil {
		return err
	}
	own.Output, own.FLOPs = slices.Clone(b.shape), b.flops
	own.Params += b.m.params
	for _, inside := range b.m.rows[rows:] {
		own.Params -= inside.Params
	}
	b.m.rows = append(b.m.rows, own)
	b.extents = append(b.extents, extent{b.chain, plans, len(b.chain.plans), rows})
	return nil
}

// account tells the rows what their plans take, when these are what they stay.
func (b *builder) account() {
	for i, e := range b.extents {
		m := &b.m.rows[i].Memory
		*m = memory(e.chain.plans[e.lo:e.hi])
		for _, inside := range b.m.rows[e.inside:i] {
			*m -= inside.Memory
		}
	}
}

// memory is what plans take for one sample, in bytes: what 32 samples take beyond 16,
// which both fill cache lines.
func memory(plans []plan) int64 {
	var few, more arena
	for _, p := range plans {
		p.bind(&few, 16)
		p.bind(&more, 32)
	}
	return int64(4*(more.used-few.used)+8*(more.wide-few.wide)) / 16
}

// tensor appends a window to the parameter vector.
func (b *builder) tensor(what, initializer string, shape ...int) (Tensor, error) {
	n := 1
	for _, d := range shape {
		if d > (maxParams-b.m.params)/n {
			return Tensor{}, fmt.Errorf("%s of %s makes more than %d parameters", what, shapeString(shape), maxParams)
		}
		n *= d
	}
	t := Tensor{Name: b.name + "/" + what, Shape: shape, Off: b.m.params, Len: n}
	if b.frozen {
		t.Use = Frozen
	}
	b.m.tensors = append(b.m.tensors, t)
	b.m.starts = append(b.m.starts, initializer)
	b.m.params += n
	return t, nil
}

// regularize tells how the last tensor is kept small.
func (b *builder) regularize(r Regularizer) { b.m.tensors[len(b.m.tensors)-1].Regularizer = r }

// push appends an operation. spare says that its backward does not need what
// its forward returns.
func (b *builder) push(p plan, end string, spare bool) {
	b.chain.plans, b.chain.grads = append(b.chain.plans, p), append(b.chain.grads, b.grads)
	b.end, b.spare, b.grads = end, spare, 0
}

// last is the last operation, nil where the chain has none.
func (b *builder) last() plan {
	if n := len(b.chain.plans); n > 0 {
		return b.chain.plans[n-1]
	}
	return nil
}

// replace is push of an operation that does what the last one did, and more. Its
// gradients are as wide, if nothing else was said.
func (b *builder) replace(p plan, end string, spare bool) {
	top := len(b.chain.plans) - 1
	if b.grads == 0 {
		b.grads = b.chain.grads[top]
	}
	b.chain.plans, b.chain.grads = b.chain.plans[:top], b.chain.grads[:top]
	b.push(p, end, spare)
}

// learn is called before an operation with parameters is pushed, and tells
// whether somebody wants the gradient of its input: whether anything that
// learns lies before it.
func (b *builder) learn() (inner bool) {
	inner = b.chain.wants()
	if !inner && !b.frozen {
		b.chain.first = len(b.chain.plans)
	}
	return inner
}

// gradient says how wide the gradients are, for one sample, that the operation to be
// pushed has at once: the one that comes to it and the one that it makes.
func (b *builder) gradient(widths ...int) {
	b.grads = 0
	for _, width := range widths {
		b.grads += width
	}
}

// reshaped sets the shape behind an operation.
func (b *builder) reshaped(shape ...int) error {
	width, err := volume(shape)
	if err != nil {
		return fmt.Errorf("its output is too large: %w", err)
	}
	b.shape, b.width = shape, width
	return nil
}

// draw names the random numbers of one operation: a layer's first draws from the
// coordinate of the layer's index alone.
func (b *builder) draw() uint64 {
	b.draws++
	return uint64(b.index) | (b.draws-1)<<32
}

func (d *Dense) add(b *builder) error {
	if len(b.shape) != 1 {
		return fmt.Errorf("got samples of shape %s, want one axis: put flatten before it (Keras would apply dense to the last axis alone)", shapeString(b.shape))
	}
	b.frozen = !d.Trainable
	a := affine{in: b.width, units: d.Units, inner: b.learn(), frozen: b.frozen}
	var err error
	if a.kernel, err = b.tensor("kernel", d.KernelInitializer, b.width, d.Units); err != nil {
		return err
	}
	b.regularize(d.KernelRegularizer)
	if d.UseBias {
		if a.bias, err = b.tensor("bias", d.BiasInitializer, d.Units); err != nil {
			return err
		}
	}
	if a.inner {
		b.gradient(a.in, a.units)
	}
	b.flops += 2*int64(a.in)*int64(a.units) + int64(a.bias.Len)
	b.shape, b.width = []int{d.Units}, d.Units
	b.push(a, "dense without an activation", true)
	return b.activate(d.Activation)
}

func (d *Dropout) add(b *builder) error {
	if d.Rate > 0 {
		b.push(newDropout(d.Rate, b.width, b.draw()), "dropout", false)
	}
	return nil
}

func (*Flatten) add(b *builder) error {
	b.shape, b.mask = []int{b.width}, -1
	return nil
}

func (a *Activation) add(b *builder) error { return b.activate(a.Function) }

// activate appends an activation function. The linear one is no operation.
func (b *builder) activate(function string) error {
	switch function {
	case "linear":
		return nil
	case "softmax":
		if len(b.shape) != 1 {
			return fmt.Errorf("softmax got samples of shape %s, want one axis: put flatten before it", shapeString(b.shape))
		}
		if b.width == 1 {
			return errors.New("softmax got 1 value, want at least 2: over one it is always 1; sigmoid is for one unit")
		}
		b.push(softmax{width: b.width, inPlace: b.spare}, function, false)
	default:
		if function != "relu" || !b.rectify() {
			b.push(newPointwise(function, b.width, b.spare), function, false)
		}
	}
	return nil
}

// rectify has the last operation end with relu, if it can.
func (b *builder) rectify() bool {
	switch p := b.last().(type) {
	case affine:
		p.relu = true
		b.replace(p, "relu", false)
	case conv:
		p.relu = true
		b.replace(p, "relu", false)
	default:
		return false
	}
	return true
}

// finish checks what the end of the model and the labels must have in common.
func (b *builder) finish() error {
	if b.m.params == 0 {
		return errors.New("the model ends here without parameters, want at least one dense layer")
	}
	if !b.chain.wants() {
		return errors.New("the model ends here and nothing in it learns, want a layer with trainable: true")
	}
	if err := b.fitLoss(); err != nil {
		return fmt.Errorf("loss %s %w", b.m.loss, err)
	}
	if err := b.fitWeights(); err != nil {
		return fmt.Errorf("loss %s %w", b.m.loss, err)
	}
	b.m.keepLogits()
	return nil
}
