package chart

import (
	"errors"
	"image/color"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/dlnode/dlnode/train"
)

// Sizes, in points of 1/72 inch.
const (
	panelWidth  = 300
	panelHeight = 210
	headerLine  = 16
	margin      = 12
)

// Curves draws the learning curves of runs, one panel for each number: loss and
// metrics and learning rate over epochs, throughput and nodes over time, with what
// happened to the nodes. Several runs share the panels, a colour each. It is an
// error if there is nothing to draw.
func Curves(runs []*Run) (*Picture, error) {
	panels := epochPanels(runs)
	if slices.ContainsFunc(runs, func(r *Run) bool { return len(r.Steps) > 1 }) {
		panels = append(panels, timePanels(runs)...)
	}
	if len(panels) == 0 {
		return nil, errors.New("no step has been done yet: there is nothing to draw")
	}
	columns := 2
	if len(panels) > 4 {
		columns = 3
	}
	rows := (len(panels) + columns - 1) / columns
	width := vg.Length(columns*panelWidth + 2*margin)
	h := newHeader(runs, width-2*margin)
	return &Picture{
		width: width, height: vg.Length(rows*panelHeight) + h.height + margin,
		draw: func(c draw.Canvas) {
			h.draw(c, vg.Point{X: c.Min.X + margin, Y: c.Max.Y - 1.5*margin})
			drawPanels(draw.Crop(c, margin, -margin, margin, -h.height), panels, rows, columns)
		},
	}, nil
}

// panel is one coordinate system of a picture.
type panel struct {
	title  string
	x      string // label of the axis below
	plot   *plot.Plot
	bounds bounds
}

// bounds are those of the points of a panel.
type bounds struct{ x0, x1, y0, y1 float64 }

func newPanel(title, x string, wholeX, wholeY bool) *panel {
	p := plot.New()
	p.X.Tick.Marker = scale{labels: 8, whole: wholeX}
	p.Y.Tick.Marker = scale{labels: 5, whole: wholeY}
	p.X.Label.Text = x
	p.X.Label.TextStyle = align(sans(9, false, faint), p.X.Label.TextStyle)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Tick.Label = align(sans(9, false, ink), a.Tick.Label)
		a.LineStyle.Color, a.LineStyle.Width = faint, 0.5
		a.Tick.LineStyle.Color, a.Tick.LineStyle.Width = faint, 0.5
		a.Tick.Length = 3
		a.Padding = 0
	}
	grid := plotter.NewGrid()
	for _, s := range []*draw.LineStyle{&grid.Vertical, &grid.Horizontal} {
		s.Color, s.Width = lines, 0.5
	}
	p.Add(grid)
	return &panel{title: title, x: x, plot: p, bounds: bounds{math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)}}
}

// align keeps how a text lies when its style changes.
func align(s, old draw.TextStyle) draw.TextStyle {
	s.XAlign, s.YAlign, s.Rotation = old.XAlign, old.YAlign, old.Rotation
	return s
}

// line adds a curve, without its points that are no numbers. Few points are shown
// as such.
func (p *panel) line(points plotter.XYs, c color.Color, dashed bool) {
	points = slices.DeleteFunc(points, func(q plotter.XY) bool { return !finite(q.X) || !finite(q.Y) })
	if len(points) == 0 {
		return
	}
	for _, q := range points {
		p.cover(q.X, q.Y)
	}
	l := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: c, Width: 1.4}}
	if dashed {
		l.LineStyle.Dashes = []vg.Length{4, 2.5}
	}
	p.plot.Add(l)
}

// dots adds the points of a curve where they are few enough to be told apart.
func (p *panel) dots(points plotter.XYs, c color.Color) {
	points = slices.DeleteFunc(points, func(q plotter.XY) bool { return !finite(q.X) || !finite(q.Y) })
	if len(points) > 0 && len(points) <= 30 {
		p.plot.Add(&plotter.Scatter{XYs: points, GlyphStyle: draw.GlyphStyle{Color: c, Radius: 1.8, Shape: draw.CircleGlyph{}}})
	}
}

