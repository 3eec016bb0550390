package sim

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/train"
)

// checks look at a cluster from outside. What they hold against the product they
// have seen themselves: records that were read, states, files, exits, times.
//
//	digest     at equal transitions all states are equal, on all nodes, disks and at all times
//	samples    a step uses what the first one to do it used; an epoch uses each sample once
//	regress    no life's transition goes back; a start finds what was reported durable
//	generation a life's views have growing generations (of two with one, the greater name)
//	fence      a group takes in frames of its own only
//	overlap    one computation, copy, save at a time; parameters stand still meanwhile
//	members    nobody trains with fewer nodes than min_nodes, or in a view that names another life
//	error      no node ends with an error that no fault explains
//	hash       whoever finishes has the state that one node in a perfect world ends with
//	durable    what a node that ends in order leaves behind survives a loss of power
//	copy       a copied state is the one that the view starts from, and after an orderly
//	           end no member has to copy from another
//	peace      where nothing fails, no group breaks before the final state is there
//	left-out   a member that nobody has expelled does not go without the final state
//	liveness   after the last fault the full view forms and training ends, in time
//	leak       nothing stays open, half-written or longer than it is kept: see leaks.go
type checks struct {
	c        *Cluster
	states   map[uint64]known     // by transition
	sketches map[uint64]uint64    // likewise
	work     map[workKey][]uint64 // ids read for an attempt, by all ranks so far
	used     map[uint64][]uint64  // ids that a transition used, sorted
	kinds    map[uint64]train.Kind
	ended    []*life
	flipped  *flip  // a bit that was flipped in memory
	meant    string // words of the error that a directed schedule is about
}

// known is the state that somebody had at a transition.
type known struct {
	digest [32]byte
	who    string
}

// workKey names an attempt of one group.
type workKey struct {
	fence      allreduce.Fence
	transition uint64
	repeat     int
}

// fail ends the schedule.
func (k *checks) fail(check, format string, args ...any) {
	f := &Failure{check, fmt.Sprintf(format, args...)}
	k.c.trace.logf(k.c.now, "CHECK", "%s", f.Error())
	panic(f)
}

func (k *checks) booted(l *life, s *train.State) {
	if d := l.disk; s.Transition < d.durable && !d.rotten {
		k.fail("regress", "%s starts at transition %d, but %d was reported written", l.name(), s.Transition, d.durable)
	}
	// Who wrote what is found may have died before its name was durable: it was not reported, and may be lost yet.
	l.disk.durable = min(l.disk.durable, s.Transition)
	k.compareState(l)
}

// compare holds a state against what anybody else had at its transition.
func (k *checks) compare(l *life, transition uint64, d [32]byte, does string) {
	if k.states == nil {
		k.states = map[uint64]known{}
	}
	if k.flipped.covers(l) {
		return
	}
	old, ok := k.states[transition]
	if !ok {
		k.states[transition] = known{d, l.name()}
		return
	}
	if old.digest != d {
		k.fail("digest", "%s %s state %x at transition %d, %s had %x", l.name(), does, d[:4], transition, old.who, old.digest[:4])
	}
}

// look is called after everything that happens to a life.
func (k *checks) look(l *life) {
	t := l.host.Node().State().Transition
	if t == l.last {
		return
	}
	if t < l.last && !k.flipped.recalled() {
		k.fail("regress", "%s goes back from transition %d to %d", l.name(), l.last, t)
	}
	l.last = t
	k.compareState(l)
}

// compareState holds a state against the others' of its transition. The first
// one pays for a full digest, which files are held against later.
func (k *checks) compareState(l *life) {
	if k.flipped.covers(l) {
		return
	}
	s := l.host.Node().State()
	if k.sketches == nil {
		k.sketches = map[uint64]uint64{}
	}
	got := sketch(s)
	old, ok := k.sketches[s.Transition]
	if !ok {
		k.sketches[s.Transition] = got
	}
	if !ok || old != got {
		k.compare(l, s.Transition, l.host.Node().Digest(), "has")
	}
	if ok && old != got {
		k.fail("digest", "%s has another state at transition %d than others had", l.name(), s.Transition)
	}
}

func (k *checks) opened(l *life, g *group) {
	v, _ := l.host.Node().View()
	name := v.Name()
	if v.Generation < l.gen || v.Generation == l.gen && bytes.Compare(name[:], l.view[:]) <= 0 {
		k.fail("generation", "%s opens %s after generation %d, view %s", l.name(), viewText(v), l.gen, l.view)
	}
	if v.World() < k.c.opt.MinNodes && !k.c.finished(v) {
		k.fail("members", "%s trains with %d nodes, min_nodes is %d", l.name(), v.World(), k.c.opt.MinNodes)
	}
	l.gen, l.view = v.Generation, name
	l.cleansed, l.blamed = k.flipped.isCured(), false
	if !slices.ContainsFunc(v.Members, func(w view.Member) bool { return w.ID == l.id && w.Incarnation == l.inc }) {
		k.fail("members", "%s opens a group of %s, in which it is not", l.name(), viewText(v))
	}
	if len(l.groups) > 0 {
		k.fail("overlap", "%s opens a group while another is up", l.name())
	}
}

