package nn

import "github.com/dlnode/dlnode/internal/kernel"

// conv is a convolution with its bias, and relu behind it if relu. It goes from
// sample to sample, so that what it reads and writes stays in the cache.
//
//	x [n, H·W·C]   W [KH·KW·C, F]   b [F]   y [n, OH·OW·F]
type conv struct {
	shape  kernel.Conv
	relu   bool
	kernel Tensor
	bias   Tensor // Len 0: there is none
	inner  bool   // somebody wants dx
	frozen bool

	x, y []float32
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

// read and made are the values of a sample before a convolution and behind it.
func read(g kernel.Conv) int { return g.H * g.W * g.C }
func made(g kernel.Conv) int { return g.OH * g.OW * g.F }

func (c conv) bind(mem *arena, maxBatch int) op {
	c.y = mem.take(maxBatch * made(c.shape))
	mem.share(c.turnedLen())
	return &c
}

// turnedLen is how long the weights are that the input's gradient is made of.
func (c *conv) turnedLen() int {
	if !c.inner {
		return 0
	}
	return c.kernel.Len
}

func (c *conv) forward(w *Workspace, x []float32) []float32 {
	c.x = x
	in, out := read(c.shape), made(c.shape)
	for i := range w.n {
		c.shape.Forward(&w.scratch, row(x, i, in), c.kernel.of(w.params), c.bias.orNil(w.params), c.relu, row(c.y, i, out))
	}
	return c.y[:w.n*out]
}

// backward: dW and db are chains over the pixels of all samples in their order.
func (c *conv) backward(w *Workspace, dy []float32) []float32 {
	in, out := read(c.shape), made(c.shape)
	dx, turned := c.begin(w, w.work)
	for i := range w.n {
		d := row(dy, i, out)
		if c.relu {
			kernel.ReLUGrad(d, d, row(c.y, i, out))
		}
		c.learn(w, c.shape, row(c.x, i, in), d, i > 0)
		if c.inner {
			c.shape.InputGrad(&w.scratch, d, turned, row(dx, i, in))
		}
	}
	if !c.frozen {
		w.final(c.kernel)
	}
	return dx
}

// begin returns room for the gradient of the input, and in room of its own the
// weights as that gradient wants them; nothing if nobody wants it.
func (c *conv) begin(w *Workspace, room []float32) (dx, turned []float32) {
	if !c.inner {
		return nil, nil
	}
	turned = room[:c.kernel.Len]
	c.shape.Flip(turned, c.kernel.of(w.params))
	return w.otherGrad(w.n * read(c.shape)), turned
}

// learn computes the gradient of the parameters from x and that of what g has made
// of it, or adds to it if more.
func (c *conv) learn(w *Workspace, g kernel.Conv, x, d []float32, more bool) {
	if c.frozen {
		return
	}
	g.WeightGrad(&w.scratch, x, d, c.kernel.of(w.grads), more)
	if c.bias.Len > 0 {
		kernel.SumRows(c.bias.of(w.grads), d, more)
	}
}

// pooledConv is a convolution and the max pooling behind it. What the convolution
// makes, which may be much more than what the pooling leaves of it, is kept of no
// sample, and only a band of rows of it is there at a time:
//
//	x_i ──conv, bias, relu──► band ──max──► y_i, from_i
//	dx_i ◄──dW += , db += ─── band ◄─────── dy_i where y_i > 0
//
// The bits are those of the operations one by one: relu's mask of the value that a
// window has kept is that of the pooled one, and of the others nothing goes down.
//
//	x [n, H·W·C]   y [n, OH·OW·C] of the pooling
type pooledConv struct {
	conv
	pool kernel.Pool

	rows int       // of y, that a band is for
	from []float32 // which value of its window each y is
}

// bandFloats is what the convolution makes for a band at most, if a row of y does not
// need more: an eighth of a second-level cache.
const bandFloats = 1 << 16

func (c pooledConv) bind(mem *arena, maxBatch int) op {
	n := maxBatch * behind(c.pool)
	c.y, c.from = mem.take(n), mem.take(n)
	c.rows = c.pool.OH
	if g := c.pool; c.parts() {
		c.rows = min(g.OH, max(1, bandFloats/(g.SH*g.W*g.C)))
	}
	mem.share(c.room() + c.turnedLen())
	return &c
}

// parts tells whether bands are parts of what the convolution makes: whether no two
// rows of windows overlap, and the two see the same image.
func (c *pooledConv) parts() bool {
	return c.pool.SH >= c.pool.KH && c.pool.H == c.shape.OH && c.pool.W == c.shape.OW
}

// room is what bands take of the shared memory. The gradient of the input is of a
// sample at once.
func (c *pooledConv) room() (most int) {
	if c.inner {
		return lines(made(c.shape))
	}
	for p := 0; p < c.pool.OH; p += c.rows {
		most = max(most, made(c.band(p, c.rows).conv))
	}
	return lines(most)
}

// band is the part of a sample's way that leads to some rows of y.
type band struct {
	conv   kernel.Conv
	pool   kernel.Pool
	x0, x1 int // in x
	y0, y1 int // in y
}

// band returns that for so many rows from row p on. Rows of what the convolution
// makes that are in no window belong to the band before.
func (c *pooledConv) band(p, rows int) band {
	if rows >= c.pool.OH {
		return band{c.shape, c.pool, 0, read(c.shape), 0, behind(c.pool)}
	}
	b := band{conv: c.shape, pool: c.pool}
	rows = min(rows, c.pool.OH-p)
	first, end := c.madeFrom(p), c.madeFrom(p+rows)
	b.pool.H, b.pool.OH = end-first, rows
	if p > 0 {
		b.pool.Top = 0
	}
	width := c.pool.OW * c.pool.C
	b.y0, b.y1 = p*width, (p+rows)*width

	g := &b.conv
	at := first*g.SH - g.Top
	g.OH, g.Top = end-first, max(0, -at)
	at = max(0, at)
	g.H = min(g.H-at, (g.OH-1)*g.SH+g.KH-g.Top)
	b.x0, b.x1 = at*g.W*g.C, (at+g.H)*g.W*g.C
	return b
}

// madeFrom is the first row, of what the convolution makes, that row p of y sees.
func (c *pooledConv) madeFrom(p int) int {
	switch p {
	case 0:
		return 0
	case c.pool.OH:
		return c.pool.H
	}
	return p*c.pool.SH - c.pool.Top
}

func (c *pooledConv) forward(w *Workspace, x []float32) []float32 {
	c.x = x
	in, out := read(c.shape), behind(c.pool)
	W, bias := c.kernel.of(w.params), c.bias.orNil(w.params)
	for i := range w.n {
		x, y, from := row(x, i, in), row(c.y, i, out), row(c.from, i, out)
		for p := 0; p < c.pool.OH; p += c.rows {
			b := c.band(p, c.rows)
			m := w.work[:made(b.conv)]
			b.conv.Forward(&w.scratch, x[b.x0:b.x1], W, bias, c.relu, m)
			b.pool.Max(m, y[b.y0:b.y1], from[b.y0:b.y1])
		}
	}
	return c.y[:w.n*out]
}

func (c *pooledConv) backward(w *Workspace, dy []float32) []float32 {
	in, out, rows := read(c.shape), behind(c.pool), c.rows
	if c.inner {
		rows = c.pool.OH
	}
	dx, turned := c.begin(w, w.work[c.room():])
	for i := range w.n {
		x, d, from := row(c.x, i, in), row(dy, i, out), row(c.from, i, out)
		if c.relu {
			kernel.ReLUGrad(d, d, row(c.y, i, out))
		}
		for p := 0; p < c.pool.OH; p += rows {
			b := c.band(p, rows)
			m := w.work[:made(b.conv)]
			b.pool.MaxGrad(d[b.y0:b.y1], from[b.y0:b.y1], m)
			c.learn(w, b.conv, x[b.x0:b.x1], m, i+p > 0)
			if c.inner {
				c.shape.InputGrad(&w.scratch, m, turned, row(dx, i, in))
			}
		}
	}
	if !c.frozen {
		w.final(c.kernel)
	}
	return dx
}
