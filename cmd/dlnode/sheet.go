package main

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"

	"github.com/dlnode/dlnode/dataset"
)

const (
	sheetColumns = 8
	sheetGap     = 2  // pixels between images
	sheetCell    = 64 // pixels that small images are enlarged to, about
)

// contactSheet draws the first n images of d side by side, in rows of eight; small
// ones enlarged by a whole number. Values of x are from 0 to 1.
func contactSheet(d dataset.Dataset, n int) (image.Image, error) {
	shape := d.Info().Input
	if len(shape) == 2 {
		shape = []int{shape[0], shape[1], 1}
	}
	if len(shape) != 3 || shape[2] != 1 && shape[2] != 3 {
		return nil, fmt.Errorf("samples of shape %v are no images (want [h w], [h w 1] or [h w 3])", d.Info().Input)
	}
	zoom := max(1, sheetCell/max(shape[0], shape[1]))
	h, w := shape[0]*zoom+sheetGap, shape[1]*zoom+sheetGap
	columns := min(n, sheetColumns)
	sheet := image.NewNRGBA(image.Rect(0, 0, columns*w+sheetGap, (n+columns-1)/columns*h+sheetGap))
	draw.Draw(sheet, sheet.Bounds(), image.NewUniform(color.Gray{0x80}), image.Point{}, draw.Src)
	x, y := make([]float32, d.Info().InputLen()), make([]float32, d.Info().Target)
	for i := range n {
		if _, err := d.Read(i, x, y); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
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
