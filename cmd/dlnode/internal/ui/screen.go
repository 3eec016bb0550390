package ui

import (
	"strings"
	"time"
	"unicode"
)

// Config says what a Screen writes for.
type Config struct {
	// Live redraws one line in place, which takes a terminal.
	Live bool
	// ASCII draws the bar without box characters.
	ASCII bool
	// RedrawEvery is the least time between two redrawings; 0 means 100 ms.
	RedrawEvery time.Duration
	// LineEvery is the least time between two plain lines; 0 means 5 s.
	LineEvery time.Duration
}

func (c Config) withDefaults() Config {
	if c.RedrawEvery == 0 {
		c.RedrawEvery = 100 * time.Millisecond
	}
	if c.LineEvery == 0 {
		c.LineEvery = 5 * time.Second
	}
	return c
}

// Screen decides what is written, and holds what has been. It is a pure
// machine: each method takes the time and returns bytes for the terminal, nil
// for none. Not for use by two goroutines at once.
type Screen struct {
	cfg      Config
	progress Progress
	samples  Meter
	steps    Meter
	started  bool      // there was progress to show
	stale    bool      // it changed since it was last written
	drawn    bool      // a live line stands at the cursor
	last     time.Time // when progress was last written
	closed   bool
}

// NewScreen returns an empty screen.
func NewScreen(cfg Config) *Screen { return &Screen{cfg: cfg.withDefaults()} }

// The control sequences of ECMA-48 that a live line takes.
const (
	lineStart = "\r"
	eraseLine = "\x1b[K" // from the cursor to the end
)

// Progress notes where the run is, and shows it if it is time to. The last
// progress of each epoch stays as a line.
func (s *Screen) Progress(now time.Time, p Progress, width int) []byte {
	if s.closed {
		return nil
	}
	var out []byte
	if s.endsEpoch(p) {
		out = append(s.erase(), s.line(now, 0)...)
	}
	s.samples.Add(now, p.Samples)
	s.steps.Add(now, p.Step)
	s.progress, s.started, s.stale = p, true, true
	return append(out, s.Tick(now, width)...)
}

// endsEpoch reports that the progress held is the last of its epoch, and does
// not stand on a line already.
func (s *Screen) endsEpoch(next Progress) bool {
	return s.progress.Epochs > 0 && next.Epoch != s.progress.Epoch && (s.cfg.Live || s.stale)
}

// Tick shows what an earlier call held back, once it is time. Call it now and
// then; a live line also shows by it that the rate falls during a stall.
func (s *Screen) Tick(now time.Time, width int) []byte {
	switch {
	case s.closed || !s.started:
		return nil
	case s.cfg.Live && (s.last.IsZero() || now.Sub(s.last) >= s.cfg.RedrawEvery):
		return s.redraw(now, width)
	case !s.cfg.Live && s.stale && (s.last.IsZero() || now.Sub(s.last) >= s.cfg.LineEvery):
		return s.line(now, s.eta(now))
	}
	return nil
}

// Event writes lines of their own. Below them a live line goes on as it was.
func (s *Screen) Event(now time.Time, text string, width int) []byte {
	out := s.erase()
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		out = append(append(out, Clean(line)...), '\n')
	}
	if s.cfg.Live && s.started && !s.closed {
		out = append(out, s.redraw(now, width)...)
	}
	return out
}

// Close shows the last progress and leaves the cursor on a line of its own.
// After it events are still written, progress no longer is.
func (s *Screen) Close(now time.Time, width int) []byte {
	if s.closed {
		return nil
	}
	var out []byte
	switch {
	case s.cfg.Live && s.started:
		out = append(s.redraw(now, width), '\n')
	case s.stale:
		out = s.line(now, s.eta(now))
	}
	s.drawn, s.closed = false, true
	return out
}

// redraw writes the live line over itself. The last column stays free: a
// terminal that wraps there would scroll.
func (s *Screen) redraw(now time.Time, width int) []byte {
	s.drawn, s.stale, s.last = true, false, now
	return []byte(lineStart + Line(s.progress, s.samples.Rate(now), s.eta(now), width-1, s.cfg.ASCII) + eraseLine)
}

// erase takes the live line away, if there is one.
func (s *Screen) erase() []byte {
	if !s.drawn {
		return nil
	}
	s.drawn = false
	return []byte(lineStart + eraseLine)
}

// line writes all of progress as a line that stays; it has no use for a bar.
func (s *Screen) line(now time.Time, eta time.Duration) []byte {
	s.stale, s.last = false, now
	return []byte(join(partsOf(s.progress, s.samples.Rate(now), eta)) + "\n")
}

// eta is what remains at the present speed; 0 where that is not known.
func (s *Screen) eta(now time.Time) time.Duration {
	rate := s.steps.Rate(now)
	if p := s.progress; rate > 0 && p.Steps > p.Step {
		return time.Duration(float64(p.Steps-p.Step) / rate * float64(time.Second))
	}
	return 0
}

// Clean replaces what could move the cursor or colour the screen: events carry
// names and texts that came from other machines.
func Clean(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r), r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return '\uFFFD' // the two ranges reverse the direction of writing
		}
		return r
	}, line)
}
