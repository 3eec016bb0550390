package nn

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/dlnode/dlnode/internal/rng"
	"pgregory.net/rapid"
)

// batchTwin is the layers over axes once more: a whole batch at a time, since
// batch normalization looks at one, in float64, by indices and textbooks.
type batchTwin struct {
	key    Key
	ids    []uint64
	train  bool
	params []float64 // what is left of them
	kink   float64   // least distance from where there is no derivative

	index, depth int
	draws        uint64
	mask         [][]bool // [n][t]; nil: all is there
}

// cut takes the next n parameters.
func (tw *batchTwin) cut(n int) []float64 {
	p := tw.params[:n]
	tw.params = tw.params[n:]
	return p
}

// masks draws the dropout masks of one operation, one for each sample.
func (tw *batchTwin) masks(rate float64, width int) [][]float64 {
	layer := uint64(tw.index) | tw.draws<<32
	tw.draws++
	all := make([][]float64, len(tw.ids))
	for i, id := range tw.ids {
		s := rng.New(tw.key.Seed, rng.Dropout, tw.key.Step, id, layer)
		all[i] = make([]float64, width)
		for j := range all[i] {
			if !tw.train || rate == 0 {
				all[i][j] = 1
			} else if float64(rng.Unit32(s.Uint32(uint64(j)))) >= rate {
				all[i][j] = 1 / (1 - rate)
			}
		}
	}
	return all
}

func (tw *batchTwin) run(layers []LayerSpec, x [][]float64, shape []int) ([][]float64, []int) {
	tw.depth++
	defer func() { tw.depth-- }()
	for i, l := range layers {
		if tw.depth == 1 {
			tw.index, tw.draws = i, 0
		}
		x, shape = tw.layer(l, x, shape)
	}
	return x, shape
}

func (tw *batchTwin) layer(l LayerSpec, x [][]float64, shape []int) ([][]float64, []int) {
	each := func(f func(i int, x []float64) []float64) [][]float64 {
		y := make([][]float64, len(x))
		for i := range x {
			y[i] = f(i, x[i])
		}
		return y
	}
	switch l := l.(type) {
	case *Dense:
		w := len(x[0]) * l.Units
		if l.UseBias {
			w += l.Units
		}
		p := tw.cut(w)
		return each(func(_ int, v []float64) []float64 {
			y, _ := dense64(l, p, v)
			return tw.activate(l.Activation, y)
		}), []int{l.Units}
	case *Activation:
		return each(func(_ int, v []float64) []float64 { return tw.activate(l.Function, v) }), shape
	case *Flatten:
		tw.mask = nil
		return x, []int{len(x[0])}
	case *Reshape:
		tw.mask = nil
		return x, l.TargetShape
	case *SpatialDropout2D:
		m := tw.masks(l.Rate, shape[2])
		return each(func(i int, v []float64) []float64 {
			y := make([]float64, len(v))
			for j := range v {
				y[j] = v[j] * m[i][j%shape[2]]
			}
			return y
		}), shape
	case *Conv2D:
		return tw.conv(l, x, shape)
	case *MaxPooling2D:
		return tw.pool(&l.Pooling, true, x, shape)
	case *AveragePooling2D:
		return tw.pool(&l.Pooling, false, x, shape)
	case *GlobalMaxPooling2D:
		y, s := tw.pool(&Pooling{PoolSize: Pair{shape[0], shape[1]}}, true, x, shape)
		return y, s[2:]
	case *GlobalAveragePooling2D:
		y, s := tw.pool(&Pooling{PoolSize: Pair{shape[0], shape[1]}}, false, x, shape)
		return y, s[2:]
	case *BatchNormalization:
		return tw.batchNorm(l, x, shape[len(shape)-1]), shape
	case *LayerNormalization:
		return tw.layerNorm(l, x, shape[len(shape)-1]), shape
	case *Embedding:
		return tw.embed(l, x, shape)
	case *LSTM:
		return tw.recur(4, l.Units, l.UseBias, l.ReturnSequences, false, l.Dropout, l.RecurrentDropout, x, shape)
	case *GRU:
		return tw.recur(3, l.Units, l.UseBias, l.ReturnSequences, false, l.Dropout, l.RecurrentDropout, x, shape)
	case *Bidirectional:
		var parts [2][][]float64
		var out []int
		mask := tw.mask
		for i := range parts {
			tw.mask = mask
			switch l := l.Layer.(type) {
			case *LSTM:
				parts[i], out = tw.recur(4, l.Units, l.UseBias, l.ReturnSequences, i == 1, l.Dropout, l.RecurrentDropout, x, shape)
			case *GRU:
				parts[i], out = tw.recur(3, l.Units, l.UseBias, l.ReturnSequences, i == 1, l.Dropout, l.RecurrentDropout, x, shape)
			}
		}
		return joined(parts[:], [][]int{out, out}, l.MergeMode == "sum")
	case *Residual:
		y, s := tw.run(l.Layers, x, shape)
		other, _ := tw.run(l.Shortcut, x, shape)
		return joined([][][]float64{y, other}, [][]int{s, s}, true)
	case *Concat:
		var parts [][][]float64
		var shapes [][]int
		for _, b := range l.Branches {
			y, s := tw.run(b, x, shape)
			parts, shapes = append(parts, y), append(shapes, s)
		}
		return joined(parts, shapes, false)
	}
	panic(fmt.Sprintf("the twin knows no %T", l))
}

