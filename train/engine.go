package train

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/internal/pages"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/shard"
)

// Attempt is one try at a transition. It is a function of the state, of how
// often the same generation has tried before, and of nothing else.
type Attempt struct {
	Transition uint64 // of the state it starts from
	Repeat     int    // 0 for the first try
	Kind       Kind
	Step       uint64
	Grad       []int16 // exponents in force, one for each tensor
	Scalar     []int16 // one for each scalar
	Rotation   int     // of the assignment: a non-finite result is computed elsewhere before it is believed
	Doubts     int     // how many of the repeats are for sums that changed on their way, or for what was seen once and not again

	Raised  *Raise   `json:",omitempty"` // the exponents are no more those of the state; nil if they are
	Dispute *Dispute `json:",omitempty"` // all ranks compute a microbatch of the attempt before, which one of them may have computed wrong; nil if not
	Probes  []int    `json:"-"`          // the microbatches of which this rank tells a digest, in its range or not
}

// Raise is why an attempt has greater exponents than the state: what was seen in the
// attempt before did not fit those. What is seen is a function of state and step, so
// the attempt sees it again, or one of the two was computed wrong.
type Raise struct {
	Grad, Scalar         []int16 // exponents of the state
	GradSeen, ScalarSeen []int16 // in the attempt before
}

// Microbatches returns how many there are in the attempt, over all ranks.
func (t *Task) microbatches(a *Attempt) int {
	switch a.Kind {
	case Update:
		return t.Plan.Microbatches(a.Step)
	case Evaluate:
		return t.EvalPlan.Microbatches()
	}
	return 0
}

// Contribution is one rank's part of an attempt: exact sums over its
// microbatches, and which samples went into them, as told by the records.
type Contribution struct {
	Count   uint64
	IDSum   uint64 // of shard.Mix(id), mod 2^64
	Grad    *exact.Sum
	Scalars *exact.Scalars
	Mean    []float32 // memory for the mean gradient, as long as Grad's vector
	Threads int       // microbatches that the rank computes at the same time
	Input   Input     // what it took to have the samples; for display

	Probes  []uint64      // digests, as Attempt.Probes
	Probing time.Duration // spent for them alone

	misfit misfit
}

// misfit is the microbatch of a rank that is furthest beyond its grids, the first of
// them if there are several.
type misfit struct {
	microbatch int
	beyond     int // see exact.Beyond; 0 where all fit
	digest     uint64
}

// Input is the time that samples took.
type Input struct {
	Waited time.Duration // workers did, for samples, in the mean of those there are
	Read   time.Duration // was spent reading and changing them, ahead or not, summed over all who did, since the last contribution
}

// Engine computes contributions. It owns all memory that a step needs, so that
// steps allocate nothing. Its workers may run at the same time; each takes whole
// microbatches, and adds each layer's gradient to the one sum that all share as
// soon as backward has it: integers add up to the same whatever the split. For P
// parameters that is 8·P bytes for the sum and 4·P for each worker's gradient. The
// first one's memory takes the mean, too, unless that may come before the worker is
// done (Sums).
type Engine struct {
	task    *Task
	workers []*Worker
	grad    *exact.Sum
	mean    []float32        // receives the mean gradient, if there is memory for it; else the first worker's gradient does
	locks   []sync.Mutex     // of grad's blocks
	buckets []bucket         // of grad's blocks, from 0 to the end
	terms   int              // microbatches of the attempt in hand
	ready   func(lo, hi int) // is told of buckets that are complete; nil if nobody wants to know
	waited  time.Duration    // as DataTime was at the last Begin
	read    time.Duration    // as readTime was at the last Collect
	probes  []uint64         // digests, as Attempt.Probes
	probing atomic.Int64     // time spent for them alone, since Begin
	worst   sync.Mutex       // of misfit
	misfit  misfit           // so far
	spoil   Spoiler          // for tests; nil for none
}

// bucket is some neighbouring blocks, which are given to the all-reduce together.
type bucket struct {
	lo, hi int          // elements
	blocks int32        // how many
	open   atomic.Int32 // those of them that lack a term
}

