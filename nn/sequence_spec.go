package nn

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Embedding looks up a vector for each of a sample's whole numbers from 0 to
// InputDim-1, which are the data as they come: nothing may be computed before.
// Its tensor is NAME/embeddings [input_dim, output_dim]. With MaskZero, 0 is
// padding: what follows passes over it.
type Embedding struct {
	InputDim              int    `yaml:"input_dim" json:"input_dim"`
	OutputDim             int    `yaml:"output_dim" json:"output_dim"`
	MaskZero              bool   `yaml:"mask_zero" json:"mask_zero"`
	EmbeddingsInitializer string `yaml:"embeddings_initializer" json:"embeddings_initializer"`
	Common                `yaml:",inline"`
}

// LSTM is a layer of long short-term memory (Hochreiter and Schmidhuber 1997,
// with the forget gate of Gers et al. 2000) over sequences [time, values]: with
// the gates in Keras' order,
//
//	i, f, g, o = σ, σ, tanh, σ of x_t·kernel + bias + h_(t-1)·recurrent_kernel
//	c_t = f·c_(t-1) + i·g
//	h_t = o·tanh(c_t)
//
// Its tensors are NAME/kernel [values, 4 units], NAME/recurrent_kernel [units, 4
// units] and NAME/bias [4 units]. Its output is the last h, or all of them with
// ReturnSequences. Where a step is padding, h and c stay as they are. Dropout
// drops values of x, RecurrentDropout values of h on its way into the product:
// the same ones at each step of a sample. On the way back in time, gradients that
// are smaller in size than 2^-100 become 0; Keras lets them sink to 2^-149.
type LSTM struct {
	Units                int     `yaml:"units" json:"units"`
	UseBias              bool    `yaml:"use_bias" json:"use_bias"`
	UnitForgetBias       bool    `yaml:"unit_forget_bias" json:"unit_forget_bias"` // the bias of f starts at 1
	ReturnSequences      bool    `yaml:"return_sequences" json:"return_sequences"`
	Dropout              float64 `yaml:"dropout" json:"dropout"`
	RecurrentDropout     float64 `yaml:"recurrent_dropout" json:"recurrent_dropout"`
	KernelInitializer    string  `yaml:"kernel_initializer" json:"kernel_initializer"`
	RecurrentInitializer string  `yaml:"recurrent_initializer" json:"recurrent_initializer"`
	BiasInitializer      string  `yaml:"bias_initializer" json:"bias_initializer"`

	KernelRegularizer    Regularizer `yaml:"kernel_regularizer,later" json:"kernel_regularizer,omitzero"`
	RecurrentRegularizer Regularizer `yaml:"recurrent_regularizer,later" json:"recurrent_regularizer,omitzero"`
	Common               `yaml:",inline"`
}

// GRU is a layer of gated recurrent units (Cho et al. 2014) over sequences
// [time, values], in the variant that resets after the product, which is Keras'
// default and PyTorch's only one: with a = x_t·kernel + bias[0] and b =
// h_(t-1)·recurrent_kernel + bias[1], each in three parts z, r, h,
//
//	z = σ(a_z + b_z)    r = σ(a_r + b_r)    g = tanh(a_h + r·b_h)
//	h_t = z·h_(t-1) + (1-z)·g
//
// Its tensors are NAME/kernel [values, 3 units], NAME/recurrent_kernel [units, 3
// units] and NAME/bias [2, 3 units]. The rest is as in [LSTM].
type GRU struct {
	Units                int     `yaml:"units" json:"units"`
	UseBias              bool    `yaml:"use_bias" json:"use_bias"`
	ReturnSequences      bool    `yaml:"return_sequences" json:"return_sequences"`
	Dropout              float64 `yaml:"dropout" json:"dropout"`
	RecurrentDropout     float64 `yaml:"recurrent_dropout" json:"recurrent_dropout"`
	KernelInitializer    string  `yaml:"kernel_initializer" json:"kernel_initializer"`
	RecurrentInitializer string  `yaml:"recurrent_initializer" json:"recurrent_initializer"`
	BiasInitializer      string  `yaml:"bias_initializer" json:"bias_initializer"`

	KernelRegularizer    Regularizer `yaml:"kernel_regularizer,later" json:"kernel_regularizer,omitzero"`
	RecurrentRegularizer Regularizer `yaml:"recurrent_regularizer,later" json:"recurrent_regularizer,omitzero"`
	Common               `yaml:",inline"`
}

