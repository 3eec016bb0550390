package nn

import (
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/pages"
	"github.com/dlnode/dlnode/internal/rng"
)

// Batch is what one Forward looks at. The workspace reads X and IDs until the
// Backward that follows is over.
type Batch struct {
	N   int
	X   []float32 // [N, InputLen]
	Y   []float32 // [N, Target.Len], class ids as whole numbers; nil: predictions alone
	W   []float32 // [N], what the losses of the samples are multiplied by; nil: 1 each
	IDs []uint64  // [N], names of the samples; needed in training alone
}

// Key says which random numbers a training forward uses.
type Key struct {
	Seed uint64
	Step uint64
}

// Workspace is the memory of one batch at a time on its way through a model.
// It belongs to one goroutine. What its methods return is valid until the next
// Forward.
type Workspace struct {
	// Cancelled, where set, is asked before every operation. Once it says yes,
	// Forward and Backward return at once and Aborted tells so.
	Cancelled func() bool

	m        *Model
	maxBatch int
	chain    *chainOp
	loss     loss
	tallies  []*tally  // of the metrics that count; nil for means
	grad     []float32 // the gradient on its way down at one end, the next one at the other
	upper    bool      // which end the last one is at
	losses   []float64 // [maxBatch]
	values   []float64 // [metrics, maxBatch], of means
	bytes    int
	scratch  kernel.Scratch
	work     []float32   // an op's for the time of a call
	masks    [][]float32 // [n, t] each: 1 where there is something, 0 where there is padding

	// Of the batch at hand; params, grads, ids and ready during a call alone.
	n             int
	train         bool
	key           Key
	ids           []uint64
	params, grads []float32
	ready         func(lo, hi int)
	low           int // what of grads lies above is final
	out, y        []float32
	weights       []float32 // of the samples; nil: none
	scored        bool      // losses and metrics are those of this batch
	spent         bool      // Backward was here: operations have overwritten what they had kept
	aborted       bool
}

// arena deals out windows of one allocation. While buf is nil it only measures.
type arena struct {
	buf    []float32
	used   int
	shared int // the most that some op needs for the time of a call
	wide   int // float64s taken beside
}

// share asks for n floats of Workspace.work, which all ops use in turn.
func (a *arena) share(n int) { a.shared = max(a.shared, n) }

// wider returns n zeroed float64s.
func (a *arena) wider(n int) []float64 {
	a.wide += n
	if a.buf == nil {
		return nil
	}
	return make([]float64, n)
}

// streams returns room for as many streams, of the size of a float64 each.
func (a *arena) streams(n int) []rng.Stream {
	a.wide += n
	if a.buf == nil {
		return nil
	}
	return make([]rng.Stream, n)
}

// lines is n rounded up to whole cache lines of floats.
func lines(n int) int { return (n + 15) &^ 15 }

// take returns n zeroed floats that begin at a cache line of the allocation.
func (a *arena) take(n int) []float32 {
	lo := a.used
	a.used += lines(n)
	if a.buf == nil {
		return nil
	}
	return a.buf[lo : lo+n : lo+n]
}

// NewWorkspace allocates all memory that batches of up to maxBatch samples need.
func (m *Model) NewWorkspace(maxBatch int) *Workspace {
	if maxBatch < 1 {
		panic("nn: NewWorkspace for no samples")
	}
	w := &Workspace{m: m, maxBatch: maxBatch, losses: make([]float64, maxBatch), masks: make([][]float32, m.masks)}
	var mem arena
	w.bind(&mem)
	mem = arena{buf: pages.Float32s(mem.used)}
	w.bind(&mem)
	w.loss = m.bindLoss(w.chain.ops[len(w.chain.ops)-1])
	w.values = make([]float64, maxBatch*len(m.metrics))
	w.bytes = 4*len(mem.buf) + 8*(mem.wide+len(w.losses)+len(w.values))
	w.tallies = make([]*tally, len(m.metrics))
	for i, metric := range m.metrics {
		if !metric.Mean {
			w.tallies[i] = newTally(metric.Width, metric.most(m.output), maxBatch)
			w.bytes += w.tallies[i].bytes()
		}
	}
	return w
}

// bind gives every op its memory, and the gradients on their way down room for two
// at a time.
func (w *Workspace) bind(mem *arena) {
	w.chain = w.m.chain.bindTo(mem, w.maxBatch)
	w.grad = mem.take(w.maxBatch*w.m.widest + 15)
	w.work = mem.take(mem.shared)
}

// Bytes is the memory the workspace holds, in bytes, without the packing
// buffers that the kernels grow on first use.
func (w *Workspace) Bytes() int { return w.bytes }

// Forward computes the model's output for a batch, [N, OutputLen], as Keras'
// predict gives it: probabilities behind softmax and sigmoid. With labels it
// computes the losses and metrics, too. train switches dropout on. It returns
// nil when it was cancelled.
func (w *Workspace) Forward(params []float32, b *Batch, key Key, train bool) (out []float32) {
	w.begin(params, b, key, train)
	w.out = w.chain.climb(w, b.X)
	w.params, w.ids = nil, nil
	if w.y != nil && !w.aborted {
		w.score()
	}
	return w.out
}

// begin takes over a batch after checking that its lengths agree.
func (w *Workspace) begin(params []float32, b *Batch, key Key, train bool) {
	switch m := w.m; {
	case len(params) != m.params:
		panic("nn: Forward with parameters of another model")
	case b.N < 1 || b.N > w.maxBatch:
		panic("nn: Forward with a batch that is empty or greater than the workspace")
	case len(b.X) != b.N*m.input:
		panic("nn: Forward with samples of another length")
	case b.Y != nil && len(b.Y) != b.N*m.target.Len:
		panic("nn: Forward with labels of another length")
	case b.W != nil && len(b.W) != b.N:
		panic("nn: Forward with weights of another number of samples")
	case train && len(b.IDs) != b.N:
		panic("nn: Forward in training without the ids of the samples")
	}
	w.n, w.params, w.key, w.train, w.ids, w.y, w.weights = b.N, params, key, train, b.IDs, b.Y, b.W
	w.scored, w.spent, w.aborted = false, false, false
}

