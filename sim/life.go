package sim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/checkpoint/memfs"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/shard"
	"github.com/dlnode/dlnode/train"
)

// life is one process of a node, from its start to its end. It is the World of
// its Host.
type life struct {
	c    *Cluster
	id   string
	inc  uint64
	addr string
	host *train.Host
	task *train.Task // the load's, with a data set that tells what is read

	alive   bool
	exit    *train.Exit
	frozen  bool
	held    []func() // what happens to a frozen process happens when it thaws
	silent  bool     // its machine is down: nobody there even refuses
	leaving bool
	slow    float64 // factor of its computing time
	ticks   int
	door    time.Duration // until then a process that ends in order refuses nobody
	spoils  bool          // a bit flips in the next sums that it gives to a ring

	clock  clock
	fact   view.Fact // as it last announced it
	seq    uint64    // of announcements
	heard  map[*life]*opinion
	joined bool

	disk    *disk
	process *memfs.Process
	store   *checkpoint.Store

	engine    *train.Engine
	read      []uint64 // ids of samples, of the computation in hand
	computing bool
	blamed    bool          // its last group ended for somebody's fault: then nobody has probed the last gradients
	cleansed  bool          // its view was made after all had gone back, since a gradient was proved wrong
	clean     bool          // and it has gone on in it
	begun     time.Duration // the computation in hand
	beats     uint64        // of those before
	hangs     bool          // the next computation never ends, whoever cancels it
	doing     string        // at what it hangs
	fetching  bool
	following int    // pieces that are asked for
	newest    uint64 // transition that it has been told of with one
	saving    bool
	owes      int // copies of its state that it was asked for and has not answered

	returns int       // lives of the node that were expelled before
	groups  []*group  // in order of their opening; those that are down are removed
	ended   []*group  // the last ones that are down: who comes late gets their note
	offered []*stream // for groups that are not here yet

	last uint64 // transition
	gen  uint64 // of the view last installed
	view view.Name

	expelled   bool            // the others went on without it
	parted     bool            // its last group ended in order
	partedAt   uint64          // transition at which it did
	partedFrom allreduce.Fence // and was this
}

// clock is a machine's idea of time.
type clock struct {
	born   time.Duration
	offset time.Duration
	rate   float64
}

func (l *life) now() time.Time {
	return epoch.Add(l.clock.offset + time.Duration(float64(l.c.now-l.clock.born)*l.clock.rate))
}

func (l *life) name() string { return fmt.Sprintf("%s#%d", l.id, l.inc) }

func (l *life) logf(format string, args ...any) { l.c.trace.logf(l.c.now, l.name(), format, args...) }

// boot starts a life of a node from what its disk holds.
func (c *Cluster) boot(id string, expect int) *life {
	l := &life{c: c, id: id, inc: uint64(len(c.lives) + 1), alive: true, slow: 1, heard: map[*life]*opinion{}}
	l.addr = id + ":7000"
	if !c.opt.Faults.FixedPorts {
		l.addr = fmt.Sprintf("%s:%d", id, 7000+l.inc)
	}
	l.clock = c.newClock()
	l.task = c.load.taskOf(l)
	l.engine = train.NewEngine(l.task, 1)
	l.engine.Spoil(l.spoilGradient)
	c.lives = append(c.lives, l)
	state := l.mount()
	if state == nil {
		return l
	}
	l.logf("starts at transition %d", state.Transition)
	l.last = state.Transition
	l.fact = view.Fact{ID: id, Incarnation: l.inc, Addr: l.addr, Trajectory: l.task.Trajectory, Transition: state.Transition}
	if z := c.opt.Zones; z > 0 {
		l.fact.Zone = fmt.Sprint("zone-", len(c.lives)%z)
	}
	l.host = train.NewHost(train.HostConfig{
		Task: l.task, Self: l.fact, MinNodes: max(1, c.opt.MinNodes), Expect: expect, ExpectFor: 3 * time.Second, Lending: c.opt.Faults.Lending,
		CopyInView: c.opt.Faults.CopyInView,
		Sums:       l.engine.Sums(),
		Ahead:      l.ahead(),
	}, state, l)
	c.checks.booted(l, state)
	l.happen(l.host.Begin)
	l.tick()
	c.greet(l)
	return l
}

