package exact

import (
	"math"
	"math/big"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// gradient draws finite float32 values from all of the format: raw bit
// patterns, subnormals, both zeros, and values of one size, which cancel.
func gradient() *rapid.Generator[float32] {
	return rapid.OneOf(
		rapid.Map(rapid.Uint32(), func(u uint32) float32 {
			if u>>23&0xff == 0xff {
				u &^= 1 << 30
			}
			return math.Float32frombits(u)
		}),
		rapid.Map(rapid.Uint32(), func(u uint32) float32 { return math.Float32frombits(u &^ 0x7f800000) }),
		rapid.SampledFrom([]float32{0, float32(math.Copysign(0, -1)), math.MaxFloat32, -math.MaxFloat32, 1, -1, 0x1p-126, -0x1p-149}),
		rapid.Float32Range(-1, 1),
		rapid.Float32Range(-1e-6, 1e-6),
	)
}

// step is what one training step has to add up.
type step struct {
	windows []Window
	grads   [][]float32 // one per microbatch
	exps    []int16     // what the step starts from
}

func drawStep(t *rapid.T) step {
	var s step
	lo := 0
	for _, n := range rapid.SliceOfN(rapid.IntRange(0, 5), 1, 4).Draw(t, "tensors") {
		s.windows = append(s.windows, Window{lo, lo + n})
		lo += n
		s.exps = append(s.exps, int16(rapid.IntRange(MinExponent, 136).Draw(t, "exponent")))
	}
	s.grads = rapid.SliceOfN(rapid.SliceOfN(gradient(), lo, lo), 1, 9).Draw(t, "gradients")
	return s
}

// result is all that a step leaves behind.
type result struct {
	total   []float64
	mean    []float32
	exps    []int16
	repeats int
}

func (r result) equal(o result) bool {
	bits32 := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
	bits64 := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
	return slices.EqualFunc(r.total, o.total, bits64) && slices.EqualFunc(r.mean, o.mean, bits32) &&
		slices.Equal(r.exps, o.exps)
}

// attempt adds what each rank was given and then the ranks, in the order given.
func (s step) attempt(exps []int16, ranks [][]int) *Sum {
	total := NewSum(s.windows, len(s.grads))
	total.Reset(exps)
	for _, mine := range ranks {
		part := NewSum(s.windows, len(s.grads))
		part.Reset(exps)
		for _, mb := range mine {
			part.Add(s.grads[mb])
		}
		total.merge(part)
	}
	return total
}

// merge adds what another rank holds, as ring and headers do.
func (s *Sum) merge(o *Sum) {
	into := s.Acc()
	for i, n := range o.Acc() {
		into[i] += n
	}
	for i := range s.blocks {
		b := &s.blocks[i]
		b.added, b.ints, b.seen = b.added+o.blocks[i].added, b.ints+o.blocks[i].ints, max(b.seen, o.blocks[i].seen)
	}
}

// run does the whole step as package train does: attempts, commit, finish.
func (s step) run(ranks [][]int) result {
	r := result{exps: slices.Clone(s.exps)}
	sum := s.attempt(r.exps, ranks)
	for Overflow(r.exps, sum.Seen()) {
		Raise(r.exps, sum.Seen())
		sum = s.attempt(r.exps, ranks)
		r.repeats++
	}
	r.total = slices.Clone(sum.Acc())
	r.mean = make([]float32, len(r.total))
	Finish(r.mean, r.total, 0, s.windows, r.exps, sum.Bits(), 3)
	Commit(r.exps, sum.Seen())
	return r
}

func oneRank(n int) [][]int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return [][]int{all}
}

func TestAnyOrderAndGroupingGivesTheSameBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStep(t)
		want := s.run(oneRank(len(s.grads)))
		ranks := make([][]int, rapid.IntRange(1, 12).Draw(t, "world"))
		for _, mb := range rapid.Permutation(oneRank(len(s.grads))[0]).Draw(t, "order") {
			k := rapid.IntRange(0, len(ranks)-1).Draw(t, "rank")
			ranks[k] = append(ranks[k], mb)
		}
		if got := s.run(ranks); !got.equal(want) {
			t.Fatalf("ranks %v give %+v, one rank gives %+v", ranks, got, want)
		}
	})
}

