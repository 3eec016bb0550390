package ui

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Display writes a Screen to a file. Its methods may be called from any
// goroutine; lines never tear.
type Display struct {
	mu     sync.Mutex
	screen *Screen
	w      io.Writer
	width  func() int
	err    error // the first that writing gave; nothing is written after it

	stop chan struct{}
	done chan struct{}
	once sync.Once
}

// Open shows progress on a file: live if it is a terminal, else in plain lines.
// Close it.
func Open(f *os.File, cfg Config) *Display {
	cfg.Live = term.IsTerminal(int(f.Fd()))
	return Start(f, cfg, func() int { return terminalWidth(f) })
}

// fallbackWidth is for terminals that do not tell theirs.
const fallbackWidth = 80

func terminalWidth(f *os.File) int {
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		return w
	}
	return fallbackWidth
}

// Start shows progress on any writer; width is asked before each redrawing.
// Close it.
func Start(w io.Writer, cfg Config, width func() int) *Display {
	d := &Display{
		screen: NewScreen(cfg), w: w, width: width,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go d.tick()
	return d
}

// tick redraws while nothing happens.
func (d *Display) tick() {
	defer close(d.done)
	ticker := time.NewTicker(d.screen.cfg.RedrawEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.write((*Screen).Tick)
		case <-d.stop:
			return
		}
	}
}

// Progress shows where the run is. It keeps p.Values.
func (d *Display) Progress(p Progress) {
	d.write(func(s *Screen, now time.Time, width int) []byte { return s.Progress(now, p, width) })
}

// Event shows a text on lines of their own, above the bar.
func (d *Display) Event(text string) {
	d.write(func(s *Screen, now time.Time, width int) []byte { return s.Event(now, text, width) })
}

// Close shows the last progress and ends redrawing. It returns the first error
// that writing gave. Closing again does nothing more.
func (d *Display) Close() error {
	d.once.Do(func() {
		close(d.stop)
		<-d.done
		d.write((*Screen).Close)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// write carries out what the screen decides.
func (d *Display) write(decide func(s *Screen, now time.Time, width int) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := decide(d.screen, time.Now(), d.width())
	if len(out) == 0 || d.err != nil {
		return
	}
	n, err := d.w.Write(out)
	if err == nil && n < len(out) {
		err = io.ErrShortWrite
	}
	d.err = errors.Join(d.err, err)
}

// Write makes the display a place for log lines: each call is an event. A
// slog handler over it writes one line a call.
func (d *Display) Write(line []byte) (int, error) {
	d.Event(string(line))
	return len(line), nil
}
