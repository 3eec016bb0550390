package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/dlnode/dlnode/allreduce"
)

// rememberedEnds is how many ended groups a registry remembers, to tell a late neighbour at once why
// there is nothing left to join.
const rememberedEnds = 16

// registry knows the groups of a server by their fences.
type registry struct {
	mu      sync.Mutex
	closed  bool
	groups  map[allreduce.Fence]*Group
	ended   []ending      // the last ones, oldest first
	changed chan struct{} // closed and replaced when groups, ended or closed change
}

// ending is how a group ended.
type ending struct {
	fence allreduce.Fence
	note  allreduce.ClosingNote
}

func newRegistry() registry {
	return registry{groups: map[allreduce.Fence]*Group{}, changed: make(chan struct{})}
}

// add makes g known; false if the server is closed. A second group of one view panics.
func (r *registry) add(g *Group) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	fence := g.cfg.Group.Config.Fence
	if r.groups[fence] != nil {
		panic("rpc: two groups of view " + fence.String())
	}
	if r.closed {
		return false
	}
	r.groups[fence] = g
	r.announce()
	return true
}

// remove forgets g but for how it ended.
func (r *registry) remove(g *Group) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fence := g.cfg.Group.Config.Fence
	if r.groups[fence] != g {
		return
	}
	delete(r.groups, fence)
	if len(r.ended) == rememberedEnds {
		r.ended = append(r.ended[:0], r.ended[1:]...)
	}
	r.ended = append(r.ended, ending{fence, g.note})
	r.announce()
}

// announce wakes all who wait. The lock is held.
func (r *registry) announce() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// close keeps new groups out and returns the ones that live.
func (r *registry) close() []*Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.announce()
	}
	var groups []*Group
	for _, g := range r.groups {
		groups = append(groups, g)
	}
	return groups
}

// wait returns the group with this fence, or how it ended. Neither means that it has not come within
// limit, that ctx has ended or that the server is closed.
func (r *registry) wait(ctx context.Context, fence allreduce.Fence, limit time.Duration) (*Group, *allreduce.ClosingNote) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		g, note, changed := r.find(fence)
		if g != nil || note != nil || changed == nil {
			return g, note
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// find looks once. changed is nil if it is in vain to wait.
func (r *registry) find(fence allreduce.Fence) (g *Group, note *allreduce.ClosingNote, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.groups[fence]; g != nil {
		return g, nil, nil
	}
	for i := range r.ended {
		if r.ended[i].fence == fence {
			n := r.ended[i].note
			return nil, &n, nil
		}
	}
	if r.closed {
		return nil, nil, nil
	}
	return nil, nil, r.changed
}
