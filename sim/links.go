package sim

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/shard"
	"github.com/dlnode/dlnode/train"
)

// group drives the machine of one group on one node, as rpc.Group does.
type group struct {
	l    *life
	cfg  allreduce.GroupConfig
	m    *allreduce.Group
	h    train.GroupHandlers
	ways []*way // by rank, to each peer; nil where there is none
	down bool   // Down has been told
	last bool   // the life is over: nothing is told any more

	started time.Duration // when the op in progress was, 0 for never
	addrs   []string      // by rank
	seq     uint64        // of the op last started
	vec     []float64     // its summand
}

func (l *life) openGroup(cfg allreduce.GroupConfig, addrs []string, h train.GroupHandlers) *group {
	cfg.Config.SegmentBytes = l.c.segmentBytes(cfg.Config.Fence)
	g := &group{l: l, cfg: cfg, h: h, addrs: addrs, ways: make([]*way, cfg.Config.World)}
	g.m = allreduce.NewGroup(cfg, g)
	if !l.alive {
		g.last = true
		return g
	}
	l.logf("opens group %s as rank %d of %d", cfg.Config.Fence, cfg.Config.Rank, cfg.Config.World)
	l.c.checks.opened(l, g)
	l.newest = 0 // what it was told of before, outside, is no matter if it has to come in once more
	l.groups = append(l.groups, g)
	for _, rank := range g.m.Peers() {
		g.ways[rank] = &way{from: g, peer: rank}
		if allreduce.Opens(cfg.Config.Rank, rank, cfg.Config.World) {
			s := &stream{from: g, peer: rank}
			g.ways[rank].s = s
			l.c.after(l.c.latency(), s.dial)
		}
	}
	if cfg.Config.World > 1 {
		l.c.after(setupTimeout, func() { l.happen(func() { g.m.Setup(setupTimeout) }) })
		l.admitWaiting(g)
	}
	return g
}

// mixed is a number that all members of a group know and nobody can guess.
func (c *Cluster) mixed(f allreduce.Fence, seq uint64) uint64 {
	return shard.Mix(binary.LittleEndian.Uint64(f[:]) ^ shard.Mix(c.opt.Seed+seq))
}

// segmentBytes is small, so that small models have several segments.
func (c *Cluster) segmentBytes(f allreduce.Fence) int {
	if n := c.opt.SegmentBytes; n > 0 {
		return n
	}
	return []int{64, 256, 256, 1000, 4096}[c.mixed(f, 0)%5]
}

// algorithm is how an op is done: any, unless the schedule says which.
func (g *group) algorithm(seq uint64) allreduce.Algorithm {
	c := g.cfg.Config
	if a := g.l.c.opt.Algorithm; a != allreduce.Auto {
		return a
	}
	all := append(allreduce.Algorithms(c.World, c.Zones), allreduce.Auto)
	return all[g.l.c.mixed(c.Fence, seq)%uint64(len(all))]
}

// admitWaiting takes in streams that came before the group.
func (l *life) admitWaiting(g *group) {
	var rest []*stream
	for _, s := range l.offered {
		if s.from.cfg.Config.Fence != g.cfg.Config.Fence {
			rest = append(rest, s)
			continue
		}
		l.soon(0, func() { s.offer(g) })
	}
	l.offered = rest
}

// current is the group that is up, if there is one.
func (l *life) current() *group {
	if n := len(l.groups); n > 0 {
		return l.groups[n-1]
	}
	return nil
}

// find returns the group of a view, also if it has just ended.
func (l *life) find(f allreduce.Fence) *group {
	for _, all := range [][]*group{l.groups, l.ended} {
		for _, g := range all {
			if g.cfg.Config.Fence == f {
				return g
			}
		}
	}
	return nil
}

// --- train.Link ---

func (g *group) Start(op allreduce.Op) {
	if g.last || !g.l.crosses(op) {
		return
	}
	g.seq, g.vec = op.Seq, op.Vec
	g.started = g.l.c.now
	op.Algorithm = g.algorithm(op.Seq)
	if op.Open {
		g.m.Start(op)
		return
	}
	if !g.gives(op.Vec) {
		return
	}
	if g.l.c.chance(0.3) {
		g.startOpen(op)
		return
	}
	g.m.Start(op)
}

