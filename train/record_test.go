package train

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
)

// reading takes what a member lends, without a node around it.
type reading struct {
	t      *testing.T
	task   *Task
	piece  int // elements
	packed bool
	at     uint64 // transition of the next record
	state  *State
	record *recordHead
	mean   []float32
}

func newReading(t *testing.T, task *Task, piece int, packed bool) *reading {
	return &reading{t: t, task: task, piece: piece, packed: packed, mean: make([]float32, task.Model.NumParams())}
}

func (r *reading) ask(n *Node, q rpc.FollowRequest) (rpc.Piece, error) {
	q.Trajectory, q.From, q.Packed = r.task.Trajectory, "a reader", r.packed
	return n.Borrow(time.Now(), q)
}

// more reads until there is nothing, and calls whole for each item.
func (r *reading) more(n *Node, whole func()) error {
	if r.state == nil {
		p, err := r.ask(n, rpc.FollowRequest{Begin: true})
		if err != nil {
			return err
		}
		r.state = r.task.openState(r.head(p).State)
		r.at = p.Transition
		r.vectors(n, rpc.FollowRequest{At: r.at, State: true, Transition: r.at}, r.state.vectors())
		whole()
	}
	for {
		p, err := r.ask(n, rpc.FollowRequest{At: r.at, Transition: r.at})
		if err != nil {
			return err
		}
		r.record = r.head(p).Record
		r.vectors(n, rpc.FollowRequest{At: r.at, Transition: r.at}, [][]float32{r.mean[:r.record.Elements]})
		r.at++
		whole()
	}
}

func (r *reading) head(p rpc.Piece) (h itemHead) {
	if err := json.Unmarshal(p.Bytes, &h); err != nil {
		r.t.Fatal(err)
	}
	return h
}

