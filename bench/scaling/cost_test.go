package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/allreduce"
)

// eachStep visits all predictions of the tables.
func eachStep(t *testing.T, visit func(n Net, w int, l Link, a Algorithm, s Step)) {
	t.Helper()
	for _, n := range Nets {
		for _, l := range Links {
			for _, a := range Algorithms {
				for _, w := range Worlds {
					visit(n, w, l, a, Predict(n, w, l, Node, a))
				}
			}
		}
	}
}

func TestNoStepIsFasterThanItsBounds(t *testing.T) {
	eachStep(t, func(n Net, w int, l Link, a Algorithm, s Step) {
		least := float64(w-1) / float64(w) * float64(n.Params) * (n.Reduce + n.Gather)
		if a.Name != "exchange" && s.Bytes < 0.999*least {
			t.Errorf("%s, %d nodes, %s, %s: %v bytes, a reduce-scatter and an all-gather take %v", n.Name, w, l.Name, a.Name, s.Bytes, least)
		}
		if s.Reduce < l.Alpha || s.Reduce < s.Bytes/l.Rate*0.999 {
			t.Errorf("%s, %d nodes, %s, %s: %v s are less than latency or wire", n.Name, w, l.Name, a.Name, s.Reduce)
		}
		if e, o := s.Efficiency(), s.Overlapped(); !(0 < e && e <= o && o <= 1) {
			t.Errorf("%s, %d nodes, %s, %s: efficiency %v, overlapped %v", n.Name, w, l.Name, a.Name, e, o)
		}
	})
}

func TestMoreNodesTakeLongerAndBetterLinksLess(t *testing.T) {
	eachStep(t, func(n Net, w int, l Link, a Algorithm, s Step) {
		// Of two levels the head's part counts twice, which weighs most among few.
		if next := Predict(n, 2*w, l, Node, a); next.Total() < s.Total() && !(a.Name == "two-level" && next.Total() > 0.9*s.Total()) {
			t.Errorf("%s, %s, %s: %d nodes take %v s, twice as many %v", n.Name, l.Name, a.Name, w, s.Total(), next.Total())
		}
		for _, better := range []Link{{"", l.Alpha / 2, l.Rate}, {"", l.Alpha, 2 * l.Rate}} {
			if b := Predict(n, w, better, Node, a); b.Total() > s.Total() {
				t.Errorf("%s, %d nodes, %s, %s: half of the latency, or twice the rate, takes longer", n.Name, w, l.Name, a.Name)
			}
		}
		larger := n
		larger.Params *= 2
		if b := Predict(larger, w, l, Node, a); b.Total() < s.Total() {
			t.Errorf("%s, %d nodes, %s, %s: twice the parameters take less", n.Name, w, l.Name, a.Name)
		}
	})
}

// Without packing and without headers it is the model by which dlnode chooses.
func TestTheFastestIsTheOneThatTheProductChooses(t *testing.T) {
	for _, n := range Nets {
		n.Reduce, n.Gather = reduceWidth, gatherWidth
		for _, l := range Links {
			m := Machine{Frame: 8e-6}
			link := allreduce.Link{Alpha: duration(l.Alpha), Frame: duration(m.Frame), Beta: duration((1 << 20) / l.Rate)}
			for _, w := range []int{4, 8, 16, 64, 512} {
				chosen := allreduce.Choose(allreduce.NewModel(link, link), n.Params, w, zones(w), allreduce.DefaultSegmentBytes)
				bare := func(a Algorithm) float64 {
					work := a.Work(n, w)
					return work.Hops*l.Alpha + work.Frames*m.Frame + work.Unpacked/l.Rate
				}
				least := math.Inf(1)
				for _, a := range Algorithms {
					if a.Built && (a.Most == 0 || w <= a.Most) {
						least = min(least, bare(a))
					}
				}
				// What links cost travels in steps of an eighth of an octave.
				if got := bare(named(chosen.String())); got > 1.1*least {
					t.Errorf("%s, %d nodes, %s: dlnode chooses %v, %v s, where the least is %v", n.Name, w, l.Name, chosen, got, least)
				}
			}
		}
	}
}

