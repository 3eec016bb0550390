package kernel

import (
	"math"
	"testing"

	"github.com/dlnode/dlnode/internal/fmath"
)

// at is an element of an image [h, w, c], +0 outside it.
func at(x []float32, h, w, c, i, j, k int) float32 {
	if i < 0 || i >= h || j < 0 || j >= w {
		return 0
	}
	return x[(i*w+j)*c+k]
}

// weight is w[ky,kx,c,f].
func (g Conv) weight(ky, kx, c, f int) int { return ((ky*g.KW+kx)*g.C+c)*g.F + f }

// slowForward, slowWeightGrad and slowInputGrad are the loops of the doc comments.
func (g Conv) slowForward(x, w, bias []float32, relu bool) []float32 {
	var y []float32
	for oy := range g.OH {
		for ox := range g.OW {
			for f := range g.F {
				var s float32
				for ky := range g.KH {
					for kx := range g.KW {
						for c := range g.C {
							s = fmath.FMA32(at(x, g.H, g.W, g.C, oy*g.SH+ky-g.Top, ox*g.SW+kx-g.Left, c), w[g.weight(ky, kx, c, f)], s)
						}
					}
				}
				if bias != nil {
					s += bias[f]
				}
				if relu && !(s > 0) {
					s = 0
				}
				y = append(y, quiet32(s))
			}
		}
	}
	return y
}

func (g Conv) slowWeightGrad(x, dy, dw []float32) {
	for ky := range g.KH {
		for kx := range g.KW {
			for c := range g.C {
				for f := range g.F {
					s := &dw[g.weight(ky, kx, c, f)]
					for oy := range g.OH {
						for ox := range g.OW {
							*s = fmath.FMA32(at(x, g.H, g.W, g.C, oy*g.SH+ky-g.Top, ox*g.SW+kx-g.Left, c), dy[(oy*g.OW+ox)*g.F+f], *s)
						}
					}
					*s = quiet32(*s)
				}
			}
		}
	}
}

func (g Conv) slowInputGrad(dy, w []float32) []float32 {
	var dx []float32
	for iy := range g.H {
		for ix := range g.W {
			for c := range g.C {
				var s float32
				for ky := g.KH - 1; ky >= 0; ky-- {
					for kx := g.KW - 1; kx >= 0; kx-- {
						oy, ox := iy+g.Top-ky, ix+g.Left-kx
						if oy%g.SH != 0 || ox%g.SW != 0 {
							continue
						}
						for f := range g.F {
							s = fmath.FMA32(at(dy, g.OH, g.OW, g.F, oy/g.SH, ox/g.SW, f), w[g.weight(ky, kx, c, f)], s)
						}
					}
				}
				dx = append(dx, quiet32(s))
			}
		}
	}
	return dx
}

func convShapes(src *source) []Conv {
	shapes := []Conv{
		{H: 28, W: 28, C: 1, KH: 3, KW: 3, F: 32, SH: 1, SW: 1, OH: 26, OW: 26},
		{H: 9, W: 14, C: 32, KH: 3, KW: 3, F: 40, SH: 1, SW: 1, OH: 7, OW: 12},
		{H: 4, W: 5, C: 96, KH: 3, KW: 3, F: 7, SH: 1, SW: 1, Top: 1, Left: 1, OH: 4, OW: 5},
		{H: 3, W: 300, C: 2, KH: 2, KW: 2, F: 3, SH: 1, SW: 1, OH: 2, OW: 299},
	}
	pick := func(n uint64) int { return int(src.next() % n) }
	for range 60 {
		g := Conv{C: 1 + pick(9), KH: 1 + pick(4), KW: 1 + pick(4), F: 1 + pick(36), SH: 1 + pick(3), SW: 1 + pick(3), OH: 1 + pick(5), OW: 1 + pick(16)}
		g.Top, g.Left = pick(uint64(g.KH)), pick(uint64(g.KW))
		// What the windows cover, more or less: pixels behind may be missing or unseen.
		g.H = max(1, (g.OH-1)*g.SH+g.KH-g.Top-1+pick(3))
		g.W = max(1, (g.OW-1)*g.SW+g.KW-g.Left-1+pick(3))
		shapes = append(shapes, g)
	}
	return shapes
}

func TestConvolutionsMatchTheirLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(12)
		var s Scratch
		for i, g := range convShapes(&src) {
			kind := src.normal
			if i%3 == 2 {
				kind = src.harsh
			}
			x, w, dy, bias := kind(g.H*g.W*g.C), kind(g.KH*g.KW*g.C*g.F), kind(g.OH*g.OW*g.F), kind(g.F)
			if i%2 == 0 {
				bias = nil
			}
			y, checkY := fenced(t, dy)
			g.Forward(&s, x, w, bias, i%4 < 2, y)
			sameBits32(t, "Forward", y, g.slowForward(x, w, bias, i%4 < 2))
			checkY()

			dw, checkW := fenced(t, w)
			want := append([]float32(nil), w...)
			if i%2 == 0 {
				clear(want)
			}
			g.WeightGrad(&s, x, dy, dw, i%2 != 0)
			g.slowWeightGrad(x, dy, want)
			sameBits32(t, "WeightGrad", dw, want)
			checkW()

			flipped := make([]float32, len(w))
			g.Flip(flipped, w)
			dx, checkX := fenced(t, x)
			g.InputGrad(&s, dy, flipped, dx)
			sameBits32(t, "InputGrad", dx, g.slowInputGrad(dy, w))
			checkX()
		}
	})
}

func TestConvolutionsAllocateNothing(t *testing.T) {
	each(t, func(t *testing.T) {
		g := Conv{H: 9, W: 9, C: 3, KH: 3, KW: 3, F: 8, SH: 2, SW: 1, Top: 1, Left: 1, OH: 5, OW: 9}
		x, w, y := make([]float32, g.H*g.W*g.C), make([]float32, g.KH*g.KW*g.C*g.F), make([]float32, g.OH*g.OW*g.F)
		var s Scratch
		if n := testing.AllocsPerRun(5, func() {
			g.Forward(&s, x, w, nil, true, y)
			g.WeightGrad(&s, x, y, w, true)
			g.InputGrad(&s, y, w, x)
		}); n != 0 || math.IsNaN(n) {
			t.Errorf("a round allocates %v times", n)
		}
	})
}

func BenchmarkConv(b *testing.B) {
	before := Name()
	defer func() { must(b, Use(before)) }()
	for _, name := range Variants() {
		must(b, Use(name))
		for what, g := range map[string]Conv{
			"conv32": {H: 28, W: 28, C: 1, KH: 3, KW: 3, F: 32, SH: 1, SW: 1, OH: 26, OW: 26},
			"conv64": {H: 26, W: 26, C: 32, KH: 3, KW: 3, F: 64, SH: 1, SW: 1, OH: 24, OW: 24},
		} {
			src := source(13)
			x, w, y := src.normal(g.H*g.W*g.C), src.normal(g.KH*g.KW*g.C*g.F), src.normal(g.OH*g.OW*g.F)
			dx, dw, dy := src.normal(len(x)), src.normal(len(w)), src.normal(len(y))
			var s Scratch
			for _, f := range []struct {
				name string
				run  func()
			}{
				{"y", func() { g.Forward(&s, x, w, nil, false, y) }},
				{"dW", func() { g.WeightGrad(&s, x, dy, dw, false) }},
				{"dx", func() { g.InputGrad(&s, dy, w, dx) }},
			} {
				b.Run(name+"/"+what+"/"+f.name, func(b *testing.B) {
					for b.Loop() {
						f.run()
					}
					flops := 2 * float64(g.OH*g.OW*g.F*g.KH*g.KW*g.C) * float64(b.N)
					b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
		}
	}
}
