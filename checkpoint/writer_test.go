package checkpoint_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/checkpoint/memfs"
)

func TestMain(m *testing.M) {
	helperProcess()
	goleak.VerifyTestMain(m)
}

// told collects what a writer tells. It is read after Close or in a bubble at
// rest, so it needs no lock of its own.
type told []checkpoint.Result

func (r *told) done(x checkpoint.Result) { *r = append(*r, x) }

func (r *told) transitions() (ts []uint64) {
	for _, x := range *r {
		ts = append(ts, x.Snapshot.Transition)
	}
	return ts
}

// slowDisk stops every process p at its first write until it is let go on.
func slowDisk(p *memfs.Process) (goOn chan struct{}) {
	goOn = make(chan struct{})
	p.Before = func(op memfs.Op) error {
		if op.Name == "create" && strings.HasSuffix(op.Path, "job.json") {
			<-goOn
		}
		return nil
	}
	return goOn
}

func TestTrainingNeverWaitsAndTheNewestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memfs.NewDisk()
		p := d.Process()
		goOn := slowDisk(p)
		var results told
		w := checkpoint.NewWriter(checkpoint.WriterConfig{Store: open(t, p), Keep: 2, Done: results.done})
		one, two, three := snapshot(1), snapshot(2), snapshot(3)
		if back := w.Submit(one); back != nil {
			t.Errorf("got %d back", back.Transition)
		}
		synctest.Wait() // the writer has 1 and stands
		if back := w.Submit(two); back != nil {
			t.Errorf("got %d back", back.Transition)
		}
		if back := w.Submit(three); back != two {
			t.Errorf("got %v back, want transition 2", back)
		}
		time.Sleep(3 * time.Second)
		close(goOn)
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := results.transitions(); !slices.Equal(got, []uint64{1, 3}) {
			t.Fatalf("told of %v", got)
		}
		if results[0].Snapshot != one || results[0].Took != 3*time.Second || results[0].Err != nil || results[0].Saved.Path != pathOf(one) {
			t.Errorf("%+v", results[0])
		}
		if back := w.Submit(one); back != one {
			t.Error("a closed writer took a snapshot")
		}
		if err := w.Close(t.Context()); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}

func TestTheWriterPrunes(t *testing.T) {
	d := memfs.NewDisk()
	var results told
	s := open(t, d.Process())
	for transition := range uint64(4) {
		w := checkpoint.NewWriter(checkpoint.WriterConfig{Store: s, Keep: 2, Done: results.done})
		w.Submit(snapshot(transition + 1))
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := transitionsOn(t, d); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("there are %v", got)
	}
	if got := results[3].Pruned; !slices.Equal(got, []string{pathOf(snapshot(2))}) {
		t.Errorf("the last pruned %v", got)
	}
}

func TestTheWriterSweepsWhatTheDeadLeft(t *testing.T) {
	d := diskWith(t, 1)
	p := d.Process()
	p.Before = func(op memfs.Op) error {
		if op.Name == "rename" {
			return memfs.ErrKilled
		}
		return nil
	}
	if _, err := open(t, p).Save(snapshot(2)); err == nil || len(leftovers(d)) != 1 {
		t.Fatalf("error %v, left over %v", err, leftovers(d))
	}
	w := checkpoint.NewWriter(checkpoint.WriterConfig{Store: open(t, d.Process()), Done: func(checkpoint.Result) {}})
	if err := w.Close(t.Context()); err != nil || len(leftovers(d)) > 0 {
		t.Errorf("error %v, left over %v", err, leftovers(d))
	}
}

func TestWhatTheDiskRefusesIsToldAndTheNextOneTried(t *testing.T) {
	d := diskWith(t, 1)
	var results told
	w := checkpoint.NewWriter(checkpoint.WriterConfig{Store: open(t, d.Process()), Done: func(r checkpoint.Result) {
		results.done(r)
		d.SetCapacity(0)
	}})
	d.SetCapacity(d.Used() + 100)
	w.Submit(snapshot(2))
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 || !errors.Is(results[0].Err, syscall.ENOSPC) || results[0].Saved != (checkpoint.Saved{}) {
		t.Errorf("%+v", results)
	}
	if got, _ := latest(t, d); got != 1 || len(leftovers(d)) > 0 {
		t.Errorf("the latest is %d, left over %v", got, leftovers(d))
	}
}

func TestClosingInAHurryGivesUpWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memfs.NewDisk()
		p := d.Process()
		goOn := slowDisk(p)
		var results told
		w := checkpoint.NewWriter(checkpoint.WriterConfig{Store: open(t, p), Done: results.done})
		w.Submit(snapshot(1))
		synctest.Wait()
		w.Submit(snapshot(2))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := w.Close(ctx)
		const want = "checkpoint: close: context deadline exceeded; transition 2 is not written; transition 1 is still being written"
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != want {
			t.Errorf("error is %v", err)
		}
		close(goOn)
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := results.transitions(); !slices.Equal(got, []uint64{1, 2}) || results[0].Err != nil || !errors.Is(results[1].Err, context.DeadlineExceeded) {
			t.Errorf("told of %+v", results)
		}
		if got, _ := latest(t, d); got != 1 {
			t.Errorf("the latest is %d", got)
		}
	})
}
