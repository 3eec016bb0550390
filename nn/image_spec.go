package nn

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/dlnode/dlnode/internal/kernel"
)

// Pair is a height and a width. In a job file it is a list of two, or one number
// for both.
type Pair [2]int

// UnmarshalJSON reads [2, 3], or 2 for [2, 2].
func (p *Pair) UnmarshalJSON(b []byte) error {
	var one int
	if json.Unmarshal(b, &one) == nil {
		*p = Pair{one, one}
		return nil
	}
	return json.Unmarshal(b, (*[2]int)(p))
}

// Conv2D slides filters over images of shape height x width x channels: each
// output is activation(Σ x·kernel + bias) over a window of KernelSize, Strides
// apart. Windows lie inside the image (padding valid), or the image is
// surrounded by zeros so that there are ceil(height/stride) x ceil(width/stride)
// of them (padding same; the smaller half of an odd border lies above and left,
// as in TensorFlow). Its tensors are NAME/kernel [height, width, channels,
// filters] and NAME/bias [filters].
type Conv2D struct {
	Filters           int    `yaml:"filters" json:"filters"`
	KernelSize        Pair   `yaml:"kernel_size" json:"kernel_size"`
	Strides           Pair   `yaml:"strides" json:"strides"`
	Padding           string `yaml:"padding" json:"padding"` // valid or same
	Activation        string `yaml:"activation" json:"activation"`
	UseBias           bool   `yaml:"use_bias" json:"use_bias"`
	KernelInitializer string `yaml:"kernel_initializer" json:"kernel_initializer"`
	BiasInitializer   string `yaml:"bias_initializer" json:"bias_initializer"`

	KernelRegularizer Regularizer `yaml:"kernel_regularizer,later" json:"kernel_regularizer,omitzero"`
	Common            `yaml:",inline"`
}

// Pooling is how pooling layers cut an image into windows.
type Pooling struct {
	PoolSize Pair   `yaml:"pool_size" json:"pool_size"`
	Strides  Pair   `yaml:"strides,omitempty" json:"strides"` // 0, 0: as PoolSize
	Padding  string `yaml:"padding" json:"padding"`           // valid or same
}

// MaxPooling2D is the greatest value of each window and channel. What lies
// outside the image is never the greatest.
type MaxPooling2D struct {
	Pooling `yaml:",inline"`
}

// AveragePooling2D is the mean of each window and channel, over what of the
// window lies inside the image.
type AveragePooling2D struct {
	Pooling `yaml:",inline"`
}

// GlobalAveragePooling2D is the mean of each channel.
type GlobalAveragePooling2D struct{}

// GlobalMaxPooling2D is the greatest value of each channel.
type GlobalMaxPooling2D struct{}

// SpatialDropout2D is [Dropout] of whole channels of a sample.
type SpatialDropout2D struct {
	Rate float64 `yaml:"rate" json:"rate"` // in [0, 1)
}

// Reshape gives a sample another shape with as many values. One axis may be -1:
// what is left for it.
type Reshape struct {
	TargetShape []int `yaml:"target_shape" json:"target_shape"`
}

// NewConv2D returns a convolution with Keras' defaults: stride 1, padding valid,
// a bias that starts as zeros, and a glorot_uniform kernel.
func NewConv2D(filters int, size Pair, activation string) *Conv2D {
	return &Conv2D{
		Filters: filters, KernelSize: size, Strides: Pair{1, 1}, Padding: "valid", Activation: activation,
		UseBias: true, KernelInitializer: "glorot_uniform", BiasInitializer: "zeros", Common: learning,
	}
}

// NewMaxPooling2D returns a pooling layer of windows side by side.
func NewMaxPooling2D(size Pair) *MaxPooling2D {
	return &MaxPooling2D{Pooling{PoolSize: size, Padding: "valid"}}
}

// NewAveragePooling2D returns a pooling layer of windows side by side.
func NewAveragePooling2D(size Pair) *AveragePooling2D {
	return &AveragePooling2D{Pooling{PoolSize: size, Padding: "valid"}}
}

// NewReshape returns a layer that changes a sample's shape.
func NewReshape(shape ...int) *Reshape { return &Reshape{shape} }

func (*Conv2D) Kind() string                 { return "conv2d" }
func (*MaxPooling2D) Kind() string           { return "max_pooling2d" }
func (*AveragePooling2D) Kind() string       { return "average_pooling2d" }
func (*GlobalAveragePooling2D) Kind() string { return "global_average_pooling2d" }
func (*GlobalMaxPooling2D) Kind() string     { return "global_max_pooling2d" }
func (*SpatialDropout2D) Kind() string       { return "spatial_dropout2d" }
func (*Reshape) Kind() string                { return "reshape" }

