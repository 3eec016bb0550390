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

// The tests play a whole ring in one goroutine: every link is a first-in first-out queue, and the
// order in which links deliver is drawn, so that a seed names a schedule.

var testFence = Fence{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// node is one rank with its link to the right.
type node struct {
	ring *Ring
	link [][]byte // frames on their way to the right neighbour, in wire form
	ops  uint64   // ops completed

	vec  []float64
	out  []float32
	seen []string // headers given to Finish
}

type world struct {
	nodes  []*node
	length func(seq uint64) int

	spoilVec  func(rank int, vec []float64) // before it is given to the ring
	spoilWire func(rank int, f Frame)       // before it is given to rank
}

func newWorld(size, segmentBytes int, length func(uint64) int) *world {
	w := &world{length: length}
	for rank := range size {
		cfg := Config{Rank: rank, World: size, Fence: testFence, SegmentBytes: segmentBytes, MaxElements: 1000}
		w.nodes = append(w.nodes, &node{ring: New(cfg)})
	}
	return w
}

func header(rank int, seq uint64) string {
	return strings.Repeat(fmt.Sprintf("%d@%d.", rank, seq), rank+1)
}

// summand is an integer, so that sums are exact in float64 and in float32.
func summand(rank int, seq uint64, i int) float64 { return float64(i*(rank+1)) - float64(seq) }

// total is the sum of all that all ranks give, mod 2^64.
func (w *world) total(seq uint64) (sum uint64) {
	for rank := range w.nodes {
		for i := range w.length(seq) {
			sum += uint64(int64(summand(rank, seq, i)))
		}
	}
	return sum
}

func (w *world) start(rank int) error {
	n := w.nodes[rank]
	seq := n.ring.Seq() + 1
	length := w.length(seq)
	n.vec, n.out = make([]float64, length), make([]float32, length)
	for i := range n.vec {
		n.vec[i] = summand(rank, seq, i)
	}
	if w.spoilVec != nil {
		w.spoilVec(rank, n.vec)
	}
	return n.ring.Start(Op{
		Seq: seq, Header: []byte(header(rank, seq)), Vec: n.vec, Out: n.out, Finish: n.finish,
	}, n.emit)
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

// idle is a Finish that does nothing.
func idle(int, int, []float64, [][]byte, []float32) uint64 { return 0 }

func (n *node) emit(f Frame) { n.link = append(n.link, f.Append(nil)) }

// deliver takes the oldest frame off the link into rank.
func (w *world) deliver(rank int) error {
	left := w.nodes[(rank+len(w.nodes)-1)%len(w.nodes)]
	wire := left.link[0]
	left.link = left.link[1:]
	f, err := ParseFrame(wire)
	if err != nil {
		return err
	}
	if w.spoilWire != nil {
		w.spoilWire(rank, f)
	}
	n := w.nodes[rank]
	err = n.ring.Receive(f, n.emit)
	clear(wire) // the payload was not kept
	return err
}

// verify checks a completed op against the plain sum.
func (w *world) verify(t *rapid.T, rank int) {
	n := w.nodes[rank]
	headers, ok := n.ring.Done()
	if !ok {
		t.Fatalf("rank %d: no result", rank)
	}
	seq := n.ring.Seq()
	if got, want := n.ring.Total(), w.total(seq); got != want {
		t.Fatalf("rank %d, op %d: the totals add up to %x, all summands to %x", rank, seq, got, want)
	}
	for from, h := range headers {
		if string(h) != header(from, seq) {
			t.Fatalf("rank %d, op %d: header of rank %d is %q", rank, seq, from, h)
		}
	}
	if n.seen != nil && len(n.out) > 0 && len(n.seen) != len(w.nodes) {
		t.Fatalf("rank %d, op %d: Finish saw %d headers", rank, seq, len(n.seen))
	}
	for i, got := range n.out {
		var want float64
		for from := range w.nodes {
			want += summand(from, seq, i)
		}
		if got != float32(2*want) {
			t.Fatalf("rank %d, op %d: out[%d] = %v, want %v", rank, seq, i, got, 2*want)
		}
	}
	n.ops++
}

func TestEveryRankGetsTheSumAndAllHeadersInWhateverOrderLinksDeliver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 9).Draw(t, "world")
		lengths := rapid.SliceOfN(rapid.IntRange(0, 200), 1, 4).Draw(t, "lengths")
		segment := 8 * rapid.IntRange(1, 30).Draw(t, "segment")
		w := newWorld(size, segment+rapid.IntRange(0, 7).Draw(t, "odd bytes"), func(seq uint64) int { return lengths[seq-1] })
		for !w.complete(uint64(len(lengths))) {
			w.move(t, uint64(len(lengths)))
		}
		for rank, n := range w.nodes {
			if len(n.link) > 0 || len(n.ring.held) > 0 {
				t.Fatalf("rank %d: %d frames too many sent, %d held", rank, len(n.link), len(n.ring.held))
			}
		}
	})
}