// A bucket has at least bucketBlocks blocks, so that a frame is worth its while, and
// there are at most mostBuckets, so that large models are not told of piecemeal.
const (
	bucketBlocks = 4
	mostBuckets  = 64
)

// NewEngine makes an engine of n workers.
func NewEngine(t *Task, n int) *Engine {
	e := &Engine{task: t, grad: exact.NewSum(t.windows, t.Plan.MaxMicrobatches())}
	e.locks = make([]sync.Mutex, e.grad.Blocks())
	e.buckets = make([]bucket, (e.grad.Blocks()+e.bucketLen()-1)/e.bucketLen())
	for i := range e.grad.Blocks() {
		b, part := &e.buckets[i/e.bucketLen()], e.grad.Block(i)
		if b.blocks++; b.blocks == 1 {
			b.lo = part.Lo
		}
		b.hi = part.Hi
	}
	for i := range n {
		e.workers = append(e.workers, newWorker(e, i))
	}
	return e
}

func (e *Engine) bucketLen() int { return bucketLen(e.grad.Blocks()) }

// bucketLen is how many of so many blocks a bucket has; the last one may have fewer.
func bucketLen(blocks int) int { return max(bucketBlocks, (blocks+mostBuckets-1)/mostBuckets) }

// Sums is the memory that attempts are summed in, for an all-reduce that begins
// while an attempt is computed.
type Sums struct {
	Grad *exact.Sum
	Mean []float32 // receives the mean gradient; nobody else uses it
}

// Sums returns the engine's. From the first call on the mean gradient has memory of
// its own.
func (e *Engine) Sums() Sums {
	if e.mean == nil {
		e.mean = pages.Float32s(e.task.Model.NumParams())
	}
	return Sums{e.grad, e.mean}
}

// Workers returns the workers, each for one goroutine at a time.
func (e *Engine) Workers() []*Worker { return e.workers }

// Bytes returns the memory that the engine holds, in bytes.
func (e *Engine) Bytes() int64 {
	n := int64(8*e.task.Model.NumParams() + 4*len(e.mean))
	for _, w := range e.workers {
		n += int64(w.ws.Bytes()) + int64(4*len(w.grads)) + w.hand.bytes()
		if w.reader != nil {
			n += w.reader.ahead.bytes()
		}
	}
	return n
}

// Clock has the time measured that workers wait for samples. Without it an
// engine knows no time.
func (e *Engine) Clock(now func() time.Duration) {
	for _, w := range e.workers {
		w.now = now
	}
}

// Beats returns how many operations the workers have computed and how many samples they have read: a sign of life.
func (e *Engine) Beats() (sum uint64) {
	for _, w := range e.workers {
		sum += w.beats.Load()
	}
	return sum
}

// Doing tells what may take long of what the workers are at, "" if nothing.
func (e *Engine) Doing() string {
	for _, w := range e.workers {
		if w.reading.Load() {
			return "it waits for samples of " + e.task.Train.Info().Name
		}
	}
	return ""
}

// DataTime returns the time spent waiting for samples, summed over the workers:
// reading them, where nobody reads ahead.
func (e *Engine) DataTime() (sum time.Duration) {
	for _, w := range e.workers {
		sum += time.Duration(w.dataTime.Load())
	}
	return sum
}

// readTime returns the time spent reading samples, by workers and ahead of them.
func (e *Engine) readTime() (sum time.Duration) {
	for _, w := range e.workers {
		if w.reader != nil {
			sum += time.Duration(w.reader.spent.Load())
		}
	}
	return sum
}

// input returns what the samples took since the last Begin, and the last input.
func (e *Engine) input() Input {
	read := e.readTime()
	in := Input{Waited: (e.DataTime() - e.waited) / time.Duration(len(e.workers)), Read: read - e.read}
	e.read = read
	return in
}

// RoundTime returns the time spent rounding to the grids and adding, likewise.
func (e *Engine) RoundTime() (sum time.Duration) {
	for _, w := range e.workers {
		sum += time.Duration(w.roundTime.Load())
	}
	return sum
}

