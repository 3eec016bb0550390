package chart

import (
	"cmp"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Mistake is a sample that a model takes for another class than its own.
type Mistake struct {
	Sample      int // its number
	Class       int
	Taken       int     // the likeliest class
	Probability float32 // of Taken
	Lead        float32 // by how much Taken is more likely than Class
}

// Worst returns the samples that a model is most sure of and wrong about, the worst
// first, n at most: by how much more likely than the sample's own class another is.
// probabilities are [samples, classes], labels the classes. A sample without a
// likeliest class (NaN) is none.
func Worst(probabilities []float32, labels []int, n int) []Mistake {
	if len(labels) == 0 || len(probabilities)%len(labels) != 0 {
		panic(fmt.Sprintf("chart: %d probabilities of %d samples", len(probabilities), len(labels)))
	}
	classes := len(probabilities) / len(labels)
	var all []Mistake
	for i, class := range labels {
		row := probabilities[i*classes : (i+1)*classes]
		taken := class
		for j, p := range row {
			if p > row[taken] {
				taken = j
			}
		}
		if taken != class {
			all = append(all, Mistake{i, class, taken, row[taken], row[taken] - row[class]})
		}
	}
	return WorstOf(all, n)
}

// WorstOf sorts mistakes, the worst first and equals as they were, and keeps n.
func WorstOf(all []Mistake, n int) []Mistake {
	slices.SortStableFunc(all, func(a, b Mistake) int { return cmp.Compare(b.Lead, a.Lead) })
	return all[:min(n, len(all))]
}

// Photo is an image with words below it.
type Photo struct {
	Pixels  []float32 // [h, w, c] or [h, w] in [0, 1]; c is 1 for grey, 3 for red, green, blue
	Caption [2]string // two lines
}

// Sheet draws images of one shape, [h, w] or [h, w, c], side by side in rows.
func Sheet(title string, shape []int, photos []Photo) (*Picture, error) {
	if len(shape) == 2 {
		shape = []int{shape[0], shape[1], 1}
	}
	if len(shape) != 3 || min(shape[0], shape[1]) < 1 || shape[2] != 1 && shape[2] != 3 {
		return nil, fmt.Errorf("contact sheet: no way to draw images of shape %v (want [height width], with 1 or 3 channels)", shape)
	}
	if len(photos) == 0 {
		return nil, fmt.Errorf("contact sheet: no image")
	}
	for i, p := range photos {
		if want := shape[0] * shape[1] * shape[2]; len(p.Pixels) != want {
			return nil, fmt.Errorf("contact sheet: image %d has %d values, want %d", i, len(p.Pixels), want)
		}
	}
	s := &sheet{title: title, shape: shape, photos: photos}
	s.columns = min(len(photos), max(4, int(math.Ceil(math.Sqrt(1.5*float64(len(photos)))))))
	rows := (len(photos) + s.columns - 1) / s.columns
	longest := float64(max(shape[0], shape[1]))
	s.size = vg.Point{X: vg.Length(thumb * float64(shape[1]) / longest), Y: vg.Length(thumb * float64(shape[0]) / longest)}
	width := max(2*margin+vg.Length(s.columns)*(cellWidth+gutter)-gutter, headStyle.Width(title)+2*margin)
	return &Picture{width: width, height: 36 + vg.Length(rows)*s.pitch() + margin, draw: s.draw}, nil
}

// Sizes of a sheet, in points.
const (
	thumb     = 84 // the longer side of an image
	cellWidth = 90
	gutter    = 10
	captions  = 30 // two lines and the room below
)

type sheet struct {
	title   string
	shape   []int
	photos  []Photo
	columns int
	size    vg.Point // of an image
}

// pitch is the height of a row.
func (s *sheet) pitch() vg.Length { return s.size.Y + captions + gutter/2 }

func (s *sheet) draw(c draw.Canvas) {
	write(c, headStyle, draw.XLeft, c.Min.X+margin, c.Max.Y-1.5*margin, s.title)
	first, second := sans(8.5, false, ink), sans(8.5, false, faint)
	for i, p := range s.photos {
		x := c.Min.X + margin + vg.Length(i%s.columns)*(cellWidth+gutter)
		y := c.Max.Y - 36 - vg.Length(i/s.columns)*s.pitch()
		corner := vg.Point{X: x, Y: y - s.size.Y}
		c.DrawImage(vg.Rectangle{Min: corner, Max: corner.Add(s.size)}, s.enlarge(p.Pixels))
		write(c, first, draw.XLeft, x, corner.Y-8, fit(first, p.Caption[0], cellWidth))
		write(c, second, draw.XLeft, x, corner.Y-19, fit(second, p.Caption[1], cellWidth))
	}
}

// enlarge makes an image of pixels, each a square of as many as it takes to keep
// its edges sharp when it is drawn: a 28x28 digit is shown as what the model sees.
func (s *sheet) enlarge(pixels []float32) image.Image {
	h, w, c := s.shape[0], s.shape[1], s.shape[2]
	times := max(1, int(math.Round(thumb*dpi/72/float64(max(h, w)))))
	out := image.NewNRGBA(image.Rect(0, 0, w*times, h*times))
	for y := range h * times {
		for x := range w * times {
			p := pixels[(y/times*w+x/times)*c:]
			out.SetNRGBA(x, y, color.NRGBA{level(p[0]), level(p[(c-1)/2]), level(p[c-1]), 0xff})
		}
	}
	return out
}

// level turns a value of [0, 1] into a byte; NaN is black.
func level(v float32) uint8 {
	if !(v > 0) {
		return 0
	}
	return uint8(math.Round(255 * float64(min(v, 1))))
}
