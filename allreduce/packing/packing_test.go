package packing

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"pgregory.net/rapid"
)

// each runs a test with every variant of the kernels that this CPU runs.
func each(t *testing.T, f func(t *testing.T)) {
	defer func(was string) {
		if err := kernel.Use(was); err != nil {
			t.Fatal(err)
		}
	}(kernel.Name())
	for _, name := range kernel.Variants() {
		if err := kernel.Use(name); err != nil {
			t.Fatal(err)
		}
		t.Run(name, f)
	}
}

// partial draws what a partial sum is: an integer of up to 2^53, with its significant
// bits in some window, often 0.
func partial() *rapid.Generator[float64] {
	return rapid.Custom(func(t *rapid.T) float64 {
		n := rapid.Int64Range(-1<<24, 1<<24).Draw(t, "bits")
		return float64(n << rapid.IntRange(0, 29).Draw(t, "zeros"))
	})
}

// anything draws what an attempt that did not fit its grid may hold.
func anything() *rapid.Generator[float64] {
	return rapid.OneOf(
		rapid.Map(rapid.Uint64(), math.Float64frombits),
		rapid.Map(rapid.Uint64(), func(u uint64) float64 { return math.Float64frombits(u &^ (0x7ff << 52)) }),
		rapid.SampledFrom([]float64{
			0, math.Copysign(0, -1), 1 << 53, -1 << 53, 1, -1, 0.5, math.MaxFloat64, math.SmallestNonzeroFloat64, 0x1p-1022,
			math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(0xfff0000000000001), math.Float64frombits(math.MaxUint64),
		}),
		rapid.Map(rapid.IntRange(-1074, 1023), func(e int) float64 { return math.Ldexp(1, e) }),
		partial(),
	)
}

// vector draws one of up to three blocks and a bit, of one kind in each block.
func vector() *rapid.Generator[[]float64] {
	return rapid.Custom(func(t *rapid.T) []float64 {
		v := make([]float64, rapid.IntRange(0, 200).Draw(t, "length"))
		for part := range slices.Chunk(v, 64) {
			g := rapid.SampledFrom([]*rapid.Generator[float64]{partial(), anything(), rapid.Just(0.), rapid.OneOf(rapid.Just(0.), partial())}).Draw(t, "kind")
			for i := range part {
				part[i] = g.Draw(t, "element")
			}
		}
		return v
	})
}

func bits64(v []float64) []uint64 {
	u := make([]uint64, len(v))
	for i, x := range v {
		u[i] = math.Float64bits(x)
	}
	return u
}

func bits32(v []float32) []uint32 {
	u := make([]uint32, len(v))
	for i, x := range v {
		u[i] = math.Float32bits(x)
	}
	return u
}

// upper takes the upper halves of float64 for float32.
func upper(v []float64) []float32 {
	f := make([]float32, len(v))
	for i, x := range v {
		f[i] = math.Float32frombits(uint32(math.Float64bits(x) >> 32))
	}
	return f
}

func TestEveryVectorComesBackBitForBit(t *testing.T) {
	each(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			v := vector().Draw(t, "v")
			packed := AppendInts([]byte("before"), v)
			if !bytes.HasPrefix(packed, []byte("before")) || len(packed)-6 > MaxInts(len(v)) {
				t.Fatalf("%d elements in %d bytes, at most %d", len(v), len(packed)-6, MaxInts(len(v)))
			}
			got := slices.Repeat([]float64{12345}, len(v))
			if err := DecodeInts(got, packed[6:]); err != nil || !slices.Equal(bits64(got), bits64(v)) {
				t.Fatalf("%v: got %x, want %x", err, bits64(got), bits64(v))
			}
		})
	})
}

func TestEveryVectorOfFloatsComesBackBitForBit(t *testing.T) {
	each(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			v := upper(vector().Draw(t, "v"))
			if rapid.Bool().Draw(t, "in their range") {
				for i, x := range vector().Draw(t, "others") {
					if i < len(v) {
						v[i] = float32(x)
					}
				}
			}
			packed := AppendFloats(nil, v)
			if len(packed) > MaxFloats(len(v)) {
				t.Fatalf("%d elements in %d bytes, at most %d", len(v), len(packed), MaxFloats(len(v)))
			}
			got := slices.Repeat([]float32{12345}, len(v))
			if err := DecodeFloats(got, packed); err != nil || !slices.Equal(bits32(got), bits32(v)) {
				t.Fatalf("%v: got %x, want %x", err, bits32(got), bits32(v))
			}
		})
	})
}

