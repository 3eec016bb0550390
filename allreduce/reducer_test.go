package allreduce

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/internal/kernel"
)

// The tests play a whole world in one goroutine: every link is a first-in first-out queue, and the
// order in which links deliver is drawn, so that a seed names a schedule.

var testFence = Fence{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// node is one rank with its links to the others.
type node struct {
	rank  int
	sum   *Reducer
	links [][][]byte // by rank: frames on their way there, in wire form
	ops   uint64     // ops completed

	vec   []float64
	out   []float32
	seen  []string    // headers given to Finish
	ready [][2]int    // ranges of an open op that are still to be declared
	mute  bool        // the header of an open op is still to be given
	packs func() bool // whether the next frame is packed; nil never
	lent  []window    // payloads that must stay as they are until the op is done
}

// window is a payload that was emitted, and what was in it.
type window struct{ now, then []byte }

type world struct {
	nodes []*node
	op    func(seq uint64) Op // length, algorithm, and how it is started

	spoilVec  func(rank int, vec []float64) // before it is given to the reducer
	spoilWire func(rank int, f Frame)       // before it is given to rank
	shuffle   func(n int) int               // below n; nil is 0
}

func newWorld(size, segmentBytes int, zones []int, op func(uint64) Op) *world {
	w := &world{op: op}
	for rank := range size {
		cfg := Config{Rank: rank, World: size, Fence: testFence, Zones: zones, SegmentBytes: segmentBytes, MaxElements: 1000}
		w.nodes = append(w.nodes, &node{rank: rank, sum: New(cfg), links: make([][][]byte, size)})
		meshed(w.nodes[rank].sum)
	}
	return w
}

// meshed has a reducer know that all ranks have all of their links.
func meshed(r *Reducer) {
	for rank := range r.models {
		r.models[rank] = linked
	}
	r.Linked()
}

// plainly is an op of n elements that is ready at once.
func plainly(a Algorithm, n int) func(uint64) Op {
	return func(uint64) Op { return Op{Algorithm: a, Vec: make([]float64, n)} }
}

func header(rank int, seq uint64) string {
	return strings.Repeat(fmt.Sprintf("%d@%d.", rank, seq), rank+1)
}

// summand is an integer, so that sums are exact in float64 and in float32.
func summand(rank int, seq uint64, i int) float64 { return float64(i*(rank+1)) - float64(seq) }

// total is the sum of all that all ranks give, mod 2^64.
func (w *world) total(seq uint64) (sum uint64) {
	for rank := range w.nodes {
		for i := range w.op(seq).Vec {
			sum += uint64(int64(summand(rank, seq, i)))
		}
	}
	return sum
}

func (w *world) start(rank int) error {
	n := w.nodes[rank]
	seq := n.sum.Seq() + 1
	op := w.op(seq)
	length := len(op.Vec)
	n.vec, n.out, n.seen = make([]float64, length), make([]float32, length), nil
	op.Seq, op.Vec, op.Out, op.Finish = seq, n.vec, n.out, n.finish
	if op.Open {
		for i := range n.vec {
			n.vec[i] = math.NaN() // nobody may read it yet
		}
		n.mute, n.ready = true, nil
		for lo := 0; lo < length; {
			hi := min(length, lo+1+w.draw(length))
			n.ready = append(n.ready, [2]int{lo, hi})
			lo = hi
		}
	} else {
		w.fill(n, 0, length, seq)
		op.Header = []byte(header(rank, seq))
	}
	from, err := n.sum.Start(op, n.emit)
	if err != nil {
		return fmt.Errorf("because of rank %d: %w", from, err)
	}
	return nil
}

func (w *world) draw(n int) int {
	if w.shuffle == nil {
		return 0
	}
	return w.shuffle(n)
}

func (w *world) fill(n *node, lo, hi int, seq uint64) {
	for i := lo; i < hi; i++ {
		n.vec[i] = summand(n.rank, seq, i)
	}
	if w.spoilVec != nil {
		w.spoilVec(n.rank, n.vec)
	}
}

// declare gives some of what an open op waits for.
func (w *world) declare(n *node) {
	seq := n.sum.Seq()
	if k := w.draw(len(n.ready) + 1); n.mute && (k == len(n.ready) || len(n.ready) == 0) {
		n.mute = false
		n.sum.Head([]byte(header(n.rank, seq)), n.emit)
	} else {
		k = min(k, len(n.ready)-1)
		r := n.ready[k]
		n.ready = slices.Delete(n.ready, k, k+1)
		w.fill(n, r[0], r[1], seq)
		n.sum.Ready(r[0], r[1], n.emit)
	}
}

// finish doubles the total, so that an element nobody or two finished shows.
func (n *node) finish(lo, hi int, total []float64, headers [][]byte, out []float32) uint64 {
	if len(total) != hi-lo || len(out) != hi-lo || &out[0] != &n.out[lo] {
		panic("finish: wrong windows")
	}
	n.seen = n.seen[:0]
	for _, h := range headers {
		n.seen = append(n.seen, string(h))
	}
	doubled := make([]float32, len(total))
	sum := kernel.Narrow(doubled, total, 2)
	for i, x := range doubled {
		out[i] += x
	}
	return sum
}

// plain is a Finish that gives each total as it is.
func plain(_, _ int, total []float64, _ [][]byte, out []float32) uint64 {
	return kernel.Narrow(out, total, 1)
}

func (n *node) emit(to []int, f Frame) {
	if f.Kind != Header {
		n.lent = append(n.lent, window{f.Payload, slices.Clone(f.Payload)})
	}
	for _, rank := range to {
		if n.packs != nil && n.packs() {
			p, err := f.Pack(nil)
			if err != nil {
				panic(err)
			}
			if p.Encoding == Packed && len(p.Payload) > f.PackedSize() {
				panic("more than the most")
			}
			n.links[rank] = append(n.links[rank], p.Append(nil))
			continue
		}
		n.links[rank] = append(n.links[rank], f.Append(nil))
	}
}

// deliver takes the oldest frame off a link.
func (w *world) deliver(from, to int) error {
	wire := w.nodes[from].links[to][0]
	w.nodes[from].links[to] = w.nodes[from].links[to][1:]
	f, err := ParseFrame(wire)
	if err != nil {
		return err
	}
	if w.spoilWire != nil {
		w.spoilWire(to, f)
	}
	if w.shuffle != nil {
		if f, err = inPieces(wire, w.shuffle); err != nil {
			return err
		}
	}
	n := w.nodes[to]
	if !n.owedOrEarly(from, f) {
		return fmt.Errorf("rank %d does not know that rank %d owes it %v", to, from, f)
	}
	err = n.sum.Receive(from, f, n.emit)
	clear(wire) // the payload was not kept
	return err
}

// inPieces cuts a frame's payload anywhere, as a link may.
func inPieces(wire []byte, draw func(int) int) (Frame, error) {
	pieces := [][]byte{wire}
	for range draw(4) {
		last := pieces[len(pieces)-1]
		from := 0
		if len(pieces) == 1 {
			from = FrameOverhead
		}
		cut := from + draw(len(last)-from+1)
		pieces = append(pieces[:len(pieces)-1], last[:cut], last[cut:])
	}
	return ParsePieces(pieces)
}

func (n *node) owedOrEarly(from int, f Frame) bool {
	return f.Seq != n.sum.Seq() || n.sum.Owes(from) > Nothing
}

// verify checks a completed op against the plain sum.
func (w *world) verify(t *rapid.T, rank int) {
	n := w.nodes[rank]
	headers, ok := n.sum.Done()
	if !ok {
		t.Fatalf("rank %d: no result", rank)
	}
	seq := n.sum.Seq()
	if got, want := n.sum.Total(), w.total(seq); got != want {
		t.Fatalf("rank %d, op %d: the totals add up to %x, all summands to %x", rank, seq, got, want)
	}
	for from, h := range headers {
		if string(h) != header(from, seq) {
			t.Fatalf("rank %d, op %d: header of rank %d is %q", rank, seq, from, h)
		}
	}
	if n.seen != nil && len(n.seen) > 0 == w.op(seq).Eager {
		t.Fatalf("rank %d, op %d: Finish saw %d headers", rank, seq, len(n.seen))
	}
	for i, got := range n.out {
		var want float64
		for from := range w.nodes {
			want += summand(from, seq, i)
		}
		if got != float32(2*want) {
			t.Fatalf("rank %d, op %d, %v: out[%d] = %v, want %v", rank, seq, n.sum.Algorithm(), i, got, 2*want)
		}
	}
	for _, l := range n.lent {
		if !bytes.Equal(l.now, l.then) {
			t.Fatalf("rank %d, op %d, %v: what was emitted has changed before the op was done", rank, seq, n.sum.Algorithm())
		}
	}
	n.lent = nil
	n.ops++
}

// drawWorld draws how many ranks there are, and their zones.
func drawWorld(t *rapid.T) (size int, zones []int) {
	size = rapid.IntRange(1, 9).Draw(t, "world")
	if rapid.Bool().Draw(t, "zoned") {
		zones = rapid.SliceOfN(rapid.IntRange(0, 2), size, size).Draw(t, "zones")
	}
	return size, zones
}

func TestEveryRankGetsTheSumAndAllHeadersInWhateverOrderLinksDeliver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, zones := drawWorld(t)
		algorithms := append(Algorithms(size, zones), Auto)
		var ops []Op
		for range rapid.IntRange(1, 4).Draw(t, "ops") {
			ops = append(ops, Op{
				Vec:       make([]float64, rapid.IntRange(0, 200).Draw(t, "length")),
				Algorithm: rapid.SampledFrom(algorithms).Draw(t, "algorithm"),
				Open:      rapid.Bool().Draw(t, "open"), Eager: rapid.Bool().Draw(t, "eager"),
			})
		}
		segment := 8*rapid.IntRange(1, 30).Draw(t, "segment") + rapid.IntRange(0, 7).Draw(t, "odd bytes")
		w := newWorld(size, segment, zones, func(seq uint64) Op { return ops[seq-1] })
		w.shuffle = func(n int) int { return rapid.IntRange(0, max(0, n-1)).Draw(t, "draw") }
		if rapid.Bool().Draw(t, "packed") {
			for _, n := range w.nodes {
				n.packs = func() bool { return w.shuffle(2) > 0 }
			}
		}
		late := rapid.Bool().Draw(t, "links come late")
		for rank, n := range w.nodes {
			if late {
				clear(n.sum.models)
			}
			n.sum.SetModel(Model(rapid.Uint64().Draw(t, fmt.Sprint("model of ", rank))))
		}
		for !w.complete(uint64(len(ops))) {
			w.move(t, uint64(len(ops)))
		}
		for rank, n := range w.nodes {
			if slices.ContainsFunc(n.links, func(l [][]byte) bool { return len(l) > 0 }) || len(n.sum.held) > 0 {
				t.Fatalf("rank %d: frames too many sent, or %d held", rank, len(n.sum.held))
			}
		}
	})
}

