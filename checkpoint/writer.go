package checkpoint

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// WriterConfig says what a Writer does.
type WriterConfig struct {
	Store *Store
	Keep  int // as in Policy; 0 keeps all

	// Done is called after each snapshot that Submit took and did not give
	// back, in order, from the writer's goroutine. It should be quick, and must
	// not call Close.
	Done func(Result)
}

// Result is what became of a snapshot.
type Result struct {
	Snapshot *Snapshot // the caller's again, to be reused
	Saved    Saved     // zero if Err is set
	Err      error     // why it was not saved
	Took     time.Duration

	Pruned   []string // older checkpoints removed after it
	PruneErr error    // why that, or the sweep at the start, did not succeed
}

// Writer saves snapshots one after another while its caller goes on. At most one
// waits: should states come faster than the disk takes them, the newest wins.
//
//	Submit ──► pending (0 or 1) ──► Save, Prune ──► Done
//	   │            │
//	   ◄── replaced ┘
type Writer struct {
	cfg  WriterConfig
	gone chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	wake    sync.Cond // pending or closed has changed
	pending *Snapshot
	writing *Snapshot
	closed  bool
	giveUp  error // why what is pending is not to be written
}

// NewWriter starts a writer; Close ends it.
func NewWriter(cfg WriterConfig) *Writer {
	if cfg.Store == nil || cfg.Done == nil {
		panic("checkpoint: a writer needs a store and somebody to tell")
	}
	w := &Writer{cfg: cfg, gone: make(chan struct{})}
	w.wake.L = &w.mu
	go w.run()
	return w
}

// Submit hands over a snapshot and returns at once; nothing is copied. From here
// on it belongs to the writer until it comes back, by Done or as a result of
// this function: the one that was waiting and will not be written because this
// one is newer, or the given one itself if the writer is closed.
func (w *Writer) Submit(s *Snapshot) (replaced *Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return s
	}
	replaced, w.pending = w.pending, s
	w.wake.Signal()
	return replaced
}

// Close takes no more snapshots, waits until those taken are written and told,
// and returns when the goroutine is gone. Should ctx end first, a snapshot that
// waits is told to be given up, and the error says what is not finished. A disk
// that hangs can't be interrupted: the goroutine then ends, after telling, when
// the disk comes back. Close may be called again, to wait on.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.wake.Signal()
	w.mu.Unlock()
	select {
	case <-w.gone:
		return nil
	case <-ctx.Done():
		return w.interrupt(ctx.Err())
	}
}

// interrupt gives up what is pending, and tells what Close did not wait for.
func (w *Writer) interrupt(cause error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.giveUp = cause
	err := fmt.Errorf("checkpoint: close: %w", cause)
	if w.pending != nil {
		err = fmt.Errorf("%w; transition %d is not written", err, w.pending.Transition)
	}
	if w.writing != nil {
		err = fmt.Errorf("%w; transition %d is still being written", err, w.writing.Transition)
	}
	return err
}

// run is the writer's goroutine. What dead writers left is removed before the
// first snapshot needs its room.
func (w *Writer) run() {
	defer close(w.gone)
	swept := w.cfg.Store.Sweep()
	for {
		s, giveUp := w.next()
		if s == nil {
			return
		}
		r := Result{Snapshot: s, Err: giveUp}
		if giveUp == nil {
			r = w.write(s)
		}
		if r.PruneErr == nil {
			r.PruneErr = swept
		}
		swept = nil
		w.cfg.Done(r)
	}
}

// next waits for a snapshot, nil when there will be no more, and tells why it is
// not to be written if it isn't.
func (w *Writer) next() (s *Snapshot, giveUp error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = nil
	for w.pending == nil && !w.closed {
		w.wake.Wait()
	}
	w.writing, w.pending = w.pending, nil
	return w.writing, w.giveUp
}

func (w *Writer) write(s *Snapshot) Result {
	start := time.Now()
	r := WriteOne(w.cfg.Store, w.cfg.Keep, s)
	r.Took = time.Since(start)
	return r
}

// WriteOne saves a snapshot and removes what is older than the keep newest, as a
// Writer does, but in the calling goroutine and without a clock: Took is zero.
func WriteOne(store *Store, keep int, s *Snapshot) Result {
	r := Result{Snapshot: s}
	r.Saved, r.Err = store.Save(s)
	if r.Err == nil {
		r.Pruned, r.PruneErr = store.Prune(s.Trajectory, s.Transition, keep)
	}
	return r
}