// ahead makes about half of the updates ahead, in whatever order and as far as it comes
// to it. What it draws is no matter of the schedule.
func (l *life) ahead() *train.Ahead {
	a, rnd := train.NewAhead(l.task), newRand(l.c.opt.Seed, 0xa4ead<<32|l.inc)
	a.Choose = func() bool { return rnd.IntN(2) == 0 }
	a.Due = func() {
		switch rnd.IntN(4) {
		case 0:
			a.Help()
		case 1:
			a.One()
		case 2:
			l.soon(time.Duration(rnd.Int64N(int64(time.Millisecond))), func() { a.One() })
		}
	}
	return a
}

// mount opens the disk as a process that starts does, and loads the state. A
// disk that fails even then ends the process.
func (l *life) mount() *train.State {
	l.disk = l.c.diskOf(l.id)
	l.process = l.disk.Process()
	l.process.Before = l.beforeIO
	store, err := checkpoint.Open(l.process, storeDir)
	var state *train.State
	if err == nil {
		l.store = store
		state, err = train.LoadState(l.task, store, func(e train.Event) { l.logf("%s", e.Text) })
		l.c.checks.unclosed(l, "its start")
	}
	if err != nil {
		l.logf("cannot start: %v", err)
		l.alive = false
		l.exit = &train.Exit{Err: err}
		l.c.checks.startFailed(l, err)
		return nil
	}
	return state
}

const (
	tickEvery    = 50 * time.Millisecond
	measureEvery = 20 // ticks
)

// tick lets time pass for a life, and has it say now and then how fast it is: by
// that word of gossip two who once lost one another find each other again.
func (l *life) tick() {
	l.c.after(tickEvery, func() {
		if !l.alive {
			return
		}
		l.happen(l.host.Tick)
		if l.ticks++; l.ticks%measureEvery == 0 {
			l.happen(func() { l.host.Measured(1) })
		}
		l.tick()
	})
}

// happen lets something happen to a life: now, when it thaws, or never.
func (l *life) happen(do func()) {
	switch {
	case !l.alive:
	case l.frozen:
		l.held = append(l.held, do)
	default:
		do()
		l.notice()
	}
}

// notice looks at a life after something has happened to it.
func (l *life) notice() {
	if !l.alive {
		return
	}
	if e := l.host.Exit(); e != nil {
		l.exit = e
		l.logf("exits: finished %v, %s%v", e.Finished, e.Reason, orNothing(e.Err))
		l.c.checks.exited(l, e)
		if len(l.groups) > 0 {
			l.door = l.c.now + linger
		}
		l.end(false)
		l.c.farewell(l)
		l.c.returns(l)
		return
	}
	l.c.checks.look(l)
}

