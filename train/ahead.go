package train

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/dlnode/dlnode/internal/pages"
	"github.com/dlnode/dlnode/optim"
)

// Ahead makes an update while its gradient is still on the way: a piece of the
// parameters and slots as soon as that piece of the mean gradient is final. It makes
// them beside the state, in vectors of its own, so that the state is whole at all times (I8):
//
//	mean    ▓▓▓▓▓▓▓▓▓▓░░░░▓▓▓▓░░░░   final, or still to come
//	S       ──────────────────────   is read, and stands as it was
//	next    ▓▓▓▓▓▓▓▓▓▓    ▓▓▓▓       made of both, piece by piece
//
// Once all ranks have agreed that the attempt counts, commit makes what is missing and
// exchanges the vectors with those of the state. In any other case, a repeat, a skipped
// update, a lost group, what was made is forgotten.
//
// It is the piece that optim.Update makes, of a copy, so it has the same bits. An
// update that needs all of the gradient first (optim.Optimizer.ByPieces) is not made ahead.
type Ahead struct {
	task *Task

	// Due is told, if it is not nil, that there is a piece to make: by whoever brought the
	// last of its gradient, who must not be held up.
	Due func()
	// Choose tells whether the next update is made ahead; nil does what makes steps faster.
	Choose func() bool

	trial trial // of the running generation

	mu      sync.Mutex
	quiet   sync.Cond    // nobody is making a piece
	on      bool         // an update is being made
	update  optim.Update // of the vectors below
	from    *State
	mean    []float32   // the gradient; not ours to write in
	params  []float32   // the next ones
	slots   [][]float32 // likewise
	grads   []float32   // a copy of the gradient, for optimizers that write in it
	missing []int       // by piece: elements of its gradient that are not final
	due     []int       // pieces that can be made
	begun   int         // those of them that somebody has begun
	making  int         // pieces in hand
}

// NewAhead makes one for the node of a task, which gets the memory when it first
// makes an update: 4·P bytes for P parameters and as much for each slot.
func NewAhead(t *Task) *Ahead {
	a := &Ahead{task: t}
	a.quiet.L = &a.mu
	return a
}

// Bytes returns the memory that it holds, in bytes.
func (a *Ahead) Bytes() int64 { return int64(4*len(a.params)*(1+len(a.slots))) + int64(4*len(a.grads)) }

// wants tells whether the next update is to be made ahead.
func (a *Ahead) wants() bool {
	switch {
	case a == nil || !a.task.Optimizer.ByPieces():
		return false
	case a.Choose != nil:
		return a.Choose()
	}
	return a.trial.turn()
}

// begin makes ready for the update of an attempt, whose mean gradient will be in mean.
// Nothing of an earlier one is in the making.
func (a *Ahead) begin(s *State, rate float64, mean []float32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.params == nil {
		a.params = pages.Float32s(len(s.params))
		for range s.slots {
			a.slots = append(a.slots, pages.Float32s(len(s.params)))
		}
		if a.task.Optimizer.Spends() {
			a.grads = pages.Float32s(len(s.params))
		}
	}
	grads := mean
	if a.grads != nil {
		grads = a.grads
	}
	a.on, a.from, a.mean = true, s, mean
	a.update = a.task.Optimizer.Begin(rate, a.params, grads, a.slots, s.Step)
	a.missing, a.due, a.begun = a.missing[:0], a.due[:0], 0
	for i := range a.update.Len() {
		lo, hi := a.update.Span(i)
		a.missing = append(a.missing, hi-lo)
	}
}

// final is allreduce.Op.Final.
func (a *Ahead) final(lo, hi int) {
	if a.arrived(lo, hi) && a.Due != nil {
		a.Due()
	}
}

// arrived counts elements whose gradient is final. It tells whether that has brought
// a piece its last one.
func (a *Ahead) arrived(lo, hi int) (some bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.on {
		return false
	}
	first := sort.Search(len(a.missing), func(i int) bool {
		_, end := a.update.Span(i)
		return end > lo
	})
	for i := first; i < len(a.missing); i++ {
		from, to := a.update.Span(i)
		if from >= hi {
			break
		}
		if a.missing[i] -= min(to, hi) - max(from, lo); a.missing[i] == 0 {
			a.due = append(a.due, i)
			some = true
		}
	}
	return some
}

