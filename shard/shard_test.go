package shard

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestEveryEpochIsABijection(t *testing.T) {
	for n := 1; n <= 5000; n++ {
		checkBijection(t, NewPermutation(uint64(n), uint64(n%7), n), n)
	}
	for _, n := range []int{60000, 1<<16 - 1, 1 << 16, 1<<16 + 1, 1<<20 + 3} {
		checkBijection(t, NewPermutation(1, 2, n), n)
	}
}

func checkBijection(t *testing.T, p Permutation, n int) {
	t.Helper()
	seen := make([]bool, n)
	for i := range n {
		s := p.At(i)
		if s < 0 || s >= n || seen[s] {
			t.Fatalf("n = %d: position %d holds %d, out of range or twice", n, i, s)
		}
		seen[s] = true
	}
}

// A network that can be run backwards is a bijection whatever n is.
func TestHugeEpochsCanBeRunBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, math.MaxInt).Draw(t, "n")
		p := NewPermutation(rapid.Uint64().Draw(t, "seed"), rapid.Uint64().Draw(t, "epoch"), n)
		i := rapid.IntRange(0, n-1).Draw(t, "position")
		x := uint64(p.At(i))
		if x >= uint64(n) {
			t.Fatalf("position %d of %d holds %d", i, n, x)
		}
		for x = p.unpass(x); x >= uint64(n); x = p.unpass(x) {
		}
		if x != uint64(i) {
			t.Fatalf("position %d comes back as %d", i, x)
		}
	})
}

// unpass undoes pass, round by round.
func (p *Permutation) unpass(x uint64) uint64 {
	maskLo, maskHi := uint64(1)<<p.lo-1, uint64(1)<<p.hi-1
	l, h := x&maskLo, x>>p.lo
	for r := rounds - 2; r >= 0; r -= 2 {
		l ^= scramble(h^p.keys[r+1]) & maskLo
		h ^= scramble(l^p.keys[r]) & maskHi
	}
	return h<<p.lo | l
}

func TestSeedAndEpochChangeTheOrder(t *testing.T) {
	const n = 1000
	base := order(1, 1, n)
	for _, other := range [][2]uint64{{2, 1}, {1, 2}, {1 + 1<<32, 1}, {1, 1 + 1<<32}} {
		same := 0
		for i, s := range order(other[0], other[1], n) {
			if s == base[i] {
				same++
			}
		}
		if same > 10 { // 1 is expected, and 10 has a chance of 1 in 10 million
			t.Errorf("seed and epoch %v leave %d of %d samples in place", other, same, n)
		}
	}
	if !slices.Equal(base, order(1, 1, n)) {
		t.Error("an order is not a function of its arguments")
	}
}

func order(seed, epoch uint64, n int) []int {
	p := NewPermutation(seed, epoch, n)
	all := make([]int, n)
	for i := range all {
		all[i] = p.At(i)
	}
	return all
}

// Over many epochs each sample stands in each place equally often: chi-square
// with (n−1)² degrees of freedom stays within five standard deviations.
func TestNoPlaceIsPreferred(t *testing.T) {
	for _, n := range []int{2, 3, 5, 8, 13, 33} {
		const epochs = 4000
		counts := make([]float64, n*n)
		for e := range uint64(epochs) {
			for i, s := range order(99, e, n) {
				counts[i*n+s]++
			}
		}
		chi, want := 0.0, float64(epochs)/float64(n)
		for _, c := range counts {
			chi += (c - want) * (c - want) / want
		}
		degrees := float64((n - 1) * (n - 1))
		if limit := degrees + 5*math.Sqrt(2*degrees) + 10; chi > limit {
			t.Errorf("n = %d: chi-square %.1f of %v degrees, limit %.1f", n, chi, degrees, limit)
		}
	}
}

// The order is part of every trajectory: whoever changes it changes all models.
func TestTheOrderIsTheRecordedOne(t *testing.T) {
	for _, c := range []struct {
		seed, epoch uint64
		n           int
		want        string
	}{
		{1, 0, 10, "[3 4 9 2 5 6 7 1 8 0]"},
		{1, 1, 10, "[5 0 3 8 2 4 6 1 9 7]"},
		{42, 7, 60000, "[58510 35392 43031 57624 33478 45059 4916 42123 2994 37336]"},
	} {
		if got := fmt.Sprint(order(c.seed, c.epoch, c.n)[:10]); got != c.want {
			t.Errorf("seed %d epoch %d n %d starts %s, want %s", c.seed, c.epoch, c.n, got, c.want)
		}
	}
}

func drawPlan(t *rapid.T) Plan {
	return Plan{
		N:      rapid.IntRange(1, 300).Draw(t, "n"),
		Global: rapid.IntRange(1, 320).Draw(t, "global"),
		Micro:  rapid.IntRange(1, 70).Draw(t, "micro"),
		Seed:   rapid.Uint64().Draw(t, "seed"),
	}
}

func TestAnEpochVisitsEverySampleOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlan(t)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		id := func(s int) uint64 { return uint64(s) * 3 }
		epoch := uint64(rapid.IntRange(0, 1<<40).Draw(t, "epoch"))
		seen := make([]bool, p.N)
		var buf []int
		for k := range p.StepsPerEpoch() {
			step := epoch*uint64(p.StepsPerEpoch()) + uint64(k)
			if p.Epoch(step) != epoch {
				t.Fatalf("step %d is in epoch %d, want %d", step, p.Epoch(step), epoch)
			}
			count, sum := 0, uint64(0)
			for mb := range p.Microbatches(step) {
				buf = p.Samples(step, mb, buf)
				for _, s := range buf {
					if seen[s] {
						t.Fatalf("sample %d twice", s)
					}
					seen[s] = true
					sum += Mix(id(s))
				}
				count += len(buf)
				checkMicrobatch(t, p, step, mb, len(buf))
			}
			if count != p.Count(step) || sum != p.IDSum(step, id) {
				t.Fatalf("step %d holds %d samples of sum %x, its plan says %d of %x",
					step, count, sum, p.Count(step), p.IDSum(step, id))
			}
			checkStep(t, p, k, count)
		}
		if i := slices.Index(seen, false); i >= 0 {
			t.Fatalf("sample %d is left out", i)
		}
	})
}

// checkMicrobatch: all are full but the last of a step, which is not empty.
func checkMicrobatch(t *rapid.T, p Plan, step uint64, mb, n int) {
	last := mb == p.Microbatches(step)-1
	if n < 1 || n > p.Micro || !last && n != p.Micro {
		t.Fatalf("microbatch %d of step %d has %d samples", mb, step, n)
	}
}

// checkStep: all are full but the last of an epoch.
func checkStep(t *rapid.T, p Plan, k, n int) {
	if last := k == p.StepsPerEpoch()-1; n < 1 || n > p.Global || !last && n != p.Global {
		t.Fatalf("step %d of the epoch has %d samples", k, n)
	}
	if m := p.Microbatches(uint64(k)); m > p.MaxMicrobatches() {
		t.Fatalf("step %d has %d microbatches, at most %d were promised", k, m, p.MaxMicrobatches())
	}
}

func TestEpochsHaveOrdersOfTheirOwn(t *testing.T) {
	p := Plan{N: 100, Global: 100, Micro: 100, Seed: 3}
	first, second := p.Samples(0, 0, nil), p.Samples(1, 0, nil)
	if slices.Equal(first, second) {
		t.Error("two epochs have one order")
	}
}

func TestAnEvaluationVisitsEverySampleOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := EvalPlan{N: rapid.IntRange(0, 300).Draw(t, "n"), Micro: rapid.IntRange(1, 70).Draw(t, "micro")}
		at, sum := 0, uint64(0)
		for mb := range p.Microbatches() {
			lo, hi := p.Range(mb)
			if lo != at || hi <= lo || hi-lo > p.Micro {
				t.Fatalf("microbatch %d is [%d, %d) after %d", mb, lo, hi, at)
			}
			for s := lo; s < hi; s++ {
				sum += Mix(uint64(s))
			}
			at = hi
		}
		if at != p.N || sum != p.IDSum(func(s int) uint64 { return uint64(s) }) {
			t.Fatalf("%d of %d samples, or another sum", at, p.N)
		}
	})
}

func TestIDSumsTellSetsApart(t *testing.T) {
	if Mix(1)+Mix(4) == Mix(2)+Mix(3) || Mix(0) == 0 {
		t.Error("mixed ids add up like plain ones")
	}
	seen := map[uint64]bool{}
	for id := range uint64(100000) {
		seen[Mix(id)] = true
	}
	if len(seen) != 100000 {
		t.Errorf("%d ids mix to %d numbers", 100000, len(seen))
	}
}

func drawSpeeds(t *rapid.T) []Speed {
	wave := rapid.OneOf(rapid.Float64Range(1, 4), rapid.Float64Range(1, 1e9), rapid.Just(7.0))
	speed := rapid.Custom(func(t *rapid.T) Speed {
		return Speed{wave.Draw(t, "wave"), rapid.IntRange(1, 5).Draw(t, "threads")}
	})
	return rapid.SliceOfN(speed, 1, 20).Draw(t, "speeds")
}

func TestRangesDivideAllTheWork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.IntRange(0, 200).Draw(t, "microbatches")
		speeds := drawSpeeds(t)
		ranges := Assign(m, speeds, 0)
		at := 0
		for rank, r := range ranges {
			if r.Lo != at || r.Hi < r.Lo {
				t.Fatalf("rank %d has %v after %d", rank, r, at)
			}
			at = r.Hi
		}
		if len(ranges) != len(speeds) || at != m {
			t.Fatalf("%d ranges cover %d of %d microbatches", len(ranges), at, m)
		}
		if !slices.Equal(ranges, Assign(m, speeds, 0)) {
			t.Fatal("an assignment is not a function of its arguments")
		}
		checkFair(t, ranges, speeds)
	})
}

