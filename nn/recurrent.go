package nn

import (
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/rng"
)

// recurrent is what lstm and gru have in common. Inside, time comes first: the
// rows of step s of all samples lie together, so that what does not depend on
// the step before is one product over all steps.
//
//	x [n, t·d]   xs [t, n, d]   h [1+t, n, u], h[0] = 0   y [n, t·u] or [n, u]
type recurrent struct {
	t, d, u, gates int
	kernel, recur  Tensor // [d, gates·u] and [u, gates·u]
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
	down     []float32 // [n, u], what the step before gets by the product
}

// bindTo takes the memory that both have.
func (r *recurrent) bindTo(mem *arena, maxBatch int) {
	r.xs = mem.take(maxBatch * r.t * r.d)
	r.h = mem.take(maxBatch * (r.t + 1) * r.u)
	steps := 1
	if r.sequences {
		steps = r.t
	}
	r.y = mem.take(maxBatch * steps * r.u)
	r.dh, r.down = mem.take(maxBatch*r.u), mem.take(maxBatch*r.u)
	if r.in.width > 0 {
		r.in.mask = mem.take(maxBatch * r.d)
	}
	if r.carry.width > 0 {
		r.carry.mask = mem.take(maxBatch * r.u)
		r.dropped = mem.take(maxBatch * r.t * r.u)
	}
	if r.inner {
		mem.share(maxBatch * r.t * r.d)
	}
}

