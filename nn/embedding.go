package nn

import (
	"fmt"
	"math"
)

// embedding is y_t = table[x_t]. A number that names no row gives a row of NaN:
// who loads data calls [Model.CheckInput].
//
//	x [n, t]   table [rows, d]   y [n, t·d]
type embedding struct {
	t, rows, d int
	table      Tensor
	frozen     bool
	slot       int // of the mask it makes; -1: none

	x, y []float32
	mask []float32 // [n, t]
}

func (e embedding) bind(mem *arena, maxBatch int) op {
	e.y = mem.take(maxBatch * e.t * e.d)
	if e.slot >= 0 {
		e.mask = mem.take(maxBatch * e.t)
	}
	return &e
}

func (e *embedding) forward(w *Workspace, x []float32) []float32 {
	e.x = x
	y, table := e.y[:len(x)*e.d], e.table.of(w.params)
	for i, v := range x {
		if r, ok := e.index(v); ok {
			copy(row(y, i, e.d), row(table, r, e.d))
		} else {
			fill(row(y, i, e.d), float32(math.NaN()))
		}
	}
	if e.slot < 0 {
		return y
	}
	mask := e.mask[:len(x)]
	w.masks[e.slot] = mask
	for i, v := range x {
		mask[i] = 1
		if v == 0 {
			mask[i] = 0
		}
	}
	return y
}

// index is the row that a value names.
func (e *embedding) index(v float32) (int, bool) {
	if !(v >= 0 && v < float32(e.rows)) || float32(int(v)) != v {
		return 0, false
	}
	return int(v), true
}

// backward: row r of the gradient is the sum of dy where r was looked up, sample
// by sample and in the order of time.
func (e *embedding) backward(w *Workspace, dy []float32) []float32 {
	if e.frozen {
		return nil
	}
	grads := e.table.of(w.grads)
	clear(grads)
	for i, v := range e.x {
		if r, ok := e.index(v); ok {
			addTo(row(grads, r, e.d), row(dy, i, e.d))
		}
	}
	w.final(e.table)
	return nil
}

// CheckInput checks the values of one sample, [InputLen], against what the model
// can use: an embedding wants whole numbers below its input_dim. Who loads data
// calls it.
func (m *Model) CheckInput(x []float32) error {
	if m.vocabulary == 0 {
		return nil
	}
	for i, v := range x {
		if !(v >= 0 && v < float32(m.vocabulary)) || float32(int(v)) != v {
			return fmt.Errorf("value %d is %v, want a whole number from 0 to %d: the model begins with an embedding of input_dim %d", i, v, m.vocabulary-1, m.vocabulary)
		}
	}
	return nil
}
