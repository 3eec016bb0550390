package ui

import "time"

// Meter turns counts seen at moments into a rate: what was added over the last
// few seconds, divided by the time it took. A window forgets a stall as soon as
// it is over, where an average over the whole run would carry it to the end.
// The zero value is ready.
type Meter struct {
	points []point // the newest last; the first one is at or before the window's begin
}

type point struct {
	at    time.Time
	count uint64
}

const (
	meterWindow = 5 * time.Second // smooths single steps
	meterStale  = 2 * time.Second // without a new count this long, the rate falls
)

// Add notes that the count was n at now. A count that went back (another node
// is asked, training resumed elsewhere) starts afresh.
func (m *Meter) Add(now time.Time, n uint64) {
	if last := len(m.points) - 1; last >= 0 && n < m.points[last].count {
		m.points = m.points[:0]
	}
	m.points = append(m.points, point{now, n})
	keep := 0
	for keep+1 < len(m.points) && now.Sub(m.points[keep+1].at) >= meterWindow {
		keep++
	}
	m.points = append(m.points[:0], m.points[keep:]...)
}

// Rate is what the count grew by in a second, over the window that ends with the
// newest count, or now where that is stale; 0 while there is nothing to go by.
func (m *Meter) Rate(now time.Time) float64 {
	if len(m.points) == 0 {
		return 0
	}
	first, last := m.points[0], m.points[len(m.points)-1]
	end := last.at
	if now.Sub(end) > meterStale {
		end = now
	}
	span := end.Sub(first.at)
	if span <= 0 || last.count == first.count {
		return 0
	}
	return float64(last.count-first.count) / span.Seconds()
}