func (w *world) complete(ops uint64) bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.ops < ops })
}

// move does one thing that can happen, drawn among all of them.
func (w *world) move(t *rapid.T, ops uint64) {
	var moves []func() error
	var ranks []int
	can := func(rank int, do func() error) { moves, ranks = append(moves, do), append(ranks, rank) }
	for rank, n := range w.nodes {
		if n.ops < ops && n.sum.Seq() == n.ops {
			can(rank, func() error { return w.start(rank) })
		}
		if n.mute || len(n.ready) > 0 {
			can(rank, func() error { w.declare(n); return nil })
		}
		for to, l := range n.links {
			if len(l) > 0 {
				can(to, func() error { return w.deliver(rank, to) })
			}
		}
	}
	pick := rapid.IntRange(0, len(moves)-1).Draw(t, "move")
	rank := ranks[pick]
	if err := moves[pick](); err != nil {
		t.Fatalf("rank %d: %v", rank, err)
	}
	n := w.nodes[rank]
	if _, done := n.sum.Done(); done && n.sum.Seq() > n.ops {
		w.verify(t, rank)
	}
}

// play runs one op to its end, in one order.
func (w *world) play() error {
	for rank := range w.nodes {
		if err := w.start(rank); err != nil {
			return err
		}
	}
	for moved := true; moved; {
		moved = false
		for from, n := range w.nodes {
			for to := range n.links {
				for len(n.links[to]) > 0 {
					moved = true
					if err := w.deliver(from, to); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// flips draws a bit that flips in one element, and tells whether that makes it another integer. What
// makes it none may be lost in the next addition, and then no harm is done.
func flips(t *rapid.T, x float64) (flipped float64, another bool) {
	bit := rapid.IntRange(0, 63).Draw(t, "bit")
	y := math.Float64frombits(math.Float64bits(x) ^ 1<<bit)
	return y, y != x && y == math.Trunc(y) && math.Abs(y) < 1<<52
}

// right tells whether the op gave every rank what it should have.
func (w *world) right(n *node) bool {
	for i := range w.op(1).Vec {
		var want float64
		for from := range w.nodes {
			want += summand(from, 1, i)
		}
		if n.out[i] != float32(2*want) {
			return false
		}
	}
	return true
}

func TestABitThatFlipsBeforeTheTotalIsFinishedShowsInItsSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.IntRange(1, 60).Draw(t, "length")
		size, zones := drawWorld(t)
		a := rapid.SampledFrom(Algorithms(size, zones)).Draw(t, "algorithm")
		w := newWorld(size, 8*rapid.IntRange(1, 8).Draw(t, "segment"), zones, plainly(a, length))
		victim := rapid.IntRange(0, len(w.nodes)-1).Draw(t, "victim")
		done, another := false, false
		wired := len(w.nodes) > 1 && rapid.Bool().Draw(t, "on the wire")
		if wired {
			w.spoilWire = func(rank int, f Frame) {
				if done || rank != victim || f.Kind != Reduce && f.Kind != Share {
					return
				}
				var x float64
				x, another = flips(t, float64At(f.Payload))
				binary.LittleEndian.PutUint64(f.Payload, math.Float64bits(x))
				done = true
			}
		} else {
			w.spoilVec = func(rank int, vec []float64) {
				if rank == victim {
					i := rapid.IntRange(0, length-1).Draw(t, "element")
					vec[i], another = flips(t, vec[i])
				}
			}
		}
		if err := w.play(); err != nil {
			t.Fatal(err)
		}
		for rank, n := range w.nodes {
			_, ok := n.sum.Done()
			hit := another && (a != Exchange || !wired || rank == victim) // in an Exchange what one got is seen by that one
			if same := n.sum.Total() == w.total(1); !ok || same && (hit || !w.right(n)) {
				t.Fatalf("rank %d: complete %v, the totals' sum is that of the summands, the result is right: %v", rank, ok, w.right(n))
			}
			if n.sum.Total() != w.nodes[0].sum.Total() && a != Exchange {
				t.Fatalf("ranks 0 and %d have sums %x and %x", rank, n.sum.Total(), w.nodes[0].sum.Total())
			}
		}
	})
}

func TestBytesAreThoseOfTheDocumentation(t *testing.T) {
	const length = 720
	for size := 2; size <= 6; size++ {
		zones := make([]int, size)
		for i := range zones {
			zones[i] = i * 2 / size
		}
		for _, a := range Algorithms(size, zones) {
			w := newWorld(size, 64, zones, plainly(a, length))
			sent := make([]int, size) // bytes of elements by rank
			far := 0                  // of them to the other zone
			for _, n := range w.nodes {
				n.sum.cfg.MaxElements = length
			}
			if err := w.playCounting(func(from, to int, f Frame) {
				if f.Kind == Header {
					return
				}
				sent[from] += len(f.Payload)
				if zones[from] != zones[to] {
					far += len(f.Payload)
				}
			}); err != nil {
				t.Fatal(err)
			}
			most := slices.Max(sent)
			want := map[Algorithm]int{
				Ring: 12 * length * (size - 1) / size, Direct: 12 * length * (size - 1) / size,
				Tree: most, Exchange: 8 * length * (size - 1), TwoLevel: most,
			}[a]
			if a == Tree && most > 12*length*2 {
				t.Errorf("tree of %d: the busiest rank sends %d bytes", size, most)
			}
			if most != want {
				t.Errorf("%v of %d: the busiest rank sends %d bytes, want %d", a, size, most, want)
			}
			if want := 12 * length; a == TwoLevel && far != want {
				t.Errorf("%v of %d: %d bytes cross zones, want %d", a, size, far, want)
			}
		}
	}
}

// playCounting plays an op and tells of each frame.
func (w *world) playCounting(tell func(from, to int, f Frame)) error {
	for rank := range w.nodes {
		if err := w.start(rank); err != nil {
			return err
		}
	}
	for moved := true; moved; {
		moved = false
		for from, n := range w.nodes {
			for to := range n.links {
				for len(n.links[to]) > 0 {
					moved = true
					if f, err := ParseFrame(n.links[to][0]); err == nil {
						tell(from, to, f)
					}
					if err := w.deliver(from, to); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func TestTheSchedulesOfAllRanksFitTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 40).Draw(t, "world")
		var zones []int
		if rapid.Bool().Draw(t, "zoned") {
			zones = rapid.SliceOfN(rapid.IntRange(0, 3), size, size).Draw(t, "zones")
		}
		a := rapid.SampledFrom(Algorithms(size, zones)).Draw(t, "algorithm")
		all := make([]Schedule, size)
		links := make([][]int, size)
		for rank := range all {
			all[rank] = NewSchedule(a, rank, size, zones)
			links[rank] = Peers(rank, size, zones)
		}
		tree := func(what string, place func(rank int) Place) {
			for rank := range size {
				p := place(rank)
				for _, c := range p.Children {
					if q := place(c); q.Parent != rank || q.Root != p.Root {
						t.Fatalf("%v, %s: rank %d has child %d, whose parent is %d", a, what, rank, c, q.Parent)
					}
				}
				for _, n := range append([]int{p.Parent}, p.Children...) {
					if n >= 0 && !slices.Contains(links[rank], n) {
						t.Fatalf("%v, %s: rank %d has no link to %d", a, what, rank, n)
					}
				}
				steps := 0
				for at := rank; at != p.Root; at = place(at).Parent {
					if up := place(at).Parent; up < 0 || !slices.Contains(place(up).Children, at) {
						t.Fatalf("%v, %s: rank %d is no child of its parent %d", a, what, at, up)
					}
					if steps++; steps >= size {
						t.Fatalf("%v, %s: from rank %d no way leads to the root", a, what, rank)
					}
				}
			}
		}
		for q := range size {
			tree(fmt.Sprint("header ", q), func(rank int) Place { return all[rank].Heads[q] })
			if all[q].Heads[q].Parent != -1 || all[0].Heads[q].Root != q {
				t.Fatalf("%v: the header of rank %d does not start there", a, q)
			}
		}
		for c := range all[0].Chunks {
			if a != Exchange {
				tree(fmt.Sprint("chunk ", c), func(rank int) Place { return all[rank].Chunks[c] })
			}
		}
		for rank := range size {
			for _, p := range links[rank] {
				if !slices.Contains(links[p], rank) || Opens(rank, p, size) == Opens(p, rank, size) {
					t.Fatalf("the link of %d and %d: who opens it?", rank, p)
				}
			}
			if right := (rank + 1) % size; size > 2 && !Opens(rank, right, size) {
				t.Fatalf("nobody calls rank %d", right)
			}
		}
	})
}

// three returns rank 1 of three, with 12 elements in segments of two: each chunk has two segments. In
// the ring sums of chunk 1 come from rank 0, those of chunk 0 start here, and those of chunk 2 too.
func three(t testing.TB, a Algorithm, started bool) *Reducer {
	r := New(Config{Rank: 1, World: 3, Fence: testFence, SegmentBytes: 16, MaxElements: 12, MaxHeader: 4})
	if started {
		startThree(t, r, a)
	}
	return r
}

func nowhere([]int, Frame) {}

func startThree(t testing.TB, r *Reducer, a Algorithm) {
	op := Op{Seq: r.Seq() + 1, Algorithm: a, Vec: make([]float64, 12), Out: make([]float32, 12), Finish: plain}
	if from, err := r.Start(op, nowhere); err != nil {
		t.Fatalf("because of rank %d: %v", from, err)
	}
}

func frameOf(a Algorithm, kind Kind, chunk, segment uint32, payload int) Frame {
	return Frame{Fence: testFence, Seq: 1, Kind: kind, Algorithm: a, Chunk: chunk, Segment: segment, Payload: make([]byte, payload)}
}

func with(f Frame, change func(*Frame)) Frame {
	change(&f)
	return f
}

func TestFramesThatDoNotBelongHereAreRefusedAndNamed(t *testing.T) {
	reduce := frameOf(Direct, Reduce, 1, 0, 16) // from rank 0 or 2
	gather := frameOf(Direct, Gather, 0, 0, 8)  // from rank 0
	head := frameOf(Direct, Header, 0, 0, 4)    // from rank 0
	share := frameOf(Exchange, Share, 0, 0, 16) // from rank 0
	for name, c := range map[string]struct {
		from   int
		before []Frame
		frame  Frame
		want   string
	}{
		"another view":              {frame: with(reduce, func(f *Frame) { f.Fence[3]++ }), want: "this is view 01020304"},
		"no part of an op":          {frame: with(reduce, func(f *Frame) { f.Kind = Closing }), want: "no part of an op"},
		"no algorithm":              {frame: with(reduce, func(f *Frame) { f.Algorithm = Auto }), want: "no algorithm"},
		"another algorithm":         {frame: with(reduce, func(f *Frame) { f.Algorithm = Ring }), want: "op 1 of 12 elements is a direct here"},
		"a chunk too many":          {frame: with(reduce, func(f *Frame) { f.Chunk = 3 }), want: "chunk of a world of 3"},
		"a huge chunk":              {frame: with(reduce, func(f *Frame) { f.Chunk = math.MaxUint32 }), want: "chunk of a world of 3"},
		"an op of the past":         {frame: with(reduce, func(f *Frame) { f.Seq = 0 }), want: "op 1 is in progress"},
		"two ops ahead":             {frame: with(reduce, func(f *Frame) { f.Seq = 3 }), want: "op 1 is in progress"},
		"a result of the next op":   {frame: with(gather, func(f *Frame) { f.Seq = 2 }), want: "finished before rank 1 gave its part"},
		"a sum of another's chunk":  {frame: with(reduce, func(f *Frame) { f.Chunk = 0 }), want: "rank 1 adds nothing of rank 0 to it"},
		"a result of another":       {from: 2, frame: gather, want: "has it from rank 0, not from 2"},
		"a result of the own chunk": {frame: with(gather, func(f *Frame) { f.Chunk = 1 }), want: "has it from rank -1"},
		"the own header":            {frame: with(head, func(f *Frame) { f.Chunk = 1 }), want: "has it from rank -1"},
		"another's header":          {from: 2, frame: head, want: "has it from rank 0, not from 2"},
		"a sum again":               {before: []Frame{reduce}, frame: reduce, want: "it came before"},
		"a result again":            {before: []Frame{gather}, frame: gather, want: "it came before"},
		"a header again":            {before: []Frame{head}, frame: head, want: "the header of rank 0 came before"},
		"a header in parts":         {frame: with(head, func(f *Frame) { f.Segment = 1 }), want: "came before"},
		"a segment too many":        {frame: with(reduce, func(f *Frame) { f.Segment = 2 }), want: "this chunk has 2 segments"},
		"a huge segment":            {frame: with(gather, func(f *Frame) { f.Segment = math.MaxUint32 }), want: "this chunk has 2 segments"},
		"a short sum":               {frame: with(reduce, func(f *Frame) { f.Payload = f.Payload[:15] }), want: "2 elements of 8 bytes"},
		"a long sum":                {frame: with(reduce, func(f *Frame) { f.Payload = make([]byte, 24) }), want: "2 elements of 8 bytes"},
		"a short result":            {frame: with(gather, func(f *Frame) { f.Payload = nil }), want: "2 elements of 4 bytes"},
		"a long result":             {frame: with(gather, func(f *Frame) { f.Payload = make([]byte, 9) }), want: "2 elements of 4 bytes"},
		"a long header":             {frame: with(head, func(f *Frame) { f.Payload = make([]byte, 5) }), want: "at most 4 bytes"},
		"a packed sum of rubbish":   {frame: with(reduce, func(f *Frame) { f.Encoding, f.Payload = Packed, []byte{1} }), want: "packing: "},
		"a packed result of none":   {frame: with(gather, func(f *Frame) { f.Encoding, f.Payload = Packed, nil }), want: "packing: "},
		"a sum that is elsewhere":   {frame: with(reduce, func(f *Frame) { f.Encoding = Shared }), want: "its payload is elsewhere"},
		"a share":                   {frame: with(share, func(f *Frame) { f.Algorithm = Direct }), want: "a direct has none"},
		"a sum in an exchange":      {frame: with(reduce, func(f *Frame) { f.Algorithm = Exchange }), want: "a exchange has none"},
		"another's share":           {from: 2, frame: share, want: "it comes from rank 2"},
		"a share again":             {before: []Frame{share}, frame: share, want: "it came before"},
		"a result in an exchange":   {frame: with(gather, func(f *Frame) { f.Algorithm = Exchange }), want: "has it from rank -1"},
		"a chunk in an exchange":    {frame: with(gather, func(f *Frame) { f.Algorithm, f.Chunk = Exchange, 1 }), want: "a exchange has 1 chunks"},
		"a result too early":        {from: 2, frame: with(gather, func(f *Frame) { f.Algorithm, f.Chunk = Ring, 2 }), want: "finished before rank 1 gave its part"},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.frame.Algorithm
			if a == Auto || name == "another algorithm" || name == "a share" {
				a = Direct
			}
			r := three(t, a, true)
			for _, f := range c.before {
				if err := r.Receive(c.from, f, nowhere); err != nil {
					t.Fatal(err)
				}
			}
			err := r.Receive(c.from, c.frame, nowhere)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.frame.String()) {
				t.Fatalf("got %v, want %q for %v", err, c.want, c.frame)
			}
		})
	}
}

