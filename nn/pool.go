package nn

import (
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/rng"
)

// maxPool is the greatest value of each window and channel, the first of equals
// row by row; NaN where one is NaN. Padding takes no part.
//
//	x [n, H·W·C]   y [n, OH·OW·C]
type maxPool struct {
	shape kernel.Pool

	y    []float32
	from []float32 // which value of its window each y is: row by row, without channels
}

// before and behind are the values of a sample on both sides of a pooling.
func before(g kernel.Pool) int { return g.H * g.W * g.C }
func behind(g kernel.Pool) int { return g.OH * g.OW * g.C }

func (m maxPool) bind(mem *arena, maxBatch int) op {
	n := maxBatch * behind(m.shape)
	m.y, m.from = mem.take(n), mem.take(n)
	return &m
}

func (m *maxPool) forward(w *Workspace, x []float32) []float32 {
	in, out := before(m.shape), behind(m.shape)
	for i := range w.n {
		m.shape.Max(row(x, i, in), row(m.y, i, out), row(m.from, i, out))
	}
	return m.y[:w.n*out]
}

func (m *maxPool) backward(w *Workspace, dy []float32) []float32 {
	in, out := before(m.shape), behind(m.shape)
	dx := w.otherGrad(w.n * in)
	for i := range w.n {
		m.shape.MaxGrad(row(dy, i, out), row(m.from, i, out), row(dx, i, in))
	}
	return dx
}

// averagePool is the mean of each window and channel over what of it lies
// inside the image.
//
//	x [n, H·W·C]   y [n, OH·OW·C]
type averagePool struct {
	shape kernel.Pool

	y []float32
}

func (a averagePool) bind(mem *arena, maxBatch int) op {
	a.y = mem.take(maxBatch * behind(a.shape))
	return &a
}

func (a *averagePool) forward(w *Workspace, x []float32) []float32 {
	in, out := before(a.shape), behind(a.shape)
	for i := range w.n {
		a.shape.Average(row(x, i, in), row(a.y, i, out))
	}
	return a.y[:w.n*out]
}

func (a *averagePool) backward(w *Workspace, dy []float32) []float32 {
	in, out := before(a.shape), behind(a.shape)
	dx := w.otherGrad(w.n * in)
	for i := range w.n {
		a.shape.AverageGrad(row(dy, i, out), row(dx, i, in))
	}
	return dx
}

// spatialDropout is [dropout] with one mask of the channels for all pixels of a
// sample: element j of the mask is decided by word j of the sample's stream.
type spatialDropout struct {
	dropout     // of one pixel
	width   int // values of a sample
}

func (d spatialDropout) bind(mem *arena, maxBatch int) op {
	d.mask, d.y = mem.take(maxBatch*d.dropout.width), mem.take(maxBatch*d.width)
	return &d
}

func (d *spatialDropout) forward(w *Workspace, x []float32) []float32 {
	d.active = w.train
	if !d.active {
		return x
	}
	for i := range w.n {
		s := rng.New(w.key.Seed, rng.Dropout, w.key.Step, w.ids[i], d.layer)
		d.draw(s, row(d.mask, i, d.dropout.width))
	}
	y := d.y[:len(x)]
	d.pixels(w, y, x)
	return y
}

func (d *spatialDropout) backward(w *Workspace, dy []float32) []float32 {
	if d.active {
		d.pixels(w, dy, dy)
	}
	return dy
}

// pixels multiplies every pixel by its sample's mask.
func (d *spatialDropout) pixels(w *Workspace, dst, x []float32) {
	c := d.dropout.width
	for i := range w.n {
		kernel.MulRows(row(dst, i, d.width), row(x, i, d.width), row(d.mask, i, c))
	}
}
