package nn

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Spec describes a model: what a job file says under "model", "loss" and
// "metrics". Layers are in the order of the data's way through them.
type Spec struct {
	Layers  []LayerSpec
	Loss    string
	Metrics []string // reported beside the loss, which is always there

	// LabelSmoothing takes this share of a cross-entropy's label, in [0, 1), and
	// deals it out evenly to all classes.
	LabelSmoothing float64
	// ClassWeights multiply the losses of samples, class by class, in training
	// alone. nil: all count the same. The mean loss is over samples still, as in
	// Keras. Metrics take no notice of weights, like Keras' metrics (its
	// weighted_metrics are not there).
	ClassWeights []float64
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

// Common is what every layer with parameters can be told.
type Common struct {
	Name string `yaml:"name,omitempty" json:"name,omitempty"` // dense, dense_1, ... where empty
	// Trainable false keeps the layer's parameters as they are; batch
	// normalization then uses its running statistics in training, too.
	Trainable bool `yaml:"trainable,later=true" json:"trainable"`
}

// Regularizer makes weights small: the optimizer adds the gradient of L1·Σ|w| +
// L2·Σw² to that of the loss, once a step. See [Model.Penalty] for the loss that is
// reported.
type Regularizer struct {
	L1 float64 `yaml:"l1" json:"l1"`
	L2 float64 `yaml:"l2" json:"l2"`
}

func (r Regularizer) validate(field string) error {
	for i, v := range []float64{r.L1, r.L2} {
		if !(v >= 0 && float32(v) <= math.MaxFloat32) {
			return fmt.Errorf("%s.l%d is %v, want at least 0", field, i+1, v)
		}
	}
	return nil
}

// ownName is the name that a user gave; see layerName.
func (c Common) ownName() string { return c.Name }

// Part is a list of layers inside a layer.
type Part struct {
	Field  string // where it stands in a job file, below the layer: "layers", "branches[1]"
	Layers []LayerSpec
}

// Container is a layer made of layers. Its Validate leaves them out.
type Container interface {
	LayerSpec
	// Parts lists the layers inside. An empty part hands its input on.
	Parts() []Part
}

// parts is Parts of a container, and nil of any other layer.
func parts(l LayerSpec) []Part {
	if c, ok := l.(Container); ok {
		return c.Parts()
	}
	return nil
}

// Dense is y = activation(x·W + b) over samples of one axis.
// Its tensors are NAME/kernel [inputs, units] and, with a bias, NAME/bias [units].
type Dense struct {
	Units             int    `yaml:"units" json:"units"`
	Activation        string `yaml:"activation" json:"activation"`
	UseBias           bool   `yaml:"use_bias" json:"use_bias"`
	KernelInitializer string `yaml:"kernel_initializer" json:"kernel_initializer"`
	BiasInitializer   string `yaml:"bias_initializer" json:"bias_initializer"`

	KernelRegularizer Regularizer `yaml:"kernel_regularizer,later" json:"kernel_regularizer,omitzero"`
	Common            `yaml:",inline"`
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
		KernelInitializer: "glorot_uniform", BiasInitializer: "zeros", Common: learning,
	}
}

// learning is Common's default.
var learning = Common{Trainable: true}

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
	make, ok := layerKinds[kind]
	if !ok {
		return nil, false
	}
	return make(), true
}

