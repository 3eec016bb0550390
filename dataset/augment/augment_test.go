package augment

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// still is the transform that does nothing.
var still = Transform{Zx: 1, Zy: 1, Brightness: 1}

func shapes(t *rapid.T) []int {
	side := rapid.IntRange(1, 20)
	return []int{side.Draw(t, "height"), side.Draw(t, "width"), rapid.IntRange(1, 5).Draw(t, "channels")}
}

func modes(t *rapid.T) Spec {
	s := Default()
	s.FillMode = rapid.SampledFrom(FillModes()).Draw(t, "mode")
	return s
}

func TestNothingChangesByDefault(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := must(New(modes(t), shapes(t)))
		src, dst := picture(a), make([]float32, a.Len())
		a.Image(dst, src, Key{rapid.Uint64().Draw(t, "seed"), rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "id")})
		if !slices.Equal(dst, src) {
			t.Errorf("the image is %v, want %v", dst, src)
		}
	})
}

// A transform of whole pixels moves values and computes none.
func TestFlipsAndCropsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := modes(t)
		spec.Cval = 9
		a := must(New(spec, shapes(t)))
		move := still
		move.FlipX, move.FlipY = rapid.Bool().Draw(t, "flip x"), rapid.Bool().Draw(t, "flip y")
		move.CropX, move.CropY = rapid.IntRange(-9, 9).Draw(t, "crop x"), rapid.IntRange(-9, 9).Draw(t, "crop y")
		src, dst := picture(a), make([]float32, a.Len())
		a.Apply(dst, src, move)
		for i, got := range dst {
			x, y, c := i/a.c%a.w+move.CropX, i/a.c/a.w+move.CropY, i%a.c
			if move.FlipX {
				x = a.w - 1 - x
			}
			if move.FlipY {
				y = a.h - 1 - y
			}
			if want := around(a, src, x, y, c); got != want {
				t.Fatalf("value %d is %v, want %v", i, got, want)
			}
		}
	})
}

// around says what lies at (x, y) of an image and its surroundings, by walking
// there.
func around(a *Augmenter, src []float32, x, y, c int) float32 {
	inside := func(i, n int) int {
		for i < 0 || i >= n {
			switch {
			case a.mode == nearest:
				i = min(max(i, 0), n-1)
			case a.mode == constant:
				return -1
			case a.mode == wrap && i < 0:
				i += n
			case a.mode == wrap:
				i -= n
			case i < 0:
				i = -1 - i
			default:
				i = 2*n - 1 - i
			}
		}
		return i
	}
	x, y = inside(x, a.w), inside(y, a.h)
	if x < 0 || y < 0 {
		return a.cval
	}
	return src[(y*a.w+x)*a.c+c]
}

// The fast way through the middle of a row is the way along its border.
func TestRunsAndBordersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := everything()
		spec.FillMode = rapid.SampledFrom(FillModes()).Draw(t, "mode")
		spec.Cutout, spec.BrightnessRange = 0, Range{1, 1}
		spec.RotationRange = 180
		a := must(New(spec, shapes(t)))
		move := a.Draw(Key{ID: rapid.Uint64().Draw(t, "id")})
		src, dst, want := picture(a), make([]float32, a.Len()), make([]float32, a.Len())
		a.Apply(dst, src, move)
		m := a.affineOf(move)
		for y := range a.h {
			a.border(want[y*a.w*a.c:(y+1)*a.w*a.c], src, m.u0+int64(y)*m.uy, m.ux, m.v0+int64(y)*m.vy, m.vx)
		}
		if !slices.Equal(dst, want) {
			t.Errorf("the image is %v, want %v", dst, want)
		}
	})
}

func TestASpanHoldsThePlacesWithinItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		place := rapid.Int64Range(-1000, 1000)
		start, step, limit := place.Draw(t, "start"), rapid.Int64Range(-40, 40).Draw(t, "step"), place.Draw(t, "limit")
		n := rapid.IntRange(0, 60).Draw(t, "n")
		lo, hi := span(start, step, limit, n)
		for x := range n {
			at := start + step*int64(x)
			if in := at >= 0 && at < limit; in != (x >= lo && x < hi) {
				t.Fatalf("span is [%d, %d), but place %d is %d of 0 to %d", lo, hi, x, at, limit)
			}
		}
	})
}

