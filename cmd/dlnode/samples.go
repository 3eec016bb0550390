package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/dlnode/dlnode/dataset"
)

// idx takes images of bytes; they become numbers from 0 to 1.
func (in *inputs) idx(path string, b *bufio.Reader, use func(raw) error) error {
	idx, err := dataset.DecodeIDX(b, dataset.MaxIDXBytes)
	if err == nil && len(idx.Dims) < 2 {
		err = fmt.Errorf("offset 3: %d dimension, want at least 2: samples × their shape (is it a file of labels?)", len(idx.Dims))
	}
	if err != nil {
		in.broken(fmt.Errorf("%s: %w", path, err))
		return nil
	}
	width := idx.RecordLen()
	for n := range idx.Len() {
		err := use(raw{file: path, sample: n, shape: idx.Dims[1:], fill: func(x []float32) error {
			for i, b := range idx.Data[n*width : (n+1)*width] {
				x[i] = float32(b) / 255
			}
			return nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// json takes one array after another, a sample each. What is no sample is told,
// and the next array taken; where JSON itself ends, so does the file.
func (in *inputs) json(path string, b *bufio.Reader, use func(raw) error) error {
	var first []int // shape of the first sample
	dec := json.NewDecoder(b)
	for n := 0; ; n++ {
		var v any
		err := dec.Decode(&v)
		switch {
		case err == io.EOF && n == 0:
			in.broken(fmt.Errorf("%s: is empty (want samples)", path))
			return nil
		case err == io.EOF:
			return nil
		case err != nil:
			in.broken(fmt.Errorf("%s: sample %d: not JSON: %w", path, n, err))
			return nil
		}
		s, err := arrayOf(v)
		if err == nil && first == nil {
			first = s.shape
		}
		if err == nil && !slices.Equal(s.shape, first) {
			err = fmt.Errorf("got shape %v, but that of those before is %v", s.shape, first)
		}
		if err != nil {
			in.broken(fmt.Errorf("%s: sample %d: %w", path, n, err))
			continue
		}
		err = use(raw{file: path, sample: n, shape: s.shape, fill: func(x []float32) error {
			copy(x, s.x)
			return nil
		}})
		if err != nil {
			return err
		}
	}
}

// array is a sample that came as nested arrays of numbers.
type array struct {
	shape []int
	x     []float32 // [product of shape]
}

// arrayOf reads a JSON value.
func arrayOf(v any) (*array, error) {
	a := &array{}
	shape, err := a.take(v)
	if err == nil && len(shape) == 0 {
		err = fmt.Errorf("%v is no array (want an array of numbers for each sample)", v)
	}
	a.shape = shape
	return a, err
}

// take appends the numbers of a value to x and returns its shape; that of a
// number has no axes.
func (a *array) take(v any) (shape []int, err error) {
	switch v := v.(type) {
	case float64:
		if math.Abs(v) > math.MaxFloat32 {
			return nil, fmt.Errorf("%v does not fit into 32 bits", v)
		}
		a.x = append(a.x, float32(v))
		return nil, nil
	case []any:
		return a.takeAll(v)
	}
	shown, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s is no number (want arrays of numbers)", shown)
}

func (a *array) takeAll(all []any) ([]int, error) {
	if len(all) == 0 {
		return nil, errors.New("an array is empty (want numbers)")
	}
	var inner []int
	for i, v := range all {
		shape, err := a.take(v)
		if err != nil {
			return nil, err
		}
		if i > 0 && !slices.Equal(shape, inner) {
			return nil, errors.New("its arrays differ in length (want rows of one length)")
		}
		inner = shape
	}
	return append([]int{len(all)}, inner...), nil
}
