package dataset

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// realCache returns a cache directory that has MNIST: $DLNODE_TEST_DATA, or
// else the user's. Tests that need it are skipped where it isn't.
func realCache(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("DLNODE_TEST_DATA")
	if dir == "" {
		var err error
		if dir, err = DefaultCacheDir(); err != nil {
			needsData(t, "mnist")
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "mnist", mnist().Files[0].Name)); err != nil {
		needsData(t, "mnist") // or run `dlnode data get mnist`
	}
	return dir
}

// shared keeps MNIST between tests: to unpack it takes the race detector seconds.
var shared struct {
	sync.Once
	train, test Dataset
	err         error
}

func openMNIST(t testing.TB) (train, test Dataset) {
	t.Helper()
	env := Env{CacheDir: realCache(t), Offline: true}
	shared.Do(func() { shared.train, shared.test, shared.err = Open(context.Background(), &MNIST{}, env) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.train, shared.test
}

func TestMNISTIsWhatItsPublishersSay(t *testing.T) {
	train, test := openMNIST(t)
	want := Info{
		Name: "mnist", Input: []int{28, 28}, Target: 1, Classes: 10,
		ClassNames: []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
		Preprocess: imageSteps([]int{28, 28}),
	}
	for _, c := range []struct {
		d      Dataset
		n      int
		labels []float32 // of the first samples
		counts []int     // of each class
	}{
		{
			train, 60_000,
			[]float32{5, 0, 4, 1, 9, 2, 1, 3, 1, 4},
			[]int{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949},
		},
		{
			test, 10_000,
			[]float32{7, 2, 1, 0, 4, 1, 4, 9, 5, 9},
			[]int{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009},
		},
	} {
		if c.d.Len() != c.n {
			t.Fatalf("%d samples, want %d", c.d.Len(), c.n)
		}
		if diff := cmp.Diff(want, c.d.Info()); diff != "" {
			t.Error(diff)
		}
		for i, want := range c.labels {
			if got := read(t, c.d, i); got.ID != uint64(i) || got.Y[0] != want {
				t.Errorf("sample %d has id %d and label %v, want label %v", i, got.ID, got.Y[0], want)
			}
		}
		counts := make([]int, 10)
		for _, label := range c.d.(*images).labels {
			counts[label]++
		}
		if diff := cmp.Diff(c.counts, counts); diff != "" {
			t.Errorf("samples per class: %s", diff)
		}
	}
}

// Mean and deviation of all training pixels are 0.1307 and 0.3081, as every
// tutorial that normalises MNIST has it.
func TestMNISTPixelsHaveTheKnownMean(t *testing.T) {
	train, _ := openMNIST(t)
	var count [256]float64
	for _, b := range train.(*images).pixels {
		count[b]++
	}
	var n, sum, squares float64
	for b, c := range count {
		v := float64(float32(b) / 255)
		n += c
		sum += c * v
		squares += c * v * v
	}
	mean, variance := sum/n, squares/n-(sum/n)*(sum/n)
	if mean < 0.13065 || mean > 0.13075 || variance < 0.3081*0.3080 || variance > 0.3081*0.3082 {
		t.Errorf("mean %v, variance %v, want 0.1307 and 0.3081²", mean, variance)
	}
}

func TestTheFingerprintOfMNISTStaysWhatItIs(t *testing.T) {
	train, test := openMNIST(t)
	if got, want := hexOf(train.Fingerprint()), "583a236f9304c4783a58227fbf1665fde5d9aa65e39bf3b7ca92b1d2df88dbd2"; got != want {
		t.Errorf("train set is %s, want %s", got, want)
	}
	if got, want := hexOf(test.Fingerprint()), "51c5f841228c5b52cf318cc1656cdea9ee0eac0013d5fde2aa412c958896d293"; got != want {
		t.Errorf("test set is %s, want %s", got, want)
	}
}

func TestGetOfACachedMNISTTouchesNothing(t *testing.T) {
	cache := realCache(t)
	called := false
	dir, err := Get(t.Context(), "mnist", Env{CacheDir: cache, Offline: true, Progress: func(Progress) { called = true }})
	if err != nil || dir != filepath.Join(cache, "mnist") || called {
		t.Errorf("Get returned %q, %v; progress called: %v", dir, err, called)
	}
	if e := List()[0]; !e.Cached(cache) || e.Bytes() != 11_594_722 {
		t.Errorf("%s: cached %v, %d bytes, want true and 11594722", e.Name, e.Cached(cache), e.Bytes())
	}
}

func BenchmarkOpenMNIST(b *testing.B) {
	env := Env{CacheDir: realCache(b), Offline: true}
	for b.Loop() {
		if _, _, err := Open(b.Context(), &MNIST{}, env); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFingerprintMNIST(b *testing.B) {
	train, _ := openMNIST(b)
	for b.Loop() {
		train.(*images).fingerprint()
	}
}

func BenchmarkReadMNIST(b *testing.B) {
	train, _ := openMNIST(b)
	x, y := make([]float32, 784), make([]float32, 1)
	i := 0
	for b.Loop() {
		if _, err := train.Read(i%train.Len(), x, y); err != nil {
			b.Fatal(err)
		}
		i += 7919
	}
}
