package allreduce

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Defaults of Config.
const (
	DefaultSegmentBytes = 256 << 10
	DefaultMaxElements  = 1 << 27
	DefaultMaxHeader    = 1 << 20
)

// Config describes one rank's place in a ring. World, Fence, SegmentBytes and the bounds are equal on
// all ranks.
type Config struct {
	Rank  int   // 0 to World-1; the right neighbour is (Rank+1) % World
	World int   // 1 to 65535
	Fence Fence // name of the view

	// SegmentBytes is the payload of a full Reduce frame, in bytes, rounded down to whole float64; the
	// Gather frame of the same segment has half of it and 8 bytes. 0 means DefaultSegmentBytes.
	SegmentBytes int

	// MaxElements bounds len(Op.Vec), and with it the memory that a quicker left neighbour can make
	// this rank hold before it starts an op: 8 bytes each. 0 means DefaultMaxElements.
	MaxElements int

	// MaxHeader bounds len(Op.Header), in bytes. 0 means DefaultMaxHeader.
	MaxHeader int
}

// Validate tells the first field out of its range.
func (c Config) Validate() error {
	switch {
	case c.World < 1 || c.World > math.MaxUint16:
		return fmt.Errorf("allreduce: world size %d, 1 to %d allowed", c.World, math.MaxUint16)
	case c.Rank < 0 || c.Rank >= c.World:
		return fmt.Errorf("allreduce: rank %d in a world of %d", c.Rank, c.World)
	case c.SegmentBytes < 0 || c.SegmentBytes > 0 && c.SegmentBytes < 8 || c.SegmentBytes > math.MaxInt32:
		return fmt.Errorf("allreduce: segments of %d bytes, 8 to %d allowed", c.SegmentBytes, math.MaxInt32)
	case c.MaxElements < 0:
		return fmt.Errorf("allreduce: at most %d elements", c.MaxElements)
	case c.MaxHeader < 0 || c.MaxHeader > math.MaxInt32:
		return fmt.Errorf("allreduce: headers of at most %d bytes, 0 to %d allowed", c.MaxHeader, math.MaxInt32)
	}
	return nil
}

// withDefaults replaces zeros.
func (c Config) withDefaults() Config {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = DefaultSegmentBytes
	}
	if c.MaxElements == 0 {
		c.MaxElements = DefaultMaxElements
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = DefaultMaxHeader
	}
	return c
}

// Op is one all-reduce, as one rank gives it. All ranks start the same ops in the same order, with
// vectors of the same length.
type Op struct {
	Seq    uint64    // 1 for the first op of a ring, then one more each time
	Header []byte    // what every rank shall know of this one; copied by Start
	Vec    []float64 // this rank's summand; the ring owns it until the op is done and leaves rubbish in it
	Out    []float32 // len(Vec); the result, once the op is done; the ring owns it until then

	// Finish turns the total of elements [lo, hi) into out, on the rank that owns them; total and out
	// have hi-lo elements, headers one entry per rank. It returns the sum mod 2^64 of the total's integers,
	// as they are when it turns them into out; of what are no integers, some number. It is called once per
	// owned segment, by whom Each chooses, and must keep none of its arguments. May be nil when Vec is empty.
	Finish func(lo, hi int, total []float64, headers [][]byte, out []float32) (sum uint64)

	// Each does n pieces of work, do(0) to do(n-1), in any order, some at the same time if it likes, and
	// returns when all are done. Segments whose totals are there are finished through it. nil does one
	// after the other.
	Each func(n int, do func(i int))
}

// Ring is one rank's part of all ops of one view, one op after another. It is a plain value: whoever
// holds it calls its methods from one goroutine. To abort, drop it.
//
// The emit argument of its methods takes frames for the right neighbour, in order. The payload of a
// frame given to emit is valid until emit returns.
type Ring struct {
	cfg  Config
	own  int // the chunk that ends here and is finished here: the rank itself
	head int // the chunk that starts here: the left neighbour's

	op      Op
	seq     uint64 // of op; 0 before the first one
	busy    bool   // op is started and not complete
	layout  layout // of op
	waiting int    // frames still to come and segments still to finish; the op is complete at 0

	headers  [][]byte // by rank; storage is reused from op to op
	arrived  []bool   // by rank: the header of this op is in headers
	unheard  int      // ranks whose header has not come
	reduced  []int    // by chunk: segments that came as Reduce, all in order
	gathered []int    // by chunk: segments that came as Gather, all in order
	finished int      // segments of the own chunk given to Finish
	total    uint64   // of the integers of all segments finished so far, anywhere

	held      []Frame  // early frames of op seq+1, in order, with payloads of our own
	heldBytes int      // payload bytes of Reduce frames in held
	spare     [][]byte // storage for payloads of held frames
	scratch   []byte   // elements on their way out
	sums      []uint64 // of the totals of the segments that are being finished

	finish func(i int) // finishSegment, bound once
}

