package sim

import (
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
)

// The patience of the product's client and server.
const (
	callTimeout  = 2 * time.Second
	fetchSilence = 10 * time.Second
	groupWait    = 2 * time.Second
	setupTimeout = 3 * time.Second
	linger       = 100 * time.Millisecond
)

// cut keeps packets from some nodes to others.
type cut struct {
	what    string
	blocks  func(from, to string) bool
	removed bool
}

// cutFor cuts for a while.
func (c *Cluster) cutFor(d time.Duration, what string, blocks func(from, to string) bool) {
	k := &cut{what: what, blocks: blocks}
	c.cuts = append(c.cuts, k)
	c.trace.logf(c.now, "network", "%s", what)
	c.after(d, func() { c.mend(k) })
}

func (c *Cluster) mend(k *cut) {
	if k.removed {
		return
	}
	k.removed = true
	c.trace.logf(c.now, "network", "healed: %s", k.what)
	var rest []*cut
	for _, o := range c.cuts {
		if !o.removed {
			rest = append(rest, o)
		}
	}
	c.cuts = rest
}

// open tells whether packets from one node reach another.
func (c *Cluster) open(from, to string) bool {
	for _, k := range c.cuts {
		if from != to && k.blocks(from, to) {
			return false
		}
	}
	return true
}

// both tells whether they reach it and answers come back, which a new
// connection needs.
func (c *Cluster) both(a, b string) bool { return c.open(a, b) && c.open(b, a) }

// call is a unary call between nodes over a kept connection. serve runs at the
// other side; done hears of exactly one outcome.
func (l *life) call(op, addr string, timeout time.Duration, serve func(to *life, answer func([]byte, error)), done func([]byte, error)) {
	c := l.c
	over := false
	finish := func(b []byte, err error) {
		if !over {
			over = true
			l.happen(func() { done(b, err) })
		}
	}
	fail := func(kind rpc.Kind, why string) func() {
		return func() { finish(nil, &rpc.Error{Op: op, Addr: addr, Kind: kind, Message: why}) }
	}
	c.after(timeout, fail(rpc.Timeout, "no answer"))
	lost, halfDone := !c.calm && c.chance(c.opt.Faults.Drop), !c.calm && c.chance(c.opt.Faults.HalfDone)
	if lost {
		c.after(c.between(0, timeout), fail(rpc.Unreachable, "connection reset"))
		return
	}
	fresh := c.chance(0.2) // a new connection needs both directions
	var arrive func()
	arrive = func() {
		home := c.homeOf(addr)
		if over || home == nil {
			return
		}
		to := c.at(addr)
		if !c.open(l.id, home.id) || fresh && !c.open(home.id, l.id) || to == nil && !home.refuses() {
			c.after(c.between(100*time.Millisecond, 300*time.Millisecond), arrive)
			return
		}
		if to == nil {
			c.after(c.latency(), fail(rpc.Unreachable, "connection refused"))
			return
		}
		answered := false
		to.happen(func() {
			serve(to, func(b []byte, err error) {
				if answered {
					return
				}
				answered = true
				if err != nil && rpc.KindOf(err) == 0 {
					err = &rpc.Error{Op: op, Addr: addr, Kind: rpc.Rejected, Message: err.Error()}
				}
				if halfDone {
					b, err = nil, &rpc.Error{Op: op, Addr: addr, Kind: rpc.Unreachable, Message: "connection reset"}
				}
				c.wayBack(to, l, func() { finish(b, err) })
			})
		})
		if !to.alive && !answered || to.alive && (op == "fetch" || op == "follow") {
			c.watchDeath(to, func() bool { return over }, fail(rpc.Unreachable, "connection reset"))
		}
	}
	c.after(c.latency(), arrive)
	if op == "deliver" && !c.calm && c.chance(c.opt.Faults.Duplicate) {
		c.after(c.between(0, 3*time.Second), func() {
			if to := c.at(addr); to != nil && c.open(l.id, to.id) {
				to.happen(func() { serve(to, func([]byte, error) {}) })
			}
		})
	}
}

// wayBack brings an answer home once the way is open.
func (c *Cluster) wayBack(from, to *life, do func()) {
	c.after(c.latency(), func() {
		if !c.open(from.id, to.id) {
			if to.alive {
				c.wayBack(from, to, do)
			}
			return
		}
		do()
	})
}

// watchDeath resets a call when the one who serves it dies.
func (c *Cluster) watchDeath(l *life, over func() bool, reset func()) {
	c.after(20*time.Millisecond, func() {
		switch {
		case over():
		case l.alive:
			c.watchDeath(l, over, reset)
		case !l.silent:
			reset()
		}
	})
}
