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
