package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/shard"
)

// A step reads like this: the plan chooses the samples of each microbatch, a
// worker reads them, goes forward and backward and rounds the gradient to
// integers (Worker.Microbatch); the ring adds the integers of all ranks and the
// owner of a chunk turns its total into float32 (Task.reduce); every rank checks
// what came against the plan (Task.judge) and applies it (Task.commit).

// attempt returns the first try at the next transition of s.
func (t *Task) attempt(s *State) *Attempt {
	a := &Attempt{Transition: s.Transition, Kind: s.Next, Step: s.Step}
	switch s.Next {
	case Update:
		a.Grad, a.Scalar = append(a.Grad, s.GradExps...), append(a.Scalar, s.TrainExps...)
	case Evaluate:
		a.Scalar = append(a.Scalar, s.EvalExps...)
	case Done:
		a.Kind = Farewell
	}
	return a
}

// header says what rank contributes to an attempt.
func (t *Task) header(a *Attempt, c Contribution, w witness, flags byte, nanos, audits uint64) []byte {
	h := header{
		Transition: a.Transition, Repeat: uint8(a.Repeat), Kind: kindCodes[a.Kind], Flags: flags,
		Count: c.Count, IDSum: c.IDSum, Watch: w.watch, Audit: w.audit, Nanos: nanos, Threads: uint64(c.Threads), Audits: audits,
		GradSeen: nothingSeen(len(t.windows)), ScalarSeen: nothingSeen(len(t.summed(a.Kind))),
		Scalars: make([]float64, t.sums(a.Kind)),
	}
	if a.Kind == Update {
		h.GradSeen, h.Sum = c.Grad.Seen(), c.Grad.Ints()
	}
	for i, mb := range a.Probes {
		h.ProbeAt[i], h.Probe[i] = uint64(mb)+1, c.Probes[i]
	}
	if m := c.misfit; m.beyond > 0 && a.Dispute == nil { // in a dispute the claim is about that
		h.Flags |= flagMisfit
		h.ProbeAt[0], h.Probe[0] = uint64(m.microbatch)+1, m.digest
	}
	if a.Kind == Update || a.Kind == Evaluate {
		h.ScalarSeen, h.Scalars = c.Scalars.Seen(), c.Scalars.Acc()
	}
	return h.append(make([]byte, 0, t.headerLen(a.Kind)))
}

func nothingSeen(n int) []int16 {
	s := make([]int16, n)
	for i := range s {
		s[i] = exact.None
	}
	return s
}

// reduce makes op the all-reduce of an update, of which so many samples are the
// denominator: those that the plan has. A step of which others were loaded is never
// applied (Task.checkSamples), so that nobody need wait for the headers to turn a total
// into a mean.
func (t *Task) reduce(op *allreduce.Op, a *Attempt, s Sums, samples int) {
	op.Eager = true
	op.Vec, op.Out = s.Grad.Memory(), s.Mean
	if !op.Open {
		op.Vec = s.Grad.Acc()
	}
	bits := s.Grad.Bits()
	op.Finish = func(lo, hi int, total []float64, _ [][]byte, out []float32) uint64 {
		return exact.Finish(out, total, lo, t.windows, a.Grad, bits, float64(samples))
	}
}

// verdict is what all ranks conclude from the headers of one all-reduce, each on
// its own and all the same.
type verdict struct {
	again     *Attempt // the attempt is repeated so
	fatal     error    // the run ends
	faults    []fault  // the group ends, and goes on without these
	nonfinite error    // likewise, unless it is one rank's fault
	recall    bool     // and all go back to the last state that was sound
	torn      error    // the peers are not where we are: the group ends
	stop      bool     // the group ends after this transition
	audit     bool     // all of the state is compared in the next headers
	leave     []int    // ranks that go then

	work    []shard.Work // of each rank
	count   uint64
	sum     uint64    // of the ranks' integers, before they went into the ring
	grad    []int16   // seen
	scalar  []int16   // seen
	scalars []float64 // totals
	figures []float64 // of the step, as Task.Scalars, once it is committed: for display, no part of the state
	probed  bool      // ranks have computed gradients twice, with the same results
	proved  bool      // all ranks have computed a microbatch, and it is not finite
	doubt   string    // why the attempt is repeated, if Attempt.Doubts counts it
	audits  uint64    // nanoseconds that an audit takes where it takes longest
	skip    bool      // a non-finite gradient, and the job says to skip it
}

