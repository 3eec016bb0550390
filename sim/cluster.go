package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Cluster is a simulated cluster. All of it happens in the goroutine of Run.
type Cluster struct {
	opt   Options
	rnd   *rand.Rand
	now   time.Duration
	queue queue
	load  *Load

	lives []*life // all that ever were, in order of birth
	disks map[string]*disk
	cuts  []*cut
	calm  bool // the safety phase is over: nothing new goes wrong

	checks    checks
	trace     trace
	flipNow   bool                 // it is time for a bit to flip
	afterFlip []func(*Cluster)     // what strikes when it has
	flipDonor bool                 // in a donor
	spoiled   map[uint64]bool      // transitions that have had a bit flipped in sums
	returning int                  // expelled nodes that are about to start anew
	hook      func(l *life, e any) // for directed schedules: sees what crosses a life's border
	events    int
	stray     []packet                               // frames of former generations, for the one who brings them back
	misread   func(l *life, i int, id uint64) uint64 // for directed schedules: which record is read instead
}

// start of all clocks, but for their offsets.
var epoch = time.Unix(1_700_000_000, 0)

func newCluster(opt Options) *Cluster {
	c := &Cluster{opt: opt, rnd: newRand(opt.Seed, 0x5eed), load: opt.Load, disks: map[string]*disk{}}
	c.trace.on = opt.Trace
	c.checks.c = c
	c.gossipRound()
	return c
}

func newRand(seed, purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, purpose)) }

// after plans something.
func (c *Cluster) after(d time.Duration, do func()) { c.queue.push(c.now+max(0, d), do) }

// chance is true with a probability.
func (c *Cluster) chance(p float64) bool { return p > 0 && c.rnd.Float64() < p }

// between draws a duration.
func (c *Cluster) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(c.rnd.Int64N(int64(hi-lo)))
}

// latency is how long a packet is under way.
func (c *Cluster) latency() time.Duration {
	f := &c.opt.Faults
	if !c.calm && c.chance(f.Tail) {
		return c.between(f.MaxDelay, f.TailDelay)
	}
	return c.between(f.MinDelay, f.MaxDelay)
}

// maxEvents bounds one schedule: more means that the cluster talks in circles.
const maxEvents = 4_000_000

// until runs until the condition holds, or the bound is reached: then it is false.
func (c *Cluster) until(bound time.Duration, done func() bool) bool {
	end := c.now + bound
	for !done() {
		if len(c.queue.events) == 0 || c.queue.events[0].at > end {
			c.now = end
			return done()
		}
		e := c.queue.pop()
		c.now = e.at
		if c.events++; c.events > maxEvents {
			c.checks.fail("livelock", "%d events in %s of virtual time", c.events, c.now)
		}
		e.do()
	}
	return true
}

// run lets time pass.
func (c *Cluster) run(d time.Duration) { c.until(d, func() bool { return false }) }

// living lists the lives that have not ended.
func (c *Cluster) living() (ls []*life) {
	for _, l := range c.lives {
		if l.alive {
			ls = append(ls, l)
		}
	}
	return ls
}

// allGone tells that nobody lives, or is about to.
func (c *Cluster) allGone() bool { return len(c.living()) == 0 && c.returning == 0 }

// of returns the present life of a node, nil if it is dead.
func (c *Cluster) of(id string) *life {
	for _, l := range slices.Backward(c.lives) {
		if l.id == id {
			if l.alive {
				return l
			}
			return nil
		}
	}
	return nil
}

// at returns the life that listens at an address, or nil.
func (c *Cluster) at(addr string) *life {
	for _, l := range slices.Backward(c.lives) {
		if l.alive && l.addr == addr {
			return l
		}
	}
	return nil
}

// homeOf is the node whose machine has an address.
func (c *Cluster) homeOf(addr string) *life {
	for _, l := range slices.Backward(c.lives) {
		if l.addr == addr {
			return l
		}
	}
	return nil
}

// Result is what became of one schedule.
type Result struct {
	Seed     uint64
	Failure  *Failure      // nil if all is well
	Virtual  time.Duration // that passed
	Formed   time.Duration // from the end of the faults until the full view ran; 0 if training ended before
	Ended    time.Duration // from the end of the faults until the last node had ended
	Faults   []string      // kinds that were drawn, in order
	Events   int
	Finished int // nodes that ended with the final state
	Trace    []string
}

// Failure is what a check has found.
type Failure struct {
	Check string // one word: which check
	Text  string
}

func (f *Failure) Error() string { return f.Check + ": " + f.Text }

// Run plays one schedule: some nodes start, faults happen for a while (safety:
// the checks), then nothing fails any more and all must come to the right end
// within a bound (liveness).
func Run(opt Options) *Result {
	return direct(opt, func(c *Cluster) {
		c.startNodes()
		c.drawFaults()
		c.run(c.opt.Faults.Last)
	})
}

// direct plays a schedule in which it is safety, a director, that makes what
// goes wrong. What comes after is as in every schedule.
func direct(opt Options, safety func(*Cluster)) (r *Result) {
	c := newCluster(opt)
	r = &Result{Seed: opt.Seed}
	defer func() {
		r.Virtual, r.Events, r.Trace, r.Faults = c.now, c.events, c.trace.lines, c.trace.faults
		switch p := recover().(type) {
		case nil:
		case *Failure:
			r.Failure = p
		default:
			r.Failure = &Failure{"panic", fmt.Sprintf("%v\n%s", p, stack())}
		}
	}()
	safety(c)
	c.recuperate(r)
	return r
}

// recuperate is the second phase: nothing fails any more, and all come to the end.
func (c *Cluster) recuperate(r *Result) {
	c.heal()
	healed := c.now
	if !c.until(c.opt.FormBound, c.whole) {
		c.checks.fail("liveness", "no full view %s after the last fault: %s", c.opt.FormBound, c.standing())
	}
	if len(c.living()) > 0 {
		r.Formed = c.now - healed
	}
	c.hasten()
	if !c.until(c.opt.EndBound, c.allGone) {
		c.checks.fail("liveness", "training has not ended %s after the full view: %s", c.opt.EndBound, c.standing())
	}
	r.Ended = c.now - healed
	r.Finished = c.checks.atTheEnd()
}

func (c *Cluster) startNodes() {
	for i := range c.opt.Nodes {
		id := fmt.Sprintf("node-%d", i+1)
		c.after(c.between(0, 300*time.Millisecond), func() { c.boot(id, c.opt.Nodes) })
	}
	c.run(300 * time.Millisecond)
}

// whole tells whether one view runs on all living nodes and has nobody else.
func (c *Cluster) whole() bool {
	living := c.living()
	if len(living) == 0 {
		return true
	}
	first, _ := living[0].host.Node().View()
	if first == nil || first.World() != len(living) {
		return false
	}
	for _, l := range living[1:] {
		if v, _ := l.host.Node().View(); v == nil || v.Name() != first.Name() {
			return false
		}
	}
	return true
}

// standing says for people where everybody is.
func (c *Cluster) standing() (s string) {
	for _, l := range c.living() {
		v, _ := l.host.Node().View()
		where := "in no view"
		if v != nil {
			where = "in " + viewText(v)
		}
		_, waits := l.host.Node().Views().Status(l.now())
		s += fmt.Sprintf("\n  %s at transition %d %s", l.name(), l.host.Node().State().Transition, where)
		if waits != "" {
			s += ", waits for " + waits
		}
	}
	return s
}
