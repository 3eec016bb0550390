package train

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/dlnode/dlnode/cluster/view"
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
// Both are items: a head in JSON, and vectors behind it.
//
//	length of the head, 4 bytes LE │ head │ vectors, float32 LE
type item struct {
	head []byte // its length before it
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
	Headers  [][]byte // of all ranks
	Total    uint64   // allreduce.Reducer.Total
	Elements int      // of the gradient, 0 if there is none
	Sum      uint32   // its checksum
}

// maxHead bounds the head of an item that somebody else has made: a thousand ranks
// have headers of some kilobytes, a history of a thousand epochs has less.
const maxHead = 1 << 26

func newItem(h itemHead, body [][]float32) *item {
	b, err := json.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("train: what is lent cannot be encoded: %v", err))
	}
	return &item{append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...), body}
}

func (it *item) bytes() int {
	n := len(it.head)
	for _, v := range it.body {
		n += 4 * len(v)
	}
	return n
}

// part appends bytes of the item from an offset on, as many as dst has room for. It
// returns the offset behind them, and whether that is the end.
func (it *item) part(dst []byte, offset uint64) (b []byte, end uint64, whole bool) {
	skip, begun := offset, len(dst)
	take := func(b []byte) {
		if skip >= uint64(len(b)) {
			skip -= uint64(len(b))
			return
		}
		b = b[skip:]
		skip = 0
		dst = append(dst, b[:min(len(b), cap(dst)-len(dst))]...)
	}
	take(it.head)
	for _, v := range it.body {
		take(bytesOf(v))
	}
	end = offset + uint64(len(dst)-begun)
	return dst, end, end >= uint64(it.bytes())
}

// vectors lists all vectors of a state, in the order of an item.
func (s *State) vectors() [][]float32 {
	all := append([][]float32{s.params}, s.slots...)
	if s.best != nil {
		all = append(all, s.best)
	}
	return all
}

// intake puts an item together as its bytes come.
type intake struct {
	prefix []byte // length and head, as far as they are here
	body   [][]float32
	got    int // bytes of the vector in hand, body[0]
	opened bool
}

// take uses bytes up to the end of the item and returns the others. open is given
// the head and says where the vectors go.
func (in *intake) take(b []byte, open func(head []byte) ([][]float32, error)) (rest []byte, whole bool, err error) {
	for !in.opened {
		want := 4
		if len(in.prefix) >= 4 {
			n := binary.LittleEndian.Uint32(in.prefix)
			if n > maxHead {
				return nil, false, fmt.Errorf("a head of %d bytes, at most %d are allowed", n, maxHead)
			}
			want += int(n)
		}
		n := min(want-len(in.prefix), len(b))
		in.prefix, b = append(in.prefix, b[:n]...), b[n:]
		switch {
		case len(in.prefix) < want:
			return nil, false, nil
		case want > 4:
			if in.body, err = open(in.prefix[4:]); err != nil {
				return nil, false, err
			}
			in.opened = true
		case binary.LittleEndian.Uint32(in.prefix) == 0:
			return nil, false, errors.New("an item without a head")
		}
	}
	for len(in.body) > 0 {
		dst := bytesOf(in.body[0])
		n := copy(dst[in.got:], b)
		in.got, b = in.got+n, b[n:]
		if in.got < len(dst) {
			return nil, false, nil
		}
		in.body, in.got = in.body[1:], 0
	}
	return b, true, nil
}

// reset makes ready for the next item.
func (in *intake) reset() { *in = intake{prefix: in.prefix[:0]} }

// openState makes the state that a head announces, but for its vectors.
func (t *Task) openState(h *stateHead) *State {
	s := t.blank()
	s.meta = h.Meta.clone()
	if s.HasBest {
		s.best = pages.Float32s(len(s.params))
	}
	return s
}

var (
	// errWitness says that a copy is not what the donor had.
	errWitness = errors.New("the copy is not the state that the donor has")
	// errOdd says that a state, which was right when it was copied, is so no more.
	errOdd = errors.New("has another state than the members")
)

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
		return fmt.Errorf("%w at transition %d", errOdd, s.Transition)
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
func newRecord(a *Attempt, vd *verdict, headers [][]byte, total uint64, mean, to []float32, each Each) *item {
	h := &recordHead{Attempt: *a, Headers: make([][]byte, len(headers)), Total: total}
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
		crcs[i] = crc32.Checksum(bytesOf(dst[lo:hi]), castagnoli)
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
