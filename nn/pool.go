package nn

import "github.com/dlnode/dlnode/internal/rng"

// maxPool is the greatest value of each window and channel, the first of equals
// row by row; NaN where one is NaN. Padding takes no part.
//
//	x [n, h·w·c]   y [n, oh·ow·c]
type maxPool struct {
	windows

	y    []float32
	from []float32 // which value of its window each y is: row by row, without channels
}

func (m maxPool) bind(mem *arena, maxBatch int) op {
	n := maxBatch * m.oh * m.ow * m.c
	m.y, m.from = mem.take(n), mem.take(n)
	return &m
}

func (m *maxPool) forward(w *Workspace, x []float32) []float32 {
	y, from := m.y[:w.n*m.oh*m.ow*m.c], m.from
	for i := range w.n {
		image := row(x, i, m.h*m.w*m.c)
		for p := range m.oh * m.ow {
			at := (i*m.oh*m.ow + p) * m.c
			m.window(image, p, y[at:at+m.c], from[at:at+m.c])
		}
	}
	return y
}

// window finds the greatest values under window p of one image.
func (m *maxPool) window(x []float32, p int, y, from []float32) {
	first := true
	for ky := range m.kh {
		at, lo, n := m.span(p/m.ow, p%m.ow, ky)
		for j := 0; j < n; j += m.c {
			v := x[at+j : at+j+m.c]
			k := float32(ky*m.kw + (lo+j)/m.c)
			if first {
				first = false
				copy(y, v)
				for i := range from {
					from[i] = k
				}
				continue
			}
			greater(y, from, v, k)
		}
	}
}

// greater replaces y by v, and from by k, where v is greater or NaN.
func greater(y, from, v []float32, k float32) {
	from, v = from[:len(y)], v[:len(y)]
	for i, e := range v {
		if e > y[i] || e != e {
			y[i], from[i] = e, k
		}
	}
}

func (m *maxPool) backward(w *Workspace, dy []float32) []float32 {
	dx := w.otherGrad(w.n * m.h * m.w * m.c)
	clear(dx)
	for i := range w.n {
		image := row(dx, i, m.h*m.w*m.c)
		for p := range m.oh * m.ow {
			at := (i*m.oh*m.ow + p) * m.c
			iy, ix := p/m.ow*m.sh-m.top, p%m.ow*m.sw-m.left
			for j, g := range dy[at : at+m.c] {
				k := int(m.from[at+j])
				image[((iy+k/m.kw)*m.w+ix+k%m.kw)*m.c+j] += g
			}
		}
	}
	return dx
}

// averagePool is the mean of each window and channel over what of it lies
// inside the image: values are added row by row from the first on, and the sum
// is divided by their number.
//
//	x [n, h·w·c]   y [n, oh·ow·c]
type averagePool struct {
	windows

	y []float32
}

func (a averagePool) bind(mem *arena, maxBatch int) op {
	a.y = mem.take(maxBatch * a.oh * a.ow * a.c)
	return &a
}

func (a *averagePool) forward(w *Workspace, x []float32) []float32 {
	y := a.y[:w.n*a.oh*a.ow*a.c]
	clear(y)
	for i := range w.n {
		image := row(x, i, a.h*a.w*a.c)
		for p := range a.oh * a.ow {
			at := (i*a.oh*a.ow + p) * a.c
			mean := y[at : at+a.c]
			count := a.each(p, func(v int) { addTo(mean, image[v:v+a.c]) })
			for j := range mean {
				mean[j] /= count
			}
		}
	}
	return y
}

// each calls do with where each pixel under window p begins, and counts them.
func (a *averagePool) each(p int, do func(at int)) (count float32) {
	for ky := range a.kh {
		at, _, n := a.span(p/a.ow, p%a.ow, ky)
		for j := 0; j < n; j += a.c {
			do(at + j)
			count++
		}
	}
	return count
}

func (a *averagePool) backward(w *Workspace, dy []float32) []float32 {
	dx := w.otherGrad(w.n * a.h * a.w * a.c)
	clear(dx)
	for i := range w.n {
		image := row(dx, i, a.h*a.w*a.c)
		for p := range a.oh * a.ow {
			at := (i*a.oh*a.ow + p) * a.c
			share := dy[at : at+a.c] // overwritten: it is ours
			count := a.each(p, func(int) {})
			for j := range share {
				share[j] /= count
			}
			a.each(p, func(v int) { addTo(image[v:v+a.c], share) })
		}
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
		mask := row(d.mask, i, c)
		for at := i * d.width; at < (i+1)*d.width; at += c {
			multiply(dst[at:at+c], x[at:at+c], mask)
		}
	}
}