func TestPixelsDependOnTheKeyAlone(t *testing.T) {
	a := must(New(everything(), []int{12, 17, 3}))
	src := picture(a)
	const n = 6
	first := make([]float32, n*a.Len())
	for id := range n {
		a.Image(first[id*a.Len():(id+1)*a.Len()], src, Key{1, 2, uint64(id)})
	}
	for id := n - 1; id >= 0; id-- { // elsewhere in memory, in another order, over what was there
		at := (n-1-id)*a.Len() + 1
		memory := slices.Repeat([]float32{float32(math.NaN())}, n*a.Len()+1)
		a.Image(memory[at:at+a.Len()], src, Key{1, 2, uint64(id)})
		if !slices.Equal(memory[at:at+a.Len()], first[id*a.Len():(id+1)*a.Len()]) {
			t.Errorf("sample %d is another image the second time", id)
		}
	}
}

func TestEveryPartOfAKeyChangesTheImage(t *testing.T) {
	a := must(New(guide(), []int{20, 20, 3}))
	base := a.Draw(Key{1, 2, 3})
	for _, k := range []Key{{2, 2, 3}, {1, 3, 3}, {1, 2, 4}} {
		if got := a.Draw(k); got == base {
			t.Errorf("key %v and {1 2 3} draw the same", k)
		}
	}
}

// Draws fill their ranges, whatever else is switched on.
func TestDrawsFillTheirRanges(t *testing.T) {
	a := must(New(everything(), []int{10, 20, 1}))
	const n = 4000
	flips := 0
	var lo, hi [9]float64
	for id := range uint64(n) {
		d := a.Draw(Key{ID: id})
		got := [9]float64{d.Theta, d.Shear, d.Dx, d.Dy, d.Zx, float64(d.Brightness), float64(d.CropX), float64(d.HoleX), float64(d.HoleY)}
		for i, v := range got {
			if id == 0 {
				lo[i], hi[i] = v, v
			}
			lo[i], hi[i] = min(lo[i], v), max(hi[i], v)
		}
		if d.FlipX != d.FlipY {
			flips++
		}
	}
	want := [9][2]float64{{-40, 40}, {-20, 20}, {-4, 4}, {-3, 3}, {0.7, 1.3}, {0.5, 1.5}, {-2, 2}, {0, 19}, {0, 9}}
	for i, w := range want {
		slack := (w[1] - w[0]) / 100
		if lo[i] < w[0] || hi[i] > w[1] || lo[i] > w[0]+slack || hi[i] < w[1]-slack {
			t.Errorf("draw %d goes from %v to %v, want %v", i, lo[i], hi[i], w)
		}
	}
	if flips < n*45/100 || flips > n*55/100 {
		t.Errorf("one flip without the other in %d of %d", flips, n)
	}
}

func TestFieldsMoveNoDrawOfOthers(t *testing.T) {
	one := Default()
	one.WidthShiftRange = 0.2
	all := everything()
	k := Key{5, 6, 7}
	if got, want := must(New(one, []int{9, 9})).Draw(k).Dx, must(New(all, []int{9, 9})).Draw(k).Dx; got != want {
		t.Errorf("alone the shift is %v, with all fields %v", got, want)
	}
}

func TestBrightnessIsCutOff(t *testing.T) {
	a := must(New(Default(), []int{1, 3}))
	move := still
	move.Brightness = 2
	dst := make([]float32, 3)
	a.Apply(dst, []float32{-0.25, 0.375, 0.75}, move)
	if want := []float32{0, 0.75, 1}; !slices.Equal(dst, want) {
		t.Errorf("the image is %v, want %v", dst, want)
	}
}

func TestAHoleIsASquareWithinTheImage(t *testing.T) {
	for _, c := range []struct {
		side, x, y, want int // pixels in the hole
	}{{3, 4, 4, 9}, {3, 0, 0, 4}, {2, 0, 0, 1}, {2, 7, 7, 4}, {99, 3, 3, 64}} {
		spec := Default()
		spec.Cutout, spec.Cval = c.side, 7
		a := must(New(spec, []int{8, 8, 2}))
		move := still
		move.HoleX, move.HoleY = c.x, c.y
		dst := make([]float32, a.Len())
		a.Apply(dst, picture(a), move)
		got := 0
		for i, v := range dst {
			if v == 7 && i%2 == 0 {
				got++
			}
		}
		if got != c.want {
			t.Errorf("a hole of side %d at (%d, %d) has %d pixels, want %d", c.side, c.x, c.y, got, c.want)
		}
	}
}