// Bidirectional runs a recurrent layer over each sequence and another one, with
// weights of its own, over its reverse. Outputs for the same place are joined:
// side by side (concat), or added (sum).
type Bidirectional struct {
	Layer     LayerSpec `yaml:"layer" json:"layer"`
	MergeMode string    `yaml:"merge_mode" json:"merge_mode"`
}

// NewEmbedding returns an embedding with Keras' defaults.
func NewEmbedding(inputDim, outputDim int) *Embedding {
	return &Embedding{InputDim: inputDim, OutputDim: outputDim, EmbeddingsInitializer: "uniform", Common: learning}
}

// NewLSTM returns an LSTM with Keras' defaults.
func NewLSTM(units int) *LSTM {
	return &LSTM{
		Units: units, UseBias: true, UnitForgetBias: true,
		KernelInitializer: "glorot_uniform", RecurrentInitializer: "orthogonal", BiasInitializer: "zeros", Common: learning,
	}
}

// NewGRU returns a GRU with Keras' defaults.
func NewGRU(units int) *GRU {
	return &GRU{
		Units: units, UseBias: true,
		KernelInitializer: "glorot_uniform", RecurrentInitializer: "orthogonal", BiasInitializer: "zeros", Common: learning,
	}
}

// NewBidirectional returns a layer that reads sequences both ways.
func NewBidirectional(l LayerSpec) *Bidirectional {
	return &Bidirectional{Layer: l, MergeMode: "concat"}
}

func (*Embedding) Kind() string     { return "embedding" }
func (*LSTM) Kind() string          { return "lstm" }
func (*GRU) Kind() string           { return "gru" }
func (*Bidirectional) Kind() string { return "bidirectional" }

// Validate implements [LayerSpec].
func (e *Embedding) Validate() error {
	return cmp.Or(
		checkUnits("input_dim", e.InputDim), // float32 tells so many whole numbers apart
		checkUnits("output_dim", e.OutputDim),
		checkInitializer("embeddings_initializer", e.EmbeddingsInitializer),
		validName(e.Name),
	)
}

// Validate implements [LayerSpec].
func (l *LSTM) Validate() error {
	if l.UnitForgetBias && l.BiasInitializer != "zeros" {
		return fmt.Errorf(`bias_initializer is %q, want "zeros", or unit_forget_bias: false`, l.BiasInitializer)
	}
	if err := cmp.Or(l.KernelRegularizer.validate("kernel_regularizer"), l.RecurrentRegularizer.validate("recurrent_regularizer")); err != nil {
		return err
	}
	return checkRecurrent(l.Units, l.Dropout, l.RecurrentDropout, l.KernelInitializer, l.RecurrentInitializer, l.BiasInitializer, l.Name)
}

// Validate implements [LayerSpec].
func (l *GRU) Validate() error {
	if err := cmp.Or(l.KernelRegularizer.validate("kernel_regularizer"), l.RecurrentRegularizer.validate("recurrent_regularizer")); err != nil {
		return err
	}
	return checkRecurrent(l.Units, l.Dropout, l.RecurrentDropout, l.KernelInitializer, l.RecurrentInitializer, l.BiasInitializer, l.Name)
}

func checkRecurrent(units int, dropout, recurrentDropout float64, kernel, recurrent, bias, name string) error {
	return cmp.Or(
		checkUnits("units", units),
		checkRate("dropout", dropout),
		checkRate("recurrent_dropout", recurrentDropout),
		checkInitializer("kernel_initializer", kernel),
		checkInitializer("recurrent_initializer", recurrent),
		checkInitializer("bias_initializer", bias),
		validName(name),
	)
}