// startOpen gives an op piece by piece, in any order.
func (g *group) startOpen(op allreduce.Op) {
	c, head := g.l.c, op.Header
	op.Open, op.Header = true, nil
	give := []func(){func() { g.m.Head(head) }}
	for lo := 0; lo < len(op.Vec); {
		from, to := lo, min(len(op.Vec), lo+1+c.rnd.IntN(len(op.Vec)))
		give = append(give, func() { g.m.Ready(from, to) })
		lo = to
	}
	g.m.Start(op)
	for _, do := range give {
		g.l.soon(c.between(0, time.Millisecond), do)
	}
}

// sums are what a life gives to an all-reduce: all of them, or those that are ready.
type sums []float64

// gives tells that sums go out now, as whatever has flipped in them has made them.
func (g *group) gives(vec []float64) bool {
	if !g.l.crosses(sums(vec)) {
		return false
	}
	g.l.spoil(vec)
	return true
}

// Ready and Head of an op come in any order, as they do from several threads.
func (g *group) Ready(lo, hi int) {
	if g.last || !g.gives(g.vec[lo:hi]) {
		return
	}
	g.l.soon(g.l.c.between(0, time.Millisecond), func() { g.m.Ready(lo, hi) })
}

func (g *group) Head(header []byte) {
	if g.last || !g.l.crosses(header) {
		return
	}
	g.m.Head(header)
}

func (g *group) Close(ending allreduce.Ending, blame, reason string) {
	if g.last || !g.l.crosses(ending) {
		return
	}
	g.m.Close(ending, blame, reason)
}

func (g *group) Progress() rpc.Progress {
	at := func(d time.Duration) time.Time {
		if d == 0 {
			return time.Time{}
		}
		return g.l.now().Add(-(g.l.c.now - d))
	}
	p := rpc.Progress{Op: g.seq, Computing: g.m.Computing(), Peers: make([]rpc.PeerProgress, len(g.ways))}
	for rank, w := range g.ways {
		if w == nil {
			continue
		}
		p.Peers[rank] = rpc.PeerProgress{Linked: true, Up: g.m.Up(rank), FramesIn: w.framesIn, FramesOut: w.framesOut, SendingSince: at(w.sending)}
		p.FramesIn += w.framesIn
		p.FramesOut += w.framesOut
		p.BytesIn += w.bytesIn
		p.BytesOut += w.bytesOut
	}
	for _, rank := range g.m.Awaited() {
		p.Peers[rank].WaitingSince = at(max(g.started, g.ways[rank].heard))
	}
	return p
}

// --- allreduce.Outlet ---

func (g *group) Send(to []int, f allreduce.Frame) {
	if g.last || g.l.c.hook != nil && !g.l.crosses(f) {
		return
	}
	if g.l.c.chance(0.3) {
		var err error
		if f, err = f.Pack(nil); err != nil {
			g.l.c.checks.fail("protocol", "%v", err)
		}
	}
	raw := f.Append(nil)
	for _, rank := range to {
		w := g.ways[rank]
		w.framesOut++
		w.bytesOut += uint64(len(f.Payload))
		w.push(packet{raw: raw, fence: f.Fence})
	}
}

func (g *group) Done(seq uint64, headers [][]byte, total uint64, _ []float32) {
	g.l.soon(0, func() {
		if r := (&reduced{total}); !g.down && g.l.crosses(r) {
			g.h.Done(seq, headers, r.total)
		}
	})
}

func (g *group) End(note allreduce.ClosingNote) {
	l := g.l
	l.logf("group %s ends: %s (by %s)", g.cfg.Config.Fence, note.Reason, note.By)
	l.c.checks.groupEnds(l, g, note)
	raw := allreduce.Frame{Fence: g.cfg.Config.Fence, Kind: allreduce.Closing, Payload: note.Append(nil)}.Append(nil)
	for _, w := range g.ways {
		if w != nil {
			w.truncate()
			w.push(packet{raw: raw, fence: g.cfg.Config.Fence})
		}
	}
	wait := l.c.between(0, linger)
	if g.cfg.Config.World == 1 {
		wait = 0
	}
	l.soon(wait, func() { g.goDown(note) })
}

