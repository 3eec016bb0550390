// Package chart draws pictures of training: learning curves from the journals of
// run directories, confusion matrices, and sheets of the images that a model gets
// wrong. It is the only room that knows gonum/plot.
//
//	journals ─► ReadRun ─► Run ─► Curves ─┐
//	counts ─────────────────► Confusion ──┼─► Picture ─► Save: .svg, .png
//	images ─────────────────► Sheet ──────┘
//
// A picture is a function of what it shows: the same numbers give the same bytes.
package chart

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/dlnode/dlnode/train"
)

// Picture is a drawing of a fixed size.
type Picture struct {
	width, height vg.Length
	draw          func(draw.Canvas)
}

// dpi is the resolution of PNG files, in pixels per inch.
const dpi = 144

// Formats are the endings of files that Save knows.
var Formats = []string{".svg", ".png"}

// Save writes the picture as what its path ends in. The file appears whole, or
// stays as it was.
func (p *Picture) Save(path string) error {
	w, err := p.render(filepath.Ext(path))
	if err != nil {
		return fmt.Errorf("picture %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("picture: %w", err)
	}
	_, err = w.WriteTo(f)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("picture: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func (p *Picture) render(ext string) (io.WriterTo, error) {
	switch ext {
	case ".svg":
		c := vgsvg.New(p.width, p.height)
		p.paint(draw.New(c))
		return substitutes(c)
	case ".png":
		c := vgimg.NewWith(vgimg.UseWH(p.width, p.height), vgimg.UseDPI(dpi))
		p.paint(draw.New(c))
		return vgimg.PngCanvas{Canvas: c}, nil
	}
	return nil, fmt.Errorf("no way to draw a %q (want .svg or .png)", ext)
}

// substitutes names fonts of the same widths beside the one that few machines have.
func substitutes(c *vgsvg.Canvas) (io.WriterTo, error) {
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	const ours = "font-family:Liberation Sans;"
	return strings.NewReader(strings.ReplaceAll(b.String(), ours, "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

func (p *Picture) paint(c draw.Canvas) {
	rectangle(c, c.Rectangle, color.White)
	p.draw(c)
}

// Colours: dark and light greys for what frames the data, and Okabe and Ito's
// palette, which colour-blind people can tell apart, for the data.
var (
	ink   = color.Gray{0x22}
	faint = color.Gray{0x77}
	lines = color.Gray{0xe4}

	red   = color.NRGBA{0xd5, 0x2b, 0x1e, 0xff}
	green = color.NRGBA{0x00, 0x9e, 0x73, 0xff}

	palette = []color.NRGBA{
		{0x00, 0x72, 0xb2, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xcc, 0x79, 0xa7, 0xff},
		{0xe6, 0x9f, 0x00, 0xff}, {0x56, 0xb4, 0xe9, 0xff}, {0x66, 0x66, 0x66, 0xff}, {0x8c, 0x51, 0x0a, 0xff},
	}
)

func hue(i int) color.NRGBA { return palette[i%len(palette)] }

// sans is a text style: Liberation Sans, which has Arial's widths.
func sans(size vg.Length, bold bool, c color.Color) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Color: c, Font: f, Handler: plot.DefaultTextHandler}
}

// write puts a line of text at a point: its left end, or its middle, or its right
// end, on the middle of its height.
func write(c draw.Canvas, s text.Style, align text.XAlignment, x, y vg.Length, line string) {
	s.XAlign, s.YAlign = align, draw.YCenter
	c.FillText(s, vg.Point{X: x, Y: y}, line)
}

// fit shortens a line to a width, in the middle, where names differ least.
func fit(s text.Style, line string, width vg.Length) string {
	runes := []rune(line)
	for short := line; ; short = string(runes[:(len(runes)+1)/2]) + "…" + string(runes[(len(runes)+1)/2+1:]) {
		if s.Width(short) <= width || len(runes) < 3 {
			return short
		}
		if short != line {
			runes = append(runes[:len(runes)/2], runes[len(runes)/2+1:]...)
		}
	}
}

func rectangle(c draw.Canvas, r vg.Rectangle, fill color.Color) {
	c.SetColor(fill)
	c.Fill(r.Path())
}

// number is a number that may be missing.
func number(n *train.Number) float64 {
	if n == nil {
		return math.NaN()
	}
	return float64(*n)
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
