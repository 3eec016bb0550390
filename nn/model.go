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
	input   int // values of one sample
	output  int
	target  Target
	plans   []plan
	first   int // index of the first plan with parameters: backward ends there
	loss    string
	metrics []string
	tensors []Tensor
	starts  []string // initializer of each tensor
	rows    []Row
	params  int
}

// Tensor is a named window of the flat parameter vector: params[Off : Off+Len],
// row-major. Windows lie one after another without gaps, in layer order.
type Tensor struct {
	Name  string // such as "dense_1/kernel"
	Shape []int
	Off   int
	Len   int
}

// Row is a line of a model's summary.
type Row struct {
	Name   string // as in tensor names and errors
	Kind   string
	Output []int // shape of one sample behind the layer
	Params int
}

// Limits on values of one sample and on parameters of one flat vector (8 GiB).
const (
	maxInput  = 1 << 30
	maxParams = math.MaxInt32
)

// Build checks a spec against the shape of one sample and of its label, and
// lays the model out. An error that belongs to a layer is a [*LayerError] and
// says what the layer got and what it wants.
func Build(spec Spec, input []int, target Target) (*Model, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	size, err := volume(input)
	if err != nil {
		return nil, err
	}
	b := &builder{shape: slices.Clone(input), width: size, m: &Model{input: size, target: target, loss: spec.Loss}}
	if err := b.layers(spec.Layers); err != nil {
		return nil, err
	}
	b.m.output = b.width
	last := len(spec.Layers) - 1
	if err := b.finish(spec.Metrics); err != nil {
		return nil, &LayerError{last, b.m.rows[last].Name, err}
	}
	return b.m, nil
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

// Metrics are the names of the metrics in the spec's order, without the loss.
// Not to be changed.
func (m *Model) Metrics() []string { return m.metrics }

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
	shape []int // of the sample as it is now
	width int   // volume of shape
	index int   // of the layer at hand
	name  string
	end   string // what the last op was, for errors: "softmax", "dense"
}

func (b *builder) layers(specs []LayerSpec) error {
	names, err := layerNames(specs)
	if err != nil {
		return err
	}
	for i, l := range specs {
		b.index, b.name = i, names[i]
		before := b.m.params
		if err := l.add(b); err != nil {
			return &LayerError{i, b.name, err}
		}
		b.m.rows = append(b.m.rows, Row{b.name, l.Kind(), slices.Clone(b.shape), b.m.params - before})
	}
	return nil
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
	b.m.tensors = append(b.m.tensors, t)
	b.m.starts = append(b.m.starts, initializer)
	b.m.params += n
	return t, nil
}

func (b *builder) push(p plan, end string) {
	b.m.plans = append(b.m.plans, p)
	b.end = end
}

func (d *Dense) add(b *builder) error {
	if len(b.shape) != 1 {
		return fmt.Errorf("got samples of shape %s, want one axis: put flatten before it (Keras would apply dense to the last axis alone)", shapeString(b.shape))
	}
	a := affine{in: b.width, units: d.Units, inner: len(b.m.tensors) > 0}
	var err error
	if a.kernel, err = b.tensor("kernel", d.KernelInitializer, b.width, d.Units); err != nil {
		return err
	}
	if d.UseBias {
		if a.bias, err = b.tensor("bias", d.BiasInitializer, d.Units); err != nil {
			return err
		}
	}
	if !a.inner {
		b.m.first = len(b.m.plans)
	}
	b.shape, b.width = []int{d.Units}, d.Units
	b.push(a, "dense without an activation")
	return b.activate(d.Activation)
}

func (d *Dropout) add(b *builder) error {
	if d.Rate > 0 {
		b.push(newDropout(d.Rate, b.width, b.index), "dropout")
	}
	return nil
}

func (*Flatten) add(b *builder) error {
	b.shape = []int{b.width}
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
		b.push(softmax{width: b.width, inPlace: b.afterAffine()}, function)
	default:
		b.push(newPointwise(function, b.width, b.afterAffine()), function)
	}
	return nil
}

// afterAffine tells whether the values that come next are read by nobody but
// the operation that comes next, so that it may overwrite them.
func (b *builder) afterAffine() bool {
	if len(b.m.plans) == 0 {
		return false
	}
	_, ok := b.m.plans[len(b.m.plans)-1].(affine)
	return ok
}

// finish checks what the end of the model and the labels must have in common.
func (b *builder) finish(metrics []string) error {
	if b.m.params == 0 {
		return errors.New("the model ends here without parameters, want at least one dense layer")
	}
	if err := b.fitLoss(); err != nil {
		return fmt.Errorf("loss %s %w", b.m.loss, err)
	}
	b.m.keepLogits()
	for _, name := range metrics {
		if err := b.fitMetric(name); err != nil {
			return fmt.Errorf("metric %s %w", name, err)
		}
	}
	b.m.metrics = slices.Clone(metrics)
	return nil
}