// goDown is the end: nothing of the group is left.
func (g *group) goDown(note allreduce.ClosingNote) {
	if g.down {
		return
	}
	g.down = true
	l := g.l
	for i, o := range l.groups {
		if o == g {
			l.groups = append(l.groups[:i], l.groups[i+1:]...)
			break
		}
	}
	if l.ended = append(l.ended, g); len(l.ended) > 16 {
		l.ended = l.ended[1:]
	}
	g.h.Down(note)
}

// die is the end of the process: what is in its sockets still goes out, some of
// it, unless the machine goes too.
func (g *group) die(hard bool) {
	g.last = true
	for _, w := range g.ways {
		switch {
		case w == nil || w.s == nil:
		case g.l.silent:
			w.s.dead = true
		case hard:
			w.truncate()
			w.dying = true
			w.pump()
		}
	}
}

// --- streams ---

// packet is a frame under way, with what it says and, apart from that, what it is.
type packet struct {
	raw   []byte
	fence allreduce.Fence // of the group that sent it
}

// stream is a link between two groups, which one of them has opened. It is whole, or broken.
type stream struct {
	from  *group
	peer  int    // rank of the other end
	to    *group // once taken
	taken bool
	dead  bool
}

// way is one direction of a link, from a group to a peer: in order. It waits for its stream.
type way struct {
	from    *group
	peer    int
	s       *stream // nil before the peer has opened it
	queue   []packet
	pumping bool
	free    time.Duration
	dying   bool // its sender is gone: what is queued is the last

	sending, heard      time.Duration // since when; when the last frame came from there; 0 for not
	framesIn, framesOut uint64
	bytesIn, bytesOut   uint64
}

// dial tries to reach the peer until the group ends.
func (s *stream) dial() {
	g := s.from
	l, c := g.l, g.l.c
	addr := g.addrs[s.peer]
	home := c.homeOf(addr)
	if s.dead || !l.alive || g.down || home == nil {
		return
	}
	to := c.at(addr)
	switch {
	case !c.both(l.id, home.id), to == nil && !home.refuses():
		c.after(c.between(100*time.Millisecond, 400*time.Millisecond), s.dial)
	case to == nil:
		c.after(c.latency(), func() { l.happen(func() { g.m.Lost(s.peer, "connection refused") }) })
	default:
		to.happen(func() { s.arrive(to) })
	}
}

// arrive is a stream's coming to the right process, which may not have the group yet.
func (s *stream) arrive(to *life) {
	if g := to.find(s.from.cfg.Config.Fence); g != nil {
		s.offer(g)
		return
	}
	to.offered = append(to.offered, s)
	to.soon(groupWait, func() {
		for i, o := range to.offered {
			if o == s {
				to.offered = append(to.offered[:i], to.offered[i+1:]...)
				s.refuse("no group of view " + s.from.cfg.Config.Fence.String() + " here")
				return
			}
		}
	})
}

func (s *stream) refuse(why string) {
	g := s.from
	g.l.c.after(g.l.c.latency(), func() { g.l.happen(func() { g.m.Refused(s.peer, why) }) })
}

// offer asks a group to take the stream.
func (s *stream) offer(g *group) {
	if s.dead || s.taken {
		return
	}
	f := s.from
	rank, err := g.m.Admit(f.cfg.Names[f.cfg.Config.Rank])
	if err != nil {
		s.refuse(err.Error())
		return
	}
	s.to, s.taken = g, true
	if note, ended := g.m.Ended(); ended {
		s.reply(allreduce.Frame{Fence: g.cfg.Config.Fence, Kind: allreduce.Closing, Payload: note.Append(nil)}.Append(nil))
		return
	}
	g.ways[rank].s = s
	f.l.c.after(f.l.c.latency(), func() { f.l.happen(func() { f.m.Taken(s.peer) }) })
	g.ways[rank].pump()
	f.ways[s.peer].pump()
}

