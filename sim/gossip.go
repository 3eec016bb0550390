package sim

import (
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// opinion is what one node's gossip believes of another. The model is
// memberlist's behaviour, not its protocol: news come late, a death is known
// after some seconds or much later, a living node may be taken for dead, whoever
// is heard of by any detour is alive.
type opinion struct {
	up       bool
	seq      uint64 // of the fact last told
	badSince time.Duration
	limit    time.Duration // until a silent one is told dead
}

func (l *life) opinionOf(o *life) *opinion {
	p := l.heard[o]
	if p == nil {
		c := l.c
		p = &opinion{limit: c.between(3*time.Second, 5*time.Second)}
		if c.chance(c.opt.Faults.MissedDeath) {
			p.limit *= 8
		}
		l.heard[o] = p
	}
	return p
}

// hear tells a node a fact about another, unless it has newer ones.
func (l *life) hear(o *life, f view.Fact, seq uint64) {
	p := l.opinionOf(o)
	if seq < p.seq || !o.alive || !l.alive || seq == p.seq && p.up {
		return
	}
	p.up, p.seq, p.badSince = true, seq, 0
	l.happen(func() { l.host.Up(f) })
}

func (l *life) announce(f view.Fact) {
	if !l.alive {
		return
	}
	l.fact = f
	l.seq++
	seq := l.seq
	c := l.c
	for _, o := range c.living() {
		if o == l {
			continue
		}
		d := c.between(20*time.Millisecond, 400*time.Millisecond)
		if !c.calm && c.chance(c.opt.Faults.LateGossip) {
			d = c.between(time.Second, 8*time.Second)
		}
		c.after(d, func() {
			if l.alive && c.reaches(l, o) {
				o.hear(l, f, seq)
			}
		})
	}
}

// reaches tells whether word comes from one to the other, relayed or not.
func (c *Cluster) reaches(a, b *life) bool {
	if a.frozen || b.frozen || !a.alive || !b.alive {
		return false
	}
	if len(c.cuts) == 0 {
		return true
	}
	seen := []*life{a}
	for i := 0; i < len(seen); i++ {
		for _, o := range c.living() {
			if !o.frozen && !contains(seen, o) && c.both(seen[i].id, o.id) {
				if o == b {
					return true
				}
				seen = append(seen, o)
			}
		}
	}
	return false
}

func contains(ls []*life, l *life) bool {
	for _, o := range ls {
		if o == l {
			return true
		}
	}
	return false
}

// gossipRound goes on for ever: once a second everybody's opinion of everybody.
func (c *Cluster) gossipRound() {
	c.after(time.Second, func() {
		for _, l := range c.living() {
			for _, o := range c.lives {
				if l != o && l.alive && !l.frozen {
					l.probe(o)
				}
			}
			l.findOthers()
		}
		c.gossipRound()
	})
}

func (l *life) probe(o *life) {
	c := l.c
	p := l.heard[o]
	if p == nil && (!o.alive || o.host == nil) {
		return
	}
	if c.reaches(o, l) {
		l.hear(o, o.fact, o.seq)
		l.opinionOf(o).badSince = 0
		return
	}
	if p == nil || !p.up {
		return
	}
	if p.badSince == 0 {
		p.badSince = c.now
	}
	if c.now-p.badSince > p.limit {
		p.up = false
		l.logf("gossip takes %s for dead", o.name())
		l.happen(func() { l.host.Down(o.fact, false) })
	}
}

// greet introduces a new life.
func (c *Cluster) greet(l *life) {
	for _, o := range c.living() {
		if o == l {
			continue
		}
		c.after(c.between(20*time.Millisecond, 600*time.Millisecond), func() {
			if c.reaches(o, l) {
				l.hear(o, o.fact, o.seq)
			}
		})
	}
	c.after(c.between(100*time.Millisecond, 900*time.Millisecond), l.findOthers)
}

// findOthers tells a node that gossip has found somebody, or that there is nobody.
func (l *life) findOthers() {
	if l.joined || !l.alive || l.host == nil {
		return
	}
	alone := true
	for _, o := range l.c.living() {
		alone = alone && o == l
		l.joined = l.joined || o != l && l.c.reaches(l, o)
	}
	if l.joined = l.joined || alone; l.joined {
		l.happen(l.host.Joined)
	}
}

// farewell tells the others that a node has left in order; some may miss it.
func (c *Cluster) farewell(l *life) {
	for _, o := range c.living() {
		if c.chance(c.opt.Faults.MissedDeath) {
			continue
		}
		c.after(c.latency(), func() {
			p := o.opinionOf(l)
			if c.open(l.id, o.id) && o.alive {
				p.up = false
				o.happen(func() { o.host.Down(l.fact, true) })
			}
		})
	}
}

// suspectFalsely has one node's gossip take a living one for dead.
func (l *life) suspectFalsely(o *life) {
	l.logf("gossip falsely takes %s for dead", o.name())
	p := l.opinionOf(o)
	p.up, p.seq = false, 0
	l.happen(func() { l.host.Down(o.fact, false) })
}
