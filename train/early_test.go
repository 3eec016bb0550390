package train

import (
	"errors"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cluster/view"
)

// earlyPiece is a piece that was lent while its attempt was under way.
type earlyPiece struct {
	asking
	rpc.Piece
}

// lendEarly has a node alone make its first transition, which its attempts are lent of:
// the first half of the gradient while each is under way. So many attempts have to be.
func lendEarly(t *testing.T, f *fitter, attempts int, c *coming) (pieces []earlyPiece) {
	t.Helper()
	half := span{0, f.task.Model.NumParams() / 2}
	ask := func(s span) (rpc.Piece, error) {
		return f.node.Borrow(time.Now(), rpc.FollowRequest{Trajectory: f.task.Trajectory, From: "newcomer", Lo: uint64(s.lo), Hi: uint64(s.hi)})
	}
	for f.exit == nil && f.node.state.Transition == 0 {
		for _, e := range f.node.Take() {
			if _, is := e.(Compute); is {
				if _, err := ask(span{}); !errors.Is(err, errNotYet) {
					t.Fatalf("the head of a record that is to come: %v", err)
				}
			}
			if r, is := e.(Reduce); is {
				if !r.Lent {
					t.Fatal("somebody copies, and an attempt is not lent")
				}
				if _, err := ask(half); !errors.Is(err, errNotYet) {
					t.Fatalf("elements that have not come are lent: %v", err)
				}
				r.Op.Final = func(lo, hi int) {
					f.node.Final(time.Now(), r.View, r.Op.Seq, []span{{lo, hi}})
					if p, err := ask(half); err == nil {
						pieces = append(pieces, earlyPiece{asking{what: c, span: half}, p})
					} else if !errors.Is(err, errNotYet) {
						t.Fatal(err)
					}
				}
				e = r
			}
			f.do(e)
		}
	}
	ids := map[uint64]bool{}
	for _, p := range pieces {
		ids[p.Attempt] = true
	}
	if len(ids) != attempts || ids[0] {
		t.Fatalf("pieces of attempts %v were lent early, want those of %d", ids, attempts)
	}
	return pieces
}

// newcomer is a node that has the state which a lender starts from, and expects its first record.
func newcomer(task *Task) (*Node, *coming) {
	c := expected(0, make([]float32, task.Model.NumParams()))
	c.asked, c.open = true, nil // all is asked for
	n := NewNode(task, task.Start(), view.DefaultConfig(view.Fact{ID: "newcomer", Incarnation: 9, Trajectory: task.Trajectory}), checkpoint.Policy{Replicas: 1}, time.Now())
	n.follower = &follower{donors: []donor{{}}, asks: map[uint64]asking{}, hasState: true, coming: []*coming{c}}
	return n, c
}

// brings has a newcomer use what a lender answers.
func brings(t *testing.T, n *Node, from *fitter, c *coming, s span) {
	t.Helper()
	p, err := from.node.Borrow(time.Now(), rpc.FollowRequest{Trajectory: n.task.Trajectory, From: "newcomer", Lo: uint64(s.lo), Hi: uint64(s.hi)})
	if err == nil {
		err = n.use(time.Now(), asking{what: c, span: s}, p)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// arrives asks again for what is open, and sees that the newcomer comes to where the lender is.
func arrives(t *testing.T, n *Node, from *fitter, c *coming, open span) {
	t.Helper()
	if len(c.open) != 1 || c.open[0] != open || c.left != open.hi-open.lo {
		t.Fatalf("%d elements are lacking, to be asked for are %v; want %v", c.left, c.open, open)
	}
	s, _ := c.take(open.hi-open.lo, span{}, true)
	brings(t, n, from, c, s)
	if !c.whole() {
		t.Fatalf("%d elements are still lacking", c.left)
	}
	if err := n.task.replay(n.state, c.head.Record, c.mean, inTurn); err != nil {
		t.Fatal(err)
	}
	if n.task.digest(n.state) != n.task.digest(from.node.state) {
		t.Error("the newcomer has another state than the lender")
	}
}

// lateOverflow is a task whose first attempt does not fit its grid, but has totals.
func lateOverflow(t *testing.T) *Task {
	task := simTask(t)
	for i := range task.start.GradExps {
		task.start.GradExps[i] = -12
	}
	return task
}

// TestAPieceOfAnAttemptThatWasRepeatedIsAskedForAgain: whether it has come before the head
// of the record or comes after it.
func TestAPieceOfAnAttemptThatWasRepeatedIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		task := lateOverflow(t)
		f := newFitter(t.Context(), task, 1, nil)
		defer f.pool.close()
		n, c := newcomer(task)
		repeated := lendEarly(t, f, 2, c)[0]
		half, rest := repeated.span, span{repeated.span.hi, len(c.mean)}
		if late {
			brings(t, n, f, c, span{})
		}
		if err := n.use(time.Now(), repeated.asking, repeated.Piece); err != nil {
			t.Fatal(err)
		}
		if !late {
			brings(t, n, f, c, span{})
		}
		brings(t, n, f, c, rest)
		arrives(t, n, f, c, half)
	}
}

