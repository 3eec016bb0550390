package sim

import "time"

// event is something that happens at a virtual time.
type event struct {
	at    time.Duration
	order uint64 // among events of one moment: first planned, first done
	do    func()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.order < o.order }

// queue is a binary heap of events.
type queue struct {
	events []event
	order  uint64
}

func (q *queue) push(at time.Duration, do func()) {
	q.order++
	q.events = append(q.events, event{at, q.order, do})
	es := q.events
	for i := len(es) - 1; i > 0; {
		up := (i - 1) / 2
		if !es[i].before(&es[up]) {
			break
		}
		es[i], es[up] = es[up], es[i]
		i = up
	}
}

func (q *queue) pop() event {
	es := q.events
	first := es[0]
	last := len(es) - 1
	es[0], es[last] = es[last], event{}
	q.events = es[:last]
	for i := 0; ; {
		next := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if es[c].before(&es[next]) {
				next = c
			}
		}
		if next == i {
			return first
		}
		es[i], es[next] = es[next], es[i]
		i = next
	}
}
