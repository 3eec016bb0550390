package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset/archive"
)

// cifarFiles are n records a file, of pixels that tell where they are from, in the
// layout of the published archives: cifar-10-batches-bin/data_batch_1.bin and so
// on, or cifar-100-binary/train.bin.
func cifarFiles(c cifar, n int) map[string][]byte {
	dir, names := "cifar-10-batches-bin/", []string{}
	if c.classes == 100 {
		dir = "cifar-100-binary/"
	}
	for i := range c.classes {
		names = append(names, fmt.Sprintf("name_%d", i))
	}
	// The published list of ten ends in an empty line.
	files := map[string][]byte{dir + c.names: []byte(strings.Join(names, "\n") + "\n\n"), dir + "readme.html": []byte("…")}
	for f, name := range slices.Concat(c.train, c.test) {
		var b []byte
		for i := range n {
			if c.labels == 2 {
				b = append(b, 19) // the coarse one
			}
			b = append(b, byte((7*f+i)%c.classes))
			for plane := range 3 {
				for j := range cifarPlane {
					b = append(b, cifarPixel(f, i, plane, j))
				}
			}
		}
		files[dir+name] = b
	}
	return files
}

func cifarPixel(file, record, channel, at int) byte {
	return byte(59*file + 31*record + 101*channel + 7*(at%cifarSide) + 3*(at/cifarSide))
}

func cifarSpecs() map[string]cifar {
	return map[string]cifar{"cifar10": (&CIFAR10{}).format(), "cifar100": (&CIFAR100{}).format()}
}

// decodeCIFAR reads an archive as open does, but for the digest of the published one.
func decodeCIFAR(t testing.TB, c cifar, tar []byte) (train, test Dataset, err error) {
	t.Helper()
	at := filepath.Join(writeFiles(t, map[string][]byte{"cifar.tar.gz": zipped(t, tar)}), "cifar.tar.gz")
	train, test, err = c.decode(t.Context(), Env{CacheDir: t.TempDir()}, at)
	t.Cleanup(func() {
		for _, d := range []Dataset{train, test} {
			if p, ok := d.(*packed); ok {
				p.Close()
			}
		}
	})
	return train, test, err
}

