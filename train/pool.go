package train

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/dlnode/dlnode/shard"
)

// pool runs an engine's workers, one goroutine each, for as long as the node
// lives. They take microbatches as they come free: integers add up to the same
// whoever computed what. Between computations they help with work on vectors.
//
// Beside each a second goroutine reads the microbatch that comes next, where that
// takes long enough: of this step, or the one that the worker is likely to begin the
// next step with, while the sums go around the ring.
type pool struct {
	engine *Engine
	errand []chan *batchJob // by worker; nil is a call for help
	view   []atomic.Int64   // by worker, the microbatch that it computes next, unless another has none left; or none
	wg     sync.WaitGroup
	crew   crew
	ahead  *Ahead // which they help, too; nil for none
}

// none is no microbatch.
const none = -1

// batchJob is one contribution in the making.
type batchJob struct {
	ctx     context.Context
	attempt *Attempt
	params  []float32
	lo, hi  int64
	next    atomic.Int64 // microbatch that nobody has in view
	besides []int        // microbatches that are computed for their digests alone
	probed  atomic.Int32 // how many of them somebody has begun
	left    atomic.Int32 // workers at it
	mu      sync.Mutex
	err     error
	broken  atomic.Bool // there is an err
	done    func(Contribution, error)
}

func newPool(e *Engine) *pool {
	p := &pool{engine: e, view: make([]atomic.Int64, len(e.Workers())), crew: crew{idle: make(chan struct{}, 1)}}
	for i, w := range e.Workers() {
		c := make(chan *batchJob, 1)
		p.errand = append(p.errand, c)
		w.reader = newReader(e.task)
		w.reader.ahead.beats = &w.beats
		p.wg.Add(2)
		go func() {
			defer p.wg.Done()
			w.reader.run()
		}()
		go func() {
			defer p.wg.Done()
			defer w.reader.close()
			for j := range c {
				if j == nil {
					p.crew.help()
					p.ahead.Help()
				} else {
					p.work(i, w, j)
				}
			}
		}()
	}
	return p
}

// newHelpers makes a pool without workers, which does nothing but share out work on
// vectors: among its caller and so many threads but one.
func newHelpers(threads int) *pool {
	p := &pool{crew: crew{idle: make(chan struct{}, 1)}}
	for range threads {
		c := make(chan *batchJob, 1)
		p.errand = append(p.errand, c)
		p.wg.Go(func() {
			for range c {
				p.crew.help()
				p.ahead.Help()
			}
		})
	}
	return p
}

// compute starts a contribution; ready is that of Engine.Begin, and done is called
// once, by the worker that finishes last. The one before must be done.
func (p *pool) compute(ctx context.Context, a *Attempt, r shard.Range, params []float32, ready func(lo, hi int), done func(Contribution, error)) {
	j, workers := p.begin(ctx, a, r, params, ready, done)
	for _, c := range p.errand[:workers] {
		c <- j
	}
}

// wait computes a contribution; the caller is one of the workers.
func (p *pool) wait(ctx context.Context, a *Attempt, r shard.Range, params []float32) (c Contribution, err error) {
	done := make(chan struct{}, 1)
	j, workers := p.begin(ctx, a, r, params, nil, func(got Contribution, failed error) {
		c, err = got, failed
		done <- struct{}{}
	})
	for _, c := range p.errand[1:workers] {
		c <- j
	}
	p.work(0, p.engine.Workers()[0], j)
	<-done
	return c, err
}

// begin makes a job of a contribution and says how many workers there is work for.
// Each begins with a microbatch of its own, so that it is known before.
func (p *pool) begin(ctx context.Context, a *Attempt, r shard.Range, params []float32, ready func(lo, hi int), done func(Contribution, error)) (j *batchJob, workers int) {
	p.engine.Begin(a, r.Len(), ready)
	j = &batchJob{ctx: ctx, attempt: a, params: params, lo: int64(r.Lo), hi: int64(r.Hi), done: done}
	j.besides = a.besides(r)
	workers = max(1, min(len(p.errand), r.Len()+len(j.besides)))
	for i := range p.view {
		p.view[i].Store(none)
		if first := j.lo + int64(i); i < workers && first < j.hi {
			p.view[i].Store(first)
		}
	}
	j.next.Store(j.lo + int64(workers))
	j.left.Store(int32(workers))
	return j, workers
}