func TestEarlyFramesAreHeldWithinBounds(t *testing.T) {
	reduce := frameOf(Direct, Reduce, 1, 0, 16)
	for name, c := range map[string]struct {
		frames []Frame
		want   string // of the last frame's refusal
	}{
		"two ops ahead":       {frames: []Frame{with(reduce, func(f *Frame) { f.Seq = 2 })}, want: "op 1 is next"},
		"a result":            {frames: []Frame{frameOf(Direct, Gather, 0, 0, 8)}, want: "finished before rank 1 gave its part"},
		"too many elements":   {frames: []Frame{frameOf(Direct, Reduce, 1, 0, 736)}, want: "an op of 12 elements"},
		"too many in the sum": {frames: slices.Repeat([]Frame{frameOf(Direct, Reduce, 1, 0, 120)}, 7), want: "an op of 12 elements"},
		"too many summands":   {frames: slices.Repeat([]Frame{reduce}, 10), want: "an op of 12 elements"},
		"too many headers":    {frames: slices.Repeat([]Frame{frameOf(Direct, Header, 0, 0, 0)}, 4), want: "an op of 12 elements"},
	} {
		t.Run(name, func(t *testing.T) {
			r := three(t, Auto, false)
			for i, f := range c.frames {
				err := r.Receive(0, f, nowhere)
				if last := i == len(c.frames)-1; last != (err != nil) {
					t.Fatalf("frame %d of %d: %v", i+1, len(c.frames), err)
				} else if last && !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
			}
			if err := r.Receive(2, reduce, nowhere); err != nil {
				t.Fatalf("another peer pays for it: %v", err)
			}
		})
	}
}