// judge checks the headers of an attempt, and the sum of the ring's totals.
// ranges is what each rank had to compute.
func (t *Task) judge(a *Attempt, v *view.View, ranges []shard.Range, headers [][]byte, total uint64) *verdict {
	vd := &verdict{grad: nothingSeen(len(t.windows)), scalar: nothingSeen(len(t.summed(a.Kind))), scalars: make([]float64, t.sums(a.Kind))}
	hs := make([]header, len(headers))
	for rank, b := range headers {
		h := &hs[rank]
		if err := h.parse(b, len(t.windows), len(vd.scalar), len(vd.scalars)); err != nil {
			vd.torn = fmt.Errorf("%s sent %w", v.Members[rank].ID, err)
			return vd
		}
		if h.Transition != a.Transition || int(h.Repeat) != a.Repeat || h.Kind != kindCodes[a.Kind] {
			vd.torn = fmt.Errorf("%s is at transition %d, attempt %d, kind %d; we are at %d, %d, %s", v.Members[rank].ID, h.Transition, h.Repeat, h.Kind, a.Transition, a.Repeat, a.Kind)
			return vd
		}
		vd.add(rank, h)
	}
	if t.compareReplicas(a, v, hs, vd); vd.fatal != nil || vd.faults != nil {
		return vd
	}
	if vd.fatal = t.checkSamples(a, v, ranges, hs); vd.fatal != nil {
		return vd
	}
	if t.judgeProbes(a, v, hs, vd); vd.again != nil || vd.fatal != nil || vd.faults != nil {
		return vd
	}
	t.judgeExponents(a, v, hs, vd)
	t.judgeSums(a, v, vd, total)
	if vd.again == nil && vd.fatal == nil {
		vd.fatal = vd.nonfinite
	}
	return vd
}

func (vd *verdict) add(rank int, h *header) {
	vd.stop = vd.stop || h.Flags&flagStop != 0
	vd.audit = vd.audit || h.Flags&flagAudit != 0
	if h.Flags&flagLeave != 0 {
		vd.leave = append(vd.leave, rank)
	}
	vd.work = append(vd.work, shard.Work{Nanos: h.Nanos, Threads: int(min(h.Threads, math.MaxInt16))})
	vd.audits = max(vd.audits, h.Audits)
	vd.count += h.Count
	vd.sum += h.Sum
	exact.MergeSeen(vd.grad, h.GradSeen)
	exact.MergeSeen(vd.scalar, h.ScalarSeen)
	for i, x := range h.Scalars {
		vd.scalars[i] += x // integers: exact
	}
}

// checkSamples holds what was loaded against the plan (I6), rank by rank.
func (t *Task) checkSamples(a *Attempt, v *view.View, ranges []shard.Range, hs []header) error {
	if a.Kind != Update && a.Kind != Evaluate {
		return nil
	}
	var count, sum uint64
	for i := range hs {
		count += hs[i].Count
		sum += hs[i].IDSum
	}
	wantCount, wantSum := t.planned(a)
	if count != wantCount || sum != wantSum {
		return fmt.Errorf("train: step %d: the ranks loaded %d samples with id-sum %016x, the plan has %d with %016x: %s",
			a.Step, count, sum, wantCount, wantSum, t.blameSamples(a, v, ranges, hs))
	}
	return nil
}

func (t *Task) planned(a *Attempt) (count, idSum uint64) {
	if a.Kind == Evaluate {
		return uint64(t.EvalPlan.N), t.EvalPlan.IDSum(t.Validation.ID)
	}
	return uint64(t.Plan.Count(a.Step)), t.Plan.IDSum(a.Step, t.Train.ID)
}