// New makes a ring that has not started an op. It panics if cfg is not valid.
func New(cfg Config) *Ring {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	r := &Ring{
		cfg:      cfg.withDefaults(),
		own:      cfg.Rank,
		head:     (cfg.Rank + cfg.World - 1) % cfg.World,
		headers:  make([][]byte, cfg.World),
		arrived:  make([]bool, cfg.World),
		reduced:  make([]int, cfg.World),
		gathered: make([]int, cfg.World),
	}
	r.finish = r.finishSegment
	return r
}

// Seq returns the number of the op last started, 0 before the first.
func (r *Ring) Seq() uint64 { return r.seq }

// Done reports whether the op last started is complete: Out is the result and the ring has given Vec
// and Out back. The headers of all ranks, by rank, are valid until the next Start.
func (r *Ring) Done() (headers [][]byte, ok bool) {
	if r.busy || r.seq == 0 {
		return nil, false
	}
	return r.headers, true
}

// Total returns the sum mod 2^64 of all elements' totals, valid as long as Done's headers. Each
// segment's part is what Finish returned on the rank that owns it, and comes around with its result.
func (r *Ring) Total() uint64 { return r.total }

// Start begins the next op and takes in what came early for it. An error means that a peer broke the
// protocol; the ring must be dropped then. It panics if an op is in progress or op breaks its promises.
func (r *Ring) Start(op Op, emit func(Frame)) error {
	r.check(op)
	r.reset(op)
	r.keepHeader(r.own, op.Header)
	if r.cfg.World > 1 {
		emit(r.frame(Header, r.own, 0, 1, r.headers[r.own]))
	}
	for s := range r.starting() {
		emit(r.frame(Reduce, r.head, s, 1, r.wireVec(r.head, s)))
	}
	r.finishReady(emit)
	r.settle()
	return r.release(emit)
}

// starting returns how many segments start their way here; none if there is nowhere to go.
func (r *Ring) starting() int {
	if r.cfg.World == 1 {
		return 0
	}
	return r.layout.segments(r.head)
}

// check panics if the caller breaks a promise of Op.
func (r *Ring) check(op Op) {
	switch {
	case r.busy:
		panic(fmt.Sprintf("allreduce: op %d started while op %d is in progress", op.Seq, r.seq))
	case op.Seq != r.seq+1:
		panic(fmt.Sprintf("allreduce: op %d started after op %d", op.Seq, r.seq))
	case len(op.Vec) != len(op.Out):
		panic(fmt.Sprintf("allreduce: op %d: %d elements in, %d out", op.Seq, len(op.Vec), len(op.Out)))
	case len(op.Vec) > r.cfg.MaxElements:
		panic(fmt.Sprintf("allreduce: op %d: %d elements, at most %d", op.Seq, len(op.Vec), r.cfg.MaxElements))
	case len(op.Header) > r.cfg.MaxHeader:
		panic(fmt.Sprintf("allreduce: op %d: header of %d bytes, at most %d", op.Seq, len(op.Header), r.cfg.MaxHeader))
	case op.Finish == nil && len(op.Vec) > 0:
		panic(fmt.Sprintf("allreduce: op %d: no Finish", op.Seq))
	}
}

// reset makes op the op in progress, with nothing received.
func (r *Ring) reset(op Op) {
	r.op, r.seq, r.busy = op, op.Seq, true
	r.layout = layout{n: len(op.Vec), world: r.cfg.World, segment: r.cfg.SegmentBytes / 8}
	clear(r.arrived)
	clear(r.reduced)
	clear(r.gathered)
	r.total = 0
	r.finished, r.unheard, r.waiting = 0, r.cfg.World, r.cfg.World
	for c := range r.cfg.World {
		r.waiting += 2 * r.layout.segments(c) // once as Reduce, once as Gather
	}
	// What starts here does not come as Reduce; what is owned here does not come as Gather but waits
	// to be finished, which takes the same place in the count.
	r.reduced[r.head] = r.layout.segments(r.head)
	r.waiting -= r.layout.segments(r.head)
}

