package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// palette is Okabe and Ito's, which colour-blind people can tell apart.
var palette = []color.Color{
	color.NRGBA{0x00, 0x72, 0xb2, 0xff}, color.NRGBA{0xd5, 0x5e, 0x00, 0xff}, color.NRGBA{0x00, 0x9e, 0x73, 0xff},
	color.NRGBA{0xcc, 0x79, 0xa7, 0xff}, color.NRGBA{0xe6, 0x9f, 0x00, 0xff}, color.NRGBA{0x56, 0xb4, 0xe9, 0xff},
}

// drawAll draws all pictures, that of points if there are any.
func drawAll(dir string, points []point) error {
	pictures := map[string][]*plot.Plot{
		"scaling-efficiency": efficiencies(),
		"scaling-algorithms": algorithms(),
	}
	if points != nil {
		pictures["scaling-check"] = []*plot.Plot{checked(points)}
	}
	for _, name := range sortedKeys(pictures) {
		if err := save(filepath.Join(dir, name+".svg"), pictures[name]); err != nil {
			return err
		}
	}
	return nil
}

// Sizes of a panel.
const (
	panelWidth  = 4.1 * vg.Inch
	panelHeight = 3.1 * vg.Inch
)

// save writes panels two in a row, as SVG, and as PNG where -png asks for that.
func save(path string, panels []*plot.Plot) error {
	columns := min(2, len(panels))
	rows := (len(panels) + columns - 1) / columns
	width, height := panelWidth*vg.Length(columns), panelHeight*vg.Length(rows)
	if columns == 1 {
		width, height = 1.4*width, 1.3*height
	}
	svg := vgsvg.New(width, height)
	paint(draw.New(svg), panels, rows, columns)
	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	const ours = "font-family:Liberation Sans;" // fonts of the same widths beside it, which few machines have
	text := bytes.ReplaceAll(b.Bytes(), []byte(ours), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	if !*pngs {
		return nil
	}
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(110))
	paint(draw.New(img), panels, rows, columns)
	b.Reset()
	if _, err := (vgimg.PngCanvas{Canvas: img}).WriteTo(&b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path[:len(path)-len(".svg")]+".png", b.Bytes(), 0o644)
}

func paint(c draw.Canvas, panels []*plot.Plot, rows, columns int) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: 12, PadY: 12, PadTop: 6, PadBottom: 6, PadLeft: 6, PadRight: 14}
	for i, p := range panels {
		p.Draw(tiles.At(c, i%columns, i/columns))
	}
}

func panel(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	sans := font.Font{Typeface: "Liberation", Variant: "Sans"}
	p.Title.TextStyle.Font = font.From(sans, 11)
	for _, f := range []*font.Font{&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		*f = font.From(sans, 9)
	}
	p.Add(&plotter.Grid{Horizontal: gridLine, Vertical: gridLine})
	p.Legend.Padding = 1
	return p
}

var gridLine = draw.LineStyle{Color: color.Gray{0xe4}, Width: 0.5}

// powers labels powers of a base, at most eight or so.
type powers struct {
	base  float64
	label func(float64) string
}

// Ticks implements plot.Ticker.
func (t powers) Ticks(lo, hi float64) (all []plot.Tick) {
	first, last := math.Ceil(math.Log(lo)/math.Log(t.base)-1e-9), math.Floor(math.Log(hi)/math.Log(t.base)+1e-9)
	for e := first; e <= last; e++ {
		v := math.Pow(t.base, e)
		all = append(all, plot.Tick{Value: v, Label: t.label(v)})
	}
	return all
}

