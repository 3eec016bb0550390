package dataset

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset/archive"
)

// filled calls fill with a writer into a directory of the test, and reads back what
// was written of the parts if it returns nil: each sample must be what Info says.
func filled(t *testing.T, fill func(*setWriter) error) error {
	t.Helper()
	w := &setWriter{dir: t.TempDir(), set: set{Version: setVersion, Kind: "fuzzed", Spec: []byte("{}")}, progress: func(int, int) {}}
	defer func() {
		for _, p := range w.parts {
			p.w.Close()
		}
	}()
	if err := fill(w); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		t.Fatalf("what was accepted can't be packed: %v", err)
	}
	train, test, _, err := openSet(w.dir)
	if err != nil {
		t.Fatalf("what was packed can't be opened: %v", err)
	}
	for _, d := range []*packed{train, test} {
		if d == nil {
			continue
		}
		defer d.Close()
		info := d.Info()
		x, y := make([]float32, info.InputLen()), make([]float32, info.Target)
		for i := range d.Len() {
			if id, err := d.Read(i, x, y); err != nil || id != d.ID(i) {
				t.Fatalf("sample %d: id %d, %v", i, id, err)
			}
		}
	}
	return nil
}

// FuzzCSV holds the kind csv to: no panic, and what is accepted is a data set.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("a,b\n1,x\n2,y\n"), uint8(0))
	f.Add([]byte("\ufeffa,b\r\n\"1\",x\r\nNaN,y\r\n,x\n"), uint8(1))
	f.Add([]byte("1,2\n3,4\n5,6\n1e-200,1e38\n"), uint8(6))
	f.Add([]byte("a\tb\nu\tx\nv\ty\n\n\rw\tx\n"), uint8(8))
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		spec := newCSV()
		spec.Path = filepath.Join(writeFiles(t, map[string][]byte{"x": b}), "x")
		spec.Target, spec.Delimiter = "b", "comma"
		if how&1 != 0 {
			spec.OnBroken = "skip"
		}
		if how&2 != 0 {
			spec.Header, spec.Target = false, "2"
		}
		if how&4 != 0 {
			spec.TargetType, spec.Normalize = "number", "minmax"
		}
		if how&8 != 0 {
			spec.Delimiter = "tab"
		}
		if how&16 != 0 {
			spec.TestSplit, spec.Shuffle = 0.4, 3
		}
		_ = filled(t, func(w *setWriter) error {
			return spec.with(t.Context(), Env{}, w.dir, func(tb *table) error { return spec.fill(t.Context(), w, tb) })
		})
	})
}

// FuzzTextCSV is as FuzzCSV, for text_csv.
func FuzzTextCSV(f *testing.F) {
	f.Add([]byte(spamCSV), uint8(0))
	f.Add([]byte("text,label\n\"a\r\nb\",x\nİ Σ,y\n\x00,x\n"), uint8(1))
	f.Add([]byte("a b c\tx\nd\ty\n"), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		spec := newTextCSV()
		spec.Path = filepath.Join(writeFiles(t, map[string][]byte{"x": b}), "x")
		spec.Delimiter, spec.MaxLen = "comma", int(how>>4)
		if how&1 != 0 {
			spec.OnBroken = "skip"
		}
		if how&2 != 0 {
			spec.Header, spec.Text, spec.Label, spec.Delimiter = false, "1", "2", "tab"
		}
		if how&4 != 0 {
			spec.NumWords, spec.OOV = 3, "?"
		}
		_ = filled(t, func(w *setWriter) error {
			return spec.with(t.Context(), Env{}, w.dir, func(tb *table) error { return spec.fill(t.Context(), w, tb) })
		})
	})
}

// fillFolder fills from what lies at path.
func fillFolder(t *testing.T, path string, f *Folder, extensions []string, fill func(context.Context, *setWriter, *tree) error) error {
	t.Helper()
	src, err := archive.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close() // only read from
	return filled(t, func(w *setWriter) error {
		files, err := src.List(t.Context(), w.dir)
		if err != nil {
			return err
		}
		defer files.Close()
		tree, err := f.tree(files, extensions)
		if err != nil {
			return err
		}
		return fill(t.Context(), w, tree)
	})
}

// FuzzTextFolder puts any bytes into texts.
func FuzzTextFolder(f *testing.F) {
	f.Add([]byte("A good film"), []byte("bad"), uint8(0))
	f.Add([]byte("\ufeffone\r\ntwo"), []byte("caf\xe9"), uint8(1))
	f.Add(utf16("words"), []byte("a\x00b"), uint8(1))
	f.Fuzz(func(t *testing.T, a, b []byte, how uint8) {
		spec := newTextFolder()
		spec.MaxLen = int(how >> 4)
		if how&1 != 0 {
			spec.OnBroken = "skip"
		}
		dir := writeTree(t, map[string][]byte{"x/1.txt": a, "y/1.txt": b, "y/2.txt": []byte("sound")})
		_ = fillFolder(t, dir, &spec.Folder, []string{".txt"}, spec.fill)
	})
}

// FuzzImageFolder puts any bytes into an image, beside sound ones.
func FuzzImageFolder(f *testing.F) {
	red := plain(f, 3, 2, color.NRGBA{255, 0, 0, 255})
	f.Add(red, uint8(0))
	f.Add(red[:40], uint8(1))
	f.Add([]byte("\xff\xd8\xff\xe0"), uint8(3))
	f.Fuzz(func(t *testing.T, file []byte, how uint8) {
		spec := smallImages("")
		if how&1 != 0 {
			spec.OnBroken = "skip"
		}
		if how&2 != 0 {
			spec.Color, spec.Filter = "gray", "bicubic"
		}
		dir := writeTree(t, map[string][]byte{"a/1.png": file, "a/2.png": red, "b/1.png": red})
		_ = fillFolder(t, dir, &spec.Folder, imageExtensions, spec.fill)
	})
}