var layerKinds = map[string]func() LayerSpec{
	"activation":               func() LayerSpec { return NewActivation("") },
	"average_pooling2d":        func() LayerSpec { return NewAveragePooling2D(Pair{2, 2}) },
	"batch_normalization":      func() LayerSpec { return NewBatchNormalization() },
	"bidirectional":            func() LayerSpec { return NewBidirectional(nil) },
	"concat":                   func() LayerSpec { return NewConcat() },
	"conv2d":                   func() LayerSpec { return NewConv2D(0, Pair{}, "linear") },
	"dense":                    func() LayerSpec { return NewDense(0, "linear") },
	"dropout":                  func() LayerSpec { return NewDropout(0.5) },
	"embedding":                func() LayerSpec { return NewEmbedding(0, 0) },
	"flatten":                  func() LayerSpec { return NewFlatten() },
	"global_average_pooling2d": func() LayerSpec { return &GlobalAveragePooling2D{} },
	"global_max_pooling2d":     func() LayerSpec { return &GlobalMaxPooling2D{} },
	"gru":                      func() LayerSpec { return NewGRU(0) },
	"layer_normalization":      func() LayerSpec { return NewLayerNormalization() },
	"lstm":                     func() LayerSpec { return NewLSTM(0) },
	"max_pooling2d":            func() LayerSpec { return NewMaxPooling2D(Pair{2, 2}) },
	"reshape":                  func() LayerSpec { return NewReshape() },
	"residual":                 func() LayerSpec { return NewResidual() },
	"spatial_dropout2d":        func() LayerSpec { return &SpatialDropout2D{Rate: 0.5} },
}

// LayerKinds lists what [NewLayerSpec] knows.
func LayerKinds() []string { return slices.Sorted(maps.Keys(layerKinds)) }

// Activations lists the activation functions.
func Activations() []string {
	return []string{"elu", "gelu", "leaky_relu", "linear", "relu", "sigmoid", "softmax", "swish", "tanh"}
}

// Losses lists the losses.
func Losses() []string {
	return []string{binaryCE, categoricalCE, huber, meanAbsolute, meanSquared, sparseCE}
}

// Metrics lists the metrics.
func Metrics() []string {
	return []string{
		accuracy, auc, binaryAccuracy, confusion, f1Score, f1Macro, f1Micro, f1Weighted, meanAbsolute, meanSquared,
		precision, precisionMacro, recall, recallMacro, sparseTopK, topK,
	}
}

// Initializers lists the ways a tensor can start, besides constant(VALUE).
func Initializers() []string {
	return []string{
		"glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
		"lecun_normal", "lecun_uniform", "ones", "orthogonal", "uniform", "zeros",
	}
}

// ConfusionMatrix is the metric that is no number.
const ConfusionMatrix = "confusion_matrix"

// The names of losses and metrics, as a job file writes them.
const (
	sparseCE       = "sparse_categorical_crossentropy"
	categoricalCE  = "categorical_crossentropy"
	binaryCE       = "binary_crossentropy"
	meanSquared    = "mean_squared_error"  // a loss and a metric
	meanAbsolute   = "mean_absolute_error" // likewise
	huber          = "huber"
	accuracy       = "accuracy"
	binaryAccuracy = "binary_accuracy"
	topK           = "top_k_categorical_accuracy"
	sparseTopK     = "sparse_top_k_categorical_accuracy"
	auc            = "auc"
	confusion      = ConfusionMatrix
	f1Score        = "f1_score"
	f1Macro        = "f1_score_macro"
	f1Micro        = "f1_score_micro"
	f1Weighted     = "f1_score_weighted"
	precision      = "precision"
	precisionMacro = "precision_macro"
	recall         = "recall"
	recallMacro    = "recall_macro"
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
		checkInitializer("kernel_initializer", d.KernelInitializer),
		checkInitializer("bias_initializer", d.BiasInitializer),
		d.KernelRegularizer.validate("kernel_regularizer"),
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
	named, err := nameLayers(s.Layers)
	if err != nil {
		return err
	}
	if err := validate("", named); err != nil {
		return err
	}
	return cmp.Or(oneOf("loss", s.Loss, Losses()), validMetrics(s.Metrics), s.validSmoothing(), s.validWeights())
}

func (s *Spec) validSmoothing() error {
	fused := s.Loss == binaryCE || s.Loss == categoricalCE || s.Loss == sparseCE
	if s.LabelSmoothing == 0 || fused && s.LabelSmoothing > 0 && s.LabelSmoothing < 1 {
		return nil
	}
	return fmt.Errorf("label_smoothing is %v with loss %s, want 0, or with a cross-entropy a share below 1", s.LabelSmoothing, s.Loss)
}

