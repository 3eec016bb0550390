package allreduce

import (
	"fmt"
	"math"
	"slices"

	"github.com/dlnode/dlnode/allreduce/packing"
)

// Defaults of Config.
const (
	DefaultSegmentBytes = 256 << 10
	DefaultMaxElements  = 1 << 27
	DefaultMaxHeader    = 1 << 20
)

// MaxWorld is the largest world.
const MaxWorld = 4096

// Config describes one rank's place in a world. All but Rank is equal on all ranks.
type Config struct {
	Rank  int   // 0 to World-1
	World int   // 1 to MaxWorld
	Fence Fence // name of the view
	Zones []int // by rank, which zone it is in; nil means that all are in one

	// SegmentBytes is the payload of a full Reduce frame, in bytes, rounded down to whole float64; the
	// Gather frame of the same segment has half of it. 0 means DefaultSegmentBytes.
	SegmentBytes int

	// MaxElements bounds len(Op.Vec), and with it the memory that a quicker peer can make this rank
	// hold before it starts an op: 8 bytes each, and a little. 0 means DefaultMaxElements.
	MaxElements int

	// MaxHeader bounds len(Op.Header), in bytes; of those a peer can make this rank hold one of each
	// rank. 0 means DefaultMaxHeader.
	MaxHeader int
}