// roundedBig is the definition of n in integers: g·2^(B−e), ties to even.
func roundedBig(g float64, shift int) *big.Int {
	x := new(big.Rat).SetFloat64(g)
	two := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(shift, -shift))))
	if shift < 0 {
		two.Inv(two)
	}
	x.Mul(x, two)
	floor := new(big.Int).Div(x.Num(), x.Denom()) // Euclidean, and Denom > 0: the floor
	twice := new(big.Rat).Sub(x, new(big.Rat).SetInt(floor))
	twice.Add(twice, twice)
	if c := twice.Cmp(big.NewRat(1, 1)); c > 0 || c == 0 && floor.Bit(0) == 1 {
		floor.Add(floor, big.NewInt(1))
	}
	return floor
}

func TestTheSumIsThatOfTheRoundedIntegers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStep(t)
		exps := slices.Clone(s.exps)
		if first := s.attempt(exps, oneRank(len(s.grads))); Overflow(exps, first.Seen()) {
			Raise(exps, first.Seen())
		}
		sum := s.attempt(exps, oneRank(len(s.grads)))
		mean := make([]float32, len(sum.Acc()))
		Finish(mean, sum.Acc(), 0, s.windows, exps, sum.Bits(), 7)
		for w, window := range s.windows {
			for i := window.Lo; i < window.Hi; i++ {
				shift := sum.Bits() - int(exps[w])
				want := new(big.Int)
				for _, g := range s.grads {
					want.Add(want, roundedBig(float64(g[i]), shift))
				}
				checkTotal(t, i, sum.Acc()[i], want)
				checkMean(t, i, mean[i], want, shift, 7)
			}
		}
	})
}

func checkTotal(t *rapid.T, i int, got float64, want *big.Int) {
	exact, _ := new(big.Float).SetInt(want).Float64()
	if got != exact || new(big.Float).SetFloat64(exact).Cmp(new(big.Float).SetInt(want)) != 0 {
		t.Fatalf("element %d: total %v, want %v", i, got, want)
	}
	if got == 0 && math.Signbit(got) {
		t.Fatalf("element %d: total is -0", i)
	}
}

func checkMean(t *rapid.T, i int, got float32, total *big.Int, shift int, denom int64) {
	q := new(big.Rat).SetFrac(total, big.NewInt(denom))
	unit := new(big.Rat).SetFloat64(math.Ldexp(1, -shift))
	once, _ := q.Mul(q, unit).Float64()
	if want := float32(once); math.Float32bits(got) != math.Float32bits(want) {
		t.Fatalf("element %d: mean %x, want %x", i, got, want)
	}
}

func TestATermIsRoundedByAtMostHalfAUnit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gradient().Draw(t, "g")
		terms := rapid.IntRange(1, 1<<20).Draw(t, "terms")
		exps := StartExponents(1)
		sum := NewSum([]Window{{0, 1}}, terms)
		sum.Reset(exps)
		sum.Add([]float32{g})
		Raise(exps, sum.Seen())
		exps[0] += int16(rapid.IntRange(0, headroom).Draw(t, "headroom"))
		sum.Reset(exps)
		sum.Add([]float32{g})
		n := sum.Acc()[0]
		if n != math.Trunc(n) || math.Abs(n) > math.Ldexp(1, sum.Bits()) {
			t.Fatalf("%v became %v, not an integer of %d bits", g, n, sum.Bits())
		}
		unit := math.Ldexp(1, int(exps[0])-sum.Bits())
		if off := math.Abs(n*unit - float64(g)); off > unit/2 {
			t.Fatalf("%v is off by %v, unit %v", g, off, unit)
		}
	})
}

func TestTheSumOfTheIntegersIsLinear(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStep(t)
		exps := slices.Clone(s.exps)
		Raise(exps, s.attempt(exps, oneRank(len(s.grads))).Seen())
		var want uint64
		for mb := range s.grads {
			want += s.attempt(exps, [][]int{{mb}}).Ints()
		}
		total := s.attempt(exps, oneRank(len(s.grads)))
		if got := total.Ints(); got != want {
			t.Fatalf("the total's integers add up to %x, those of its terms to %x", got, want)
		}
		for i, n := range total.Acc() {
			bit := rapid.IntRange(0, 63).Draw(t, "bit")
			total.Acc()[i] = math.Float64frombits(math.Float64bits(n) ^ 1<<bit)
			if narrowed(total) == want {
				t.Fatalf("bit %d of %v flipped, and the sum stays", bit, n)
			}
			total.Acc()[i] = n
		}
		if narrowed(total) != want {
			t.Fatalf("the accumulator adds up to %x, what was rounded to %x", narrowed(total), want)
		}
	})
}

