package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// realFile returns a file of $DLNODE_TEST_DATA. Tests that need it are skipped
// where it isn't, and in short runs.
func realFile(t testing.TB, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("takes too long for a short run")
	}
	path := filepath.Join(os.Getenv("DLNODE_TEST_DATA"), name)
	if _, err := os.Stat(path); os.Getenv("DLNODE_TEST_DATA") == "" || err != nil {
		needsData(t, name)
	}
	return path
}

// needsData skips a test in the words that CI looks for: it fails where the data
// is there and its test was skipped.
func needsData(t testing.TB, name string) {
	t.Helper()
	t.Skipf("needs data: %s (a path in DLNODE_TEST_DATA)", name)
}

// counts returns how many samples each class has.
func counts(t testing.TB, d Dataset) []int {
	t.Helper()
	n := make([]int, d.Info().Classes)
	x, y := make([]float32, d.Info().InputLen()), make([]float32, 1)
	for i := range d.Len() {
		if _, err := d.Read(i, x, y); err != nil {
			t.Fatal(err)
		}
		n[int(y[0])]++
	}
	return n
}

// opened opens a spec until the test ends.
func opened(t testing.TB, spec Spec, env Env) (train, test Dataset) {
	t.Helper()
	train, test, err := Open(t.Context(), spec, env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []Dataset{train, test} {
			if p, ok := d.(*packed); ok {
				p.Close()
			}
		}
	})
	return train, test
}

// twice opens a spec that is decoded, and then the same that is there.
func twice(t testing.TB, spec Spec, env Env) (train, test Dataset) {
	t.Helper()
	begun := time.Now()
	first, _ := opened(t, spec, env)
	decoded := time.Since(begun)
	begun = time.Now()
	train, test = opened(t, spec, env)
	t.Logf("decoded in %v, opened in %v", decoded.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	if first.Fingerprint() != train.Fingerprint() {
		t.Error("another fingerprint when it is there")
	}
	return train, test
}

// The digests are those of Keras' rows, by testdata/imdb.py.
func TestIMDbIsWhatKerasMakesOfIt(t *testing.T) {
	spec := newIMDb()
	spec.Path = realFile(t, "aclImdb_v1_labelled.tar.gz")
	train, test := twice(t, spec, Env{CacheDir: t.TempDir()})
	for _, c := range []struct {
		d     Dataset
		first uint64
		want  string
	}{
		{train, 0, "c79b109662402bf280a0672c58dd4d9faf4c9336b12bcc316a83bb74831d1a26"},
		{test, 25_000, "2727520b33d7e9283728d3abf965e173ce81777bd0bcdc5efba71943a4fd18a0"},
	} {
		if n := counts(t, c.d); c.d.Len() != 25_000 || n[0] != 12_500 || n[1] != 12_500 {
			t.Errorf("%d samples, %v of the classes", c.d.Len(), n)
		}
		if got := rowsByID(t, c.d, c.first); got != c.want {
			t.Errorf("rows from id %d on are %s, want %s", c.first, got, c.want)
		}
	}
	words := train.Info().Preprocess.Text.Words
	if got := strings.Join(words[:8], " "); got != "the and a of to is br in" || len(words) != 9999 {
		t.Errorf("%d words, the first are %q", len(words), got)
	}
}

// rowsByID hashes the rows as int32 in the order of ids, first upwards.
func rowsByID(t testing.TB, d Dataset, first uint64) string {
	t.Helper()
	place := make([]int, d.Len())
	for i := range place {
		place[d.ID(i)-first] = i
	}
	h := sha256.New()
	var row []byte
	for _, i := range place {
		row = row[:0]
		for _, v := range read(t, d, i).X {
			row = binary.LittleEndian.AppendUint32(row, uint32(v))
		}
		h.Write(row)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestPhotosAreReadFromTheirArchive(t *testing.T) {
	spec := &CatsVsDogs{newImageFolder(150, 150)}
	spec.Path = realFile(t, "dogs-vs-cats-2000.tar")
	train, test := twice(t, spec, Env{CacheDir: t.TempDir()})
	if n := counts(t, train); train.Len() != 2000 || n[0] != 1000 || test != nil {
		t.Errorf("%d samples, %v of the classes", train.Len(), n)
	}
	// All bits, whatever decodes them: a change of this is a change of decoderVersion.
	const want = "2c438a744c891cdddfef277e26845bbd71d373f9b67edfc90be70eddde804ca9"
	if got := hexOf(train.Fingerprint()); got != want {
		t.Errorf("the photos are %s, want %s", got, want)
	}
}
