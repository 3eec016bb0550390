package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
)

// What a member lends of a gradient is lent as soon as it is there: each rank has the
// total of its own chunk while the all-reduce brings it to the others, and so a node
// that wants to join hears it as they do. When the members commit the step, it lacks
// little more than the headers.
//
// An attempt may still be repeated, or its group die. So such a piece names the attempt
// that it is of, and so does the record: who has a piece of another one asks again.

// early is what a node lends of the attempt in hand.
type early struct {
	id   uint64    // of the attempt; 0 if nothing of it is lent
	mean []float32 // where its mean gradient comes
	have []span    // elements that are there, apart from one another
	news int       // how often there was news of that; never reset
}

// attemptID names an attempt of a view, among all that there may be at a transition.
func attemptID(v view.Name, a *Attempt) uint64 {
	b, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("train: an attempt cannot be encoded: %v", err))
	}
	d := sha256.Sum256(append(v[:], b...))
	return binary.LittleEndian.Uint64(d[:]) | 1 // never 0
}

// begin makes ready for an attempt whose mean gradient will be in mean.
func (e *early) begin(id uint64, mean []float32) { e.id, e.mean, e.have = id, mean, e.have[:0] }

// end lends nothing more of the attempt.
func (e *early) end() { e.begin(0, nil) }

// add takes a range that is there.
func (e *early) add(s span) {
	e.news++
	for i := 0; i < len(e.have); {
		o := e.have[i]
		if o.hi < s.lo || s.hi < o.lo {
			i++
			continue
		}
		s = span{min(o.lo, s.lo), max(o.hi, s.hi)}
		e.have[i] = e.have[len(e.have)-1]
		e.have = e.have[:len(e.have)-1]
	}
	e.have = append(e.have, s)
}

// read puts elements into a piece, if they are there.
func (e *early) read(p *rpc.Piece, r rpc.FollowRequest) bool {
	if e.id == 0 || r.State || r.Lo == r.Hi {
		return false
	}
	for _, s := range e.have {
		if uint64(s.lo) <= r.Lo && r.Hi <= uint64(s.hi) {
			p.Elements, p.Attempt = uint64(len(e.mean)), e.id
			p.Bytes, p.Packed = appendElements(nil, e.mean[r.Lo:r.Hi], r.Packed)
			return true
		}
	}
	return false
}

// Final tells that elements of the mean gradient of an all-reduce have their result.
func (n *Node) Final(now time.Time, v view.Name, seq uint64, some []span) {
	g := n.gen
	if g == nil || g.name != v || g.seq != seq || g.closing || n.early.id == 0 || n.over {
		return
	}
	for _, s := range some {
		n.early.add(s)
	}
}

// share is the chunk whose total this rank has first.
func (n *Node) share() (lo, hi uint64) {
	if n.gen == nil {
		return 0, 0
	}
	l, h := allreduce.Chunk(len(n.state.params), n.gen.view.World(), n.gen.rank)
	return uint64(l), uint64(h)
}

// tellFinals returns an allreduce.Op.Final that also brings what it is told to the node.
func (h *Host) tellFinals(v view.Name, seq uint64, also func(lo, hi int)) func(lo, hi int) {
	var mu sync.Mutex
	var fresh []span // not brought yet
	return func(lo, hi int) {
		if also != nil {
			also(lo, hi)
		}
		mu.Lock()
		defer mu.Unlock()
		if fresh = append(fresh, span{lo, hi}); len(fresh) > 1 {
			return // those before it are on their way
		}
		h.world.Soon(func() {
			mu.Lock()
			some := fresh
			fresh = nil
			mu.Unlock()
			h.event(func(now time.Time) { h.node.Final(now, v, seq, some) })
		})
	}
}
