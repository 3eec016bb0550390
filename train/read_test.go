package train

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/shard"
)

const pictures = `name: pictures
data: {synthetic: {samples: 60, test_samples: 10, features: 60, classes: 3, shape: [5, 4, 3]}}
model: [flatten, dense: {units: 3, activation: softmax}]
loss: sparse_categorical_crossentropy
batch: {global: 20, microbatch: 5}
epochs: 3
validation: {split: 0.2}
`

// watched is a data set that counts what is read, and may fail or wait.
type watched struct {
	dataset.Dataset
	mu     sync.Mutex
	told   []int // of what is read soon
	reads  atomic.Int64
	broken atomic.Bool
	gate   chan struct{} // each read comes to it, unless it is nil,
	open   chan struct{} // and goes on when it may
}

func (w *watched) Read(i int, x, y []float32) (uint64, error) {
	w.reads.Add(1)
	if w.gate != nil {
		w.gate <- struct{}{}
		<-w.open
	}
	if w.broken.Load() {
		return 0, errors.New("bad sector")
	}
	return w.Dataset.Read(i, x, y)
}

func (w *watched) Prefetch(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, i)
}

// A data set is told of a microbatch before the first of its samples is read.
func TestAMicrobatchIsToldBeforeItIsRead(t *testing.T) {
	task, data := picturesTask(t, "")
	at := place{Update, 1, 2}
	data.broken.Store(true) // the first read is the last
	if err := newSamples(task).read(at); err == nil {
		t.Fatal("no error")
	}
	if want := task.Plan.Samples(at.step, at.mb, nil); !slices.Equal(data.told, want) {
		t.Errorf("told of %v, want %v", data.told, want)
	}
}

// picturesTask makes the task of a job on pictures, and the data set that it trains
// on.
func picturesTask(t *testing.T, more string) (*Task, *watched) {
	t.Helper()
	j, err := job.Parse("pictures.yaml", []byte(pictures+more))
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := OpenData(context.Background(), j, dataset.Env{})
	if err != nil {
		t.Fatal(err)
	}
	task, err := NewTask(j, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Dataset: task.Train}
	task.Train = w
	return task, w
}

// started returns a reader at work, which the test's end closes and waits for.
func started(t *testing.T, task *Task) *reader {
	r, ended := newReader(task), make(chan struct{})
	go func() {
		defer close(ended)
		r.run()
	}()
	t.Cleanup(func() {
		r.close()
		<-ended
	})
	return r
}

func TestWhatIsReadAheadIsReadOnce(t *testing.T) {
	task, data := picturesTask(t, "")
	w := NewEngine(task, 1).Workers()[0]
	w.reader = started(t, task)
	one, two := place{Update, 1, 2}, place{Update, 1, 3}
	w.reader.order(one)
	w.reader.order(one)
	if err := w.take(one); err != nil || w.hand.at != one {
		t.Fatalf("in hand is %v: %v", w.hand.at, err)
	}
	if n := data.reads.Load(); n != 5 {
		t.Errorf("%d samples are read for a microbatch of 5", n)
	}
	w.reader.order(two)
	other := place{Evaluate, 2, 0}
	if err := w.take(other); err != nil || w.hand.at != other { // not what was guessed
		t.Fatalf("in hand is %v: %v", w.hand.at, err)
	}
	alone := newSamples(task)
	if err := alone.read(other); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(alone.batch.X, w.hand.batch.X) || alone.idSum != w.hand.idSum {
		t.Error("read after a wrong guess, the samples are others")
	}
}

// Nobody fails for what was read on a guess; who needs it learns of the failure, or
// of none if it was a passing one.
func TestAFailureAheadIsMetByWhoNeedsTheSamples(t *testing.T) {
	task, data := picturesTask(t, "")
	w := NewEngine(task, 1).Workers()[0]
	w.reader = started(t, task)
	at := place{Update, 0, 0}
	data.broken.Store(true)
	w.reader.order(at)
	if err := w.take(at); err == nil || !strings.Contains(err.Error(), "bad sector") {
		t.Errorf("the error is %v", err)
	}
	w.reader.order(at)
	w.reader.has(at) // it has failed by now
	data.broken.Store(false)
	if err := w.take(at); err != nil {
		t.Errorf("an error that has passed is told: %v", err)
	}
}

// One microbatch is read ahead and no more, and one that nobody needs is left at the
// next sample.
func TestReadingAheadIsBoundedAndStops(t *testing.T) {
	task, data := picturesTask(t, "")
	data.gate, data.open = make(chan struct{}), make(chan struct{})
	r := started(t, task)
	r.order(place{Update, 0, 0})
	<-data.gate
	data.open <- struct{}{}
	<-data.gate // the second sample is being read
	r.ahead.stop.Store(true)
	data.open <- struct{}{}
	if r.has(place{Update, 0, 1}) {
		t.Error("it has what it was not asked for")
	}
	if n := data.reads.Load(); n != 2 {
		t.Errorf("%d samples are read, want 2", n)
	}
}