// begin draws what is dropped and turns samples into steps.
func (r *recurrent) begin(w *Workspace, x []float32) {
	r.mask = nil
	if r.slot >= 0 {
		r.mask = w.masks[r.slot]
	}
	r.in.begin(w)
	r.carry.begin(w)
	clear(r.h[:w.n*r.u])
	for s := range r.t {
		for i := range w.n {
			dst := row(r.xs, s*w.n+i, r.d)
			copy(dst, row(x, i*r.t+r.time(s), r.d))
			if r.in.active {
				multiply(dst, dst, row(r.in.mask, i, r.d))
			}
		}
	}
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

// step cuts step s out of x [steps, n, width].
func step(w *Workspace, x []float32, s, width int) []float32 {
	return x[s*w.n*width : (s+1)*w.n*width : (s+1)*w.n*width]
}

// before returns h of the step before s, as it goes into the product.
func (r *recurrent) before(w *Workspace, s int) []float32 {
	h := step(w, r.h, s, r.u)
	if !r.carry.active {
		return h
	}
	return multiply(step(w, r.dropped, s, r.u), h, r.carry.mask)
}

// end gathers the output.
func (r *recurrent) end(w *Workspace) []float32 {
	if !r.sequences {
		return append(r.y[:0], step(w, r.h, r.t, r.u)...)
	}
	for s := range r.t {
		for i := range w.n {
			copy(row(r.y, i*r.t+r.time(s), r.u), row(r.h, (s+1)*w.n+i, r.u))
		}
	}
	return r.y[:w.n*r.t*r.u]
}

// beginBack sets dh to the gradient of the last h, without what its output got.
func (r *recurrent) beginBack(w *Workspace, dy []float32) {
	if r.sequences {
		clear(r.dh[:w.n*r.u])
		return
	}
	copy(r.dh, dy)
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

// throughProduct computes down = dz·Uᵀ for step s.
func (r *recurrent) throughProduct(w *Workspace, dz []float32) []float32 {
	down := r.down[:w.n*r.u]
	kernel.GemmNT(&w.scratch, w.n, r.u, r.gates*r.u, dz, r.recur.of(w.params), down, false)
	if r.carry.active {
		multiply(down, down, r.carry.mask)
	}
	return down
}

// endBack computes the gradients that are one product over all steps: dx from
// da, that of x·W + b, and the weights' from da and from dz, that of h·U.
func (r *recurrent) endBack(w *Workspace, da, dz []float32) []float32 {
	rows, width := r.t*w.n, r.gates*r.u
	if !r.frozen {
		h := r.h
		if r.carry.active {
			h = r.dropped
		}
		kernel.GemmTN(&w.scratch, r.d, width, rows, r.xs, da, r.kernel.of(w.grads), false)
		kernel.GemmTN(&w.scratch, r.u, width, rows, h, dz, r.recur.of(w.grads), false)
		if r.bias.Len > 0 {
			b := r.bias.of(w.grads)
			kernel.SumRows(b[:width], da, false)
			if len(b) > width {
				kernel.SumRows(b[width:], dz, false)
			}
		}
		w.final(r.kernel)
	}
	if !r.inner {
		return nil
	}
	dx, dxs := w.otherGrad(w.n*r.t*r.d), w.work[:rows*r.d]
	kernel.GemmNT(&w.scratch, rows, r.d, width, da, r.kernel.of(w.params), dxs, false)
	for s := range r.t {
		for i := range w.n {
			dst := row(dx, i*r.t+r.time(s), r.d)
			copy(dst, row(dxs, s*w.n+i, r.d))
			if r.in.active {
				multiply(dst, dst, row(r.in.mask, i, r.d))
			}
		}
	}
	return dx
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
	l.begin(w, x)
	z := l.z[:l.t*w.n*4*l.u]
	kernel.GemmNN(&w.scratch, l.t*w.n, 4*l.u, l.d, l.xs, l.kernel.of(w.params), z, false)
	if l.bias.Len > 0 {
		kernel.AddBias(z, l.bias.of(w.params))
	}
	clear(l.c[:w.n*l.u])
	for s := range l.t {
		if w.cancelled() {
			return nil
		}
		kernel.GemmNN(&w.scratch, w.n, 4*l.u, l.u, l.before(w, s), l.recur.of(w.params), step(w, z, s, 4*l.u), true)
		for i := range w.n {
			l.cell(w, s, i)
		}
	}
	return l.end(w)
}

// cell makes h and c of step s of sample i.
func (l *lstm) cell(w *Workspace, s, i int) {
	at, u := s*w.n+i, l.u
	c0, c1, h1 := row(l.c, at, u), row(l.c, at+w.n, u), row(l.h, at+w.n, u)
	if !l.there(s, i) {
		copy(c1, c0)
		copy(h1, row(l.h, at, u))
		return
	}
	z, tc := row(l.z, at, 4*u), row(l.tc, at, u)
	kernel.Sigmoid(z[:2*u], z[:2*u])
	kernel.Tanh(z[2*u:3*u], z[2*u:3*u])
	kernel.Sigmoid(z[3*u:], z[3*u:])
	in, forget, g, out := z[:u], z[u:2*u], z[2*u:3*u], z[3*u:4*u]
	for j := range c1 {
		c1[j] = float32(forget[j]*c0[j]) + float32(in[j]*g[j])
	}
	kernel.Tanh(tc, c1)
	multiply(h1, out, tc)
}

func (l *lstm) backward(w *Workspace, dy []float32) []float32 {
	l.beginBack(w, dy)
	clear(l.dc[:w.n*l.u])
	for s := l.t - 1; s >= 0; s-- {
		if w.cancelled() {
			return nil
		}
		l.stepBack(w, dy, s)
		for i := range w.n {
			l.cellBack(w, s, i)
		}
		if s == 0 {
			break
		}
		down := l.throughProduct(w, step(w, l.z, s, 4*l.u))
		for i := range w.n {
			if l.there(s, i) {
				copy(row(l.dh, i, l.u), row(down, i, l.u))
			}
		}
	}
	z := l.z[:l.t*w.n*4*l.u]
	return l.endBack(w, z, z)
}

// cellBack turns the gates of step s of sample i into their gradients, and dc
// into that of the step before.
func (l *lstm) cellBack(w *Workspace, s, i int) {
	at, u := s*w.n+i, l.u
	z := row(l.z, at, 4*u)
	if !l.there(s, i) {
		clear(z) // dh and dc go on as they are
		return
	}
	in, forget, g, out := z[:u], z[u:2*u], z[2*u:3*u], z[3*u:4*u]
	dh, dc, tc, c0 := row(l.dh, i, u), row(l.dc, i, u), row(l.tc, at, u), row(l.c, at, u)
	for j := range dh {
		i, f, g0, o, t := in[j], forget[j], g[j], out[j], tc[j]
		d := dc[j] + float32(float32(dh[j]*o)*(1-float32(t*t)))
		out[j] = float32(float32(dh[j]*t) * float32(o*(1-o)))
		in[j] = float32(float32(d*g0) * float32(i*(1-i)))
		g[j] = float32(float32(d*i) * (1 - float32(g0*g0)))
		forget[j] = float32(float32(d*c0[j]) * float32(f*(1-f)))
		dc[j] = float32(d * f)
	}
}

// gru: see [GRU].
//
//	a, b [t, n, 3u]; a holds z, r and g after the step, in backward the gradients
//	of the sums; b the products with h, then their gradients
type gru struct {
	recurrent

	a, b []float32
}

func (g gru) bind(mem *arena, maxBatch int) op {
	g.bindTo(mem, maxBatch)
	g.a, g.b = mem.take(maxBatch*g.t*3*g.u), mem.take(maxBatch*g.t*3*g.u)
	return &g
}

func (g *gru) forward(w *Workspace, x []float32) []float32 {
	g.begin(w, x)
	a := g.a[:g.t*w.n*3*g.u]
	kernel.GemmNN(&w.scratch, g.t*w.n, 3*g.u, g.d, g.xs, g.kernel.of(w.params), a, false)
	if g.bias.Len > 0 {
		kernel.AddBias(a, g.bias.of(w.params)[:3*g.u])
	}
	for s := range g.t {
		if w.cancelled() {
			return nil
		}
		b := step(w, g.b, s, 3*g.u)
		kernel.GemmNN(&w.scratch, w.n, 3*g.u, g.u, g.before(w, s), g.recur.of(w.params), b, false)
		if g.bias.Len > 0 {
			kernel.AddBias(b, g.bias.of(w.params)[3*g.u:])
		}
		for i := range w.n {
			g.cell(w, s, i)
		}
	}
	return g.end(w)
}

// cell makes h of step s of sample i.
func (g *gru) cell(w *Workspace, s, i int) {
	at, u := s*w.n+i, g.u
	h0, h1 := row(g.h, at, u), row(g.h, at+w.n, u)
	if !g.there(s, i) {
		copy(h1, h0)
		return
	}
	a, b := row(g.a, at, 3*u), row(g.b, at, 3*u)
	addTo(a[:2*u], b[:2*u])
	kernel.Sigmoid(a[:2*u], a[:2*u])
	z, r, n, bh := a[:u], a[u:2*u], a[2*u:], b[2*u:]
	for j := range n {
		n[j] += float32(r[j] * bh[j])
	}
	kernel.Tanh(n, n)
	for j := range h1 {
		h1[j] = float32(z[j]*h0[j]) + float32((1-z[j])*n[j])
	}
}

func (g *gru) backward(w *Workspace, dy []float32) []float32 {
	g.beginBack(w, dy)
	for s := g.t - 1; s >= 0; s-- {
		if w.cancelled() {
			return nil
		}
		g.stepBack(w, dy, s)
		for i := range w.n {
			g.cellBack(w, s, i)
		}
		if s == 0 {
			break
		}
		down := g.throughProduct(w, step(w, g.b, s, 3*g.u))
		for i := range w.n {
			if g.there(s, i) {
				addTo(row(g.dh, i, g.u), row(down, i, g.u))
			}
		}
	}
	n := g.t * w.n * 3 * g.u
	return g.endBack(w, g.a[:n], g.b[:n])
}

// cellBack turns a and b of step s of sample i into the gradients of the sums,
// and dh into that of the step before, but for what comes by the product.
func (g *gru) cellBack(w *Workspace, s, i int) {
	at, u := s*w.n+i, g.u
	a, b := row(g.a, at, 3*u), row(g.b, at, 3*u)
	if !g.there(s, i) {
		clear(a)
		clear(b)
		return
	}
	z, r, n, bh := a[:u], a[u:2*u], a[2*u:], b[2*u:]
	dh, h0 := row(g.dh, i, u), row(g.h, at, u)
	for j, d := range dh {
		zj, rj, nj := z[j], r[j], n[j]
		dn := float32(float32(d*(1-zj)) * (1 - float32(nj*nj)))
		z[j] = float32(float32(d*(h0[j]-nj)) * float32(zj*(1-zj)))
		r[j] = float32(float32(dn*bh[j]) * float32(rj*(1-rj)))
		n[j] = dn
		bh[j] = float32(dn * rj)
		dh[j] = float32(d * zj)
	}
	copy(b[:2*u], a[:2*u])
}
