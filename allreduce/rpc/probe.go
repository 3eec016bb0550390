package rpc

import (
	"time"

	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

// Both ends measure a link when it has come up: what a frame takes to the other end, by how much
// each further one is later, and how much bytes add. Ops may be under way meanwhile; the least of several times
// counts where there are several.
const (
	pings     = 5 // small frames, each answered before the next one goes
	bursts    = 3 // bursts of small frames, likewise
	burst     = 8 // small frames of a burst, of which the last is answered
	bulks     = 4 // large frames, likewise one after another
	bulkProbe = 256 << 10
)

// zeros is what a large probe carries. Nobody writes to it.
var zeros = make([]byte, bulkProbe)

// prober is the measurement of one link. It belongs to the link's reader.
type prober struct {
	step  int            // pings, then the bursts, then the large ones
	begun int64          // when the step was
	trip  int64          // the least time to the other end and back, in nanoseconds
	burst int64          // that of a burst
	bulk  int64          // that of a large frame
	link  allreduce.Link // the result, once it is here
}

// probe begins a step, or the measurement.
func (p *peer) probe() {
	b := &p.prober
	b.begun = p.g.watch.now()
	f := allreduce.Frame{Fence: p.g.cfg.Group.Config.Fence, Kind: allreduce.Probe, Segment: uint32(b.step)}
	switch {
	case b.step < pings:
		p.out.pack(f)
	case b.step < pings+bursts:
		silent := f
		silent.Chunk = 1
		for range burst - 1 {
			p.out.pack(silent)
		}
		p.out.pack(f)
	default:
		f.Payload = zeros
		p.out.ship(f, mem.SliceBuffer(zeros))
	}
	p.g.move(func() {}) // sends it
}

// probed takes a probe, which it answers, or the answer to one.
func (p *peer) probed(f allreduce.Frame) {
	p.seen.heard.Store(p.g.watch.now())
	b := &p.prober
	switch {
	case f.Kind == allreduce.Probe && f.Chunk == 0:
		p.out.pack(allreduce.Frame{Fence: f.Fence, Kind: allreduce.Echo, Segment: f.Segment})
	case f.Kind == allreduce.Echo && int(f.Segment) == b.step && b.begun != 0:
		p.answered(p.g.watch.now() - b.begun)
	}
}

// answered takes the time of a step.
func (p *peer) answered(took int64) {
	b := &p.prober
	switch {
	case b.step < pings:
		least(&b.trip, took)
	case b.step < pings+bursts:
		least(&b.burst, took)
	default:
		least(&b.bulk, took)
	}
	if b.step == pings+bursts+bulks-1 {
		b.begun = 0
		b.link = b.cost()
		p.g.measured(p.rank, b.link)
		return
	}
	b.step++
	p.again = true
}

// least keeps the lesser time; 0 is none.
func least(t *int64, took int64) {
	if *t == 0 || took < *t {
		*t = took
	}
}

// cost is what the times come to. A further frame costs no more than a lone one, which wakes somebody up:
// what took longer was held up by something else. Where much was no slower than little, little was held up, and
// nothing is known.
func (b *prober) cost() allreduce.Link {
	alpha := max(b.trip/2, 1)
	frame := min(max(b.burst-b.trip, 0)/(burst-1), alpha)
	beta := max(b.bulk-b.trip, 0) * (1 << 20) / bulkProbe
	return allreduce.Link{Alpha: time.Duration(alpha), Frame: time.Duration(frame), Beta: time.Duration(beta)}
}

// measured has the machine tell what links cost: the slowest of this zone, and the slowest to another one.
func (g *Group) measured(rank int, l allreduce.Link) {
	c := g.cfg.Group.Config
	costs := &g.near
	if c.Zones != nil && c.Zones[rank] != c.Zones[c.Rank] {
		costs = &g.far
	}
	costs.Alpha, costs.Frame, costs.Beta = max(costs.Alpha, l.Alpha), max(costs.Frame, l.Frame), max(costs.Beta, l.Beta)
	g.machine.SetModel(allreduce.NewModel(g.near, g.far))
}
