package nn

import (
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/rng"
)

// recurrent is what lstm and gru have in common. Inside, time comes first: the
// rows of step s of all samples lie together.
//
//	x [n, t·d]   xs [t, n, d]   h [1+t, n, u], h[0] = 0   y [n, t·u] or [n, u]
//
// What does not depend on the step before is one product over several steps, a
// block of them: few enough that the gates of a block stay in a cache while the
// steps pass over them one by one, enough that no product is small.
//
//	forward    block by block:  z = x·W + b     then in each step  z += h·U, gates
//	backward   from the last:   in each step  gates, dh = dz·Uᵀ, dx = dz·Wᵀ
//	                            then dW += xᵀ·dz, dU += hᵀ·dz, db += Σ dz
//
// So a gradient of weights is a sum over blocks from the last to the first, and over
// steps and samples in their order in each.
type recurrent struct {
	t, d, u, gates int
	kernel, recur  Tensor // W [d, gates·u] and U [u, gates·u]
	bias           Tensor // Len 0: there is none
	sequences      bool   // y is h of every step, not of the last
	reverse        bool   // from the end of time to its beginning
	slot           int    // of the mask; -1: none
	inner, frozen  bool
	in, carry      dropout // of x and of h; width 0: none

	xs, h, y []float32
	dropped  []float32 // h as it goes into the products; h itself without dropout
	mask     []float32 // [n, t], nil where all is there
	dh       []float32 // [n, u], on its way back in time
	down     []float32 // [n, u], what the step before gets by the product; with dropout
	wT, uT   []float32 // W and U transposed, for the time of a backward
	span     int       // steps in a block
}

// blockRows is how many rows a block of steps has at most, if it has more steps than
// one: their gates take 512 KiB with 128 units.
const blockRows = 256

// bindTo takes the memory that both have.
func (r *recurrent) bindTo(mem *arena, maxBatch int) {
	r.xs = mem.take(maxBatch * r.t * r.d)
	r.h = mem.take(maxBatch * (r.t + 1) * r.u)
	steps := 1
	if r.sequences {
		steps = r.t
	}
	r.y = mem.take(maxBatch * steps * r.u)
	r.dh = mem.take(maxBatch * r.u)
	if r.in.width > 0 {
		r.in.mask = mem.take(maxBatch * r.d)
	}
	if r.carry.width > 0 {
		r.carry.mask = mem.take(maxBatch * r.u)
		r.dropped = mem.take(maxBatch * r.t * r.u)
		r.down = mem.take(maxBatch * r.u)
	}
	mem.share(r.kernel.Len + r.recur.Len)
}

// begin draws what is dropped, and sets h[0].
func (r *recurrent) begin(w *Workspace) {
	if r.slot >= 0 {
		r.mask = w.masks[r.slot]
	}
	r.in.begin(w)
	r.carry.begin(w)
	r.span = max(1, blockRows/w.n)
	clear(r.h[:w.n*r.u])
}

// begin draws the masks of a batch, where there is something to draw.
func (d *dropout) begin(w *Workspace) {
	d.active = w.train && d.width > 0
	if !d.active {
		return
	}
	for i := range w.n {
		d.draw(rng.New(w.key.Seed, rng.Dropout, w.key.Step, w.ids[i], d.layer), row(d.mask, i, d.width))
	}
}

// time is the place in the sequence that step s looks at.
func (r *recurrent) time(s int) int {
	if r.reverse {
		return r.t - 1 - s
	}
	return s
}

// there tells whether step s of sample i is no padding.
func (r *recurrent) there(s, i int) bool {
	return r.mask == nil || r.mask[i*r.t+r.time(s)] != 0
}

// run returns the end of the samples from i on that are all there in step s, or all
// padding, and which of both.
func (r *recurrent) run(w *Workspace, s, i int) (end int, there bool) {
	if r.mask == nil {
		return w.n, true
	}
	there = r.there(s, i)
	for end = i + 1; end < w.n && r.there(s, end) == there; end++ {
	}
	return end, there
}

// rows cuts rows lo to hi out of x [rows, width].
func rows(x []float32, lo, hi, width int) []float32 { return x[lo*width : hi*width : hi*width] }

// step cuts step s out of x [steps, n, width].
func step(w *Workspace, x []float32, s, width int) []float32 {
	return rows(x, s*w.n, (s+1)*w.n, width)
}

