package nn

import (
	"errors"
	"fmt"
)

// Residual adds what its layers make of a sample to the sample itself, or to
// what Shortcut makes of it (He et al. 2016).
type Residual struct {
	Layers   []LayerSpec `yaml:"layers" json:"layers"`
	Shortcut []LayerSpec `yaml:"shortcut,omitempty" json:"shortcut"` // none: the sample as it is
}

// Concat lays what its branches make of a sample side by side along the last
// axis. An empty branch hands on the sample as it is.
type Concat struct {
	Branches [][]LayerSpec `yaml:"branches" json:"branches"`
}

// NewResidual returns a residual block.
func NewResidual(layers ...LayerSpec) *Residual { return &Residual{Layers: layers} }

// NewConcat returns a layer of several branches.
func NewConcat(branches ...[]LayerSpec) *Concat { return &Concat{Branches: branches} }

func (*Residual) Kind() string { return "residual" }
func (*Concat) Kind() string   { return "concat" }

// Validate implements [LayerSpec].
func (r *Residual) Validate() error {
	if len(r.Layers) == 0 {
		return errors.New("layers is missing, want a list of layers")
	}
	return nil
}

// Validate implements [LayerSpec].
func (c *Concat) Validate() error {
	if len(c.Branches) < 2 {
		return errors.New("branches is missing, want at least two lists of layers")
	}
	return nil
}

// Parts implements [Container].
func (r *Residual) Parts() []Part {
	return []Part{{"layers", r.Layers}, {"shortcut", r.Shortcut}}
}

// Parts implements [Container].
func (c *Concat) Parts() []Part {
	parts := make([]Part, len(c.Branches))
	for i, layers := range c.Branches {
		parts[i] = Part{fmt.Sprintf("branches[%d]", i), layers}
	}
	return parts
}

func (r *Residual) add(b *builder) error { return b.grow(r, true) }

func (c *Concat) add(b *builder) error { return b.grow(c, false) }

// grow appends a container of branches.
func (b *builder) grow(c Container, add bool) error {
	var ways []branch
	named := b.parts
	for i, p := range c.Parts() {
		w, err := b.branch(func() error { return b.layers(p.Field, named[i]) })
		if err != nil {
			return err
		}
		ways = append(ways, w)
	}
	b.flops = 0 // those of the layers inside are theirs
	if err := b.join(ways, add, c.Kind()); err != nil {
		return err
	}
	if add {
		b.flops = int64(b.width)
	}
	return nil
}

// parallel runs branches over the same samples and joins what they make: their
// sum, branch by branch from the first on, or rows side by side.
//
//	x [n, in]   y_b [n, rows·width_b]   y [n, rows·Σ width_b] or [n, rows·width]
type parallel struct {
	chains []chain
	in     int
	rows   int
	widths []int // of a row, for each branch
	add    bool
	inner  bool // somebody wants dx

	ways []*chainOp
	y    []float32
	dy   []float32 // kept while branches use the windows of the gradient
	part []float32 // a branch's own
	dx   []float32
}

func (p parallel) bind(mem *arena, maxBatch int) op {
	p.ways = make([]*chainOp, len(p.chains))
	total, widest := 0, 0
	for i := range p.chains {
		p.ways[i] = p.chains[i].bindTo(mem, maxBatch)
		total += p.widths[i]
		widest = max(widest, p.widths[i])
	}
	if p.add {
		total = widest
	}
	n := maxBatch * p.rows
	p.y, p.dy, p.part = mem.take(n*total), mem.take(n*total), mem.take(n*widest)
	if p.inner {
		p.dx = mem.take(maxBatch * p.in)
	}
	return &p
}

// total is the width of a row of y.
func (p *parallel) total() int {
	if p.add {
		return p.widths[0]
	}
	sum := 0
	for _, width := range p.widths {
		sum += width
	}
	return sum
}

func (p *parallel) forward(w *Workspace, x []float32) []float32 {
	total, left := p.total(), 0
	y := p.y[:w.n*p.rows*total]
	for i, way := range p.ways {
		part := way.climb(w, x)
		switch width := p.widths[i]; {
		case part == nil:
			return nil
		case !p.add:
			place(y, part, left, total, width)
			left += width
		case i == 0:
			copy(y, part)
		default:
			addTo(y, part)
		}
	}
	return y
}

// place writes rows of a width into rows of total, left values from their
// beginning.
func place(dst, src []float32, left, total, width int) {
	for ; len(src) > 0; src, dst = src[width:], dst[total:] {
		copy(dst[left:], src[:width])
	}
}

// pick is the reverse of place.
func pick(dst, src []float32, left, total, width int) {
	for ; len(dst) > 0; dst, src = dst[width:], src[total:] {
		copy(dst[:width], src[left:])
	}
}

// backward takes the branches from the last to the first, as their windows of
// the gradient lie; dx is the sum of theirs in that order.
func (p *parallel) backward(w *Workspace, dy []float32) []float32 {
	kept := append(p.dy[:0], dy...)
	total := p.total()
	left := total
	for i := len(p.ways) - 1; i >= 0; i-- {
		width := p.widths[i]
		part := p.part[:w.n*p.rows*width]
		if p.add {
			copy(part, kept)
		} else {
			left -= width
			pick(part, kept, left, total, width)
		}
		dx := p.ways[i].descend(w, part, len(p.ways[i].ops)-1)
		switch {
		case w.aborted:
			return nil
		case !p.inner:
		case i == len(p.ways)-1:
			copy(p.dx, dx)
		default:
			addTo(p.dx[:len(dx)], dx)
		}
	}
	return p.dx[:min(len(p.dx), w.n*p.in)]
}
