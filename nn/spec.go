package nn

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Spec describes a model: what a job file says under "model", "loss" and
// "metrics". Layers are in the order of the data's way through them.
type Spec struct {
	Layers  []LayerSpec
	Loss    string
	Metrics []string // reported beside the loss, which is always there
}

// Target describes the labels of a data set.
type Target struct {
	Len     int // values of one label: 1 for a class id, n for n numbers
	Classes int // number of classes the labels speak of; 0 where they are not classes
}

// LayerSpec describes one layer. The kinds are those of [LayerKinds]; the set is
// closed, since a layer is part of what "the same bits everywhere" promises.
type LayerSpec interface {
	// Kind is the layer's name in a job file, such as "dense".
	Kind() string
	// Validate checks what can be checked without knowing the layer's input.
	Validate() error

	add(b *builder) error
}

// Dense is y = activation(x·W + b) over samples of one axis.
// Its tensors are NAME/kernel [inputs, units] and, with a bias, NAME/bias [units].
type Dense struct {
	Units             int    `yaml:"units" json:"units"`
	Activation        string `yaml:"activation" json:"activation"`
	UseBias           bool   `yaml:"use_bias" json:"use_bias"`
	KernelInitializer string `yaml:"kernel_initializer" json:"kernel_initializer"`
	BiasInitializer   string `yaml:"bias_initializer" json:"bias_initializer"`
	Name              string `yaml:"name,omitempty" json:"name,omitempty"` // dense, dense_1, ... where empty
}

// Dropout sets a share Rate of its inputs to zero in training and scales the
// others by 1/(1-Rate), so that their mean stays; in evaluation it does nothing.
type Dropout struct {
	Rate float64 `yaml:"rate" json:"rate"` // in [0, 1)
}

// Flatten makes one axis of all axes of a sample.
type Flatten struct{}

// Activation applies one of [Activations]. Softmax is over the only axis.
type Activation struct {
	Function string `yaml:"kind" json:"kind"`
}

// NewDense returns a dense layer with Keras' defaults: a bias that starts as
// zeros, and a glorot_uniform kernel.
func NewDense(units int, activation string) *Dense {
	return &Dense{
		Units: units, Activation: activation, UseBias: true,
		KernelInitializer: "glorot_uniform", BiasInitializer: "zeros",
	}
}

// NewDropout returns a dropout layer.
func NewDropout(rate float64) *Dropout { return &Dropout{Rate: rate} }

// NewFlatten returns a flatten layer.
func NewFlatten() *Flatten { return &Flatten{} }

// NewActivation returns an activation as a layer of its own.
func NewActivation(function string) *Activation { return &Activation{Function: function} }

// NewLayerSpec returns a layer of a kind with its defaults filled in, ready to
// be decoded into, and whether there is such a kind. Fields without a default
// (units, kind) hold a value that Validate refuses.
func NewLayerSpec(kind string) (LayerSpec, bool) {
	switch kind {
	case "dense":
		return NewDense(0, "linear"), true
	case "dropout":
		return NewDropout(0.5), true
	case "flatten":
		return NewFlatten(), true
	case "activation":
		return NewActivation(""), true
	}
	return nil, false
}

// LayerKinds lists what [NewLayerSpec] knows.
func LayerKinds() []string { return []string{"activation", "dense", "dropout", "flatten"} }

// Activations lists the activation functions.
func Activations() []string { return []string{"linear", "relu", "sigmoid", "softmax", "tanh"} }

// Losses lists the losses.
func Losses() []string {
	return []string{binaryCE, categoricalCE, meanSquared, sparseCE}
}

// Metrics lists the metrics.
func Metrics() []string {
	return []string{accuracy, binaryAccuracy, meanAbsolute, meanSquared}
}

// Initializers lists the ways a tensor can start.
func Initializers() []string {
	return []string{
		"glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
		"lecun_normal", "lecun_uniform", "ones", "zeros",
	}
}