func (p *panel) cover(x, y float64) {
	b := &p.bounds
	b.x0, b.x1, b.y0, b.y1 = math.Min(b.x0, x), math.Max(b.x1, x), math.Min(b.y0, y), math.Max(b.y1, y)
}

// frame sets the axes to what the panel shows; they begin at the floors.
func (p *panel) frame(floorX, floorY float64) {
	b := p.bounds
	p.plot.X.Min, p.plot.X.Max = room(b.x0, b.x1, floorX)
	p.plot.Y.Min, p.plot.Y.Max = room(b.y0, b.y1, floorY)
}

// --- over epochs ---

// validation is what the name of a number on the validation samples begins with.
const validation = "val_"

// epochPanels makes a panel for each number of the epochs, training and validation
// together, and one for the learning rate.
func epochPanels(runs []*Run) (all []*panel) {
	for _, name := range numbers(runs) {
		p := newPanel(strings.ReplaceAll(name, "_", " "), "epoch", true, false)
		for i, r := range runs {
			trained, validated := colours(i, len(runs))
			p.series(r, name, trained, len(runs) > 1)
			p.series(r, validation+name, validated, false)
		}
		p.frame(0, 0)
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil
	}
	rate := newPanel("learning rate", "epoch", true, false)
	for i, r := range runs {
		points := r.overEpochs(func(e Epoch) float64 { return e.LR })
		rate.line(points, hue(i), false)
		rate.dots(points, hue(i))
	}
	rate.frame(0, 0)
	return append(all, rate)
}

// colours of the curves of run i of n: one run has two, several one each.
func colours(i, n int) (trained, validated color.Color) {
	if n == 1 {
		return hue(0), hue(1)
	}
	return hue(i), hue(i)
}

