package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// maxLost bounds how many lost nodes are remembered; the longest lost are
// forgotten first.
const maxLost = 256

// peers knows where the other nodes are and where the lost ones were.
// memberlist forgets a dead node after a while, and then two halves of a cut
// network would never speak again: each believes that it is everything.
type peers struct {
	mu   sync.Mutex
	live map[view.Node]netip.AddrPort
	lost map[view.Node]lostPeer
}

// lostPeer is the last address of a node that failed without a farewell.
type lostPeer struct {
	addr  netip.AddrPort
	since time.Time
	tried time.Time // zero: not yet
}

func newPeers() *peers {
	return &peers{live: map[view.Node]netip.AddrPort{}, lost: map[view.Node]lostPeer{}}
}

// up records that a node lives at addr. Whoever was lost there, or under the
// same ID, has been replaced and is no longer looked for.
func (p *peers) up(n view.Node, addr netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[n] = addr
	for old, l := range p.lost {
		if old.ID == n.ID || l.addr == addr {
			delete(p.lost, old)
		}
	}
}

// left forgets a node that said good-bye.
func (p *peers) left(n view.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.live, n)
}

// failed moves a node to the lost ones, unless a newer life of it is here.
func (p *peers) failed(now time.Time, n view.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	addr, ok := p.live[n]
	if !ok {
		return
	}
	delete(p.live, n)
	for other, at := range p.live {
		if other.ID == n.ID || at == addr {
			return
		}
	}
	p.lost[n] = lostPeer{addr: addr, since: now}
	if len(p.lost) > maxLost {
		delete(p.lost, p.oldest(func(l lostPeer) time.Time { return l.since })[0])
	}
}

// oldest returns the lost nodes ordered by a time, then by name. The caller
// holds the lock.
func (p *peers) oldest(by func(lostPeer) time.Time) []view.Node {
	nodes := make([]view.Node, 0, len(p.lost))
	for n := range p.lost {
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b view.Node) int {
		return cmp.Or(by(p.lost[a]).Compare(by(p.lost[b])), strings.Compare(a.ID, b.ID), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return nodes
}

// search returns the addresses of at most limit lost nodes, the least recently
// tried ones, and forgets those that have been lost for longer than keep.
func (p *peers) search(now time.Time, keep time.Duration, limit int) []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	var addrs []netip.AddrPort
	for _, n := range p.oldest(func(l lostPeer) time.Time { return l.tried }) {
		l := p.lost[n]
		switch {
		case now.Sub(l.since) > keep:
			delete(p.lost, n)
		case len(addrs) < limit:
			l.tried = now
			p.lost[n] = l
			addrs = append(addrs, l.addr)
		}
	}
	return addrs
}

// at tells whether some live node is at addr.
func (p *peers) at(addr netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.live {
		if a == addr {
			return true
		}
	}
	return false
}

// all returns a copy of the live nodes and their addresses.
func (p *peers) all() map[view.Node]netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	live := make(map[view.Node]netip.AddrPort, len(p.live))
	for n, a := range p.live {
		live[n] = a
	}
	return live
}

// count returns how many other nodes live and how many are looked for.
func (p *peers) count() (live, lost int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.live), len(p.lost)
}