func orNothing(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// end makes a life a thing of the past. Killed is without a word; otherwise its
// last words are on their way already.
func (l *life) end(killed bool) {
	l.alive = false
	l.held = nil
	for _, g := range l.groups {
		g.die(killed)
	}
	for _, s := range l.offered {
		s.reset("connection reset")
	}
	l.process.Kill()
}

// kill ends a life at once. The machine that it ran on may go with it.
func (l *life) kill(how death) {
	if !l.alive {
		return
	}
	l.logf("is killed (%s)", how)
	l.silent = how != killed
	l.end(how == killed)
	switch how {
	case powerLoss:
		l.disk.powerLoss(l.c)
	case diskLost:
		l.c.disks[l.id] = nil
	}
}

// refuses tells whether whoever calls a dead process is told that nobody is there.
// A machine without power tells nothing. A process that ends in order closes its
// door when its neighbours have its last words.
func (l *life) refuses() bool { return !l.silent && l.c.now >= l.door }

// death is a way to go.
type death string

const (
	killed    death = "kill -9"
	powerLoss death = "loss of power"
	diskLost  death = "machine and disk lost"
)

func (l *life) freeze() {
	l.logf("is frozen")
	l.frozen = true
}

func (l *life) thaw() {
	if !l.frozen {
		return
	}
	l.logf("thaws")
	l.frozen = false
	held := l.held
	l.held = nil
	for _, do := range held {
		l.happen(do)
	}
}

// soon calls back into a life.
func (l *life) soon(d time.Duration, do func()) { l.c.after(d, func() { l.happen(do) }) }

// --- what a Host asks of its World ---

func (l *life) Now() time.Time { return l.now() }

// Signs implements train.World.
func (l *life) Signs() train.Signs {
	return train.Signs{Work: l.engine.Beats() + l.beats + l.beating(), Doing: l.doing}
}

// beating is how often a computation that gets on has shown that so far: once a second.
func (l *life) beating() uint64 {
	if !l.computing || l.doing != "" {
		return 0
	}
	return uint64((l.c.now - l.begun) / time.Second)
}

func (l *life) Soon(do func()) { l.soon(0, do) }

func (l *life) crosses(e any) bool {
	if l.c.hook != nil {
		l.c.hook(l, e)
	}
	return l.alive
}

func (l *life) Deliver(addr string, e rpc.Envelope, failed func(error)) {
	if l.c.trace.on || l.c.hook != nil {
		m, err := view.DecodeMsg(e.Payload)
		if err != nil {
			l.c.checks.fail("protocol", "%s sends what nobody can read: %v", l.name(), err)
		}
		l.logf("sends %s to %s", msgText(m), addr)
		if !l.crosses(letter{addr, m}) {
			return
		}
	}
	sent := l.c.now
	l.call("deliver", addr, callTimeout, func(to *life, answer func([]byte, error)) {
		m, err := train.Admit(to.task, e)
		if err == nil {
			if !to.crosses(receipt{l, sent, m}) {
				return
			}
			to.host.Receive(m)
		}
		answer(nil, err)
	}, func(_ []byte, err error) {
		if err != nil {
			failed(err)
		}
	})
}

func (l *life) Ping(addr string, incarnation uint64, timeout time.Duration, done func([]byte, error)) {
	if !l.crosses(ping{addr, incarnation}) {
		return
	}
	l.call("ping", addr, timeout, func(to *life, answer func([]byte, error)) {
		var link rpc.Progress
		if g := to.current(); g != nil {
			link = g.Progress()
		}
		answer(train.AnswerPing(to.host.Pong(), incarnation, to.Signs(), link))
	}, done)
}

func (l *life) Describe(addr string, done func([]byte, error)) {
	l.c.checks.fail("stranger", "%s asks %s what it trains, though all train the same", l.name(), addr)
}

func (l *life) Fetch(addr string, r rpc.FetchRequest, done func([]byte, error)) (cancel func()) {
	if !l.crosses(r) {
		return func() {}
	}
	if l.fetching {
		l.c.checks.fail("overlap", "%s copies two states at a time", l.name())
	}
	l.fetching = true
	over := false
	finish := func(blob []byte, err error) {
		if !over {
			over, l.fetching = true, false
			done(blob, err)
		}
	}
	l.call("fetch", addr, fetchSilence, func(to *life, answer func([]byte, error)) {
		if !over { // a copy that was given up may come late
			l.c.checks.copies(l, to)
		}
		to.host.Serve(r, owing(to, func(blob []byte, err error) {
			if err != nil {
				answer(nil, err)
				return
			}
			l.logf("gets the state of %d bytes from %s", len(blob), to.name())
			to.transfer(blob, answer)
		}))
	}, finish)
	return func() {
		l.soon(l.c.latency(), func() { finish(nil, &rpc.Error{Op: "fetch", Addr: addr, Kind: rpc.Canceled, Message: "cancelled"}) })
	}
}

// Follow gets pieces that take a share of a copy's time.
func (l *life) Follow(addr string, r rpc.FollowRequest, silence time.Duration, done func(rpc.Piece, error)) (cancel func()) {
	if !l.crosses(r) {
		return func() {}
	}
	if l.following++; l.following > mostPieces {
		l.c.checks.fail("overlap", "%s asks for %d pieces at a time", l.name(), l.following)
	}
	r.Packed = l.c.chance(0.5)
	over := false
	var piece rpc.Piece
	l.call("follow", addr, silence, func(to *life, answer func([]byte, error)) {
		to.host.Borrow(r, owing(to, func(p rpc.Piece, err error) {
			if err != nil {
				answer(nil, err)
				return
			}
			if !to.crosses(loan{len(p.Bytes), r.State || r.Begin, r.Transition}) {
				return
			}
			l.c.after(l.c.pieceTime(r.State || r.Begin), func() {
				if to.alive { // else the call's connection is reset: see call
					piece = p
					answer(nil, nil)
				}
			})
		}))
	}, func(_ []byte, err error) {
		if !over {
			over = true
			l.following--
			if err != nil { // the answer was lost on its way
				piece = rpc.Piece{}
			}
			l.newest = max(l.newest, piece.Newest)
			done(piece, err)
		}
	})
	return func() {
		if !over {
			over = true
			l.following--
		}
	}
}

// mostPieces is how many pieces a node may ask for at a time: two of each of eight.
const mostPieces = 16

// pieceTime is how long a piece of a state, or of records, is under way.
func (c *Cluster) pieceTime(state bool) time.Duration {
	f := &c.opt.Faults
	if state && f.StatePiece > 0 {
		return f.StatePiece
	}
	return c.between(f.MinDelay, f.Transfer/8)
}

// transfer has a donor send a state; should it die meanwhile, the copy breaks.
func (l *life) transfer(blob []byte, answer func([]byte, error)) {
	if !l.crosses(gift{len(blob)}) {
		return
	}
	l.c.after(l.c.between(l.c.opt.Faults.MinDelay, l.c.opt.Faults.Transfer), func() {
		if !l.alive {
			return // the call's connection is reset: see call
		}
		answer(blob, nil)
	})
}

func (l *life) Announce(f view.Fact) {
	if l.crosses(f) {
		l.announce(f)
	}
}

func (l *life) OpenGroup(cfg allreduce.GroupConfig, addrs []string, h train.GroupHandlers) train.Link {
	l.crosses(cfg)
	return l.openGroup(cfg, addrs, h)
}

var errCancelled = errors.New("cancelled")

// Compute computes at the end of the time that it takes: a machine that changed
// what is being read is caught by the fingerprint of the parameters.
func (l *life) Compute(a *train.Attempt, r shard.Range, params []float32, ready func(lo, hi int), done func(train.Contribution, error)) (cancel func()) {
	if !l.crosses(a) {
		return func() {}
	}
	if l.computing {
		l.c.checks.fail("overlap", "%s computes two attempts at a time", l.name())
	}
	l.computing, l.begun = true, l.c.now
	if l.hangs {
		l.doing = "it waits for a disk"
		return func() {}
	}
	over := false
	before := fingerprint(params)
	finish := func(cancelled bool) {
		if over {
			return
		}
		l.beats += l.beating()
		over, l.computing = true, false
		if fingerprint(params) != before && (l.c.checks.flipped == nil || l.c.checks.flipped.who != l) {
			l.c.checks.fail("overlap", "%s: the parameters changed while they were used", l.name())
		}
		if cancelled {
			done(train.Contribution{}, errCancelled)
			return
		}
		l.read = l.read[:0]
		c, err := l.engine.Compute(context.Background(), a, r, params, ready)
		l.c.checks.computed(l, a, l.read[:min(int(c.Count), len(l.read))]) // what is probed comes after
		done(c, err)
	}
	l.soon(l.computeTime(r), func() { finish(false) })
	return func() { l.soon(l.c.between(0, l.c.opt.Faults.Layer), func() { finish(true) }) }
}

func (l *life) computeTime(r shard.Range) time.Duration {
	if r.Len() == 0 {
		return l.c.between(0, time.Millisecond)
	}
	d := l.c.between(l.c.opt.Compute/2, l.c.opt.Compute)
	share := 3 * float64(r.Len()) / float64(l.task.Plan.MaxMicrobatches()) // of one in three
	return time.Duration(float64(d) * max(l.slow, min(share*l.slow, 40)))
}

func (l *life) Save(s *checkpoint.Snapshot, done func(checkpoint.Result)) {
	if !l.crosses(s) {
		return
	}
	if l.saving {
		l.c.checks.fail("overlap", "%s writes two checkpoints at a time", l.name())
	}
	l.saving = true
	l.soon(l.c.between(0, l.c.opt.Faults.Disk), func() {
		debris := l.disk.debris()
		r := checkpoint.WriteOne(l.store, l.task.Job.Checkpoint.Keep, s)
		if l.disk.dyingNow(l) {
			return
		}
		l.saving = false
		l.c.checks.saved(l, s, r)
		l.c.checks.kept(l, r, debris)
		if r.Err != nil {
			l.logf("could not write the checkpoint of transition %d: %v", s.Transition, r.Err)
		} else {
			l.logf("wrote the checkpoint of transition %d", s.Transition)
		}
		done(r)
	})
}

func (l *life) Committed(c train.Committed) {
	l.logf("completes transition %d (%s, step %d)", c.Transition, c.Kind, c.Step)
	l.c.checks.committed(l, c)
	l.crosses(c)
}

func (l *life) Tell(e train.Event) {
	l.logf("%s: %s", e.Kind, e.Text)
	l.c.checks.told(l, e)
}

func (l *life) Record(e train.Event) { l.logf("%s: %s", e.Kind, e.Text) }