func TestHeldFramesAreCheckedByStartWhichNamesTheirSender(t *testing.T) {
	r := three(t, Auto, false)
	for from, f := range []Frame{frameOf(Direct, Reduce, 1, 0, 16), 2: frameOf(Direct, Reduce, 1, 2, 16)} {
		if f.Kind != 0 {
			if err := r.Receive(from, f, nowhere); err != nil {
				t.Fatal(err)
			}
		}
	}
	from, err := r.Start(Op{Seq: 1, Algorithm: Direct, Vec: make([]float64, 12), Out: make([]float32, 12), Finish: plain}, nowhere)
	if err == nil || from != 2 || !strings.Contains(err.Error(), "this chunk has 2 segments") {
		t.Fatalf("rank %d: %v", from, err)
	}
}

func TestNothingIsFinishedBeforeAllHeadersAreThereUnlessEager(t *testing.T) {
	for _, eager := range []bool{false, true} {
		finished := 0
		r := New(Config{Rank: 1, World: 2, Fence: testFence, SegmentBytes: 8, MaxElements: 8})
		op := Op{
			Seq: 1, Algorithm: Direct, Vec: make([]float64, 4), Out: make([]float32, 4), Eager: eager,
			Finish: func(int, int, []float64, [][]byte, []float32) uint64 {
				finished++
				return 0
			},
		}
		if _, err := r.Start(op, nowhere); err != nil {
			t.Fatal(err)
		}
		for s := range uint32(2) {
			if err := r.Receive(0, frameOf(Direct, Reduce, 1, s, 8), nowhere); err != nil {
				t.Fatal(err)
			}
		}
		if (finished == 2) != eager {
			t.Fatalf("eager %v: %d finished without the other header", eager, finished)
		}
		if err := r.Receive(0, frameOf(Direct, Header, 0, 0, 0), nowhere); err != nil {
			t.Fatal(err)
		}
		if finished != 2 {
			t.Fatalf("%d segments finished, want 2", finished)
		}
	}
}

