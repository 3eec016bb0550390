package train

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/shard"
)

// Digests of states can't see a wrong gradient: the all-reduce spreads it to all
// alike. So now and then each rank tells a digest of the gradient of one of its
// microbatches, and the next rank computes that microbatch once more:
//
//	rank 0   ▣ □ □   + ▣ of rank 1          ▣ its digest is told
//	rank 1   □ ▣ □   + ▣ of rank 2
//	rank 2   □ □ ▣   + ▣ of rank 0
//
// Where two digests of one microbatch differ the attempt is made again, and all ranks
// tell the digest of that one: who is contradicted by most, or by itself, is at fault.
// Which microbatches these are is drawn, the same on all ranks.
//
// A rank also tells, unasked, of the microbatch that is furthest beyond its grids, up to
// no number at all. The attempt is repeated for that anyway, and in the repeat all ranks
// compute that microbatch: nothing that one rank alone has seen moves the exponents of
// all, has an update skipped or ends the run.

// Dispute is about a microbatch that two ranks have computed differently, or one alone
// with a result that the others have to see for themselves.
type Dispute struct {
	Kind       Kind // of attempts in which the microbatch is: Update or Evaluate
	Microbatch int
	Claims     []claim // of the attempt before
}

// proves tells that somebody was wrong: it is not only one rank's word that is asked for.
func (d *Dispute) proves() bool {
	return d != nil && slices.ContainsFunc(d.Claims, func(c claim) bool { return c.Digest != d.Claims[0].Digest })
}

// claim is what a rank tells of the gradient of a microbatch.
type claim struct {
	Rank       int
	Microbatch int
	Digest     uint64
}

// A Spoiler changes elements [lo, lo+len(grads)) of the gradient of a microbatch, before
// they are rounded: a processor that computes wrongly. It is called by the workers.
type Spoiler func(a *Attempt, microbatch, lo int, grads []float32)

// Spoil has s spoil gradients, for tests.
func (e *Engine) Spoil(s Spoiler) { e.spoil = s }

func (w *Worker) spoil(lo, hi int) {
	if s := w.engine.spoil; s != nil {
		s(w.attempt, w.hand.at.mb, lo, w.grads[lo:hi])
	}
}

// besides lists the probes that a rank does not compute for its sums anyway.
func (a *Attempt) besides(r shard.Range) (mbs []int) {
	for _, mb := range a.Probes {
		if a.probed(mb).kind != a.Kind || mb < r.Lo || mb >= r.Hi {
			mbs = append(mbs, mb)
		}
	}
	return mbs
}

// probed is where a probe's microbatch is: in the step of an update; for other kinds,
// which have no gradient, in the step before, unless the dispute is about themselves.
func (a *Attempt) probed(mb int) place {
	if a.Dispute != nil && a.Dispute.Kind == Evaluate {
		return place{Evaluate, a.Step, mb}
	}
	if a.Kind != Update {
		return place{Update, max(a.Step, 1) - 1, mb}
	}
	return place{Update, a.Step, mb}
}

// Probe computes a microbatch for its digest alone.
func (w *Worker) Probe(ctx context.Context, a *Attempt, mb int, params []float32) error {
	w.ctx, w.attempt = ctx, a
	at := a.probed(mb)
	err := error(nil)
	w.timed(&w.engine.probing, func() {
		if err = w.take(at); err != nil {
			return
		}
		train := at.kind == Update
		w.ws.Forward(params, &w.hand.batch, nn.Key{Seed: w.task.Job.Seed, Step: at.step}, train)
		if train {
			w.ws.Backward(params, w.grads, w.spoil)
		}
		if w.ws.Aborted() {
			err = context.Cause(ctx)
			return
		}
		w.witness(a)
	})
	w.beats.Add(1)
	return err
}

// witness notes the digest of the microbatch in hand, if it is one of the probes.
func (w *Worker) witness(a *Attempt) {
	for i, mb := range a.Probes {
		if w.hand.at == a.probed(mb) {
			w.engine.probes[i] = w.digest()
		}
	}
}

// digest is of all that the microbatch in hand gives: gradient, losses, metrics.
func (w *Worker) digest() uint64 {
	h := &w.hash
	*h = hash{}
	h.add(w.ws.Losses())
	for _, c := range w.task.summed(w.hand.at.kind)[1:] {
		h.add(w.ws.MetricValues(c.index))
		for _, m := range w.ws.Marks(c.index) {
			h.mark = [2]float64{float64(m.Sum), m.Value}
			h.add(h.mark[:])
		}
	}
	switch {
	case h.bad:
		return notFinite
	case w.hand.at.kind != Update:
		return uint64(h.sum)
	}
	gradient := uint32(0)
	for lo := 0; lo < len(w.grads); lo += pieceLen {
		piece := w.grads[lo:min(lo+pieceLen, len(w.grads))]
		if kernel.MaxExponent(piece) == 0xff {
			return notFinite
		}
		gradient = kernel.CRC32C(gradient, bytesOf(piece))
	}
	return uint64(gradient) | uint64(h.sum)<<32
}