// blameSamples finds the ranks that loaded something else than their share.
func (t *Task) blameSamples(a *Attempt, v *view.View, ranges []shard.Range, hs []header) string {
	blame := "no single rank differs from its share"
	for rank, r := range ranges {
		var count, sum uint64
		for mb := r.Lo; mb < r.Hi; mb++ {
			data, which := t.choose(place{a.Kind, a.Step, mb}, nil)
			for _, i := range which {
				count++
				sum += shard.Mix(data.ID(i))
			}
		}
		if count != hs[rank].Count || sum != hs[rank].IDSum {
			blame = fmt.Sprintf("%s loaded %d of its %d samples, or others", v.Members[rank].ID, hs[rank].Count, count)
		}
	}
	return blame
}

// judgeExponents decides whether the sums are exact, must be repeated with
// raised exponents, or hold something that no grid holds.
//
// What is seen is a function of the state and the step. But one wrong gradient can make
// an attempt overflow, and then its repeat, computed right, would be rounded to a grid
// that is far too coarse, or be given up. So a repeat has to see what has raised its
// exponents, and where there are several ranks all of them compute the microbatch that
// did, or that is not finite.
func (t *Task) judgeExponents(a *Attempt, v *view.View, hs []header, vd *verdict) {
	if a.Kind != Update && a.Kind != Evaluate {
		return
	}
	tensor, badGrad := exact.FirstNonFinite(vd.grad)
	scalar, badScalar := exact.FirstNonFinite(vd.scalar)
	switch {
	case a.Raised != nil && !a.Raised.by(vd), vd.proved && !badGrad && !badScalar:
		t.doubt(a.afresh(), v, vd, "what is seen of the gradients differs from one attempt to the next")
	case (badGrad || badScalar) && t.incredible(a, hs, vd):
		vd.again = a.afresh() // computed on other hardware before it is believed
		vd.again.Rotation++
		vd.again.Dispute = a.suspect(hs)
	case badGrad && a.Kind == Update && t.Job.OnNonfinite == "skip", badScalar && t.Job.OnNonfinite == "skip":
		vd.skip = true
	case badGrad:
		vd.nonfinite = fmt.Errorf("train: step %d: the gradient of %s is not finite; lower the learning rate, set clip_norm, or say on_nonfinite: skip", a.Step, t.Model.Tensors()[tensor].Name)
	case badScalar:
		vd.nonfinite = fmt.Errorf("train: step %d: the %s is not finite; lower the learning rate, set clip_norm, or say on_nonfinite: skip", a.Step, t.columns[scalar].metric.Name)
	case a.Kind == Update && exact.Overflow(a.Grad, vd.grad), exact.Overflow(a.Scalar, vd.scalar):
		vd.again = a.raise(vd)
		vd.again.Dispute = a.suspect(hs)
	}
}

// incredible tells that a result that is not finite may be the fault of one rank: it has
// not been computed twice, or, where there are several ranks, some microbatch is told to
// be the cause that not all of them have computed.
func (t *Task) incredible(a *Attempt, hs []header, vd *verdict) bool {
	return !vd.proved && (a.Rotation == 0 || a.suspect(hs) != nil)
}

// afresh is the repeat of an attempt from the exponents of the state.
func (a *Attempt) afresh() *Attempt {
	again := *a
	again.Repeat++
	again.Dispute = nil
	if r := a.Raised; r != nil {
		again.Grad, again.Scalar, again.Raised = r.Grad, r.Scalar, nil
	}
	return &again
}

// raise is the repeat of an attempt that did not fit.
func (a *Attempt) raise(vd *verdict) *Attempt {
	again := a.afresh()
	again.Raised = &Raise{again.Grad, again.Scalar, slices.Clone(vd.grad), slices.Clone(vd.scalar)}
	again.Grad, again.Scalar = slices.Clone(again.Grad), slices.Clone(again.Scalar)
	if a.Kind == Update {
		exact.Raise(again.Grad, vd.grad)
	}
	exact.Raise(again.Scalar, vd.scalar)
	return again
}

