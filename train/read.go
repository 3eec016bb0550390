package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/shard"
)

// place names a microbatch: of a step's samples, or of the validation samples. The
// zero place is none.
type place struct {
	kind Kind
	step uint64
	mb   int
}

// samples is a microbatch in memory: read, changed as the job says, checked. What
// is in it is a function of its place alone.
type samples struct {
	task    *Task
	at      place    // what is in it
	batch   nn.Batch // windows of x, y, weights and ids
	idSum   uint64   // of shard.Mix(id)
	which   []int
	x, y    []float32 // [Plan.Micro, one sample's]
	weights []float32 // [Plan.Micro]; used where the samples have weights
	ids     []uint64
	raw     []float32       // one sample as the data set has it; nil where it stays so
	stop    atomic.Bool     // nobody needs what is being read
	beats   *atomic.Uint64  // counts samples that have been read; nil if nobody looks
	ctx     context.Context // ends a sample's way from elsewhere; nil never
}

func newSamples(t *Task) *samples {
	info, micro := t.Train.Info(), t.Plan.Micro
	s := &samples{
		task: t, which: make([]int, 0, micro), ids: make([]uint64, micro), weights: make([]float32, micro),
		x: make([]float32, micro*info.InputLen()), y: make([]float32, micro*info.Target),
	}
	if t.augment != nil {
		s.raw = make([]float32, info.InputLen())
	}
	return s
}

// bytes returns the memory that the samples take, for the most part.
func (s *samples) bytes() int64 { return int64(4 * (len(s.x) + len(s.y) + len(s.raw))) }

// errStopped ends a reading that nobody waits for.
var errStopped = errors.New("train: the samples are not needed any more")

// read fills s with the microbatch at a place, from the data set.
func (s *samples) read(at place) error {
	s.at = place{}
	var data dataset.Dataset
	data, s.which = s.task.choose(at, s.which)
	dataset.Prefetch(data, s.which)
	info, n := data.Info(), len(s.which)
	nx, ny := info.InputLen(), info.Target
	s.batch = nn.Batch{N: n, X: s.x[:n*nx], Y: s.y[:n*ny], IDs: s.ids[:n]}
	s.idSum = 0
	weights := dataset.Weights(data)
	if weights != nil {
		s.batch.W = s.weights[:n]
	}
	for j, i := range s.which {
		if s.stop.Load() {
			return errStopped
		}
		if weights != nil {
			s.batch.W[j] = weights.Weight(i)
		}
		id, err := s.sample(data, i, at, s.batch.X[j*nx:(j+1)*nx], s.batch.Y[j*ny:(j+1)*ny])
		if err != nil {
			return fmt.Errorf("data set %s: sample %d: %w", info.Name, i, err)
		}
		s.batch.IDs[j] = id
		s.idSum += shard.Mix(id)
		if s.beats != nil {
			s.beats.Add(1)
		}
	}
	s.at = at
	return nil
}

// sample reads sample i into x and y, changed if it is trained on.
func (s *samples) sample(data dataset.Dataset, i int, at place, x, y []float32) (id uint64, err error) {
	t, changed := s.task, s.task.augment != nil && at.kind == Update
	as := x // the data set has it
	if changed {
		as = s.raw
	}
	if id, err = dataset.ReadContext(cmp.Or(s.ctx, context.Background()), data, i, as, y); err != nil {
		return 0, err
	}
	if err := t.Model.CheckInput(as); err != nil {
		return 0, err
	}
	if err := t.Model.CheckTarget(y); err != nil {
		return 0, err
	}
	if changed {
		t.augment.Image(x, as, augment.Key{Seed: t.Job.Seed, Epoch: at.step / t.StepsPerEpoch(), ID: id})
	}
	return id, nil
}

// choose lists the samples of a microbatch in the memory of list, and says of which
// data set they are.
func (t *Task) choose(at place, list []int) (dataset.Dataset, []int) {
	if at.kind == Update {
		return t.Train, t.Plan.Samples(at.step, at.mb, list)
	}
	lo, hi := t.EvalPlan.Range(at.mb)
	list = list[:0]
	for i := lo; i < hi; i++ {
		list = append(list, i)
	}
	return t.Validation, list
}

// reader reads one microbatch ahead of a worker, in a goroutine of its own. Its
// methods but run are the worker's. It guesses and never decides: what it reads is
// looked at by its place, and what it could not read is read again by who needs it.
type reader struct {
	ahead   *samples // read, or being read
	reading place    // the zero place while nothing is
	orders  chan place
	read    chan struct{}   // an order is done
	ctx     context.Context // of orders
	cancel  context.CancelFunc
	cost    time.Duration // of the last reading, ahead or not
	spent   atomic.Int64  // on all of them, as a time.Duration
	least   time.Duration // from which cost on reading ahead pays
}

// worthwhile is the cost of a reading from which on it is left to the reader. To
// wake it up, and to have the samples in another core's cache, costs some tens of
// microseconds: more than a few images in memory do.
const worthwhile = 200 * time.Microsecond

func newReader(t *Task) *reader {
	r := &reader{ahead: newSamples(t), orders: make(chan place, 1), read: make(chan struct{}, 1), least: worthwhile}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// run carries out orders until close.
func (r *reader) run() {
	for at := range r.orders {
		r.ahead.ctx = r.ctx
		_ = r.timed(r.ahead, at) // ahead.at says so; who needs the samples meets the error again
		r.read <- struct{}{}
	}
}

// timed reads into s, and keeps account of the time.
func (r *reader) timed(s *samples, at place) error {
	begun := time.Now()
	err := s.read(at)
	r.cost = time.Since(begun)
	r.spent.Add(int64(r.cost))
	return err
}

// order has the microbatch at a place read, unless it is none, or there already.
func (r *reader) order(at place) {
	if at == (place{}) || r.has(at) {
		return
	}
	r.reading = at
	r.orders <- at
}

// pays tells whether reading ahead is worth its while. Nothing is being read.
func (r *reader) pays() bool { return r.cost >= r.least }

// has tells whether ahead is the microbatch at a place, when nothing is being read:
// it waits for a reading of that place, and ends one of another.
func (r *reader) has(at place) bool { return r.await(nil, at) }

// await is has, but ends the reading of that place too when ended is closed.
func (r *reader) await(ended <-chan struct{}, at place) bool {
	if r.reading == (place{}) {
		return r.ahead.at == at
	}
	done := false
	if r.reading == at {
		select {
		case <-r.read:
			done = true
		case <-ended:
		}
	}
	if !done {
		r.ahead.stop.Store(true)
		r.cancel()
		<-r.read
		r.ahead.stop.Store(false)
		r.ctx, r.cancel = context.WithCancel(context.Background())
	}
	r.reading = place{}
	return r.ahead.at == at
}

// close ends run, as soon as the sample in hand is read, or does not come at once.
func (r *reader) close() {
	r.ahead.stop.Store(true)
	r.cancel()
	close(r.orders)
}
