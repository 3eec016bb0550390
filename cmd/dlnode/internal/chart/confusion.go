package chart

import (
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Confusion draws a confusion matrix: in row i and column j stands how many samples
// of class i were taken for class j. The shade of a cell is its share of the row, so
// that a class shows its errors however few samples it has. names are those of the
// classes; where there are none the classes are numbered.
func Confusion(title string, counts [][]uint64, names []string) (*Picture, error) {
	n := len(counts)
	if n == 0 {
		return nil, fmt.Errorf("confusion matrix: no class")
	}
	for i, row := range counts {
		if len(row) != n {
			return nil, fmt.Errorf("confusion matrix: row %d has %d columns, want %d", i, len(row), n)
		}
	}
	m := &matrix{title: title, counts: counts, cell: vg.Length(math.Max(7, math.Min(46, 460/float64(n))))}
	m.text = sans(max(4, min(9, m.cell*0.3)), false, ink)
	m.label = sans(max(5, min(9.5, m.cell*0.75)), false, ink)
	for i := range n {
		name := strconv.Itoa(i)
		if i < len(names) {
			name = names[i]
		}
		m.names = append(m.names, fit(m.label, name, 110))
		m.widest = max(m.widest, m.label.Width(m.names[i]))
	}
	side := vg.Length(n) * m.cell
	left := margin + 16 + m.widest + 6
	below := m.below()
	width := max(left+side+2*margin, headStyle.Width(title)+2*margin)
	return &Picture{width: width, height: 40 + side + below, draw: func(c draw.Canvas) {
		m.draw(c, vg.Point{X: c.Min.X + left, Y: c.Max.Y - 40})
	}}, nil
}

type matrix struct {
	title       string
	counts      [][]uint64
	names       []string // shortened
	cell        vg.Length
	text, label draw.TextStyle
	widest      vg.Length // of the names
}

// upright tells whether the names of the columns are too wide to lie.
func (m *matrix) upright() bool { return m.widest > m.cell-4 }

// below is the room that the names of the columns take.
func (m *matrix) below() vg.Length {
	if m.upright() {
		return m.widest + 12 + 16 + margin
	}
	return 18 + 16 + margin
}

// draw draws the matrix, whose upper left corner is at a point.
func (m *matrix) draw(c draw.Canvas, corner vg.Point) {
	side := vg.Length(len(m.counts)) * m.cell
	write(c, headStyle, draw.XLeft, c.Min.X+margin, c.Max.Y-1.5*margin, m.title)
	for i, row := range m.counts {
		y := corner.Y - vg.Length(i)*m.cell
		m.row(c, corner.X, y, i, row)
		write(c, m.label, draw.XRight, corner.X-6, y-m.cell/2, m.names[i])
		m.column(c, corner.X+(vg.Length(i)+0.5)*m.cell, corner.Y-side-5, m.names[i])
	}
	frame := draw.LineStyle{Color: faint, Width: 0.5}
	c.StrokeLines(frame, []vg.Point{
		corner, {X: corner.X + side, Y: corner.Y}, {X: corner.X + side, Y: corner.Y - side}, {X: corner.X, Y: corner.Y - side}, corner,
	})
	caption := sans(9, false, faint)
	write(c, caption, draw.XCenter, corner.X+side/2, c.Min.Y+margin, "taken for")
	caption.Rotation = math.Pi / 2
	write(c, caption, draw.XCenter, c.Min.X+margin+2, corner.Y-side/2, "class")
}

// row draws the cells of a row, whose upper left corner is at (x, y).
func (m *matrix) row(c draw.Canvas, x, y vg.Length, class int, row []uint64) {
	total := uint64(0)
	for _, n := range row {
		total += n
	}
	for j, n := range row {
		share := float64(n) / float64(max(1, total))
		at := vg.Rectangle{Min: vg.Point{X: x + vg.Length(j)*m.cell, Y: y - m.cell}}
		at.Max = at.Min.Add(vg.Point{X: m.cell, Y: m.cell})
		rectangle(c, at, shade(share, j == class))
		if text := m.text; n > 0 && m.cell >= 16 {
			if share > 0.55 {
				text.Color = color.White
			}
			write(c, text, draw.XCenter, (at.Min.X+at.Max.X)/2, (at.Min.Y+at.Max.Y)/2, fit(text, strconv.FormatUint(n, 10), m.cell))
		}
	}
}

// column writes the name of a column, at the middle of its lower end.
func (m *matrix) column(c draw.Canvas, x, y vg.Length, name string) {
	s := m.label
	if m.upright() {
		s.Rotation = math.Pi / 2
		write(c, s, draw.XRight, x, y, name)
		return
	}
	write(c, s, draw.XCenter, x, y-5, name)
}

// shade mixes white with blue for what is right and vermilion for what is wrong.
// The root makes small shares visible.
func shade(share float64, right bool) color.Color {
	full := hue(1)
	if right {
		full = hue(0)
	}
	t := math.Sqrt(share)
	mix := func(v uint8) uint8 { return uint8(math.Round(255 + t*(float64(v)-255))) }
	return color.NRGBA{mix(full.R), mix(full.G), mix(full.B), 0xff}
}