// by tells that what was seen is what has raised the exponents.
func (r *Raise) by(vd *verdict) bool {
	return slices.Equal(r.GradSeen, vd.grad) && slices.Equal(r.ScalarSeen, vd.scalar)
}

// maxDoubts is how often in a row an attempt is repeated because of its sums.
const maxDoubts = 2

// doubt has an attempt repeated so, or ends the run where that has not helped.
func (t *Task) doubt(again *Attempt, v *view.View, vd *verdict, why string) {
	if again.Doubts == maxDoubts {
		vd.fatal = fmt.Errorf("train: step %d: %s, %d times in a row: memory, processor or network card of one of %s is at fault",
			again.Step, why, again.Doubts+1, strings.Join(v.IDs(), ", "))
		return
	}
	again.Doubts++
	vd.again, vd.doubt = again, why
}

// judgeSums holds the integers that the ranks had against those that the ring
// has added up (I9): a bit that flipped between, in memory or on the way, would
// reach all replicas alike. Attempts that are not to be committed are not
// judged; where something does not fit its grid, the integers are none.
func (t *Task) judgeSums(a *Attempt, v *view.View, vd *verdict, total uint64) {
	if a.Kind != Update || vd.again != nil || vd.fatal != nil || vd.nonfinite != nil || vd.skip || vd.sum == total {
		return
	}
	again := *a
	again.Repeat++
	t.doubt(&again, v, vd, "the ranks' sums and the ring's total differ")
}

// commit moves s over one transition. It cannot fail and touches nothing else;
// all that it needs has arrived. grads is the mean gradient and is used up; ahead, if not
// nil, may have made the update of it.
func (t *Task) commit(s *State, a *Attempt, vd *verdict, grads []float32, ahead *Ahead, each Each) {
	s.Transition++
	if a.Raised != nil { // a repeat for the hardware's sake is no matter of the state
		s.Repeats++
	}
	switch a.Kind {
	case Update:
		t.update(s, a, vd, grads, ahead, each)
	case Evaluate:
		t.evaluated(s, a, vd)
	case Restore:
		copy(s.params, s.best)
		s.Next = Finish
	case Finish:
		s.Next = Done
	}
}

func (t *Task) update(s *State, a *Attempt, vd *verdict, grads []float32, ahead *Ahead, each Each) {
	if vd.skip {
		s.Skipped++
	} else {
		t.account(s, a, vd)
		if !ahead.commit(s, each) {
			u := t.Optimizer.Begin(t.rate(s, s.Step), s.params, grads, s.slots, s.Step)
			each(u.Len(), u.Do)
		}
		exact.Commit(s.GradExps, vd.grad)
		exact.Commit(s.TrainExps, vd.scalar)
	}
	s.Samples += vd.count
	s.Step++
	if s.Step%t.StepsPerEpoch() == 0 {
		t.endEpoch(s)
	}
}

// endEpoch writes the line of the epoch's training figures.
func (t *Task) endEpoch(s *State) {
	e := Epoch{
		Epoch: len(s.History) + 1, Step: s.Step, Samples: s.Samples,
		LR: Number(t.rate(s, s.Step-1)), Train: t.running(s),
	}
	clear(s.Running)
	s.Samples = 0
	s.History = append(s.History, e)
	if t.Validation != nil {
		s.Next = Evaluate
		return
	}
	t.decide(s)
}

func (t *Task) evaluated(s *State, a *Attempt, vd *verdict) {
	e := &s.History[len(s.History)-1]
	bad := slices.Repeat([]bool{vd.skip}, len(t.columns))
	v := t.evaluation(a, vd.scalars, exact.Bits(max(1, t.EvalPlan.N)), vd.count, t.Model.Penalty(s.params), bad)
	for _, x := range v.Scalars {
		e.Validation = append(e.Validation, Number(x))
	}
	e.Confusion = v.Confusion
	if !vd.skip {
		exact.Commit(s.EvalExps, vd.scalar)
	}
	t.decide(s)
	s.forgetTables()
}

