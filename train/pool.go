package train

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/dlnode/dlnode/shard"
)

// pool runs an engine's workers, one goroutine each, for as long as the node
// lives. They take microbatches as they come free: integers add up to the same
// whoever computed what.
type pool struct {
	engine *Engine
	jobs   []chan *batchJob
	wg     sync.WaitGroup
}

// batchJob is one contribution in the making.
type batchJob struct {
	ctx     context.Context
	attempt *Attempt
	params  []float32
	next    atomic.Int64 // microbatch to take
	hi      int64
	left    atomic.Int32 // workers at it
	mu      sync.Mutex
	err     error
	done    func(Contribution, error)
}

func newPool(e *Engine) *pool {
	p := &pool{engine: e}
	for _, w := range e.Workers() {
		c := make(chan *batchJob, 1)
		p.jobs = append(p.jobs, c)
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			for j := range c {
				p.work(w, j)
			}
		}()
	}
	return p
}

// compute starts a contribution; done is called once, by the worker that
// finishes last. The one before must be done.
func (p *pool) compute(ctx context.Context, a *Attempt, r shard.Range, params []float32, done func(Contribution, error)) {
	p.engine.Begin(a)
	j := &batchJob{ctx: ctx, attempt: a, params: params, hi: int64(r.Hi), done: done}
	j.next.Store(int64(r.Lo))
	workers := max(1, min(len(p.jobs), r.Len()))
	j.left.Store(int32(workers))
	for _, c := range p.jobs[:workers] {
		c <- j
	}
}

func (p *pool) work(w *Worker, j *batchJob) {
	for {
		mb := j.next.Add(1) - 1
		if mb >= j.hi {
			break
		}
		if err := w.Microbatch(j.ctx, j.attempt, int(mb), j.params); err != nil {
			j.fail(err)
			break
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

func (j *batchJob) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
	}
	j.next.Store(j.hi)
}

// close waits for the workers. Nothing may be computed after.
func (p *pool) close() {
	for _, c := range p.jobs {
		close(c)
	}
	p.wg.Wait()
}