// vectors gets all elements, the last ones first.
func (r *reading) vectors(n *Node, q rpc.FollowRequest, body [][]float32) {
	c := coming{asked: true}
	c.want(body)
	var spans []span
	for s, ok := c.take(r.piece, span{}, true); ok; s, ok = c.take(r.piece, span{}, true) {
		spans = append(spans, s)
	}
	for _, s := range slices.Backward(spans) {
		q.Lo, q.Hi = uint64(s.lo), uint64(s.hi)
		p, err := r.ask(n, q)
		if err != nil {
			r.t.Fatal(err)
		}
		v, _ := window(body, q.Lo, q.Hi)
		if err := readElements(v, p.Bytes, p.Packed); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestRecordsLeadToTheSameStates has a reader follow a node from an early state to
// the final one, over every kind of transition, in pieces of any size, packed or not.
func TestRecordsLeadToTheSameStates(t *testing.T) {
	t.Parallel()
	for i, piece := range []int{1, 333, 5000} {
		task := simTask(t)
		f := newFitter(t.Context(), task, 1, nil)
		defer f.pool.close()
		f.node.Lend(Lending{Piece: piece})
		r := newReading(t, task, piece, i%2 == 1)
		is := map[uint64][32]byte{}
		kinds := map[Kind]int{}
		for f.exit == nil {
			f.turn()
			s := f.node.state
			is[s.Transition] = task.digest(s)
			if s.Transition < 3 || f.exit != nil {
				continue
			}
			err := r.more(f.node, func() {
				if r.record == nil {
					return
				}
				kinds[r.record.Attempt.Kind]++
				if err := task.replay(r.state, r.record, r.mean, inTurn); err != nil {
					t.Fatal(err)
				}
				if task.digest(r.state) != is[r.state.Transition] {
					t.Fatalf("another state at transition %d", r.state.Transition)
				}
			})
			if !errors.Is(err, errNotYet) && r.state.Next != Done { // then the node goes
				t.Fatal(err)
			}
		}
		if r.state.Next != Done {
			t.Errorf("the reader has come to transition %d, the node to %d", r.state.Transition, f.node.state.Transition)
		}
		for _, k := range []Kind{Update, Evaluate, Finish} {
			if kinds[k] == 0 {
				t.Errorf("no record of %s", k)
			}
		}
	}
}

// TestARecordThatDoesNotFitMovesNothing: twice the same, one left out, a changed
// gradient, another's state.
func TestARecordThatDoesNotFitMovesNothing(t *testing.T) {
	t.Parallel()
	task := simTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	r := newReading(t, task, 1000, false)
	type kept struct {
		head *recordHead
		mean []float32
	}
	var records []kept
	for f.node.state.Transition < 6 {
		f.turn()
		if f.node.state.Transition < 2 {
			continue
		}
		_ = r.more(f.node, func() {
			if r.record != nil {
				records = append(records, kept{r.record, append([]float32(nil), r.mean...)})
			}
		})
	}
	mean := func(i int) []float32 { return append([]float32(nil), records[i].mean...) }
	s := r.state
	before := task.digest(s)
	refused := func(what string, err error) {
		t.Helper()
		if err == nil || task.digest(s) != before {
			t.Errorf("%s: error %v, the state has moved: %v", what, err, task.digest(s) != before)
		}
	}
	refused("one left out", task.replay(s, records[1].head, mean(1), inTurn))
	spoiled := mean(0)
	spoiled[7] += 1
	refused("a changed gradient", task.replay(s, records[0].head, spoiled, inTurn))
	short := *records[0].head
	short.Elements--
	refused("a short gradient", task.replay(s, &short, mean(0), inTurn))
	short = *records[0].head
	short.Headers = nil
	refused("no headers", task.replay(s, &short, mean(0), inTurn))
	was := s.params[3]
	s.params[3] += 1
	before = task.digest(s)
	refused("another state", task.replay(s, records[0].head, mean(0), inTurn))
	s.params[3] = was
	if err := task.replay(s, records[0].head, mean(0), inTurn); err != nil {
		t.Fatal(err)
	}
	before = task.digest(s)
	refused("the same once more", task.replay(s, records[0].head, mean(0), inTurn))
	if err := task.replay(s, records[1].head, mean(1), inTurn); err != nil {
		t.Fatal(err)
	}
}

// TestWhoFallsSilentKeepsNobodyFromBeginning: what is kept for one who has died while
// it copied is no reason to make another who begins wait until that one is forgotten.
func TestWhoFallsSilentKeepsNobodyFromBeginning(t *testing.T) {
	t.Parallel()
	task := simTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	const limit = 9000
	f.node.Lend(Lending{Records: limit, Piece: 1000})
	turns := func(transitions uint64) {
		for to := f.node.state.Transition + transitions; f.node.state.Transition < to; {
			f.turn()
		}
	}
	now := time.Now()
	begin := func(who string) (rpc.Piece, error) {
		return f.node.Borrow(now, rpc.FollowRequest{Trajectory: task.Trajectory, From: who, Begin: true})
	}
	turns(2)
	for _, who := range []string{"dead", "next", "the one after"} {
		p, err := begin(who)
		if errors.Is(err, errNotYet) {
			turns(2)
			p, err = begin(who)
		}
		if err != nil || len(p.Bytes) == 0 {
			t.Fatalf("%s gets %d bytes of transition %d of %d: %v", who, len(p.Bytes), p.Transition, f.node.state.Transition, err)
		}
		for f.node.lender.bytes <= limit/2 {
			turns(1)
		}
	}
}

// TestALenderKeepsWithinItsBounds: records are let go when there are too many, and
// all of it when nobody asks any more.
func TestALenderKeepsWithinItsBounds(t *testing.T) {
	t.Parallel()
	task := simTask(t)
	f := newFitter(t.Context(), task, 1, nil)
	defer f.pool.close()
	const limit = 9000
	f.node.Lend(Lending{Records: limit, Piece: 1000})
	turns := func(transitions uint64) {
		for to := f.node.state.Transition + transitions; f.node.state.Transition < to; {
			f.turn()
			if l := f.node.lender; l != nil && l.bytes > limit {
				t.Fatalf("%d bytes of records are kept, %d allowed", l.bytes, limit)
			}
		}
	}
	turns(2)
	begin := rpc.FollowRequest{Trajectory: task.Trajectory, From: "slow", Begin: true}
	now := time.Now()
	if p, err := f.node.Borrow(now, begin); !errors.Is(err, errNotYet) {
		t.Fatalf("%d bytes of a state that nobody has compared are lent: %v", len(p.Bytes), err)
	}
	turns(2)
	p, err := f.node.Borrow(now, begin)
	if err != nil || p.Transition != 3 || len(p.Bytes) == 0 {
		t.Fatalf("%d bytes of transition %d: %v", len(p.Bytes), p.Transition, err)
	}
	turns(2)
	next := rpc.FollowRequest{Trajectory: task.Trajectory, From: "slow", At: 3, State: true, Transition: 3, Lo: 0, Hi: 10}
	if p, err := f.node.Borrow(now, next); err != nil || len(p.Bytes) != 40 {
		t.Errorf("%d bytes of ten elements: %v", len(p.Bytes), err)
	}
	for what, hi := range map[string]uint64{"more than a piece": 1001, "elements of two vectors": uint64(len(f.node.state.params)) + 1} {
		bad := next
		if bad.Hi = hi; hi > 1000 {
			bad.Lo = max(hi, 1000) - 1000
		}
		if what == "more than a piece" {
			bad.Lo = 0
		}
		if _, err := f.node.Borrow(now, bad); err == nil {
			t.Errorf("%s are lent", what)
		}
	}
	turns(10)
	if len(f.node.lender.records) < 2 {
		t.Errorf("only %d records are kept", len(f.node.lender.records))
	}
	if _, err := f.node.Borrow(now, next); !errors.Is(err, errLapsed) {
		t.Errorf("the state whose records are gone is still lent: %v", err)
	}
	if _, err := f.node.Borrow(now, begin); !errors.Is(err, errNotYet) {
		t.Error(err)
	}
	turns(2)
	if p, err = f.node.Borrow(now, begin); err != nil || p.Transition+1 != f.node.state.Transition {
		t.Errorf("who begins again gets transition %d of %d: %v", p.Transition, f.node.state.Transition, err)
	}
	if other := begin; true {
		other.Trajectory[0]++
		if _, err := f.node.Borrow(now, other); err == nil {
			t.Error("a state is lent to another trajectory")
		}
	}
	f.node.Tick(now.Add(forgetAfter/2), nil)
	if f.node.lender == nil {
		t.Error("what is lent is gone too early")
	}
	f.node.Tick(now.Add(2*forgetAfter), nil)
	if f.node.lender != nil {
		t.Error("nobody asks any more, and all is kept")
	}
}
