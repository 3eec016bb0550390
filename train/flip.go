package train

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// Flip is a bit that flips on purpose, so that tests of real processes see what
// becomes of it. It is no part of a program as it is built for use.
type Flip struct {
	What  string // one of flipPlaces
	Step  uint64 // in the state that so many steps lead to, or in the first after it that the life comes to
	Lives int    // in how many of the node's lives; 0 is the first alone
}

// flipPlaces is where a bit can flip.
var flipPlaces = []string{"parameter", "slot", "exponent", "metric", "gradient", "gradients"}

// ParseFlip reads "slot@20", or "slot@20x4" for four lives.
func ParseFlip(text string) (*Flip, error) {
	what, rest, _ := strings.Cut(text, "@")
	step, lives, many := strings.Cut(rest, "x")
	f := &Flip{What: what}
	var err error
	if f.Step, err = strconv.ParseUint(step, 10, 64); err == nil && many {
		f.Lives, err = strconv.Atoi(lives)
	}
	if err != nil || !slices.Contains(flipPlaces, what) {
		return nil, fmt.Errorf("a flip %q: want one of %s, like slot@20 or slot@20x4", text, strings.Join(flipPlaces, ", "))
	}
	return f, nil
}

// in tells that the bit flips in a node's life, of which there were so many before.
func (f *Flip) in(returns int) bool { return f != nil && returns < max(1, f.Lives) }

func (f *Flip) ofGradients() bool { return strings.HasPrefix(f.What, "gradient") }

// state flips the bit in a state.
func (f *Flip) state(s *State) {
	switch f.What {
	case "parameter":
		flipBit(s.params, len(s.params)/2)
	case "slot":
		flipBit(s.slots[len(s.slots)-1], len(s.params)/3)
	case "exponent":
		s.GradExps[len(s.GradExps)-1] ^= 1 << 3
	case "metric":
		s.Running[0] = Number(math.Float64frombits(math.Float64bits(float64(s.Running[0])) ^ 1<<40))
	}
}

// spoil flips the bit in gradients: in one of which the node tells a digest, or in all
// from that step on.
func (f *Flip) spoil(hit *atomic.Bool) Spoiler {
	return func(a *Attempt, microbatch, lo int, grads []float32) {
		if lo > 0 || a.Step < f.Step || f.What == "gradient" && (!slices.Contains(a.Probes, microbatch) || hit.Swap(true)) {
			return
		}
		flipBit(grads, 0)
	}
}

// flipBit flips a bit of the exponent of an element: it takes 4 for 1, or 1/4 for it.
func flipBit(v []float32, i int) { v[i] = math.Float32frombits(math.Float32bits(v[i]) ^ 1<<24) }
