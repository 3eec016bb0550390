package dataset

import (
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is what one Read gives.
type sample struct {
	ID   uint64
	X, Y []float32
}

func read(t testing.TB, d Dataset, i int) sample {
	t.Helper()
	s := sample{X: make([]float32, d.Info().InputLen()), Y: make([]float32, d.Info().Target)}
	id, err := d.Read(i, s.X, s.Y)
	if err != nil {
		t.Fatalf("Read(%d): %v", i, err)
	}
	s.ID = id
	return s
}

func readAll(t testing.TB, d Dataset) []sample {
	t.Helper()
	all := make([]sample, d.Len())
	for i := range all {
		all[i] = read(t, d, i)
	}
	return all
}

// letters is a data set of 6 samples whose ids aren't their places.
func letters(t testing.TB) *Memory {
	t.Helper()
	info := Info{Name: "letters", Input: []int{2}, Target: 1, Classes: 3}
	m, err := NewMemory(info, []uint64{10, 11, 12, 23, 24, 25},
		[]float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, []float32{0, 1, 2, 2, 1, 0})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pictures is a data set of bytes, 4 images of 2×3.
func pictures() *images {
	pixels := make([]byte, 4*6)
	for i := range pixels {
		pixels[i] = byte(i * 11)
	}
	return newImages(Info{Name: "pictures", Input: []int{2, 3}, Target: 1, Classes: 3}, pixels, []byte{2, 0, 1, 2})
}

func TestReadGivesTheRecordAndItsID(t *testing.T) {
	want := sample{ID: 23, X: []float32{6, 7}, Y: []float32{2}}
	if diff := cmp.Diff(want, read(t, letters(t), 3)); diff != "" {
		t.Error(diff)
	}
	got := read(t, pictures(), 1)
	for j := range 6 {
		if want := float32((6+j)*11) / 255; got.X[j] != want {
			t.Errorf("pixel %d is %v, want %v", j, got.X[j], want)
		}
	}
	if got.ID != 1 || got.Y[0] != 0 {
		t.Errorf("id %d, class %v, want 1 and 0", got.ID, got.Y[0])
	}
}

func TestASliceReadsLikeItsPartOfTheWhole(t *testing.T) {
	d := letters(t)
	all := readAll(t, d)
	rapid.Check(t, func(rt *rapid.T) {
		lo := rapid.IntRange(0, d.Len()-1).Draw(rt, "lo")
		hi := rapid.IntRange(lo+1, d.Len()).Draw(rt, "hi")
		s := Slice(d, lo, hi)
		if diff := cmp.Diff(all[lo:hi], readAll(t, s)); diff != "" {
			rt.Fatal(diff)
		}
		a := rapid.IntRange(0, s.Len()-1).Draw(rt, "a")
		b := rapid.IntRange(a+1, s.Len()).Draw(rt, "b")
		inner := Slice(s, a, b)
		if diff := cmp.Diff(all[lo+a:lo+b], readAll(t, inner)); diff != "" {
			rt.Fatal(diff)
		}
		if inner.Fingerprint() != Slice(d, lo+a, lo+b).Fingerprint() {
			rt.Fatal("a slice of a slice has another fingerprint than the slice it equals")
		}
	})
}

func TestFingerprintsTellDataSetsApart(t *testing.T) {
	seen := map[[32]byte]string{}
	add := func(name string, d Dataset) {
		p := d.Fingerprint()
		if other, dup := seen[p]; dup {
			t.Errorf("%s and %s have one fingerprint", name, other)
		}
		seen[p] = name
	}
	memory := func(shape []int, classes int, ids []uint64, x, y []float32) Dataset {
		m, err := NewMemory(Info{Name: "n", Input: shape, Target: 1, Classes: classes}, ids, x, y)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	x, y := []float32{1, 2, 3, 4, 5, 6, 7, 8}, []float32{0, 1}
	add("base", memory([]int{4}, 2, nil, x, y))
	add("shape", memory([]int{2, 2}, 2, nil, x, y))
	add("classes", memory([]int{4}, 3, nil, x, y))
	add("regression", memory([]int{4}, 0, nil, x, y))
	add("ids", memory([]int{4}, 2, []uint64{0, 2}, x, y))
	add("x", memory([]int{4}, 2, nil, []float32{1, 2, 3, 4, 5, 6, 7, 9}, y))
	add("-0", memory([]int{4}, 2, nil, x, []float32{float32(math.Copysign(0, -1)), 1}))
	add("y", memory([]int{4}, 2, nil, x, []float32{1, 0}))
	add("fewer", memory([]int{4}, 2, nil, x[:4], y[:1]))
	add("slice", Slice(memory([]int{4}, 2, nil, x, y), 0, 1))
	add("other slice", Slice(memory([]int{4}, 2, nil, x, y), 1, 2))
	add("one-hot", OneHot(memory([]int{4}, 2, nil, x, y)))
	add("pictures", pictures())
}

func TestEqualContentHasOneFingerprint(t *testing.T) {
	a, b := letters(t), letters(t)
	b.info.Name = "another name"
	b.info.ClassNames = []string{"a", "b", "c"}
	if a.Fingerprint() != b.Fingerprint() {
		t.Error("names are part of the fingerprint")
	}
	if a.Fingerprint() != Slice(a, 0, a.Len()).Fingerprint() {
		t.Error("the whole as a slice has a fingerprint of its own")
	}
	// A change of this value is a change of every trajectory: see numerics.
	const golden = "afc7f13e97226d1c271e0c00a2dc6b31a6ec5cf12339d6cd81d64e7bff2291ef"
	if got := hexOf(a.Fingerprint()); got != golden {
		t.Errorf("fingerprint is %s, want %s", got, golden)
	}
}

func TestOneHotSpreadsTheClass(t *testing.T) {
	d := OneHot(letters(t))
	if got := d.Info(); got.Target != 3 || got.Classes != 3 {
		t.Errorf("info is %+v, want a target of 3", got)
	}
	want := []sample{
		{10, []float32{0, 1}, []float32{1, 0, 0}},
		{11, []float32{2, 3}, []float32{0, 1, 0}},
		{12, []float32{4, 5}, []float32{0, 0, 1}},
		{23, []float32{6, 7}, []float32{0, 0, 1}},
	}
	if diff := cmp.Diff(want, readAll(t, Slice(d, 0, 4))); diff != "" {
		t.Error(diff)
	}
}

// foreseen remembers what it is told to be read soon.
type foreseen struct {
	Dataset
	told []int
}

func (f *foreseen) Prefetch(i int) { f.told = append(f.told, i) }

func TestWhatIsReadSoonIsToldToTheRecords(t *testing.T) {
	d, err := NewMemory(Info{Name: "m", Input: []int{1}, Target: 1, Classes: 2}, nil, make([]float32, 9), make([]float32, 9))
	if err != nil {
		t.Fatal(err)
	}
	base := &foreseen{Dataset: d}
	Prefetch(Slice(OneHot(Slice(base, 2, 9)), 1, 6), []int{4, 0})
	if want := []int{7, 3}; !slices.Equal(base.told, want) {
		t.Errorf("told of %v, want %v", base.told, want)
	}
	Prefetch(d, []int{1}) // which it has no use for
}

func TestConcurrentReadsAgree(t *testing.T) {
	for _, d := range []Dataset{letters(t), pictures(), OneHot(pictures()), Slice(letters(t), 1, 5)} {
		want, print := readAll(t, d), d.Fingerprint()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if diff := cmp.Diff(want, readAll(t, d)); diff != "" {
					t.Errorf("%s: %s", d.Info().Name, diff)
				}
				if d.Fingerprint() != print {
					t.Errorf("%s: another fingerprint", d.Info().Name)
				}
			})
		}
		wg.Wait()
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	for _, d := range []Dataset{letters(t), pictures(), OneHot(pictures()), Slice(pictures(), 1, 3)} {
		x, y := make([]float32, d.Info().InputLen()), make([]float32, d.Info().Target)
		n := testing.AllocsPerRun(100, func() {
			if _, err := d.Read(1, x, y); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s (%T): %v allocations per Read", d.Info().Name, d, n)
		}
	}
}

func TestMemoryRefusesWhatDoesNotFit(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	classes := Info{Name: "d", Input: []int{1}, Target: 1, Classes: 3}
	for _, c := range []struct {
		want string
		info Info
		ids  []uint64
		x, y []float32
	}{
		{"dataset d: record 1: class id is 3, want an integer from 0 to 2", classes, nil, []float32{1, 2}, []float32{2, 3}},
		{"dataset d: record 0: class id is -1, want an integer from 0 to 2", classes, nil, []float32{1}, []float32{-1}},
		{"dataset d: record 0: class id is 0.5, want an integer from 0 to 2", classes, nil, []float32{1}, []float32{0.5}},
		{"dataset d: record 1: input 0 is NaN, want a finite number", classes, nil, []float32{1, nan}, []float32{0, 0}},
		{"dataset d: record 0: target 0 is +Inf, want a finite number", Info{Name: "d", Input: []int{1}, Target: 1}, nil, []float32{1}, []float32{inf}},
		{"dataset d: record 2: id 7 is that of record 0, want distinct ids", classes, []uint64{7, 8, 7}, []float32{1, 2, 3}, []float32{0, 0, 0}},
		{"dataset d: zero samples", classes, nil, nil, nil},
		{"dataset d: 2 samples of 1 inputs and 1 targets need 2 and 2 values, got 3 and 2", classes, nil, []float32{1, 2, 3}, []float32{0, 0}},
		{"dataset d: 1 samples of 1 inputs and 1 targets need 1 and 1 values, got 2 and 2", classes, []uint64{1}, []float32{1, 2}, []float32{0, 0}},
		{"dataset d: input shape is empty", Info{Name: "d", Target: 1}, nil, nil, nil},
		{"dataset d: input shape [2 0]: axis 1 is 0, want at least 1", Info{Name: "d", Input: []int{2, 0}, Target: 1}, nil, nil, nil},
		{"dataset d: target length is 0, want at least 1", Info{Name: "d", Input: []int{1}}, nil, nil, nil},
		{"dataset d: classes is -1, want at least 0", Info{Name: "d", Input: []int{1}, Target: 1, Classes: -1}, nil, nil, nil},
		{"dataset d: target length is 2, want 1 (a class id) or 3 (one-hot)", Info{Name: "d", Input: []int{1}, Target: 2, Classes: 3}, nil, nil, nil},
		{"dataset d: 1 class names for 3 classes", Info{Name: "d", Input: []int{1}, Target: 1, Classes: 3, ClassNames: []string{"a"}}, nil, nil, nil},
	} {
		_, err := NewMemory(c.info, c.ids, c.x, c.y)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestBrokenCallsPanicWithThePackageName(t *testing.T) {
	d, x, y := letters(t), make([]float32, 2), make([]float32, 1)
	for name, call := range map[string]func(){
		"sample below":   func() { _, _ = d.Read(-1, x, y) },
		"sample above":   func() { _, _ = d.Read(6, x, y) },
		"short x":        func() { _, _ = d.Read(0, x[:1], y) },
		"long y":         func() { _, _ = d.Read(0, x, x) },
		"slice above":    func() { _, _ = Slice(d, 2, 4).Read(2, x, y) },
		"slice below":    func() { _, _ = Slice(d, 2, 4).Read(-1, x, y) },
		"empty slice":    func() { Slice(d, 2, 2) },
		"slice too long": func() { Slice(d, 0, 7) },
		"one-hot twice":  func() { OneHot(OneHot(d)) },
		"one-hot y":      func() { _, _ = OneHot(d).Read(0, x, y) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "dataset: ") {
					t.Errorf("panic is %q, want it to begin with the package", s)
				}
			}()
			call()
			t.Error("no panic")
		})
	}
}

func weighed(t *testing.T, weights ...float32) *Memory {
	t.Helper()
	info := Info{Name: "three", Input: []int{2}, Target: 1, Classes: 2}
	m, err := NewMemory(info, nil, []float32{1, 2, 3, 4, 5, 6}, []float32{0, 1, 1})
	if err != nil {
		t.Fatal(err)
	}
	if weights == nil {
		return m
	}
	if m, err = m.Weigh(weights); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWeightsGoWithTheirSamples(t *testing.T) {
	plain, m := weighed(t), weighed(t, 0.5, 0, 2)
	for _, d := range []Dataset{plain, OneHot(plain), Slice(plain, 1, 3)} {
		if Weights(d) != nil {
			t.Errorf("%T without weights has some", d)
		}
	}
	for _, c := range []struct {
		d    Dataset
		want []float32
	}{
		{m, []float32{0.5, 0, 2}},
		{OneHot(m), []float32{0.5, 0, 2}},
		{Slice(m, 1, 3), []float32{0, 2}},
		{OneHot(Slice(m, 1, 3)), []float32{0, 2}},
		{Slice(OneHot(m), 2, 3), []float32{2}},
	} {
		weight := Weights(c.d).Weight
		for i, want := range c.want {
			if got := weight(i); got != want {
				t.Errorf("%T: sample %d weighs %v, want %v", c.d, i, got, want)
			}
		}
	}
}

func TestWeightsAreInTheFingerprint(t *testing.T) {
	seen := map[[32]byte]string{}
	for name, m := range map[string]*Memory{
		"none": weighed(t), "ones": weighed(t, 1, 1, 1), "others": weighed(t, 1, 1, 2), "turned": weighed(t, 2, 1, 1),
	} {
		if other, twice := seen[m.Fingerprint()]; twice {
			t.Errorf("%s and %s have one fingerprint", name, other)
		}
		seen[m.Fingerprint()] = name
	}
	if _, known := seen[weighed(t, 1, 1, 2).Fingerprint()]; !known {
		t.Error("equal weights, other fingerprints")
	}
}

func TestAWeightThatIsNoneIsNamed(t *testing.T) {
	for want, weights := range map[string][]float32{
		"dataset three: got 2 weights for 3 samples, want equal numbers":              {1, 1},
		"dataset three: record 1: weight is -1, want a finite number of at least 0":   {1, -1, 1},
		"dataset three: record 2: weight is NaN, want a finite number of at least 0":  {1, 1, float32(math.NaN())},
		"dataset three: record 0: weight is +Inf, want a finite number of at least 0": {float32(math.Inf(1)), 1, 1},
	} {
		if _, err := weighed(t).Weigh(weights); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
