package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/dlnode/dlnode/allreduce/packing"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/pages"
)

// What a node copies that wants to join, while the others train, is a state and
// the records of what came after it. As the state is a function of the one before
// and of what the all-reduce gave,
//
//	S(t+1) = commit(S(t), record(t))
//
// whoever has S(t) and the record of t goes on to S(t+1) by the very code that the
// members use, computes nothing and is waited for by nobody.
//
// Both are items: a head in JSON, and vectors. Every member that keeps one has it
// bit for bit, so its pieces may come from any of them, in any order.
type item struct {
	head []byte
	body [][]float32
}

// itemHead is what an item begins with: one of the two is there.
type itemHead struct {
	State  *stateHead  `json:"state,omitempty"`
	Record *recordHead `json:"record,omitempty"`
}

// stateHead goes before a whole state: parameters, slots and best weights follow.
type stateHead struct {
	Meta         meta   `json:"meta"`
	Watch, Audit uint64 // the witness of the state
}

// recordHead goes before the mean gradient of an update, and stands alone for
// transitions that have none.
type recordHead struct {
	Attempt  Attempt  // the one that was committed
	ID       uint64   // its attemptID
	Headers  [][]byte // of all ranks
	Total    uint64   // allreduce.Reducer.Total
	Elements int      // of the gradient, 0 if there is none
	Sum      uint32   // its checksum
}

func newItem(h itemHead, body [][]float32) *item {
	b, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("train: what is lent cannot be encoded: %v", err))
	}
	return &item{b, body}
}

func (it *item) bytes() int { return len(it.head) + 4*elements(it.body) }

// elements is how many all vectors have.
func elements(body [][]float32) (n int) {
	for _, v := range body {
		n += len(v)
	}
	return n
}

// window is elements [lo, hi) of vectors that follow one another, if they lie in one.
func window(body [][]float32, lo, hi uint64) ([]float32, bool) {
	for _, v := range body {
		n := uint64(len(v))
		if lo < n {
			return v[lo:min(hi, n)], lo < hi && hi <= n
		}
		lo, hi = lo-n, hi-min(n, hi)
	}
	return nil, false
}

// appendElements appends v as bytes, packed if that is wanted and makes them fewer.
func appendElements(b []byte, v []float32, pack bool) (all []byte, packed bool) {
	if pack {
		if all = packing.AppendFloats(slices.Grow(b, packing.MaxFloats(len(v))+64), v); len(all) < len(b)+4*len(v) {
			return all, true
		}
	}
	return append(b, bytesOf(v)...), false
}

// readElements sets v to what appendElements has made of its like.
func readElements(v []float32, b []byte, packed bool) error {
	if packed {
		return packing.DecodeFloats(v, b)
	}
	if len(b) != 4*len(v) {
		return fmt.Errorf("%d elements in %d bytes", len(v), len(b))
	}
	copy(bytesOf(v), b)
	return nil
}

// vectors lists all vectors of a state, in the order of an item.
func (s *State) vectors() [][]float32 {
	all := append([][]float32{s.params}, s.slots...)
	if s.best != nil {
		all = append(all, s.best)
	}
	return all
}

// openState makes the state that a head announces, but for its vectors.
func (t *Task) openState(h *stateHead) *State {
	s := t.blank()
	s.meta = h.Meta.clone()
	if s.HasBest {
		s.best = pages.Float32s(len(s.params))
	}
	return s
}

// errWitness says that a copy is not what the donor had.
var errWitness = errors.New("the copy is not the state that the donor has")

// check holds a copied state against the donor's word.
func (h *stateHead) check(t *Task, s *State, each Each) error {
	for _, is := range [...]struct {
		what      string
		got, want int
	}{
		{"tensors", len(s.GradExps), len(t.start.GradExps)}, {"sums", len(s.Running), len(t.start.Running)},
		{"columns", len(s.TrainExps), len(t.start.TrainExps)}, {"columns", len(s.EvalExps), len(t.start.EvalExps)},
	} {
		if is.got != is.want {
			return fmt.Errorf("a state of %d %s, want %d", is.got, is.what, is.want)
		}
	}
	if s.witness(each) != (witness{h.Watch, h.Audit}) {
		return errWitness
	}
	return nil
}