func joined(parts [][][]float64, shapes [][]int, add bool) ([][]float64, []int) {
	out := append([]int(nil), shapes[0]...)
	last := len(out) - 1
	y := make([][]float64, len(parts[0]))
	if add {
		for i := range y {
			y[i] = make([]float64, len(parts[0][i]))
			for _, p := range parts {
				for j, v := range p[i] {
					y[i][j] += v
				}
			}
		}
		return y, out
	}
	out[last] = 0
	for _, s := range shapes {
		out[last] += s[last]
	}
	for i := range y {
		for r := 0; r*shapes[0][last] < len(parts[0][i]); r++ {
			for b, p := range parts {
				y[i] = append(y[i], row64(p[i], r, shapes[b][last])...)
			}
		}
	}
	return y, out
}

func (tw *batchTwin) activate(function string, x []float64) []float64 {
	one := twin{kink: tw.kink}
	y := one.activate(function, x)
	tw.kink = one.kink
	return y
}

// places lists windows of an image: the pixels (y, x) under each that exist.
func places(shape []int, k, s Pair, padding string) (oh, ow int, under func(oy, ox int, do func(ky, kx, y, x int))) {
	var top, left int
	oh, ow = (shape[0]-k[0])/s[0]+1, (shape[1]-k[1])/s[1]+1
	if padding == "same" {
		oh, ow = int(math.Ceil(float64(shape[0])/float64(s[0]))), int(math.Ceil(float64(shape[1])/float64(s[1])))
		top, left = max((oh-1)*s[0]+k[0]-shape[0], 0)/2, max((ow-1)*s[1]+k[1]-shape[1], 0)/2
	}
	return oh, ow, func(oy, ox int, do func(ky, kx, y, x int)) {
		for ky := range k[0] {
			for kx := range k[1] {
				y, x := oy*s[0]+ky-top, ox*s[1]+kx-left
				if y >= 0 && y < shape[0] && x >= 0 && x < shape[1] {
					do(ky, kx, y, x)
				}
			}
		}
	}
}

func (tw *batchTwin) conv(l *Conv2D, x [][]float64, shape []int) ([][]float64, []int) {
	c, f, k := shape[2], l.Filters, l.KernelSize
	w := tw.cut(k[0] * k[1] * c * f)
	bias := make([]float64, f)
	if l.UseBias {
		bias = tw.cut(f)
	}
	oh, ow, under := places(shape, k, l.Strides, l.Padding)
	y := make([][]float64, len(x))
	for i, v := range x {
		for oy := range oh {
			for ox := range ow {
				out := append([]float64(nil), bias...)
				under(oy, ox, func(ky, kx, py, px int) {
					for j := range c {
						for o := range f {
							out[o] += v[(py*shape[1]+px)*c+j] * w[((ky*k[1]+kx)*c+j)*f+o]
						}
					}
				})
				y[i] = append(y[i], out...)
			}
		}
		y[i] = tw.activate(l.Activation, y[i])
	}
	return y, []int{oh, ow, f}
}

