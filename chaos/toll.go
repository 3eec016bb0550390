package chaos

import (
	"math/rand/v2"
	"sync"
	"time"
)

// toll is what delay and loss come to while faults last.
type toll struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	now   map[int]Fault // by their number
	delay time.Duration
	loss  float64
}

func newToll(seed uint64) *toll {
	return &toll{rnd: rand.New(rand.NewPCG(seed, 0x70119a7e)), now: map[int]Fault{}}
}

func (t *toll) add(f Fault) (lift func() (left int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now[f.N] = f
	t.sum()
	return func() int {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.now, f.N)
		t.sum()
		return len(t.now)
	}
}

func (t *toll) sum() {
	t.delay, t.loss = 0, 0
	for _, f := range t.now {
		switch f.Kind {
		case Delay:
			t.delay += time.Duration(f.Amount * float64(time.Millisecond))
		case Loss:
			t.loss = 1 - (1-t.loss)*(1-f.Amount)
		}
	}
}

// pass says for how long a packet is held, or that it is lost.
func (t *toll) pass() (hold time.Duration, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.loss > 0 && t.rnd.Float64() < t.loss {
		return 0, true
	}
	return t.delay, false
}
