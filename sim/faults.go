package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/train"
)

// Options is one schedule.
type Options struct {
	Seed     uint64
	Load     *Load
	Zones    int           // that nodes are spread over; 0 is one
	Nodes    int           // at the start
	MinNodes int           // 0 is 1
	Compute  time.Duration // the longest that a share of an attempt takes while faults happen
	Faults   Faults
	Gentle   bool // nodes come and go, and nothing fails
	Flip     bool // a bit flips in the memory of one of three or more nodes, and nothing else fails in that one

	Algorithm    allreduce.Algorithm // of every all-reduce; Auto draws one for each
	SegmentBytes int                 // of every group; 0 draws it

	Disturbed bool // but much in others, within a second and a half

	FormBound time.Duration // from the last fault to the full view
	EndBound  time.Duration // from there to the end of the last node
	Trace     bool
}

// Faults is the fault model: all that can go wrong, and how much of it does. The
// zero value is a perfect world. It holds while the safety phase lasts; then
// everything is healed, and only latency stays.
type Faults struct {
	// Messages. One way takes MinDelay to MaxDelay, for a share Tail of them up to
	// TailDelay. Calls overtake one another; a stream keeps its order.
	MinDelay, MaxDelay, TailDelay time.Duration
	Tail                          float64
	Drop                          float64 // share of calls that never arrive; the caller hears of it late
	HalfDone                      float64 // share of calls that are served and whose caller hears of an error
	Duplicate                     float64 // share of messages that come once more, up to 3 s later
	Reset                         float64 // chance of a stream to be reset at each frame

	// Gossip.
	LateGossip  float64 // share of news that take 1 to 8 s
	MissedDeath float64 // share of deaths that are noticed eight times later than usual, and of farewells missed

	// Machines.
	Layer      time.Duration // the longest until a cancelled computation has stopped
	Disk       time.Duration // the longest until a snapshot is written
	Transfer   time.Duration // the longest that copying a state takes
	StatePiece time.Duration // how long a piece of a state is under way; 0 is up to an eighth of Transfer, as for other pieces
	Lending    train.Lending // what nodes keep for those who join
	CopyInView bool          // nodes join as those do that cannot copy in the background
	ClockRate  float64       // clocks run by up to this share too fast or too slow, and start anywhere
	FixedPorts bool          // a new life listens where the old one did
	SharedDisk bool          // all nodes write into one directory

	// Incidents, drawn one after another between First and Last.
	First, Last time.Duration
	Incidents   int
	Restart     float64 // chance of a dead node to come back within 3 s
	Weights     Weights
}

// Weights says how often each kind of incident is drawn. A window is drawn with
// each that lasts.
type Weights struct {
	Kill         int // kill -9 of a process; its disk stays
	PowerLoss    int // of a machine: what was not synced is lost or torn, nobody refuses calls
	LoseDisk     int // a machine with its disk
	KillInWrite  int // a process dies, or its machine, at some file operation of the next checkpoint
	KillSeveral  int // at one moment, up to all but one
	KillAll      int // at one moment
	Freeze       int // SIGSTOP, SIGCONT later
	Slow         int // a node computes 2 to 40 times slower
	Leave        int // SIGTERM
	Join         int // a new node
	Partition    int // into two or three sides
	OneWay       int // from some nodes to others
	CutPair      int // one link, one way or both
	Mute         int // a node that can call nobody, or that nobody can call
	ResetStreams int // all streams at once: a switch restarts
	FalseDeath   int // gossip takes a living node for dead
	ClockJump    int // forward by up to 2 minutes, back by up to 5 s
	FullDisk     int
	FailingDisk  int // operations fail now and then
	Rot          int // a bit of a file flips
	Stray        int // a frame of a former generation comes on a stream of this one
	FlipSum      int // a bit flips in the sums of a node on their way into the ring
}

