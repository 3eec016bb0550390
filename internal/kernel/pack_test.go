package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"testing"
)

// goldenPacked is the SHA-256 of fixed inputs, packed. Nodes of other builds read it,
// so it changes only with the protocol between nodes.
const goldenPacked = "c27e383f21e83ec8cbf964de7f4f68d3b8f68788c19c42ade8e395ba07e77ad0"

// sums returns partial sums: integers, each a few float32 of which all are on one grid.
func (s *source) sums(n int) []float64 {
	x := make([]float64, n)
	for range 2 {
		for i, g := range s.normal(n) {
			x[i] += math.RoundToEven(float64(g) * 0x1p45)
		}
	}
	for i := 128; i+64 <= n; i += 448 {
		clear(x[i : i+64]) // a whole block, and part of one
		clear(x[min(i+70, n):min(i+75, n)])
	}
	return x
}

// packable returns float64 of many kinds, block by block of another.
func (s *source) packable(n int) []float64 {
	x := s.sums(n)
	for lo := 0; lo < n; lo += PackBlock {
		some := x[lo:min(lo+PackBlock, n)]
		switch kind := s.next() % 8; kind {
		case 0: // anything
			for i := range some {
				some[i] = math.Float64frombits(s.next())
			}
		case 1: // one exponent and few bits; some are powers of two
			drop := s.next() % 53
			for i := range some {
				some[i] = math.Float64frombits(s.next()&(1<<63|(1<<52-1)&^(1<<drop-1)) | 1000<<52)
			}
		case 2: // subnormal, and both zeros
			for i := range some {
				some[i] = math.Float64frombits(s.next() & (1<<63 | 1<<(s.next()%52) - 1))
			}
		case 3: // both zeros
			for i := range some {
				some[i] = math.Float64frombits(s.next() & (1 << 63) & (s.next() << (s.next() % 2)))
			}
		case 4: // nearly one value
			u := s.next() &^ (1<<32 - 1)
			for i := range some {
				some[i] = math.Float64frombits(u | s.next()>>32&s.next()<<(s.next()%33)&(1<<32-1))
			}
		case 5: // the greatest integers there are
			for i := range some {
				some[i] = float64(int64(1<<53) - int64(s.next()%3))
			}
		}
	}
	return x
}

func upper(x []float64) []float32 {
	f := make([]float32, len(x))
	for i, x := range x {
		f[i] = math.Float32frombits(uint32(math.Float64bits(x) >> 32))
	}
	return f
}

func TestPackingIsItsLoop(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(40)
		for _, n := range append(lengths(), slices.Repeat([]int{640, 1000}, 50)...) {
			x := src.packable(n)
			f := upper(x)
			want, want32 := make([]byte, PackMax64(n)+packSlack), make([]byte, PackMax32(n)+packSlack)
			want, want32 = want[:pack64Generic(want, x)], want32[:pack32Generic(want32, f)]
			if got := Pack64(nil, x); !bytes.Equal(got, want) {
				t.Fatalf("%d float64 are packed as\n%x, want\n%x", n, got, want)
			}
			if got := Pack32(nil, f); !bytes.Equal(got, want32) {
				t.Fatalf("%d float32 are packed as\n%x, want\n%x", n, got, want32)
			}
			checkUnpacked(t, &src, want, x)
			got, check := fenced(t, src.normal(n))
			if done, read := Unpack32(got, slices.Clip(want32)); done != n || read != len(want32) {
				t.Fatalf("%d of %d elements, %d of %d bytes", done, n, read, len(want32))
			}
			sameBits32(t, "Unpack32", got, f)
			check()
		}
	})
}

func checkUnpacked(t *testing.T, src *source, packed []byte, x []float64) {
	t.Helper()
	was := src.sums(len(x))
	set, check := fenced(t, was)
	sum, checkSum := fenced(t, was)
	for _, f := range []func(dst []float64) (done, read int){
		func([]float64) (done, read int) { return Unpack64(set, packed) },
		func([]float64) (done, read int) { return UnpackAdd64(sum, packed) },
	} {
		if done, read := f(nil); done != len(x) || read != len(packed) {
			t.Fatalf("%d of %d elements, %d of %d bytes", done, len(x), read, len(packed))
		}
	}
	sameBits64(t, "Unpack64", set, x)
	for i := range was {
		was[i] = quiet64(was[i] + x[i])
	}
	sameBits64(t, "UnpackAdd64", sum, was)
	check()
	checkSum()
}

// A vector that is cut off anywhere, or begins with any header, is as good or bad for
// all variants: they unpack as many blocks, and read as many bytes.
func TestAllVariantsRefuseTheSame(t *testing.T) {
	each(t, func(t *testing.T) {
		src := source(41)
		x := src.packable(300)
		packed, packed32 := Pack64(nil, x), Pack32(nil, upper(x))
		for cut := range packed {
			checkRefusal(t, packed[:cut:cut], len(x))
		}
		for range 4000 {
			header := src.next()
			for i := range 3 {
				packed[i], packed32[i] = byte(header>>(8*i)), byte(header>>(8*i))
			}
			checkRefusal(t, packed, len(x))
			checkRefusal(t, packed32, len(x))
		}
	})
}

func checkRefusal(t *testing.T, packed []byte, n int) {
	t.Helper()
	var got, want [3]struct {
		done, read int
		bits       []byte
	}
	a, b, f := make([]float64, n), make([]float64, n), make([]float32, n)
	for i, unpack := range []func() (done, read int){
		func() (int, int) { return Unpack64(a, packed) }, func() (int, int) { return UnpackAdd64(b, packed) },
		func() (int, int) { return Unpack32(f, packed) },
	} {
		got[i].done, got[i].read = unpack()
	}
	c, d, g := make([]float64, n), make([]float64, n), make([]float32, n)
	for i, unpack := range []func() (done, read int){
		func() (int, int) { return unpack64Generic(c, packed) }, func() (int, int) { return unpackAdd64Generic(d, packed) },
		func() (int, int) { return unpack32Generic(g, packed) },
	} {
		want[i].done, want[i].read = unpack()
	}
	for i := range want {
		if got[i].done != want[i].done || got[i].read != want[i].read {
			t.Fatalf("%d of %d bytes %x…: %d elements and %d bytes, want %d and %d", i, len(packed), packed[:min(len(packed), 3)],
				got[i].done, got[i].read, want[i].done, want[i].read)
		}
	}
	sameBits64(t, "Unpack64", a, c)
	sameBits64(t, "UnpackAdd64", b, d)
	sameBits32(t, "Unpack32", f, g)
}

func TestWhatIsPackedIsTheRecorded(t *testing.T) {
	each(t, func(t *testing.T) {
		src, h := source(2028), sha256.New()
		for _, n := range []int{1, 64, 1000, 10_000} {
			x := src.packable(n)
			for _, packed := range [][]byte{Pack64(nil, x), Pack32(nil, upper(x))} {
				h.Write(packed)
			}
			Unpack64(x, Pack64(nil, x))
			h.Write(Pack64(nil, x))
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != goldenPacked {
			t.Errorf("what is packed has the SHA-256 %s, recorded is %s", got, goldenPacked)
		}
	})
}
