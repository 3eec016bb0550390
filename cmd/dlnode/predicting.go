package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/train"
)

// raw is a sample that is not numbers yet.
type raw struct {
	file   string
	sample int   // from 0, in the file
	lone   bool  // it is all of the file
	shape  []int // of its numbers
	// fill reads them into x. Any goroutine may call it, once.
	fill func(x []float32) error
}

// What is in memory at a time, so that there may be any number of files.
const (
	maxBatchValues  = 16 << 20 // of x, 4 bytes each
	maxBatchSamples = 1024
)

// predicting gathers samples of one shape, and predicts them together.
//
//	add ─► waiting ─► fill, several at a time ─► Predict ─► out, in the order of add
type predicting struct {
	snap   *checkpoint.Snapshot
	names  []string // of the classes
	top    int
	out    predictionWriter
	broken func(error) // told of a sample that can't be read

	model   *train.Predictor // for samples of shape
	shape   []int
	waiting []raw
	x       []float32 // [room, one sample's]; reused
}

// add takes a sample, and predicts those before it if need be.
func (p *predicting) add(ctx context.Context, r raw) (err error) {
	if !slices.Equal(r.shape, p.shape) || p.model == nil {
		if err := p.flush(ctx); err != nil {
			return err
		}
		if p.model, err = train.NewPredictor(p.snap, r.shape); err != nil {
			return exit(codeForeign, fmt.Errorf("%s: %w", r.file, err))
		}
		p.shape = r.shape
		width := p.model.Model.InputLen()
		p.x = make([]float32, width*max(1, min(maxBatchSamples, maxBatchValues/width)))
	}
	p.waiting = append(p.waiting, r)
	if len(p.waiting)*p.model.Model.InputLen() == len(p.x) {
		return p.flush(ctx)
	}
	return nil
}

// flush predicts what waits.
func (p *predicting) flush(ctx context.Context) error {
	if len(p.waiting) == 0 {
		return nil
	}
	read, err := p.read(ctx)
	if err != nil {
		return err
	}
	p.waiting = p.waiting[:0]
	in, width := p.model.Model.InputLen(), p.model.Model.OutputLen()
	out, err := p.model.Predict(ctx, p.x[:len(read)*in])
	if err != nil {
		return err
	}
	for i, r := range read {
		if err := p.out.write(predictionOf(p.model, r, out[i*width:(i+1)*width], p.top, p.names)); err != nil {
			return err
		}
	}
	return p.out.flush()
}

// read fills x from what waits, and returns what it is of: all but what is broken.
func (p *predicting) read(ctx context.Context) (read []raw, err error) {
	width := p.model.Model.InputLen()
	errs := make([]error, len(p.waiting))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, r := range p.waiting {
		g.Go(func() error {
			x := p.x[i*width : (i+1)*width]
			if errs[i] = r.fill(x); errs[i] == nil {
				errs[i] = p.model.Model.CheckInput(x)
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, r := range p.waiting {
		if errs[i] != nil {
			p.broken(fmt.Errorf("%s: %w", r.place(), errs[i]))
			continue
		}
		copy(p.x[len(read)*width:(len(read)+1)*width], p.x[i*width:(i+1)*width])
		read = append(read, r)
	}
	return read, nil
}

// place is where a sample is from, as errors begin.
func (r raw) place() string {
	if r.lone {
		return r.file
	}
	return fmt.Sprintf("%s: sample %d", r.file, r.sample)
}
