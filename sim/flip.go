package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/train"
)

// flip is one bit that flips in the memory of a node, or in the gradients that it
// computes: the only fault that may end the life of a node, or, where nobody can know
// who is right, the run.
type flip struct {
	who       *life
	what      string
	at        uint64 // transition of its state
	undecided bool   // somebody has said that nobody can know

	gradient     bool // its gradients are wrong from then on
	element, bit int  // there
	once         bool // one is, where that shows
	spent        bool // that one has been
	named        bool // everybody knows which node it is
	back         bool // somebody has gone back to a state before
	cured        bool // likewise, and goes on without that node
}

// covers tells that a life may have another state than others because of the flip:
// the one whose memory it is. A wrong gradient is in the states of all, until they
// have gone back.
func (f *flip) covers(l *life) bool {
	if f == nil || !f.gradient {
		return f != nil && l == f.who
	}
	return !l.clean
}

// recalled tells that lives may go back.
func (f *flip) recalled() bool { return f != nil && f.back }

// isCured tells that states which are made from now on are right.
func (f *flip) isCured() bool { return f != nil && f.cured }

// mustStay tells that a life is the one that others have to find out about first.
func (f *flip) mustStay(l *life) bool { return f != nil && !f.named && l == f.who }

// told hears what lives tell.
func (f *flip) told(e train.Event) {
	switch {
	case f == nil:
	case e.Kind == "fault" && e.Node == f.who.id:
		f.named = true
	case e.Kind == "recall":
		f.back = true
		f.cured = f.cured || f.named || !f.who.alive
	}
}

// spoilGradient flips the bit of a gradient that a life computes.
func (l *life) spoilGradient(a *train.Attempt, microbatch, lo int, grads []float32) {
	f := l.c.checks.flipped
	if f == nil || !f.gradient || f.who != l || l.last < f.at {
		return
	}
	i := f.element - lo
	if i < 0 || i >= len(grads) {
		return
	}
	wrong := math.Float32frombits(math.Float32bits(grads[i]) ^ 1<<f.bit)
	if f.once && (f.spent || !slices.Contains(a.Probes, microbatch) && l.fits(a, f.element, wrong)) {
		return
	}
	f.spent = true
	l.logf("element %d of the gradient of microbatch %d, %v, is computed as %v", f.element, microbatch, grads[i], wrong)
	grads[i] = wrong
}

// fits tells that an element of a gradient fits its grid in an attempt. One that is wrong
// once and does so shows nowhere but where it is probed.
func (l *life) fits(a *train.Attempt, element int, g float32) bool {
	for i, t := range l.task.Model.Tensors() {
		if element >= t.Off && element < t.Off+t.Len {
			field := math.Float32bits(g) >> 23 & 0xff
			return field != 0xff && int(field)-126 <= int(a.Grad[i])
		}
	}
	return true
}

// returns has a node start anew whose life was expelled, as its process does.
func (c *Cluster) returns(l *life) {
	if !train.Returns(l.exit.Err, l.returns) {
		return
	}
	c.returning++
	c.after(c.between(50*time.Millisecond, 500*time.Millisecond), func() {
		c.returning--
		if c.of(l.id) == nil {
			c.boot(l.id, 0).returns = l.returns + 1
		}
	})
}

// flipState flips a bit of a node's state.
func (c *Cluster) flipState(l *life) {
	kinds := len(l.host.Node().State().Slots()) + 5
	kind := c.rnd.IntN(kinds)
	if c.opt.Disturbed && c.chance(0.7) {
		kind = kinds - 2 // gradients: only these are gone back from
	}
	c.flipAt(l, kind)
}

// flipAt flips a bit of a kind of place: parameters, one of the slots, exponents, sums
// of metrics, gradients, one gradient.
func (c *Cluster) flipAt(l *life, i int) {
	s := l.host.Node().State()
	vectors := append([][]float32{s.Params()}, s.Slots()...)
	f := &flip{who: l, at: s.Transition}
	switch i - len(vectors) {
	case 0:
		k := c.rnd.IntN(len(s.GradExps))
		s.GradExps[k] ^= 1 << c.rnd.IntN(5)
		f.what = fmt.Sprintf("exponent %d", k)
	case 1:
		k := c.rnd.IntN(len(s.Running))
		s.Running[k] = train.Number(math.Float64frombits(math.Float64bits(float64(s.Running[k])) ^ 1<<c.rnd.IntN(62)))
		f.what = fmt.Sprintf("sum %d", k)
	case 2, 3:
		f.gradient, f.once = true, i-len(vectors) == 3
		f.element, f.bit = c.rnd.IntN(len(s.Params())), c.rnd.IntN(32)
		f.what = fmt.Sprintf("bit %d of element %d of %s", f.bit, f.element, map[bool]string{false: "all gradients", true: "a gradient"}[f.once])
	default:
		v := vectors[i]
		k := c.rnd.IntN(len(v))
		v[k] = math.Float32frombits(math.Float32bits(v[k]) ^ 1<<c.rnd.IntN(31))
		f.what = fmt.Sprintf("vector %d, element %d", i, k)
	}
	c.checks.flipped = f
	l.logf("a bit flips in its memory: %s", f.what)
}