func (tw *batchTwin) pool(p *Pooling, greatest bool, x [][]float64, shape []int) ([][]float64, []int) {
	s := p.Strides
	if s == (Pair{}) {
		s = p.PoolSize
	}
	oh, ow, under := places(shape, p.PoolSize, s, p.Padding)
	y := make([][]float64, len(x))
	for i, v := range x {
		for at := range oh * ow * shape[2] {
			var sum, count float64
			best, second := math.Inf(-1), math.Inf(-1)
			under(at/shape[2]/ow, at/shape[2]%ow, func(_, _, py, px int) {
				e := v[(py*shape[1]+px)*shape[2]+at%shape[2]]
				sum, count = sum+e, count+1
				if e > best {
					best, second = e, best
				} else {
					second = max(second, e)
				}
			})
			if greatest {
				if best != second {
					tw.kink = min(tw.kink, best-second)
				} else if best != 0 { // zeros of a relu are no kink: both have slope 0
					tw.kink = 0
				}
				y[i] = append(y[i], best)
			} else {
				y[i] = append(y[i], sum/count)
			}
		}
	}
	return y, []int{oh, ow, shape[2]}
}

func (tw *batchTwin) scales(scale, center bool, c int) (gamma, beta []float64) {
	gamma, beta = make([]float64, c), make([]float64, c)
	for j := range gamma {
		gamma[j] = 1
	}
	if scale {
		gamma = tw.cut(c)
	}
	if center {
		beta = tw.cut(c)
	}
	return gamma, beta
}

func (tw *batchTwin) batchNorm(l *BatchNormalization, x [][]float64, c int) [][]float64 {
	gamma, beta := tw.scales(l.Scale, l.Center, c)
	mean, variance := tw.cut(c), tw.cut(c)
	if tw.train && l.Trainable {
		mean, variance = make([]float64, c), make([]float64, c)
		rows := float64(len(x) * len(x[0]) / c)
		for _, v := range x {
			for j, e := range v {
				mean[j%c] += e / rows
			}
		}
		for _, v := range x {
			for j, e := range v {
				variance[j%c] += (e - mean[j%c]) * (e - mean[j%c]) / rows
			}
		}
	}
	y := make([][]float64, len(x))
	for i, v := range x {
		for j, e := range v {
			k := j % c
			y[i] = append(y[i], gamma[k]*(e-mean[k])/math.Sqrt(math.Abs(variance[k])+l.Epsilon)+beta[k])
		}
	}
	return y
}

func (tw *batchTwin) layerNorm(l *LayerNormalization, x [][]float64, c int) [][]float64 {
	gamma, beta := tw.scales(l.Scale, l.Center, c)
	y := make([][]float64, len(x))
	for i := range x {
		for r := 0; r*c < len(x[i]); r++ {
			v := row64(x[i], r, c)
			var mean, variance float64
			for _, e := range v {
				mean += e / float64(c)
			}
			for _, e := range v {
				variance += (e - mean) * (e - mean) / float64(c)
			}
			for j, e := range v {
				y[i] = append(y[i], gamma[j]*(e-mean)/math.Sqrt(variance+l.Epsilon)+beta[j])
			}
		}
	}
	return y
}

func (tw *batchTwin) embed(l *Embedding, x [][]float64, shape []int) ([][]float64, []int) {
	table := tw.cut(l.InputDim * l.OutputDim)
	y := make([][]float64, len(x))
	for i, v := range x {
		if l.MaskZero {
			tw.mask = append(tw.mask, make([]bool, len(v)))
		}
		for t, id := range v {
			y[i] = append(y[i], row64(table, int(id), l.OutputDim)...)
			if l.MaskZero {
				tw.mask[i][t] = id != 0
			}
		}
	}
	return y, []int{shape[0], l.OutputDim}
}

