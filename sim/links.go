package sim

import (
	"bytes"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/train"
)

// group drives the machine of one group on one node, as rpc.Group does.
type group struct {
	l    *life
	cfg  allreduce.GroupConfig
	m    *allreduce.Group
	h    train.GroupHandlers
	out  *stream // to the right
	in   *stream // from the left
	down bool    // Down has been told
	last bool    // the life is over: nothing is told any more

	waiting, sending    time.Duration // since when, 0 for not
	framesIn, framesOut uint64
	bytesIn, bytesOut   uint64
	addr                string // of the right neighbour
	seq                 uint64 // of the op last started
}

// segmentBytes is small, so that small models have several segments.
const segmentBytes = 256

func (l *life) openGroup(cfg allreduce.GroupConfig, rightAddr string, h train.GroupHandlers) *group {
	cfg.Ring.SegmentBytes = segmentBytes
	g := &group{l: l, cfg: cfg, h: h, addr: rightAddr}
	g.m = allreduce.NewGroup(cfg, g)
	if !l.alive {
		g.last = true
		return g
	}
	l.logf("opens group %s as rank %d of %d", cfg.Ring.Fence, cfg.Ring.Rank, cfg.Ring.World)
	l.c.checks.opened(l, g)
	l.groups = append(l.groups, g)
	if cfg.Ring.World > 1 {
		g.out = &stream{from: g}
		l.c.after(l.c.latency(), g.out.dial)
		l.c.after(setupTimeout, func() { l.happen(func() { g.m.Setup(setupTimeout) }) })
		l.admitWaiting(g)
	}
	return g
}