// Begin empties the sums for an attempt, of which so many microbatches are computed
// here. ready, if not nil, is told of each range of the gradient's sum as soon as it
// has them all, by the worker that adds the last one.
func (e *Engine) Begin(a *Attempt, microbatches int, ready func(lo, hi int)) {
	if a.Kind == Update {
		e.grad.Reset(a.Grad)
	}
	e.terms, e.ready = microbatches, ready
	for i := range e.buckets {
		e.buckets[i].open.Store(e.buckets[i].blocks)
	}
	for _, w := range e.workers {
		w.begin(a)
	}
	e.waited = e.DataTime()
	e.probes = make([]uint64, len(a.Probes))
	e.probing.Store(0)
	e.misfit = misfit{}
}

// Collect merges what the workers have. The result is valid until Begin.
func (e *Engine) Collect(a *Attempt) Contribution {
	first := e.workers[0]
	mean := e.mean
	if mean == nil {
		mean = first.grads
	}
	c := Contribution{Count: first.count, IDSum: first.idSum, Grad: e.grad, Scalars: first.scalars(a), Mean: mean, Threads: len(e.workers), Input: e.input(), Probes: e.probes, Probing: time.Duration(e.probing.Load()), misfit: e.misfit}
	for _, w := range e.workers[1:] {
		if w.count == 0 {
			continue
		}
		c.Count += w.count
		c.IDSum += w.idSum
		c.Scalars.Merge(w.scalars(a))
	}
	return c
}

// Compute does microbatches [r.Lo, r.Hi) of an attempt with one worker, in the
// calling goroutine. ready is that of Begin.
func (e *Engine) Compute(ctx context.Context, a *Attempt, r shard.Range, params []float32, ready func(lo, hi int)) (Contribution, error) {
	e.Begin(a, r.Len(), ready)
	for mb := r.Lo; mb < r.Hi; mb++ {
		if err := e.workers[0].Microbatch(ctx, a, mb, params); err != nil {
			return Contribution{}, err
		}
	}
	for _, mb := range a.besides(r) {
		if err := e.workers[0].Probe(ctx, a, mb, params); err != nil {
			return Contribution{}, err
		}
	}
	return e.Collect(a), nil
}

// Worker computes one microbatch at a time.
type Worker struct {
	task    *Task
	engine  *Engine
	index   int // of this worker
	ws      *nn.Workspace
	hand    *samples // the microbatch in hand
	reader  *reader  // of the next one; nil if nobody reads ahead
	grads   []float32
	added   int // blocks from here on are in the engine's sum
	beyond  int // how far the microbatch in hand is beyond its grids
	hash    hash
	train   *exact.Scalars
	eval    *exact.Scalars
	count   uint64
	idSum   uint64
	ctx     context.Context // of the microbatch in hand, asked between layers
	attempt *Attempt        // that it is of

	ready     func(lo, hi int) // round, as backward calls it
	now       func() time.Duration
	dataTime  atomic.Int64
	roundTime atomic.Int64
	beats     atomic.Uint64 // operations computed and samples read, ever
	reading   atomic.Bool   // it waits for samples
}

func newWorker(e *Engine, index int) *Worker {
	t := e.task
	w := &Worker{
		task: t, engine: e, index: index, ws: t.Model.NewWorkspace(t.Plan.Micro), hand: newSamples(t),
		grads: pages.Float32s(t.Model.NumParams()),
		train: t.newScalars(Update, t.Plan.Global),
		eval:  t.newScalars(Evaluate, max(1, t.EvalPlan.N)),
	}
	w.hand.beats = &w.beats
	w.ws.Cancelled = func() bool {
		w.beats.Add(1)
		return w.ctx.Err() != nil
	}
	w.ready = func(lo, hi int) {
		w.spoil(lo, hi)
		w.timed(&w.roundTime, func() { w.round(lo) })
	}
	return w
}

func (w *Worker) begin(a *Attempt) {
	w.count, w.idSum = 0, 0
	switch a.Kind {
	case Update:
		w.train.Reset(a.Scalar)
	case Evaluate:
		w.eval.Reset(a.Scalar)
	}
}

func (w *Worker) scalars(a *Attempt) *exact.Scalars {
	if a.Kind == Evaluate {
		return w.eval
	}
	return w.train
}