func (s *Spec) validWeights() error {
	for i, w := range s.ClassWeights {
		if !(w >= 0 && float32(w) <= math.MaxFloat32) {
			return fmt.Errorf("class_weight of class %d is %v, want a number of at least 0", i, w)
		}
	}
	return nil
}

// validate checks layers and the layers in them.
func validate(field string, layers []namedLayer) error {
	for i, l := range layers {
		if err := l.spec.Validate(); err != nil {
			return l.wrap(field, i, err)
		}
		for j, p := range parts(l.spec) {
			if err := validate(p.Field, l.parts[j]); err != nil {
				return l.wrap(field, i, err)
			}
		}
	}
	return nil
}

// namedLayer is a layer with its name, and those of the layers in it.
type namedLayer struct {
	spec  LayerSpec
	name  string
	parts [][]namedLayer
}

func (l namedLayer) wrap(field string, index int, err error) *LayerError {
	return &LayerError{field, index, l.name, l.spec.Kind(), err}
}

// nameLayers gives the layers their own names or Keras' (dense, dense_1,
// dense_2), each of them once in the whole model.
func nameLayers(layers []LayerSpec) ([]namedLayer, error) {
	n := namer{count: map[string]int{}, taken: map[string]int{}}
	return n.layers("", layers, -1)
}

type namer struct {
	count map[string]int // layers of a kind so far
	taken map[string]int // where a name is: the outermost layer, from 1
}

// layers names a list inside the outermost layer top; -1 where the list is the
// outermost itself.
func (n *namer) layers(field string, layers []LayerSpec, top int) ([]namedLayer, error) {
	out := make([]namedLayer, len(layers))
	for i, l := range layers {
		if l == nil {
			return nil, &LayerError{field, i, "?", "?", errors.New("there is no layer here")}
		}
		at := top
		if top < 0 {
			at = i
		}
		out[i] = namedLayer{spec: l, name: n.name(l)}
		if first, twice := n.taken[out[i].name]; twice {
			return nil, out[i].wrap(field, i, fmt.Errorf("layer %d has this name already", first))
		}
		n.taken[out[i].name] = at + 1
		for _, p := range parts(l) {
			named, err := n.layers(p.Field, p.Layers, at)
			if err != nil {
				return nil, out[i].wrap(field, i, err)
			}
			out[i].parts = append(out[i].parts, named)
		}
	}
	return out, nil
}

func (n *namer) name(l LayerSpec) string {
	if own, ok := l.(interface{ ownName() string }); ok && own.ownName() != "" {
		return own.ownName()
	}
	count := n.count[l.Kind()]
	n.count[l.Kind()]++
	if count == 0 {
		return l.Kind()
	}
	return fmt.Sprintf("%s_%d", l.Kind(), count)
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

// LayerError is what is wrong with one layer. Err is another one where it is
// wrong with a layer inside.
type LayerError struct {
	Field string // in which part of the layer around it, "" for the model itself
	Index int    // place in that list, from 0
	Name  string // as the summary shows it
	Kind  string
	Err   error
}

// Error counts layers from 1, as people do.
func (e *LayerError) Error() string {
	return fmt.Sprintf("layer %d (%s): %v", e.Index+1, e.Name, e.Err)
}

// Unwrap returns the cause.
func (e *LayerError) Unwrap() error { return e.Err }

// Path is the place of the innermost layer in a job file, below the model:
// "[2].residual.layers[0]".
func (e *LayerError) Path() string {
	path := fmt.Sprintf("%s[%d]", e.Field, e.Index)
	if e.Field == layerField {
		path = layerField
	}
	if inner, ok := e.Err.(*LayerError); ok {
		path += "." + e.Kind + "." + inner.Path()
	}
	return path
}

// layerField is the name of a part that is one layer, not a list.
const layerField = "layer"