// Validate implements [LayerSpec].
func (d *Bidirectional) Validate() error {
	if d.Layer == nil {
		return errors.New("layer is missing, want lstm or gru")
	}
	if _, ok := d.Layer.(recurrentSpec); !ok {
		return fmt.Errorf("layer is %s, want lstm or gru", d.Layer.Kind())
	}
	return oneOf("merge_mode", d.MergeMode, []string{"concat", "sum"})
}

// Parts implements [Container].
func (d *Bidirectional) Parts() []Part {
	if d.Layer == nil {
		return nil
	}
	return []Part{{layerField, []LayerSpec{d.Layer}}}
}

func (e *Embedding) add(b *builder) error {
	if len(b.shape) != 1 || len(b.chain.plans) > 0 || b.depth > 1 {
		return fmt.Errorf("got samples of shape %s, want the whole numbers of the data themselves: one axis, and no operation before it", shapeString(b.shape))
	}
	b.frozen = !e.Trainable
	b.learn()
	t, err := b.tensor("embeddings", e.EmbeddingsInitializer, e.InputDim, e.OutputDim)
	if err != nil {
		return err
	}
	p := embedding{t: b.width, rows: e.InputDim, d: e.OutputDim, table: t, frozen: b.frozen, slot: -1}
	if e.MaskZero {
		p.slot = b.m.masks
		b.m.masks++
	}
	b.m.vocabulary = e.InputDim
	if err := b.reshaped(b.width, e.OutputDim); err != nil {
		return err
	}
	b.mask = p.slot
	b.push(p, "embedding", true)
	return nil
}

// recurrentSpec is a layer that a Bidirectional may run.
type recurrentSpec interface {
	LayerSpec
	// recur appends the layer; reverse makes it read from the end.
	recur(b *builder, reverse bool) error
}

func (l *LSTM) add(b *builder) error { return l.recur(b, false) }

func (l *GRU) add(b *builder) error { return l.recur(b, false) }

func (l *LSTM) recur(b *builder, reverse bool) error {
	b.frozen = !l.Trainable
	p, err := b.recurrent(4, l.Units, l.ReturnSequences, reverse, l.Dropout, l.RecurrentDropout)
	if err != nil {
		return err
	}
	bias := ""
	if l.UseBias {
		bias = l.BiasInitializer
		if l.UnitForgetBias {
			bias = forgetBias
		}
	}
	if err := b.weigh(&p, l.KernelInitializer, l.RecurrentInitializer, bias, l.KernelRegularizer, l.RecurrentRegularizer, 4*l.Units); err != nil {
		return err
	}
	return b.pushRecurrent(lstm{recurrent: p}, p, "lstm")
}

func (l *GRU) recur(b *builder, reverse bool) error {
	b.frozen = !l.Trainable
	p, err := b.recurrent(3, l.Units, l.ReturnSequences, reverse, l.Dropout, l.RecurrentDropout)
	if err != nil {
		return err
	}
	bias := ""
	if l.UseBias {
		bias = l.BiasInitializer
	}
	if err := b.weigh(&p, l.KernelInitializer, l.RecurrentInitializer, bias, l.KernelRegularizer, l.RecurrentRegularizer, 2, 3*l.Units); err != nil {
		return err
	}
	return b.pushRecurrent(gru{recurrent: p}, p, "gru")
}

// recurrent is what recurrent layers have in common, for the sample at hand.
func (b *builder) recurrent(gates, units int, sequences, reverse bool, dropout, recurrentDropout float64) (recurrent, error) {
	if len(b.shape) != 2 {
		return recurrent{}, fmt.Errorf("got samples of shape %s, want time x values: put embedding or reshape before it", shapeString(b.shape))
	}
	r := recurrent{
		t: b.shape[0], d: b.shape[1], u: units, gates: gates, sequences: sequences, reverse: reverse,
		slot: b.mask, inner: b.learn(), frozen: b.frozen,
	}
	in, carry := b.draw(), b.draw()
	if dropout > 0 {
		r.in = newDropout(dropout, r.d, in)
	}
	if recurrentDropout > 0 {
		r.carry = newDropout(recurrentDropout, r.u, carry)
	}
	return r, nil
}

