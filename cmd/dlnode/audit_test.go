package main

import (
	"slices"
	"testing"
)

func TestStepsAreNamedByTheirRuns(t *testing.T) {
	for want, steps := range map[string][]uint64{
		"steps 7": {7}, "steps 1 to 3": {1, 2, 3}, "steps 1, 3 to 4, 9": {1, 3, 4, 9},
	} {
		if got := list(steps); got != want {
			t.Errorf("%v are %q, want %q", steps, got, want)
		}
	}
}

func TestASeedDrawsTheSameSteps(t *testing.T) {
	var steps []uint64
	for i := range 100 {
		steps = append(steps, uint64(i+1))
	}
	first := drawSteps(steps, 20, 7)
	if again := drawSteps(steps, 20, 7); !slices.Equal(first, again) {
		t.Errorf("seed 7 draws %v, then %v", first, again)
	}
	if other := drawSteps(steps, 20, 8); slices.Equal(first, other) {
		t.Errorf("seeds 7 and 8 draw %v", first)
	}
	if n := len(slices.Compact(slices.Clone(first))); n != 20 || !slices.IsSorted(first) {
		t.Errorf("%v are %d steps, want 20", first, n)
	}
	for _, all := range []int{0, 100, 101} {
		if got := drawSteps(steps, all, 7); !slices.Equal(got, steps) {
			t.Errorf("%d of 100 steps are %v", all, got)
		}
	}
}
