package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func hexOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }

// idx encodes an IDX file of unsigned bytes.
func idx(dims []int, data []byte) []byte {
	b := []byte{0, 0, idxUbyte, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, data...)
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestDecodingGivesWhatWasEncoded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dims := rapid.SliceOfN(rapid.IntRange(1, 6), 1, 4).Draw(rt, "dims")
		n := 1
		for _, d := range dims {
			n *= d
		}
		want := &IDX{Dims: dims, Data: rapid.SliceOfN(rapid.Byte(), n, n).Draw(rt, "data")}
		file := idx(want.Dims, want.Data)
		if rapid.Bool().Draw(rt, "gzip") {
			file = zipped(t, file)
		}
		got, err := DecodeIDX(bytes.NewReader(file), MaxIDXBytes)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatal(diff)
		}
		if got.Len()*got.RecordLen() != len(got.Data) {
			rt.Fatalf("%d records of %d bytes are not %d bytes", got.Len(), got.RecordLen(), len(got.Data))
		}
	})
}

// Each error names the offset, what was seen there and what was wanted.
func TestDamagedFilesAreToldByOffsetAndValue(t *testing.T) {
	good := idx([]int{2, 3}, []byte{1, 2, 3, 4, 5, 6})
	edit := func(at int, b ...byte) []byte {
		return append(append(bytes.Clone(good[:at]), b...), good[at+len(b):]...)
	}
	z := zipped(t, good)
	badSum := bytes.Clone(z)
	badSum[len(badSum)-6] ^= 1
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "offset 0: the file ends too early in the IDX header"},
		{"short magic", good[:3], "offset 3: the file ends too early in the IDX header"},
		{"short sizes", good[:9], "offset 9: the file ends too early in the IDX header"},
		{"truncated", good[:15], "offset 15: the file ends too early after 3 of 6 bytes of data (dimensions [2 3])"},
		{"no data", good[:12], "offset 12: the file ends too early after 0 of 6 bytes of data (dimensions [2 3])"},
		{"trailing", append(bytes.Clone(good), 9), "offset 18: trailing bytes after the last record, the first is 0x09"},
		{"text", []byte("<html>not found"), "offset 0: IDX magic starts with 3c 68, want 00 00 (or 1f 8b, gzip)"},
		{"floats", edit(2, 0x0d), "offset 2: IDX element type is 0x0d, want 0x08 (unsigned byte)"},
		{"no dimension", edit(3, 0), "offset 3: IDX has 0 dimensions, want 1 to 8"},
		{"many dimensions", edit(3, 200), "offset 3: IDX has 200 dimensions, want 1 to 8"},
		{"zero samples", edit(7, 0), "offset 4: zero samples, want at least 1"},
		{"zero width", edit(11, 0), "offset 8: IDX dimension 1 is 0, want at least 1"},
		{"huge", edit(4, 0xff, 0xff, 0xff, 0xff, 0xff), "offset 8: IDX dimension 1 is 4278190083, which makes more than 4294967296 bytes in all"},
		{"short gzip header", z[:5], "gzip header: the file ends too early"},
		{"truncated gzip", z[:len(z)-12], "offset 18: the file ends too early"},
		{"no gzip checksum", z[:len(z)-8], "offset 18: the file ends too early"},
		{"gzip checksum", badSum, "offset 18: gzip: invalid checksum"},
		{"trailing gzip", append(bytes.Clone(z), "garbage, long enough"...), "offset 18: trailing bytes after the gzip stream"},
		{"second gzip", append(bytes.Clone(z), z...), "offset 18: trailing bytes after the last record, the first is 0x00"},
	} {
		_, err := DecodeIDX(bytes.NewReader(c.file), MaxIDXBytes)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s:\n got %v\nwant %s", c.name, err, c.want)
		}
	}
}

func TestAFlippedBitOfAGzipFileIsNeverBelieved(t *testing.T) {
	want := idx([]int{4, 4}, bytes.Repeat([]byte{7, 8}, 8))
	file := zipped(t, want)
	for i := range 8 * len(file) {
		bad := bytes.Clone(file)
		bad[i/8] ^= 1 << (i % 8)
		x, err := DecodeIDX(bytes.NewReader(bad), 1<<20)
		if err == nil && !bytes.Equal(idx(x.Dims, x.Data), want) {
			t.Errorf("bit %d flipped: decoded to something else without an error", i)
		}
	}
}

