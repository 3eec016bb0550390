package rpc

import (
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
	speed  float64 // bytes packed a second, lately
	ratio  float64 // of packed to raw bytes, lately; 0 for unknown
}

// packs decides whether the next large frame for a peer is packed. While the link is not measured, none is; nor
// is any between nodes of one machine, where whoever packs takes the time from whoever sends.
func (g *Group) packs(p *peer) bool {
	beta := p.prober.link.Beta
	switch {
	case g.cfg.Packing != PackIfItPays:
		return g.cfg.Packing == PackAlways
	case beta == 0 || p.local:
		return false
	case g.packer.ratio == 0 || g.packer.frames%sampled == 0:
		return true
	}
	link := float64(1<<20) / beta.Seconds()
	return packing.Pays(packing.Speeds{Link: link, Pack: g.packer.speed, Unpack: g.packer.speed}, g.packer.ratio)
}

// pack packs a frame.
func (g *Group) pack(f allreduce.Frame) (allreduce.Frame, mem.Buffer) {
	begun := time.Now()
	buf := bulkPool.Get(f.PackedSize())
	packed, err := f.Pack((*buf)[:0])
	if err != nil {
		panic("rpc: " + err.Error())
	}
	*buf = packed.Payload
	raw, took := float64(len(f.Payload)), time.Since(begun).Seconds()
	lately := func(mean *float64, x float64) {
		if *mean == 0 {
			*mean = x
		}
		*mean += (x - *mean) / 8
	}
	lately(&g.packer.ratio, float64(len(packed.Payload))/raw)
	lately(&g.packer.speed, raw/max(took, 1e-9))
	return packed, mem.NewBuffer(buf, bulkPool)
}