// inputs computes y = x·W + bias for the steps from lo to hi, and keeps xs.
func (r *recurrent) inputs(w *Workspace, x, bias, y []float32, lo, hi int) {
	for s := lo; s < hi; s++ {
		for i := range w.n {
			dst := row(r.xs, s*w.n+i, r.d)
			copy(dst, row(x, i*r.t+r.time(s), r.d))
			if r.in.active {
				multiply(dst, dst, row(r.in.mask, i, r.d))
			}
		}
	}
	m, width := (hi-lo)*w.n, r.gates*r.u
	kernel.Affine(&w.scratch, m, width, r.d, r.xs[lo*w.n*r.d:], r.kernel.of(w.params), bias, y[lo*w.n*width:], false)
}

// before returns h of the step before s, as it goes into the product.
func (r *recurrent) before(w *Workspace, s int) []float32 {
	h := step(w, r.h, s, r.u)
	if !r.carry.active {
		return h
	}
	return multiply(step(w, r.dropped, s, r.u), h, r.carry.mask)
}

// emit copies h of step s to where the output has it.
func (r *recurrent) emit(w *Workspace, s int) {
	h := step(w, r.h, s+1, r.u)
	if !r.sequences {
		if s == r.t-1 {
			copy(r.y, h)
		}
		return
	}
	for i := range w.n {
		copy(row(r.y, i*r.t+r.time(s), r.u), row(h, i, r.u))
	}
}

// output is what has been emitted.
func (r *recurrent) output(w *Workspace) []float32 {
	if !r.sequences {
		return r.y[:w.n*r.u]
	}
	return r.y[:w.n*r.t*r.u]
}

// beginBack sets dh to the gradient of the last h, without what its output got, and
// transposes the weights: they are read in every step.
func (r *recurrent) beginBack(w *Workspace, dy []float32) {
	dh, width := r.dh[:w.n*r.u], r.gates*r.u
	if r.sequences {
		clear(dh)
	} else {
		copy(dh, dy)
	}
	r.uT, r.wT = w.work[:r.recur.Len], w.work[r.recur.Len:][:r.kernel.Len]
	kernel.Transpose(r.uT, r.recur.of(w.params), width)
	if r.inner {
		kernel.Transpose(r.wT, r.kernel.of(w.params), width)
	}
}

// stepBack adds to dh what the output of step s got.
func (r *recurrent) stepBack(w *Workspace, dy []float32, s int) {
	if !r.sequences {
		return
	}
	for i := range w.n {
		addTo(row(r.dh, i, r.u), row(dy, i*r.t+r.time(s), r.u))
	}
}

// product adds dz·Uᵀ to dh for cols columns of dz and U from the column from on; dz
// [n, ...] holds them alone, or, with from 0, lies in rows of stride.
func (r *recurrent) product(w *Workspace, dz []float32, stride, from, cols int) {
	to := r.dh[:w.n*r.u]
	if r.carry.active {
		to = r.down[:w.n*r.u]
	}
	again := from > 0 || !r.carry.active
	kernel.Gemm(&w.scratch, false, false, w.n, r.u, cols, dz, stride, r.uT[from*r.u:], r.u, to, r.u, again)
	if r.carry.active && from+cols == r.gates*r.u {
		addTo(r.dh[:len(to)], multiply(to, to, r.carry.mask))
	}
}

// inputBack writes dx of step s from dz, the gradient at x·W + b, if somebody wants it.
func (r *recurrent) inputBack(w *Workspace, dz, dx []float32, s int) {
	if !r.inner {
		return
	}
	at, width := r.time(s)*r.d, r.gates*r.u
	kernel.Gemm(&w.scratch, false, false, w.n, r.d, width, dz, width, r.wT, r.d, dx[at:], r.t*r.d, false)
	if !r.in.active {
		return
	}
	for i := range w.n {
		to := dx[i*r.t*r.d+at:][:r.d]
		multiply(to, to, row(r.in.mask, i, r.d))
	}
}

// inputGrad returns the window for dx, nil if nobody wants it.
func (r *recurrent) inputGrad(w *Workspace) []float32 {
	if !r.inner {
		return nil
	}
	return w.otherGrad(w.n * r.t * r.d)
}

// sums adds to the gradients of U, columns from to from+cols, what the steps from lo
// to hi give, of which dz holds rows of stride.
func (r *recurrent) sums(w *Workspace, dz []float32, stride, from, cols, lo, hi int) {
	h := r.h
	if r.carry.active {
		h = r.dropped
	}
	kernel.Gemm(&w.scratch, true, false, r.u, cols, (hi-lo)*w.n, h[lo*w.n*r.u:], r.u, dz[lo*w.n*stride:], stride,
		r.recur.of(w.grads)[from:], r.gates*r.u, hi < r.t)
}