func TestAPromiseOfDataCostsNoMemory(t *testing.T) {
	file := append(idx([]int{1 << 30}, nil), make([]byte, 1000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := DecodeIDX(bytes.NewReader(file), MaxIDXBytes/4); err == nil {
		t.Error("a truncated file was accepted")
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes allocated for a file of %d", used, len(file))
	}
}

func TestDecompressionStopsAtTheLimit(t *testing.T) {
	file := zipped(t, idx([]int{1 << 22}, make([]byte, 1<<22)))
	_, err := DecodeIDX(bytes.NewReader(file), 1<<20)
	const want = "offset 4: IDX dimension 0 is 4194304, which makes more than 1048576 bytes in all"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// FuzzDecodeIDX holds DecodeIDX to: no panic, no data beyond the limit, and what
// is accepted from a plain file encodes back to that file. Seeds lie in testdata.
func FuzzDecodeIDX(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte) {
		const limit = 1 << 20
		x, err := DecodeIDX(bytes.NewReader(file), limit)
		if err != nil {
			return
		}
		if x.Len()*x.RecordLen() != len(x.Data) || len(x.Data) > limit {
			t.Fatalf("dimensions %v with %d bytes", x.Dims, len(x.Data))
		}
		if file[0] == 0 && !bytes.Equal(idx(x.Dims, x.Data), file) {
			t.Fatal("the file decodes to something else than it holds")
		}
	})
}

// writeFiles puts files into a directory of the test and returns it.
func writeFiles(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestIDXFilesAreADataSet(t *testing.T) {
	dir := writeFiles(t, map[string][]byte{
		"images":  idx([]int{2, 2, 2}, []byte{0, 51, 102, 153, 204, 255, 0, 0}),
		"labels":  zipped(t, idx([]int{2}, []byte{1, 2})),
		"images2": zipped(t, idx([]int{1, 2, 2}, []byte{255, 0, 0, 0})),
		"labels2": idx([]int{1}, []byte{0}),
	})
	spec := &Files{TrainImages: "images", TrainLabels: "labels", TestImages: "images2", TestLabels: "labels2", Classes: 3}
	train, test, err := Open(t.Context(), spec, Env{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Name: "idx", Input: []int{2, 2}, Target: 1, Classes: 3, Preprocess: imageSteps([]int{2, 2})}
	if diff := cmp.Diff(want, train.Info()); diff != "" {
		t.Error(diff)
	}
	samples := []sample{
		{0, []float32{0, 0.2, 0.4, 0.6}, []float32{1}},
		{1, []float32{0.8, 1, 0, 0}, []float32{2}},
	}
	if diff := cmp.Diff(samples, readAll(t, train)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(sample{0, []float32{1, 0, 0, 0}, []float32{0}}, read(t, test, 0)); diff != "" {
		t.Error(diff)
	}
	spec.TestImages, spec.TestLabels = "", ""
	if _, test, err = Open(t.Context(), spec, Env{Dir: dir}); err != nil || test != nil {
		t.Errorf("without test files: test set %v, error %v, want none of both", test, err)
	}
}

// Compression and place are no part of what the data is.
func TestTheFingerprintIsOfTheContentNotOfTheFiles(t *testing.T) {
	img, lab := idx([]int{1, 2, 2}, []byte{1, 2, 3, 4}), idx([]int{1}, []byte{1})
	dir := writeFiles(t, map[string][]byte{"i": img, "l": lab, "i.gz": zipped(t, img), "l.gz": zipped(t, lab)})
	open := func(images, labels string) [32]byte {
		train, _, err := Open(t.Context(), &Files{TrainImages: images, TrainLabels: labels, Classes: 2}, Env{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return train.Fingerprint()
	}
	if open("i", "l") != open(filepath.Join(dir, "i.gz"), "l.gz") {
		t.Error("plain and compressed files have different fingerprints")
	}
}

func TestFilesThatDoNotGoTogetherAreToldByNameAndRecord(t *testing.T) {
	dir := writeFiles(t, map[string][]byte{
		"i2":      idx([]int{2, 1, 2}, []byte{1, 2, 3, 4}),
		"i1":      idx([]int{1, 2, 1}, []byte{1, 2}),
		"l2":      idx([]int{2}, []byte{0, 1}),
		"l1":      idx([]int{1}, []byte{0}),
		"l2bad":   zipped(t, idx([]int{2}, []byte{1, 7})),
		"damaged": idx([]int{2}, []byte{0}),
	})
	for _, c := range []struct {
		spec Files
		want string
	}{
		{Files{TrainImages: "i2", TrainLabels: "l1"}, "dataset idx: DIR/l1: offset 4: 1 labels, but DIR/i2 has 2 images"},
		{Files{TrainImages: "i2", TrainLabels: "l2bad"}, "dataset idx: DIR/l2bad: record 1 (offset 9): label is 7, want 0 to 1"},
		{Files{TrainImages: "i2", TrainLabels: "i1"}, "dataset idx: DIR/i1: offset 3: 3 dimensions, want 1: one label per image"},
		{Files{TrainImages: "l2", TrainLabels: "l2"}, "dataset idx: DIR/l2: offset 3: 1 dimension, want at least 2: images × their size"},
		{Files{TrainImages: "i2", TrainLabels: "l2", TestImages: "i1", TestLabels: "l1"}, "dataset idx: DIR/i1: offset 8: images are [2 1], but those of DIR/i2 are [1 2]"},
		{Files{TrainImages: "i2", TrainLabels: "damaged"}, "dataset idx: DIR/damaged: offset 9: the file ends too early after 1 of 2 bytes of data (dimensions [2])"},
		{Files{TrainImages: "none", TrainLabels: "l2"}, "dataset idx: open DIR/none: no such file or directory"},
		{Files{}, "dataset idx: train_images: \"\" is not allowed (want the path of an IDX file)\n" +
			"train_labels: \"\" is not allowed (want the path of an IDX file)"},
		{Files{TrainImages: "i2", TrainLabels: "l2", TestImages: "i1"}, "dataset idx: test_labels: \"\" is not allowed (want the path of an IDX file, as test_images has one)"},
		{Files{TrainImages: "i2", TrainLabels: "l2", Classes: 300}, "dataset idx: classes: 300 is not allowed (want 2 to 256)"},
	} {
		if c.spec.Classes == 0 {
			c.spec.Classes = 2
		}
		_, _, err := Open(t.Context(), &c.spec, Env{Dir: dir})
		want := strings.ReplaceAll(c.want, "DIR", dir)
		if err == nil || err.Error() != want {
			t.Errorf(" got %v\nwant %s", err, want)
		}
	}
}