// score computes losses and metrics of every sample.
func (w *Workspace) score() {
	for _, t := range w.tallies {
		if t != nil {
			t.marks = t.marks[:0]
		}
	}
	for i := range w.n {
		p, y := row(w.out, i, w.m.output), row(w.y, i, w.m.target.Len)
		w.losses[i] = w.loss.value(i, p, y)
		if w.weighted() {
			w.losses[i] = float64(w.weight(i, y) * w.losses[i])
		}
		for j := range w.m.metrics {
			w.measure(&w.m.metrics[j], j, i, p, y)
		}
	}
	w.scored = true
}

// measure takes sample i into metric j.
func (w *Workspace) measure(m *Metric, j, i int, p, y []float32) {
	if m.Mean {
		w.values[j*w.maxBatch+i] = m.number(p, y)
		return
	}
	m.counter.count(w.tallies[j], p, y)
	w.tallies[j].next()
}

// weighted tells whether the samples of the batch count differently.
func (w *Workspace) weighted() bool {
	return w.weights != nil || w.train && len(w.m.weights) > 0
}

// weight is what the loss of sample i is multiplied by: its own weight and, in
// training, that of its class.
func (w *Workspace) weight(i int, y []float32) float64 {
	weight := 1.0
	if w.weights != nil {
		weight = float64(w.weights[i])
	}
	if w.train && len(w.m.weights) > 0 {
		weight = float64(weight * w.m.weight(y))
	}
	return weight
}

func scale(x []float32, factor float32) {
	for i := range x {
		x[i] = float32(x[i] * factor)
	}
}

// Losses are the losses of the batch, [N]. nil without labels, or after a
// cancelled Forward.
func (w *Workspace) Losses() []float64 {
	if !w.scored {
		return nil
	}
	return w.losses[:w.n]
}

// MetricValues are the values of metric i of [Model.Metrics], [N], if it is a
// mean: each a number from one sample, so that sums and counts are all that a mean
// over any set of samples needs. nil where Losses is, and for other metrics.
func (w *Workspace) MetricValues(i int) []float64 {
	if !w.scored || w.tallies[i] != nil {
		return nil
	}
	return w.values[i*w.maxBatch:][:w.n]
}

// Marks are what the samples of the batch add to the sums of metric i of
// [Model.Metrics], if it counts: a sample adds to few of them. nil where Losses is,
// and for means.
func (w *Workspace) Marks(i int) []Mark {
	if !w.scored || w.tallies[i] == nil {
		return nil
	}
	return w.tallies[i].marks
}

// Backward writes the gradient of the sum of the losses of the batch that
// Forward has just seen; params must be the same still. It is called once for a
// Forward: layers put gradients in the place of what they had kept. It overwrites all
// of grads, [NumParams]. As soon as a window [lo, hi) of it is final it calls
// ready, if there is one: layer by layer from the last to the first, all of
// them together covering grads once. The place of a frozen tensor is zero, that
// of a statistic holds what [Statistic] says. After a cancelled call, what was not
// announced is undefined.
func (w *Workspace) Backward(params, grads []float32, ready func(lo, hi int)) {
	if w.aborted {
		return
	}
	if !w.scored || len(params) != w.m.params || len(grads) != w.m.params {
		panic("nn: Backward without a labelled Forward, or with vectors of another model")
	}
	if w.spent {
		panic("nn: Backward a second time behind one Forward")
	}
	w.spent = true
	w.params, w.grads, w.ready, w.low = params, grads, ready, len(grads)
	for _, t := range w.m.tensors {
		if t.Use == Frozen {
			clear(t.of(grads))
		}
	}
	w.descend()
	w.params, w.grads, w.ready = nil, nil, nil
}

// descend walks from the loss down to the first op that learns.
func (w *Workspace) descend() {
	d := w.otherGrad(len(w.out))
	for i := range w.n {
		p, y := row(w.out, i, w.m.output), row(w.y, i, w.m.target.Len)
		w.loss.gradient(i, p, y, row(d, i, w.m.output))
		if w.weighted() {
			scale(row(d, i, w.m.output), float32(w.weight(i, y)))
		}
	}
	top := len(w.chain.ops) - 1
	if w.m.fused() {
		top--
	}
	w.chain.descend(w, d, top)
	if w.low > 0 && !w.aborted {
		w.finalFrom(0)
	}
}

// final says that the gradient of a tensor is final, with all that lie behind
// it. Frozen ones in between are, from the start.
func (w *Workspace) final(t Tensor) { w.finalFrom(t.Off) }

func (w *Workspace) finalFrom(lo int) {
	if w.ready != nil {
		w.ready(lo, w.low)
	}
	w.low = lo
}

// otherGrad returns room for the next gradient, at that end of the memory for them
// where the last one is not, from a cache line on.
func (w *Workspace) otherGrad(n int) []float32 {
	w.upper = !w.upper
	if !w.upper {
		return w.grad[:n:n]
	}
	lo := (len(w.grad) - n) &^ 15
	return w.grad[lo : lo+n : lo+n]
}

// Aborted tells whether the last Forward, or the Backward behind it, was
// cancelled.
func (w *Workspace) Aborted() bool { return w.aborted }

func (w *Workspace) cancelled() bool {
	if w.Cancelled != nil && w.Cancelled() {
		w.aborted = true
	}
	return w.aborted
}