// FuzzFolderArchive takes any bytes for an archive of a folder.
func FuzzFolderArchive(f *testing.F) {
	whole := asTar(f, reviews())
	f.Add(whole)
	f.Add(whole[:1024])
	f.Add(zipped(f, whole))
	f.Add(zipOf(f, reviews(), func(*zip.FileHeader) {}))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec := newTextFolder()
		spec.OnBroken = "skip"
		path := filepath.Join(writeFiles(t, map[string][]byte{"x": b}), "x")
		_ = fillFolder(t, path, &spec.Folder, []string{".txt"}, spec.fill)
	})
}

// FuzzNPZ takes any bytes for an .npz: zip, header and numbers.
func FuzzNPZ(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "golden.npz"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden, uint8(0))
	head := func(shape string) []byte {
		text := "{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + ", }\n"
		return append([]byte{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, byte(len(text)), 0}, text...)
	}
	tiny := zipOf(f, map[string][]byte{"u1.npy": append(head("(2, 1)"), 7, 9), "y.npy": append(head("(2,)"), 0, 1)}, func(*zip.FileHeader) {})
	f.Add(tiny, uint8(1))
	f.Add(tiny[:len(tiny)-9], uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		spec := &NPZ{Path: filepath.Join(writeFiles(t, map[string][]byte{"x": b}), "x"), X: "u1", Y: "y", Classes: 2 * int(how&1), Scale: 1}
		if how&2 != 0 {
			spec.Scale = 255
		}
		if how&4 != 0 {
			spec.XTest, spec.YTest = "u1", "y"
		}
		_ = filled(t, func(w *setWriter) error { return spec.fill(t.Context(), Env{}, w) })
	})
}

// FuzzSet puts any bytes in the place of the file that names the packs, and of the
// meta of one.
func FuzzSet(f *testing.F) {
	spec := newTextFolder()
	spec.Path = writeTree(f, map[string][]byte{"x/1.txt": []byte("a b"), "y/1.txt": []byte("c")})
	dir := filepath.Join(f.TempDir(), "set")
	if err := Pack(f.Context(), &spec, Env{CacheDir: f.TempDir()}, dir); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, setName))
	if err != nil {
		f.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "train", "index.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, index)
	f.Add([]byte(`{"version":1}`), bytes.ReplaceAll(index, []byte(`"maxlen":2`), []byte(`"maxlen":3`)))
	f.Add(text, bytes.ReplaceAll(index, []byte(`"int32"`), []byte(`"float32"`)))
	f.Fuzz(func(t *testing.T, text, index []byte) {
		here := filepath.Join(t.TempDir(), "set")
		if err := os.CopyFS(here, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		// The digest that names the index is made to fit, or all would end there.
		if s, err := decodeSet(text); err == nil {
			s.Train.Index = sha256.Sum256(index)
			if text, err = json.Marshal(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.WriteFile(filepath.Join(here, setName), text, 0o644), os.WriteFile(filepath.Join(here, "train", "index.json"), index, 0o644)); err != nil {
			t.Fatal(err)
		}
		train, test, _, err := openSet(here)
		if err != nil {
			return
		}
		for _, d := range []*packed{train, test} {
			if d == nil {
				continue
			}
			defer d.Close()
			x, y := make([]float32, d.Info().InputLen()), make([]float32, d.Info().Target)
			for i := range d.Len() {
				if _, err := d.Read(i, x, y); err == nil && d.Info().Preprocess != nil && d.Info().Preprocess.Text != nil {
					MeaningOf(d.Info()).Words(x)
				}
			}
		}
	})
}

// FuzzResume goes on with whatever lies there of a broken download, from a source
// that gives whatever it likes: at the end there is the file, or an error, and no
// file that is another one.
func FuzzResume(f *testing.F) {
	whole := []byte(strings.Repeat("0123456789abcdef", 20))
	f.Add(whole[:100], whole[100:], int64(100), true)
	f.Add(whole[:100], whole, int64(0), true)
	f.Add([]byte("rotten"), whole[6:], int64(6), true)
	f.Add(whole, []byte("x"), int64(0), false)
	f.Add([]byte{}, whole[:7], int64(0), false)
	f.Fuzz(func(t *testing.T, left, comes []byte, at int64, kept bool) {
		dir := t.TempDir()
		sum := sha256.Sum256(whole)
		file := File{"f", int64(len(whole)), hex.EncodeToString(sum[:])}
		name := ".f.partial"
		if !kept { // what a killed process left
			name = ".f.123.part"
		}
		if err := os.WriteFile(filepath.Join(dir, name), left, 0o644); err != nil {
			t.Fatal(err)
		}
		fetch := newFetcher(dir, []source{&sourceOf{comes, at}}, Env{})
		fetch.keep, fetch.quiet = 10, -1
		err := fetch.run(t.Context(), []File{file})
		got, there := os.ReadFile(filepath.Join(dir, "f"))
		if (err == nil) != (there == nil) || err == nil && !bytes.Equal(got, whole) {
			t.Fatalf("%v, and the file: %v, %q", err, there, got)
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) > 2 {
			t.Fatalf("%v is left, %v", files, err)
		}
	})
}

// sourceOf gives bytes and says that they begin at an offset; from there on only if
// it was asked for.
type sourceOf struct {
	b  []byte
	at int64
}

func (*sourceOf) String() string { return "source" }
func (*sourceOf) close()         {}

func (s *sourceOf) open(_ context.Context, _ File, from int64) (io.ReadCloser, int64, error) {
	at := int64(0)
	if s.at == from {
		at = from
	}
	return io.NopCloser(bytes.NewReader(s.b)), at, nil
}
