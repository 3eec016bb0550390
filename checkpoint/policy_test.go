package checkpoint_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/checkpoint"
)

func TestDueAtEveryKthUpdateAndAtTheEnd(t *testing.T) {
	p := checkpoint.Policy{EverySteps: 100, Keep: 3, Replicas: 2}
	for _, c := range []struct {
		policy checkpoint.Policy
		moment checkpoint.Moment
		want   string
	}{
		{p, checkpoint.Moment{Step: 0, Update: true}, ""},
		{p, checkpoint.Moment{Step: 99, Update: true}, ""},
		{p, checkpoint.Moment{Step: 100, Update: true}, "every 100 steps"},
		{p, checkpoint.Moment{Step: 100}, ""},
		{p, checkpoint.Moment{Step: 101, Finished: true}, "the run is finished"},
		{p, checkpoint.Moment{Step: 101, Stopping: true}, "the run stops here"},
		{checkpoint.Policy{}, checkpoint.Moment{Step: 100, Update: true}, ""},
		{checkpoint.Policy{}, checkpoint.Moment{Step: 100, Finished: true}, "the run is finished"},
	} {
		if got := c.policy.Due(c.moment); got != c.want {
			t.Errorf("%+v: Due(%+v) = %q, want %q", c.policy, c.moment, got, c.want)
		}
	}
}

func TestTheFirstReplicasRanksWrite(t *testing.T) {
	p := checkpoint.Policy{Replicas: 2}
	if !p.Writes(0) || !p.Writes(1) || p.Writes(2) || p.Writes(-1) {
		t.Error("ranks 0 and 1 write, no others")
	}
}

func TestTheOnesJustWrittenStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		on := rapid.SliceOf(rapid.Uint64Range(0, 20)).Draw(t, "on the disk")
		saved := rapid.Uint64Range(0, 20).Draw(t, "saved")
		keep := rapid.IntRange(0, 4).Draw(t, "keep")
		victims := checkpoint.Policy{Keep: keep}.Victims(append(on, saved), saved)

		left := 0
		oldest := uint64(1 << 62)
		for _, x := range append(on, saved) {
			if x <= saved && !slices.Contains(victims, x) && x < oldest {
				oldest = x
			}
		}
		for x := range saved + 1 {
			if (slices.Contains(on, x) || x == saved) && !slices.Contains(victims, x) {
				left++
			}
		}
		for _, v := range victims {
			if v >= saved || v >= oldest {
				t.Fatalf("%d goes, though %d was saved and %d stays", v, saved, oldest)
			}
		}
		if keep == 0 && len(victims) > 0 || keep > 0 && left > keep || len(victims) > 0 && left != keep {
			t.Fatalf("%d stay of %v, keep is %d", left, on, keep)
		}
	})
}

func TestPoliciesThatCantBeAreRefused(t *testing.T) {
	for want, p := range map[string]checkpoint.Policy{
		"": {EverySteps: 10, Keep: 0, Replicas: 1},
		"checkpoint: keep is -1; it must be 0 (all) or more": {Keep: -1, Replicas: 1},
		"checkpoint: replicas is 0; it must be 1 or more":    {},
	} {
		got := ""
		if err := p.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
}