// numbers lists what any run tells of its epochs, "val_" left out, in their order.
func numbers(runs []*Run) (names []string) {
	for _, r := range runs {
		for _, e := range r.Epochs {
			for _, v := range e.Values {
				if name := strings.TrimPrefix(v.Name, validation); !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

func (p *panel) series(r *Run, name string, c color.Color, dashed bool) {
	points := r.overEpochs(func(e Epoch) float64 { return e.value(name) })
	p.line(slices.Clone(points), c, dashed)
	p.dots(points, c)
}

func (e Epoch) value(name string) float64 {
	i := slices.IndexFunc(e.Values, func(v train.Value) bool { return v.Name == name })
	if i < 0 {
		return math.NaN()
	}
	return float64(e.Values[i].Value)
}

func (r *Run) overEpochs(of func(Epoch) float64) (points plotter.XYs) {
	for _, e := range r.Epochs {
		points = append(points, plotter.XY{X: float64(e.Number), Y: of(e)})
	}
	return points
}

// --- over time ---

// timePanels shows throughput and nodes.
func timePanels(runs []*Run) []*panel {
	longest := time.Duration(0)
	for _, r := range runs {
		longest = max(longest, r.Took())
	}
	unit, word := timeUnit(longest)
	rate := newPanel("samples per second", word, false, false)
	world := newPanel("nodes", word, false, true)
	for i, r := range runs {
		if len(r.Steps) > 1 {
			rate.line(r.throughput(unit), hue(i), false)
			world.line(r.nodes(unit), hue(i), false)
		}
	}
	for _, p := range []*panel{rate, world} {
		p.cover(0, 0)
		p.frame(0, 0)
		p.plot.X.Max = p.bounds.x1
	}
	world.plot.Y.Max = math.Max(world.bounds.y1, 1) * 1.15
	for _, r := range runs {
		world.marks(r, unit)
		rate.faults(r, unit)
	}
	return []*panel{rate, world}
}

// timeUnit returns the unit in which a time is shown.
func timeUnit(t time.Duration) (time.Duration, string) {
	switch {
	case t < 3*time.Minute:
		return time.Second, "seconds"
	case t < 3*time.Hour:
		return time.Minute, "minutes"
	}
	return time.Hour, "hours"
}

// Throughput is counted in stretches of time that hold this many steps on average,
// and at most so many stretches.
const (
	stepsInStretch = 8
	maxStretches   = 80
)

// throughput returns the samples per second of each stretch of a run, as steps of a
// stair.
func (r *Run) throughput(unit time.Duration) (points plotter.XYs) {
	n := max(1, min(maxStretches, len(r.Steps)/stepsInStretch))
	begin, took := r.Steps[0].At, r.Took()-r.Steps[0].At
	samples := make([]float64, n)
	for _, s := range r.Steps[1:] { // the first is done where time begins
		i := min(n-1, int(float64(n)*float64(s.At-begin)/float64(max(1, took))))
		samples[i] += float64(s.Samples)
	}
	width := float64(max(1, took)) / float64(n)
	for i, s := range samples {
		rate := s / (width / float64(time.Second))
		for _, edge := range []int{i, i + 1} {
			points = append(points, plotter.XY{X: (float64(begin) + float64(edge)*width) / float64(unit), Y: rate})
		}
	}
	return points
}

// nodes returns how many nodes trained, as steps of a stair.
func (r *Run) nodes(unit time.Duration) (points plotter.XYs) {
	for i, s := range r.Steps {
		at := float64(s.At) / float64(unit)
		switch last := len(points) - 1; {
		case i == 0:
			points = append(points, plotter.XY{X: 0, Y: float64(s.World)})
		case points[last].Y != float64(s.World):
			points = append(points, plotter.XY{X: at, Y: points[last].Y}, plotter.XY{X: at, Y: float64(s.World)})
		}
	}
	end := plotter.XY{X: float64(r.Took()) / float64(unit), Y: points[len(points)-1].Y}
	return append(points, end)
}

// glyphs of what happens to nodes.
var glyphs = map[string]draw.GlyphStyle{
	"lost":   {Color: red, Radius: 3.5, Shape: cross{}},
	"joined": {Color: green, Radius: 3.5, Shape: draw.PyramidGlyph{}},
	"left":   {Color: faint, Radius: 3.5, Shape: draw.BoxGlyph{}},
}

// cross is draw.CrossGlyph with a line that is seen.
type cross struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (cross) DrawGlyph(c *draw.Canvas, s draw.GlyphStyle, at vg.Point) {
	style, r := draw.LineStyle{Color: s.Color, Width: 1.6}, s.Radius*0.8
	c.StrokeLine2(style, at.X-r, at.Y-r, at.X+r, at.Y+r)
	c.StrokeLine2(style, at.X-r, at.Y+r, at.X+r, at.Y-r)
}

// marks puts a glyph at the height of the world that each mark led to.
func (p *panel) marks(r *Run, unit time.Duration) {
	p.faults(r, unit)
	for _, m := range r.Marks {
		if y := float64(r.worldAt(m.At)); y > 0 {
			at := plotter.XYs{{X: float64(m.At) / float64(unit), Y: y}}
			p.plot.Add(&plotter.Scatter{XYs: at, GlyphStyle: glyphs[m.Kind]})
		}
	}
}

// worldAt returns how many nodes did the first step from a time on; 0 if there is
// none.
func (r *Run) worldAt(t time.Duration) int {
	for _, s := range r.Steps {
		if s.At >= t {
			return s.World
		}
	}
	return 0
}

// faults draws a line where a node was lost.
func (p *panel) faults(r *Run, unit time.Duration) {
	for _, m := range r.Marks {
		if x := float64(m.At) / float64(unit); m.Kind == "lost" && x <= p.plot.X.Max {
			p.plot.Add(&plotter.Line{
				XYs:       plotter.XYs{{X: x, Y: p.plot.Y.Min}, {X: x, Y: p.plot.Y.Max}},
				LineStyle: draw.LineStyle{Color: red, Width: 0.6, Dashes: []vg.Length{2, 2}},
			})
		}
	}
}

// --- the page ---

// drawPanels draws the panels in rows, aligned, with their titles.
func drawPanels(c draw.Canvas, panels []*panel, rows, columns int) {
	grid := make([][]*plot.Plot, rows)
	for i := range grid {
		grid[i] = make([]*plot.Plot, columns)
		for j := range grid[i] {
			if k := i*columns + j; k < len(panels) {
				grid[i][j] = panels[k].plot
			}
		}
	}
	const title = 20
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: 18, PadY: title + 6, PadTop: title}
	for i, row := range plot.Align(grid, tiles, c) {
		for j, cell := range row {
			if grid[i][j] == nil {
				continue
			}
			p := panels[i*columns+j]
			data := p.plot.DataCanvas(cell)
			p.plot.Draw(cell)
			write(c, sans(10.5, true, ink), draw.XLeft, data.Min.X, data.Max.Y+13, p.title)
		}
	}
}

// entry is one word of the legend.
type entry struct {
	text   string
	colour color.Color
	dashed bool
	glyph  *draw.GlyphStyle // instead of a line
}

// head is what stands above the panels: the name of a run alone, and a legend.
type head struct {
	name    string
	entries []entry
	at      []vg.Point // of the entries, from the left end of the first line
	height  vg.Length
}

var (
	headStyle  = sans(13, true, ink)
	entryStyle = sans(9.5, false, ink)
)

// newHeader lays a header out: the name to the left, the legend to the right of it,
// in as many lines as it takes.
func newHeader(runs []*Run, width vg.Length) head {
	h := head{entries: legend(runs)}
	const key, gap = 26, 16
	all := vg.Length(0)
	for i := range h.entries {
		h.entries[i].text = fit(entryStyle, h.entries[i].text, width/2)
		all += key + entryStyle.Width(h.entries[i].text) + gap
	}
	left := vg.Length(0)
	if len(runs) == 1 {
		h.name = fit(headStyle, runs[0].Name, width/2)
		left = max(headStyle.Width(h.name)+2*gap, width-all+gap)
	}
	x, y := left, vg.Length(0)
	for _, e := range h.entries {
		wide := key + entryStyle.Width(e.text)
		if x+wide > width && x > left {
			x, y = left, y-headerLine
		}
		h.at = append(h.at, vg.Point{X: x, Y: y})
		x += wide + gap
	}
	h.height = 2*margin + headerLine - y
	return h
}

func (h *head) draw(c draw.Canvas, from vg.Point) {
	write(c, headStyle, draw.XLeft, from.X, from.Y, h.name)
	for i, e := range h.entries {
		at := from.Add(h.at[i])
		e.key(c, at.X, at.Y)
		write(c, entryStyle, draw.XLeft, at.X+26, at.Y, e.text)
	}
}

// key draws a piece of what an entry explains.
func (e entry) key(c draw.Canvas, x, y vg.Length) {
	if e.glyph != nil {
		c.DrawGlyph(*e.glyph, vg.Point{X: x + 15, Y: y})
		return
	}
	s := draw.LineStyle{Color: e.colour, Width: 1.8}
	if e.dashed {
		s.Dashes = []vg.Length{4, 2.5}
	}
	c.StrokeLine2(s, x, y, x+21, y)
}

// legend lists what the picture has.
func legend(runs []*Run) (all []entry) {
	validated := slices.ContainsFunc(runs, (*Run).validates)
	switch {
	case len(runs) > 1:
		for i, r := range runs {
			all = append(all, entry{text: r.Name, colour: hue(i)})
		}
		if validated {
			all = append(all, entry{text: "training", colour: faint, dashed: true}, entry{text: "validation", colour: faint})
		}
	case validated:
		all = append(all, entry{text: "training", colour: hue(0)}, entry{text: "validation", colour: hue(1)})
	}
	for _, kind := range []string{"lost", "joined", "left"} {
		if slices.ContainsFunc(runs, func(r *Run) bool { return slices.ContainsFunc(r.Marks, func(m Mark) bool { return m.Kind == kind }) }) {
			style := glyphs[kind]
			all = append(all, entry{text: "node " + kind, glyph: &style})
		}
	}
	return all
}

// validates tells whether there are numbers on validation samples.
func (r *Run) validates() bool {
	return slices.ContainsFunc(r.Epochs, func(e Epoch) bool {
		return slices.ContainsFunc(e.Values, func(v train.Value) bool { return strings.HasPrefix(v.Name, validation) })
	})
}
