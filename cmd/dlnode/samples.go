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

// samples are inputs without labels.
type samples struct {
	shape []int     // of one sample
	n     int       // at least 1
	x     []float32 // [n, product of shape]
}

// readSamples reads IDX, plain or compressed, or JSON, whichever it is.
func readSamples(r io.Reader) (*samples, error) {
	in := bufio.NewReader(r)
	first, err := in.Peek(1)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("is empty (want samples in IDX or JSON)")
	}
	if err != nil {
		return nil, err
	}
	if first[0] == 0 || first[0] == 0x1f { // IDX, gzip
		return readIDX(in)
	}
	return readJSON(in)
}

// readIDX reads images of bytes; they become numbers from 0 to 1.
func readIDX(r io.Reader) (*samples, error) {
	idx, err := dataset.DecodeIDX(r, dataset.MaxIDXBytes)
	if err != nil {
		return nil, err
	}
	if len(idx.Dims) < 2 {
		return nil, fmt.Errorf("offset 3: %d dimension, want at least 2: samples × their shape (is it a file of labels?)", len(idx.Dims))
	}
	s := &samples{shape: idx.Dims[1:], n: idx.Len(), x: make([]float32, len(idx.Data))}
	for i, b := range idx.Data {
		s.x[i] = float32(b) / 255
	}
	return s, nil
}

// readJSON reads one array after another, a sample each.
func readJSON(r io.Reader) (*samples, error) {
	s := &samples{}
	for dec := json.NewDecoder(r); ; s.n++ {
		var v any
		err := dec.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("sample %d: not JSON: %w", s.n, err)
		}
		shape, err := s.take(v)
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", s.n, err)
		}
		if s.n == 0 {
			s.shape = shape
		}
		if len(shape) == 0 {
			return nil, fmt.Errorf("sample %d: %v is no array (want an array of numbers for each sample)", s.n, v)
		}
		if !slices.Equal(shape, s.shape) {
			return nil, fmt.Errorf("sample %d: got shape %v, but that of sample 0 is %v", s.n, shape, s.shape)
		}
	}
	if s.n == 0 {
		return nil, errors.New("holds no samples")
	}
	return s, nil
}

// take appends the numbers of a value to x and returns its shape; that of a
// number has no axes.
func (s *samples) take(v any) (shape []int, err error) {
	switch v := v.(type) {
	case float64:
		if math.Abs(v) > math.MaxFloat32 {
			return nil, fmt.Errorf("%v does not fit into 32 bits", v)
		}
		s.x = append(s.x, float32(v))
		return nil, nil
	case []any:
		return s.takeAll(v)
	}
	shown, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s is no number (want arrays of numbers)", shown)
}

func (s *samples) takeAll(all []any) ([]int, error) {
	if len(all) == 0 {
		return nil, errors.New("an array is empty (want numbers)")
	}
	var inner []int
	for i, v := range all {
		shape, err := s.take(v)
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