func (tw *batchTwin) recur(gates, u int, useBias, sequences, reverse bool, drop, recDrop float64, x [][]float64, shape []int) ([][]float64, []int) {
	steps, d := shape[0], shape[1]
	kernel, recurrent := tw.cut(d*gates*u), tw.cut(u*gates*u)
	bias := make([]float64, 6*u)
	if useBias && gates == 4 {
		bias = tw.cut(4 * u)
	} else if useBias {
		bias = tw.cut(6 * u)
	}
	in, carry := tw.masks(drop, d), tw.masks(recDrop, u)
	sigma := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	y := make([][]float64, len(x))
	for i := range x {
		h, c := make([]float64, u), make([]float64, u)
		all := make([]float64, steps*u)
		for s := range steps {
			t := s
			if reverse {
				t = steps - 1 - s
			}
			if tw.mask == nil || tw.mask[i][t] {
				a, b := make([]float64, gates*u), make([]float64, gates*u)
				for g := range a {
					a[g] = bias[g]
					if gates == 3 {
						b[g] = bias[3*u+g]
					}
					for j := range d {
						a[g] += x[i][t*d+j] * in[i][j] * kernel[j*gates*u+g]
					}
					for j := range u {
						b[g] += h[j] * carry[i][j] * recurrent[j*gates*u+g]
					}
				}
				for j := range u {
					if gates == 4 {
						c[j] = sigma(a[u+j]+b[u+j])*c[j] + sigma(a[j]+b[j])*math.Tanh(a[2*u+j]+b[2*u+j])
						h[j] = sigma(a[3*u+j]+b[3*u+j]) * math.Tanh(c[j])
						continue
					}
					z, r := sigma(a[j]+b[j]), sigma(a[u+j]+b[u+j])
					h[j] = z*h[j] + (1-z)*math.Tanh(a[2*u+j]+r*b[2*u+j])
				}
			}
			copy(all[t*u:], h)
		}
		y[i] = h
		if sequences {
			y[i] = all
		}
	}
	if sequences {
		return y, []int{steps, u}
	}
	tw.mask = nil
	return y, []int{u}
}