// narrowed returns the sum of the integers that Finish reads.
func narrowed(s *Sum) uint64 {
	acc := s.Acc()
	return Finish(make([]float32, len(acc)), acc, 0, []Window{{0, len(acc)}}, []int16{0}, s.Bits(), 3)
}

func TestOneRepeatGivesWhatARightFirstGuessWouldHave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStep(t)
		first := s.attempt(s.exps, oneRank(len(s.grads)))
		got := s.run(oneRank(len(s.grads)))
		guess := s
		guess.exps = slices.Clone(s.exps)
		Raise(guess.exps, first.Seen())
		want := guess.run(oneRank(len(s.grads)))
		if got.repeats > 1 || want.repeats != 0 {
			t.Fatalf("%d repeats, and %d after a right guess", got.repeats, want.repeats)
		}
		if !got.equal(want) {
			t.Fatalf("repeated %+v, right at once %+v", got, want)
		}
	})
}

func TestSubnormalGradientsAreExactOnTheFinestGrid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sub := rapid.Map(rapid.Uint32(), func(u uint32) float32 { return math.Float32frombits(u &^ 0x7f800000) })
		gs := rapid.SliceOfN(sub, 1, 20).Draw(t, "g")
		s := NewSum([]Window{{0, 1}}, 1<<30)
		s.Reset(StartExponents(1))
		var want int64 // in units of 2^-149
		for _, g := range gs {
			s.Add([]float32{g})
			want += int64(float64(g) * 0x1p149)
		}
		if Overflow(StartExponents(1), s.Seen()) || s.Seen()[0] != None {
			t.Fatalf("subnormals were seen as 2^%d", s.Seen()[0])
		}
		if s.Acc()[0] != float64(want) { // B = 23: the grid's unit is 2^-149 too
			t.Fatalf("sum of %v = %v units, want %d", gs, s.Acc()[0], want)
		}
		dst := make([]float32, 1)
		Finish(dst, s.Acc(), 0, s.windows, StartExponents(1), s.Bits(), 1)
		if dst[0] != float32(float64(want)*0x1p-149) {
			t.Fatalf("sum of %v = %v, want %d units of 2^-149", gs, dst[0], want)
		}
	})
}

func TestSeenIsTheExponentFieldOfTheLargest(t *testing.T) {
	inf := float32(math.Inf(-1))
	nan := float32(math.NaN())
	for _, c := range []struct {
		g    []float32
		want int16
	}{
		{[]float32{0, float32(math.Copysign(0, -1))}, None},
		{[]float32{0x1p-127, -0x1p-149}, None},
		{[]float32{0x1p-126}, -125},
		{[]float32{0.5, 0.25}, 0},
		{[]float32{-1, 0.5}, 1},
		{[]float32{math.Nextafter32(1, 0)}, 0},
		{[]float32{-math.MaxFloat32}, 128},
		{[]float32{1, inf}, NonFinite},
		{[]float32{nan, 1}, NonFinite},
	} {
		s := NewSum([]Window{{0, len(c.g)}}, 1)
		s.Reset(StartExponents(1))
		s.Add(c.g)
		if got := s.Seen()[0]; got != c.want {
			t.Errorf("seen of %v = %d, want %d", c.g, got, c.want)
		}
		if v := slices.MaxFunc(c.g, func(a, b float32) int { return int(exponent64(float64(a))) - int(exponent64(float64(b))) }); exponent64(float64(v)) != c.want {
			t.Errorf("as a scalar %v is seen as %d, want %d", v, exponent64(float64(v)), c.want)
		}
	}
}

func TestCommitFollowsTheRule(t *testing.T) {
	for _, c := range []struct{ e, seen, want int16 }{
		{0, None, 0},
		{-126, None, -126},
		{0, 0, 8},
		{20, 0, 19},
		{9, 0, 8},
		{8, 0, 8},
		{-126, -126, -118},
		{136, 128, 136},
		{-125, -125, -117},
	} {
		exps := []int16{c.e}
		if Overflow(exps, []int16{c.seen}) {
			t.Errorf("2^%d overflows a grid of 2^%d", c.seen, c.e)
		}
		if Commit(exps, []int16{c.seen}); exps[0] != c.want {
			t.Errorf("commit of %d after seeing %d gives %d, want %d", c.e, c.seen, exps[0], c.want)
		}
	}
}