// hash is of numbers of samples.
type hash struct {
	sum  uint32
	bad  bool // some are not finite
	mark [2]float64
}

func (h *hash) add(values []float64) {
	h.sum = crc32.Update(h.sum, castagnoli, bytesOf(values))
	h.bad = h.bad || exact.SeenOf(values) == exact.NonFinite
}

// notFinite is the digest of what has something in it that is no number: which of the
// many patterns for that a processor writes is its own affair.
const notFinite = ^uint64(0)

// draw draws the microbatches that this rank tells of: one of its own, and the one of the
// next rank. A rank that has none may have computed some since the last audit, or may
// from now on: it is given one of all of them, for this alone.
func (g *generation) draw(t *Task, a *Attempt) []int {
	if d := a.Dispute; d != nil {
		return []int{d.Microbatch}
	}
	all, world := shard.Range{Hi: t.Plan.Microbatches(a.probed(0).step)}, g.view.World()
	shares := g.deal(all.Hi, a.Rotation)
	var mbs []int
	for _, rank := range []int{g.rank, (g.rank + 1) % world} {
		r := shares[rank]
		if r.Len() == 0 {
			r = all
		}
		mbs = append(mbs, r.Lo+int(t.lot(a, rank)%uint64(r.Len())))
	}
	return slices.Compact(mbs)
}

// lot is a random number for a rank and an attempt.
func (t *Task) lot(a *Attempt, rank int) uint64 {
	x := shard.Mix(t.Job.Seed)
	for _, y := range [...]uint64{a.Transition, uint64(a.Repeat), uint64(rank)} {
		x = shard.Mix(x ^ y)
	}
	return x
}

// judgeProbes compares what ranks have told of the same microbatches, whatever becomes
// of the attempt otherwise.
func (t *Task) judgeProbes(a *Attempt, v *view.View, hs []header, vd *verdict) {
	of := map[int][]claim{}
	for rank := range hs {
		all := hs[rank].claims(rank)
		if _, told := hs[rank].misfit(rank); told && a.Kind != Update {
			all = all[1:] // that one is of another kind
		}
		for _, c := range all {
			of[c.Microbatch] = append(of[c.Microbatch], c)
		}
	}
	if a.Dispute != nil {
		t.decideDispute(a, v, of[a.Dispute.Microbatch], vd)
		return
	}
	for _, mb := range slices.Sorted(maps.Keys(of)) {
		all := of[mb]
		if slices.ContainsFunc(all, func(c claim) bool { return c.Digest != all[0].Digest }) {
			again := *a
			again.Repeat++
			again.Dispute = &Dispute{Update, mb, all}
			vd.again = &again
			return
		}
		vd.probed = vd.probed || len(all) > 1
	}
}

// suspect is the dispute about the microbatch that is furthest beyond its grids, the
// first of them if there are several: nobody but the rank that has computed it knows
// yet whether it is so. It is nil if no rank tells of one, or there is one rank alone.
func (a *Attempt) suspect(hs []header) *Dispute {
	var worst *Dispute
	furthest := 0
	for rank := range hs {
		c, told := hs[rank].misfit(rank)
		far := a.beyond(&hs[rank])
		if told && len(hs) > 1 && (worst == nil || far > furthest || far == furthest && c.Microbatch < worst.Microbatch) {
			worst, furthest = &Dispute{a.Kind, c.Microbatch, []claim{c}}, far
		}
	}
	return worst
}

// beyond is how far a rank's microbatches are beyond their grids.
func (a *Attempt) beyond(h *header) (far int) {
	for i, e := range a.Grad {
		far = max(far, exact.Beyond(h.GradSeen[i], e))
	}
	for i, e := range a.Scalar {
		far = max(far, exact.Beyond(h.ScalarSeen[i], e))
	}
	return far
}