// drawnLayers draws the part of a model that comes before flatten, and what it
// takes.
func drawnLayers(t *rapid.T) (layers []LayerSpec, input []int, vocabulary int) {
	size := func(name string) Pair {
		return Pair{rapid.IntRange(1, 3).Draw(t, name), rapid.IntRange(1, 3).Draw(t, name)}
	}
	small := rapid.IntRange(1, 3)
	yes := rapid.Bool()
	rate := rapid.SampledFrom([]float64{0, 0.3})
	norm := func() LayerSpec {
		if yes.Draw(t, "batch norm") {
			n := NewBatchNormalization()
			n.Center, n.Scale, n.Epsilon = yes.Draw(t, "center"), yes.Draw(t, "scale"), 0.1
			n.Trainable = rapid.IntRange(0, 3).Draw(t, "frozen") > 0
			return n
		}
		n := NewLayerNormalization()
		n.Center, n.Scale, n.Epsilon = yes.Draw(t, "center"), yes.Draw(t, "scale"), 0.1
		return n
	}
	conv := func(filters int) *Conv2D {
		c := NewConv2D(filters, size("kernel"), rapid.SampledFrom([]string{"linear", "relu", "tanh"}).Draw(t, "activation"))
		c.Padding, c.UseBias = "same", yes.Draw(t, "bias")
		return c
	}
	cell := func(sequences bool) LayerSpec {
		var l LayerSpec
		if yes.Draw(t, "lstm") {
			c := NewLSTM(small.Draw(t, "units"))
			c.UseBias, c.ReturnSequences, c.Dropout, c.RecurrentDropout = yes.Draw(t, "bias"), sequences, rate.Draw(t, "dropout"), rate.Draw(t, "recurrent")
			l = c
		} else {
			c := NewGRU(small.Draw(t, "units"))
			c.UseBias, c.ReturnSequences, c.Dropout, c.RecurrentDropout = yes.Draw(t, "bias"), sequences, rate.Draw(t, "dropout"), rate.Draw(t, "recurrent")
			l = c
		}
		if yes.Draw(t, "both ways") {
			b := NewBidirectional(l)
			b.MergeMode = rapid.SampledFrom([]string{"sum", "concat"}).Draw(t, "merge")
			l = b
		}
		return l
	}
	if yes.Draw(t, "sequence") {
		steps := rapid.IntRange(1, 4).Draw(t, "time")
		input = []int{steps, 2}
		if yes.Draw(t, "embedding") {
			vocabulary = 4
			e := NewEmbedding(vocabulary, small.Draw(t, "width"))
			e.MaskZero = yes.Draw(t, "mask")
			layers, input = append(layers, e), []int{steps}
		}
		if yes.Draw(t, "two") {
			layers = append(layers, cell(true))
		}
		return append(layers, cell(yes.Draw(t, "sequences"))), input, vocabulary
	}
	input = []int{rapid.IntRange(1, 4).Draw(t, "h"), rapid.IntRange(1, 4).Draw(t, "w"), rapid.IntRange(1, 2).Draw(t, "c")}
	channels := rapid.IntRange(2, 3).Draw(t, "channels")
	first := conv(channels)
	first.Strides = size("strides")
	if first.KernelSize[0] <= input[0] && first.KernelSize[1] <= input[1] && yes.Draw(t, "valid") {
		first.Padding = "valid"
	}
	if yes.Draw(t, "flat") {
		layers, input = append(layers, NewReshape(input...)), []int{input[0] * input[1] * input[2]}
	}
	layers = append(layers, first)
	for range rapid.IntRange(1, 3).Draw(t, "depth") {
		switch rapid.IntRange(0, 6).Draw(t, "layer") {
		case 0:
			layers = append(layers, NewResidual(conv(channels), norm()))
		case 1:
			layers = append(layers, NewConcat([]LayerSpec{conv(1)}, nil, []LayerSpec{norm(), conv(2)}))
			channels += 3
		case 2:
			p := Pooling{PoolSize: size("pool"), Strides: size("strides"), Padding: "same"}
			layers = append(layers, &MaxPooling2D{p})
		case 3:
			p := Pooling{PoolSize: size("pool"), Padding: "same"}
			layers = append(layers, &AveragePooling2D{p})
		case 4:
			layers = append(layers, &SpatialDropout2D{Rate: rate.Draw(t, "rate")})
		case 5:
			r := NewResidual(conv(2))
			r.Shortcut = []LayerSpec{conv(2)}
			layers, channels = append(layers, r), 2
		default:
			layers = append(layers, norm())
		}
	}
	switch rapid.IntRange(0, 2).Draw(t, "end") {
	case 0:
		layers = append(layers, &GlobalMaxPooling2D{})
	case 1:
		layers = append(layers, &GlobalAveragePooling2D{})
	}
	return layers, input, 0
}