// weighted pairs each weight with what it does, in a fixed order.
func (w *Weights) weighted() []struct {
	name   string
	weight int
	strike func(*Cluster)
} {
	return []struct {
		name   string
		weight int
		strike func(*Cluster)
	}{
		{"kill", w.Kill, func(c *Cluster) { c.killOne(killed) }},
		{"power-loss", w.PowerLoss, func(c *Cluster) { c.killOne(powerLoss) }},
		{"lose-disk", w.LoseDisk, func(c *Cluster) { c.killOne(diskLost) }},
		{"kill-in-write", w.KillInWrite, (*Cluster).killInWrite},
		{"kill-several", w.KillSeveral, func(c *Cluster) { c.killMany(1) }},
		{"kill-all", w.KillAll, func(c *Cluster) { c.killMany(0) }},
		{"freeze", w.Freeze, (*Cluster).freezeOne},
		{"slow", w.Slow, (*Cluster).slowOne},
		{"leave", w.Leave, (*Cluster).leaveOne},
		{"join", w.Join, (*Cluster).join},
		{"partition", w.Partition, (*Cluster).partition},
		{"one-way", w.OneWay, (*Cluster).oneWay},
		{"cut-pair", w.CutPair, (*Cluster).cutPair},
		{"mute", w.Mute, (*Cluster).mute},
		{"reset-streams", w.ResetStreams, (*Cluster).resetStreams},
		{"false-death", w.FalseDeath, (*Cluster).falseDeath},
		{"clock-jump", w.ClockJump, (*Cluster).clockJump},
		{"full-disk", w.FullDisk, func(c *Cluster) { c.hurtDisk(func(d *disk) { d.fill(c) }) }},
		{"failing-disk", w.FailingDisk, func(c *Cluster) { c.hurtDisk(func(d *disk) { d.failing = true }) }},
		{"rot", w.Rot, (*Cluster).rotOne},
		{"stray", w.Stray, (*Cluster).strayFrame},
		{"flip-sum", w.FlipSum, (*Cluster).flipSum},
	}
}

// Everything is a world in which all of it happens.
func Everything() Faults {
	return Faults{
		MinDelay: 200 * time.Microsecond, MaxDelay: 4 * time.Millisecond, TailDelay: 900 * time.Millisecond,
		Tail: 0.02, Drop: 0.02, HalfDone: 0.02, Duplicate: 0.05, Reset: 0.0005,
		LateGossip: 0.1, MissedDeath: 0.1,
		Layer: 20 * time.Millisecond, Disk: 400 * time.Millisecond, Transfer: 60 * time.Millisecond, ClockRate: 0.1,
		Lending: train.Lending{Piece: 175},
		First:   400 * time.Millisecond, Last: 8 * time.Second, Incidents: 5, Restart: 0.6,
		Weights: Weights{
			Kill: 6, PowerLoss: 3, LoseDisk: 2, KillInWrite: 4, KillSeveral: 2, KillAll: 1, Freeze: 4, Slow: 2, Leave: 3, Join: 4,
			Partition: 3, OneWay: 2, CutPair: 3, Mute: 2, ResetStreams: 2, FalseDeath: 3, ClockJump: 2,
			FullDisk: 2, FailingDisk: 2, Rot: 2, Stray: 1, FlipSum: 2,
		},
	}
}

// Calm is a world in which nothing fails, with latency.
func Calm() Faults {
	return Faults{
		MinDelay: 200 * time.Microsecond, MaxDelay: 4 * time.Millisecond, Layer: 5 * time.Millisecond,
		Disk: 30 * time.Millisecond, Transfer: 20 * time.Millisecond, Lending: train.Lending{Piece: 175},
	}
}