// Microbatch adds one microbatch of the attempt to the worker's sums: a
// sample's way from the record to the integer grid.
func (w *Worker) Microbatch(ctx context.Context, a *Attempt, mb int, params []float32) error {
	w.ctx = ctx
	if err := w.take(place{a.Kind, a.Step, mb}); err != nil {
		return err
	}
	return w.compute(a, params)
}

// take gets the microbatch at a place into hand.
func (w *Worker) take(at place) (err error) {
	w.hand.ctx = w.ctx
	var ended <-chan struct{}
	if w.ctx != nil {
		ended = w.ctx.Done()
	}
	w.reading.Store(true)
	defer w.reading.Store(false)
	w.timed(&w.dataTime, func() {
		switch {
		case w.reader == nil:
			err = w.hand.read(at)
		case w.reader.await(ended, at):
			w.hand, w.reader.ahead = w.reader.ahead, w.hand
		default:
			err = w.reader.timed(w.hand, at)
		}
	})
	return err
}

// compute adds the microbatch in hand to the sums.
func (w *Worker) compute(a *Attempt, params []float32) error {
	w.attempt = a
	w.count += uint64(w.hand.batch.N)
	w.idSum += w.hand.idSum
	w.beyond = 0
	train := a.Kind == Update
	w.ws.Forward(params, &w.hand.batch, nn.Key{Seed: w.task.Job.Seed, Step: a.Step}, train)
	if train {
		w.added = w.engine.grad.Blocks()
		w.ws.Backward(params, w.grads, w.ready)
	}
	if w.ws.Aborted() {
		return context.Cause(w.ctx)
	}
	w.sum(a)
	w.witness(a)
	w.notice()
	w.beats.Add(1)
	return nil
}

// notice keeps the digest of the microbatch in hand if it is the worst misfit so far.
func (w *Worker) notice() {
	if w.beyond == 0 {
		return
	}
	e, mb := w.engine, w.hand.at.mb
	e.worst.Lock()
	defer e.worst.Unlock()
	if m := &e.misfit; w.beyond > m.beyond || w.beyond == m.beyond && mb < m.microbatch {
		*m = misfit{mb, w.beyond, w.digest()}
	}
}

// sum adds losses and metrics, on their grids.
func (w *Worker) sum(a *Attempt) {
	s := w.scalars(a)
	w.beyond = max(w.beyond, s.Add(0, w.ws.Losses()))
	for i, c := range w.task.summed(a.Kind)[1:] {
		w.beyond = max(w.beyond, s.Add(i+1, w.ws.MetricValues(c.index)))
		for _, m := range w.ws.Marks(c.index) {
			w.beyond = max(w.beyond, s.Put(i+1, m.Sum, m.Value))
		}
	}
}

// round takes what backward says is final, all from element lo on: it is added
// to the sum while it lies in the cache. Workers come with the same layers at the
// same time, so each begins at another block.
func (w *Worker) round(lo int) {
	e, last := w.engine, w.added
	for w.added > 0 && e.grad.Block(w.added-1).Lo >= lo {
		w.added--
	}
	n := last - w.added
	for i := range n {
		w.beyond = max(w.beyond, e.add(w.added+(i+n*w.index/len(e.workers))%n, w.grads))
	}
}

// add adds a block of a gradient, and returns how far that is beyond its grid.
func (e *Engine) add(block int, g []float32) (beyond int) {
	part := e.grad.Block(block)
	e.locks[block].Lock()
	terms, beyond := e.grad.AddBlock(block, g[part.Lo:part.Hi])
	e.locks[block].Unlock()
	if e.ready == nil || terms < e.terms {
		return beyond
	}
	if b := &e.buckets[block/e.bucketLen()]; b.open.Add(-1) == 0 {
		e.ready(b.lo, b.hi)
		runtime.Gosched() // to whoever sends it, while it lies in the cache: else that might wait for the end of the microbatch
	}
	return beyond
}

// timed adds the time that f takes to sum, if the worker has a clock.
func (w *Worker) timed(sum *atomic.Int64, f func()) {
	if w.now == nil {
		f()
		return
	}
	begun := w.now()
	f()
	sum.Add(int64(w.now() - begun))
}