func TestANonFiniteTensorIsNamedOnEveryGrid(t *testing.T) {
	for e := int16(MinExponent); e <= 136; e++ {
		exps, seen := []int16{e, e, e}, []int16{None, MinExponent, NonFinite}
		if !Overflow(exps, seen) {
			t.Fatalf("a NaN fits a grid of 2^%d", e)
		}
		if i, bad := FirstNonFinite(seen); !bad || i != 2 {
			t.Fatalf("FirstNonFinite = %d, %v", i, bad)
		}
	}
	if _, bad := FirstNonFinite([]int16{None, 128}); bad {
		t.Error("finite exponents are reported as non-finite")
	}
}

func TestNoMinusZeroSurvives(t *testing.T) {
	minus := math.Copysign(0, -1)
	s := NewSum([]Window{{0, 3}}, 2)
	s.Reset([]int16{0})
	s.Add([]float32{float32(minus), -0x1p-80, 0.5})
	s.Add([]float32{float32(minus), -0x1p-80, -0.5})
	for i, v := range s.Acc() {
		if math.Float64bits(v) != 0 {
			t.Errorf("total %d is %x, want +0", i, math.Float64bits(v))
		}
	}
	dst := make([]float32, 1)
	Finish(dst, []float64{minus}, 0, []Window{{0, 1}}, []int16{0}, 52, 1)
	if math.Float32bits(dst[0]) != 0 {
		t.Errorf("Finish lets -0 through")
	}
	if m := Value(minus, 0, 52); math.Signbit(m) {
		t.Errorf("Mean lets -0 through")
	}
}

func TestFinishOfChunksIsFinishOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawStep(t)
		whole := s.run(oneRank(len(s.grads)))
		exps := slices.Clone(s.exps)
		sum := s.attempt(exps, oneRank(len(s.grads)))
		Raise(exps, sum.Seen())
		got, ints := make([]float32, len(whole.mean)), uint64(0)
		for lo := 0; lo < len(got); {
			hi := rapid.IntRange(lo+1, len(got)).Draw(t, "chunk end")
			ints += Finish(got[lo:hi], whole.total[lo:hi], lo, s.windows, exps, sum.Bits(), 3)
			lo = hi
		}
		if want := s.attempt(exps, oneRank(len(s.grads))).Ints(); ints != want {
			t.Fatalf("the chunks' integers add up to %x, want %x", ints, want)
		}
		if !slices.Equal(got, whole.mean) {
			t.Fatalf("chunks give %v, whole gives %v", got, whole.mean)
		}
	})
}

func TestBitsLeaveRoomForEveryTerm(t *testing.T) {
	for terms, want := range map[int]int{1: 53, 2: 52, 3: 51, 4: 51, 5: 50, 8: 50, 9: 49, 60000: 37, 1 << 53: 0} {
		if got := Bits(terms); got != want {
			t.Errorf("Bits(%d) = %d, want %d", terms, got, want)
		}
	}
}

func TestBatchSizeDoesNotChangeScalars(t *testing.T) {
	value := rapid.OneOf(
		rapid.Map(gradient(), func(x float32) float64 { return float64(x) }),
		rapid.Float64Range(0, 10), rapid.Float64Range(-0x1p127, 0x1p127), rapid.Just(0x1p-1060),
	)
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(value, 1, 40).Draw(t, "values")
		terms := len(values) + rapid.IntRange(0, 100000).Draw(t, "more terms")
		want, wantExps := scalarMean(values, terms, func([]float64) int { return len(values) })
		got, gotExps := scalarMean(values, terms, func(rest []float64) int {
			return rapid.IntRange(1, len(rest)).Draw(t, "batch")
		})
		if math.Float64bits(got) != math.Float64bits(want) || gotExps != wantExps {
			t.Fatalf("mean %v at 2^%d, want %v at 2^%d", got, gotExps, want, wantExps)
		}
		if exact := bigMean(values, terms, wantExps); math.Float64bits(want) != math.Float64bits(exact) {
			t.Fatalf("mean %v, math/big says %v", want, exact)
		}
	})
}

