package train

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/internal/pages"
	"github.com/dlnode/dlnode/shard"
)

// Recomputer goes over a run's transitions once more, alone, from a state that the
// run has been in. As the next state is a function of the one before, job and data,
// whatever comes out otherwise than it was recorded was not computed as it should
// have been: then, or now.
//
//	for !r.Done() {
//		got, err := r.Compute(ctx) // the next transition: what a journal's record says of it
//		part, err := r.Part(ctx, lo, hi) // of it, as the rank had it that computed these microbatches
//		r.Commit() // go over it
//	}
type Recomputer struct {
	task    *Task
	state   *State
	pool    *pool
	sum     *allreduce.Reducer
	seq     uint64
	mean    []float32 // of the transition in hand
	attempt *Attempt
	verdict *verdict
}

// Recomputed is a transition as a Record tells it.
type Recomputed struct {
	Transition   uint64 // after it
	Kind         Kind
	Step         uint64 // after it
	Microbatches int    // of all ranks
	Samples      uint64
	Watch        string // digest of the state before
	Gradient     string // "" where no update was applied
}

// NewRecomputer starts at a state of the task's trajectory; nil is its starting
// state. threads microbatches are computed at the same time; 0 is GOMAXPROCS. It is
// to be closed.
func NewRecomputer(t *Task, from *checkpoint.Snapshot, threads int) (*Recomputer, error) {
	if err := checkArithmetic(); err != nil {
		return nil, err
	}
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	s := t.Start()
	if from != nil {
		var err error
		if s, err = t.restore(from); err != nil {
			return nil, err
		}
	}
	return &Recomputer{
		task: t, state: s, pool: newPool(NewEngine(t, threads)), sum: allreduce.New(t.ops(allreduce.Config{World: 1})),
		mean: pages.Float32s(t.Model.NumParams()),
	}, nil
}

// Close ends the goroutines.
func (r *Recomputer) Close() { r.pool.close() }

// Done tells whether nothing comes after the state.
func (r *Recomputer) Done() bool { return r.state.Next == Done }

// Transition and Step tell where the state is.
func (r *Recomputer) Transition() uint64 { return r.state.Transition }

// Step returns how many updates are done.
func (r *Recomputer) Step() uint64 { return r.state.Step }

// Watch is the digest of the state that the next transition's records hold.
func (r *Recomputer) Watch() string { return fmt.Sprintf("%016x", r.state.watch(r.pool.each)) }

// Digest is SHA-256 of the whole state, as the manifest of a checkpoint has it.
func (r *Recomputer) Digest() [32]byte { return r.task.digest(r.state) }

// Compute computes the next transition and leaves the state where it is.
func (r *Recomputer) Compute(ctx context.Context) (Recomputed, error) {
	if r.Done() {
		return Recomputed{}, errors.New("the run ends here: there is no further transition")
	}
	for a := r.task.attempt(r.state); ; a = r.verdict.again {
		if err := r.try(ctx, a); err != nil {
			return Recomputed{}, err
		}
		if r.verdict.again == nil {
			break
		}
	}
	a, s := r.attempt, r.state
	got := Recomputed{
		Transition: s.Transition + 1, Kind: a.Kind, Step: s.Step, Microbatches: r.task.microbatches(a),
		Samples: r.verdict.count, Watch: r.Watch(),
	}
	if a.Kind == Update {
		got.Step++
		if !r.verdict.skip {
			got.Gradient = fmt.Sprintf("%016x", r.verdict.sum)
		}
	}
	return got, nil
}

// try makes one attempt, with all microbatches in one rank.
func (r *Recomputer) try(ctx context.Context, a *Attempt) error {
	all := shard.Range{Hi: r.task.microbatches(a)}
	var c Contribution
	if all.Hi > 0 {
		var err error
		if c, err = r.pool.wait(ctx, a, all, r.state.params); err != nil {
			return err
		}
	}
	r.seq++
	head := r.task.header(a, c, witness{watch: r.state.watch(r.pool.each)}, 0, 0, 0)
	op := allreduce.Op{Seq: r.seq, Header: head, Each: r.pool.each}
	if a.Kind == Update {
		r.task.reduce(&op, a, Sums{c.Grad, r.mean}, r.task.Plan.Count(a.Step))
	}
	nobody := func([]int, allreduce.Frame) { panic("train: a frame in a world of one") }
	if _, err := r.sum.Start(op, nobody); err != nil {
		return err
	}
	headers, ok := r.sum.Done()
	if !ok {
		return errors.New("train: an all-reduce of one is not complete")
	}
	r.attempt, r.verdict = a, r.task.judge(a, ranks(1), []shard.Range{all}, headers, r.sum.Total())
	return errors.Join(r.verdict.torn, r.verdict.fatal)
}

// Part computes microbatches [lo, hi) of the update in hand once more and returns
// the sum of their integers, as a Record's Own has it.
func (r *Recomputer) Part(ctx context.Context, lo, hi int) (string, error) {
	a := r.attempt
	if n := r.task.microbatches(a); a.Kind != Update || lo < 0 || hi < lo || hi > n {
		return "", fmt.Errorf("microbatches [%d, %d) of %s %d, which has %d", lo, hi, a.Kind, a.Step+1, n)
	}
	c, err := r.pool.wait(ctx, a, shard.Range{Lo: lo, Hi: hi}, r.state.params)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%016x", c.Grad.Ints()), nil
}

// Commit moves the state over the transition that was computed.
func (r *Recomputer) Commit() {
	r.task.commit(r.state, r.attempt, r.verdict, r.mean, nil, r.pool.each)
}