func TestTheBestIsOneThatTheWorldCanHave(t *testing.T) {
	eachStep(t, func(n Net, w int, l Link, a Algorithm, s Step) {
		can := a.Built && (a.Most == 0 || w <= a.Most)
		if best, least := Best(n, w, l, Node, false); !best.Built || best.Most > 0 && w > best.Most || can && s.Total() < least.Total() {
			t.Errorf("%s, %d nodes, %s: %s at %v s, %s takes %v", n.Name, w, l.Name, best.Name, least.Total(), a.Name, s.Total())
		}
	})
}

// written makes a file.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "measured.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFitFindsTheCostsThatRowsWereMadeWith(t *testing.T) {
	truth := fit{Alpha: 40e-6, Frame: 10e-6, Byte: 1e-9, Cores: 2}
	var rows []row
	for _, world := range []int{2, 4, 8} {
		for _, bytes := range []int64{4 << 10, 64 << 10, 1 << 20, 16 << 20} {
			r := row{World: world, Bytes: bytes}
			w, _ := allreduce.WorkOf(allreduce.Direct, int(bytes/4), world, nil, allreduce.DefaultSegmentBytes)
			r.Sent = int64(w.Bytes)
			r.Mean = truth.predict(r, 0) * 1e6
			rows = append(rows, r)
		}
	}
	got, err := fitted(rows, truth.Cores)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]float64{{got.Alpha, truth.Alpha}, {got.Frame, truth.Frame}, {got.Byte, truth.Byte}} {
		if math.Abs(c[0]/c[1]-1) > 0.02 {
			t.Errorf("found %v, want %v", got, truth)
		}
	}
}

func TestWhatWasTakenIsToldByTheBytes(t *testing.T) {
	for _, c := range []struct {
		r    row
		want allreduce.Algorithm
	}{
		{row{World: 2, Bytes: 4096, Sent: 8192}, allreduce.Exchange},
		{row{World: 2, Bytes: 1 << 20, Sent: 3 << 19}, allreduce.Direct},
		{row{World: 4, Bytes: 64 << 10, Sent: 384 << 10}, allreduce.Exchange},
		{row{World: 4, Bytes: 64 << 10, Sent: 84 << 10}, allreduce.Direct}, // packed
	} {
		if got, _ := c.r.taken(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.r, got, c.want)
		}
	}
}

func TestWhatIsNoMeasurementIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":            "unexpected end",
		`{"rows":[]}`: "no rows of kind bare",
		`{"rows":[{"kind":"bare","world":1,"bytes":4,"mean_us":1,"sent_bytes":4}]}`: "row 1: no all-reduce of 1 ranks",
	} {
		if _, err := readMeasured(written(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestTheTablesHaveARowForEachWorld(t *testing.T) {
	var b strings.Builder
	writeTables(&b)
	for _, n := range Nets {
		if !strings.Contains(b.String(), "**"+n.Name+"**") {
			t.Errorf("no table of %s", n.Name)
		}
	}
	if strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf") {
		t.Error("numbers that are none")
	}
	if n := strings.Count(b.String(), "\n| 4096 |"); n != len(Nets)+4+len(extremes) {
		t.Errorf("%d rows of 4096 nodes", n)
	}
}

func TestPicturesAreDrawnAlikeAndSmall(t *testing.T) {
	var files [2]string
	for i := range files {
		dir := t.TempDir()
		if err := drawAll(dir, []point{{row{World: 2, Bytes: 4, Mean: 10}, "loopback", 0, true, 12e-6, allreduce.Direct}}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"efficiency", "algorithms", "check"} {
			b, err := os.ReadFile(filepath.Join(dir, "scaling-"+name+".svg"))
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 150_000 {
				t.Errorf("%s has %d bytes", name, len(b))
			}
			files[i] += string(b)
		}
	}
	if files[0] != files[1] {
		t.Error("the same figures are drawn in two ways")
	}
}