// Validate implements [LayerSpec].
func (c *Conv2D) Validate() error {
	return cmp.Or(
		checkUnits("filters", c.Filters),
		checkPair("kernel_size", c.KernelSize),
		checkPair("strides", c.Strides),
		oneOf("padding", c.Padding, paddings),
		oneOf("activation", c.Activation, Activations()),
		checkInitializer("kernel_initializer", c.KernelInitializer),
		checkInitializer("bias_initializer", c.BiasInitializer),
		c.KernelRegularizer.validate("kernel_regularizer"),
		validName(c.Name),
	)
}

// Validate implements [LayerSpec].
func (p *Pooling) Validate() error {
	err := checkPair("pool_size", p.PoolSize)
	if p.Strides != (Pair{}) {
		err = cmp.Or(err, checkPair("strides", p.Strides))
	}
	return cmp.Or(err, oneOf("padding", p.Padding, paddings))
}

// Validate implements [LayerSpec].
func (*GlobalAveragePooling2D) Validate() error { return nil }

// Validate implements [LayerSpec].
func (*GlobalMaxPooling2D) Validate() error { return nil }

// Validate implements [LayerSpec].
func (d *SpatialDropout2D) Validate() error { return checkRate("rate", d.Rate) }

// Validate implements [LayerSpec].
func (r *Reshape) Validate() error {
	if len(r.TargetShape) == 0 {
		return fmt.Errorf("target_shape is missing, want a list of axes such as [28, 28, 1]")
	}
	open := 0
	for _, d := range r.TargetShape {
		if d == -1 {
			open++
		}
		if d < 1 && d != -1 || d > maxInput || open > 1 {
			return fmt.Errorf("target_shape is %v, want axes of at least 1, at most one of them -1", r.TargetShape)
		}
	}
	return nil
}

var paddings = []string{"same", "valid"}

func checkUnits(field string, n int) error {
	if n < 1 || n > maxUnits {
		return fmt.Errorf("%s is %d, want 1 to %d", field, n, maxUnits)
	}
	return nil
}

func checkPair(field string, p Pair) error {
	const most = 1 << 12
	if p[0] < 1 || p[0] > most || p[1] < 1 || p[1] > most {
		return fmt.Errorf("%s is %v, want two numbers from 1 to %d, or one for both", field, p, most)
	}
	return nil
}

func checkRate(field string, rate float64) error {
	if rate >= 0 && rate < 1 {
		return nil
	}
	return fmt.Errorf("%s is %v, want at least 0 and less than 1", field, rate)
}

func checkInitializer(field, name string) error {
	if _, ok := constantOf(name); ok {
		return nil
	}
	return oneOf(field, name, Initializers())
}

// image is the shape of the sample as height, width and channels.
func (b *builder) image() (h, w, c int, err error) {
	if len(b.shape) != 3 {
		return 0, 0, 0, fmt.Errorf("got samples of shape %s, want height x width x channels: put reshape before it, [28, 28, 1] for example", shapeString(b.shape))
	}
	return b.shape[0], b.shape[1], b.shape[2], nil
}

// windows is how windows of a size lie over the sample at hand.
func (b *builder) windows(size, strides Pair, padding string) (g kernel.Pool, err error) {
	h, w, c, err := b.image()
	if err != nil {
		return g, err
	}
	g = kernel.Pool{H: h, W: w, C: c, KH: size[0], KW: size[1], SH: strides[0], SW: strides[1]}
	if padding == "same" {
		g.OH, g.Top = same(h, g.KH, g.SH)
		g.OW, g.Left = same(w, g.KW, g.SW)
		return g, nil
	}
	if g.KH > h || g.KW > w {
		return g, fmt.Errorf("got samples of shape %s, want at least its window of %dx%d, or padding: same", shapeString(b.shape), g.KH, g.KW)
	}
	g.OH, g.OW = (h-g.KH)/g.SH+1, (w-g.KW)/g.SW+1
	return g, nil
}

// same returns how many windows there are along an axis, and how many zeros come
// before it.
func same(in, k, stride int) (out, before int) {
	out = (in + stride - 1) / stride
	return out, max((out-1)*stride+k-in, 0) / 2
}

