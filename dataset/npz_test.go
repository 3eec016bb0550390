package dataset

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func npz(x, y string) *NPZ {
	return &NPZ{Path: filepath.Join("testdata", "golden.npz"), X: x, Y: y, Classes: 2, Scale: 1}
}

// golden.npz was written by npz.py, beside it.
func TestEveryTypeOfNumPyIsRead(t *testing.T) {
	for _, x := range []string{"u1", "i1", "u2", ">i2", "u4", "<i4", "u8", ">i8", "f4", ">f8"} {
		for _, y := range []string{"y", "onehot"} {
			spec := npz(x, y)
			spec.XTest, spec.YTest = x, y
			train, test := opened(t, spec, Env{CacheDir: t.TempDir()})
			want := []sample{
				{0, []float32{0, 2, 4, 6, 8, 10}, []float32{1}},
				{1, []float32{12, 14, 16, 18, 20, 22}, []float32{0}},
			}
			if y == "onehot" {
				want[0].Y, want[1].Y = []float32{0, 1}, []float32{1, 0}
			}
			if diff := cmp.Diff(want, readAll(t, train)); diff != "" {
				t.Errorf("%s, %s: %s", x, y, diff)
			}
			if diff := cmp.Diff([]int{3, 2}, train.Info().Input); diff != "" || test.ID(1) != 3 {
				t.Errorf("%s: shape %s, id %d", x, diff, test.ID(1))
			}
		}
	}
	spec := npz("u1", "y")
	spec.Scale = 255
	d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
	if d.(*packed).Encoding != inBytes || read(t, d, 1).X[5] != float32(22)/255 {
		t.Errorf("bytes are kept as %s", d.(*packed).Encoding)
	}
}

func TestArraysOfADirectory(t *testing.T) {
	head := func(descr, shape string) []byte {
		text := "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n"
		return append([]byte{0x93, 'N', 'U', 'M', 'P', 'Y', 2, 0, byte(len(text)), 0, 0, 0}, text...)
	}
	files := map[string][]byte{
		"x.npy":   append(head("|u1", "(2, 1)"), 7, 9),
		"y.npy":   append(head("|u1", "(2,)"), 1, 0),
		"cut.npy": append(head("<i4", "(2, 1)"), 7, 0, 0, 0, 1),
		"lie.npy": append(head("<i4", "(2, 9999999)"), 7),
		"fat.npy": append(head("<i4", "(2, 9, 9999999999)"), 7),
		"end.npy": append(head("|u1", "(2, 1)"), 7, 9, 0),
		"txt.npy": []byte("numbers!"),
	}
	spec := npz("x", "y")
	spec.Path = writeTree(t, files)
	d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
	if diff := cmp.Diff([]sample{{0, []float32{7}, []float32{1}}, {1, []float32{9}, []float32{0}}}, readAll(t, d)); diff != "" {
		t.Error(diff)
	}
	for x, want := range map[string]string{
		"cut":  "cut.npy: offset 77: the file ends too early",
		"lie":  "lie.npy: offset 79: the file ends too early",
		"fat":  "a sample has more than 268435456 bytes",
		"end":  "end.npy: offset 74: trailing bytes after the last sample",
		"txt":  "txt.npy: offset 8: the file starts with 6e 75 6d 62 65 72 73 21, want",
		"none": "none.npy: no such file or directory",
	} {
		spec.X = x
		if _, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", x, err, want)
		}
	}
}

func TestArraysThatMakeNoDataSetAreTold(t *testing.T) {
	for x, want := range map[string]string{
		"half":    "the numbers are float16, want float32 or float64",
		"fortran": "the array lies in Fortran's order, want C's",
		"huge":    "golden.npz: huge: sample 0: value 1 is 1.6777217e+07, which float32 can't hold exactly",
		"nan":     "golden.npz: nan: sample 0: value 0 is NaN, want one that float32 can hold",
		"flat":    "golden.npz: flat: shape [2], want at least two axes",
		"none":    `there is no array "none" (want one of y, onehot, u1`,
	} {
		if _, _, err := Open(t.Context(), npz(x, "y"), Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", x, err, want)
		}
	}
	for y, want := range map[string]string{
		"three": "golden.npz: three: 3 samples, but testdata/golden.npz: u1 has 2",
		"u1":    "golden.npz: u1: shape [2 3 2], want one axis or two",
		"flat":  "",
	} {
		_, _, err := Open(t.Context(), npz("u1", y), Env{CacheDir: t.TempDir()})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", y, err, want)
		}
	}
	bad := &NPZ{Classes: 1, XTest: "x"}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "is not allowed") != 6 {
		t.Errorf("got %v, want six complaints", err)
	}
}

// FuzzNPY holds the reader of arrays to: no panic, and no memory that the file
// does not back.
func FuzzNPY(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x3e\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   \n12345678"))
	f.Add([]byte("\x93NUMPY\x02\x00\x3e\x00\x00\x00{'descr': '|u1', 'fortran_order': False, 'shape': (2,9999999),}\n1"))
	f.Add([]byte("\x93NUMPY\x03\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &array{name: "x"}
		if a.start(bytes.NewReader(b)) != nil {
			return
		}
		for range 3 {
			if a.next() != nil {
				return
			}
			if len(a.rec) > len(b) {
				t.Fatalf("a record of %d bytes from a file of %d", len(a.rec), len(b))
			}
			_ = a.floats(make([]float32, min(a.width(), len(a.rec)/int(a.kind[1]-'0'))), 1)
		}
	})
}

func TestANPZWithoutItsFileIsTold(t *testing.T) {
	spec := npz("x", "y")
	spec.Path = filepath.Join(t.TempDir(), "none.npz")
	if _, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
