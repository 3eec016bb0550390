package ui

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample() Progress {
	return Progress{
		Epoch: 2, Epochs: 5, Step: 812, Steps: 2110, Samples: 103936, World: 3,
		Values: []Value{{"loss", 0.23412}, {"val_loss", 0.2011}, {"val_accuracy", 0.94321}},
	}
}

func TestTheLineFitsItsWidthAndKeepsWhatMatters(t *testing.T) {
	for _, c := range []struct {
		width int
		want  string
	}{
		{200, "epoch 2/5  ━━━━━━━━━━━━━━━─────────────────────────   812/2110  loss 0.2341  val_loss 0.2011  val_accuracy 0.9432  18.3k samples/s  3 nodes  ETA 1m05s"},
		{120, "epoch 2/5  ━━━╸──────   812/2110  loss 0.2341  val_loss 0.2011  val_accuracy 0.9432  18.3k samples/s  3 nodes  ETA 1m05s"},
		{100, "epoch 2/5  ━━━━───────   812/2110  loss 0.2341  val_loss 0.2011  18.3k samples/s  3 nodes  ETA 1m05s"},
		{80, "epoch 2/5  ━━━─────   812/2110  loss 0.2341  18.3k samples/s  3 nodes  ETA 1m05s"},
		{60, "epoch 2/5  ━━━━━─────────   812/2110  loss 0.2341  ETA 1m05s"},
		{40, "epoch 2/5   812/2110  loss 0.2341"},
		{20, "epoch 2/5   812/2110"},
		{9, "epoch 2/5"},
		{5, ""},
		{0, ""},
		{-1, ""},
	} {
		got := Line(sample(), 18324, 65*time.Second, c.width, false)
		if got != c.want {
			t.Errorf("width %d:\ngot  %q\nwant %q", c.width, got, c.want)
		}
	}
}

func TestTheLineShowsOnlyWhatIsKnown(t *testing.T) {
	for _, c := range []struct {
		p    Progress
		want string
	}{
		{Progress{}, "starting"},
		{Progress{Note: "waiting for 2 more nodes", World: 1}, "starting  waiting for 2 more nodes  1 node"},
		{Progress{Epoch: 1, Epochs: 1, Step: 5, Steps: 10}, "epoch 1/1  ====================....................   5/10"},
	} {
		if got := Line(c.p, 0, 0, 80, true); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestTheLineNeverExceedsItsWidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Progress{
			Epoch: rapid.Int().Draw(t, "epoch"), Epochs: rapid.Int().Draw(t, "epochs"),
			Step: rapid.Uint64().Draw(t, "step"), Steps: rapid.Uint64().Draw(t, "steps"),
			World: rapid.Int().Draw(t, "world"), Note: rapid.StringMatching(`[a-z ]{0,30}`).Draw(t, "note"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "values") {
			p.Values = append(p.Values, Value{"m", rapid.Float64().Draw(t, "value")})
		}
		width := rapid.IntRange(-1, 200).Draw(t, "width")
		line := Line(p, rapid.Float64().Draw(t, "rate"), time.Duration(rapid.Int64().Draw(t, "eta")), width, false)
		if n := utf8.RuneCountInString(line); n > max(width, 0) {
			t.Fatalf("%d columns of %d: %q", n, width, line)
		}
	})
}

func TestBarsAreExactToHalfAColumn(t *testing.T) {
	for fraction, want := range map[float64]string{
		-1: "────", 0: "────", 0.12: "────", 0.125: "╸───", 0.25: "━───", 0.5: "━━──", 0.9: "━━━╸", 1: "━━━━", 2: "━━━━",
	} {
		if got := Bar(fraction, 4, false); got != want {
			t.Errorf("%v: got %s, want %s", fraction, got, want)
		}
	}
}

func TestNumbersAreShortAndSaySomething(t *testing.T) {
	check := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check(Number(0), "0.0000")
	check(Number(0.97123), "0.9712")
	check(Number(-12.5), "-12.5000")
	check(Number(0.000123), "1.230e-04")
	check(Number(123456), "1.235e+05")
	check(SI(0.5), "0.50")
	check(SI(12.3), "12")
	check(SI(999.4), "999")
	check(SI(999.6), "1.00k")
	check(SI(18324), "18.3k")
	check(SI(999600), "1.00M")
	check(SI(123.4e6), "123M")
	check(SI(5e15), "5000T")
	check(Span(400*time.Millisecond), "0s")
	check(Span(59600*time.Millisecond), "1m00s")
	check(Span(3*time.Minute+5*time.Second), "3m05s")
	check(Span(2*time.Hour+7*time.Minute), "2h07m")
	check(Span(50*time.Hour), "2d02h")
}

