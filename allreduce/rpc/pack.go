package rpc

import (
	"net"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/packing"
)

// Packing says which large frames are packed.
type Packing uint8

// The answers.
const (
	PackIfItPays Packing = iota // those for links on which it saves more time than it costs
	PackNever
	PackAlways
)

// sampled is how many large frames go by until one is packed to see whether it would pay.
const sampled = 64

// packer knows what packing is worth. The group's lock guards it.
type packer struct {
	frames int     // large ones
	speed  float64 // bytes packed a second, at the best lately: whoever was held up meanwhile was no slower
	ratio  float64 // of packed to raw bytes, lately; 0 for unknown
}

// packerOf returns the one that frames of this kind go to.
func (g *Group) packerOf(f allreduce.Frame) *packer {
	if f.Kind == allreduce.Gather {
		return &g.packers[1]
	}
	return &g.packers[0]
}

// packs decides whether the next large frame for a peer is packed. Between nodes of one machine none is, where
// whoever packs takes the time from whoever sends, unless it has to be sealed, which takes longer. On a link that is
// not measured yet all are: that a first op, with the zeros of a newcomer among its summands, goes over a slow link as
// it lies would cost more than packing does.
func (g *Group) packs(p *peer, packer *packer) bool {
	switch {
	case g.cfg.Packing != PackIfItPays:
		return g.cfg.Packing == PackAlways
	case p.local && g.cfg.TLS == nil:
		return false
	case p.local:
		return packer.pays(sealingSpeed())
	}
	link := p.flow.rate(p.conn)
	if beta := p.prober.link.Beta; beta > 0 && link == 0 {
		link = float64(1<<20) / beta.Seconds()
	} else if link == 0 && g.shareHost(p.rank) {
		return false
	}
	return packer.pays(link)
}

// flow is what a link carries while much goes over it, which may be far less than it did when it was measured
// idle: a link of a limited rate lets a burst through at first, and processors have more to do.
type flow struct {
	asked int
	known float64 // bytes a second; 0 is unknown
}

// flowEvery is how many large frames go by until the system is asked again.
const flowEvery = 16

// rate returns it for the next large frame, in bytes a second.
func (f *flow) rate(c net.Conn) float64 {
	if f.asked%flowEvery == 0 && c != nil {
		f.known = flowOf(c)
	}
	f.asked++
	return f.known
}

// shareHost tells whether a member is on this machine, as far as its address tells.
func (g *Group) shareHost(rank int) bool {
	host := func(rank int) string {
		h, _, err := net.SplitHostPort(g.cfg.Addrs[rank])
		if err != nil {
			return "" // no address that anybody is reached under
		}
		return h
	}
	return host(rank) == host(g.cfg.Group.Config.Rank)
}

// pays tells whether what comes next should be packed for a link that carries so many bytes a second: also
// where it is not known, or has not been tried for long.
func (p *packer) pays(link float64) bool {
	if p.ratio == 0 || p.frames%sampled == 0 {
		return true
	}
	return packing.Pays(packing.Speeds{Link: link, Pack: p.speed, Unpack: p.speed}, p.ratio)
}

// learn takes what packing of so many bytes came to.
func (p *packer) learn(raw, packed float64, took time.Duration) {
	lately(&p.ratio, packed/raw)
	p.speed = max(0.99*p.speed, raw/max(took.Seconds(), 1e-9))
}

// lately keeps the mean of the last few values.
func lately(mean *float64, x float64) {
	if *mean == 0 {
		*mean = x
	}
	*mean += (x - *mean) / 8
}

// pack packs a frame.
func (p *packer) pack(f allreduce.Frame) (allreduce.Frame, mem.Buffer) {
	begun := time.Now()
	buf := bulkPool.Get(f.PackedSize())
	packed, err := f.Pack((*buf)[:0])
	if err != nil {
		panic("rpc: " + err.Error())
	}
	*buf = packed.Payload
	p.learn(float64(len(f.Payload)), float64(len(packed.Payload)), time.Since(begun))
	return packed, mem.NewBuffer(buf, bulkPool)
}