func (p *pool) work(i int, w *Worker, j *batchJob) {
	w.ctx = j.ctx
	letOthersRun()
	for mb := p.take(i, j); mb != none && !j.broken.Load(); mb = p.take(i, j) {
		err := w.take(place{j.attempt.Kind, j.attempt.Step, int(mb)})
		if err == nil && w.reader.pays() {
			w.reader.order(p.next(i, j))
		}
		if err == nil {
			err = w.compute(j.attempt, j.params)
		}
		if err != nil {
			j.fail(err)
			break
		}
	}
	for i := int(j.probed.Add(1)) - 1; i < len(j.besides) && !j.broken.Load(); i = int(j.probed.Add(1)) - 1 {
		if err := w.Probe(j.ctx, j.attempt, j.besides[i], j.params); err != nil {
			j.fail(err)
		}
	}
	if j.left.Add(-1) > 0 {
		return
	}
	if j.err != nil {
		j.done(Contribution{}, j.err)
		return
	}
	j.done(p.engine.Collect(j.attempt), nil)
}

// letOthersRun lets goroutines that can run do so before one computes that would keep a
// processor of its own for ten milliseconds: above all those that bring the last words of
// a step to peers, which would begin the next one that much later. One may wake another.
func letOthersRun() {
	for range 4 {
		runtime.Gosched()
	}
}

// take returns the microbatch that worker i computes now: the one it has in view,
// else a fresh one, else one that another has in view and has not come to.
func (p *pool) take(i int, j *batchJob) int64 {
	if mb := p.view[i].Swap(none); mb != none {
		return mb
	}
	if mb := j.fresh(); mb != none {
		return mb
	}
	for k := range p.view {
		if mb := p.view[k].Swap(none); mb != none {
			return mb
		}
	}
	return none
}

// fresh returns a microbatch that nobody has in view.
func (j *batchJob) fresh() int64 {
	if mb := j.next.Add(1) - 1; mb < j.hi {
		return mb
	}
	return none
}

// next puts a microbatch in worker i's view, and says what to read ahead: that, or
// the one that the worker begins the next update with if nothing changes.
func (p *pool) next(i int, j *batchJob) place {
	a, t := j.attempt, p.engine.task
	if mb := j.fresh(); mb != none {
		p.view[i].Store(mb)
		return place{a.Kind, a.Step, int(mb)}
	}
	first := int(j.lo) + i
	if a.Kind != Update || a.Step+1 >= t.TotalSteps() || first >= t.Plan.Microbatches(a.Step+1) {
		return place{}
	}
	return place{Update, a.Step + 1, first}
}

func (j *batchJob) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
	}
	j.broken.Store(true)
}

// leastShared is how many pieces are worth calling others for.
const leastShared = 8

// each implements Each: the caller works, and all workers but one are asked to
// help. It waits for pieces that were begun, never for a helper to wake up, which
// may take longer than all of the work. Where the pool is sharing out already, the
// caller works alone.
func (p *pool) each(n int, do func(i int)) {
	if n < leastShared || len(p.errand) == 1 || !p.crew.begin(n, do) {
		inTurn(n, do)
		return
	}
	p.call(p.errand[1:])
	p.crew.help()
	p.crew.end()
}

// call asks workers for help.
func (p *pool) call(workers []chan *batchJob) {
	for _, c := range workers {
		select {
		case c <- nil:
		default: // it has something to do
		}
	}
}

// lookAhead has the workers make updates ahead, when they have computed. It is called
// before there is anything to do.
func (p *pool) lookAhead(a *Ahead) {
	p.ahead = a
	a.Due = func() { p.call(p.errand) }
}

// close waits for the workers. Nothing may be computed after.
func (p *pool) close() {
	for _, c := range p.errand {
		close(c)
	}
	p.wg.Wait()
}

// crew is a number of pieces of work, and whoever comes to do some of them.
type crew struct {
	mu   sync.Mutex
	busy bool // between begin and end
	do   func(i int)
	next int           // piece to take
	n    int           // of all
	left int           // pieces that are not done
	idle chan struct{} // has room for one: told when nothing is left
}

// begin lays out the work, unless there is some.
func (c *crew) begin(n int, do func(i int)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return false
	}
	c.busy, c.do, c.next, c.n, c.left = true, do, 0, n, n
	return true
}

// end waits until all is done.
func (c *crew) end() {
	<-c.idle
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy, c.do = false, nil
}

// help does pieces until there are none to take.
func (c *crew) help() {
	for {
		i, do := c.take()
		if do == nil {
			return
		}
		do(i)
		if c.done() {
			c.idle <- struct{}{}
		}
	}
}

func (c *crew) take() (i int, do func(i int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == c.n {
		return 0, nil
	}
	c.next++
	return c.next - 1, c.do
}

// done tells whether that was the last one.
func (c *crew) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left--
	return c.left == 0
}