// forgetTables drops the confusion matrices of all epochs but the last and the
// best: a history is to stay small.
func (s *State) forgetTables() {
	for i := range s.History {
		if epoch := i + 1; epoch != len(s.History) && epoch != s.Stopping.BestEpoch {
			s.History[i].Confusion = nil
		}
	}
}

// decide says, after an epoch, whether training goes on. It is Keras'
// EarlyStopping, as a part of the state: every node decides the same.
func (t *Task) decide(s *State) {
	s.Next = Update
	last := len(s.History) >= t.Job.Epochs
	if r := t.Job.ReduceOnPlateau; r != nil {
		s.Plateau.observe(r, float64(t.Monitored(s.History[len(s.History)-1], r.Monitor)), len(s.History))
	}
	if es := t.Job.EarlyStopping; es != nil {
		t.watchMonitor(s)
		if !last && s.Stopping.Wait >= max(1, es.Patience) && s.Stopping.Wait > 0 {
			s.Stopping.Stopped = len(s.History)
			last = true
		}
	}
	if !last {
		return
	}
	s.Next = Finish
	if s.best != nil && s.Stopping.BestEpoch != len(s.History) {
		s.Next = Restore
	}
}

// rate is the learning rate of a step: the schedule's, as often reduced as the
// state says.
func (t *Task) rate(s *State, step uint64) float64 {
	rate := t.Optimizer.LR(step, t.StepsPerEpoch())
	for range s.Plateau.Count {
		rate = min(rate, max(float64(rate*t.Job.ReduceOnPlateau.Factor), t.Job.ReduceOnPlateau.MinLR))
	}
	return rate
}

// observe takes an epoch's number into account, as Keras' ReduceLROnPlateau does.
func (p *plateau) observe(r *job.ReduceOnPlateau, value float64, epoch int) {
	if p.Cooldown > 0 {
		p.Cooldown--
		p.Wait = 0
	}
	better := value < float64(p.Best)-r.MinDelta
	if r.Maximizes() {
		better = value > float64(p.Best)+r.MinDelta
	}
	if p.Epoch == 0 {
		better = value == value
	}
	switch {
	case better:
		p.Best, p.Epoch, p.Wait = Number(value), epoch, 0
	case p.Cooldown > 0:
	case p.Wait+1 < r.Patience:
		p.Wait++
	default:
		p.Count, p.Cooldown, p.Wait = p.Count+1, r.Cooldown, 0
	}
}

// watchMonitor keeps the best epoch and counts those since.
func (t *Task) watchMonitor(s *State) {
	es := t.Job.EarlyStopping
	value := float64(t.Monitored(s.History[len(s.History)-1], es.Monitor))
	best, delta := float64(s.Stopping.Best), es.MinDelta
	better := value < best-delta
	if es.Maximizes() {
		better = value > best+delta
	}
	if s.Stopping.BestEpoch == 0 {
		better = value == value
	}
	if !better {
		s.Stopping.Wait++
		return
	}
	s.Stopping.Best, s.Stopping.BestEpoch, s.Stopping.Wait = Number(value), len(s.History), 0
	if es.RestoreBest {
		s.best = append(s.best[:0], s.params...)
		s.HasBest = true
	}
}

// Monitored returns the number called name ("loss", "val_accuracy", ...) in an
// epoch's line, NaN if there is none.
func (t *Task) Monitored(e Epoch, name string) Number {
	values := e.Train
	if len(name) > 4 && name[:4] == "val_" {
		values, name = e.Validation, name[4:]
	}
	for i, s := range t.scalars {
		if s == name && i < len(values) {
			return values[i]
		}
	}
	return Number(math.NaN())
}
