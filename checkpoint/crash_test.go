package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/checkpoint/memfs"
)

// opsOf counts the operations of saving transition 2 where 1 is.
func opsOf(t rapid.TB) int {
	t.Helper()
	p := diskWith(t, 1).Process()
	save(t, open(t, p), snapshot(2))
	return p.Ops()
}

// dieAt kills a process at its nth operation.
func dieAt(n int) func(memfs.Op) error {
	return func(op memfs.Op) error {
		if op.N == n {
			return memfs.ErrKilled
		}
		return nil
	}
}

// afterCrash checks what must hold whatever happened: the old or the new state
// can be read, the new one can be written, and nothing else is left.
func afterCrash(t rapid.TB, d *memfs.Disk, where string, acknowledged bool) {
	t.Helper()
	got, skipped := latest(t, d)
	if got != 1 && got != 2 || acknowledged && got != 2 || len(skipped) > 0 {
		t.Fatalf("%s: the latest is %d; passed over: %v", where, got, skipped)
	}
	s := open(t, d.Process())
	if err := s.Sweep(); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if left := leftovers(d); len(left) > 0 {
		t.Fatalf("%s: left over: %v", where, left)
	}
	save(t, s, snapshot(2))
	if got, skipped := latest(t, d); got != 2 || len(skipped) > 0 {
		t.Fatalf("%s: after saving again the latest is %d; passed over: %v", where, got, skipped)
	}
}

func TestAKilledWriterLeavesTheOldOrTheNew(t *testing.T) {
	for n := range opsOf(t) {
		d := diskWith(t, 1)
		p := d.Process()
		p.Before = dieAt(n)
		s, err := checkpoint.Open(p, dir)
		if err == nil {
			_, err = s.Save(snapshot(2))
		}
		if !errors.Is(err, memfs.ErrKilled) {
			t.Fatalf("operation %d: the error is %v", n, err)
		}
		afterCrash(t, d, fmt.Sprintf("killed at operation %d", n), false)
	}
}

func TestALossOfPowerAtAnyOperationLeavesTheOldOrTheNew(t *testing.T) {
	ops := opsOf(t)
	for n := range ops + 1 { // the last time it comes after all of them
		losePowerAt(t, n, nil)
		losePowerAt(t, n, func(n int) int { return n - 1 })
	}
	rapid.Check(t, func(r *rapid.T) {
		losePowerAt(r, rapid.IntRange(0, ops).Draw(r, "operation"), func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "luck") })
	})
}

func losePowerAt(t rapid.TB, n int, luck func(int) int) {
	t.Helper()
	d := diskWith(t, 1)
	p := d.Process()
	p.Before = dieAt(n)
	s, err := checkpoint.Open(p, dir)
	if err == nil {
		_, err = s.Save(snapshot(2))
	}
	d.PowerLoss(luck)
	afterCrash(t, d, fmt.Sprintf("power lost at operation %d", n), err == nil)
}

func TestTheFirstCheckpointIsDurableWithItsDirectories(t *testing.T) {
	d := diskWith(t, 1)
	d.PowerLoss(nil)
	if got, _ := latest(t, d); got != 1 {
		t.Errorf("the latest is %d", got)
	}
}

// Another process that finds the checkpoint there may not rely on whoever renamed
// it to have synced the directory.
func TestWhatIsKeptIsDurable(t *testing.T) {
	for n := range opsOf(t) {
		d := diskWith(t, 1)
		p := d.Process()
		p.Before = dieAt(n)
		if s, err := checkpoint.Open(p, dir); err == nil {
			_, _ = s.Save(snapshot(2)) // dies somewhere
		}
		save(t, open(t, d.Process()), snapshot(2))
		d.PowerLoss(nil)
		if got, _ := latest(t, d); got != 2 {
			t.Errorf("operation %d: the latest is %d", n, got)
		}
	}
}

// A first save that fails may leave directories whose entries are not durable.
// What the next one reports as saved must not hang on them.
func TestASaveAfterOneThatFailedIsDurable(t *testing.T) {
	ops := func() int {
		p := memfs.NewDisk().Process()
		save(t, open(t, p), snapshot(1))
		return p.Ops()
	}()
	for n := range ops {
		d := memfs.NewDisk()
		p := d.Process()
		p.Before = func(op memfs.Op) error {
			if op.N == n {
				return syscall.EIO
			}
			return nil
		}
		s, err := checkpoint.Open(p, dir)
		if err != nil {
			continue
		}
		if _, err := s.Save(snapshot(1)); err == nil {
			t.Fatalf("operation %d: no error", n)
		}
		save(t, s, snapshot(2))
		d.PowerLoss(nil)
		if got, _ := latest(t, d); got != 2 {
			t.Errorf("operation %d: the latest is %d", n, got)
		}
	}
}