// Draw makes the schedule of a seed: which load, how many nodes, what fails.
func Draw(seed uint64, loads []*Load) Options {
	o := Options{Seed: seed, Load: loads[seed%uint64(len(loads))], FormBound: 15 * time.Second, EndBound: time.Minute}
	c := &Cluster{rnd: newRand(seed, 0xd7a3)}
	o.Faults = Everything()
	f := &o.Faults
	o.Nodes = 1 + c.rnd.IntN(6)
	f.Incidents = 1 + c.rnd.IntN(7)
	f.Last = c.between(2*time.Second, 15*time.Second)
	o.Compute = f.Last / 40
	if c.chance(0.2) {
		o.Compute = f.Last / 400 // some finish while others are away
	}
	switch newRand(seed, 0x1e4d).IntN(10) {
	case 0, 1, 2:
		f.Lending.Records = 6500 // two or three: some are let go before everybody has them
	case 3:
		f.CopyInView = true
	}
	f.FixedPorts = c.chance(0.5)
	f.SharedDisk = c.chance(0.2)
	if c.chance(0.3) {
		f.Tail, f.Drop, f.HalfDone, f.Duplicate, f.Reset = 0, 0, 0, 0, 0
	}
	if c.chance(0.2) {
		f.Layer = time.Second
	}
	if c.chance(0.2) {
		f.Transfer = 5 * time.Second
		o.FormBound += 2 * f.Transfer // two newcomers that do not catch up copy in two views, while all wait
	}
	if c.chance(0.2) {
		f.Disk = 3 * time.Second
	}
	if c.chance(0.3) {
		o.Zones = 2 + c.rnd.IntN(2)
	}
	if o.Nodes > 2 && c.chance(0.15) {
		o.MinNodes = 2
	}
	switch c.rnd.IntN(20) {
	case 0:
		o.gentle()
	case 1, 2:
		o.gentle()
		o.Gentle, o.Flip = false, true
		o.Nodes = 3 + c.rnd.IntN(3)
		if newRand(seed, 0xf11b).IntN(2) == 0 {
			o.disturbed()
		}
	}
	return o
}

// gentle has nodes come and go in a world without faults.
func (o *Options) gentle() {
	f := &o.Faults
	last, n := f.Last, f.Incidents
	o.Faults = Calm()
	f.First, f.Last, f.Incidents = 400*time.Millisecond, last, n
	f.Weights = Weights{Join: 3, Leave: 1}
	o.Gentle, o.MinNodes = true, 0
}

// disturbed has other nodes fail around the one in which a bit flips, before it is known
// and after. The one itself does not: who computes wrongly and is gone before anybody has
// compared has done what nobody can know. And nobody goes on with fewer than three, who
// could not know either. Nor is anybody frozen until the others have all finished and gone,
// and left with what they have gone back from.
func (o *Options) disturbed() {
	o.Nodes, o.MinNodes, o.Disturbed = 5, 3, true
	f := &o.Faults
	f.Incidents, f.Restart = 2+2*f.Incidents, 1
	o.Compute = f.Last / 40
	f.Weights = Weights{Kill: 4, KillInWrite: 2, Freeze: 3, Leave: 1, Join: 3, ResetStreams: 3}
}

// newClock makes a clock that starts anywhere and runs a little wrong.
func (c *Cluster) newClock() clock {
	k := clock{born: c.now, rate: 1}
	if r := c.opt.Faults.ClockRate; r > 0 {
		k.rate += r * (2*c.rnd.Float64() - 1)
		k.offset = c.between(-1e6*time.Second, 1e6*time.Second)
	}
	return k
}

// drawFaults plans the incidents.
func (c *Cluster) drawFaults() {
	f := &c.opt.Faults
	if c.opt.Flip {
		c.trace.fault("flip")
		c.planFlip()
	}
	all := f.Weights.weighted()
	sum := 0
	for _, w := range all {
		sum += w.weight
	}
	if sum == 0 {
		return
	}
	for range f.Incidents {
		x := c.rnd.IntN(sum)
		for _, w := range all {
			if x -= w.weight; x < 0 {
				c.trace.fault(w.name)
				if c.opt.Disturbed {
					c.afterFlip = append(c.afterFlip, w.strike)
				} else {
					c.after(c.between(f.First, f.Last), func() { w.strike(c) })
				}
				break
			}
		}
	}
}

// victim draws a node that lives, works and is not about to go.
func (c *Cluster) victim() *life {
	var ls []*life
	for _, l := range c.living() {
		if !l.frozen && !l.leaving && !c.checks.flipped.mustStay(l) {
			ls = append(ls, l)
		}
	}
	if f := c.checks.flipped; len(ls) == 0 || c.opt.Disturbed && f != nil && !f.named && c.witnesses() <= 3 {
		return nil
	}
	return ls[c.rnd.IntN(len(ls))]
}