// Validate tells the first field out of its range.
func (c Config) Validate() error {
	switch {
	case c.World < 1 || c.World > MaxWorld:
		return fmt.Errorf("allreduce: world size %d, 1 to %d allowed", c.World, MaxWorld)
	case c.Rank < 0 || c.Rank >= c.World:
		return fmt.Errorf("allreduce: rank %d in a world of %d", c.Rank, c.World)
	case c.Zones != nil && len(c.Zones) != c.World:
		return fmt.Errorf("allreduce: zones of %d ranks in a world of %d", len(c.Zones), c.World)
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
// vectors of the same length, the same Algorithm and the same Eager.
type Op struct {
	Seq    uint64    // 1 for the first op of a view, then one more each time
	Header []byte    // what every rank shall know of this one; copied by Start
	Vec    []float64 // this rank's summand; the reducer owns what is ready until the op is done, and leaves rubbish in it
	Out    []float32 // len(Vec); the result, once the op is done; the reducer owns it until then

	// Open says that Header and Vec are not final: Reducer.Head gives the header, and Reducer.Ready
	// tells, range by range, which elements are. Until then they are the caller's.
	Open bool

	// Algorithm is how it is done; Auto leaves that to the Model of the view. Until all ranks have told that
	// they have all of their links, it is the Ring anyhow.
	Algorithm Algorithm

	// Eager says that Finish does not look at headers: what has its total is finished at once, and
	// headers are nil.
	Eager bool

	// Finish turns the total of elements [lo, hi) into out, on the rank that owns them (in an Exchange, on
	// every one); total and out have hi-lo elements, headers one entry per rank. It returns the sum mod 2^64
	// of the total's integers, as they are when it turns them into out; of what are no integers, some number.
	// It is called once for each element, with as many at a time as suits the caches, by whom Each chooses, and
	// must keep none of its arguments. May be nil when Vec is empty.
	Finish func(lo, hi int, total []float64, headers [][]byte, out []float32) (sum uint64)

	// Final is told of each range [lo, hi) of Out as soon as the result is there, while others are still to
	// come: all of them, in any order, before the op is done. Out is to be read only until then, since it
	// may be on its way to others. It is called from inside the Reducer's methods and must call none of
	// them. nil for who does not want to know.
	Final func(lo, hi int)

	// Each does n pieces of work, do(0) to do(n-1), in any order, some at the same time if it likes, and
	// returns when all are done. Segments whose totals are there are finished through it. nil does one
	// after the other.
	Each func(n int, do func(i int))
}

// Emit takes a frame for some ranks. Frames for one rank arrive in the order in which they were emitted.
// Both arguments are valid until Emit returns; but the payload of a Reduce, Gather or Share stays where
// it is, and as it is, until the op is done.
type Emit func(to []int, f Frame)

// Reducer is one rank's part of all ops of one view, one op after another. It is a plain value: whoever
// holds it calls its methods from one goroutine at a time. To abort, drop it.
type Reducer struct {
	cfg       Config
	can       []Algorithm
	schedules [Exchange + 1]*Schedule // made when first used

	op       Op
	seq      uint64 // of op; 0 before the first one
	busy     bool   // op is started and not complete
	plan     *Schedule
	segments []segment // of all chunks, in order
	first    []int     // by chunk, and one more: where its segments begin
	came     []bool    // what children have sent; see segment.came
	waiting  int       // headers still to come and segments that have no result; the op is complete at 0
	total    uint64    // of the integers of all segments finished so far, anywhere

	headers [][]byte // by rank; storage is reused from op to op
	arrived []bool   // by rank: the header of this op is in headers
	unheard int      // ranks whose header has not come
	models  []Model  // by rank, as its header told
	measure Model    // what this rank tells

	totals []int    // segments whose total is here and not finished
	sums   []uint64 // of their integers
	finish func(i int)

	held    []early // frames of op seq+1
	owes    []load  // by rank: what is held of it
	spare   [][]byte
	scratch []byte      // a packed payload in one piece
	floats  [][]float64 // storage for segment.early
	to      [1]int
}

// segment is a part of the vector that travels in one frame.
type segment struct {
	chunk, lo, hi int
	missing       int       // elements that the caller has not declared ready
	owed          int       // summands that are not added yet, the own one among them
	came          int       // index into Reducer.came of what the first child has sent; the others follow
	early         []float64 // the sum of what came before the own summand was ready, or, in an Exchange, of all that came
	sent          bool      // the own summand is added, or sent
	done          bool      // the result is here
}

// early is a frame that came before its op, with a payload of our own.
type early struct {
	from  int
	frame Frame
}

// load is how much is held: frames and bytes of summands, and headers.
type load struct{ frames, bytes, headers int }

// New makes a reducer that has not started an op. It panics if cfg is not valid.
func New(cfg Config) *Reducer {
	if err := cfg.Validate(); err != nil {
		panic(err.Error())
	}
	r := &Reducer{
		cfg:     cfg.withDefaults(),
		can:     Algorithms(cfg.World, cfg.Zones),
		headers: make([][]byte, cfg.World),
		arrived: make([]bool, cfg.World),
		models:  make([]Model, cfg.World),
		owes:    make([]load, cfg.World),
	}
	r.finish = r.finishTotal
	return r
}

// Seq returns the number of the op last started, 0 before the first.
func (r *Reducer) Seq() uint64 { return r.seq }

// Done reports whether the op last started is complete: Out is the result and the reducer has given Vec
// and Out back. The headers of all ranks, by rank, are valid until the next Start.
func (r *Reducer) Done() (headers [][]byte, ok bool) {
	if r.busy || r.seq == 0 {
		return nil, false
	}
	return r.headers, true
}

// Total returns the sum mod 2^64 of all elements' totals, valid as long as Done's headers. Each
// segment's part is what Finish returned on the rank that owns it, and comes with its result.
func (r *Reducer) Total() uint64 { return r.total }

// Algorithm returns how the op last started is done.
func (r *Reducer) Algorithm() Algorithm {
	if r.plan == nil {
		return Auto
	}
	return r.plan.Algorithm
}

// Start begins the next op and takes in what came early for it. An error means that the given peer broke
// the protocol; the reducer must be dropped then. It panics if an op is in progress or op breaks its promises.
func (r *Reducer) Start(op Op, emit Emit) (from int, err error) {
	r.check(op)
	r.reset(op)
	if !op.Open {
		r.head(op.Header, emit)
		r.readyAll(emit)
		r.finishTotals(emit)
		r.settle()
	}
	return r.release(emit)
}

// check panics if the caller breaks a promise of Op.
func (r *Reducer) check(op Op) {
	switch {
	case r.busy:
		panic(fmt.Sprintf("allreduce: op %d started while op %d is in progress", op.Seq, r.seq))
	case op.Seq != r.seq+1:
		panic(fmt.Sprintf("allreduce: op %d started after op %d", op.Seq, r.seq))
	case len(op.Vec) != len(op.Out):
		panic(fmt.Sprintf("allreduce: op %d: %d elements in, %d out", op.Seq, len(op.Vec), len(op.Out)))
	case len(op.Vec) > r.cfg.MaxElements:
		panic(fmt.Sprintf("allreduce: op %d: %d elements, at most %d", op.Seq, len(op.Vec), r.cfg.MaxElements))
	case op.Open && op.Header != nil:
		panic(fmt.Sprintf("allreduce: op %d: open, and with a header", op.Seq))
	case op.Finish == nil && len(op.Vec) > 0:
		panic(fmt.Sprintf("allreduce: op %d: no Finish", op.Seq))
	case op.Algorithm != Auto && !slices.Contains(r.can, op.Algorithm):
		panic(fmt.Sprintf("allreduce: op %d: %v in a world of %d", op.Seq, op.Algorithm, r.cfg.World))
	}
}

// reset makes op the op in progress, with nothing received.
func (r *Reducer) reset(op Op) {
	a := r.Choose(op.Algorithm, len(op.Vec))
	if r.schedules[a] == nil {
		s := NewSchedule(a, r.cfg.Rank, r.cfg.World, r.cfg.Zones)
		r.schedules[a] = &s
	}
	r.plan = r.schedules[a]
	r.op, r.seq, r.busy = op, op.Seq, true
	clear(r.arrived)
	r.total, r.unheard = 0, r.cfg.World
	r.cut()
	r.waiting = r.cfg.World + len(r.segments)
}

// cut makes the segments of the op.
func (r *Reducer) cut() {
	l := layout{n: len(r.op.Vec), world: len(r.plan.Chunks), segment: r.cfg.SegmentBytes / 8}
	r.segments, r.first = r.segments[:0], r.first[:0]
	came := 0
	for c := range r.plan.Chunks {
		r.first = append(r.first, len(r.segments))
		children := len(r.summands(c))
		for s := range l.segments(c) {
			lo, hi := l.slice(c, s)
			r.segments = append(r.segments, segment{chunk: c, lo: lo, hi: hi, missing: hi - lo, owed: 1 + children, came: came})
			came += children
		}
	}
	r.first = append(r.first, len(r.segments))
	r.came = append(r.came[:0], make([]bool, came)...)
}

// summands lists the ranks that send sums or shares of a chunk here.
func (r *Reducer) summands(c int) []int {
	if r.plan.Algorithm == Exchange {
		return r.everybody()
	}
	return r.plan.Chunks[c].Children
}

// everybody lists all other ranks, in an Exchange.
func (r *Reducer) everybody() []int { return r.plan.Heads[r.cfg.Rank].Children }

// Head gives the header of an op that was started Open, once.
func (r *Reducer) Head(header []byte, emit Emit) {
	if !r.busy || !r.op.Open || r.arrived[r.cfg.Rank] {
		panic("allreduce: a header that no op waits for")
	}
	r.head(header, emit)
	r.finishTotals(emit)
	r.settle()
}

func (r *Reducer) head(header []byte, emit Emit) {
	if len(header) > r.cfg.MaxHeader {
		panic(fmt.Sprintf("allreduce: op %d: header of %d bytes, at most %d", r.seq, len(header), r.cfg.MaxHeader))
	}
	rank := r.cfg.Rank
	r.keepHeader(rank, Frame{Payload: header}, r.measure)
	r.passHeader(rank, emit)
}

// Ready tells that elements [lo, hi) of an op that was started Open are final. Each element is declared once.
func (r *Reducer) Ready(lo, hi int, emit Emit) {
	if !r.busy || !r.op.Open || lo < 0 || hi < lo || hi > len(r.op.Vec) {
		panic(fmt.Sprintf("allreduce: op %d: elements %d to %d that no op waits for", r.seq, lo, hi))
	}
	i, _ := slices.BinarySearchFunc(r.segments, lo, func(s segment, lo int) int { return s.hi - lo - 1 }) // the first that ends after lo
	for ; i < len(r.segments) && r.segments[i].lo < hi; i++ {
		s := &r.segments[i]
		if s.missing -= min(hi, s.hi) - max(lo, s.lo); s.missing < 0 {
			panic(fmt.Sprintf("allreduce: op %d: some of the elements %d to %d were declared ready before", r.seq, lo, hi))
		} else if s.missing == 0 {
			r.ready(i, emit)
		}
	}
	r.finishTotals(emit)
	r.settle()
}

// readyAll declares all elements ready. It begins after the own chunk and goes from chunk to chunk, so
// that all links have something to do, and not all ranks begin with the same one.
func (r *Reducer) readyAll(emit Emit) {
	chunks := len(r.plan.Chunks)
	for k, some := 0, true; some; k++ {
		some = false
		for c := range chunks {
			c = (r.cfg.Rank + 1 + c) % chunks
			if i := r.first[c] + k; i < r.first[c+1] {
				some = true
				r.segments[i].missing = 0
				r.ready(i, emit)
			}
		}
	}
}

// ready adds or sends the own summand of a segment.
func (r *Reducer) ready(i int, emit Emit) {
	s := &r.segments[i]
	s.sent = true
	own := r.op.Vec[s.lo:s.hi]
	if r.plan.Algorithm == Exchange {
		if others := r.everybody(); len(others) > 0 {
			emit(others, r.frame(Share, r.cfg.Rank, i, wire64(own)))
		}
	} else if s.early != nil {
		addFloats(own, s.early)
		r.giveBack(s)
	}
	r.added(i, emit)
}

// added counts one summand of a segment. When all are there, the sum goes on its way.
func (r *Reducer) added(i int, emit Emit) {
	s := &r.segments[i]
	if s.owed--; s.owed > 0 {
		return
	}
	if p := r.plan.Chunks[s.chunk].Parent; p >= 0 {
		r.to[0] = p
		emit(r.to[:], r.frame(Reduce, s.chunk, i, wire64(r.op.Vec[s.lo:s.hi])))
		return
	}
	r.totals = append(r.totals, i)
}

// keepHeader stores the header of a rank.
func (r *Reducer) keepHeader(rank int, f Frame, m Model) {
	r.headers[rank] = f.appendPayload(r.headers[rank][:0])
	r.models[rank] = m
	r.arrived[rank] = true
	r.unheard--
	r.waiting--
}

// passHeader sends a rank's header away from that rank.
func (r *Reducer) passHeader(rank int, emit Emit) {
	if on := r.plan.Heads[rank].Children; len(on) > 0 {
		f := r.frame(Header, rank, 0, r.headers[rank])
		f.Segment, f.Sum = 0, uint64(r.models[rank])
		emit(on, f)
	}
}

// Receive takes one frame from a peer; frames of a peer must come in the order in which it emitted them.
// The payload is not kept after it returns. A frame that does not belong here is an error that names it;
// the reducer must be dropped then.
func (r *Reducer) Receive(from int, f Frame, emit Emit) error {
	if err := r.admit(f); err != nil {
		return err
	}
	if f.Seq != r.seq {
		return r.hold(from, f)
	}
	return r.accept(from, f, emit)
}

// admit checks all that can be checked of a frame without knowing its op.
func (r *Reducer) admit(f Frame) error {
	switch {
	case f.Fence != r.cfg.Fence:
		return refuse(f, "this is view %v", r.cfg.Fence)
	case f.Kind < Header || f.Kind > Share:
		return refuse(f, "no part of an op")
	case f.Encoding == Shared:
		return refuse(f, "its payload is elsewhere")
	case f.Algorithm == Auto:
		return refuse(f, "no algorithm")
	case int64(f.Chunk) >= int64(r.cfg.World):
		return refuse(f, "chunk of a world of %d", r.cfg.World)
	case r.busy && f.Seq != r.seq && f.Seq != r.seq+1:
		return refuse(f, "op %d is in progress", r.seq)
	case !r.busy && f.Seq != r.seq+1:
		return refuse(f, "op %d is next", r.seq+1)
	case f.Kind == Header && f.size() > r.cfg.MaxHeader:
		return refuse(f, "a header has at most %d bytes", r.cfg.MaxHeader)
	case f.Seq != r.seq && f.Kind == Gather:
		return refuse(f, "finished before rank %d gave its part", r.cfg.Rank)
	}
	return nil
}

// accept takes a frame of the op in progress.
func (r *Reducer) accept(from int, f Frame, emit Emit) error {
	if f.Algorithm != r.plan.Algorithm {
		return refuse(f, "op %d of %d elements is a %v here", r.seq, len(r.op.Vec), r.plan.Algorithm)
	}
	var err error
	switch f.Kind {
	case Header:
		err = r.acceptHeader(from, f, emit)
	case Gather:
		err = r.acceptGather(from, f, emit)
	default:
		err = r.acceptSummand(from, f, emit)
	}
	if err != nil {
		return err
	}
	r.finishTotals(emit)
	r.settle()
	return nil
}

func (r *Reducer) acceptHeader(from int, f Frame, emit Emit) error {
	rank := int(f.Chunk)
	if p := r.plan.Heads[rank].Parent; p != from {
		return refuse(f, "rank %d has it from rank %d, not from %d", r.cfg.Rank, p, from)
	}
	if r.arrived[rank] || f.Segment != 0 {
		return refuse(f, "the header of rank %d came before", rank)
	}
	r.keepHeader(rank, f, Model(f.Sum))
	r.passHeader(rank, emit)
	return nil
}

// acceptSummand adds what a peer has to that of others: to the own summand or, while that is not ready,
// beside it. In an Exchange the own one is on its way as it is, and all others are added beside it.
func (r *Reducer) acceptSummand(from int, f Frame, emit Emit) error {
	exchange := r.plan.Algorithm == Exchange
	chunk := int(f.Chunk)
	switch {
	case exchange != (f.Kind == Share):
		return refuse(f, "a %v has none", r.plan.Algorithm)
	case exchange && chunk != from:
		return refuse(f, "it comes from rank %d", from)
	case exchange:
		chunk = 0
	}
	i, err := r.find(f, chunk, 8)
	if err != nil {
		return err
	}
	s := &r.segments[i]
	child := slices.Index(r.summands(chunk), from)
	switch {
	case child < 0:
		return refuse(f, "rank %d adds nothing of rank %d to it", r.cfg.Rank, from)
	case r.came[s.came+child]:
		return refuse(f, "it came before")
	}
	r.came[s.came+child] = true
	if s.sent && s.owed == 1 && r.plan.Chunks[s.chunk].Parent < 0 && r.op.Eager && f.Encoding == Raw {
		s.owed = 0
		sum := r.addAndFinish(s, f)
		r.giveBack(s)
		r.gather(i, sum, emit)
		return nil
	}
	if err := r.add(s, f, s.sent && !exchange); err != nil {
		return err
	}
	r.added(i, emit)
	return nil
}

// finishBlock is how many elements are finished at a time: what is added up and the result lie in a
// first-level cache.
const finishBlock = 2048

// addAndFinish adds the last summand of a segment that this rank owns, and finishes it. Its total is
// never written to memory as a whole.
func (r *Reducer) addAndFinish(s *segment, f Frame) (sum uint64) {
	own := r.op.Vec[s.lo:s.hi]
	f.floats(func(at int, wire []byte) {
		for len(wire) > 0 {
			n := min(len(wire)/8, finishBlock)
			if r.plan.Algorithm == Exchange { // the own one may be on its way still
				sum += r.finishBeside(s, at, wire[:8*n])
			} else {
				addWire(own[at:at+n], wire[:8*n])
				sum += r.finishPart(s, at, own[at:at+n])
			}
			at, wire = at+n, wire[8*n:]
		}
	})
	return sum
}

// finishBeside does so with some elements, and leaves the own ones as they are.
func (r *Reducer) finishBeside(s *segment, at int, wire []byte) uint64 {
	n := len(wire) / 8
	own := r.op.Vec[s.lo+at : s.lo+at+n]
	if s.early != nil {
		total := s.early[at : at+n]
		addWire(total, wire)
		addFloats(total, own)
		return r.finishPart(s, at, total)
	}
	total := r.take(n)
	setWire(total, wire)
	addFloats(total, own)
	sum := r.finishPart(s, at, total)
	r.floats = append(r.floats, total)
	return sum
}

// finishPart finishes elements of a segment from at on.
func (r *Reducer) finishPart(s *segment, at int, total []float64) uint64 {
	lo, hi := s.lo+at, s.lo+at+len(total)
	headers := r.headers
	if r.op.Eager {
		headers = nil
	}
	return r.op.Finish(lo, hi, total[:len(total):len(total)], headers, r.op.Out[lo:hi:hi])
}

// add adds a summand: to the own one, or beside it.
func (r *Reducer) add(s *segment, f Frame, toOwn bool) error {
	acc, set := s.early, false
	switch {
	case toOwn:
		acc = r.op.Vec[s.lo:s.hi]
	case acc == nil:
		acc, set = r.take(s.hi-s.lo), true
		s.early = acc
	}
	switch {
	case f.Encoding == Packed && set:
		return refusePacked(f, packing.DecodeInts(acc, r.whole(f)))
	case f.Encoding == Packed:
		return refusePacked(f, packing.AddInts(acc, r.whole(f)))
	case set:
		f.floats(func(at int, wire []byte) { setWire(acc[at:at+len(wire)/8], wire) })
	default:
		f.floats(func(at int, wire []byte) { addWire(acc[at:at+len(wire)/8], wire) })
	}
	return nil
}

// whole returns a payload in one piece, valid until the next call.
func (r *Reducer) whole(f Frame) []byte {
	if len(f.More) == 0 {
		return f.Payload
	}
	r.scratch = f.appendPayload(r.scratch[:0])
	return r.scratch
}

func refusePacked(f Frame, err error) error {
	if err == nil {
		return nil
	}
	return refuse(f, "%v", err)
}

// acceptGather stores a finished segment and passes it on.
func (r *Reducer) acceptGather(from int, f Frame, emit Emit) error {
	chunk := int(f.Chunk)
	i, err := r.find(f, chunk, 4)
	if err != nil {
		return err
	}
	s, place := &r.segments[i], r.plan.Chunks[chunk]
	switch {
	case place.Parent != from:
		return refuse(f, "rank %d has it from rank %d, not from %d", r.cfg.Rank, place.Parent, from)
	case s.owed > 0:
		return refuse(f, "finished before rank %d gave its part", r.cfg.Rank)
	case s.done:
		return refuse(f, "it came before")
	}
	if f.Encoding == Packed {
		err = refusePacked(f, packing.DecodeFloats(r.op.Out[s.lo:s.hi], r.whole(f)))
	} else {
		storeWire(r.op.Out[s.lo:s.hi], f)
	}
	if err != nil {
		return err
	}
	r.gather(i, f.Sum, emit)
	return nil
}

// gather passes a finished segment on.
func (r *Reducer) gather(i int, sum uint64, emit Emit) {
	s := &r.segments[i]
	s.done = true
	r.total += sum
	r.waiting--
	if r.op.Final != nil {
		r.op.Final(s.lo, s.hi)
	}
	if r.plan.Algorithm == Exchange {
		return
	}
	if on := r.plan.Chunks[s.chunk].Children; len(on) > 0 {
		f := r.frame(Gather, s.chunk, i, wire32(r.op.Out[s.lo:s.hi]))
		f.Sum = sum
		emit(on, f)
	}
}

// find returns the segment that a frame is about, and checks that it has the right length, in elements
// of size bytes.
func (r *Reducer) find(f Frame, chunk, size int) (int, error) {
	if chunk >= len(r.plan.Chunks) {
		return 0, refuse(f, "a %v has %d chunks", r.plan.Algorithm, len(r.plan.Chunks))
	}
	if count := r.first[chunk+1] - r.first[chunk]; int64(f.Segment) >= int64(count) {
		return 0, refuse(f, "this chunk has %d segments", count)
	}
	i := r.first[chunk] + int(f.Segment)
	if n := r.segments[i].hi - r.segments[i].lo; f.Encoding == Raw && f.size() != n*size {
		return 0, refuse(f, "%d elements of %d bytes expected", n, size)
	}
	return i, nil
}

// finishTotals finishes what has its total and, unless the op is Eager, all headers, and sends it on.
func (r *Reducer) finishTotals(emit Emit) {
	n := len(r.totals)
	if n == 0 || r.unheard > 0 && !r.op.Eager {
		return
	}
	r.sums = append(r.sums[:0], make([]uint64, n)...)
	if r.op.Each == nil || n == 1 {
		for i := range n {
			r.finishTotal(i)
		}
	} else {
		r.op.Each(n, r.finish)
	}
	for k, i := range r.totals {
		r.giveBack(&r.segments[i])
		r.gather(i, r.sums[k], emit)
	}
	r.totals = r.totals[:0]
}

// finishTotal finishes the i-th of the segments whose totals are here.
func (r *Reducer) finishTotal(i int) {
	s := &r.segments[r.totals[i]]
	own := r.op.Vec[s.lo:s.hi]
	if s.early == nil {
		r.sums[i] = r.finishPart(s, 0, own)
		return
	}
	// An Exchange: the own summand may be on its way still.
	r.sums[i] = 0
	for at := 0; at < len(own); at += finishBlock {
		total := s.early[at:min(at+finishBlock, len(own))]
		addFloats(total, own[at:at+len(total)])
		r.sums[i] += r.finishPart(s, at, total)
	}
}

// settle ends the op once nothing is missing, and forgets the caller's memory.
func (r *Reducer) settle() {
	if r.waiting == 0 {
		r.busy, r.op = false, Op{}
	}
}

// hold keeps an early frame of the next op: headers and summands, no more of them from a peer than the
// largest op has.
func (r *Reducer) hold(from int, f Frame) error {
	o := &r.owes[from]
	if f.Kind == Header {
		o.headers++
	} else {
		o.frames++
		o.bytes += f.size()
	}
	frames := r.cfg.World + r.cfg.MaxElements/(r.cfg.SegmentBytes/8)
	bytes := packing.MaxInts(r.cfg.MaxElements) + frames*packing.MaxInts(1) // whose last elements are packed apart
	if o.headers > r.cfg.World || o.frames > frames || o.bytes > bytes {
		return refuse(f, "more than an op of %d elements can send early", r.cfg.MaxElements)
	}
	var own []byte
	if n := len(r.spare); n > 0 {
		own, r.spare = r.spare[n-1], r.spare[:n-1]
	}
	f.Payload, f.More = f.appendPayload(own[:0]), nil
	r.held = append(r.held, early{from, f})
	return nil
}

// release takes in the held frames of the op just started, and returns who broke the protocol.
func (r *Reducer) release(emit Emit) (from int, err error) {
	for _, e := range r.held {
		if !r.busy {
			return e.from, refuse(e.frame, "op %d is complete", r.seq)
		}
		if err := r.accept(e.from, e.frame, emit); err != nil {
			return e.from, err
		}
		r.spare = append(r.spare, e.frame.Payload)
	}
	clear(r.held)
	clear(r.owes)
	r.held = r.held[:0]
	return 0, nil
}

// take returns storage for n elements; what is in it is rubbish.
func (r *Reducer) take(n int) []float64 {
	if k := len(r.floats); k > 0 {
		v := r.floats[k-1]
		r.floats = r.floats[:k-1]
		if cap(v) >= n {
			return v[:n]
		}
	}
	return make([]float64, n, min(max(n, 64), r.cfg.SegmentBytes/8))
}

// giveBack returns a segment's storage.
func (r *Reducer) giveBack(s *segment) {
	if s.early != nil {
		r.floats = append(r.floats, s.early)
		s.early = nil
	}
}

// frame makes a frame of the op in progress, about segment i of all.
func (r *Reducer) frame(kind Kind, chunk, i int, payload []byte) Frame {
	f := Frame{
		Fence: r.cfg.Fence, Seq: r.seq, Kind: kind, Algorithm: r.plan.Algorithm, Chunk: uint32(chunk), Payload: payload,
	}
	if kind != Header {
		f.Segment = uint32(i - r.first[r.segments[i].chunk])
	}
	return f
}

// Debt is what a peer owes to the op in progress.
type Debt uint8

// The debts, the worst last.
const (
	Nothing Debt = iota
	Others       // a result, or another rank's header: it may wait for somebody itself
	Own          // its header, or a summand
)

// Owes tells what the op in progress waits for of a peer.
func (r *Reducer) Owes(peer int) (d Debt) {
	if !r.busy {
		return Nothing
	}
	for rank, h := range r.plan.Heads {
		if !r.arrived[rank] && h.Parent == peer {
			d = Others
			if rank == peer {
				return Own
			}
		}
	}
	for i := range r.segments {
		s := &r.segments[i]
		if s.owed > 0 {
			if child := slices.Index(r.summands(s.chunk), peer); child >= 0 && !r.came[s.came+child] {
				return Own
			}
		}
		if !s.done && r.plan.Chunks[s.chunk].Parent == peer {
			d = Others
		}
	}
	return d
}

// refuse is the error for a frame that does not belong here.
func refuse(f Frame, format string, args ...any) error {
	return fmt.Errorf("allreduce: refused %v: %s", f, fmt.Sprintf(format, args...))
}