// inputSums adds to the gradients of W and of the bias on x·W what the steps from lo
// to hi give.
func (r *recurrent) inputSums(w *Workspace, dz []float32, lo, hi int) {
	width := r.gates * r.u
	dz = rows(dz, lo*w.n, hi*w.n, width)
	kernel.GemmTN(&w.scratch, r.d, width, (hi-lo)*w.n, r.xs[lo*w.n*r.d:], dz, r.kernel.of(w.grads), hi < r.t)
	if r.bias.Len > 0 {
		kernel.SumRows(r.bias.of(w.grads)[:width], dz, hi < r.t)
	}
}

// lstm: see [LSTM]. A gate's sum is one chain over x, then the bias, then the
// chain goes on over h.
//
//	z [t, n, 4u] i, f, g, o; in backward their gradients before σ and tanh
//	c [1+t, n, u], c[0] = 0   tc [t, n, u] tanh of c
type lstm struct {
	recurrent

	z, c, tc []float32
	dc       []float32 // [n, u], on its way back in time
}

func (l lstm) bind(mem *arena, maxBatch int) op {
	l.bindTo(mem, maxBatch)
	l.z = mem.take(maxBatch * l.t * 4 * l.u)
	l.c, l.tc = mem.take(maxBatch*(l.t+1)*l.u), mem.take(maxBatch*l.t*l.u)
	l.dc = mem.take(maxBatch * l.u)
	return &l
}

func (l *lstm) forward(w *Workspace, x []float32) []float32 {
	l.begin(w)
	clear(l.c[:w.n*l.u])
	for s := range l.t {
		if w.cancelled() {
			return nil
		}
		if s%l.span == 0 {
			l.inputs(w, x, l.bias.orNil(w.params), l.z, s, min(s+l.span, l.t))
		}
		kernel.GemmNN(&w.scratch, w.n, 4*l.u, l.u, l.before(w, s), l.recur.of(w.params), step(w, l.z, s, 4*l.u), true)
		for i := 0; i < w.n; {
			end, there := l.run(w, s, i)
			l.cells(s*w.n+i, s*w.n+end, w.n, there)
			i = end
		}
		l.emit(w, s)
	}
	return l.output(w)
}

// cells makes rows lo to hi of c and h, from those n rows before.
func (l *lstm) cells(lo, hi, n int, there bool) {
	u := l.u
	c0, c1, h1 := rows(l.c, lo, hi, u), rows(l.c, lo+n, hi+n, u), rows(l.h, lo+n, hi+n, u)
	if !there {
		copy(c1, c0)
		copy(h1, rows(l.h, lo, hi, u))
		return
	}
	kernel.LSTMForward(u, rows(l.z, lo, hi, 4*u), c0, c1, rows(l.tc, lo, hi, u), h1)
}

func (l *lstm) backward(w *Workspace, dy []float32) []float32 {
	dx := l.inputGrad(w)
	l.beginBack(w, dy)
	clear(l.dc[:w.n*l.u])
	for s := l.t - 1; s >= 0; s-- {
		if w.cancelled() {
			return nil
		}
		l.stepBack(w, dy, s)
		for i := 0; i < w.n; {
			end, there := l.run(w, s, i)
			l.cellsBack(w, s, i, end, there)
			i = end
		}
		dz := step(w, l.z, s, 4*l.u)
		l.inputBack(w, dz, dx, s)
		if s > 0 {
			l.product(w, dz, 4*l.u, 0, 4*l.u)
		}
		if s%l.span == 0 && !l.frozen {
			hi := min(s+l.span, l.t)
			l.inputSums(w, l.z, s, hi)
			l.sums(w, l.z, 4*l.u, 0, 4*l.u, s, hi)
		}
	}
	if !l.frozen {
		w.final(l.kernel)
	}
	return dx
}

// cellsBack turns the gates of samples i to end in step s into their gradients, dc
// into that of the step before, and leaves dh ready for the product.
func (l *lstm) cellsBack(w *Workspace, s, i, end int, there bool) {
	lo, hi, u := s*w.n+i, s*w.n+end, l.u
	z := rows(l.z, lo, hi, 4*u)
	if !there {
		clear(z) // dh and dc go on as they are
		return
	}
	dh := rows(l.dh, i, end, u)
	kernel.LSTMBackward(u, z, rows(l.c, lo, hi, u), rows(l.tc, lo, hi, u), dh, rows(l.dc, i, end, u))
	clear(dh)
}