// finished tells that a member of a view has the final state: it needs nobody.
func (c *Cluster) finished(v *view.View) bool {
	return slices.ContainsFunc(c.living(), func(l *life) bool {
		return l.host.Node().State().Next == train.Done && v.Rank(view.Node{ID: l.id, Incarnation: l.inc}) >= 0
	})
}

func (k *checks) computed(l *life, a *train.Attempt, ids []uint64) {
	if k.work == nil {
		k.work = map[workKey][]uint64{}
	}
	if g := l.current(); g != nil {
		key := workKey{g.cfg.Config.Fence, a.Transition, a.Repeat}
		k.work[key] = append(k.work[key], ids...)
	}
}

// committed holds what was read for a step against what others read for it.
func (k *checks) committed(l *life, c train.Committed) {
	if c.Transition != l.last+1 {
		k.fail("regress", "%s completes transition %d after %d", l.name(), c.Transition, l.last)
	}
	l.clean = l.clean || l.cleansed
	if c.Kind != train.Update && c.Kind != train.Evaluate {
		return
	}
	if k.used == nil {
		k.used, k.kinds = map[uint64][]uint64{}, map[uint64]train.Kind{}
	}
	v, _ := l.host.Node().View()
	key := workKey{v.Name().Fence(), c.Transition - 1, c.Repeat}
	ids, fresh := k.work[key]
	if !fresh {
		return // somebody else of the same group has been here
	}
	delete(k.work, key)
	slices.Sort(ids)
	if old, ok := k.used[c.Transition]; ok && !slices.Equal(old, ids) && k.flipped == nil {
		k.fail("samples", "%s in generation %d: transition %d used %d samples, once before %d, or others", l.name(), c.Generation, c.Transition, len(ids), len(old))
	}
	k.used[c.Transition], k.kinds[c.Transition] = ids, c.Kind
}

func (k *checks) groupEnds(l *life, g *group, note allreduce.ClosingNote) {
	l.parted = note.Ending == allreduce.Orderly
	l.partedFrom, l.partedAt = g.cfg.Config.Fence, l.host.Node().State().Transition
	if k.c.opt.Gentle && note.Ending == allreduce.Broken && l.exit == nil && l.host.Node().State().Next != train.Done {
		k.fail("peace", "%s: group %s breaks though nothing fails: %s (by %s)", l.name(), g.cfg.Config.Fence, note.Reason, note.By)
	}
}

// copies sees a node that wants a state from a donor.
func (k *checks) copies(l, donor *life) {
	if k.c.flipDonor {
		k.c.flipIn(donor)
	}
	if l.parted && donor.parted && l.partedFrom == donor.partedFrom && !k.flipped.recalled() { // the writer may have had the memory of what one goes back to
		k.fail("copy", "%s copies from %s, though both parted in order from one group", l.name(), donor.name())
	}
}

func (k *checks) told(l *life, e train.Event) {
	l.expelled = l.expelled || e.Kind == "expelled"
	l.blamed = l.blamed || e.Kind == "fault"
	k.flipped.told(e)
	switch {
	case e.Kind == "caught up" && l.host.Node().State().Transition < l.newest:
		k.fail("join", "%s says that it has caught up at transition %d, though it was told of %d", l.name(), l.host.Node().State().Transition, l.newest)
	case e.Kind == "copy" && strings.HasPrefix(e.Text, "copying in the background failed"):
		l.newest = 0 // whoever told it may have trained apart; it begins anew
	case e.Kind == "unfit" && k.flipped == nil:
		k.fail("join", "%s: %s", l.name(), e.Text)
	}
	if e.Kind == "copy" && strings.Contains(e.Text, "is not the state") && k.flipped == nil {
		k.fail("copy", "%s: %s", l.name(), e.Text)
	}
}

func (k *checks) saved(l *life, s *checkpoint.Snapshot, r checkpoint.Result) {
	d := l.disk
	switch {
	case errors.Is(r.Err, checkpoint.ErrConflict) && k.flipped == nil:
		k.fail("digest", "%s finds another checkpoint of transition %d: %v", l.name(), s.Transition, r.Err)
	case r.Err != nil:
		if !d.full && !d.failing && !d.rotten {
			k.fail("error", "%s cannot write transition %d on a sound disk: %v", l.name(), s.Transition, r.Err)
		}
	default:
		d.durable = max(d.durable, s.Transition)
		k.compare(l, s.Transition, r.Saved.Digest, "has written")
		if k.flipped != nil {
			k.flipped.onDisk(k, l)
		}
	}
}

