package shard

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// computed lets ranks compute steps of m microbatches, and returns how many each
// has in the end. A microbatch takes rank r cost[r](step) on one of its threads.
func computed(p *Pace, m, steps int, threads []int, cost func(rank, step int) float64) (counts []int) {
	for step := range steps {
		ranges := p.Assign(m, 0)
		work := make([]Work, len(ranges))
		for rank, r := range ranges {
			work[rank] = Work{uint64(Speed{cost(rank, step), threads[rank]}.takes(r.Len())), threads[rank]}
		}
		p.Observe(ranges, work)
	}
	for _, r := range p.Assign(m, 0) {
		counts = append(counts, r.Len())
	}
	return counts
}

func TestASlowRankGetsLessWithinTwentySteps(t *testing.T) {
	slowFrom := func(from int, who int, factor float64) func(int, int) float64 {
		return func(rank, step int) float64 {
			if rank == who && step >= from {
				return 1e6 * factor
			}
			return 1e6
		}
	}
	one := []int{1, 1, 1}
	for _, c := range []struct {
		name    string
		m       int
		threads []int
		cost    func(int, int) float64
		want    []int
	}{
		{"all alike", 12, one, slowFrom(0, 0, 1), []int{4, 4, 4}},
		{"a third of the speed", 21, one, slowFrom(0, 2, 3), []int{9, 9, 3}},
		{"slow later", 21, one, slowFrom(80, 2, 3), []int{9, 9, 3}},
		{"much too slow", 6, one, slowFrom(0, 1, 100), []int{3, 0, 3}},
		{"twice the threads", 12, []int{2, 1, 1}, slowFrom(0, 0, 1), []int{6, 3, 3}},
		{"a little slower", 12, one, slowFrom(0, 0, 1.05), []int{4, 4, 4}},
	} {
		steps := 20
		if c.name == "slow later" {
			steps += 80
		}
		if got := computed(NewPace(3), c.m, steps, c.threads, c.cost); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestARankThatHasRecoveredIsTriedAgain(t *testing.T) {
	got := computed(NewPace(2), 8, 400, []int{1, 1}, func(rank, step int) float64 {
		if rank == 1 && step < 20 {
			return 100e6
		}
		return 1e6
	})
	if !slices.Equal(got, []int{4, 4}) {
		t.Errorf("380 steps after it has recovered: %v, want 4 and 4", got)
	}
}

func TestAnAccidentChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		when := rapid.IntRange(0, 3).Draw(t, "first")
		p := NewPace(3)
		got := computed(p, 12, 60, []int{1, 1, 1}, func(rank, step int) float64 {
			if rank == step%3 && step%4 == when { // each is held up in a twelfth of its steps
				return 50e6
			}
			return 1e6
		})
		if !slices.Equal(got, []int{4, 4, 4}) {
			t.Fatalf("%v, want 4 each", got)
		}
	})
}

func TestRanksThatObserveAlikeDealAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		world := rapid.IntRange(1, 6).Draw(t, "world")
		a, b := NewPace(world), NewPace(world)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m := rapid.IntRange(1, 20).Draw(t, "microbatches")
			rotation := rapid.IntRange(0, 2).Draw(t, "rotation")
			ranges := a.Assign(m, rotation)
			b.Assign(rapid.IntRange(0, 9).Draw(t, "asked in between"), 0)
			if !slices.Equal(ranges, b.Assign(m, rotation)) {
				t.Fatal("two ranks deal differently")
			}
			work := make([]Work, world)
			for rank := range work {
				work[rank] = Work{rapid.Uint64().Draw(t, "nanos"), rapid.IntRange(-1, 64).Draw(t, "threads")}
			}
			if a.Observe(ranges, work) != b.Observe(ranges, work) {
				t.Fatal("two ranks conclude differently")
			}
		}
	})
}

// Where steps vary at random, as those of processes with a quota of CPU time do, what
// is dealt settles. The seeds are fixed: how often a dealing changes is a matter of
// chance, and a bound that each of a hundred new seeds keeps is too wide to mean
// anything.
func TestStepsThatVaryDoNotUnsettleTheDealing(t *testing.T) {
	const runs, steps = 500, 200
	changes := 0
	for seed := range uint64(runs) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		p := NewPace(3)
		slow := []float64{1e6, 1e6, 3e6}
		for range steps {
			ranges := p.Assign(48, 0)
			work := make([]Work, 3)
			for rank, r := range ranges {
				work[rank] = Work{uint64(slow[rank] * float64(r.Len()) * (0.7 + 0.6*rnd.Float64())), 1}
			}
			if p.Observe(ranges, work) {
				changes++
			}
		}
		if n := p.Assign(48, 0)[2].Len(); n < 5 || n > 9 {
			t.Errorf("seed %d: the slow rank has %d of 48 microbatches, want about 7", seed, n)
		}
	}
	// 3.0 with a memory of 21 steps; 11 were the last 7 alone remembered.
	if mean := float64(changes) / runs; mean > 4 {
		t.Errorf("%.2f changes in %d steps, want at most 4", mean, steps)
	} else {
		t.Logf("%.2f changes in %d steps", mean, steps)
	}
}