// scalarMean adds values in batches, each as a rank of its own, last one first.
func scalarMean(values []float64, terms int, batch func(rest []float64) int) (float64, int16) {
	exps := StartExponents(1)
	for {
		var parts []*Scalars
		for rest := values; len(rest) > 0; {
			n := batch(rest)
			p := NewScalars([]int{1}, terms)
			p.Reset(exps)
			p.Add(0, rest[:n])
			parts, rest = append(parts, p), rest[n:]
		}
		sum := NewScalars([]int{1}, terms)
		sum.Reset(exps)
		for _, p := range slices.Backward(parts) {
			sum.Merge(p)
		}
		if !Overflow(exps, sum.Seen()) {
			return Value(sum.Acc()[0], exps[0], sum.Bits()) / float64(sum.Counts()[0]), exps[0]
		}
		Raise(exps, sum.Seen())
	}
}

func bigMean(values []float64, terms int, e int16) float64 {
	total := new(big.Int)
	for _, v := range values {
		total.Add(total, roundedBig(v, Bits(terms)-int(e)))
	}
	mean := new(big.Rat).SetFrac(total, big.NewInt(int64(len(values))))
	mean.Mul(mean, new(big.Rat).SetFloat64(math.Ldexp(1, int(e)-Bits(terms))))
	f, _ := mean.Float64()
	return f
}

// Sums of a group share a grid, and a value that a sample puts is one that it adds.
func TestSumsOfAGroupAreThoseOfASumEachOnTheGreatestGrid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width, n := rapid.IntRange(1, 5).Draw(t, "width"), rapid.IntRange(1, 20).Draw(t, "samples")
		exps := []int16{3, CountExponent, -4}
		parts := []*Scalars{NewScalars([]int{1, width, 1}, n), NewScalars([]int{1, width, 1}, n)}
		alone := NewScalars(slices.Repeat([]int{1}, width), n)
		parts[0].Reset(exps)
		parts[1].Reset(exps)
		alone.Reset(slices.Repeat(exps[1:2], width))
		for range n {
			j, v := rapid.IntRange(0, width-1).Draw(t, "sum"), rapid.Float64Range(0, 300).Draw(t, "value")
			parts[rapid.IntRange(0, 1).Draw(t, "rank")].Put(1, j, v)
			alone.Add(j, []float64{v})
		}
		parts[0].Merge(parts[1])
		if got := parts[0].Acc(); !slices.Equal(got[1:1+width], alone.Acc()) || got[0] != 0 || got[1+width] != 0 {
			t.Fatalf("sums are %v, each alone %v", got, alone.Acc())
		}
		if seen := parts[0].Seen(); seen[1] != slices.Max(alone.Seen()) || seen[0] != None || seen[2] != None {
			t.Fatalf("seen is %v, of each alone %v", seen, alone.Seen())
		}
	})
}

func TestAnInfiniteScalarIsSeen(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0x1p128, -math.MaxFloat64} {
		s := NewScalars([]int{1, 1}, 4)
		s.Reset(StartExponents(2))
		s.Add(0, []float64{1})
		s.Add(1, []float64{1, v, 2})
		if i, bad := FirstNonFinite(s.Seen()); !bad || i != 1 {
			t.Errorf("%v: FirstNonFinite = %d, %v", v, i, bad)
		}
	}
}

func TestAStepAllocatesNothing(t *testing.T) {
	windows := []Window{{0, 300}, {300, 310}}
	g := make([]float32, 310)
	g[7] = 1
	dst := make([]float32, 310)
	a, b := NewSum(windows, 4), NewSum(windows, 4) // b is of a rank without a share
	s := NewScalars([]int{1}, 64)
	exps, one, losses := []int16{5, 5}, []int16{5}, make([]float64, 32)
	if n := testing.AllocsPerRun(20, func() {
		a.Reset(exps)
		b.Reset(exps)
		s.Reset(one)
		a.Add(g)
		a.Add(g)
		s.Add(0, losses)
		if Overflow(exps, a.Seen()) {
			t.Error("1 does not fit 2^5")
		}
		Finish(dst, a.Acc(), 0, windows, exps, a.Bits(), 64)
		Finish(dst, b.Acc(), 0, windows, exps, b.Bits(), 63)
	}); n != 0 {
		t.Errorf("a step allocates %v times", n)
	}
}

