package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"testing"
)

// goldenSums is the SHA-256 of what rounding to a grid and back makes of fixed
// inputs, and Adam of tiny ones.
const goldenSums = "9271e2b4b995cce1dfe330c21c950b88517dbe9ac764fd71d1c21f82edfb38f7"

func TestSumsAreTheRecordedOnes(t *testing.T) {
	each(t, func(t *testing.T) {
		src, h := source(2028), sha256.New()
		for _, n := range []int{1, 16, 77, 1000} {
			acc, dst := make([]float64, n), make([]float32, n)
			ints, field := RoundNew(acc, src.normal(n), 0x1p40)
			put64(h, acc)
			more, top := RoundAdd(acc, src.nasty(n, false), 0x1p30)
			fmt.Fprintln(h, ints, more, max(field, top))
			put64(h, acc)
			fmt.Fprintln(h, Narrow(dst, acc, 0x1p-45))
			put32(h, dst)
			fmt.Fprintln(h, NarrowDiv(dst, acc, 0x1p-45, 12))
			put32(h, dst)
			p, g, m, v := src.tiny(n), src.tiny(n), src.tiny(n), src.tiny(n)
			Adam(p, g, m, v, 1e-3, 0.9, 0.999, 1e-7, 10, 1000, 1e-2)
			for _, z := range [][]float32{p, m, v} {
				put32(h, z)
			}
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != goldenSums {
			t.Errorf("the sums' SHA-256 is %s, recorded is %s", got, goldenSums)
		}
	})
}

// tiny returns n numbers of any size from the subnormal to 1, both zeros among them.
func (s *source) tiny(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		u := s.next()
		bits := uint32(u>>32)&0x807fffff | uint32(max(0, int(u%160)-32))<<23
		if u>>8%8 == 0 {
			bits &= 0x80000000
		}
		x[i] = math.Float32frombits(bits)
	}
	return x
}

// sumInts returns the sum that Narrow and NarrowDiv give of x.
func sumInts(t *testing.T, x []float64) uint64 {
	t.Helper()
	dst := make([]float32, len(x))
	sum, divided := Narrow(dst, x, 1), NarrowDiv(dst, x, 1, 3)
	if sum != divided {
		t.Fatalf("the sum of %v is %x when it is divided, else %x", x, divided, sum)
	}
	return sum
}

func TestWhatIsRoundedIsCountedAndSeen(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(11)
		for _, n := range lengths() {
			g := src.nasty(n, n%2 == 0)
			want := make([]float64, n)
			RoundAdd(want, g, 0x1p20)
			rubbish := make([]float64, n)
			for i := range rubbish {
				rubbish[i] = math.NaN()
			}
			got, check := fenced(t, rubbish)
			_, field := RoundNew(got, g, 0x1p20)
			sameBits64(t, "RoundNew", got, want)
			check()
			if field != MaxExponent(g) {
				t.Fatalf("RoundNew has seen %d, the greatest exponent field is %d", field, MaxExponent(g))
			}
			for i := range g { // whole numbers of all sizes that a grid holds
				g[i] = math.Float32frombits(uint32(src.next()>>32)&0x807fffff | uint32(90+src.next()%90)<<23)
			}
			ints, field := RoundNew(got, g, 1)
			if ints != sumInts(t, got) || field != MaxExponent(g) {
				t.Fatalf("RoundNew counts %x and has seen %d, want %x and %d", ints, field, sumInts(t, got), MaxExponent(g))
			}
			more, _ := RoundAdd(got, g, 0.5)
			if ints+more != sumInts(t, got) {
				t.Fatalf("RoundAdd counts %x, want %x", more, sumInts(t, got)-ints)
			}
		}
	})
}

func TestNarrowIsItsLoop(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(12)
		minus := math.Copysign(0, -1)
		special := []float64{0, minus, math.Inf(1), math.Inf(-1), math.NaN(), 0x1p-130, -0x1.8p-149, 0x1p-151, 0x1.000001p0, 0x1.000003p0, 3e38 * 0x1p9}
		for _, n := range lengths() {
			x, want, divided := make([]float64, n), make([]float32, n), make([]float32, n)
			for i := range x {
				u := src.next()
				if x[i] = float64(int64(u) >> 10 >> (u & 63)); i%5 == 3 {
					x[i] = special[int(u%uint64(len(special)))] * 0x1p9
				}
				product := float64((x[i] + 0) * 0x1p-9)
				want[i], divided[i] = quiet32(float32(product)), quiet32(float32(product/17))
			}
			got, check := fenced(t, want)
			clear(got)
			Narrow(got, x, 0x1p-9)
			sameBits32(t, "Narrow", got, want)
			NarrowDiv(got, x, 0x1p-9, 17)
			sameBits32(t, "NarrowDiv", got, divided)
			check()
		}
	})
}

// The way around subnormal products changes no bit.
func TestAdamOfTinyNumbersIsItsLoop(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(13)
		for round := range 400 {
			n := 1 + int(src.next()%100)
			p, g, m, v := src.tiny(n), src.tiny(n), src.tiny(n), src.tiny(n)
			for i := range v {
				v[i] = float32(math.Abs(float64(v[i])))
			}
			if round%2 == 0 {
				clear(g)
			}
			lr, c1, c2 := src.tiny(1)[0], 1+float32(src.next()%100), 1+float32(src.next()%10000)
			var got, want [4][]float32
			for i, x := range [][]float32{p, g, m, v} {
				got[i], want[i] = append([]float32(nil), x...), append([]float32(nil), x...)
			}
			Adam(got[0], got[1], got[2], got[3], lr, 0.9, 0.999, 1e-7, c1, c2, 1e-2)
			slowAdam(want[0], want[1], want[2], want[3], lr, 0.9, 0.999, 1e-7, c1, c2, 1e-2)
			for i, what := range []string{"p", "g", "m", "v"} {
				sameBits32(t, what, got[i], want[i])
			}
		}
	})
}

// Moments whose gradient stays zero decay until they are subnormal, and stay so.
// Without the way around them such a moment cost 26 times as much as others.
func BenchmarkAdamOfTinyMoments(b *testing.B) {
	before := Name()
	defer func() { must(b, Use(before)) }()
	for _, name := range Variants() {
		must(b, Use(name))
		for what, moment := range map[string]float32{"usual": 1e-3, "tiny": 0x1p-145} {
			b.Run(name+"/"+what, func(b *testing.B) {
				src := source(14)
				const n = 8192
				p, g, m, v := src.normal(n), make([]float32, n), make([]float32, n), src.normal(n)
				for b.Loop() {
					for i := range m {
						m[i], v[i] = moment, 1
					}
					Adam(p, g, m, v, 1e-3, 0.9, 0.999, 1e-7, 1, 1, 0)
				}
			})
		}
	}
}