// weigh lays out the tensors; bias is its initializer, "" for none.
func (b *builder) weigh(r *recurrent, kernel, recur, bias string, regKernel, regRecur Regularizer, biasShape ...int) (err error) {
	if r.kernel, err = b.tensor("kernel", kernel, r.d, r.gates*r.u); err != nil {
		return err
	}
	b.regularize(regKernel)
	if r.recur, err = b.tensor("recurrent_kernel", recur, r.u, r.gates*r.u); err != nil {
		return err
	}
	b.regularize(regRecur)
	if bias != "" {
		r.bias, err = b.tensor("bias", bias, biasShape...)
	}
	return err
}

func (b *builder) pushRecurrent(p plan, r recurrent, kind string) error {
	before := b.width
	shape := []int{r.t, r.u}
	if !r.sequences {
		shape, b.mask = shape[1:], -1
	}
	if err := b.reshaped(shape...); err != nil {
		return err
	}
	if _, err := volume([]int{r.t, r.gates, max(r.u, r.d)}); err != nil {
		return fmt.Errorf("its gates are too many: %w", err)
	}
	if r.inner {
		b.gradient(before, b.width)
	}
	b.flops += int64(r.t) * 2 * int64(r.kernel.Len+r.recur.Len)
	b.push(p, kind, true)
	return nil
}

func (d *Bidirectional) add(b *builder) error {
	layer, name := d.Layer.(recurrentSpec), b.name
	inner := b.parts[0][0].name
	var flops int64
	var ways []branch
	for i, way := range []string{"forward_", "backward_"} {
		w, err := b.branch(func() error {
			b.name, b.flops = name+"/"+way+inner, 0
			return layer.recur(b, i == 1)
		})
		if err != nil {
			return err
		}
		flops += b.flops
		ways = append(ways, w)
	}
	b.name, b.flops = name, flops
	return b.join(ways, d.MergeMode == "sum", "bidirectional")
}

// branch is one of several ways from a place in the model.
type branch struct {
	chain *chain
	shape []int
	mask  int
}

// branch grows a branch from here and comes back.
func (b *builder) branch(grow func() error) (branch, error) {
	chain, shape, width, mask := b.chain, b.shape, b.width, b.mask
	b.chain, b.spare = newChain(chain.wants()), false
	err := grow()
	br := branch{b.chain, b.shape, b.mask}
	b.m.widest = max(b.m.widest, b.chain.widest())
	b.chain, b.shape, b.width, b.mask = chain, shape, width, mask
	return br, err
}

// join ends branches: it adds their outputs, or lays them side by side along
// the last axis.
func (b *builder) join(ways []branch, add bool, kind string) error {
	p := parallel{in: b.width, inner: b.chain.wants(), add: add}
	shape := slices.Clone(ways[0].shape)
	last := len(shape) - 1
	for i, w := range ways {
		if len(w.shape) != len(shape) || !slices.Equal(w.shape[:last], shape[:last]) || add && w.shape[last] != shape[last] {
			want := "equal shapes"
			if !add {
				want = "shapes that differ in the last axis alone"
			}
			return fmt.Errorf("got %s from one branch and %s from another, want %s", shapeString(shape), shapeString(w.shape), want)
		}
		if !p.inner && b.chain.first < 0 && w.chain.wants() {
			b.chain.first = len(b.chain.plans)
		}
		if w.mask != ways[0].mask {
			b.mask = -1
		} else if i == 0 {
			b.mask = w.mask
		}
		p.chains = append(p.chains, *w.chain)
		p.widths = append(p.widths, w.shape[last])
	}
	p.rows = 1
	for _, d := range shape[:last] {
		p.rows *= d
	}
	if !add {
		for _, w := range ways[1:] {
			shape[last] += w.shape[last]
		}
	}
	if err := b.reshaped(shape...); err != nil {
		return err
	}
	b.gradient(b.width)
	b.push(p, kind, true)
	return nil
}