func TestAnErrorAtAnyOperationLeavesNothingHalfWritten(t *testing.T) {
	for n := range opsOf(t) {
		d := diskWith(t, 1)
		p := d.Process()
		var failed memfs.Op
		p.Before = func(op memfs.Op) error {
			if op.N != n {
				return nil
			}
			failed = op
			return syscall.EIO
		}
		s, err := checkpoint.Open(p, dir)
		if err == nil {
			_, err = s.Save(snapshot(2))
		}
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), failed.Path) {
			t.Errorf("%s %s: the error is %v", failed.Name, failed.Path, err)
		}
		if left := leftovers(d); len(left) > 0 {
			t.Errorf("%s %s: left over: %v", failed.Name, failed.Path, left)
		}
		afterCrash(t, d, failed.Name, false)
	}
}

func TestAFullDiskIsToldAndLeavesNothing(t *testing.T) {
	d := diskWith(t, 1)
	before := d.Used()
	save(t, open(t, d.Process()), snapshot(2))
	needed := d.Used() - before
	for room := int64(0); room < needed; room += 7 {
		d := diskWith(t, 1)
		d.SetCapacity(before + room)
		_, err := open(t, d.Process()).Save(snapshot(2))
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), pathOf(snapshot(2))) || !strings.Contains(err.Error(), ".tmp-") {
			t.Fatalf("room for %d bytes: the error is %v", room, err)
		}
		if d.Used() != before || len(leftovers(d)) > 0 {
			t.Fatalf("room for %d bytes: %d bytes used, %d before; left over: %v", room, d.Used(), before, leftovers(d))
		}
		d.SetCapacity(0)
		afterCrash(t, d, "full disk", false)
	}
}

// A disk that lies about syncs may lose the new checkpoint, but it can't pass a
// torn one off for whole.
func TestALyingDiskIsFoundOut(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := diskWith(r, 1)
		d.LoseSyncs(true)
		save(r, open(r, d.Process()), snapshot(2))
		d.PowerLoss(func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "luck") })
		d.LoseSyncs(false)
		got, skipped := latest(r, d)
		if got == 1 && len(skipped) == 0 {
			if _, err := open(r, d.Process()).Load(pathOf(snapshot(2))); !errors.Is(err, fs.ErrNotExist) {
				r.Fatalf("transition 2 was passed over in silence: %v", err)
			}
		}
		save(r, open(r, d.Process()), snapshot(2))
		if got, _ := latest(r, d); got != 2 {
			r.Fatalf("the damaged one was not replaced: the latest is %d", got)
		}
	})
}

// Writers of one state meet at every pair of operations: one is stopped before
// its nth and another does all of its work.
func TestTwoWritersOfOneStateAgree(t *testing.T) {
	for n := range opsOf(t) {
		d := diskWith(t, 1)
		slow, fast := d.Process(), d.Process()
		other := open(t, fast)
		slow.Before = func(op memfs.Op) error {
			if op.N == n {
				save(t, other, snapshot(2))
			}
			return nil
		}
		save(t, open(t, slow), snapshot(2))
		if got, skipped := latest(t, d); got != 2 || len(skipped) > 0 || len(leftovers(d)) > 0 {
			t.Errorf("operation %d: the latest is %d, passed over %v, left over %v", n, got, skipped, leftovers(d))
		}
	}
}

// A sweep in the middle of somebody's writing does not disturb it.
func TestSweepingSparesTheLiving(t *testing.T) {
	for n := range opsOf(t) {
		d := diskWith(t, 1)
		slow, sweeper := d.Process(), open(t, d.Process())
		slow.Before = func(op memfs.Op) error {
			if op.N == n {
				return sweeper.Sweep()
			}
			return nil
		}
		save(t, open(t, slow), snapshot(2))
		if got, skipped := latest(t, d); got != 2 || len(skipped) > 0 || len(leftovers(d)) > 0 {
			t.Errorf("operation %d: the latest is %d, passed over %v, left over %v", n, got, skipped, leftovers(d))
		}
	}
}

func TestAKilledPrunerDamagesNothing(t *testing.T) {
	prune := func(p *memfs.Process) error {
		s, err := checkpoint.Open(p, dir)
		if err == nil {
			_, err = s.Prune(trajectory('T'), 4, 1)
		}
		return err
	}
	p := diskWith(t, 1, 2, 3, 4).Process()
	if err := prune(p); err != nil {
		t.Fatal(err)
	}
	for n := range p.Ops() {
		for _, luck := range []func(int) int{nil, func(n int) int { return n - 1 }, func(n int) int { return n / 2 }} {
			d := diskWith(t, 1, 2, 3, 4)
			p := d.Process()
			p.Before = dieAt(n)
			if err := prune(p); !errors.Is(err, memfs.ErrKilled) {
				t.Fatalf("operation %d: the error is %v", n, err)
			}
			d.PowerLoss(luck)
			requireAllGood(t, d)
			if err := open(t, d.Process()).Sweep(); err != nil || len(leftovers(d)) > 0 {
				t.Fatalf("operation %d: error %v, left over %v", n, err, leftovers(d))
			}
		}
	}
}

// requireAllGood verifies all checkpoints that have their names.
func requireAllGood(t rapid.TB, d *memfs.Disk) {
	t.Helper()
	s := open(t, d.Process())
	entries, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := s.Verify(e.Path); err != nil {
			t.Error(err)
		}
	}
}