func TestBrokenPromisesPanic(t *testing.T) {
	sum := func() *Sum {
		s := NewSum([]Window{{0, 2}}, 1)
		s.Reset([]int16{0})
		return s
	}
	for name, f := range map[string]func(){
		"gap":            func() { NewSum([]Window{{0, 2}, {3, 4}}, 1) },
		"no terms":       func() { Bits(0) },
		"short gradient": func() { sum().Add(make([]float32, 1)) },
		"too many terms": func() { s := sum(); s.Add(make([]float32, 2)); s.Add(make([]float32, 2)) },
		"half a gradient": func() {
			s := NewSum([]Window{{0, 2}, {2, 3}}, 1)
			s.Reset([]int16{0, 0})
			s.AddBlock(1, make([]float32, 1))
			s.Acc()
		},
		"other tensors":    func() { NewSum([]Window{{0, 2}}, 1).Reset([]int16{0, 0}) },
		"impossible grid":  func() { sum().Reset([]int16{137}) },
		"commit of a NaN":  func() { Commit([]int16{0}, []int16{NonFinite}) },
		"raise to a NaN":   func() { Raise([]int16{0}, []int16{NonFinite}) },
		"denominator zero": func() { Finish(make([]float32, 1), make([]float64, 1), 0, []Window{{0, 1}}, []int16{0}, 53, 0) },
		"outside":          func() { Finish(make([]float32, 1), make([]float64, 1), 1, []Window{{0, 1}}, []int16{0}, 53, 1) },
		"no such sum":      func() { s := NewScalars([]int{1, 2}, 9); s.Reset([]int16{1, 1}); s.Put(0, 1, 1) },
		"other groups":     func() { NewScalars([]int{2}, 9).Merge(NewScalars([]int{1, 1}, 9)) },
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

// Blocks are added to in any order, each microbatch in its own, and by several
// goroutines at a time.
func TestBlocksMayComeInAnyOrder(t *testing.T) {
	const n, terms = 3*blockLen + 777, 4
	windows := []Window{{0, 2*blockLen + 5}, {2*blockLen + 5, 2*blockLen + 5}, {2*blockLen + 5, n}}
	exps := []int16{3, 0, 1}
	grads := make([][]float32, terms)
	for k := range grads {
		grads[k] = make([]float32, n)
		for i := range grads[k] {
			grads[k][i] = float32(i*(k+1)%1009)*1e-3 - 0.5
		}
	}
	want, got := NewSum(windows, terms), NewSum(windows, terms)
	want.Reset(exps)
	for _, g := range grads {
		want.Add(g)
	}
	for range 2 { // the second time over rubbish
		got.Reset(exps)
		var all sync.WaitGroup
		locks := make([]sync.Mutex, got.Blocks())
		for k, g := range grads {
			all.Go(func() {
				for j := range locks {
					i := (j*3 + k*2) % len(locks)
					w := got.Block(i)
					locks[i].Lock()
					got.AddBlock(i, g[w.Lo:w.Hi])
					locks[i].Unlock()
				}
			})
		}
		all.Wait()
		if !slices.Equal(got.Acc(), want.Acc()) || got.Ints() != want.Ints() || !slices.Equal(got.Seen(), want.Seen()) {
			t.Errorf("the sum, its integers (%x, %x) or what was seen (%v, %v) differ", got.Ints(), want.Ints(), got.Seen(), want.Seen())
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	windows := []Window{{0, 100352}, {100352, 100480}, {100480, 101760}, {101760, 101770}} // 784-128-10
	s := NewSum(windows, 1<<40)
	s.Reset([]int16{0, 0, 0, 0})
	g := make([]float32, 101770)
	for i := range g {
		g[i] = float32(i%17) * 1e-3
	}
	b.SetBytes(4 * 101770)
	for b.Loop() {
		s.Add(g)
	}
}

func BenchmarkFinish(b *testing.B) {
	total, dst := make([]float64, 101770), make([]float32, 101770)
	b.SetBytes(4 * 101770)
	for b.Loop() {
		Finish(dst, total, 0, []Window{{0, 101770}}, []int16{0}, 51, 128)
	}
}