// reply sends the closing frame of a group that has ended back to who has opened the stream.
func (s *stream) reply(raw []byte) {
	s.from.l.c.wayBack(s.to.l, s.from.l, func() {
		s.from.l.happen(func() { s.from.m.Receive(s.peer, parse(s.from.l.c, raw)) })
	})
}

// other is the group at the other end.
func (s *stream) other(g *group) *group {
	if g == s.from {
		return s.to
	}
	return s.from
}

func parse(c *Cluster, raw []byte) allreduce.Frame {
	f, err := allreduce.ParseFrame(raw)
	if err != nil {
		c.checks.fail("protocol", "a frame that nobody can read: %v", err)
	}
	return f
}

func (w *way) push(p packet) {
	if w.s != nil && w.s.dead {
		return
	}
	w.from.l.c.remember(p)
	w.queue = append(w.queue, p)
	w.sending = 0
	w.pump()
}

// truncate loses a part of what was queued and is not in the network yet.
func (w *way) truncate() {
	if n := len(w.queue); n > 0 {
		w.queue = w.queue[:w.from.l.c.rnd.IntN(n+1)]
	}
}

// pump has the next packet arrive.
func (w *way) pump() {
	if w.pumping || w.s == nil || w.s.dead || !w.s.taken {
		return
	}
	c := w.from.l.c
	if len(w.queue) == 0 {
		if w.dying {
			w.s.reset("stream reset")
		}
		return
	}
	w.pumping = true
	at := max(w.free+time.Duration(c.rnd.IntN(100))*time.Microsecond, c.now)
	if c.now >= w.free {
		at = c.now + c.latency()
	}
	w.free = at
	c.after(at-c.now, w.deliver)
}

// deliver hands over one packet, once the way is open.
func (w *way) deliver() {
	c := w.from.l.c
	if w.s.dead || w.s.broken() {
		return
	}
	to := w.s.other(w.from)
	if !c.open(w.from.l.id, to.l.id) {
		if w.sending == 0 {
			w.sending = c.now
		}
		c.after(c.between(50*time.Millisecond, 200*time.Millisecond), w.deliver)
		return
	}
	w.pumping = false
	w.sending = 0
	if len(w.queue) > 0 {
		p := w.queue[0]
		w.queue = w.queue[1:]
		to.l.happen(func() { to.receive(w.from.cfg.Config.Rank, p) })
	}
	w.pump()
}

// broken resets the stream by chance: at any frame.
func (s *stream) broken() bool {
	c := s.from.l.c
	if c.calm || !c.chance(c.opt.Faults.Reset) {
		return false
	}
	c.trace.logf(c.now, "network", "the stream from %s to %s is reset", s.from.l.name(), s.to.l.name())
	s.reset("stream reset")
	return true
}

// reset ends a stream; both ends see it, unless they are cut off.
func (s *stream) reset(why string) {
	if s.dead {
		return
	}
	s.dead = true
	c := s.from.l.c
	if s.to == nil {
		if !s.from.last {
			c.after(c.latency(), func() { s.from.l.happen(func() { s.from.m.Lost(s.peer, why) }) })
		}
		return
	}
	c.wayBack(s.from.l, s.to.l, func() { s.to.l.happen(func() { s.to.m.Lost(s.from.cfg.Config.Rank, why) }) })
	c.wayBack(s.to.l, s.from.l, func() { s.from.l.happen(func() { s.from.m.Lost(s.peer, why) }) })
}

// receive gives a frame to the machine, and checks that it belongs there.
func (g *group) receive(from int, p packet) {
	if g.down {
		return
	}
	w := g.ways[from]
	w.framesIn++
	w.bytesIn += uint64(max(0, len(p.raw)-allreduce.FrameOverhead))
	w.heard = g.l.c.now
	_, before := g.m.Ended()
	raw := bytes.Clone(p.raw)
	g.m.Receive(from, parse(g.l.c, raw))
	for i := range raw { // the link's memory is the link's again
		raw[i] = 0x5a
	}
	if _, after := g.m.Ended(); p.fence != g.cfg.Config.Fence && !before && !after {
		g.l.c.checks.fail("fence", "%s in group %s takes in a frame of group %s", g.l.name(), g.cfg.Config.Fence, p.fence)
	}
}
