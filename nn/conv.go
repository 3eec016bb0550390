package nn

import "github.com/dlnode/dlnode/internal/kernel"

// conv is a convolution and what follows it at once: the bias, relu, and a max
// pooling. It goes from sample to sample, so that what the convolution makes of
// one, which may be much more than what a pooling leaves of it, stays in the cache
// and is kept of no sample:
//
//	x_i ──conv, bias, relu──► scratch ──max──► y_i, from_i
//	dx_i ◄──dW += , db += ─── scratch ◄─────── dy_i where y_i > 0
//
// The bits are those of the three operations one by one: relu's mask of the value
// that a window has kept is that of the pooled one, and of the others nothing goes
// down.
//
//	x [n, H·W·C]   W [KH·KW·C, F]   b [F]   y [n, OH·OW·F], or as pool leaves it
type conv struct {
	shape  kernel.Conv
	relu   bool
	pool   *kernel.Pool // nil: none
	kernel Tensor
	bias   Tensor // Len 0: there is none
	inner  bool   // somebody wants dx
	frozen bool

	x, y []float32
	from []float32 // which value of its window each y is, with a pooling
}

// convOf is the convolution whose windows lie as those of a pooling. Windows of one
// pixel each make all pixels one row, which suits the kernels.
func convOf(g kernel.Pool, filters int) kernel.Conv {
	c := kernel.Conv{H: g.H, W: g.W, C: g.C, KH: g.KH, KW: g.KW, F: filters, SH: g.SH, SW: g.SW, Top: g.Top, Left: g.Left, OH: g.OH, OW: g.OW}
	if g.KH == 1 && g.KW == 1 && g.SH == 1 && g.SW == 1 {
		c.H, c.W, c.OH, c.OW = 1, g.H*g.W, 1, g.OH*g.OW
	}
	return c
}

// in, made and out are the values of a sample before the convolution, behind it,
// and behind all.
func (c *conv) in() int   { return c.shape.H * c.shape.W * c.shape.C }
func (c *conv) made() int { return c.shape.OH * c.shape.OW * c.shape.F }

func (c *conv) out() int {
	if c.pool != nil {
		return c.pool.OH * c.pool.OW * c.pool.C
	}
	return c.made()
}

// turned is where in the shared memory the weights lie for the input's gradient.
func (c *conv) turned() int {
	if c.pool == nil {
		return 0
	}
	return lines(c.made())
}

func (c conv) bind(mem *arena, maxBatch int) op {
	c.y = mem.take(maxBatch * c.out())
	if c.pool != nil {
		c.from = mem.take(maxBatch * c.out())
	}
	work := c.turned()
	if c.inner {
		work += c.kernel.Len
	}
	mem.share(work)
	return &c
}

func (c *conv) forward(w *Workspace, x []float32) []float32 {
	c.x = x
	W, b := c.kernel.of(w.params), c.bias.orNil(w.params)
	for i := range w.n {
		y := row(c.y, i, c.out())
		if c.pool == nil {
			c.shape.Forward(&w.scratch, row(x, i, c.in()), W, b, c.relu, y)
			continue
		}
		made := w.work[:c.made()]
		c.shape.Forward(&w.scratch, row(x, i, c.in()), W, b, c.relu, made)
		c.pool.Max(made, y, row(c.from, i, c.out()))
	}
	return c.y[:w.n*c.out()]
}

// backward: dW and db are chains over the pixels of all samples in their order.
func (c *conv) backward(w *Workspace, dy []float32) []float32 {
	var dx, flipped []float32
	if c.inner {
		dx = w.otherGrad(w.n * c.in())
		flipped = w.work[c.turned():][:c.kernel.Len]
		c.shape.Flip(flipped, c.kernel.of(w.params))
	}
	for i := range w.n {
		d := c.unpool(w, i, row(dy, i, c.out()))
		if !c.frozen {
			c.shape.WeightGrad(&w.scratch, row(c.x, i, c.in()), d, c.kernel.of(w.grads), i > 0)
			if c.bias.Len > 0 {
				kernel.SumRows(c.bias.of(w.grads), d, i > 0)
			}
		}
		if c.inner {
			c.shape.InputGrad(&w.scratch, d, flipped, row(dx, i, c.in()))
		}
	}
	if !c.frozen {
		w.final(c.kernel)
	}
	return dx
}

// unpool takes the gradient of sample i down to what the convolution has made. It
// overwrites dy.
func (c *conv) unpool(w *Workspace, i int, dy []float32) []float32 {
	if c.relu {
		kernel.ReLUGrad(dy, dy, row(c.y, i, c.out()))
	}
	if c.pool == nil {
		return dy
	}
	made := w.work[:c.made()]
	c.pool.MaxGrad(dy, row(c.from, i, c.out()), made)
	return made
}