func (c *Conv2D) add(b *builder) error {
	g, err := b.windows(c.KernelSize, c.Strides, c.Padding)
	if err != nil {
		return err
	}
	b.frozen = !c.Trainable
	p := conv{shape: convOf(g, c.Filters), inner: b.learn(), frozen: b.frozen}
	if p.kernel, err = b.tensor("kernel", c.KernelInitializer, g.KH, g.KW, g.C, c.Filters); err != nil {
		return err
	}
	b.regularize(c.KernelRegularizer)
	if c.UseBias {
		if p.bias, err = b.tensor("bias", c.BiasInitializer, c.Filters); err != nil {
			return err
		}
	}
	if err := b.reshaped(g.OH, g.OW, c.Filters); err != nil {
		return err
	}
	if p.inner {
		b.gradient(read(p.shape), b.width)
	}
	b.flops += int64(g.OH*g.OW) * (2*int64(p.kernel.Len) + int64(p.bias.Len))
	b.mask = -1
	b.push(p, "conv2d without an activation", true)
	return b.activate(c.Activation)
}

func (p *MaxPooling2D) add(b *builder) error {
	g, err := p.windows(b)
	if err != nil {
		return err
	}
	return b.maxPooled(g, "max_pooling2d", g.OH, g.OW, g.C)
}

func (p *AveragePooling2D) add(b *builder) error {
	g, err := p.windows(b)
	if err != nil {
		return err
	}
	return b.pooled(g, averagePool{shape: g}, "average_pooling2d", g.OH, g.OW, g.C)
}

// windows is how the layer's windows lie over the sample at hand.
func (p *Pooling) windows(b *builder) (kernel.Pool, error) {
	strides := p.Strides
	if strides == (Pair{}) {
		strides = p.PoolSize
	}
	return b.windows(p.PoolSize, strides, p.Padding)
}

// pooled appends a pooling operation.
func (b *builder) pooled(g kernel.Pool, p plan, kind string, shape ...int) error {
	if err := b.reshaped(shape...); err != nil {
		return err
	}
	if b.chain.wants() {
		b.gradient(before(g), behind(g))
	}
	b.flops += int64(behind(g) * g.KH * g.KW)
	b.mask = -1
	b.push(p, kind, true)
	return nil
}

// maxPooled appends a max pooling, or lets the convolution right before it do it.
func (b *builder) maxPooled(g kernel.Pool, kind string, shape ...int) error {
	c, ok := b.last().(conv)
	if !ok {
		return b.pooled(g, maxPool{shape: g}, kind, shape...)
	}
	if err := b.reshaped(shape...); err != nil {
		return err
	}
	if c.inner {
		b.gradient(read(c.shape), behind(g))
	}
	b.flops += int64(behind(g) * g.KH * g.KW)
	b.replace(pooledConv{conv: c, pool: g}, kind, !c.relu)
	return nil
}

// whole is one window over all of the image.
func (b *builder) whole() (g kernel.Pool, err error) {
	h, w, c, err := b.image()
	if err == nil && h > 1<<24/w {
		err = fmt.Errorf("got samples of shape %s, want at most %d pixels", shapeString(b.shape), 1<<24)
	}
	return kernel.Pool{H: h, W: w, C: c, KH: h, KW: w, SH: 1, SW: 1, OH: 1, OW: 1}, err
}

func (*GlobalAveragePooling2D) add(b *builder) error {
	g, err := b.whole()
	if err != nil {
		return err
	}
	return b.pooled(g, averagePool{shape: g}, "global_average_pooling2d", g.C)
}

func (*GlobalMaxPooling2D) add(b *builder) error {
	g, err := b.whole()
	if err != nil {
		return err
	}
	return b.maxPooled(g, "global_max_pooling2d", g.C)
}

func (d *SpatialDropout2D) add(b *builder) error {
	_, _, c, err := b.image()
	if err != nil || d.Rate == 0 {
		return err
	}
	b.push(spatialDropout{dropout: newDropout(d.Rate, c, b.draw()), width: b.width}, "spatial_dropout2d", false)
	return nil
}

func (r *Reshape) add(b *builder) error {
	shape, n := make([]int, len(r.TargetShape)), 1
	open := -1
	for i, d := range r.TargetShape {
		shape[i] = d
		if d == -1 {
			open = i
			continue
		}
		if d > maxInput/n {
			return r.mismatch(b)
		}
		n *= d
	}
	if open >= 0 {
		shape[open] = b.width / n
		n *= shape[open]
	}
	if n != b.width {
		return r.mismatch(b)
	}
	b.shape, b.mask = shape, -1
	return nil
}

func (r *Reshape) mismatch(b *builder) error {
	return fmt.Errorf("got samples of shape %s with %d values, want as many as target_shape %v has", shapeString(b.shape), b.width, r.TargetShape)
}