// witnesses counts the nodes that work and have trained.
func (c *Cluster) witnesses() (n int) {
	for _, l := range c.living() {
		if l.gen > 0 && !l.frozen && !l.leaving {
			n++
		}
	}
	return n
}

func (c *Cluster) killOne(how death) {
	if l := c.victim(); l != nil {
		c.killLife(l, how)
	}
}

// killLife kills, and may let the node come back.
func (c *Cluster) killLife(l *life, how death) {
	if c.opt.Faults.SharedDisk && how != killed {
		how = killed // the disk is not in that machine
	}
	l.kill(how)
	if c.chance(c.opt.Faults.Restart) {
		c.bootLater(l.id)
	}
}

func (c *Cluster) bootLater(id string) {
	c.after(c.between(0, 3*time.Second), func() {
		if c.of(id) == nil && !c.calm {
			c.boot(id, 0)
		}
	})
}

func (c *Cluster) killInWrite() {
	l := c.victim()
	if l == nil || c.opt.Faults.SharedDisk {
		return
	}
	l.disk.dieAt = 1 + c.rnd.IntN(40)
	l.disk.how = killed
	if c.chance(0.5) {
		l.disk.how = powerLoss
	}
	c.bootLater(l.id)
}

func (c *Cluster) killMany(spare int) {
	ls := c.living()
	c.rnd.Shuffle(len(ls), func(i, j int) { ls[i], ls[j] = ls[j], ls[i] })
	n := len(ls) - spare
	if spare > 0 && n > 1 {
		n = 2 + c.rnd.IntN(n-1)
	}
	for i := range max(0, min(n, len(ls))) {
		c.killLife(ls[i], killed)
	}
}

func (c *Cluster) freezeOne() {
	if l := c.victim(); l != nil {
		l.freeze()
		c.after(c.between(200*time.Millisecond, 12*time.Second), l.thaw)
	}
}

func (c *Cluster) slowOne() {
	if l := c.victim(); l != nil {
		l.slow = float64(2 + c.rnd.IntN(39))
		l.logf("computes %.0f times slower", l.slow)
	}
}

func (c *Cluster) leaveOne() {
	if l := c.victim(); l != nil {
		l.logf("is told to leave")
		l.leaving = true
		l.happen(l.host.Leave)
	}
}

func (c *Cluster) join() {
	c.boot(fmt.Sprintf("late-%d", len(c.lives)+1), 0)
}

// window is how long a cut lasts.
func (c *Cluster) window() time.Duration { return c.between(200*time.Millisecond, 12*time.Second) }

// draw gives each node a number below n.
func (c *Cluster) draw(n int) map[string]int {
	side := map[string]int{}
	for _, l := range c.lives {
		if _, ok := side[l.id]; !ok {
			side[l.id] = c.rnd.IntN(n)
		}
	}
	return side
}

func (c *Cluster) partition() {
	side := c.draw(2 + c.rnd.IntN(2))
	c.cutFor(c.window(), fmt.Sprintf("partition: %v", side), func(a, b string) bool { return side[a] != side[b] })
}

func (c *Cluster) oneWay() {
	side := c.draw(2)
	c.cutFor(c.window(), fmt.Sprintf("nothing gets from 0 to 1: %v", side), func(a, b string) bool { return side[a] == 0 && side[b] == 1 })
}

func (c *Cluster) cutPair() {
	x, y := c.victim(), c.victim()
	if x == nil || x == y {
		return
	}
	a, b := x.id, y.id
	if c.chance(0.5) {
		c.cutFor(c.window(), fmt.Sprintf("nothing gets from %s to %s", a, b), func(p, q string) bool { return p == a && q == b })
		return
	}
	c.cutFor(c.window(), fmt.Sprintf("the link between %s and %s is cut", a, b), func(p, q string) bool { return p == a && q == b || p == b && q == a })
}

func (c *Cluster) mute() {
	l := c.victim()
	if l == nil {
		return
	}
	if c.chance(0.5) {
		c.cutFor(c.window(), "nothing gets out of "+l.id, func(p, _ string) bool { return p == l.id })
		return
	}
	c.cutFor(c.window(), "nothing gets to "+l.id, func(_, q string) bool { return q == l.id })
}

