package cluster

import (
	"sync"

	"github.com/dlnode/dlnode/cluster/view"
)

// mailbox stands between memberlist's callbacks, which run under its lock and
// must not wait, and emit, which may. It holds no queue but a table: what is
// true of each node, and what the reader was told of it. An event is the
// difference between the two, so a slow reader sees fewer events, never stale
// ones.
type mailbox struct {
	mu    sync.Mutex
	rows  map[view.Node]*row
	dirty []view.Node // rows that differ from what was told, first changed first, each once
	kick  chan struct{}

	telling bool            // the reader has an event in hand
	waiters []chan struct{} // closed when nothing is left to tell
}

// row is what the mailbox knows of one node. A row is kept for ever once the
// node has left, a few dozen bytes, so that late gossip can't raise it again.
type row struct {
	now   Kind // Up, Left or Failed: what is true
	told  Kind // Up, Left or Failed: what the reader believes; 0 when it never heard of the node
	fact  view.Fact
	news  bool // fact changed since it was told
	dirty bool // is in mailbox.dirty
}

func newMailbox() *mailbox {
	return &mailbox{rows: map[view.Node]*row{}, kick: make(chan struct{}, 1)}
}

// put records that a node is Up, with its newest fact, or that it Left or
// Failed. It tells whether that was news that counts: nothing counts after a
// farewell, and the end of an unknown node is no news, a farewell excepted.
func (m *mailbox) put(now Kind, fact view.Fact) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rows[fact.Node()]
	if r == nil {
		if now == Failed {
			return false
		}
		r = &row{}
		m.rows[fact.Node()] = r
	}
	if r.now == Left || r.now == now && r.fact == fact {
		return false
	}
	r.news = r.news || r.fact != fact
	r.now, r.fact = now, fact
	m.mark(r)
	return true
}

// mark puts a row on the reader's list. The caller holds the lock.
func (m *mailbox) mark(r *row) {
	if !r.dirty {
		r.dirty = true
		m.dirty = append(m.dirty, r.fact.Node())
	}
	select {
	case m.kick <- struct{}{}:
	default: // the reader is already called
	}
}

// settled returns a channel that is closed once the reader was told of
// everything put before, and has come back for more.
func (m *mailbox) settled() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	done := make(chan struct{})
	m.waiters = append(m.waiters, done)
	if !m.telling && len(m.dirty) == 0 {
		m.settle()
	}
	return done
}

// settle lets those go who wait for the reader. The caller holds the lock.
func (m *mailbox) settle() {
	for _, done := range m.waiters {
		close(done)
	}
	m.waiters = nil
}

// take returns the next event, if there is one.
func (m *mailbox) take() (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.dirty) > 0 {
		n := m.dirty[0]
		m.dirty = m.dirty[1:]
		r := m.rows[n]
		kind := r.tell()
		if r.now == Failed {
			delete(m.rows, n)
		}
		if kind != 0 {
			m.telling = true
			return Event{kind, r.fact}, true
		}
	}
	m.telling = false
	m.settle()
	return Event{}, false
}

// tell brings the reader up to date with a row and returns the kind of event
// that does so, 0 when there is nothing to say.
func (r *row) tell() (kind Kind) {
	known := r.told == Up
	switch {
	case r.now == Up && !known:
		kind = Up
	case r.now == Up && r.news:
		kind = Update
	case r.now != Up && known:
		kind = r.now
	}
	r.told, r.news, r.dirty = r.now, false, false
	return kind
}