func TestSpecsAreRefusedByField(t *testing.T) {
	s := Spec{
		RotationRange: -1, WidthShiftRange: math.NaN(), HeightShiftRange: 1e9, ShearRange: 90, ZoomRange: Range{2, 1},
		RandomCrop: -1, FillMode: "mirror", Cval: math.Inf(1), BrightnessRange: Range{-1, 1}, Cutout: -1,
	}
	err := s.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for i, field := range strings.Fields(`rotation_range width_shift_range height_shift_range shear_range zoom_range
		random_crop fill_mode cval brightness_range cutout`) {
		if lines := strings.Split(err.Error(), "\n"); !strings.HasPrefix(lines[i], field+": ") {
			t.Errorf("problem %d is %q, want one of %s", i, lines[i], field)
		}
	}
	all := everything()
	if err := all.Validate(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoImageIsRefused(t *testing.T) {
	for _, shape := range [][]int{nil, {4}, {4, 4, 3, 1}, {0, 4}, {4, 4, 0}, {1 << 15, 4}} {
		if _, err := New(Default(), shape); err == nil {
			t.Errorf("shape %v is taken", shape)
		}
	}
}

func TestImagesAllocateNothing(t *testing.T) {
	a := must(New(everything(), []int{28, 28, 3}))
	src, dst := picture(a), make([]float32, a.Len())
	id := uint64(0)
	if n := testing.AllocsPerRun(100, func() { a.Image(dst, src, Key{ID: id}); id++ }); n != 0 {
		t.Errorf("%v allocations an image", n)
	}
}

// BenchmarkImage warps photos as Keras' guide to small data sets does.
func BenchmarkImage(b *testing.B) {
	for _, c := range []struct {
		name  string
		spec  Spec
		shape []int
	}{{"guide/150x150x3", guide(), []int{150, 150, 3}}, {"guide/28x28x1", guide(), []int{28, 28, 1}}, {"guide/32x32x4", guide(), []int{32, 32, 4}}} {
		b.Run(c.name, func(b *testing.B) {
			a := must(New(c.spec, c.shape))
			src, dst := picture(a), make([]float32, a.Len())
			id := uint64(0)
			for b.Loop() {
				a.Image(dst, src, Key{ID: id})
				id++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
		})
	}
}

// FuzzSpec holds New and Image to: a spec is refused, or every image comes out, of
// finite values.
func FuzzSpec(f *testing.F) {
	f.Add(40.0, 0.2, 0.2, 0.2, 0.8, 1.2, "nearest", 0.0, 1.0, 1.0, 4, 8, uint64(1), 5, 7)
	f.Add(360.0, 16384.0, 16384.0, 89.0, 64.0, 64.0, "reflect", 1e6, 64.0, 64.0, 16384, 16384, uint64(9), 1, 1)
	f.Add(math.NaN(), -1.0, 2.0, 90.0, 0.0, math.Inf(1), "?", 2e6, -1.0, 65.0, -1, -1, uint64(0), 3, 3)
	f.Fuzz(func(t *testing.T, rotation, width, height, shear, zoomLo, zoomHi float64, fill string, cval, lightLo, lightHi float64, crop, hole int, key uint64, h, w int) {
		s := Spec{
			RotationRange: rotation, WidthShiftRange: width, HeightShiftRange: height, ShearRange: shear,
			ZoomRange: Range{zoomLo, zoomHi}, BrightnessRange: Range{lightLo, lightHi},
			HorizontalFlip: key&1 != 0, VerticalFlip: key&2 != 0, FillMode: fill, Cval: cval, RandomCrop: crop, Cutout: hole,
		}
		a, err := New(s, []int{h, w, 2})
		if err != nil || a.Len() > 1<<12 {
			return
		}
		src, dst := picture(a), make([]float32, a.Len())
		for i := range dst {
			dst[i] = float32(math.NaN())
		}
		a.Image(dst, src, Key{Seed: key, Epoch: key >> 7, ID: key * 31})
		for i, v := range dst {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	})
}
