package kernel

import "testing"

// slowMax and slowMaxGrad are the loops of the doc comments.
func (g Pool) slowMax(x []float32) (y, arg []float32) {
	for oy := range g.OH {
		for ox := range g.OW {
			for c := range g.C {
				m, at, any := float32(0), 0, false
				g.each(oy, ox, func(ky, kx, i int) {
					v := x[i*g.C+c]
					if !any || m == m && !(v <= m) {
						m, at, any = v, ky*g.KW+kx, true
					}
				})
				y, arg = append(y, quiet32(m)), append(arg, float32(at))
			}
		}
	}
	return y, arg
}

// each calls f for the elements of a window, i being the pixel.
func (g Pool) each(oy, ox int, f func(ky, kx, i int)) {
	for ky := range g.KH {
		for kx := range g.KW {
			iy, ix := oy*g.SH+ky-g.Top, ox*g.SW+kx-g.Left
			if iy >= 0 && iy < g.H && ix >= 0 && ix < g.W {
				f(ky, kx, iy*g.W+ix)
			}
		}
	}
}

func (g Pool) slowMaxGrad(dy, arg []float32) []float32 {
	dx := make([]float32, g.H*g.W*g.C)
	for o := range g.OH * g.OW {
		g.each(o/g.OW, o%g.OW, func(ky, kx, i int) {
			for c := range g.C {
				var d float32
				if arg[o*g.C+c] == float32(ky*g.KW+kx) {
					d = dy[o*g.C+c]
				}
				dx[i*g.C+c] = quiet32(dx[i*g.C+c] + d)
			}
		})
	}
	return dx
}

func (g Pool) slowAverage(x []float32) []float32 {
	var y []float32
	for o := range g.OH * g.OW {
		for c := range g.C {
			s, n := float32(0), 0
			g.each(o/g.OW, o%g.OW, func(_, _, i int) { s, n = s+x[i*g.C+c], n+1 })
			y = append(y, quiet32(s/float32(n)))
		}
	}
	return y
}

func (g Pool) slowAverageGrad(dy []float32) []float32 {
	dx := make([]float32, g.H*g.W*g.C)
	for o := range g.OH * g.OW {
		n := 0
		g.each(o/g.OW, o%g.OW, func(_, _, _ int) { n++ })
		g.each(o/g.OW, o%g.OW, func(_, _, i int) {
			for c := range g.C {
				dx[i*g.C+c] = quiet32(dx[i*g.C+c] + dy[o*g.C+c]/float32(n))
			}
		})
	}
	return dx
}

func poolShape(src *source) Pool {
	pick := func(n uint64) int { return int(src.next() % n) }
	g := Pool{C: 1 + pick(40), KH: 1 + pick(3), KW: 1 + pick(3), SH: 1 + pick(3), SW: 1 + pick(3), OH: 1 + pick(5), OW: 1 + pick(5)}
	g.Top, g.Left = pick(uint64(g.KH)), pick(uint64(g.KW))
	g.H = max(1, (g.OH-1)*g.SH-g.Top+1+pick(3))
	g.W = max(1, (g.OW-1)*g.SW-g.Left+1+pick(3))
	return g
}

// poolShapes has, beside random ones, strips and windows that take several calls.
func poolShapes(src *source) []Pool {
	shapes := []Pool{
		{H: 2, W: 900, C: 40, KH: 2, KW: 2, SH: 2, SW: 2, OH: 1, OW: 450},
		{H: 40, W: 43, C: 33, KH: 40, KW: 43, SH: 1, SW: 1, OH: 1, OW: 1},
		{H: 3, W: 5, C: 3000, KH: 3, KW: 5, SH: 1, SW: 1, Top: 1, Left: 2, OH: 3, OW: 5},
		{H: 70, W: 20, C: 70, KH: 50, KW: 12, SH: 20, SW: 8, OH: 2, OW: 2},
		{H: 2, W: 5001, C: 1, KH: 2, KW: 5000, SH: 1, SW: 1, OH: 1, OW: 2},
		{H: 9, W: 7, C: 20, KH: 2, KW: 2, SH: 2, SW: 2, OH: 4, OW: 3},
		{H: 5, W: 5, C: 17, KH: 3, KW: 2, SH: 3, SW: 2, Top: 1, Left: 1, OH: 2, OW: 3},
	}
	for range 80 {
		shapes = append(shapes, poolShape(src))
	}
	return shapes
}

func TestPoolingMatchesItsLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(18)
		for i, g := range poolShapes(&src) {
			kind := src.harsh
			if i%2 == 0 {
				kind = src.normal
			}
			x, dy := kind(g.H*g.W*g.C), kind(g.OH*g.OW*g.C)
			wantY, wantArg := g.slowMax(x)
			y, checkY := fenced(t, dy)
			arg, checkArg := fenced(t, dy)
			g.Max(x, y, arg)
			sameBits32(t, "Max", y, wantY)
			sameBits32(t, "Max's arg", arg, wantArg)
			checkY()
			checkArg()
			dx, checkX := fenced(t, x)
			g.MaxGrad(dy, arg, dx)
			sameBits32(t, "MaxGrad", dx, g.slowMaxGrad(dy, arg))
			g.Average(x, y)
			sameBits32(t, "Average", y, g.slowAverage(x))
			checkY()
			g.AverageGrad(dy, dx)
			sameBits32(t, "AverageGrad", dx, g.slowAverageGrad(dy))
			checkX()
		}
	})
}

func TestPoolingAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T) {
		g := Pool{H: 9, W: 7, C: 20, KH: 3, KW: 2, SH: 2, SW: 2, Top: 1, OH: 5, OW: 3}
		x, y, arg := make([]float32, g.H*g.W*g.C), make([]float32, g.OH*g.OW*g.C), make([]float32, g.OH*g.OW*g.C)
		if n := testing.AllocsPerRun(5, func() {
			g.Max(x, y, arg)
			g.MaxGrad(y, arg, x)
			g.Average(x, y)
			g.AverageGrad(y, x)
		}); n != 0 {
			t.Errorf("a round allocates %v times", n)
		}
	})
}