// admitWaiting takes in streams that came before the group.
func (l *life) admitWaiting(g *group) {
	var rest []*stream
	for _, s := range l.offered {
		if s.from.cfg.Ring.Fence != g.cfg.Ring.Fence {
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
			if g.cfg.Ring.Fence == f {
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
	g.l.spoil(op)
	g.seq = op.Seq
	g.waiting = g.l.c.now
	g.m.Start(op)
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
	left, right := g.m.Links()
	p := rpc.Progress{
		Op: g.seq, Computing: g.m.Computing(), LeftUp: left, RightUp: right,
		FramesIn: g.framesIn, FramesOut: g.framesOut, BytesIn: g.bytesIn, BytesOut: g.bytesOut, SendingSince: at(g.sending),
	}
	if !p.Computing {
		p.WaitingSince = at(g.waiting)
	}
	return p
}

// --- allreduce.Outlet ---

func (g *group) Send(f allreduce.Frame) {
	if g.last || g.l.c.hook != nil && !g.l.crosses(f) {
		return
	}
	g.framesOut++
	g.bytesOut += uint64(len(f.Payload))
	g.out.push(packet{raw: f.Append(nil), fence: f.Fence})
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
	l.logf("group %s ends: %s (by %s)", g.cfg.Ring.Fence, note.Reason, note.By)
	l.c.checks.groupEnds(l, g, note)
	raw := allreduce.Frame{Fence: g.cfg.Ring.Fence, Kind: allreduce.Closing, Payload: note.Append(nil)}.Append(nil)
	if g.out != nil {
		g.out.truncate()
		g.out.push(packet{raw: raw, fence: g.cfg.Ring.Fence})
		g.out.lastWords = true
	}
	if g.in != nil {
		g.in.reply(raw)
	}
	wait := l.c.between(0, linger)
	if g.cfg.Ring.World == 1 {
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
	for _, s := range []*stream{g.out, g.in} {
		if s == nil {
			continue
		}
		switch {
		case g.l.silent:
			s.dead = true
		case hard && s == g.out:
			s.truncate()
			s.dying = true
			s.pump()
		case hard:
			s.reset("stream reset")
		}
	}
}

// --- streams ---

// packet is a frame under way, with what it says and, apart from that, what it is.
type packet struct {
	raw   []byte
	fence allreduce.Fence // of the group that sent it
}

// stream is a link from a group to its right neighbour: in order, or broken.
type stream struct {
	from      *group
	to        *group // once taken
	queue     []packet
	pumping   bool
	free      time.Duration
	taken     bool
	dead      bool
	dying     bool // its sender is gone: what is queued is the last
	lastWords bool
}

// dial tries to reach the right neighbour until the group ends.
func (s *stream) dial() {
	g := s.from
	l, c := g.l, g.l.c
	home := c.homeOf(g.addr)
	if s.dead || !l.alive || g.down || home == nil {
		return
	}
	to := c.at(g.addr)
	switch {
	case !c.both(l.id, home.id), to == nil && !home.refuses():
		c.after(c.between(100*time.Millisecond, 400*time.Millisecond), s.dial)
	case to == nil:
		c.after(c.latency(), func() { l.happen(func() { g.m.RightLost("connection refused") }) })
	default:
		to.happen(func() { s.arrive(to) })
	}
}

// arrive is a stream's coming to the right process, which may not have the group yet.
func (s *stream) arrive(to *life) {
	if g := to.find(s.from.cfg.Ring.Fence); g != nil {
		s.offer(g)
		return
	}
	to.offered = append(to.offered, s)
	to.soon(groupWait, func() {
		for i, o := range to.offered {
			if o == s {
				to.offered = append(to.offered[:i], to.offered[i+1:]...)
				s.refuse("no group of view " + s.from.cfg.Ring.Fence.String() + " here")
				return
			}
		}
	})
}

func (s *stream) refuse(why string) {
	g := s.from
	g.l.c.after(g.l.c.latency(), func() { g.l.happen(func() { g.m.RightRefused(why) }) })
}

// offer asks a group to take the stream.
func (s *stream) offer(g *group) {
	if s.dead || s.taken {
		return
	}
	if err := g.m.Admit(s.from.cfg.Self); err != nil {
		s.refuse(err.Error())
		return
	}
	s.to, s.taken = g, true
	if note, ended := g.m.Ended(); ended {
		s.reply(allreduce.Frame{Fence: g.cfg.Ring.Fence, Kind: allreduce.Closing, Payload: note.Append(nil)}.Append(nil))
		return
	}
	g.in = s
	f := s.from
	f.l.c.after(f.l.c.latency(), func() { f.l.happen(func() { f.m.Taken() }) })
	s.pump()
}

// reply sends a closing frame back to the left neighbour.
func (s *stream) reply(raw []byte) {
	if s.to == nil || s.dead {
		return
	}
	s.from.l.c.wayBack(s.to.l, s.from.l, func() {
		s.from.l.happen(func() { s.from.m.Reply(parse(s.from.l.c, raw)) })
	})
}

func parse(c *Cluster, raw []byte) allreduce.Frame {
	f, err := allreduce.ParseFrame(raw)
	if err != nil {
		c.checks.fail("protocol", "a frame that nobody can read: %v", err)
	}
	return f
}

func (s *stream) push(p packet) {
	if s.dead {
		return
	}
	s.from.l.c.remember(p)
	s.queue = append(s.queue, p)
	s.from.sending = 0
	s.pump()
}

// truncate loses a part of what was queued and is not in the network yet.
func (s *stream) truncate() {
	if n := len(s.queue); n > 0 {
		s.queue = s.queue[:s.from.l.c.rnd.IntN(n+1)]
	}
}

// pump has the next packet arrive.
func (s *stream) pump() {
	if s.pumping || s.dead || !s.taken {
		return
	}
	c := s.from.l.c
	if len(s.queue) == 0 {
		if s.dying {
			s.reset("stream reset")
		}
		return
	}
	s.pumping = true
	at := max(s.free+time.Duration(c.rnd.IntN(100))*time.Microsecond, c.now)
	if c.now >= s.free {
		at = c.now + c.latency()
	}
	s.free = at
	c.after(at-c.now, s.deliver)
}

// deliver hands over one packet, once the way is open.
func (s *stream) deliver() {
	c := s.from.l.c
	if s.dead {
		return
	}
	if s.broken() {
		return
	}
	to := s.to.l
	if !c.open(s.from.l.id, to.id) {
		if s.from.sending == 0 {
			s.from.sending = c.now
		}
		c.after(c.between(50*time.Millisecond, 200*time.Millisecond), s.deliver)
		return
	}
	s.pumping = false
	s.from.sending = 0
	if len(s.queue) > 0 {
		p := s.queue[0]
		s.queue = s.queue[1:]
		to.happen(func() { s.to.receive(p) })
	}
	s.pump()
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
			c.after(c.latency(), func() { s.from.l.happen(func() { s.from.m.RightLost(why) }) })
		}
		return
	}
	c.wayBack(s.from.l, s.to.l, func() { s.to.l.happen(func() { s.to.m.LeftLost(why) }) })
	c.wayBack(s.to.l, s.from.l, func() { s.from.l.happen(func() { s.from.m.RightLost(why) }) })
}

// receive gives a frame to the machine, and checks that it belongs there.
func (g *group) receive(p packet) {
	if g.down {
		return
	}
	g.framesIn++
	g.bytesIn += uint64(max(0, len(p.raw)-allreduce.FrameOverhead))
	g.waiting = g.l.c.now
	_, before := g.m.Ended()
	raw := bytes.Clone(p.raw)
	g.m.Receive(parse(g.l.c, raw))
	for i := range raw { // the link's memory is the link's again
		raw[i] = 0x5a
	}
	if _, after := g.m.Ended(); p.fence != g.cfg.Ring.Fence && !before && !after {
		g.l.c.checks.fail("fence", "%s in group %s takes in a frame of group %s", g.l.name(), g.cfg.Ring.Fence, p.fence)
	}
}
