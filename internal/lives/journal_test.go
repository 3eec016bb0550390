package lives

import (
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/train"
)

// step is an update of two samples, of which a rank has computed microbatches [lo, hi)
// of four.
func step(transition uint64, world, lo, hi int) train.Record {
	return train.Record{T: "step", Kind: "update", Transition: transition, Generation: 1, World: world, Lo: lo, Hi: hi, Samples: 2, Watch: "w"}
}

func opens(view string) train.Record { return train.Record{T: "event", Kind: "view", View: view} }

// halves are two nodes that trained together, and then, cut in two, each alone, in views
// of one generation.
func halves() []Life {
	evaluate := train.Record{T: "step", Kind: "evaluate", Transition: 3, Watch: "w"}
	return []Life{
		{"node-1", []train.Record{opens("a"), step(1, 2, 0, 2), opens("b"), step(2, 1, 0, 4), evaluate}},
		{"node-2", []train.Record{opens("a"), step(1, 2, 2, 4), opens("c"), step(2, 1, 0, 4), evaluate}},
	}
}

func TestARunThatHoldsIsNotComplainedOf(t *testing.T) {
	for name, bad := range map[string][]string{
		"forwards": Forwards(halves()), "complete": Complete(halves(), 3), "shares": Shares(halves(), 4), "exactly once": ExactlyOnce(halves(), 4),
	} {
		if len(bad) > 0 {
			t.Errorf("%s: %v", name, bad)
		}
	}
}

func TestWhatDoesNotHoldIsTold(t *testing.T) {
	for _, c := range []struct {
		spoil func([]Life)
		check func([]Life) []string
		want  string
	}{
		{func(l []Life) { l[0].Records[3].Transition = 1 }, Forwards, "node-1 went back from transition 1 to 1"},
		{func(l []Life) { l[1].Records[3].Watch = "v" }, func(l []Life) []string { return Complete(l, 3) }, "other bits at transition 2"},
		{func([]Life) {}, func(l []Life) []string { return Complete(l, 4) }, "transition 4 is in no journal"},
		{func(l []Life) { l[1].Records[1].Lo = 1 }, func(l []Life) []string { return Shares(l, 4) }, "transition 1, view a: microbatches computed twice"},
		{func(l []Life) { l[1].Records[2].View = "b" }, func(l []Life) []string { return Shares(l, 4) }, "transition 2, view b: microbatches computed twice"},
		{func(l []Life) {
			for i := range l {
				l[i].Records[1].Samples = 1
			}
		}, func(l []Life) []string { return ExactlyOnce(l, 4) }, "used 3 samples, want 4"},
	} {
		l := halves()
		c.spoil(l)
		if bad := c.check(l); len(bad) == 0 || !strings.Contains(bad[0], c.want) {
			t.Errorf("%q, want %q", bad, c.want)
		}
	}
}

func TestQuantilesAreTimesThatWereMeasured(t *testing.T) {
	times := []time.Duration{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := Quantile(times, q); got != want {
			t.Errorf("q %g: %d, want %d", q, got, want)
		}
	}
}