func TestTheRateIsThatOfTheLastSeconds(t *testing.T) {
	var m Meter
	start := time.Unix(1000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	if r := m.Rate(start); r != 0 {
		t.Errorf("%v of nothing", r)
	}
	for s := range 20 {
		m.Add(at(s), uint64(100*s))
	}
	if r := m.Rate(at(19)); r != 100 {
		t.Errorf("steady: %v, want 100", r)
	}
	m.Add(at(30), 1900)
	if r := m.Rate(at(30)); r != 0 {
		t.Errorf("stalled: %v, want 0", r)
	}
	m.Add(at(31), 2100)
	m.Add(at(32), 2300)
	if r := m.Rate(at(32)); r < 30 || r > 201 {
		t.Errorf("going on: %v", r)
	}
	m.Add(at(33), 5)
	if r := m.Rate(at(33)); r != 0 {
		t.Errorf("started afresh: %v, want 0", r)
	}
}

// terminal is a small emulator: what a screen of one line and its scrollback
// look like after some bytes.
type terminal struct {
	scrolled []string
	line     []rune
	column   int
}

func (t *terminal) Write(b []byte) (int, error) {
	text := string(b)
	for text != "" {
		if rest, ok := strings.CutPrefix(text, eraseLine); ok {
			t.line, text = t.line[:t.column], rest
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		t.put(r)
	}
	return len(b), nil
}

func (t *terminal) put(r rune) {
	switch r {
	case '\r':
		t.column = 0
	case '\n':
		t.scrolled = append(t.scrolled, string(t.line))
		t.line, t.column = nil, 0
	default:
		t.line = append(t.line[:t.column], append([]rune{r}, t.line[min(t.column+1, len(t.line)):]...)...)
		t.column++
	}
}

func must(w io.Writer, b []byte) {
	if _, err := w.Write(b); err != nil {
		panic(err)
	}
}

func TestEventsScrollAboveTheLiveLine(t *testing.T) {
	s := NewScreen(Config{Live: true, ASCII: true})
	var screen terminal
	now := time.Unix(1000, 0)
	must(&screen, s.Event(now, "4 nodes joined\n", 60))
	must(&screen, s.Progress(now, Progress{Epoch: 1, Epochs: 2, Step: 10, Steps: 100}, 60))
	must(&screen, s.Event(now, "node-1 lost\n3 nodes go on", 60))
	now = now.Add(time.Second)
	must(&screen, s.Progress(now, Progress{Epoch: 1, Epochs: 2, Step: 50, Steps: 100, Samples: 640}, 45))
	want := []string{"4 nodes joined", "node-1 lost", "3 nodes go on"}
	if diff := cmp.Diff(want, screen.scrolled); diff != "" {
		t.Error(diff)
	}
	if got, want := string(screen.line), "epoch 1/2  ========........   50/100  ETA 1s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	must(&screen, s.Close(now, 60))
	must(&screen, s.Event(now, "done", 60))
	want = append(want, "epoch 1/2  ========........   50/100  640 samples/s  ETA 1s", "done")
	if diff := cmp.Diff(want, screen.scrolled); diff != "" {
		t.Error(diff)
	}
}

func TestEachEpochLeavesALine(t *testing.T) {
	s := NewScreen(Config{Live: true})
	var screen terminal
	now := time.Unix(1000, 0)
	for epoch := range 3 {
		must(&screen, s.Progress(now, Progress{Epoch: epoch + 1, Epochs: 3, Step: uint64(epoch), Steps: 3}, 60))
		must(&screen, s.Progress(now, Progress{Epoch: epoch + 1, Epochs: 3, Step: uint64(epoch) + 1, Steps: 3, Values: []Value{{"val_loss", 0.5}}}, 60))
	}
	if diff := cmp.Diff([]string{"epoch 1/3  1/3  val_loss 0.5000", "epoch 2/3  2/3  val_loss 0.5000"}, screen.scrolled); diff != "" {
		t.Error(diff)
	}
}

func TestTheLiveLineIsThrottledAndCatchesUp(t *testing.T) {
	s := NewScreen(Config{Live: true})
	now := time.Unix(1000, 0)
	if out := s.Tick(now, 80); out != nil {
		t.Errorf("drawn before there is anything: %q", out)
	}
	s.Progress(now, sample(), 80)
	for i := range 9 {
		now = now.Add(10 * time.Millisecond)
		if out := s.Progress(now, sample(), 80); out != nil {
			t.Errorf("drawn again after %d ms: %q", 10*(i+1), out)
		}
	}
	if out := s.Tick(now.Add(10*time.Millisecond), 80); out == nil {
		t.Error("the last progress is never shown")
	}
}

func TestPlainLinesAreFewAndEndEachEpoch(t *testing.T) {
	s := NewScreen(Config{LineEvery: 5 * time.Second})
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	for step := range uint64(24) {
		p := Progress{Epoch: int(step/12) + 1, Epochs: 2, Step: step + 1, Steps: 24, Samples: 128 * (step + 1), World: 2}
		must(&out, s.Progress(now, p, 80))
		must(&out, s.Tick(now, 80))
		now = now.Add(time.Second)
	}
	must(&out, s.Event(now, "test accuracy 0.97", 80))
	must(&out, s.Close(now, 80))
	must(&out, s.Close(now, 80))
	want := `epoch 1/2   1/24  2 nodes
epoch 1/2   6/24  128 samples/s  2 nodes  ETA 18s
epoch 1/2  11/24  128 samples/s  2 nodes  ETA 13s
epoch 1/2  12/24  128 samples/s  2 nodes
epoch 2/2  18/24  128 samples/s  2 nodes  ETA 6s
epoch 2/2  23/24  128 samples/s  2 nodes  ETA 1s
test accuracy 0.97
epoch 2/2  24/24  128 samples/s  2 nodes
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestNothingFromOutsideMovesTheCursor(t *testing.T) {
	s := NewScreen(Config{})
	got := s.Event(time.Unix(0, 0), "node \x1b[2Jx\r\t\u202eabc\x00\nsecond", 80)
	if want := "node \uFFFD[2Jx\uFFFD \uFFFDabc\uFFFD\nsecond\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// locked makes a buffer safe to read while a display writes.
type locked struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *locked) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.String(), text)
}

func TestADisplayNeverTearsLines(t *testing.T) {
	var out terminal
	d := Start(&out, Config{Live: true, ASCII: true, RedrawEvery: time.Millisecond}, func() int { return 80 })
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 50 {
				d.Progress(sample())
				d.Event(fmt.Sprintf("event %d of %d", i, g))
			}
		})
	}
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if len(out.scrolled) != 201 { // the last is the progress itself
		t.Errorf("%d lines, want 201", len(out.scrolled))
	}
	for _, line := range out.scrolled[:min(200, len(out.scrolled))] {
		var i, g int
		if n, err := fmt.Sscanf(line, "event %d of %d", &i, &g); n != 2 || err != nil {
			t.Errorf("torn: %q", line)
		}
	}
}

func TestADisplayShowsWhatWasHeldBack(t *testing.T) {
	var out locked
	d := Start(&out, Config{Live: true, RedrawEvery: 5 * time.Millisecond}, func() int { return 80 })
	defer d.Close()
	d.Progress(Progress{Epoch: 1, Epochs: 9, Step: 1, Steps: 9})
	d.Progress(Progress{Epoch: 7, Epochs: 9, Step: 7, Steps: 9})
	for deadline := time.Now().Add(5 * time.Second); !out.has("epoch 7/9"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never shown")
		}
	}
}

func TestAPipeGetsPlainLines(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d := Open(w, Config{})
	d.Progress(sample())
	fmt.Fprintln(d, "a log line")
	if err := errors.Join(d.Close(), d.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	want := "epoch 2/5   812/2110  loss 0.2341  val_loss 0.2011  val_accuracy 0.9432  3 nodes\na log line\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestAWriterThatFailsIsToldOnce(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	d := Start(w, Config{}, func() int { return 80 })
	d.Event("a")
	d.Event("b")
	if err := d.Close(); !errors.Is(err, os.ErrClosed) || strings.Count(err.Error(), "closed") != 1 {
		t.Errorf("got %v", err)
	}
}