// gru: see [GRU]. What goes into update and reset is one chain over x, then both
// biases together, then over h; what the candidate gets from h is a chain of its own
// that begins with its bias.
//
//	a [t, n, 3u] z, r, g; in backward the gradients at their sums
//	b [t, n, u] of the candidate from h, then its gradient
//	both [3u] the biases that are added to x·W
type gru struct {
	recurrent

	a, b, both []float32
}

func (g gru) bind(mem *arena, maxBatch int) op {
	g.bindTo(mem, maxBatch)
	g.a, g.b = mem.take(maxBatch*g.t*3*g.u), mem.take(maxBatch*g.t*g.u)
	if g.bias.Len > 0 {
		g.both = mem.take(3 * g.u)
	}
	return &g
}

func (g *gru) forward(w *Workspace, x []float32) []float32 {
	g.begin(w)
	u, recur := g.u, g.recur.of(w.params)
	last := g.biases(w)
	for s := range g.t {
		if w.cancelled() {
			return nil
		}
		if s%g.span == 0 {
			g.inputs(w, x, g.both, g.a, s, min(s+g.span, g.t))
		}
		a, b, h := step(w, g.a, s, 3*u), step(w, g.b, s, u), g.before(w, s)
		kernel.Gemm(&w.scratch, false, false, w.n, 2*u, u, h, u, recur, 3*u, a, 3*u, true)
		for i := 0; last != nil && i < w.n; i++ {
			copy(row(b, i, u), last)
		}
		kernel.Gemm(&w.scratch, false, false, w.n, u, u, h, u, recur[2*u:], 3*u, b, u, last != nil)
		for i := 0; i < w.n; {
			end, there := g.run(w, s, i)
			g.cells(s*w.n+i, s*w.n+end, w.n, there)
			i = end
		}
		g.emit(w, s)
	}
	return g.output(w)
}

// biases joins those on x with those on h, but for the candidate's on h, which it
// returns.
func (g *gru) biases(w *Workspace) (last []float32) {
	if g.bias.Len == 0 {
		return nil
	}
	b, u := g.bias.of(w.params), g.u
	copy(g.both, b[:3*u])
	addTo(g.both[:2*u], b[3*u:])
	return b[5*u:]
}

// cells makes rows lo to hi of h, from those n rows before.
func (g *gru) cells(lo, hi, n int, there bool) {
	u := g.u
	h0, h1 := rows(g.h, lo, hi, u), rows(g.h, lo+n, hi+n, u)
	if !there {
		copy(h1, h0)
		return
	}
	kernel.GRUForward(u, rows(g.a, lo, hi, 3*u), rows(g.b, lo, hi, u), h0, h1)
}

func (g *gru) backward(w *Workspace, dy []float32) []float32 {
	dx, u := g.inputGrad(w), g.u
	g.beginBack(w, dy)
	for s := g.t - 1; s >= 0; s-- {
		if w.cancelled() {
			return nil
		}
		g.stepBack(w, dy, s)
		for i := 0; i < w.n; {
			end, there := g.run(w, s, i)
			g.cellsBack(w, s, i, end, there)
			i = end
		}
		a := step(w, g.a, s, 3*u)
		g.inputBack(w, a, dx, s)
		if s > 0 {
			g.product(w, a, 3*u, 0, 2*u)
			g.product(w, step(w, g.b, s, u), u, 2*u, u)
		}
		if s%g.span == 0 && !g.frozen {
			g.weights(w, s, min(s+g.span, g.t))
		}
	}
	if !g.frozen {
		w.final(g.kernel)
	}
	return dx
}

// weights adds to the gradients of all weights what the steps from lo to hi give.
func (g *gru) weights(w *Workspace, lo, hi int) {
	u := g.u
	g.inputSums(w, g.a, lo, hi)
	g.sums(w, g.a, 3*u, 0, 2*u, lo, hi)
	g.sums(w, g.b, u, 2*u, u, lo, hi)
	if g.bias.Len > 0 {
		db := g.bias.of(w.grads)
		copy(db[3*u:5*u], db[:2*u])
		kernel.SumRows(db[5*u:], rows(g.b, lo*w.n, hi*w.n, u), hi < g.t)
	}
}

// cellsBack turns a and b of samples i to end in step s into the gradients of the
// sums, and dh into what goes to the step before but for the product.
func (g *gru) cellsBack(w *Workspace, s, i, end int, there bool) {
	lo, hi, u := s*w.n+i, s*w.n+end, g.u
	a, b := rows(g.a, lo, hi, 3*u), rows(g.b, lo, hi, u)
	if !there {
		clear(a)
		clear(b)
		return
	}
	kernel.GRUBackward(u, a, b, rows(g.h, lo, hi, u), rows(g.dh, i, end, u))
}
