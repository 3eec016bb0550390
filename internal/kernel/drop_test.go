package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/dlnode/dlnode/internal/rng"
)

func slowDrop(x []float32, s rng.Stream, threshold uint32, scale float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		f := scale
		if s.Uint32(uint64(i))>>8 < threshold {
			f = 0
		}
		y[i] = quiet32(v * f)
	}
	return y
}

func TestDroppingGoesByTheWordsOfTheStream(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(22)
		for n := range 140 {
			checkDrop(t, src.harsh(n), src.next())
		}
		checkDrop(t, src.normal(20000), src.next())
	})
}

func checkDrop(t *testing.T, x []float32, seed uint64) {
	t.Helper()
	s := rng.New(seed, rng.Dropout, seed, 2, 3)
	for _, threshold := range []uint32{0, 1 << 22, 1 << 23, 1<<24 - 1} {
		want := slowDrop(x, s, threshold, 1.25)
		got, check := fenced(t, x)
		Drop(got, x, s, threshold, 1.25)
		sameBits32(t, "Drop", got, want)
		check()
		inPlace := append([]float32(nil), x...)
		Drop(inPlace, inPlace, s, threshold, 1.25)
		sameBits32(t, "Drop in place", inPlace, want)
	}
}

func TestMulRowsIsItsLoop(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(23)
		for _, d := range [][2]int{{5, 1}, {4, 7}, {3, 16}, {9, 33}, {0, 5}, {300, 70}, {2, 9000}} {
			m, n := d[0], d[1]
			x, f := src.harsh(m*n), src.harsh(n)
			want := make([]float32, m*n)
			for i, v := range x {
				want[i] = quiet32(v * f[i%n])
			}
			got, check := fenced(t, x)
			MulRows(got, got, f)
			sameBits32(t, "MulRows", got, want)
			check()
		}
	})
}

// goldenDrop is the SHA-256 of what dropout makes of fixed inputs: see golden.
const goldenDrop = "d8099adaf125df176a6f5e2b9734baa09ac27e03636a3009af61e2ecefc8b119"

func TestDroppingIsTheRecordedOne(t *testing.T) {
	each(t, func(t *testing.T) {
		src, h := source(2029), sha256.New()
		for _, n := range []int{1, 31, 200, 9000} {
			x := src.harsh(n)
			Drop(x, x, rng.New(7, rng.Dropout, 1, uint64(n), 3), 1<<22, 4.0/3)
			MulRows(x, x, src.normal(1))
			put32(h, x)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != goldenDrop {
			t.Errorf("the SHA-256 is %s, recorded is %s", got, goldenDrop)
		}
	})
}
