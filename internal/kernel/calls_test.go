package kernel

import "testing"

// A call in assembly can't be preempted. So what one call does is bounded, whatever
// the shape: here in registers that it works on, of which a thousand take some
// microseconds, for the shapes that do the most in a call.
func TestNoCallDoesMuch(t *testing.T) {
	const most = 2048
	seen := map[string]int{}
	saw := func(what string, registers int) { seen[what] = max(seen[what], registers) }
	watched := *active
	watched.watch(saw)
	defer func(was *variant) { active = was }(active)
	active = &watched

	x, y := make([]float32, 1<<20), make([]float32, 1<<20)
	Transpose(y, x, 1<<17)
	Transpose(y, x, 8)
	Conv{H: 1, W: 1, C: 64, KH: 1, KW: 1, F: 1 << 14, SH: 1, SW: 1, OH: 1, OW: 1}.Flip(y, x)
	row := Conv{H: 1, W: 1 << 18, C: 1, KH: 1, KW: 1, F: 2, SH: 1, SW: 1, OH: 1, OW: 1 << 18}
	row.Forward(new(Scratch), x[:1<<18], []float32{1, 2}, nil, false, y[:1<<19])
	for _, g := range []Pool{
		{H: 1, W: 1 << 18, C: 1, KH: 1, KW: 1 << 18, SH: 1, SW: 1, OH: 1, OW: 1},
		{H: 1 << 10, W: 1 << 8, C: 1, KH: 1 << 10, KW: 1 << 8, SH: 1, SW: 1, OH: 1, OW: 1},
		{H: 64, W: 64, C: 1, KH: 17, KW: 17, SH: 1, SW: 1, OH: 48, OW: 48},
		{H: 3, W: 3, C: 1 << 15, KH: 2, KW: 2, SH: 1, SW: 1, OH: 2, OW: 2},
	} {
		in, out := g.H*g.W*g.C, g.OH*g.OW*g.C
		arg := make([]float32, out)
		g.Max(x[:in], y[:out], arg)
		g.MaxGrad(y[:out], arg, x[:in])
		g.Average(x[:in], y[:out])
		g.AverageGrad(y[:out], x[:in])
	}
	for _, n := range []int{1, 8, 1 << 14} {
		SumRows(make([]float32, n), x, false)
		c := make([]float64, n)
		NormSums(c, c, x[:1<<14], c)
	}
	for what, registers := range seen {
		if registers > most {
			t.Errorf("a call of %s works on %d registers, want at most %d", what, registers, most)
		}
	}
	if active.transpose != nil && len(seen) != 8 {
		t.Errorf("%d functions were seen: %v", len(seen), seen)
	}
}

// watch has some functions of v say on how many registers of 16 float32 they work.
func (v *variant) watch(saw func(what string, registers int)) {
	registers := func(n int) int { return (n + 15) / 16 }
	if transpose := v.transpose; transpose != nil {
		v.transpose = func(dst, src *float32, blocks, dstStride, srcStride int) {
			saw("transpose", 8*blocks)
			transpose(dst, src, blocks, dstStride, srcStride)
		}
	}
	product, sums, rowSum := v.product, v.normSums, v.sumRows
	v.sumRows = func(dst, x []float32, rows, stride int) {
		saw("sumRows", rows*registers(len(dst))/16) // which stay where they are
		rowSum(dst, x, rows, stride)
	}
	v.product = func(w *panel) {
		saw("product", w.tile*registers(w.cols))
		product(w)
	}
	v.normSums = func(sum, square []float64, x []float32, mean []float64, rows int) {
		saw("normSums", rows*registers(len(mean)))
		sums(sum, square, x, mean, rows)
	}
	for what, f := range map[string]*func(pooling){
		"poolMax": &v.poolMax, "poolMaxGrad": &v.poolMaxGrad, "poolAverage": &v.poolAverage, "poolAverageGrad": &v.poolAverageGrad,
	} {
		pool := *f
		*f = func(w pooling) {
			saw(what, w.pixels*w.kh*w.kw*registers(w.c))
			pool(w)
		}
	}
}