// The planes of a record become channels, and the second label of CIFAR-100 counts.
func TestCIFARIsReadAsItIsPublished(t *testing.T) {
	for name, c := range cifarSpecs() {
		const n = 3
		train, test, err := decodeCIFAR(t, c, asTar(t, cifarFiles(c, n)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if info := train.Info(); info.Classes != c.classes || info.ClassNames[c.classes-1] != fmt.Sprintf("name_%d", c.classes-1) || !slices.Equal(info.Input, []int{32, 32, 3}) {
			t.Errorf("%s: %+v", name, info)
		}
		if train.Len() != n*len(c.train) || test.Len() != n || test.ID(0) != uint64(train.Len()) {
			t.Errorf("%s: %d and %d samples", name, train.Len(), test.Len())
		}
		for part, d := range []Dataset{train, test} {
			for i := range d.Len() {
				file, record := i/n+part*len(c.train), i%n
				s := read(t, d, i)
				if s.Y[0] != float32((7*file+record)%c.classes) {
					t.Fatalf("%s: sample %d has class %v", name, s.ID, s.Y[0])
				}
				for k, v := range s.X {
					if want := float32(cifarPixel(file, record, k%3, k/3)) / 255; v != want {
						t.Fatalf("%s: sample %d: channel %d of pixel %d is %v, want %v", name, s.ID, k%3, k/3, v, want)
					}
				}
			}
		}
	}
}

func TestBadCIFARFilesAreTold(t *testing.T) {
	const n, dir = 3, "cifar-10-batches-bin/"
	for name, f := range map[string]struct {
		spoil func(files map[string][]byte)
		want  string
	}{
		"cut record":     {func(f map[string][]byte) { f[dir+"data_batch_2.bin"] = f[dir+"data_batch_2.bin"][:3073+9] }, "data_batch_2.bin: offset 3073: 9 bytes are no record, want 3073 each"},
		"empty":          {func(f map[string][]byte) { f[dir+"test_batch.bin"] = nil }, "test_batch.bin: offset 0: 0 bytes are no record, want 3073 each"},
		"label":          {func(f map[string][]byte) { f[dir+"data_batch_5.bin"][2*3073] = 10 }, "data_batch_5.bin: record 2 (offset 6146): class id is 10, want an integer from 0 to 9"},
		"missing batch":  {func(f map[string][]byte) { delete(f, dir+"data_batch_4.bin") }, "cifar.tar.gz: there is no data_batch_4.bin"},
		"missing names":  {func(f map[string][]byte) { delete(f, dir+"batches.meta.txt") }, "cifar.tar.gz: there is no batches.meta.txt"},
		"a name too few": {func(f map[string][]byte) { f[dir+"batches.meta.txt"] = []byte("a b c") }, "batches.meta.txt: 3 names of classes, want 10"},
	} {
		files := cifarFiles((&CIFAR10{}).format(), n)
		f.spoil(files)
		_, _, err := decodeCIFAR(t, (&CIFAR10{}).format(), asTar(t, files))
		if err == nil || !strings.Contains(err.Error(), f.want) || strings.Count(err.Error(), "cifar.tar.gz:") != 1 {
			t.Errorf("%s: got %v, want %q", name, err, f.want)
		}
	}
}

// Only the published archive is CIFAR-10: another one is refused by its digest, and
// the cache stays as it was.
func TestAnotherArchiveIsNotCIFAR(t *testing.T) {
	mine := zipped(t, asTar(t, cifarFiles((&CIFAR10{}).format(), 1)))
	dir := writeFiles(t, map[string][]byte{"cifar-10-binary.tar.gz": mine})
	for _, from := range []string{dir, filepath.Join(dir, "cifar-10-binary.tar.gz")} {
		env := Env{CacheDir: t.TempDir()}
		_, err := Adopt(t.Context(), "cifar10", from, env)
		want := fmt.Sprintf("\n  %s: %d bytes, want 170052171", from, len(mine))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if left, err := os.ReadDir(filepath.Join(env.CacheDir, "cifar10")); err == nil && len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	}
	// One of the right length.
	big := File{"cifar-10-binary.tar.gz", int64(len(mine)), strings.Repeat("0", 64)}
	e := Entry{Name: "cifar10", Files: []File{big}}
	sum := sha256.Sum256(mine)
	if _, err := e.adopt(t.Context(), dir, Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "SHA-256 is "+hex.EncodeToString(sum[:])+", want 0000") {
		t.Errorf("got %v", err)
	}
	// And what has the digest is taken, from a file of any name or a directory.
	big.SHA256 = hex.EncodeToString(sum[:])
	e.Files = []File{big}
	other := filepath.Join(writeFiles(t, map[string][]byte{"download (1).gz": mine}), "download (1).gz")
	for _, from := range []string{dir, other} {
		cache := t.TempDir()
		at, err := e.adopt(t.Context(), from, Env{CacheDir: cache})
		if err != nil || !e.Cached(cache) {
			t.Errorf("%s: %s, %v", from, at, err)
		}
	}
}

// FuzzCIFAR holds the reader of records to: no panic, and what is accepted are the
// bytes of the file, in another order.
func FuzzCIFAR(f *testing.F) {
	for _, c := range cifarSpecs() {
		for _, b := range cifarFiles(c, 1) {
			f.Add(b, c.labels == 2)
		}
	}
	f.Add(bytes.Repeat([]byte{9}, 3*3073), false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, hundred bool) {
		c := (&CIFAR10{}).format()
		if hundred {
			c = (&CIFAR100{}).format()
		}
		w := &setWriter{dir: t.TempDir(), progress: func(int, int) {}}
		p, err := w.part(packMeta{inBytes, Info{Name: "x", Input: []int{32, 32, 3}, Target: 1, Classes: c.classes}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.w.Close()
		n, err := c.records(p, b, 0)
		if size := c.labels + 3*cifarPlane; err == nil && int(n)*size != len(b) {
			t.Fatalf("%d records of %d bytes from %d", n, size, len(b))
		}
	})
}

// FuzzCIFARArchive puts files of any bytes into the archive.
func FuzzCIFARArchive(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte{1, 2, 3}, uint8(0))
	f.Add([]byte(strings.Repeat("a ", 10)), bytes.Repeat([]byte{0}, 3073), uint8(0))
	f.Add([]byte(strings.Repeat("a ", 10)), bytes.Repeat([]byte{200}, 3073), uint8(200))
	f.Fuzz(func(t *testing.T, names, batch []byte, cut uint8) {
		c := (&CIFAR10{}).format()
		files := map[string][]byte{c.names: names}
		for _, name := range slices.Concat(c.train, c.test) {
			files[name] = batch
		}
		tar := asTar(t, files)
		dir := writeFiles(t, map[string][]byte{"x": tar[:len(tar)-int(cut)]})
		src, err := archive.Open(filepath.Join(dir, "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		list, err := src.List(t.Context(), dir)
		if err != nil {
			return
		}
		w := &setWriter{dir: t.TempDir(), progress: func(int, int) {}}
		err = c.fill(t.Context(), w, list)
		for _, p := range w.parts {
			p.w.Close()
		}
		if err == nil && (len(batch)%3073 != 0 || len(strings.Fields(string(names))) != 10) {
			t.Fatal("accepted what is no CIFAR-10")
		}
	})
}
