package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// columns is a matrix of float32 and what normalizations have of its columns.
type columns struct {
	n     int
	x, dy []float32
	of    [5][]float64
}

func someColumns(src *source, kind func(n int) []float32, m, n int) columns {
	c := columns{n: n, x: kind(m * n), dy: kind(m * n)}
	for i := range c.of {
		c.of[i] = make([]float64, n)
		for j, v := range src.normal(n) {
			c.of[i][j] = float64(v) * 1.0000001
		}
	}
	return c
}

// run is one round of all functions: what they write.
func (c columns) run() (sums [][]float64, y, dx []float32) {
	zeros := func() []float64 { return make([]float64, c.n) }
	sums = [][]float64{zeros(), zeros(), zeros(), zeros()}
	y, dx = make([]float32, len(c.x)), make([]float32, len(c.x))
	NormSums(sums[0], sums[1], c.x, c.of[0])
	NormApply(y, c.x, c.of[0], c.of[1], c.of[2])
	NormGradSums(sums[2], sums[3], c.dy, c.x, c.of[0])
	NormGrad(dx, c.dy, c.x, c.of[0], c.of[1], c.of[2], c.of[3])
	return sums, y, dx
}

// slow is run by the loops of the doc comments.
func (c columns) slow() (sums [][]float64, y, dx []float32) {
	sums = make([][]float64, 4)
	for k := range sums {
		sums[k] = make([]float64, c.n)
	}
	for i, v := range c.x {
		j := i % c.n
		d, g := float64(v)-c.of[0][j], float64(c.dy[i])
		sums[0][j] += d
		sums[1][j] += float64(d * d)
		sums[2][j] += g
		sums[3][j] += float64(g * d)
		y = append(y, quiet32(float32(float64(d*c.of[1][j])+c.of[2][j])))
		dx = append(dx, quiet32(float32(float64(c.of[1][j]*g)+float64(c.of[2][j]*d)+c.of[3][j])))
	}
	quietAll(sums...)
	return sums, y, dx
}

func TestNormalizationsMatchTheirLoops(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(21)
		for n := 1; n <= 70; n++ {
			checkColumns(t, someColumns(&src, src.harsh, n%4, n))
			checkColumns(t, someColumns(&src, src.normal, 5, n))
		}
		for _, d := range [][2]int{{700, 33}, {3, 8192}, {2, 20000}, {10000, 1}} {
			checkColumns(t, someColumns(&src, src.normal, d[0], d[1]))
		}
	})
}

func checkColumns(t *testing.T, c columns) {
	t.Helper()
	sums, y, dx := c.run()
	wantSums, wantY, wantDx := c.slow()
	for k, want := range wantSums {
		sameBits64(t, "sums", sums[k], want)
	}
	sameBits32(t, "y", y, wantY)
	sameBits32(t, "dx", dx, wantDx)
	NormApply(c.x, c.x, c.of[0], c.of[1], c.of[2])
	sameBits32(t, "y in place", c.x, wantY)
}

// goldenNorms is the SHA-256 of what normalizations make of fixed inputs: see golden.
const goldenNorms = "2a2bad6ffd20f544323d00d7884bbe300bc576a11b0126d3ff3fd10a5e5d1662"

func TestNormalizationsAreTheRecordedOnes(t *testing.T) {
	each(t, func(t *testing.T) {
		src, h := source(2028), sha256.New()
		for _, kind := range []func(n int) []float32{src.normal, src.harsh} {
			for _, d := range [][2]int{{30, 1}, {7, 20}, {200, 64}} {
				sums, y, dx := someColumns(&src, kind, d[0], d[1]).run()
				for _, s := range sums {
					put64(h, s)
				}
				put32(h, append(y, dx...))
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != goldenNorms {
			t.Errorf("the SHA-256 is %s, recorded is %s", got, goldenNorms)
		}
	})
}

func TestNormalizationsAllocateNothing(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(5)
		c := someColumns(&src, src.normal, 10, 33)
		if n := testing.AllocsPerRun(5, func() {
			NormSums(c.of[3], c.of[4], c.x, c.of[0])
			NormApply(c.x, c.x, c.of[0], c.of[1], c.of[2])
			NormGradSums(c.of[3], c.of[4], c.dy, c.x, c.of[0])
			NormGrad(c.dy, c.dy, c.x, c.of[0], c.of[1], c.of[2], c.of[3])
		}); n != 0 {
			t.Errorf("a round allocates %v times", n)
		}
	})
}
