package train

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// Signs are signs of life of a node's own work. Numbers grow as it gets on.
type Signs struct {
	Work  uint64 // operations of the model, samples read, bytes copied
	Doing string // what it is at, in words, if it may take long: "it waits for samples"
	Disk  uint64 // operations on files of checkpoints
}

// How long what can't be interrupted may stand still: a system that reads or writes a file, a disk behind a network
// among them, takes as long as it takes. Nobody else waits for it: a node that can't stop what it is at, though
// it has to, ends, and says of what.
const (
	hangFor = 5 * time.Second  // of a computation or a copy that is to end
	saveFor = 30 * time.Second // of a write, when nothing else is waited for
	// longestTick is the longest that is believed to have passed between two ticks: who was suspended has not
	// stood still for that.
	longestTick = time.Second
)

// standstill measures how long a number has been what it is.
type standstill struct {
	number uint64
	since  time.Duration // for how long
	told   bool
}

// is takes the number as it is after a while.
func (s *standstill) is(number uint64, after time.Duration) {
	if number != s.number {
		*s = standstill{number: number}
		return
	}
	s.since += after
}

// own is what a node knows of its own work.
type own struct {
	looked time.Time
	idle   uint64 // how often there was nothing in hand: whoever waits for others is not stuck itself
	work   standstill
	disk   standstill
	ending time.Duration // for how long a generation has been waited for that is to end
}

// Heed looks whether this node's own work gets on, and ends what would hold it or others without an end. It
// is called with every Tick.
func (n *Node) Heed(now time.Time, s Signs) {
	o, g := &n.own, n.gen
	passed := min(max(now.Sub(o.looked), 0), longestTick)
	o.looked = now
	o.work.is(s.Work, passed)
	o.disk.is(s.Disk, passed)
	if g == nil || !g.computing && !g.fetching {
		o.idle++
		o.work, o.ending = standstill{number: s.Work}, 0
	} else if !g.closing {
		o.ending = 0
	} else if o.ending += passed; o.ending > hangFor && o.work.since > hangFor {
		n.exit(Exit{Err: fmt.Errorf("train: what this node computes does not end within %s, though nobody waits for it any more: %s", hangFor, cmp.Or(s.Doing, "it computes"))})
		return
	}
	if !n.writing {
		o.disk = standstill{number: s.Disk}
	}
	switch limit := n.stuckAfter(); {
	case n.leaving && g != nil && !g.closing && o.work.since > hangFor:
		n.closeGroup(now, view.Cause{By: n.views.Self(), Reason: fmt.Sprintf("it leaves, and does nothing: %s", cmp.Or(s.Doing, "it computes"))})
	case o.work.since > limit && !o.work.told:
		o.work.told = true
		n.tell(now, "stuck", n.views.Self().ID, fmt.Sprintf("nothing has been done here for %s: %s", limit.Round(time.Second), cmp.Or(s.Doing, "it computes")), 0)
	}
	if o.disk.since <= saveFor {
		return
	}
	if n.parting != nil {
		n.unsaved = errors.Join(n.unsaved, fmt.Errorf("checkpoint: the disk has taken nothing for %s: the last one is not written", saveFor))
		n.parting.Err = errors.Join(n.parting.Err, n.unsaved)
		n.exit(*n.parting)
	} else if !o.disk.told {
		o.disk.told = true
		n.tell(now, "checkpoint failed", "", fmt.Sprintf("a checkpoint is not getting written: the disk has taken nothing for %s; training goes on", saveFor), 0)
	}
}