// Help makes the pieces that are due, until there is none.
func (a *Ahead) Help() {
	for a.One() {
	}
}

// One makes a piece that is due, if there is one.
func (a *Ahead) One() bool {
	i, ok := a.take()
	if ok {
		a.make(i)
		a.put()
	}
	return ok
}

func (a *Ahead) take() (i int, ok bool) {
	if a == nil {
		return 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.begun == len(a.due) {
		return 0, false
	}
	i = a.due[a.begun]
	a.begun++
	a.making++
	return i, true
}

func (a *Ahead) put() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.making--; a.making == 0 {
		a.quiet.Broadcast()
	}
}

// make makes a piece, from what stands in the state and the mean gradient.
func (a *Ahead) make(i int) {
	lo, hi := a.update.Span(i)
	copy(a.params[lo:hi], a.from.params[lo:hi])
	for k, v := range a.slots {
		copy(v[lo:hi], a.from.slots[k][lo:hi])
	}
	if a.grads != nil {
		copy(a.grads[lo:hi], a.mean[lo:hi])
	}
	a.update.Do(i)
}

// commit completes the update, if one is being made, and has s take it. All of the
// gradient has come.
func (a *Ahead) commit(s *State, each Each) bool {
	if a == nil || !a.on {
		return false
	}
	rest := a.rest()
	each(len(rest), func(k int) { a.make(rest[k]) })
	a.stop()
	s.params, a.params = a.params, s.params
	for k := range s.slots {
		s.slots[k], a.slots[k] = a.slots[k], s.slots[k]
	}
	return true
}

// rest takes all pieces that nobody has begun.
func (a *Ahead) rest() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, n := range a.missing {
		if n > 0 {
			panic(fmt.Sprintf("train: an update of which piece %d lacks the gradient of %d elements", i, n))
		}
	}
	rest := a.due[a.begun:]
	a.begun = len(a.due)
	return rest
}

// stop forgets the update that is being made, if one is, once nobody makes a piece any more.
func (a *Ahead) stop() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.on, a.begun = false, len(a.due)
	for a.making > 0 {
		a.quiet.Wait()
	}
}

// restart has it found out anew whether it pays: there are other links.
func (a *Ahead) restart() {
	if a != nil {
		a.trial = trial{}
	}
}

// measured takes how long a step took.
func (a *Ahead) measured(d time.Duration) {
	if a != nil && a.Choose == nil && a.trial.measured(d) && !a.trial.ahead {
		a.stop()
		a.params, a.slots, a.grads = nil, nil, nil
	}
}

// found tells, for people, what the running generation has found out.
func (a *Ahead) found() string {
	switch t := &a.trial; {
	case !a.task.Optimizer.ByPieces():
		return "updates need the norm of the whole gradient"
	case !t.settled:
		return "both ways are tried"
	case t.ahead:
		return fmt.Sprintf("updates begin while gradients come: %v a step, else %v", t.with, t.without)
	default:
		return fmt.Sprintf("updates wait for the whole gradient: %v a step, else %v", t.without, t.with)
	}
}

// trial finds out in which way steps are faster, by taking turns: one step so, the next
// one otherwise. What it would take to know beforehand, how fast links, memory and
// processors are and what else they have to do, is told by nobody.
type trial struct {
	took    [2][]time.Duration // of steps without and with an update ahead
	ahead   bool               // the way in hand
	settled bool

	without, with time.Duration // what was found
}

const (
	trialSteps = 16 // in each way
	trialWarm  = 4  // of them, at first, that do not count
)

// turn tells whether the next step is to have its update made ahead.
func (t *trial) turn() bool {
	if !t.settled {
		t.ahead = !t.ahead
	}
	return t.ahead
}

// measured takes how long the step took. True says that with it the trial is over.
func (t *trial) measured(d time.Duration) bool {
	if t.settled {
		return false
	}
	way := 0
	if t.ahead {
		way = 1
	}
	t.took[way] = append(t.took[way], d)
	if min(len(t.took[0]), len(t.took[1])) < trialSteps {
		return false
	}
	t.without, t.with = median(t.took[0][trialWarm:]), median(t.took[1][trialWarm:])
	t.settled, t.ahead = true, t.with < t.without-t.without/64 // what is no gain is not worth the memory
	return true
}

func median(d []time.Duration) time.Duration {
	slices.SortFunc(d, cmp.Compare)
	return d[len(d)/2]
}