// replay moves s over the transition of a record, as commit did where it was made.
// What the members have told each other of the state before is told to s, too:
// who has copied a wrong bit is found out here, and not in a ring. mean is used up.
func (t *Task) replay(s *State, r *recordHead, mean []float32, each Each) error {
	a := &r.Attempt
	if a.Transition != s.Transition || a.Kind != s.Next || a.Step != s.Step {
		return fmt.Errorf("a record of transition %d, %s of step %d; the state is at %d, %s of step %d", a.Transition, a.Kind, a.Step, s.Transition, s.Next, s.Step)
	}
	if want := t.attempt(s); len(a.Grad) != len(want.Grad) || len(a.Scalar) != len(want.Scalar) || len(r.Headers) == 0 {
		return fmt.Errorf("the record of transition %d has %d and %d exponents and %d headers", a.Transition, len(a.Grad), len(a.Scalar), len(r.Headers))
	}
	vd := t.judge(a, ranks(len(r.Headers)), nil, r.Headers, r.Total)
	switch {
	case vd.torn != nil:
		return vd.torn
	case vd.fatal != nil:
		return vd.fatal
	case vd.faults != nil:
		return errors.New(vd.evidence())
	case vd.again != nil:
		return fmt.Errorf("the record of transition %d is of an attempt that was repeated", a.Transition)
	case headerWatch(r.Headers[0]) != s.watch(each):
		return fmt.Errorf("the members had another state at transition %d: they have gone back meanwhile, or a bit has flipped here", s.Transition)
	case a.Kind == Update && !vd.skip && r.Elements != len(s.params):
		return fmt.Errorf("the record of transition %d has a gradient of %d elements, want %d", a.Transition, r.Elements, len(s.params))
	case checksum(each, [][]float32{mean[:r.Elements]}) != r.Sum:
		return fmt.Errorf("the gradient of transition %d has changed on its way", a.Transition)
	}
	t.commit(s, a, vd, mean, nil, each)
	return nil
}

// ranks is a view of members without names, for the judge of a record.
func ranks(n int) *view.View {
	v := &view.View{Members: make([]view.Member, n)}
	for i := range v.Members {
		v.Members[i] = view.Member{ID: fmt.Sprintf("rank %d", i)}
	}
	return v
}

// newRecord keeps what an attempt gave before commit uses it up. mean is copied
// into to, which is as long.
func newRecord(a *Attempt, id uint64, vd *verdict, headers [][]byte, total uint64, mean, to []float32, each Each) *item {
	h := &recordHead{Attempt: *a, ID: id, Headers: make([][]byte, len(headers)), Total: total}
	for i, b := range headers {
		h.Headers[i] = slices.Clone(b)
	}
	if a.Kind != Update || vd.skip {
		h.Sum = checksum(each, [][]float32{nil})
		return newItem(itemHead{Record: h}, nil)
	}
	h.Elements, h.Sum = len(mean), copySum(each, to, mean)
	return newItem(itemHead{Record: h}, [][]float32{to})
}

// copySum copies a vector and returns its checksum, in one pass.
func copySum(each Each, dst, src []float32) uint32 {
	crcs := make([]uint32, (len(src)+pieceLen-1)/pieceLen)
	each(len(crcs), func(i int) {
		lo, hi := i*pieceLen, min((i+1)*pieceLen, len(src))
		copy(dst[lo:hi], src[lo:hi])
		crcs[i] = kernel.CRC32C(0, bytesOf(dst[lo:hi]))
	})
	return crc32.Checksum(bytesOf(crcs), castagnoli)
}

// copyVectors copies vectors of equal lengths.
func copyVectors(each Each, dst, src [][]float32) {
	type piece struct{ dst, src []float32 }
	var pieces []piece
	for i, v := range src {
		for lo := 0; lo < len(v); lo += pieceLen {
			hi := min(lo+pieceLen, len(v))
			pieces = append(pieces, piece{dst[i][lo:hi], v[lo:hi]})
		}
	}
	each(len(pieces), func(i int) { copy(pieces[i].dst, pieces[i].src) })
}