// Workers take each microbatch once, those that another has in view included.
func TestEveryMicrobatchIsTakenOnce(t *testing.T) {
	task, _ := picturesTask(t, "")
	p := newPool(NewEngine(task, 3))
	defer p.close()
	a := task.attempt(task.Start())
	for _, r := range []shard.Range{{Lo: 0, Hi: 0}, {Lo: 1, Hi: 2}, {Lo: 0, Hi: 3}, {Lo: 0, Hi: 4}, {Lo: 2, Hi: 9}} {
		j, workers := p.begin(context.Background(), a, r, nil, nil, nil)
		var got []int64
		for i := 0; ; i = (i + 1) % workers { // each looks one ahead, and the last steals what is left
			mb := p.take(i, j)
			if mb == none {
				break
			}
			got = append(got, mb)
			p.next(i, j)
		}
		slices.Sort(got)
		var want []int64
		for mb := r.Lo; mb < r.Hi; mb++ {
			want = append(want, int64(mb))
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %v are taken %v", r, got)
		}
	}
}

// Whether and how much is read ahead is in no bit.
func TestReadingAheadChangesNothing(t *testing.T) {
	task, data := picturesTask(t, "augment: {rotation_range: 90}\n")
	var states [][32]byte
	for _, threads := range []int{1, 2, 3} {
		for _, least := range []time.Duration{0, time.Hour} {
			f := newFitter(context.Background(), task, threads, nil)
			for _, w := range f.pool.engine.Workers() {
				w.reader.least = least
			}
			fit, err := f.run()
			f.pool.close()
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, fit.State)
		}
	}
	if same := slices.Compact(states); len(same) != 1 {
		t.Errorf("the states are %x", same)
	}
	if data.reads.Load() == 0 {
		t.Error("nothing was read")
	}
}

// slow is a data set whose every read takes a millisecond of a clock that stands
// still otherwise.
type slow struct {
	dataset.Dataset
	clock *atomic.Int64
}

func (s slow) Read(i int, x, y []float32) (uint64, error) {
	s.clock.Add(int64(time.Millisecond))
	return s.Dataset.Read(i, x, y)
}

// What a step tells of waiting is the workers' time for that step's samples, and
// nobody else's: not that of an evaluation, and not a reader's.
func TestWaitingIsTheWorkersTimeForSamples(t *testing.T) {
	task, _ := picturesTask(t, "")
	var clock atomic.Int64
	task.Train, task.Validation = slow{task.Train, &clock}, slow{task.Validation, &clock}
	f := newFitter(context.Background(), task, 1, nil)
	defer f.pool.close()
	f.pool.engine.Clock(func() time.Duration { return time.Duration(clock.Load()) })
	w := f.pool.engine.Workers()[0]
	w.reader.least = time.Hour // nobody reads ahead
	fit, err := f.run()
	if err != nil {
		t.Fatal(err)
	}
	var trained uint64 // steps that were repeated read their samples again
	for _, e := range fit.History {
		trained += e.Samples
	}
	p, again := f.node.Phases(), f.node.State().Repeats
	if p.Input.Waited != time.Duration(trained)*time.Millisecond {
		t.Errorf("waited %v for %d samples of 1ms, %d attempts repeated", p.Input.Waited, trained, again)
	}
	if p.Input.Read <= 0 {
		t.Error("reading took no time")
	}

	// The same samples, there when the worker comes for them.
	at := place{Update, 0, 1}
	w.reader.order(at)
	w.reader.has(at)
	f.pool.engine.Begin(task.attempt(task.Start()), 1, nil)
	if err := w.take(at); err != nil {
		t.Fatal(err)
	}
	if in := f.pool.engine.Collect(task.attempt(task.Start())).Input; in.Waited != 0 || in.Read <= 0 {
		t.Errorf("for what was read ahead: waited %v, read for %v", in.Waited, in.Read)
	}
}

// Training samples look another way each epoch, validation samples never.
func TestTrainingSamplesAloneAreAugmented(t *testing.T) {
	plain, _ := picturesTask(t, "")
	task, _ := picturesTask(t, "augment: {rotation_range: 90, width_shift_range: 0.3}\n")
	if plain.Trajectory == task.Trajectory {
		t.Error("augmentation changes no trajectory")
	}
	read := func(task *Task, at place) *samples {
		s := newSamples(task)
		if err := s.read(at); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := place{Update, 0, 0}
	if a, b := read(plain, first), read(task, first); slices.Equal(a.batch.X, b.batch.X) || !slices.Equal(a.batch.IDs, b.batch.IDs) {
		t.Error("the training samples are shown as they are, or are others")
	}
	if !slices.Equal(read(task, first).batch.X, read(task, first).batch.X) {
		t.Error("read twice, a sample of one epoch looks another way")
	}
	held := place{Evaluate, 3, 1}
	if !slices.Equal(read(plain, held).batch.X, read(task, held).batch.X) {
		t.Error("validation samples are augmented")
	}
	seen := map[string]int{} // of sample 7, by epoch
	for step := range task.TotalSteps() {
		for mb := range task.Plan.Microbatches(step) {
			s := read(task, place{Update, step, mb})
			if i := slices.Index(s.batch.IDs, 7); i >= 0 {
				seen[fmt.Sprint(s.batch.X[i*60:(i+1)*60])]++
			}
		}
	}
	if len(seen) != task.Job.Epochs {
		t.Errorf("in %d epochs a sample looks %d ways", task.Job.Epochs, len(seen))
	}
}

func TestWhatIsNoImageIsNotAugmented(t *testing.T) {
	text := strings.Replace(pictures, ", shape: [5, 4, 3]", "", 1) + "augment: {horizontal_flip: true}\n"
	j, err := job.Parse("pictures.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	data, _, err := OpenData(context.Background(), j, dataset.Env{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = NewTask(j, data, nil); err == nil || !strings.HasPrefix(err.Error(), "pictures.yaml:8: augment: ") {
		t.Errorf("the error is %v", err)
	}
}