// keepHeader stores the header of a rank.
func (r *Ring) keepHeader(rank int, payload []byte) {
	r.headers[rank] = append(r.headers[rank][:0], payload...)
	r.arrived[rank] = true
	r.unheard--
	r.waiting--
}

// Receive takes one frame from the left neighbour; frames must come in the order in which the
// neighbour emitted them. The payload is not kept after it returns. A frame that does not belong here
// is an error that names it; the ring must be dropped then.
func (r *Ring) Receive(f Frame, emit func(Frame)) error {
	if err := r.admit(f); err != nil {
		return err
	}
	if !r.busy {
		return r.hold(f)
	}
	return r.accept(f, emit)
}

// admit checks all that can be checked of a frame without knowing its op.
func (r *Ring) admit(f Frame) error {
	switch {
	case f.Fence != r.cfg.Fence:
		return refuse(f, "this is view %v", r.cfg.Fence)
	case f.Kind < Header || f.Kind > Gather:
		return refuse(f, "no part of an op")
	case int64(f.Chunk) >= int64(r.cfg.World):
		return refuse(f, "chunk of a world of %d", r.cfg.World)
	case int(f.Hops) != r.hops(f.Kind, int(f.Chunk)) || f.Hops == 0:
		return refuse(f, "rank %d of %d gets it after %d hops", r.cfg.Rank, r.cfg.World, r.hops(f.Kind, int(f.Chunk)))
	case r.busy && f.Seq != r.seq:
		return refuse(f, "op %d is in progress", r.seq)
	case !r.busy && f.Seq != r.seq+1:
		return refuse(f, "op %d is next", r.seq+1)
	case f.Kind == Header && len(f.Payload) > r.cfg.MaxHeader:
		return refuse(f, "a header has at most %d bytes", r.cfg.MaxHeader)
	}
	return nil
}

// hops returns after how many hops a frame arrives at this rank; 0 if it never does.
func (r *Ring) hops(kind Kind, chunk int) int {
	from := chunk // owner, or the header's writer
	if kind == Reduce {
		from++
	}
	return (r.cfg.Rank - from + r.cfg.World) % r.cfg.World
}

// accept takes a frame of the op in progress.
func (r *Ring) accept(f Frame, emit func(Frame)) error {
	var err error
	switch f.Kind {
	case Header:
		err = r.acceptHeader(f, emit)
	case Reduce:
		err = r.acceptReduce(f, emit)
	default:
		err = r.acceptGather(f, emit)
	}
	if err != nil {
		return err
	}
	r.finishReady(emit)
	r.settle()
	return nil
}

func (r *Ring) acceptHeader(f Frame, emit func(Frame)) error {
	rank := int(f.Chunk)
	if r.arrived[rank] || f.Segment != 0 {
		return refuse(f, "the header of rank %d came before", rank)
	}
	r.keepHeader(rank, f.Payload)
	if rank != r.right() {
		emit(r.pass(f, f.Payload))
	}
	return nil
}

// acceptReduce adds this rank's summand to a sum that comes by. The own chunk's sum stays here.
func (r *Ring) acceptReduce(f Frame, emit func(Frame)) error {
	c, s := int(f.Chunk), int(f.Segment)
	if err := r.inOrder(f, r.reduced[c], 8, 0); err != nil {
		return err
	}
	lo, hi := r.layout.slice(c, s)
	addWire(r.op.Vec[lo:hi], f.Payload)
	r.reduced[c]++
	r.waiting--
	if c != r.own {
		emit(r.pass(f, r.wireVec(c, s)))
	}
	return nil
}

// acceptGather stores a finished segment and passes it on until it has been everywhere.
func (r *Ring) acceptGather(f Frame, emit func(Frame)) error {
	c, s := int(f.Chunk), int(f.Segment)
	if err := r.inOrder(f, r.gathered[c], 4, sumBytes); err != nil {
		return err
	}
	lo, hi := r.layout.slice(c, s)
	elements := len(f.Payload) - sumBytes
	copyWire(r.op.Out[lo:hi], f.Payload[:elements])
	r.total += binary.LittleEndian.Uint64(f.Payload[elements:])
	r.gathered[c]++
	r.waiting--
	if c != r.right() {
		emit(r.pass(f, f.Payload))
	}
	return nil
}

// inOrder checks that a segment is the next of its chunk and has the right length, in elements of
// size bytes and what is behind them.
func (r *Ring) inOrder(f Frame, next, size, behind int) error {
	c := int(f.Chunk)
	if count := r.layout.segments(c); next >= count {
		return refuse(f, "all %d segments of this chunk came before", count)
	}
	if int64(f.Segment) != int64(next) {
		return refuse(f, "segment %d is next", next)
	}
	lo, hi := r.layout.slice(c, next)
	if want := (hi-lo)*size + behind; len(f.Payload) != want {
		return refuse(f, "%d elements of %d bytes expected, %d bytes in all", hi-lo, size, want)
	}
	return nil
}

