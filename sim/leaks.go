package sim

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/train"
)

// leftOpen looks at a life that has just ended by itself: its neighbours have
// been told, and whoever asked it for something has its answer. One that ends
// without an error has not gone from the middle of anything.
func (k *checks) leftOpen(l *life, e *train.Exit) {
	for _, g := range l.groups {
		if _, ended := g.m.Ended(); !ended {
			k.fail("leak", "%s ends and leaves group %s open", l.name(), g.cfg.Config.Fence)
		}
	}
	if l.owes > 0 {
		k.fail("leak", "%s ends and leaves %d copies of its state unanswered", l.name(), l.owes)
	}
	if e.Err != nil {
		return
	}
	for _, is := range []struct {
		what string
		open bool
	}{{"a group", len(l.groups) > 0}, {"a computation", l.computing}, {"a copy", l.fetching}, {"a piece of a copy", l.following > 0}, {"a save", l.saving && e.Finished}} {
		if is.open {
			k.fail("leak", "%s ends in the middle of %s", l.name(), is.what)
		}
	}
}

// owing counts a request that a life has to answer once.
func owing[T any](l *life, answer func(T, error)) func(T, error) {
	l.owes++
	answered := false
	return func(of T, err error) {
		if answered {
			l.c.checks.fail("leak", "%s answers one request for its state twice", l.name())
		}
		answered = true
		l.owes--
		answer(of, err)
	}
}

// unclosed sees a process after it has used its disk, and whether that went well.
func (k *checks) unclosed(l *life, after string) {
	if open := l.process.Held(); len(open) > 0 {
		k.fail("leak", "%s has %s still open after %s", l.name(), strings.Join(open, ", "), after)
	}
}

// kept holds the checkpoints on a disk against what is to be kept, after a save
// and the removal of old ones went well. debris is what lay there before.
func (k *checks) kept(l *life, r checkpoint.Result, debris int) {
	k.unclosed(l, "a save")
	if r.Err != nil || r.PruneErr != nil {
		return
	}
	if n := l.disk.debris(); n > debris {
		k.fail("leak", "%s writes transition %d and leaves %d temporary paths", l.name(), r.Snapshot.Transition, n-debris)
	}
	keep := l.task.Job.Checkpoint.Keep
	if n := l.disk.checkpoints(r.Snapshot.Transition); n > keep {
		k.fail("leak", "%s writes transition %d and has %d checkpoints up to it, to keep are %d", l.name(), r.Snapshot.Transition, n, keep)
	}
}

// checkpoints counts those of transitions up to one, by their names.
func (d *disk) checkpoints(upTo uint64) (n int) {
	for _, p := range d.Paths() {
		if t, err := strconv.ParseUint(path.Base(p), 10, 64); err == nil && len(path.Base(p)) == 12 && t <= upTo {
			n++
		}
	}
	return n
}

// debris counts what processes have not removed.
func (d *disk) debris() (n int) {
	for _, p := range d.Paths() {
		if isDebris(p) {
			n++
		}
	}
	return n
}

func isDebris(path string) bool {
	return strings.Contains(path, "/.tmp-") || strings.Contains(path, "/.dead-")
}

// sweeps has somebody start on each disk who finds all others dead: nothing half
// written stays.
func (k *checks) sweeps() {
	for _, id := range slices.Sorted(maps.Keys(k.c.disks)) {
		d := k.c.disks[id]
		if d == nil {
			continue // lost with its machine
		}
		d.recover()
		store, err := checkpoint.Open(d.Process(), storeDir)
		if err == nil {
			err = store.Sweep()
		}
		if err != nil {
			k.fail("leak", "the disk of %s cannot be swept: %v", id, err)
		}
		if n := d.debris(); n > 0 {
			k.fail("leak", "%d temporary paths stay on the disk of %s", n, id)
		}
	}
}