func TestAddingIsDecodingAndAdding(t *testing.T) {
	each(t, func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			v := vector().Draw(t, "v")
			acc := make([]float64, len(v))
			for i := range acc {
				acc[i] = partial().Draw(t, "acc")
			}
			want := make([]float64, len(v))
			for i, x := range v {
				if want[i] = acc[i] + x; want[i] != want[i] {
					want[i] = math.Float64frombits(0x7ff8000000000000)
				}
			}
			if err := AddInts(acc, AppendInts(nil, v)); err != nil || !slices.Equal(bits64(acc), bits64(want)) {
				t.Fatalf("%v: got %x, want %x", err, bits64(acc), bits64(want))
			}
		})
	})
}

func TestEveryVariantPacksToTheSameBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := vector().Draw(rt, "v")
		f := upper(v)
		var ints, floats []byte
		each(t, func(*testing.T) {
			i, f := AppendInts(nil, v), AppendFloats(nil, f)
			if ints != nil && (!bytes.Equal(i, ints) || !bytes.Equal(f, floats)) {
				rt.Fatalf("%s packs %x and %x, another %x and %x", kernel.Name(), i, f, ints, floats)
			}
			ints, floats = append(i, 0)[:len(i)], f
		})
	})
}

// What the format promises of its sizes.
func TestWhatIsSharedIsSaidOnce(t *testing.T) {
	block := func(f func(i int) float64) []float64 {
		v := make([]float64, 64)
		for i := range v {
			v[i] = f(i)
		}
		return v
	}
	for _, c := range []struct {
		what string
		v    []float64
		size int
	}{
		{"nothing", nil, 0},
		{"zeros", make([]float64, 256), 4},
		{"one value, not a power of two", block(func(int) float64 { return 3 }), 3 + 8*(1+1)},
		{"a power of two, which only its exponent tells from 0", block(func(int) float64 { return -8 }), 3 + 8*(1+1)},
		{"-0", block(func(int) float64 { return math.Copysign(0, -1) }), 3 + 8},
		{"24 bits at one exponent", block(func(i int) float64 { return float64((1<<24 - 1 - i) << 20) }), 3 + 8*(1+23)},
		{"24 bits at four exponents", block(func(i int) float64 { return float64((1<<24 - 1 - i) << (20 + i%4)) }), 3 + 8*(1+2+23)},
		{"all exponents and bits", block(func(i int) float64 { return math.Float64frombits(uint64(255-4*i)<<56 | 1) }), 3 + 512},
		{"nine elements", block(func(int) float64 { return 3 })[:9], 3 + 2*(1+1)},
	} {
		if got := len(AppendInts(nil, c.v)); got != c.size || got > MaxInts(len(c.v)) {
			t.Errorf("%s: %d bytes, want %d", c.what, got, c.size)
		}
		if got := len(AppendFloats(nil, upper(c.v))); got > c.size || got > MaxFloats(len(c.v)) {
			t.Errorf("%s: %d bytes as float32, %d as float64", c.what, got, c.size)
		}
	}
}

