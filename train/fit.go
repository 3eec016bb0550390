package train

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
)

// Fitted is what a run leaves behind in memory.
type Fitted struct {
	Params  []float32 // the model's flat vector, as nn.Model.Tensors says
	History []Epoch
	Steps   uint64
	Model   [32]byte // SHA-256 of the model.safetensors that it would be saved as
	State   [32]byte // SHA-256 of the whole state
}

// Fit trains a task alone, in this process, without network or files: the node
// that is the oracle of all others, and the way to use the packages as a
// library. threads microbatches are computed at the same time; 0 is GOMAXPROCS.
// epoch, if not nil, is told of each epoch that ends.
func Fit(ctx context.Context, t *Task, threads int, epoch func(Epoch)) (*Fitted, error) {
	if err := checkArithmetic(); err != nil {
		return nil, err
	}
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	f := newFitter(ctx, t, threads, epoch)
	defer f.pool.close()
	return f.run()
}

// fitter drives a node that has nobody to talk to.
type fitter struct {
	ctx   context.Context
	task  *Task
	node  *Node
	pool  *pool
	sum   *allreduce.Reducer
	epoch func(Epoch)
	exit  *Exit
}

// newFitter starts the goroutines of a pool, which is to be closed.
func newFitter(ctx context.Context, t *Task, threads int, epoch func(Epoch)) *fitter {
	f := &fitter{ctx: ctx, task: t, pool: newPool(NewEngine(t, threads)), epoch: epoch}
	cfg := view.DefaultConfig(view.Fact{ID: "alone", Incarnation: 1, Trajectory: t.Trajectory})
	f.node = NewNode(t, t.Start(), cfg, checkpoint.Policy{Replicas: 1}, time.Now())
	f.node.Share(f.pool.each)
	f.node.Ready(time.Now())
	return f
}

func (f *fitter) run() (*Fitted, error) {
	for f.exit == nil {
		f.turn()
	}
	if f.exit.Err != nil {
		return nil, f.exit.Err
	}
	s := f.node.State()
	m := checkpoint.Describe(f.task.snapshot(s))
	return &Fitted{s.params, s.History, s.Step, m.ModelDigest(), m.Digest()}, nil
}

// turn performs what the node wants.
func (f *fitter) turn() {
	effects := f.node.Take()
	if len(effects) == 0 {
		panic("train: a node alone waits for somebody")
	}
	for _, e := range effects {
		f.do(e)
	}
}

func (f *fitter) do(e Effect) {
	now := time.Now()
	switch e := e.(type) {
	case OpenGroup:
		f.sum = allreduce.New(f.task.ops(allreduce.Config{World: 1, Fence: e.View.Name().Fence()}))
	case CloseGroup:
		f.node.GroupDown(now, e.View, e.Cause)
	case Compute:
		f.compute(e)
	case Reduce:
		f.reduce(e)
	case Save:
		f.node.Saved(now, nil) // the state stays in memory
	case Committed:
		if f.epoch != nil && e.Epoch != nil && (e.Kind == Evaluate || f.task.Validation == nil) {
			f.epoch(*e.Epoch)
		}
	case Exit:
		f.exit = &e
	}
}

func (f *fitter) compute(e Compute) {
	c, err := f.pool.wait(f.ctx, e.Attempt, e.Range, e.Params)
	f.node.Computed(time.Now(), e.View, c, err)
}

func (f *fitter) reduce(e Reduce) {
	nobody := func([]int, allreduce.Frame) { panic("train: a frame in a world of one") }
	if _, err := f.sum.Start(e.Op, nobody); err != nil {
		f.node.Abort(err)
		return
	}
	headers, ok := f.sum.Done()
	if !ok {
		f.node.Abort(fmt.Errorf("train: an all-reduce of one is not complete"))
		return
	}
	f.node.Reduced(time.Now(), e.View, e.Op.Seq, headers, f.sum.Total())
}
