package nn

import "slices"

// chain is a sequence of operations: the model itself, or a branch in it.
type chain struct {
	plans  []plan
	grads  []int // what each of them has of gradients at once, in values of one sample
	first  int   // the first plan that learns: backward ends there; -1: none so far
	inside bool  // something before the chain learns, so its input's gradient is wanted
}

// newChain returns a chain without operations.
func newChain(inside bool) *chain { return &chain{first: -1, inside: inside} }

// wants tells whether the gradient behind the last plan so far is wanted.
func (c *chain) wants() bool { return c.inside || c.first >= 0 }

// widest is the most that an operation has of gradients at once.
func (c *chain) widest() int { return slices.Max(append(c.grads, 0)) }

// bindTo gives the operations their memory.
func (c *chain) bindTo(mem *arena, maxBatch int) *chainOp {
	o := &chainOp{first: c.first, ops: make([]op, len(c.plans))}
	if c.inside {
		o.first = 0
	}
	for i, p := range c.plans {
		o.ops[i] = p.bind(mem, maxBatch)
	}
	return o
}

// chainOp is a chain at work.
type chainOp struct {
	ops   []op
	first int // -1: backward has nothing to do
}

// climb takes samples through the chain; nil where that was cancelled.
func (c *chainOp) climb(w *Workspace, x []float32) []float32 {
	for _, o := range c.ops {
		if w.cancelled() {
			return nil
		}
		x = o.forward(w, x)
	}
	if w.aborted {
		return nil
	}
	return x
}

// descend takes the gradient from behind op top down to where it is wanted.
func (c *chainOp) descend(w *Workspace, d []float32, top int) []float32 {
	if c.first < 0 {
		return nil
	}
	for i := top; i >= c.first; i-- {
		if w.cancelled() {
			return nil
		}
		d = c.ops[i].backward(w, d)
	}
	return d
}