func (c *Cluster) resetStreams() {
	for _, l := range c.living() {
		for _, g := range l.groups {
			for _, w := range g.ways {
				if w != nil && w.s != nil && w.s.from == g && w.s.taken {
					w.s.reset("stream reset")
				}
			}
		}
	}
}

func (c *Cluster) falseDeath() {
	a, b := c.victim(), c.victim()
	if a != nil && a != b && a.heard[b] != nil {
		a.suspectFalsely(b)
	}
}

func (c *Cluster) clockJump() {
	l := c.victim()
	if l == nil {
		return
	}
	d := c.between(0, 2*time.Minute)
	if c.chance(0.4) {
		d = -c.between(0, 5*time.Second)
	}
	l.logf("the clock jumps by %s", d)
	l.clock.offset += d
}

func (c *Cluster) hurtDisk(hurt func(*disk)) {
	if l := c.victim(); l != nil {
		l.logf("the disk fails or is full")
		d := l.disk
		hurt(d)
		c.after(c.window(), d.recover)
	}
}

func (c *Cluster) rotOne() {
	l := c.victim()
	if l == nil {
		return
	}
	l.disk.rot(c)
	if c.chance(0.5) { // a bit that nobody reads harms nobody
		l.kill(killed)
		c.bootLater(l.id)
	}
}

// remember keeps a frame for strayFrame.
func (c *Cluster) remember(p packet) {
	if len(c.stray) < 64 {
		c.stray = append(c.stray, p)
	} else if c.rnd.IntN(50) == 0 {
		c.stray[c.rnd.IntN(len(c.stray))] = p
	}
}

func (c *Cluster) strayFrame() {
	l := c.victim()
	if l == nil || len(c.stray) == 0 {
		return
	}
	p := c.stray[c.rnd.IntN(len(c.stray))]
	g := l.current()
	if g == nil || p.fence == g.cfg.Config.Fence {
		return
	}
	peers := g.m.Peers()
	peers = slices.DeleteFunc(slices.Clone(peers), func(rank int) bool { return !g.m.Up(rank) })
	if len(peers) > 0 {
		l.logf("gets a frame of group %s in group %s", p.fence, g.cfg.Config.Fence)
		from := peers[c.rnd.IntN(len(peers))]
		l.happen(func() { g.receive(from, p) })
	}
}

// heal ends all faults, and lets go who was told to. Some of the dead come back, at least one, and as many as
// min_nodes asks for.
func (c *Cluster) heal() {
	c.calm = true
	c.trace.logf(c.now, "faults", "end here: all is healed")
	for len(c.cuts) > 0 {
		c.mend(c.cuts[0])
	}
	for _, l := range c.lives {
		l.disk.recover()
		l.slow, l.spoils = 1, false
		if l.alive {
			l.thaw()
		}
	}
	c.until(time.Minute, func() bool { return !slices.ContainsFunc(c.living(), func(l *life) bool { return l.leaving }) })
	c.reviveSome()
}

func (c *Cluster) reviveSome() {
	need := max(1, c.opt.MinNodes)
	seen := map[string]bool{}
	for _, l := range c.lives {
		if seen[l.id] {
			continue
		}
		seen[l.id] = true
		if c.of(l.id) != nil {
			need--
		}
	}
	for _, id := range c.ids() {
		if c.of(id) == nil && (need > 0 || c.chance(0.5)) {
			need--
			c.boot(id, 0)
		}
	}
	c.keepEnough()
}

// keepEnough has new nodes come as long as min_nodes asks for them: those that
// have finished help nobody.
func (c *Cluster) keepEnough() {
	if n := len(c.living()); n > 0 && n < c.opt.MinNodes {
		c.join()
	}
	c.after(3*time.Second, c.keepEnough)
}

// ids lists the names of all nodes that ever were.
func (c *Cluster) ids() (ids []string) {
	seen := map[string]bool{}
	for _, l := range c.lives {
		if !seen[l.id] {
			seen[l.id] = true
			ids = append(ids, l.id)
		}
	}
	return ids
}

// hasten has training come to its end soon.
func (c *Cluster) hasten() { c.opt.Compute = 2 * time.Millisecond }
