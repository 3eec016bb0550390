package main

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/job"
)

const (
	sheetColumns = 8
	sheetGap     = 2  // pixels between images
	sheetCell    = 64 // pixels that small images are enlarged to, about
)

// firstImages returns the first n samples of d.
func firstImages(d dataset.Dataset, n int) (all [][]float32, err error) {
	y := make([]float32, d.Info().Target)
	for i := range min(n, d.Len()) {
		x := make([]float32, d.Info().InputLen())
		if _, err := d.Read(i, x, y); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		all = append(all, x)
	}
	return all, nil
}

// augmentedImages returns the first n samples of d in rows of eight: each as it is,
// then as a job shows it to the model in its first seven epochs.
func augmentedImages(d dataset.Dataset, j *job.Job, n int) (all [][]float32, err error) {
	a, err := augment.New(*j.Augment, d.Info().Input)
	if err != nil {
		return nil, j.Blame("augment", err)
	}
	plain, err := firstImages(d, n)
	if err != nil {
		return nil, err
	}
	for i, x := range plain {
		all = append(all, x)
		for epoch := range uint64(sheetColumns - 1) {
			shown := make([]float32, len(x))
			a.Image(shown, x, augment.Key{Seed: j.Seed, Epoch: epoch, ID: d.ID(i)})
			all = append(all, shown)
		}
	}
	return all, nil
}

// contactSheet draws images of one shape side by side, in rows of eight; small ones
// enlarged by a whole number. Their values are from 0 to 1.
func contactSheet(shape []int, all [][]float32) (image.Image, error) {
	if len(shape) == 2 {
		shape = []int{shape[0], shape[1], 1}
	}
	if len(shape) != 3 || shape[2] != 1 && shape[2] != 3 {
		return nil, fmt.Errorf("samples of shape %v are no images (want [h w], [h w 1] or [h w 3])", shape)
	}
	zoom := max(1, sheetCell/max(shape[0], shape[1]))
	h, w := shape[0]*zoom+sheetGap, shape[1]*zoom+sheetGap
	n, columns := len(all), min(len(all), sheetColumns)
	sheet := image.NewNRGBA(image.Rect(0, 0, columns*w+sheetGap, (n+columns-1)/columns*h+sheetGap))
	draw.Draw(sheet, sheet.Bounds(), image.NewUniform(color.Gray{0x80}), image.Point{}, draw.Src)
	for i, x := range all {
		at := image.Pt(i%columns*w+sheetGap, i/columns*h+sheetGap)
		for row := range shape[0] * zoom {
			for col := range shape[1] * zoom {
				p := (row/zoom*shape[1] + col/zoom) * shape[2]
				sheet.SetNRGBA(at.X+col, at.Y+row, shade(x[p:p+shape[2]]))
			}
		}
	}
	return sheet, nil
}

// shade is the colour of a pixel of one or three values.
func shade(v []float32) color.NRGBA {
	b := func(f float32) uint8 { return uint8(max(0, min(255, f*255+0.5))) }
	return color.NRGBA{b(v[0]), b(v[len(v)/2]), b(v[len(v)-1]), 255}
}
