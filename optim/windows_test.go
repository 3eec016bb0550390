package optim

import (
	"math"
	"slices"
	"sync"
	"testing"
)

// windows are one of each use, with an empty one and a regularised one.
func windows() []Window {
	return []Window{{Hi: 2}, {Lo: 2, Hi: 4, Use: Averaged, Momentum: 0.75}, {Lo: 4, Hi: 6, Use: Kept}, {Lo: 6, Hi: 6}, {Lo: 6, Hi: 8, L1: 0.5, L2: 0.25}, {Lo: 8, Hi: 9}}
}

func TestEachWindowIsMovedInItsOwnWay(t *testing.T) {
	o := Over(&AdamW{LearningRate: Constant(0.5), WeightDecay: 0.5, Beta1: 0.9, Beta2: 0.9, Epsilon: 1e-7}, windows(), 0)
	p, slots := []float32{1, 1, 1, 2, 1, 2, 1, -1, 1}, newSlots(o, 9)
	o.Step(p, []float32{1, 1, 5, 6, 0, 7, 1, 1, 1}, slots, 0, 1)
	if want := []float32{0.75 + 1.25, 0.75*2 + 1.5, 1, 2}; !slices.Equal(p[2:6], want) {
		t.Errorf("averaged and kept windows are %v, want %v", p[2:6], want)
	}
	for _, s := range slots {
		if !slices.Equal(s[2:6], make([]float32, 4)) {
			t.Errorf("a slot holds %v for what is not learned", s[2:6])
		}
	}

	o = Over(&SGD{LearningRate: Constant(1)}, windows(), 0)
	p = []float32{0, 0, 0, 0, 0, 0, 2, -2, 0}
	o.Step(p, make([]float32, 9), nil, 0, 1)
	// 2·0.25·2 + 0.5 off, towards 0 from either side.
	if want := []float32{0, 0, 0, 0, 0, 0, 0.5, -0.5, 0}; !slices.Equal(p, want) {
		t.Errorf("penalties make %v, want %v", p, want)
	}
}

func TestOnlyWhatIsLearnedIsClipped(t *testing.T) {
	o := Over(&SGD{LearningRate: Constant(1)}, windows(), 5)
	p := make([]float32, 9)
	o.Step(p, []float32{6, 0, 100, 100, 100, 100, 8, 0, 0}, nil, 0, 1)
	if want := []float32{-3, 0, 25, 25, 0, 0, -4, 0, 0}; !slices.Equal(p, want) {
		t.Errorf("got %v, want %v", p, want)
	}
}

// One window or many: elements are updated alone, but for LAMB's.
func TestWindowsSideBySideAreOneWindow(t *testing.T) {
	const n = 100
	cut := []Window{{Hi: 7}, {Lo: 7, Hi: 64}, {Lo: 64, Hi: n}}
	for name, spec := range map[string]Spec{
		"sgd":     &SGD{LearningRate: Constant(0.1), Momentum: 0.5},
		"adam":    &Adam{LearningRate: Constant(0.1), Beta1: 0.9, Beta2: 0.99, Epsilon: 1e-7},
		"rmsprop": &RMSprop{LearningRate: Constant(0.1), Rho: 0.9, Momentum: 0.5, Epsilon: 1e-7},
		"adagrad": &Adagrad{LearningRate: Constant(0.1), InitialAccumulatorValue: 0.1, Epsilon: 1e-7},
	} {
		one, many := New(spec, n, 1), Over(spec, cut, 1)
		p, q := make([]float32, n), make([]float32, n)
		draw(p, 1)
		copy(q, p)
		s, r := newSlots(one, n), newSlots(many, n)
		g := make([]float32, n)
		for step := range uint64(3) {
			draw(g, step+2)
			one.Step(p, slices.Clone(g), s, step, 1)
			many.Step(q, g, r, step, 1)
		}
		if !slices.Equal(p, q) {
			t.Errorf("%s: windows change an update", name)
		}
	}
}