// TestPiecesOfTwoViewsAreNotPutTogether: two donors, who have parted, lend attempts at the
// same transition. The record says which of them counts; the other's pieces are asked for again.
func TestPiecesOfTwoViewsAreNotPutTogether(t *testing.T) {
	t.Parallel()
	task := lateOverflow(t)
	here, there := newFitter(t.Context(), task, 1, nil), newFitter(t.Context(), task, 1, nil)
	defer here.pool.close()
	defer there.pool.close()
	there.node = NewNode(task, task.Start(), view.DefaultConfig(view.Fact{ID: "alone", Incarnation: 2, Trajectory: task.Trajectory}), checkpoint.Policy{Replicas: 1}, time.Now())
	there.node.Share(there.pool.each)
	there.node.Ready(time.Now())
	n, c := newcomer(task)
	strange := lendEarly(t, there, 2, c)
	lendEarly(t, here, 2, c)
	p := strange[len(strange)-1]
	if err := n.use(time.Now(), p.asking, p.Piece); err != nil {
		t.Fatal(err)
	}
	brings(t, n, here, c, span{p.span.hi, len(c.mean)})
	if c.whole() || c.left != 0 {
		t.Fatalf("%d elements are lacking before the head has come", c.left)
	}
	brings(t, n, here, c, span{})
	arrives(t, n, here, c, p.span)
}

// TestAPieceOfTheAttemptThatCountsIsKept, and one that cannot be read is asked for once.
func TestAPieceOfTheAttemptThatCountsIsKept(t *testing.T) {
	t.Parallel()
	task := lateOverflow(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	n, c := newcomer(task)
	pieces := lendEarly(t, f, 2, c)
	counts, broken := pieces[len(pieces)-1], pieces[0]
	broken.Bytes = broken.Bytes[1:]
	if n.use(time.Now(), broken.asking, broken.Piece) == nil {
		t.Fatal("a piece is used that lacks a byte")
	}
	if err := n.use(time.Now(), counts.asking, counts.Piece); err != nil {
		t.Fatal(err)
	}
	rest := span{counts.span.hi, len(c.mean)}
	c.back(rest)
	brings(t, n, f, c, span{})
	arrives(t, n, f, c, rest)
}

// TestAMemberThatHasLeaptLendsNothingOfTheWay: it has copied a state, and has no record
// of the transitions before. They are no transitions without a gradient.
func TestAMemberThatHasLeaptLendsNothingOfTheWay(t *testing.T) {
	t.Parallel()
	task := simTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	n, c := newcomer(task)
	for f.node.views.Fact().Entry == 0 {
		f.turn()
	}
	r := rpc.FollowRequest{Trajectory: task.Trajectory, From: "newcomer", Hi: 10}
	if _, err := f.node.Borrow(time.Now(), r); !errors.Is(err, errNotYet) || f.node.state.Transition != 0 {
		t.Fatalf("a record that is to come, at transition %d: %v", f.node.state.Transition, err)
	}
	leapt := task.blank()
	leapt.copyFrom(f.node.state, inTurn)
	leapt.Transition += 5
	f.node.adopt(leapt)
	p, err := f.node.Borrow(time.Now(), r)
	if err != nil || p.First != leapt.Transition || len(p.Bytes) != 0 {
		t.Fatalf("%d bytes of transition 0, and records from %d on: %v", len(p.Bytes), p.First, err)
	}
	if err := n.use(time.Now(), asking{what: c, span: span{0, 10}}, p); err != nil || len(c.open) != 1 || c.left != len(c.mean) {
		t.Errorf("%d elements are lacking, to be asked for are %v: %v", c.left, c.open, err)
	}
}