// explains accepts the error that names the node, if it is its own, or that says why
// none is named.
func (f *flip) explains(l *life, err error) bool {
	text := err.Error()
	if strings.Contains(text, "nobody can know who is right") {
		f.undecided = true
		return true
	}
	return l == f.who && (f.gradient && strings.Contains(text, "is expelled: "+f.who.id+" compute") || strings.Contains(text, "the state of "+f.who.id+" differs from")) ||
		f.what == "sums" && strings.Contains(text, "the ranks' sums and the ring's total differ")
}

// verdict: what disks hold is right. It reports whether the run was stopped.
func (f *flip) verdict(k *checks) (stopped bool) {
	for _, l := range k.ended {
		f.onDisk(k, l)
	}
	return f.undecided || f.what == "sums"
}

// onDisk: whatever a disk holds is what one node alone has at its transition.
func (f *flip) onDisk(k *checks, l *life) {
	if l.disk.rotten || l.store == nil {
		return
	}
	store, err := checkpoint.Open(l.disk.Process(), storeDir)
	if err != nil {
		k.fail("flip", "%s: %v", l.name(), err)
	}
	s, err := train.LoadState(l.task, store, func(train.Event) {})
	if err != nil {
		k.fail("flip", "%s: %v", l.name(), err)
	}
	if want, ok := k.c.load.sketches()[s.Transition]; ok && sketch(s) != want {
		k.fail("flip", "a bit flipped in %s (%s), and the disk of %s has another state at transition %d", f.who.name(), f.what, l.id, s.Transition)
	}
}

// flipSum has a bit flip in the next sums of a node, on their way into the ring.
func (c *Cluster) flipSum() {
	if l := c.victim(); l != nil {
		l.spoils = true
	}
}

// spoil flips the bit. A transition is spoiled once: if its sums were wrong three
// times in a row, the run would rightly stop.
func (l *life) spoil(vec []float64) {
	t := l.host.Node().State().Transition
	if !l.spoils || len(vec) == 0 || l.c.spoiled[t] {
		return
	}
	if l.c.spoiled == nil {
		l.c.spoiled = map[uint64]bool{}
	}
	l.spoils, l.c.spoiled[t] = false, true
	i, bit := l.c.rnd.IntN(len(vec)), l.c.rnd.IntN(64)
	l.logf("bit %d of sum %d, %v, flips", bit, i, vec[i])
	flipBit(vec, i, bit)
}

func flipBit(v []float64, i, bit int) {
	v[i] = math.Float64frombits(math.Float64bits(v[i]) ^ 1<<bit)
}

// planFlip has a bit flip at some time, or in a donor when it is asked for its
// state. A flip that nobody can see is not planned: there must be others that
// hold the same state.
func (c *Cluster) planFlip() {
	c.flipDonor = c.chance(0.3)
	c.after(c.between(c.opt.Faults.First, c.opt.Faults.Last), func() {
		c.flipNow = true
		if l := c.victim(); l != nil && !c.flipDonor {
			c.flipIn(l)
		}
	})
}

// flipIn flips a bit of a node's state if it is time and others will see it.
func (c *Cluster) flipIn(l *life) {
	if !c.flipNow || c.checks.flipped != nil || c.replicas(l) < 3 {
		return
	}
	c.flipState(l)
	for _, strike := range c.afterFlip {
		c.after(c.between(0, 1500*time.Millisecond), func() {
			if !c.calm {
				strike(c)
			}
		})
	}
}

// replicas counts the members of a node's view that have gone its way.
func (c *Cluster) replicas(l *life) (n int) {
	v, _ := l.host.Node().View()
	for _, o := range c.living() {
		w, _ := o.host.Node().View()
		if v != nil && w != nil && w.Name() == v.Name() && !o.fetching && !o.leaving {
			n++
		}
	}
	return n
}