func (w *world) complete(ops uint64) bool {
	return !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.ops < ops })
}

// move does one thing that can happen, drawn among all of them.
func (w *world) move(t *rapid.T, ops uint64) {
	var starts, deliveries []int
	for rank, n := range w.nodes {
		if n.ops < ops && n.ring.Seq() == n.ops {
			starts = append(starts, rank)
		}
		if len(n.link) > 0 {
			deliveries = append(deliveries, (rank+1)%len(w.nodes))
		}
	}
	pick := rapid.IntRange(0, len(starts)+len(deliveries)-1).Draw(t, "move")
	var rank int
	var err error
	if pick < len(starts) {
		rank = starts[pick]
		err = w.start(rank)
	} else {
		rank = deliveries[pick-len(starts)]
		err = w.deliver(rank)
	}
	if err != nil {
		t.Fatalf("rank %d: %v", rank, err)
	}
	n := w.nodes[rank]
	if _, done := n.ring.Done(); done && n.ring.Seq() > n.ops {
		w.verify(t, rank)
	}
}

// play runs one op to its end, in one order.
func (w *world) play(t *rapid.T) {
	for rank := range w.nodes {
		if err := w.start(rank); err != nil {
			t.Fatal(err)
		}
	}
	for moved := true; moved; {
		moved = false
		for rank := range w.nodes {
			if len(w.nodes[(rank+len(w.nodes)-1)%len(w.nodes)].link) > 0 {
				moved = true
				if err := w.deliver(rank); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// flips draws a bit that flips in one element, and tells whether that makes it another integer. What
// makes it none may be lost in the next addition, and then no harm is done.
func flips(t *rapid.T, x float64) (flipped float64, another bool) {
	bit := rapid.IntRange(0, 63).Draw(t, "bit")
	y := math.Float64frombits(math.Float64bits(x) ^ 1<<bit)
	return y, y != x && y == math.Trunc(y) && math.Abs(y) < 1<<52
}

// right tells whether the op gave every rank what it should have.
func (w *world) right() bool {
	for i := range w.length(1) {
		var want float64
		for from := range w.nodes {
			want += summand(from, 1, i)
		}
		for _, n := range w.nodes {
			if n.out[i] != float32(2*want) {
				return false
			}
		}
	}
	return true
}

func TestABitThatFlipsBeforeTheTotalIsFinishedShowsInItsSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.IntRange(1, 60).Draw(t, "length")
		w := newWorld(rapid.IntRange(1, 9).Draw(t, "world"), 8*rapid.IntRange(1, 8).Draw(t, "segment"), func(uint64) int { return length })
		victim := rapid.IntRange(0, len(w.nodes)-1).Draw(t, "victim")
		done, another := false, false
		if len(w.nodes) > 1 && rapid.Bool().Draw(t, "on the wire") {
			w.spoilWire = func(rank int, f Frame) {
				if done || rank != victim || f.Kind != Reduce {
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
		w.play(t)
		for rank, n := range w.nodes {
			_, ok := n.ring.Done()
			if same := n.ring.Total() == w.total(1); !ok || same && (another || !w.right()) {
				t.Fatalf("rank %d: complete %v, the totals' sum is that of the summands, the result is right: %v", rank, ok, w.right())
			}
			if n.ring.Total() != w.nodes[0].ring.Total() {
				t.Fatalf("ranks 0 and %d have sums %x and %x", rank, w.nodes[0].ring.Total(), n.ring.Total())
			}
		}
	})
}

func TestEachElementIsSentTheLeastNumberOfTimes(t *testing.T) {
	for size := 2; size <= 5; size++ {
		const length = 120
		w := newWorld(size, 64, func(uint64) int { return length })
		sent := make([]int, size) // bytes of elements by rank
		for rank := range w.nodes {
			if err := w.start(rank); err != nil {
				t.Fatal(err)
			}
		}
		for moved := true; moved; {
			moved = false
			for rank := range w.nodes {
				left := (rank + size - 1) % size
				if len(w.nodes[left].link) == 0 {
					continue
				}
				moved = true
				switch f, _ := ParseFrame(w.nodes[left].link[0]); f.Kind {
				case Reduce:
					sent[left] += len(f.Payload)
				case Gather:
					sent[left] += len(f.Payload) - sumBytes
				}
				if err := w.deliver(rank); err != nil {
					t.Fatal(err)
				}
			}
		}
		for rank, got := range sent {
			if want := length * (size - 1) / size * (8 + 4); got != want {
				t.Errorf("world %d: rank %d sent %d bytes, want %d", size, rank, got, want)
			}
		}
	}
}

// three returns rank 1 of three, with 12 elements in segments of two: each chunk has two segments.
// Chunk 0 starts here, chunk 2 comes with 1 hop as Reduce, chunk 1 ends here with 2 hops.
func three(t *testing.T, started bool) *Ring {
	t.Helper()
	r := New(Config{Rank: 1, World: 3, Fence: testFence, SegmentBytes: 16, MaxElements: 12, MaxHeader: 4})
	if started {
		startThree(t, r)
	}
	return r
}

func startThree(t *testing.T, r *Ring) {
	t.Helper()
	err := r.Start(Op{
		Seq: r.Seq() + 1, Header: []byte("h1"), Vec: make([]float64, 12), Out: make([]float32, 12),
		Finish: idle,
	}, func(Frame) {})
	if err != nil {
		t.Fatal(err)
	}
}

func frameOf(kind Kind, chunk, segment uint32, hops uint16, payload int) Frame {
	return Frame{
		Fence: testFence, Seq: 1, Kind: kind, Chunk: chunk, Segment: segment, Hops: hops,
		Payload: make([]byte, payload),
	}
}

func TestFramesThatDoNotBelongHereAreRefusedByName(t *testing.T) {
	reduce, gather, head := frameOf(Reduce, 2, 0, 1, 16), frameOf(Gather, 0, 0, 1, 16), frameOf(Header, 0, 0, 1, 2)
	with := func(f Frame, change func(*Frame)) Frame { change(&f); return f }
	for name, c := range map[string]struct {
		before []Frame
		frame  Frame
		want   string
	}{
		"another view":             {frame: with(reduce, func(f *Frame) { f.Fence[15]++ }), want: "this is view 01020304"},
		"an older op":              {frame: with(reduce, func(f *Frame) { f.Seq = 0 }), want: "op 1 is in progress"},
		"the next op too soon":     {frame: with(reduce, func(f *Frame) { f.Seq = 2 }), want: "op 1 is in progress"},
		"no kind":                  {frame: with(reduce, func(f *Frame) { f.Kind = 0 }), want: "no part of an op"},
		"a closing":                {frame: with(reduce, func(f *Frame) { f.Kind = Closing }), want: "no part of an op"},
		"no such chunk":            {frame: with(reduce, func(f *Frame) { f.Chunk = 3 }), want: "chunk of a world of 3"},
		"a huge chunk":             {frame: with(reduce, func(f *Frame) { f.Chunk = math.MaxUint32 }), want: "chunk of a world of 3"},
		"too few hops":             {frame: with(reduce, func(f *Frame) { f.Hops = 0 }), want: "after 1 hops"},
		"too many hops":            {frame: with(reduce, func(f *Frame) { f.Hops = 2 }), want: "after 1 hops"},
		"a chunk that starts here": {frame: with(reduce, func(f *Frame) { f.Chunk, f.Hops = 0, 0 }), want: "after 0 hops"},
		"a sum one too far":        {frame: with(reduce, func(f *Frame) { f.Chunk, f.Hops = 0, 3 }), want: "after 0 hops"},
		"its own result":           {frame: with(gather, func(f *Frame) { f.Chunk, f.Hops = 1, 3 }), want: "after 0 hops"},
		"its own header":           {frame: with(head, func(f *Frame) { f.Chunk, f.Hops = 1, 3 }), want: "after 0 hops"},
		"a duplicate sum":          {before: []Frame{reduce}, frame: reduce, want: "segment 1 is next"},
		"a duplicate result":       {before: []Frame{gather}, frame: gather, want: "segment 1 is next"},
		"a duplicate header":       {before: []Frame{head}, frame: head, want: "the header of rank 0 came before"},
		"a header in parts":        {frame: with(head, func(f *Frame) { f.Segment = 1 }), want: "came before"},
		"a gap":                    {frame: with(reduce, func(f *Frame) { f.Segment = 1 }), want: "segment 0 is next"},
		"a huge segment":           {frame: with(gather, func(f *Frame) { f.Segment = math.MaxUint32 }), want: "segment 0 is next"},
		"a segment too many": {
			before: []Frame{gather, with(gather, func(f *Frame) { f.Segment = 1 })},
			frame:  with(gather, func(f *Frame) { f.Segment = 2 }), want: "all 2 segments",
		},
		"a short sum":    {frame: with(reduce, func(f *Frame) { f.Payload = f.Payload[:15] }), want: "2 elements of 8 bytes"},
		"a long sum":     {frame: with(reduce, func(f *Frame) { f.Payload = make([]byte, 24) }), want: "2 elements of 8 bytes"},
		"a short result": {frame: with(gather, func(f *Frame) { f.Payload = nil }), want: "2 elements of 4 bytes"},
		"a long result":  {frame: with(gather, func(f *Frame) { f.Payload = make([]byte, 17) }), want: "2 elements of 4 bytes"},
		"no sum":         {frame: with(gather, func(f *Frame) { f.Payload = make([]byte, 8) }), want: "16 bytes in all"},
		"a long header":  {frame: with(head, func(f *Frame) { f.Payload = make([]byte, 5) }), want: "at most 4 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := three(t, true)
			for _, f := range c.before {
				if err := r.Receive(f, func(Frame) {}); err != nil {
					t.Fatal(err)
				}
			}
			err := r.Receive(c.frame, func(Frame) {})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.frame.String()) {
				t.Fatalf("got %v, want %q for %v", err, c.want, c.frame)
			}
		})
	}
}

func TestEarlyFramesAreHeldWithinBounds(t *testing.T) {
	reduce := func(segment uint32) Frame { return frameOf(Reduce, 2, segment, 1, 16) }
	for name, c := range map[string]struct {
		frames []Frame
		want   string // of the last frame's refusal
	}{
		"two ops ahead":       {frames: []Frame{{Fence: testFence, Seq: 2, Kind: Header, Hops: 1}}, want: "op 1 is next"},
		"a result":            {frames: []Frame{frameOf(Gather, 0, 0, 1, 16)}, want: "finished before rank 1 started"},
		"too many elements":   {frames: []Frame{frameOf(Reduce, 2, 0, 1, 97)}, want: "an op of 12 elements"},
		"too many in the sum": {frames: slices.Concat(slices.Repeat([]Frame{reduce(0)}, 7)), want: "an op of 12 elements"},
		"too many headers":    {frames: slices.Repeat([]Frame{frameOf(Header, 0, 0, 1, 0)}, 13), want: "an op of 12 elements"},
	} {
		t.Run(name, func(t *testing.T) {
			r := three(t, false)
			for i, f := range c.frames {
				err := r.Receive(f, func(Frame) {})
				if last := i == len(c.frames)-1; last != (err != nil) {
					t.Fatalf("frame %d of %d: %v", i+1, len(c.frames), err)
				} else if last && !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
			}
		})
	}
}

func TestHeldFramesAreCheckedByStart(t *testing.T) {
	r := three(t, false)
	if err := r.Receive(frameOf(Reduce, 2, 1, 1, 16), func(Frame) {}); err != nil {
		t.Fatal(err)
	}
	err := r.Start(Op{Seq: 1, Vec: make([]float64, 12), Out: make([]float32, 12), Finish: idle}, func(Frame) {})
	if err == nil || !strings.Contains(err.Error(), "segment 0 is next") {
		t.Fatalf("got %v", err)
	}
}

func TestNothingIsFinishedBeforeAllHeadersAreThere(t *testing.T) {
	finished := 0
	r := New(Config{Rank: 1, World: 2, Fence: testFence, SegmentBytes: 8, MaxElements: 8})
	op := Op{
		Seq: 1, Vec: make([]float64, 4), Out: make([]float32, 4),
		Finish: func(int, int, []float64, [][]byte, []float32) uint64 {
			finished++
			return 0
		},
	}
	emit := func(Frame) {}
	if err := r.Start(op, emit); err != nil {
		t.Fatal(err)
	}
	for s := range uint32(2) {
		if err := r.Receive(frameOf(Reduce, 1, s, 1, 8), emit); err != nil {
			t.Fatal(err)
		}
	}
	if finished != 0 {
		t.Fatal("finished without the other header")
	}
	if err := r.Receive(frameOf(Header, 0, 0, 1, 0), emit); err != nil {
		t.Fatal(err)
	}
	if finished != 2 {
		t.Fatalf("%d segments finished, want 2", finished)
	}
}

func TestBrokenPromisesOfTheCallerPanic(t *testing.T) {
	for name, start := range map[string]func(r *Ring){
		"in progress": func(r *Ring) { startThree(t, r); startThree(t, r) },
		"seq":         func(r *Ring) { _ = r.Start(Op{Seq: 2}, nil) },
		"lengths":     func(r *Ring) { _ = r.Start(Op{Seq: 1, Vec: make([]float64, 1), Finish: idle}, nil) },
		"too long": func(r *Ring) {
			_ = r.Start(Op{Seq: 1, Vec: make([]float64, 13), Out: make([]float32, 13), Finish: idle}, nil)
		},
		"header":       func(r *Ring) { _ = r.Start(Op{Seq: 1, Header: make([]byte, 5)}, nil) },
		"no finish":    func(r *Ring) { _ = r.Start(Op{Seq: 1, Vec: make([]float64, 1), Out: make([]float32, 1)}, nil) },
		"rank":         func(*Ring) { New(Config{Rank: 1, World: 1}) },
		"world":        func(*Ring) { New(Config{}) },
		"segment size": func(*Ring) { New(Config{World: 1, SegmentBytes: 7}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "allreduce: ") {
					t.Fatalf("recovered %q", s)
				}
			}()
			start(three(t, false))
		})
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	// Two ranks in a loop; rank 0 is always early. Links are byte slices that are reused.
	const length = 64
	type end struct {
		ring  *Ring
		vec   []float64
		out   []float32
		queue []byte // frames back to back
		emit  func(Frame)
	}
	var ends [2]*end
	for rank := range ends {
		e := &end{
			ring: New(Config{Rank: rank, World: 2, Fence: testFence, SegmentBytes: 64, MaxElements: length}),
			vec:  make([]float64, length), out: make([]float32, length),
		}
		e.emit = func(f Frame) { e.queue = f.Append(e.queue) }
		ends[rank] = e
	}
	flush := func(from, to *end) {
		wire := from.queue
		from.queue = from.queue[:0]
		for len(wire) > 0 {
			size := FrameOverhead + int(binary.LittleEndian.Uint32(wire[12:]))
			f, err := ParseFrame(wire[:size])
			if err == nil {
				err = to.ring.Receive(f, to.emit)
			}
			if err != nil {
				panic(err)
			}
			wire = wire[size:]
		}
	}
	head := []byte("header")
	step := func() {
		for rank, e := range ends {
			if err := e.ring.Start(Op{Seq: e.ring.Seq() + 1, Header: head, Vec: e.vec, Out: e.out, Finish: plain}, e.emit); err != nil {
				panic(err)
			}
			flush(e, ends[1-rank])
		}
		for i := range 4 {
			flush(ends[i%2], ends[1-i%2])
		}
	}
	step()
	step()
	if n := testing.AllocsPerRun(100, step); n > 0 {
		t.Fatalf("%v allocations per op", n)
	}
	if _, ok := ends[0].ring.Done(); !ok {
		t.Fatal("the loop does not complete its ops")
	}
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

func TestPayloadsMayLieAtAnyAddress(t *testing.T) {
	values := []float64{0, -1.5, math.Copysign(0, -1), math.MaxFloat64, math.SmallestNonzeroFloat64, 7}
	for n := range len(values) {
		for shift := range 9 {
			var scratch []byte
			wire := append(make([]byte, shift), wire64(&scratch, values[:n])...)
			got := make([]float64, n)
			addWire(got, wire[shift:])
			for i := range got {
				if got[i] != values[i] {
					t.Fatalf("element %d of %d at %d: %v", i, n, shift, got[i])
				}
			}
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(frameOf(Reduce, 2, 3, 1, 16).Append(nil))
	f.Add(frameOf(Gather, 0, 0, 1, 16).Append(nil))
	f.Add(frameOf(Header, 0, 0, 1, 0).Append(nil))
	f.Add(Frame{Kind: Closing, Payload: ClosingNote{"a", "b", "c", Broken}.Append(nil)}.Append(nil))
	f.Add([]byte{})
	f.Add(make([]byte, FrameOverhead))
	f.Add(make([]byte, FrameOverhead-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		if err != nil {
			return
		}
		if again := frame.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x parsed to %v, which is %x", b, frame, again)
		}
		for _, started := range []bool{false, true} {
			frame.Fence, frame.Seq = testFence, 1 // get past the door
			_ = three(t, started).Receive(frame, func(Frame) {})
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
	good := frameOf(Reduce, 1, 2, 2, 8).Append(nil)
	change := func(at int, to byte) []byte { b := slices.Clone(good); b[at] = to; return b }
	for want, b := range map[string][]byte{
		"at least 40 expected":          good[:FrameOverhead-1],
		"version 1":                     change(0, 1),
		"unknown kind 0":                change(1, 0),
		"unknown kind 5":                change(1, 5),
		"payload of 7 bytes announced":  change(12, 7),
		"payload of 9 bytes announced":  change(12, 9),
		"payload of 264 bytes announce": change(13, 1),
	} {
		if _, err := ParseFrame(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// BenchmarkOp is what one rank of a ring computes in an op, without the network.
func BenchmarkOp(b *testing.B) {
	for _, size := range []int{1, 4} {
		for _, length := range []int{101_770, 10_000_000} {
			b.Run(fmt.Sprintf("world=%d/elements=%d", size, length), func(b *testing.B) {
				w := newBench(size, length)
				w.op(b)
				for b.Loop() {
					w.op(b)
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*size), "us/rank")
			})
		}
	}
}

// benchRank sends frames back to back in a buffer that is reused.
type benchRank struct {
	ring  *Ring
	op    Op
	queue []byte
	spare []byte
	emit  func(Frame)
}

type benchRing []*benchRank

func newBench(size, length int) (w benchRing) {
	for rank := range size {
		n := &benchRank{ring: New(Config{Rank: rank, World: size, Fence: testFence})}
		n.op = Op{Header: []byte("header"), Vec: make([]float64, length), Out: make([]float32, length), Finish: plain}
		n.emit = func(f Frame) { n.queue = f.Append(n.queue) }
		w = append(w, n)
	}
	return w
}

func (w benchRing) op(b *testing.B) {
	for _, n := range w {
		n.op.Seq++
		if err := n.ring.Start(n.op, n.emit); err != nil {
			b.Fatal(err)
		}
	}
	for moved := true; moved; {
		moved = false
		for rank, n := range w {
			wire := n.queue
			n.queue, n.spare = n.spare[:0], n.queue
			for right := w[(rank+1)%len(w)]; len(wire) > 0; moved = true {
				size := FrameOverhead + int(binary.LittleEndian.Uint32(wire[12:]))
				f, err := ParseFrame(wire[:size])
				if err == nil {
					err = right.ring.Receive(f, right.emit)
				}
				if err != nil {
					b.Fatal(err)
				}
				wire = wire[size:]
			}
		}
	}
}