// LAMB's update is as long as the tensor times the rate, whatever the gradient.
func TestLambMovesATensorByItsLength(t *testing.T) {
	o := Over(&Lamb{LearningRate: Constant(0.125), WeightDecay: 0.1, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, []Window{{Hi: 2}, {Lo: 2, Hi: 4}}, 0)
	p, slots := []float32{3, 4, 0, 0}, newSlots(o, 4)
	o.Step(p, []float32{1e-3, 5, 2, -2}, slots, 0, 1)
	if moved := math.Hypot(float64(p[0])-3, float64(p[1])-4); math.Abs(moved-0.625) > 1e-6 {
		t.Errorf("a tensor of length 5 moved by %v, want 0.625", moved)
	}
	if want := []float32{-0.125, 0.125}; math.Abs(float64(p[2]-want[0])) > 1e-6 || math.Abs(float64(p[3]-want[1])) > 1e-6 {
		t.Errorf("a tensor of zeros moved to %v, want %v", p[2:], want)
	}
}

func TestAStepOverWindowsAllocatesNothing(t *testing.T) {
	for _, kind := range Kinds() {
		spec, _ := NewSpec(kind)
		o := Over(spec, windows(), 1)
		p, g, slots := make([]float32, 9), make([]float32, 9), newSlots(o, 9)
		if n := testing.AllocsPerRun(10, func() { o.Step(p, g, slots, 0, 1) }); n != 0 {
			t.Errorf("a step of %s allocates %v times", kind, n)
		}
	}
}

// The pieces of an update may be done in any order and at the same time.
func TestPiecesMayBeDoneInAnyOrder(t *testing.T) {
	const n = 3*pieceLen + 333
	cut := []Window{
		{Lo: 0, Hi: pieceLen + 7, L2: 1e-2}, {Lo: pieceLen + 7, Hi: pieceLen + 19, Use: Averaged, Momentum: 0.9},
		{Lo: pieceLen + 19, Hi: 2 * pieceLen, Use: Kept}, {Lo: 2 * pieceLen, Hi: n, L1: 1e-3},
	}
	for _, kind := range Kinds() {
		for _, limit := range []float64{0, 0.5} {
			spec, _ := NewSpec(kind)
			o := Over(spec, cut, limit)
			p, slots := make([]float32, n), newSlots(o, n)
			for i := range p {
				p[i] = float32(i%23) - 11
			}
			q, r := slices.Clone(p), newSlots(o, n)
			for step := range uint64(3) {
				g := make([]float32, n)
				for i := range g {
					g[i] = float32((i*7+int(step))%101)*1e-2 - 0.5
				}
				o.Step(p, slices.Clone(g), slots, step, 10)
				u := o.Begin(o.LR(step, 10), q, g, r, step)
				var all sync.WaitGroup
				for i := u.Len() - 1; i >= 0; i-- {
					all.Go(func() { u.Do(i) })
				}
				all.Wait()
			}
			if !slices.Equal(p, q) || !slices.EqualFunc(slots, r, slices.Equal[[]float32]) {
				t.Errorf("%s, clipped at %v: in pieces it makes another step", kind, limit)
			}
		}
	}
}

// Processors disagree on the sign of a NaN that they make, and states are compared by
// their bits: whatever a step overflows to, only the one NaN is kept.
func TestAStepLeavesOneKindOfNaN(t *testing.T) {
	inf := float32(math.Inf(1))
	odd := []float32{inf, -inf, 3e38, -3e38, 1e30, 0, 1, math.Float32frombits(0xffc00001)}
	decay := []Window{{Hi: 32, L2: 3}, {Lo: 32, Hi: 64, Use: Averaged, Momentum: 0.5}}
	found := 0
	for _, spec := range []Spec{
		&SGD{LearningRate: Constant(4)},
		&SGD{LearningRate: Constant(4), Momentum: 0.9},
		&Adam{LearningRate: Constant(4), Beta1: 0.9, Beta2: 0.9, Epsilon: 1e-7},
		&RMSprop{LearningRate: Constant(4), Rho: 0.9, Epsilon: 1e-7},
		&RMSprop{LearningRate: Constant(4), Rho: 0.9, Momentum: 0.9, Epsilon: 1e-7},
		&Adagrad{LearningRate: Constant(4), Epsilon: 1e-7},
		&Lamb{LearningRate: Constant(4), Beta1: 0.9, Beta2: 0.9, Epsilon: 1e-7},
	} {
		o := Over(spec, decay, 0)
		vectors := [][]float32{make([]float32, 64), make([]float32, 64)}
		for range o.Slots() {
			vectors = append(vectors, make([]float32, 64))
		}
		for i := range 64 {
			vectors[0][i], vectors[1][i] = odd[i%8], odd[i/8]
		}
		for step := range uint64(3) {
			o.Step(vectors[0], slices.Clone(vectors[1]), vectors[2:], step, 1)
		}
		for v, x := range vectors {
			for i, e := range x {
				if v == 1 || e == e {
					continue
				}
				found++
				if u := math.Float32bits(e); u != 0x7fc00000 {
					t.Errorf("%T: element %d of vector %d is %08x", spec, i, v, u)
				}
			}
		}
	}
	if found == 0 {
		t.Error("nothing has become NaN")
	}
}

func TestANormThatIsNoNumberClipsNothing(t *testing.T) {
	o := New(&SGD{LearningRate: Constant(1)}, 3, 0.5)
	p := make([]float32, 3)
	o.Step(p, []float32{1, float32(math.NaN()), 2}, nil, 0, 1)
	if p[0] != -1 || p[1] == p[1] || p[2] != -2 {
		t.Errorf("the step leads to %v, want -1, NaN, -2", p)
	}
}