func TestBrokenPromisesOfTheCallerPanic(t *testing.T) {
	open := func(r *Reducer) {
		_, _ = r.Start(Op{Seq: 1, Open: true, Vec: make([]float64, 4), Out: make([]float32, 4), Finish: plain}, nowhere)
	}
	start := func(op Op) func(r *Reducer) { return func(r *Reducer) { _, _ = r.Start(op, nowhere) } }
	for name, do := range map[string]func(r *Reducer){
		"in progress":    func(r *Reducer) { startThree(t, r, Ring); startThree(t, r, Ring) },
		"seq":            start(Op{Seq: 2}),
		"lengths":        start(Op{Seq: 1, Vec: make([]float64, 1), Finish: plain}),
		"too long":       start(Op{Seq: 1, Vec: make([]float64, 13), Out: make([]float32, 13), Finish: plain}),
		"header":         start(Op{Seq: 1, Header: make([]byte, 5)}),
		"open header":    start(Op{Seq: 1, Header: make([]byte, 1), Open: true}),
		"no finish":      start(Op{Seq: 1, Vec: make([]float64, 1), Out: make([]float32, 1)}),
		"algorithm":      start(Op{Seq: 1, Algorithm: TwoLevel}),
		"head of no op":  func(r *Reducer) { r.Head(nil, nowhere) },
		"head twice":     func(r *Reducer) { open(r); r.Head(nil, nowhere); r.Head(nil, nowhere) },
		"ready in no op": func(r *Reducer) { r.Ready(0, 0, nowhere) },
		"ready twice":    func(r *Reducer) { open(r); r.Ready(1, 3, nowhere); r.Ready(2, 4, nowhere) },
		"ready beyond":   func(r *Reducer) { open(r); r.Ready(1, 5, nowhere) },
		"not open":       func(r *Reducer) { startThree(t, r, Ring); r.Ready(0, 1, nowhere) },
		"rank":           func(*Reducer) { New(Config{Rank: 1, World: 1}) },
		"world":          func(*Reducer) { New(Config{}) },
		"zones":          func(*Reducer) { New(Config{World: 2, Zones: []int{1}}) },
		"segment size":   func(*Reducer) { New(Config{World: 1, SegmentBytes: 7}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "allreduce: ") {
					t.Fatalf("recovered %q", s)
				}
			}()
			do(three(t, Auto, false))
		})
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, a := range Algorithms(3, nil) {
		t.Run(a.String(), func(t *testing.T) {
			w := newBench(3, 96, 64, a)
			w.op(t)
			w.op(t)
			if n := testing.AllocsPerRun(100, func() { w.op(t) }); n > 0 {
				t.Fatalf("%v allocations per op", n)
			}
			if _, ok := w[0].sum.Done(); !ok {
				t.Fatal("the loop does not complete its ops")
			}
		})
	}
}

