package kernel

import (
	"fmt"
	"testing"
)

// The products of one microbatch of 32 through the 784-128-10 network, forward
// and backward, and a square one.
var benchShapes = []struct {
	g       int // index into products
	m, n, k int
	what    string
}{
	{0, 32, 128, 784, "forward1"},
	{2, 784, 128, 32, "weights1"},
	{0, 32, 10, 128, "forward2"},
	{2, 128, 10, 32, "weights2"},
	{1, 32, 128, 10, "inputs2"},
	{1, 32, 784, 128, "inputs1"},
	{0, 512, 512, 512, "square"},
	{1, 512, 512, 512, "square"},
	{2, 512, 512, 512, "square"},
}

func BenchmarkProduct(b *testing.B) {
	before := Name()
	defer func() { must(b, Use(before)) }()
	for _, name := range Variants() {
		must(b, Use(name))
		for _, d := range benchShapes {
			g := products[d.g]
			b.Run(fmt.Sprintf("%s/%s-%s-%dx%dx%d", name, g.name, d.what, d.m, d.n, d.k), func(b *testing.B) {
				src := source(7)
				x, y, c := src.normal(d.m*d.k), src.normal(d.k*d.n), make([]float32, d.m*d.n)
				var s Scratch
				b.ReportAllocs()
				for b.Loop() {
					g.run(&s, d.m, d.n, d.k, x, y, c, false)
				}
				flops := 2 * float64(d.m) * float64(d.n) * float64(d.k) * float64(b.N)
				b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

// BenchmarkPeak multiplies one tile whose operands stay in the first-level cache
// and come from two cache lines: the rate that the multipliers allow.
func BenchmarkPeak(b *testing.B) {
	before := Name()
	defer func() { must(b, Use(before)) }()
	for _, name := range Variants() {
		must(b, Use(name))
		b.Run(name, func(b *testing.B) {
			v, src := active, source(8)
			w := &panel{a: src.normal(8), b: src.normal(32), c: make([]float32, v.rows*v.cols)}
			w.crs, w.k, w.runs, w.rows, w.tile, w.cols = v.cols, kBlock, 1, v.rows, 1, v.cols
			for b.Loop() {
				v.product(w)
			}
			flops := 2 * float64(v.rows*v.cols*kBlock) * float64(b.N)
			b.ReportMetric(flops/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

func BenchmarkVector(b *testing.B) {
	const n = 101770 // parameters of 784-128-10
	src := source(9)
	x, y, m, v := src.normal(n), src.normal(n), src.normal(n), make([]float32, n)
	acc, sum := make([]float64, n), make([]float64, n)
	before := Name()
	defer func() { must(b, Use(before)) }()
	for _, name := range Variants() {
		must(b, Use(name))
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"RoundAdd", func() { RoundAdd(acc, x, 1) }},
			{"AddF64", func() { AddF64(acc, sum) }},
			{"Narrow", func() { Narrow(v, acc, 1) }},
			{"NarrowDiv", func() { NarrowDiv(v, acc, 1, 3) }},
			{"MaxExponent", func() { MaxExponent(x) }},
			{"Adam", func() { Adam(y, x, m, v, 1e-3, 0.9, 0.999, 1e-7, 2, 2, 0) }},
			{"Exp", func() { Exp(v, x) }},
			{"Tanh", func() { Tanh(v, x) }},
			{"Sigmoid", func() { Sigmoid(v, x) }},
			{"Log", func() { Log(v, x) }},
			{"ReLU", func() { ReLU(v, x) }},
			{"AddBias", func() { AddBias(v, x) }},
			{"Sum", func() { Sum(x) }},
		} {
			b.Run(name+"/"+f.name, func(b *testing.B) {
				for b.Loop() {
					f.run()
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/n, "ns/element")
			})
		}
	}
}

// BenchmarkPack packs what segments of a ring carry: partial sums of two float32, and
// what becomes of them. Speeds are of elements before they are packed: of a segment
// that the caches hold, and of a vector that they don't.
func BenchmarkPack(b *testing.B) {
	before := Name()
	defer func() { must(b, Use(before)) }()
	for _, n := range []int{32 << 10, 8 << 20} {
		src := source(31)
		x, f := src.sums(n), make([]float32, n)
		for i := range f {
			f[i] = float32(x[i])
		}
		acc, buf := make([]float64, n), make([]byte, 0, PackMax64(n)+packSlack)
		packed, packed32 := Pack64(nil, x), Pack32(nil, f)
		for _, c := range []struct {
			what string
			size int
			do   func()
		}{
			{"Pack64", 8, func() { Pack64(buf, x) }},
			{"UnpackAdd64", 8, func() { UnpackAdd64(acc, packed) }},
			{"Unpack64", 8, func() { Unpack64(acc, packed) }},
			{"Pack32", 4, func() { Pack32(buf, f) }},
			{"Unpack32", 4, func() { Unpack32(f, packed32) }},
			{"AddF64", 8, func() { AddF64(acc, x) }}, // to compare
		} {
			for _, name := range Variants() {
				b.Run(fmt.Sprintf("%s/%d/%s", c.what, n, name), func(b *testing.B) {
					must(b, Use(name))
					b.SetBytes(int64(c.size * n))
					for b.Loop() {
						c.do()
					}
				})
			}
		}
	}
}