// decideDispute names who was wrong: who contradicts itself, or else most others. Where
// all agree nobody was.
func (t *Task) decideDispute(a *Attempt, v *view.View, now []claim, vd *verdict) {
	what := fmt.Sprintf("the gradient of microbatch %d of step %d", a.Dispute.Microbatch, a.probed(0).step)
	if a.Dispute.Kind == Evaluate {
		what = fmt.Sprintf("microbatch %d of the evaluation after step %d", a.Dispute.Microbatch, a.Step)
	}
	name := func(c claim) string { return v.Members[c.Rank].ID }
	steady := slices.DeleteFunc(slices.Clone(now), func(c claim) bool {
		i := slices.IndexFunc(a.Dispute.Claims, func(d claim) bool { return d.Rank == c.Rank && d.Digest != c.Digest })
		if i >= 0 {
			vd.faults = append(vd.faults, fault{c.Rank, fmt.Sprintf("%s computed %s twice, with different results (%016x, then %016x): its processor or its memory is at fault", name(c), what, a.Dispute.Claims[i].Digest, c.Digest)})
		}
		return i >= 0
	})
	digests := make([][]byte, len(steady))
	for i, c := range steady {
		digests[i] = fmt.Appendf(nil, "%016x", c.Digest)
	}
	odd, known := view.Odd(digests)
	for _, i := range odd {
		vd.faults = append(vd.faults, fault{steady[i].Rank, fmt.Sprintf("%s computes %s otherwise than %d others (%016x): its processor or its memory is at fault", name(steady[i]), what, len(steady)-len(odd), steady[i].Digest)})
	}
	switch {
	case !known:
		vd.faults = nil
		vd.fatal = fmt.Errorf("train: %s compute %s differently, each again and again: nobody can know who is right", strings.Join(v.IDs(), " and "), what)
	case len(vd.faults) > 0:
		slices.SortFunc(vd.faults, func(a, b fault) int { return cmp.Compare(a.rank, b.rank) })
		vd.recall = true
	default: // one rank's word for a misfit, or all were wrong the same way
		vd.probed = a.Dispute.Kind == Update && len(now) == v.World() // else no gradient was among what they computed
		vd.proved = len(now) > 0 && now[0].Digest == notFinite
	}
}

// An audit compares all of the state, and probes gradients. How often that is done is
// for each node to say: whoever wants one asks for it in a header, and all do it.
const (
	auditShare = 0.008 // of the time that steps take, at most
	auditLeast = 8     // steps from one to the next
	auditMost  = 256
)

// auditEvery is how many steps lie between two audits: as few as keep to auditShare,
// by what the last one took on the slowest rank.
func (n *Node) auditEvery() uint64 {
	if n.stepTime <= 0 {
		return auditLeast
	}
	steps := float64(n.auditTook) / float64(float64(n.stepTime)*auditShare)
	return uint64(min(max(steps, auditLeast), auditMost))
}

// auditDue tells that it is time for one.
func (n *Node) auditDue() bool {
	a := n.gen.attempt
	return a.Kind == Update && n.gen.view.World() > 1 && a.Step+1 >= n.soundStep+n.auditEvery()
}

// spend measures what an audit takes of the owning goroutine.
func (n *Node) spend(f func()) { n.auditSpent += n.clock(f) }

// TimeAudits has clock call, and time, what audits take.
func (n *Node) TimeAudits(clock func(f func()) time.Duration) { n.clock = clock }

// probing tells that ranks tell of gradients in an attempt: wherever all of the state is
// compared, unless it has no new gradient in it, and where a result is not finite, which
// may be one rank's fault.
func (g *generation) probing(a *Attempt) bool {
	if a.Dispute != nil {
		return true
	}
	if g.view.World() == 1 || g.probed && g.probedAt == a.Step || g.faults != nil || g.fatal != nil {
		return false
	}
	return g.audits() || a.Rotation > 0
}

// sound tells that the state has no gradient in it that came after the last ones that
// were found right, or that there is nobody to compare with.
func (g *generation) sound(s *State) bool {
	return g.view.World() == 1 || g.probed && g.probedAt == s.Step
}

// audited takes into account what an audit has taken.
func (n *Node) audited(vd *verdict) {
	if g := n.gen; g.audits() && vd.probed {
		took := time.Duration(min(vd.audits, uint64(time.Hour)))
		if n.auditTook == 0 {
			n.auditTook = took
		}
		n.auditTook += (min(took, 4*n.auditTook) - n.auditTook) / 4 // one that the machine held up tells little
		n.auditSpent = 0
	}
}

// adopt takes over a copied state. What this node has kept is good to go back to still,
// if others have proved it.
func (n *Node) adopt(s *State) {
	if n.kept > min(n.proved, s.Transition) {
		n.kept = nobodyAgrees
	}
	n.state, n.wantSave, n.blob, n.lender = s, "", nil, nil
	n.agreed, n.sound, n.soundStep, n.proved = nobodyAgrees, nobodyAgrees, s.Step, 0
	n.views.Finished(s.Next == Done)
}

// recall goes back to the last sound state, or, where there is none, to the start:
// then others have one.
func (n *Node) recall(now time.Time, g *generation) {
	from := n.state.Step
	n.recalled = view.Recall{Generation: g.view.Generation, At: n.state.Transition}
	if n.kept != nobodyAgrees && n.spare.witness(n.each) == n.keptOn {
		n.wantSave, n.blob, n.lender = "", nil, nil
		n.state.copyFrom(n.spare, n.each)
		n.agreed, n.agreedOn, n.sound, n.soundStep, n.proved = n.kept, n.keptOn, n.kept, n.state.Step, n.kept
		n.views.Finished(false)
	} else {
		n.adopt(n.task.Start())
	}
	text := fmt.Sprintf("back from step %d to the state of step %d, in which no gradient is in doubt", from, n.state.Step)
	n.emit(Tell{Event{Time: now, Kind: "recall", Generation: g.view.Generation, Step: n.state.Step, Text: text}})
}