func TestPayloadsMayLieAtAnyAddress(t *testing.T) {
	values := []float64{0, -1.5, math.Copysign(0, -1), math.MaxFloat64, math.SmallestNonzeroFloat64, 7}
	for n := range len(values) {
		for shift := range 9 {
			wire := append(make([]byte, shift), wire64(values[:n])...)
			sum, set := make([]float64, n), make([]float64, n)
			addWire(sum, wire[shift:])
			setWire(set, wire[shift:])
			for i := range n {
				if sum[i] != values[i] || set[i] != values[i] {
					t.Fatalf("element %d of %d at %d: %v, %v", i, n, shift, sum[i], set[i])
				}
			}
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(frameOf(Ring, Reduce, 2, 3, 16).Append(nil))
	f.Add(frameOf(Direct, Gather, 0, 0, 16).Append(nil))
	f.Add(frameOf(Tree, Header, 0, 0, 0).Append(nil))
	f.Add(frameOf(Exchange, Share, 0, 0, 16).Append(nil))
	f.Add(Frame{Kind: Closing, Payload: ClosingNote{"a", "b", "c", Broken}.Append(nil)}.Append(nil))
	f.Add(with(frameOf(Ring, Reduce, 2, 3, 16), func(f *Frame) { f.Encoding = Shared }).Append(nil))
	f.Add(Frame{Kind: Probe, Encoding: Shared, Payload: make([]byte, 16)}.Append(nil))
	f.Add([]byte{})
	f.Add(make([]byte, FrameOverhead))
	f.Add(make([]byte, FrameOverhead-1))
	two := frameOf(Ring, Header, 2, 3, 3)
	f.Add(append(append(two.Append(nil), make([]byte, two.Padding())...), two.Append(nil)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if frame, err := ParseFrame(b); err == nil && !bytes.Equal(frame.Append(nil), b) {
			t.Fatalf("%x parsed to %v", b, frame)
		}
		var again []byte
		for rest := b; len(rest) > 0; {
			frame, next, err := NextFrame(rest)
			if err != nil {
				return
			}
			again = append(again, make([]byte, -len(again)&7)...)
			again = frame.Append(again)
			for from := range 3 {
				for _, a := range []Algorithm{Auto, Ring, Direct, Exchange, Tree} {
					frame.Fence, frame.Seq = testFence, 1 // get past the door
					_ = three(t, a, a != Auto).Receive(from, frame, nowhere)
				}
			}
			rest = next
		}
		if len(b)-len(again) > 7 || !bytes.HasPrefix(b, again) {
			t.Fatalf("%x parsed to frames that are %x", b, again)
		}
	})
}

func TestChunksAndSegmentsTileTheVector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layout{
			n: rapid.IntRange(0, 500).Draw(t, "n"), world: rapid.IntRange(1, 20).Draw(t, "world"),
			segment: rapid.IntRange(1, 100).Draw(t, "segment"),
		}
		at := 0
		for c := range l.world {
			if lo, hi := l.chunk(c); hi-lo > l.n/l.world+1 || hi-lo < l.n/l.world {
				t.Fatalf("chunk %d is [%d, %d)", c, lo, hi)
			}
			for s := range l.segments(c) {
				lo, hi := l.slice(c, s)
				if lo != at || hi <= lo || hi-lo > l.segment {
					t.Fatalf("segment %d of chunk %d is [%d, %d), at %d", s, c, lo, hi, at)
				}
				at = hi
			}
			if _, hi := l.chunk(c); at != hi {
				t.Fatalf("chunk %d ends at %d, its segments at %d", c, hi, at)
			}
		}
		if at != l.n {
			t.Fatalf("%d elements of %d", at, l.n)
		}
	})
}

