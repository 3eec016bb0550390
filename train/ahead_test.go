package train

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/testjobs"
)

// aheadTask has a model of more than one piece, of which some windows are averaged and
// some regularized.
func aheadTask(t *testing.T, optimizer string) *Task {
	return testTask(t, testjobs.File{Name: "ahead", Text: []byte(`data: {synthetic: {samples: 20, test_samples: 1, features: 30, classes: 3}}
model: [{dense: {units: 50, activation: relu, kernel_regularizer: {l2: 0.01}}}, batch_normalization, {dense: {units: 3, activation: softmax}}]
loss: sparse_categorical_crossentropy
optimizer: ` + optimizer + `
batch: {global: 10, microbatch: 5}
`)})
}

var aheadOptimizers = []string{
	"{sgd: {learning_rate: 0.1}}", "{sgd: {learning_rate: 0.1, momentum: 0.9, nesterov: true}}", "{adam: {learning_rate: 0.01}}",
	"{adamw: {learning_rate: 0.01}}", "{rmsprop: {learning_rate: 0.01, momentum: 0.5}}", "{adagrad: {learning_rate: 0.1}}",
	"{lamb: {learning_rate: 0.01, weight_decay: 0.1}}",
}

// An update that is made ahead, in pieces and in any order, is the one that is made at
// once. What was begun and given up leaves nothing behind; neither the state nor the
// gradient is written in.
func TestAnUpdateAheadIsTheUpdate(t *testing.T) {
	for _, o := range aheadOptimizers {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 0))
			task := aheadTask(t, o)
			if !task.Optimizer.ByPieces() {
				t.Fatal("not by pieces")
			}
			s, want := task.Start(), task.Start()
			a := NewAhead(task)
			for step := range 4 {
				mean := randomMean(rnd, len(s.params))
				if step%2 == 1 { // an attempt that does not count
					a.begin(s, 0.5, randomMean(rnd, len(s.params)))
					for _, r := range ranges(rnd, len(s.params)) {
						if rnd.IntN(2) == 0 {
							a.final(r[0], r[1])
							a.One()
						}
					}
					a.stop()
				}
				before, gradient := s.clone(), slices.Clone(mean)
				a.begin(s, 0.01, mean)
				for _, r := range ranges(rnd, len(s.params)) {
					if a.final(r[0], r[1]); rnd.IntN(2) == 0 {
						a.One()
					}
				}
				if !slices.Equal(s.params, before.params) || !slices.EqualFunc(s.slots, before.slots, slices.Equal[[]float32]) {
					t.Fatal("the state was written in before the commit")
				}
				if !slices.Equal(mean, gradient) {
					t.Fatal("the gradient was written in, which others may still be sent")
				}
				if !a.commit(s, inTurn) {
					t.Fatal("no update was made")
				}
				s.Step++
				u := task.Optimizer.Begin(0.01, want.params, gradient, want.slots, want.Step)
				inTurn(u.Len(), u.Do)
				want.Step++
				if task.digest(s) != task.digest(want) {
					t.Fatalf("step %d: an update made ahead has other bits than one made at once", step)
				}
			}
			if a.commit(s, inTurn) {
				t.Error("an update was made that nobody began")
			}
			if got := task.Memory().Next; a.Bytes() != got {
				t.Errorf("it holds %d bytes, told were %d", a.Bytes(), got)
			}
		})
	}
}

func randomMean(rnd *rand.Rand, n int) []float32 {
	g := make([]float32, n)
	for i := range g {
		g[i] = float32(rnd.NormFloat64())
	}
	return g
}

// ranges cuts n elements into some, in any order.
func ranges(rnd *rand.Rand, n int) (all [][2]int) {
	for lo := 0; lo < n; {
		hi := min(n, lo+1+rnd.IntN(n/3))
		all = append(all, [2]int{lo, hi})
		lo = hi
	}
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// A gradient that is clipped by its norm must be whole first.
func TestAClippedUpdateIsNotMadeAhead(t *testing.T) {
	task := testTask(t, testjobs.File{Name: "clipped", Text: []byte(waysJob + "clip_norm: 1\n")})
	a := NewAhead(task)
	a.Choose = func() bool { return true }
	if a.wants() || task.Memory().Next != 0 {
		t.Error("an update that needs the norm of the whole gradient is made ahead")
	}
}

func TestTheTrialTakesTheFasterWay(t *testing.T) {
	for _, c := range []struct {
		without, with time.Duration
		want          bool
	}{{100, 90, true}, {100, 100, false}, {100, 99, false}, {90, 100, false}} {
		t.Run(fmt.Sprint(c.without, c.with), func(t *testing.T) {
			var tr trial
			steps := 0
			for over := false; !over; steps++ {
				d := c.without
				if tr.turn() {
					d = c.with
				}
				if steps%5 == 4 {
					d *= 10 // something else went on
				}
				over = tr.measured(time.Millisecond * d)
			}
			for range 2 { // it stays so
				if tr.turn() != c.want {
					t.Errorf("ahead is %v, want %v", !c.want, c.want)
				}
			}
			if steps != 2*trialSteps {
				t.Errorf("it took %d steps", steps)
			}
		})
	}
}
