package train

import (
	"fmt"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/internal/pages"
	"github.com/dlnode/dlnode/nn"
)

// Drill is one rank's part in the all-reduces of updates, without a model, for
// those who measure them. A gradient is there; all that follows until its mean is
// there is the code of a step: rounding to the grids, the header with its counts and
// sums, the op, the finish, and what the judge makes of headers and total.
//
// What a step does beside that is not in it: it computes, applies the mean, and
// digests its state for the header.
//
// The mean takes the gradient's place, part by part, each of which was rounded before. It is the next op's
// gradient then, so that all ranks have one from the second op on, and keep it.
type Drill struct {
	task    *Task
	world   int
	pool    *pool
	attempt *Attempt
	sum     *exact.Sum
	scalars *exact.Scalars
	grad    []float32
}

// drillTensor is how many elements the tensors of a drill have, but for the last.
const drillTensor = 1 << 18

// NewDrill makes the part of one of world ranks, each of which has a microbatch of
// one sample, with a gradient of so many elements. That many threads share its work,
// the caller's among them. Close it.
func NewDrill(rank, world, elements, threads int) *Drill {
	t := &Task{scalars: []string{"loss", "accuracy"}}
	for lo := 0; lo < elements; lo += drillTensor {
		t.windows = append(t.windows, exact.Window{Lo: lo, Hi: min(lo+drillTensor, elements)})
	}
	for i, name := range t.scalars {
		t.columns = append(t.columns, column{nn.Metric{Name: name, Width: 1, Mean: true}, i - 1, i, i + 1})
	}
	d := &Drill{
		task: t, world: world, pool: newHelpers(threads), sum: exact.NewSum(t.windows, world), scalars: t.newScalars(Update, world),
		grad: pages.Float32s(elements), attempt: &Attempt{Kind: Update, Grad: exact.StartExponents(len(t.windows)), Scalar: exact.StartExponents(len(t.columns))},
	}
	d.makeUp(rank)
	return d
}

// makeUp invents a gradient, and takes the grids that a step has which follows one of
// that size.
func (d *Drill) makeUp(rank int) {
	seed := uint64(rank) + 1
	for i := range d.grad {
		seed = seed*6364136223846793005 + 1442695040888963407
		d.grad[i] = float32(int64(seed)>>40) * (1.0 / (1 << 23)) // in [-1, 1)
	}
	for i := range d.attempt.Grad {
		d.attempt.Grad[i] = 0 // the exponent of 1/2 to 1, which all ranks take for granted
	}
	exact.Commit(d.attempt.Grad, make([]int16, len(d.attempt.Grad)))
	d.scalars.Reset(d.attempt.Scalar)
}

// Round rounds the gradient to its grids, as the only term of a sum.
func (d *Drill) Round() {
	d.sum.Reset(d.attempt.Grad)
	d.roundBlocks(0, d.sum.Blocks())
}

func (d *Drill) roundBlocks(from, to int) {
	d.pool.each(to-from, func(i int) {
		w := d.sum.Block(from + i)
		d.sum.AddBlock(from+i, d.grad[w.Lo:w.Hi])
	})
}

// Op is the all-reduce of the gradient, which is to be judged once it is done. One of several buckets is Open, and
// goes while it is rounded: Give has to follow its Start. A smaller one is rounded here.
func (d *Drill) Op(seq uint64) allreduce.Op {
	if d.sum.Blocks() > d.bucketLen() {
		d.sum.Reset(d.attempt.Grad)
		return d.op(allreduce.Op{Seq: seq, Open: true})
	}
	d.Round()
	return d.op(allreduce.Op{Seq: seq, Header: d.header()})
}

// Give rounds the gradient from its end to its beginning, as a backward pass comes by it, and gives what is ready.
func (d *Drill) Give(ready func(lo, hi int), head func(header []byte)) {
	for to := d.sum.Blocks(); to > 0; {
		from := max(to-d.bucketLen(), 0)
		d.roundBlocks(from, to)
		ready(d.sum.Block(from).Lo, d.sum.Block(to-1).Hi)
		to = from
	}
	head(d.header())
}

// Bare is the all-reduce of what was rounded, without a header: nothing is counted, and nothing is judged.
func (d *Drill) Bare(seq uint64) allreduce.Op { return d.op(allreduce.Op{Seq: seq}) }

func (d *Drill) bucketLen() int { return bucketLen(d.sum.Blocks()) }

func (d *Drill) header() []byte {
	c := Contribution{Count: 1, Grad: d.sum, Scalars: d.scalars, Mean: d.grad}
	return d.task.header(d.attempt, c, witness{}, 0, uint64(time.Millisecond), 0)
}

func (d *Drill) op(op allreduce.Op) allreduce.Op {
	op.Each = d.pool.each
	d.task.reduce(&op, d.attempt, Sums{d.sum, d.grad}, d.world)
	return op
}

// Judge looks at headers and total as a step's judge does: is each rank where this
// one is, did every gradient fit its grid, and have all integers arrived?
func (d *Drill) Judge(headers [][]byte, total uint64) error {
	var sum, count uint64
	seen := nothingSeen(len(d.task.windows))
	for rank, b := range headers {
		var h header
		if err := h.parse(b, len(seen), len(d.task.summed(Update)), d.task.sums(Update)); err != nil {
			return fmt.Errorf("train: rank %d sent %w", rank, err)
		}
		sum += h.Sum
		count += h.Count
		exact.MergeSeen(seen, h.GradSeen)
	}
	switch {
	case count != uint64(d.world):
		return fmt.Errorf("train: %d samples of %d ranks", count, d.world)
	case exact.Overflow(d.attempt.Grad, seen):
		return fmt.Errorf("train: a made up gradient does not fit its grid")
	case sum != total:
		return fmt.Errorf("train: the ranks' sums and the ring's total differ: memory, processor or network card of one of them is at fault")
	}
	return nil
}

// Mean is what the last op has left: valid until the next one.
func (d *Drill) Mean() []float32 { return d.grad }

// Close ends the helpers. No op may be in progress.
func (d *Drill) Close() { d.pool.close() }