// finishReady finishes what has its total and all headers, and sends it around.
func (r *Ring) finishReady(emit func(Frame)) {
	ready := r.reduced[r.own] - r.finished
	if r.unheard > 0 || ready == 0 {
		return
	}
	r.sums = append(r.sums[:0], make([]uint64, ready)...)
	if r.op.Each == nil {
		for i := range ready {
			r.finishSegment(i)
		}
	} else {
		r.op.Each(ready, r.finish)
	}
	for _, sum := range r.sums {
		r.total += sum
		if r.cfg.World > 1 {
			lo, hi := r.layout.slice(r.own, r.finished)
			emit(r.frame(Gather, r.own, r.finished, 1, r.wireOut(lo, hi, sum)))
		}
		r.finished++
		r.waiting--
	}
}

// finishSegment finishes the i-th of the segments that are next.
func (r *Ring) finishSegment(i int) {
	lo, hi := r.layout.slice(r.own, r.finished+i)
	r.sums[i] = r.op.Finish(lo, hi, r.op.Vec[lo:hi:hi], r.headers, r.op.Out[lo:hi:hi])
}

// settle ends the op once nothing is missing, and forgets the caller's memory.
func (r *Ring) settle() {
	if r.waiting == 0 {
		r.busy, r.op = false, Op{}
	}
}

// hold keeps an early frame of the next op. Only what the left neighbour can know without this rank
// is legitimate: headers and sums, no more of them than the largest op has.
func (r *Ring) hold(f Frame) error {
	frames, bytes := 2*r.cfg.World+r.cfg.MaxElements/(r.cfg.SegmentBytes/8), 8*r.cfg.MaxElements
	if f.Kind == Gather {
		return refuse(f, "finished before rank %d started", r.cfg.Rank)
	}
	if f.Kind == Reduce {
		r.heldBytes += len(f.Payload)
	}
	if r.heldBytes > bytes || len(r.held) == frames {
		return refuse(f, "more than an op of %d elements can send early", r.cfg.MaxElements)
	}
	var own []byte
	if n := len(r.spare); n > 0 {
		own, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	f.Payload = append(own[:0], f.Payload...)
	r.held = append(r.held, f)
	return nil
}

// release takes in the held frames of the op just started.
func (r *Ring) release(emit func(Frame)) error {
	for _, f := range r.held {
		if !r.busy {
			return refuse(f, "op %d is complete", r.seq)
		}
		if err := r.accept(f, emit); err != nil {
			return err
		}
		r.spare = append(r.spare, f.Payload)
	}
	clear(r.held)
	r.held, r.heldBytes = r.held[:0], 0
	return nil
}

// right returns the rank of the right neighbour.
func (r *Ring) right() int { return (r.cfg.Rank + 1) % r.cfg.World }

// frame makes a frame of the op in progress.
func (r *Ring) frame(kind Kind, chunk, segment int, hops uint16, payload []byte) Frame {
	return Frame{
		Fence: r.cfg.Fence, Seq: r.seq, Kind: kind, Hops: hops,
		Chunk: uint32(chunk), Segment: uint32(segment), Payload: payload,
	}
}

// pass makes the frame that carries f one hop further with a payload of its own.
func (r *Ring) pass(f Frame, payload []byte) Frame {
	f.Hops++
	f.Payload = payload
	return f
}

// wireVec returns a segment of Vec in wire form, valid until the next call or change.
func (r *Ring) wireVec(c, s int) []byte {
	lo, hi := r.layout.slice(c, s)
	return wire64(&r.scratch, r.op.Vec[lo:hi])
}

// sumBytes is what a Gather frame has behind its elements.
const sumBytes = 8

// wireOut returns elements [lo, hi) of Out in wire form and the sum of their totals, valid until the
// next call.
func (r *Ring) wireOut(lo, hi int, sum uint64) []byte {
	r.scratch = binary.LittleEndian.AppendUint64(appendWire32(r.scratch[:0], r.op.Out[lo:hi]), sum)
	return r.scratch
}

// refuse is the error for a frame that does not belong here.
func refuse(f Frame, format string, args ...any) error {
	return fmt.Errorf("allreduce: refused %v: %s", f, fmt.Sprintf(format, args...))
}