func (k *checks) startFailed(l *life, err error) {
	if d := l.disk; !d.failing && d.dieAt == 0 && d.how == "" {
		k.fail("error", "%s cannot start: %v", l.name(), err)
	}
}

func (k *checks) exited(l *life, e *train.Exit) {
	k.ended = append(k.ended, l)
	k.leftOpen(l, e)
	s := l.host.Node().State()
	if e.Err != nil {
		k.explain(l, e)
	}
	switch {
	case e.Finished: // with an error too, of its last checkpoint
		if d := l.host.Node().Digest(); d != k.c.load.Want && k.c.load.Want != ([32]byte{}) {
			k.fail("hash", "%s finishes with state %x, alone it is %x", l.name(), d[:8], k.c.load.Want[:8])
		}
	case e.Err != nil:
	case strings.HasPrefix(e.Reason, "the run is finished") && l.gen > 0 && !l.expelled:
		k.fail("left-out", "%s has trained up to transition %d and goes without the final state: %s", l.name(), s.Transition, e.Reason)
	// What it has copied since then, nobody has compared there: the donors have it.
	case l.leaving && e.Reason == "left" && s.Transition > 0 && l.parted && l.partedAt == s.Transition && !l.blamed && l.disk.durable < s.Transition:
		k.fail("durable", "%s left at transition %d; %d is the last that it wrote", l.name(), s.Transition, l.disk.durable)
	}
}

// explain accepts an error that a fault of this schedule must have.
func (k *checks) explain(l *life, e *train.Exit) {
	disk := l.disk.full || l.disk.failing || l.disk.rotten
	if disk && (strings.Contains(e.Err.Error(), "checkpoint") || strings.Contains(e.Err.Error(), "space")) {
		return
	}
	if k.flipped != nil && k.flipped.explains(l, e.Err) || k.meant != "" && strings.Contains(e.Err.Error(), k.meant) {
		return
	}
	k.fail("error", "%s ends with: %v", l.name(), e.Err)
}

// atTheEnd looks at what is left when nobody lives any more. It returns how many
// nodes finished.
func (k *checks) atTheEnd() (finished int) {
	left := 0
	for _, l := range k.ended {
		switch {
		case l.exit.Finished:
			finished++
		case l.exit.Reason == "left" || l.exit.Err != nil:
			left++
		}
	}
	if k.flipped != nil && k.flipped.verdict(k) {
		return finished
	}
	if finished == 0 {
		k.fail("liveness", "nobody has the final state; %d nodes left before the end", left)
	}
	k.epochs()
	k.disks()
	k.sweeps()
	return finished
}

// epochs holds the samples of whole epochs against the data set.
func (k *checks) epochs() {
	ts := make([]uint64, 0, len(k.used))
	for t := range k.used {
		ts = append(ts, t)
	}
	slices.Sort(ts)
	perEpoch := int(k.c.load.Task.StepsPerEpoch())
	var epoch []uint64
	steps := 0
	for _, t := range ts {
		ids := k.used[t]
		if k.kinds[t] == train.Evaluate {
			if !slices.Equal(ids, sorted(k.c.load.validation)) {
				k.fail("samples", "the evaluation of transition %d used %d samples of %d, or others", t, len(ids), len(k.c.load.validation))
			}
			continue
		}
		epoch = append(epoch, ids...)
		if steps++; steps%perEpoch == 0 {
			if !slices.Equal(sorted(epoch), sorted(k.c.load.train)) {
				k.fail("samples", "epoch %d used %d samples of %d, or some twice", steps/perEpoch, len(epoch), len(k.c.load.train))
			}
			epoch = epoch[:0]
		}
	}
}

func sorted(ids []uint64) []uint64 {
	s := slices.Clone(ids)
	slices.Sort(s)
	return s
}

// disks has the power fail everywhere, with the worst of luck, and starts once
// more from what is left.
func (k *checks) disks() {
	seen := map[*disk]bool{}
	for _, l := range k.ended {
		if !l.exit.Finished || l.exit.Err != nil || seen[l.disk] || l.disk.rotten || k.c.diskOf(l.id) != l.disk {
			continue
		}
		seen[l.disk] = true
		l.disk.recover()
		l.disk.PowerLoss(nil)
		store, err := checkpoint.Open(l.disk.Process(), storeDir)
		if err != nil {
			k.fail("durable", "%s: %v", l.name(), err)
		}
		s, err := train.LoadState(l.task, store, func(train.Event) {})
		if err != nil || s.Next != train.Done {
			k.fail("durable", "%s finished, but after a loss of power its disk has not the final state: %v", l.name(), err)
		}
	}
}
