package train

import "sync"

// mailbox is an unbounded queue of things to do for the goroutine that owns the
// node. Whoever posts never waits: callbacks of gossip and links may not.
type mailbox struct {
	mu     sync.Mutex
	todo   []func()
	closed bool
	filled chan struct{} // holds a token while there is something to do
}

func newMailbox() *mailbox { return &mailbox{filled: make(chan struct{}, 1)} }

// post queues f; after close it is dropped.
func (m *mailbox) post(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.todo = append(m.todo, f)
	select {
	case m.filled <- struct{}{}:
	default:
	}
}

// take returns what is queued, in order, in memory that it swaps with last.
func (m *mailbox) take(last []func()) []func() {
	clear(last)
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.todo
	m.todo = last[:0]
	return out
}

// waiting is how many there are to take.
func (m *mailbox) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.todo)
}

func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.todo = true, nil
}