func TestMalformedBlocksAreNamed(t *testing.T) {
	long := make([]float64, 300)
	for i := range long {
		long[i] = float64(i)
	}
	whole := AppendInts(nil, long)
	second := 3 + 8*int(whole[0]&127)
	damaged := func(f func(b []byte) []byte) []byte { return f(slices.Clone(whole)) }
	each(t, func(t *testing.T) {
		for _, c := range []struct {
			src  []byte
			want string
		}{
			{nil, "block 0, elements [0, 64) of 300: missing"},
			{damaged(func(b []byte) []byte { return b[:second] }), "block 1, elements [64, 128) of 300: missing"},
			{damaged(func(b []byte) []byte { return b[:second+2] }), "block 1, elements [64, 128) of 300: 2 bytes of a header of 3"},
			{damaged(func(b []byte) []byte { return b[:second+4] }), "block 1, elements [64, 128) of 300: 1 of 64 bytes"},
			{damaged(func(b []byte) []byte { return b[:len(b)-1] }), "block 4, elements [256, 300) of 300: 59 of 60 bytes"},
			{damaged(func(b []byte) []byte { return append(b, 7, 7) }), "2 bytes behind the last of 300 elements"},
			{damaged(func(b []byte) []byte { b[second] = 65; return b }), "block 1, elements [64, 128) of 300: 65 bits a number"},
			{damaged(func(b []byte) []byte { b[second] = 128; return b }), "block 1, elements [64, 128) of 300: 0 bits a number"},
			{damaged(func(b []byte) []byte { b[0], b[1] = 1|1<<7, 26; return b }), "block 0, elements [0, 64) of 300: 1 bits a number, 53 dropped"},
			{damaged(func(b []byte) []byte { b[0], b[1] = 60, 3; return b }), "block 0, elements [0, 64) of 300: 60 bits a number, 6 dropped"},
		} {
			for _, err := range []error{DecodeInts(make([]float64, len(long)), c.src), AddInts(make([]float64, len(long)), c.src)} {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			}
		}
		for _, c := range []struct {
			src  []byte
			want string
		}{
			{[]byte{1, 15, 0, 0}, "1 bits a number, 30 dropped"},
			{[]byte{33, 16, 0}, "33 bits a number, 32 dropped"},
			{[]byte{2, 16, 32, 0, 0}, "2 bits a number, 32 dropped, base 256"},
		} {
			if err := DecodeFloats(make([]float32, 8), c.src); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		}
	})
}

func TestNothingIsAllocatedWhereThereIsRoom(t *testing.T) {
	each(t, func(t *testing.T) {
		v, f := make([]float64, 1000), make([]float32, 1000)
		for i := range v {
			v[i], f[i] = float64(i), float32(i)
		}
		room := make([]byte, 0, MaxInts(len(v))+64)
		if n := testing.AllocsPerRun(10, func() {
			if AddInts(v, AppendInts(room, v)) != nil || DecodeInts(v, AppendInts(room, v)) != nil || DecodeFloats(f, AppendFloats(room, f)) != nil {
				panic("an error")
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// FuzzDecode holds all decoders against arbitrary bytes: every variant accepts the same
// and sets the same, and what was decoded comes back when it is packed again.
func FuzzDecode(f *testing.F) {
	for _, v := range [][]float64{nil, make([]float64, 130), {1, 2, 3}, {math.NaN(), -1 << 53, 0x1p-1074}} {
		f.Add(AppendInts(nil, v), uint16(len(v)))
		f.Add(AppendFloats(nil, upper(v)), uint16(len(v)))
	}
	long := make([]float64, 200)
	for i := range long {
		long[i] = float64(i * i * i << (i / 8))
	}
	f.Add(AppendInts(nil, long), uint16(200))
	f.Add(AppendInts(nil, long[:192]), uint16(191))
	f.Fuzz(func(t *testing.T, src []byte, n uint16) {
		src = slices.Clip(src)
		type outcome struct {
			ints, sums, floats []uint64
			errs               [3]bool
		}
		var want *outcome
		for _, name := range kernel.Variants() {
			if err := kernel.Use(name); err != nil {
				t.Fatal(err)
			}
			ints, sums, floats := make([]float64, n), slices.Repeat([]float64{1}, int(n)), make([]float32, n)
			var got outcome
			for i, err := range []error{DecodeInts(ints, src), AddInts(sums, src), DecodeFloats(floats, src)} {
				got.errs[i] = err != nil
			}
			if !got.errs[0] {
				got.ints, got.sums = bits64(ints), bits64(sums)
				if err := DecodeInts(ints, AppendInts(nil, ints)); err != nil || !slices.Equal(bits64(ints), got.ints) {
					t.Errorf("%x, packed again, became %x: %v", got.ints, bits64(ints), err)
				}
			}
			if !got.errs[2] {
				for _, u := range bits32(floats) {
					got.floats = append(got.floats, uint64(u))
				}
			}
			if want == nil {
				want = &got
			}
			if got.errs != want.errs || !slices.Equal(got.ints, want.ints) || !slices.Equal(got.sums, want.sums) || !slices.Equal(got.floats, want.floats) {
				t.Errorf("%s decodes to %+v, another to %+v", name, got, *want)
			}
		}
	})
}
