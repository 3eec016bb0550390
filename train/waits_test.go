package train

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/dataset"
)

// What a system hangs in can't be interrupted. These tests let go of it at their end, so that nothing is left.

// deadData is a data set that gives some samples, and then none, until it may.
type deadData struct {
	dataset.Dataset
	left  atomic.Int64
	dies  chan struct{} // closed when somebody waits
	alive chan struct{}
	once  sync.Once
}

// dying has a task's data die after some reads.
func dying(task *Task, reads int64) *deadData {
	d := &deadData{Dataset: task.Train, dies: make(chan struct{}), alive: make(chan struct{})}
	d.left.Store(reads)
	task.Train = d
	return d
}

func (d *deadData) Read(i int, x, y []float32) (uint64, error) {
	if d.left.Add(-1) < 0 {
		d.once.Do(func() { close(d.dies) })
		<-d.alive
	}
	return d.Dataset.Read(i, x, y)
}

// died waits until somebody waits for the data.
func (d *deadData) died(t *testing.T) {
	t.Helper()
	select {
	case <-d.dies:
	case <-time.After(stallMost + busy):
		t.Fatal("nobody waits for the data that give nothing")
	}
}

// deadDisk takes no file of a checkpoint, until it may.
type deadDisk struct {
	checkpoint.FS
	alive chan struct{}
}

func (d *deadDisk) Create(path string) (checkpoint.File, error) {
	<-d.alive
	return d.FS.Create(path)
}

// ends waits for a node of a fleet.
func (f *fleet) ends(t *testing.T, name string, limit time.Duration) outcome {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		o, over := f.out[name]
		f.mu.Unlock()
		if over {
			return o
		}
		if time.Since(begun) > limit {
			t.Fatalf("%s has not ended within %s", name, limit)
		}
	}
}

const busy = 10 * time.Second // what everything may take longer on a machine that has other things to do

// waits skips, in the short form, a test that waits for what hangs to be given up.
func waits(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("waits until what hangs is given up")
	}
}

// A node whose data hang is named by the others, who go on without it; it ends, and says why.
func TestAReadThatNeverReturnsHoldsNobody(t *testing.T) {
	waits(t)
	t.Parallel()
	task, sick := simTask(t), simTask(t)
	want := fitted(t, task)
	data := dying(sick, 100) // some steps, so that all know how long one takes
	f := newFleet(t, task)
	defer f.wg.Wait()
	defer close(data.alive)
	start := func(name, seed string, of *Task) {
		c := f.config(name, seed, 3)
		c.Task, c.Even = of, true // who is slow reads as much as the others
		f.start(t.Context(), c)
	}
	start("a", "", task)
	seed := <-f.seed
	start("b", seed, task)
	start("c", seed, sick)
	data.died(t)
	for _, name := range []string{"a", "b"} {
		if o := f.ends(t, name, stallMost+stuckFloor+hangFor+busy); o.err != nil || o.StateSHA256 != want {
			t.Errorf("%s: %+v", name, o)
		}
	}
	waits := "it waits for samples of " + data.Info().Name
	if !f.heard("c lost at step") || !f.heard("it answers, but has done nothing for 10s: "+waits) {
		t.Errorf("nobody has named c, and what it waits for: %q", f.said)
	}
	if o := f.ends(t, "c", 2*hangFor+busy); o.err == nil || !strings.Contains(o.err.Error(), waits) {
		t.Errorf("c: %v", o.err)
	}
}

// A node that is to leave does so though its data hang, with an error that says where.
func TestALeaverWhoseDataHangGoes(t *testing.T) {
	waits(t)
	t.Parallel()
	task := simTask(t)
	data := dying(task, 0)
	f := newFleet(t, task)
	defer f.wg.Wait()
	defer close(data.alive)
	ctx, leave := context.WithCancel(t.Context())
	f.start(ctx, f.config("a", "", 0))
	<-f.seed
	data.died(t)
	leave()
	o := f.ends(t, "a", 3*hangFor+busy)
	if o.err == nil || !strings.Contains(o.err.Error(), "it waits for samples of "+data.Info().Name) {
		t.Errorf("%v", o.err)
	}
}

// A disk that takes no checkpoint holds up no training, and nobody's end for long.
func TestADiskThatTakesNothingHoldsNobody(t *testing.T) {
	waits(t)
	t.Parallel()
	task := simTask(t)
	want := fitted(t, task)
	disk := &deadDisk{checkpoint.OS(), make(chan struct{})}
	f := newFleet(t, task)
	defer f.wg.Wait()
	c := f.config("a", "", 2)
	c.fs = disk
	defer func() { // the writer that was left behind goes on, and cleans up
		close(disk.alive)
		for begun := time.Now(); time.Since(begun) < busy; time.Sleep(10 * time.Millisecond) {
			if left, _ := filepath.Glob(filepath.Join(c.Checkpoints, "*", ".tmp-*")); len(left) == 0 {
				return
			}
		}
		t.Error("a temporary directory stays")
	}()
	f.start(t.Context(), c)
	f.start(t.Context(), f.config("b", <-f.seed, 2))
	if o := f.ends(t, "b", busy); o.err != nil || o.StateSHA256 != want {
		t.Errorf("b: %+v", o)
	}
	o := f.ends(t, "a", saveFor+2*hangFor+busy)
	if !o.Finished || o.StateSHA256 != want || o.err == nil || !strings.Contains(o.err.Error(), "the disk has taken nothing for 30s") {
		t.Errorf("a: %v, %+v", o.err, o)
	}
}

// A journal on a disk that takes nothing, here a pipe that nobody reads, is given up.
func TestAJournalThatTakesNothingHoldsNobody(t *testing.T) {
	waits(t)
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, JournalName)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close() // wakes the writer up
	if _, err := pipe.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for range 2 * mostRecords {
		j.write(Record{T: "step"})
	}
	if err := j.flush(); err != errJournalStuck {
		t.Errorf("after %d records: %v", 2*mostRecords, err)
	}
	if took := time.Since(begun); took > busy {
		t.Errorf("writing took %v", took)
	}
	begun = time.Now()
	if err := j.close(); err == nil || time.Since(begun) > journalPatience+busy {
		t.Errorf("closed after %v: %v", time.Since(begun), err)
	}
	go func() {
		b := make([]byte, 1<<20)
		for n := 1; n > 0; n, _ = pipe.Read(b) {
		}
	}()
	<-j.gone
}

// Whoever started a node and does not listen holds up no training.
func TestAParentThatDoesNotListenHoldsNobody(t *testing.T) {
	t.Parallel()
	task := simTask(t)
	f := newFleet(t, task)
	f.start(t.Context(), f.config("a", "", 2))
	seed := <-f.seed
	listen := make(chan struct{})
	done := make(chan outcome, 1)
	c := f.config("b", seed, 2)
	c.Line = func(Line) { <-listen }
	go func() {
		r, err := Run(t.Context(), c)
		done <- outcome{r, err}
	}()
	if o := f.ends(t, "a", busy); o.err != nil || !o.Finished {
		t.Errorf("a: %+v", o)
	}
	close(listen)
	if o := <-done; o.err != nil || !o.Finished {
		t.Errorf("b: %+v", o)
	}
	f.wg.Wait()
}