// checkFair tells who would be done sooner by giving a microbatch away.
func checkFair(t *rapid.T, ranges []Range, speeds []Speed) {
	for a, s := range speeds {
		for b, other := range speeds {
			n, m := ranges[a].Len(), ranges[b].Len()
			if s == other && n-m > 1 {
				t.Fatalf("ranks %d and %d are as fast, and have %v and %v", a, b, ranges[a], ranges[b])
			}
			if n > 0 && s.takes(n) > other.takes(m+1) {
				t.Fatalf("rank %d is done at %v; rank %d with one more at %v", a, s.takes(n), b, other.takes(m+1))
			}
		}
	}
}

func TestAssignByExample(t *testing.T) {
	for _, c := range []struct {
		m        int
		speeds   []Speed
		rotation int
		want     string
	}{
		{4, []Speed{{1, 1}, {1, 1}, {1, 1}, {1, 1}}, 0, "[{0 1} {1 2} {2 3} {3 4}]"},
		{5, []Speed{{1, 1}, {1, 1}}, 0, "[{0 3} {3 5}]"},
		{12, []Speed{{2, 1}, {6, 1}, {3, 1}}, 0, "[{0 6} {6 8} {8 12}]"},
		{12, []Speed{{2, 1}, {6, 1}, {3, 1}}, 1, "[{6 8} {8 12} {0 6}]"},
		{12, []Speed{{2, 1}, {2, 2}, {2, 3}}, 0, "[{0 2} {2 6} {6 12}]"},
		{8, []Speed{{1, 1}, {1, 1}, {3, 1}}, 0, "[{0 4} {4 7} {7 8}]"},
		{3, []Speed{{1, 1}, {9, 8}}, 0, "[{0 3} {3 3}]"},
		{2, []Speed{{1, 1}, {1, 1}, {1, 1}, {1, 1}}, 0, "[{0 1} {1 2} {2 2} {2 2}]"},
		{2, []Speed{{1, 1}, {1, 1}, {1, 1}, {1, 1}}, -1, "[{2 2} {0 1} {1 2} {2 2}]"},
		{0, []Speed{{7, 1}}, 0, "[{0 0}]"},
	} {
		if got := fmt.Sprint(Assign(c.m, c.speeds, c.rotation)); got != c.want {
			t.Errorf("Assign(%d, %v, %d) = %s, want %s", c.m, c.speeds, c.rotation, got, c.want)
		}
	}
}

func TestRotationMovesEveryMicrobatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.IntRange(1, 40).Draw(t, "microbatches")
		speeds := drawSpeeds(t)
		workers := len(speeds)
		r := rapid.IntRange(-50, 50).Draw(t, "rotation")
		first, again := Assign(m, speeds, 0), Assign(m, speeds, r)
		for mb := range m {
			a, b := owner(first, mb), owner(again, mb)
			if a < 0 || b < 0 {
				t.Fatalf("microbatch %d has no owner: %v, %v", mb, first, again)
			}
			if (a == b) != (r%workers == 0) {
				t.Fatalf("rotation %d of %d workers takes microbatch %d from rank %d to %d", r, workers, mb, a, b)
			}
		}
	})
}

// owner returns the one rank that holds a microbatch, or -1.
func owner(ranges []Range, mb int) int {
	rank := -1
	for i, r := range ranges {
		if r.Lo <= mb && mb < r.Hi {
			if rank >= 0 {
				return -1
			}
			rank = i
		}
	}
	return rank
}

func TestAnImpossiblePlanIsRefused(t *testing.T) {
	for _, p := range []Plan{{0, 1, 1, 0}, {1, 0, 1, 0}, {1, 1, 0, 0}} {
		if p.Validate() == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
}

func BenchmarkSamples(b *testing.B) {
	p := Plan{N: 54000, Global: 128, Micro: 32, Seed: 1}
	var buf []int
	for b.Loop() {
		buf = p.Samples(17, 1, buf)
	}
}

func TestBrokenPromisesPanic(t *testing.T) {
	order := NewPermutation(1, 1, 3)
	for name, f := range map[string]func(){
		"negative n":        func() { NewPermutation(1, 1, -1) },
		"position past end": func() { order.At(3) },
		"negative position": func() { order.At(-1) },
		"microbatch":        func() { Plan{N: 5, Global: 4, Micro: 2}.Samples(1, 1, nil) },
		"nobody":            func() { Assign(1, nil, 0) },
		"negative work":     func() { Assign(-1, []Speed{{1, 1}}, 0) },
		"no time":           func() { Assign(1, []Speed{{0, 1}}, 0) },
		"no threads":        func() { Assign(1, []Speed{{1, 0}}, 0) },
		"another world":     func() { NewPace(2).Observe(nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