func FuzzParseClosingNote(f *testing.F) {
	f.Add(ClosingNote{By: "node-3", Blame: "node-1", Reason: "lost node-1: stream reset"}.Append(nil))
	f.Add([]byte{})
	f.Add([]byte{255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if note, err := ParseClosingNote(b); err == nil && !bytes.Equal(note.Append(nil), b) {
			t.Fatalf("%x parsed to %+v", b, note)
		}
	})
}

func TestClosingNotesAreCutBetweenRunes(t *testing.T) {
	long := ClosingNote{By: "n", Reason: strings.Repeat("ä", maxNoteString)}
	got, err := ParseClosingNote(long.Append(nil))
	if err != nil || got.Reason != strings.Repeat("ä", maxNoteString/2) || got.By != "n" {
		t.Fatalf("%d bytes: %v", len(got.Reason), err)
	}
	odd := ClosingNote{Reason: "x" + strings.Repeat("ä", maxNoteString)}
	if got, _ = ParseClosingNote(odd.Append(nil)); len(got.Reason) != maxNoteString-1 {
		t.Fatalf("%d bytes", len(got.Reason))
	}
}

func TestMalformedFramesAreErrors(t *testing.T) {
	good := frameOf(Ring, Reduce, 1, 2, 8).Append(nil)
	change := func(at int, to byte) []byte { b := slices.Clone(good); b[at] = to; return b }
	for want, b := range map[string][]byte{
		"at least 48 expected":               good[:FrameOverhead-1],
		"version 1":                          change(0, 1),
		"unknown kind 0":                     change(1, 0),
		"unknown kind 8":                     change(1, 8),
		"unknown algorithm 6":                change(2, 6),
		"reduce frame of unknown encoding 9": change(3, 9),
		"reduce frame of unknown encoding 3": change(3, 3),
		"header frame of unknown encoding 2": frameWith(good, Header, Shared),
		"probe frame of unknown encoding 1":  frameWith(good, Probe, Packed),
		"echo frame of unknown encoding 2":   frameWith(good, Echo, Shared),
		"payload of 7 bytes announced":       change(12, 7),
		"payload of 9 bytes announced":       change(12, 9),
		"payload of 264 bytes announce":      change(13, 1),
	} {
		if _, err := ParseFrame(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	odd := frameOf(Ring, Header, 0, 0, 3).Append(nil)
	for _, b := range [][]byte{append(slices.Clone(odd), 0, 0, 0, 0), append(slices.Clone(odd), 0, 0, 0, 1, 0, 0)} {
		if _, _, err := NextFrame(b); err == nil || !strings.Contains(err.Error(), "not followed by 5 zeros") {
			t.Errorf("%v", err)
		}
	}
}

// frameWith is a frame's wire form with another kind and encoding.
func frameWith(wire []byte, k Kind, e Encoding) []byte {
	b := slices.Clone(wire)
	b[1], b[3] = byte(k), byte(e)
	return b
}

// BenchmarkOp is what one rank computes in an op, without the network.
func BenchmarkOp(b *testing.B) {
	for _, size := range []int{1, 2, 4} {
		for _, length := range []int{1000, 101_770, 10_000_000} {
			for _, a := range Algorithms(size, nil) {
				b.Run(fmt.Sprintf("world=%d/elements=%d/%v", size, length, a), func(b *testing.B) {
					w := newBench(size, length, 0, a)
					w.op(b)
					for b.Loop() {
						w.op(b)
					}
					b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "us/rank")
				})
			}
		}
	}
}

// benchRank sends frames back to back in buffers that are reused.
type benchRank struct {
	sum    *Reducer
	op     Op
	queues [][]byte // by rank
	spare  []byte
	emit   Emit
}

type benchWorld []*benchRank

func newBench(size, length, segmentBytes int, a Algorithm) (w benchWorld) {
	for rank := range size {
		n := &benchRank{
			sum:    New(Config{Rank: rank, World: size, Fence: testFence, SegmentBytes: segmentBytes}),
			queues: make([][]byte, size),
		}
		meshed(n.sum)
		n.op = Op{Algorithm: a, Header: []byte("headers."), Vec: make([]float64, length), Out: make([]float32, length), Finish: plain}
		n.emit = func(to []int, f Frame) {
			for _, rank := range to {
				n.queues[rank] = f.Append(n.queues[rank])
			}
		}
		w = append(w, n)
	}
	return w
}

func (w benchWorld) op(t testing.TB) {
	for _, n := range w {
		n.op.Seq++
		if _, err := n.sum.Start(n.op, n.emit); err != nil {
			t.Fatal(err)
		}
	}
	for moved := true; moved; {
		moved = false
		for from, n := range w {
			for to := range w {
				wire := n.queues[to]
				n.queues[to], n.spare = n.spare[:0], n.queues[to]
				for len(wire) > 0 {
					moved = true
					f, rest, err := NextFrame(wire)
					if err == nil {
						err = w[to].sum.Receive(from, f, w[to].emit)
					}
					if err != nil {
						t.Fatal(err)
					}
					wire = rest
				}
			}
		}
	}
}
