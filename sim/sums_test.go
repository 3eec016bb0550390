package sim

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/train"
)

// watched plays a schedule in which nothing fails but what hook does.
func watched(o Options, hook func(l *life, e any)) (r *Result, c *Cluster) {
	o.Trace = true
	r = direct(o, func(made *Cluster) {
		c = made
		c.hook = hook
		c.startNodes()
	})
	return r, c
}

// told counts the lines of a story.
func told(r *Result, text string) (n int) {
	for _, line := range r.Trace {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

const (
	doubted = "computed once more before it is believed"
	atFault = "memory, processor or network card of one of "
)

// spoiler flips a bit of the sums that one rank gives to the ring at one step, in
// as many attempts in a row as asked.
type spoiler struct {
	step  uint64
	rank  int
	times int
	bit   func(x float64) int
	seen  func(l *life)
}

func (s *spoiler) hook(l *life, e any) {
	vec, ok := e.(sums)
	if !ok || s.times == 0 || len(vec) == 0 || l.host.Node().State().Step != s.step {
		return
	}
	if v, rank := l.host.Node().View(); rank != min(s.rank, v.World()-1) {
		return
	}
	s.times--
	i := 0
	for k, x := range vec {
		if math.Abs(x) > math.Abs(vec[i]) {
			i = k
		}
	}
	flipBit(vec, i, s.bit(vec[i]))
	if s.seen != nil {
		s.seen(l)
	}
}

// lowest is the bit of a whole number that counts 1. Of 0 it is the one that makes it 2.
func lowest(x float64) int {
	if x == 0 {
		return 62
	}
	return 1075 - int(math.Float64bits(x)>>52&0x7ff)
}

func fixed(bit int) func(float64) int {
	return func(x float64) int {
		if x == 0 {
			return 62
		}
		return bit
	}
}

// together is a cluster in which no group may break.
func together(l *Load, nodes int) Options {
	o := alone(l)
	o.Nodes, o.Gentle = nodes, true
	return o
}

func TestABitThatFlipsInTheSumsIsSeenBeforeItReachesAnyState(t *testing.T) {
	bits := map[string]func(float64) int{"lowest": lowest, "sign": fixed(63), "exponent": fixed(52), "huge": fixed(62), "mantissa": fixed(50)}
	for name, bit := range bits {
		for _, l := range theLoads(t)[:2] { // of the third many attempts do not fit their grids
			for _, nodes := range []int{1, 2, 4} {
				for i, step := range []uint64{1, 9, 30} {
					times := 1 + i%2
					s := &spoiler{step: step, rank: i * nodes / 3, times: times, bit: bit}
					r, _ := watched(together(l, nodes), s.hook)
					if n := told(r, doubted); r.Failure != nil || r.Finished != nodes || n != times*nodes {
						t.Fatalf("%s: %s bit of rank %d of %d at step %d: %v, %d finished, told %d times\n%s",
							l.Name, name, s.rank, nodes, step, r.Failure, r.Finished, n, tail(r.Trace, 40))
					}
				}
			}
		}
	}
}

func TestAnyBitOfTheSumsIsSeenOrDoesNoHarm(t *testing.T) {
	seen := 0
	for bit := range 64 {
		ls := theLoads(t)
		s := &spoiler{step: uint64(bit % 7), rank: bit % 3, times: 1, bit: func(float64) int { return bit }}
		r, _ := watched(together(ls[bit%len(ls)], 3), s.hook)
		if r.Failure != nil || r.Finished != 3 {
			t.Fatalf("bit %d: %v, %d finished", bit, r.Failure, r.Finished)
		}
		seen += told(r, doubted)
	}
	if seen < 3*32 {
		t.Errorf("only %d doubts", seen)
	}
}

func TestANodeWhoseSumsFlipEveryTimeStopsTheRun(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		l := theLoads(t)[1]
		s := &spoiler{step: 11, rank: 1, times: math.MaxInt, bit: lowest}
		s.seen = func(l *life) { l.c.checks.flipped = &flip{who: l, what: "sums", at: l.last} }
		r, c := watched(together(l, nodes), s.hook)
		if r.Failure != nil || r.Finished != 0 || told(r, doubted) != 2*nodes {
			t.Fatalf("%v, %d finished\n%s", r.Failure, r.Finished, tail(r.Trace, 60))
		}
		for _, l := range c.lives {
			fatal := (*train.FatalError)(nil)
			if l.exit == nil || !errors.As(l.exit.Err, &fatal) || !strings.Contains(fatal.Error(), "3 times in a row: "+atFault) {
				t.Fatalf("%s ends with %+v", l.name(), l.exit)
			}
			for i := range nodes {
				if name := fmt.Sprintf("node-%d", i+1); !strings.Contains(fatal.Error(), name) {
					t.Errorf("%s is not among the members in: %v", name, fatal)
				}
			}
		}
	}
}

// TestWhoAloneIsInDoubtComesBackToTheOthers: a bit flips in what one rank knows of
// the total. It repeats alone; the others are a transition further, where they
// expect another repeat, or something else than sums.
func TestWhoAloneIsInDoubtComesBackToTheOthers(t *testing.T) {
	for _, l := range theLoads(t) {
		perEpoch := l.Task.StepsPerEpoch()
		steps := []uint64{2, perEpoch - 1, perEpoch, 3*perEpoch - 1}
		if l.Task.Job.EarlyStopping == nil {
			steps = append(steps, uint64(l.Task.Job.Epochs)*perEpoch-1)
		}
		for _, step := range steps {
			for rank := range 3 {
				o := together(l, 3)
				o.Gentle = false
				flipped := false
				r, c := watched(o, func(w *life, e any) {
					_, k := w.host.Node().View()
					if d, ok := e.(*reduced); ok && !flipped && k == rank && w.host.Node().State().Step == step && d.total != 0 {
						d.total ^= 1
						flipped = true
					}
				})
				if n := told(r, doubted); r.Failure != nil || r.Finished != 3 || n != 1 || c.lives[0].gen < 2 {
					t.Fatalf("%s, rank %d at step %d: %v, %d finished in generation %d, told %d times\n%s",
						l.Name, rank, step, r.Failure, r.Finished, c.lives[0].gen, n, tail(r.Trace, 80))
				}
			}
		}
	}
}