// The names of losses and metrics, as a job file writes them.
const (
	sparseCE       = "sparse_categorical_crossentropy"
	categoricalCE  = "categorical_crossentropy"
	binaryCE       = "binary_crossentropy"
	meanSquared    = "mean_squared_error" // a loss and a metric
	meanAbsolute   = "mean_absolute_error"
	accuracy       = "accuracy"
	binaryAccuracy = "binary_accuracy"
)

// maxUnits keeps every product of two widths far from the end of int.
const maxUnits = 1 << 24

func (*Dense) Kind() string      { return "dense" }
func (*Dropout) Kind() string    { return "dropout" }
func (*Flatten) Kind() string    { return "flatten" }
func (*Activation) Kind() string { return "activation" }

// Validate implements [LayerSpec].
func (d *Dense) Validate() error {
	if d.Units < 1 || d.Units > maxUnits {
		return fmt.Errorf("units is %d, want 1 to %d", d.Units, maxUnits)
	}
	return cmp.Or(
		oneOf("activation", d.Activation, Activations()),
		oneOf("kernel_initializer", d.KernelInitializer, Initializers()),
		oneOf("bias_initializer", d.BiasInitializer, Initializers()),
		validName(d.Name),
	)
}

// Validate implements [LayerSpec].
func (d *Dropout) Validate() error {
	if !(d.Rate >= 0 && d.Rate < 1) {
		return fmt.Errorf("rate is %v, want at least 0 and less than 1", d.Rate)
	}
	return nil
}

// Validate implements [LayerSpec].
func (*Flatten) Validate() error { return nil }

// Validate implements [LayerSpec].
func (a *Activation) Validate() error { return oneOf("kind", a.Function, Activations()) }

// Validate checks all of a spec that does not depend on the data.
func (s *Spec) Validate() error {
	if len(s.Layers) == 0 {
		return errors.New("the model has no layers")
	}
	names, err := layerNames(s.Layers)
	if err != nil {
		return err
	}
	for i, l := range s.Layers {
		if err := l.Validate(); err != nil {
			return &LayerError{i, names[i], err}
		}
	}
	return cmp.Or(oneOf("loss", s.Loss, Losses()), validMetrics(s.Metrics))
}

// layerNames are the layers' own names or Keras' (dense, dense_1, dense_2), each
// of them once.
func layerNames(layers []LayerSpec) ([]string, error) {
	names := make([]string, len(layers))
	count := map[string]int{}
	for i, l := range layers {
		if l == nil {
			return nil, &LayerError{i, "?", errors.New("there is no layer here")}
		}
		names[i] = layerName(l, count)
		if at := slices.Index(names[:i], names[i]); at >= 0 {
			return nil, &LayerError{i, names[i], fmt.Errorf("layer %d has this name already", at+1)}
		}
	}
	return names, nil
}

func layerName(l LayerSpec, count map[string]int) string {
	if d, ok := l.(*Dense); ok && d.Name != "" {
		return d.Name
	}
	n := count[l.Kind()]
	count[l.Kind()]++
	if n == 0 {
		return l.Kind()
	}
	return fmt.Sprintf("%s_%d", l.Kind(), n)
}

func validMetrics(names []string) error {
	for i, name := range names {
		if err := oneOf("metric", name, Metrics()); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("metric %q is listed twice", name)
		}
	}
	return nil
}

// oneOf checks the value of a field against the values it may have.
func oneOf(field, value string, allowed []string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s is %q, want one of %s", field, value, strings.Join(allowed, ", "))
}

// validName keeps names fit for tensor names and file formats. Empty is fine.
func validName(name string) error {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	}
	if len(name) > 64 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("name is %q, want at most 64 of A-Z, a-z, 0-9, '_', '-' and '.'", name)
	}
	return nil
}

// LayerError is what is wrong with one layer.
type LayerError struct {
	Index int    // place in Spec.Layers, from 0
	Name  string // as the summary shows it
	Err   error
}

// Error counts layers from 1, as people do.
func (e *LayerError) Error() string {
	return fmt.Sprintf("layer %d (%s): %v", e.Index+1, e.Name, e.Err)
}

// Unwrap returns the cause.
func (e *LayerError) Unwrap() error { return e.Err }