// As TestGradientsAreSlopesOfTheTwin, for layers over axes. Normalizations divide
// by deviations down to sqrt(0.1), one behind the other, and sums are longer: 512
// roundings of the greatest value in sight cover it.
func TestGradientsOfLayersAreSlopesOfTheTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers, input, vocabulary := drawnLayers(t)
		layers = append(layers, NewFlatten(), NewDense(2, "linear"))
		m, err := Build(Spec{Layers: layers, Loss: meanSquared}, input, Target{Len: 2})
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 4).Draw(t, "samples")
		b := &Batch{N: n, X: drawFloats(t, "x", n*m.InputLen()), Y: drawFloats(t, "y", 2*n), IDs: rapid.SliceOfN(rapid.Uint64(), n, n).Draw(t, "ids")}
		for i := range b.X {
			if vocabulary > 0 {
				b.X[i] = float32(int((b.X[i] + 1) / 2 * float32(vocabulary)))
			}
		}
		params := drawFloats(t, "params", m.NumParams())
		for _, w := range m.Tensors() {
			for i := w.Off; i < w.Off+w.Len && len(w.Shape) == 1; i++ {
				params[i] = float32(math.Abs(float64(params[i]))) // gamma, variance: above 0
			}
		}
		key := Key{Seed: rapid.Uint64().Draw(t, "seed"), Step: rapid.Uint64().Draw(t, "step")}
		train := rapid.Bool().Draw(t, "train")

		w := m.NewWorkspace(n)
		out := w.Forward(params, b, key, train)
		grads := make([]float32, m.NumParams())
		fill(grads, float32(math.NaN()))
		next := len(grads)
		w.Backward(params, grads, func(lo, hi int) {
			if hi != next {
				t.Fatalf("window [%d, %d) comes when %d is next", lo, hi, next)
			}
			next = lo
		})
		if next != 0 {
			t.Fatalf("windows reach down to %d", next)
		}

		kink := math.Inf(1)
		run := func(p []float64) (y [][]float64, loss float64) {
			tw := &batchTwin{key: key, ids: b.IDs, train: train, params: p, kink: kink}
			var x [][]float64
			for i := range n {
				x = append(x, widen(row(b.X, i, m.InputLen())))
			}
			y, _ = tw.run(layers, x, input)
			for i := range y {
				loss += loss64(meanSquared, y[i], widen(row(b.Y, i, 2)))
			}
			kink = tw.kink
			return y, loss
		}
		p := widen(params)
		y, _ := run(p)
		const h = 1.0 / (1 << 18)
		slopes := make([]float64, len(p))
		for i, v := range p {
			p[i] = v + h
			_, up := run(p)
			p[i] = v - h
			_, down := run(p)
			p[i] = v
			slopes[i] = (up - down) / (2 * h)
		}
		if kink < 1e-3 {
			t.Skip("a relu or a maximum lies too close to its kink")
		}
		greatest := 1.0
		for _, s := range slopes {
			greatest = max(greatest, math.Abs(s))
		}
		near := func(what string, got float32, want float64) {
			if e := math.Abs(float64(got) - want); !(e <= 512.0/(1<<24)*greatest) {
				t.Fatalf("%s = %v, the twin says %v", what, got, want)
			}
		}
		for _, w := range m.Tensors() {
			for i := w.Off; i < w.Off+w.Len; i++ {
				switch {
				case w.Use == Weight:
					near(fmt.Sprintf("gradient of %s[%d]", w.Name, i-w.Off), grads[i], slopes[i])
				case w.Use == Frozen && grads[i] != 0:
					t.Fatalf("%s is frozen, its gradient %v", w.Name, grads[i])
				}
			}
		}
		for i := range out {
			near("out", out[i], y[i/2][i%2])
		}
	})
}

// What belongs to one sample is the same in any batch, for layers over axes too,
// but for batch normalization in training.
func TestASampleOfAxesGivesTheSameBitsInEveryBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers, input, vocabulary := drawnLayers(t)
		layers = append(layers, NewFlatten(), NewDense(2, "linear"))
		m, err := Build(Spec{Layers: layers, Loss: meanSquared}, input, Target{Len: 2})
		if err != nil {
			t.Fatal(err)
		}
		train := true
		for _, w := range m.Tensors() {
			train = train && w.Use != Statistic
		}
		n := rapid.IntRange(1, 9).Draw(t, "samples")
		b := &Batch{N: n, X: drawFloats(t, "x", n*m.InputLen()), Y: drawFloats(t, "y", 2*n), IDs: rapid.SliceOfN(rapid.Uint64(), n, n).Draw(t, "ids")}
		for i := range b.X {
			if vocabulary > 0 {
				b.X[i] = float32(int((b.X[i] + 1) / 2 * float32(vocabulary)))
			}
		}
		params := drawFloats(t, "params", m.NumParams())
		for _, w := range m.Tensors() {
			for i := w.Off; i < w.Off+w.Len && len(w.Shape) == 1; i++ {
				params[i] = float32(math.Abs(float64(params[i])))
			}
		}
		checkAlone(t, m, params, b, Key{1, 2}, train)
	})
}

// What the twin is asked about is drawn; over some hundred draws everything comes up.
func TestTheTwinIsAskedAboutEveryLayerLossAndActivation(t *testing.T) {
	seen := map[string]bool{}
	dense := rapid.Custom(drawCase)
	axes := rapid.Custom(func(t *rapid.T) []LayerSpec {
		layers, _, _ := drawnLayers(t)
		return layers
	})
	for i := range 300 {
		c := dense.Example(i)
		seen[c.spec.Loss] = true
		see(seen, c.spec.Layers)
		see(seen, axes.Example(i))
	}
	for _, name := range slices.Concat(Losses(), Activations(), LayerKinds()) {
		if !seen[name] {
			t.Errorf("the twin is never asked about %s", name)
		}
	}
}