func count(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func overWorlds(p *plot.Plot) {
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, powers{2, func(v float64) string {
		if e := int(math.Round(math.Log2(v))); e%2 == 0 {
			return count(v)
		}
		return ""
	}}
	p.X.Min, p.X.Max = 8, 4096
}

func overTimes(a *plot.Axis) { a.Scale, a.Tick.Marker = plot.LogScale{}, powers{10, span} }

// line adds a curve over worlds.
func line(p *plot.Plot, i int, name string, dashed bool, of func(world int) float64) {
	l := &plotter.Line{LineStyle: draw.LineStyle{Color: palette[i%len(palette)], Width: 1.5}}
	if dashed {
		l.Dashes = []vg.Length{4, 3}
	}
	for e := 3.; e <= 12; e += 0.5 {
		w := int(math.Round(math.Exp2(e)))
		l.XYs = append(l.XYs, plotter.XY{X: float64(w), Y: of(w)})
	}
	p.Add(l)
	if name != "" {
		p.Legend.Add(name, l)
	}
}

// efficiencies has a panel for each link, and in it a curve for each net: with what dlnode has, and dashed
// with all algorithms and combined headers.
func efficiencies() (all []*plot.Plot) {
	for i, l := range Links {
		p := panel("efficiency, "+l.Name, "nodes", "%")
		overWorlds(p)
		p.Y.Min, p.Y.Max = 0, 100
		for j, n := range Nets {
			name := ""
			if i == len(Links)-1 {
				name = n.Name
			}
			line(p, j, name, false, func(w int) float64 { _, s := Best(n, w, l, Node, false); return 100 * s.Efficiency() })
			line(p, j, "", true, func(w int) float64 { _, s := Best(n, w, l, Node, true); return 100 * s.Efficiency() })
		}
		p.Legend.Top = true
		all = append(all, p)
	}
	return all
}

// algorithms has the all-reduce of a small and a large net by algorithm, on two links.
func algorithms() (all []*plot.Plot) {
	for _, n := range extremes {
		for _, l := range []Link{Links[1], Links[3]} {
			p := panel(fmt.Sprintf("all-reduce of %s, %s", n.Name, l.Name), "nodes", "")
			overWorlds(p)
			overTimes(&p.Y)
			for i, a := range Algorithms[1:] {
				name := a.Name
				switch {
				case a.Most > 0:
					name += fmt.Sprintf(" (to %d)", a.Most)
				case !a.Built:
					name += " (not built)"
				}
				line(p, i, name, !a.Built || a.Most > 0, func(w int) float64 { return Predict(n, w, l, Node, a).Reduce })
			}
			p.Legend.Top, p.Legend.Left = true, true
			if l.Name != Links[1].Name || n.Name != Nets[0].Name {
				p.Legend = plot.NewLegend() // one is enough
			}
			p.Y.Min = math.Pow(10, math.Floor(math.Log10(p.Y.Min)))
			p.Y.Max = math.Pow(10, math.Ceil(math.Log10(p.Y.Max)))
			all = append(all, p)
		}
	}
	return all
}

// checked has predictions over measurements, around the line where they are equal.
func checked(points []point) *plot.Plot {
	p := panel("an all-reduce, predicted and measured", "measured", "predicted")
	overTimes(&p.X)
	overTimes(&p.Y)
	sets := map[string]plotter.XYs{}
	lo, hi := math.Inf(1), 0.
	for _, q := range points {
		name := q.Set + ", predicted"
		if q.Fitted {
			name = q.Set + ", fitted"
		}
		at := plotter.XY{X: q.Mean * 1e-6, Y: q.Predicted}
		sets[name] = append(sets[name], at)
		lo, hi = min(lo, at.X, at.Y), max(hi, at.X, at.Y)
	}
	lo, hi = lo/1.3, hi*1.3
	p.Add(&plotter.Line{XYs: plotter.XYs{{X: lo, Y: lo}, {X: hi, Y: hi}}, LineStyle: draw.LineStyle{Color: color.Gray{0x77}, Width: 1}})
	for _, by := range []float64{2, 0.5} {
		p.Add(&plotter.Line{XYs: plotter.XYs{{X: lo, Y: lo * by}, {X: hi, Y: hi * by}}, LineStyle: draw.LineStyle{Color: color.Gray{0xaa}, Width: 0.7, Dashes: []vg.Length{3, 3}}})
	}
	for i, name := range sortedKeys(sets) {
		s := &plotter.Scatter{XYs: sets[name], GlyphStyle: draw.GlyphStyle{Color: palette[i%len(palette)], Radius: 3, Shape: draw.CircleGlyph{}}}
		p.Add(s)
		p.Legend.Add(name, s)
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = lo, hi, lo, hi
	return p
}
