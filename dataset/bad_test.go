package dataset

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/dataset/pack"
	"github.com/dlnode/dlnode/dataset/text"
)

// fault is bad data, and what must be said of it: the file, the place in it, what
// was seen and what is wanted.
type fault struct {
	name  string
	files map[string][]byte
	open  func(at func(name string) string) Spec
	want  []string // parts of the error, PATH(name) for the path of a file
}

// check opens each, and sees that nothing is left of it in the cache.
func check(t *testing.T, faults []fault) {
	t.Helper()
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			dir := writeTree(t, f.files)
			at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
			env := Env{CacheDir: t.TempDir()}
			train, _, err := Open(t.Context(), f.open(at), env)
			if err == nil {
				t.Errorf("accepted: %d samples", train.Len())
				return
			}
			for _, want := range f.want {
				if want = strings.ReplaceAll(want, "DIR/", dir+string(filepath.Separator)); !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %q in it", err, want)
				}
			}
			if len(err.Error()) > 4000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			left, err := os.ReadDir(filepath.Join(env.CacheDir, "decoded"))
			if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) != 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

func utf16(s string) []byte {
	b := []byte{0xff, 0xfe}
	for _, r := range s {
		b = append(b, byte(r), byte(r>>8))
	}
	return b
}

func TestBadTablesAreToldWithFileAndLine(t *testing.T) {
	csv := func(change func(*CSV)) func(at func(string) string) Spec {
		return func(at func(string) string) Spec {
			s := newCSV()
			s.Path, s.Target = at("a.csv"), "b"
			if change != nil {
				change(s)
			}
			return s
		}
	}
	text := func(name string) func(at func(string) string) Spec {
		return func(at func(string) string) Spec {
			s := newTextCSV()
			s.Path = at(name)
			return s
		}
	}
	one := func(name, s string) map[string][]byte { return map[string][]byte{name: []byte(s)} }
	skip := func(c *CSV) { c.OnBroken = "skip" }
	gz := zipped(t, []byte("text,label\na,x\nb,y\n"))
	flipped := bytes.Clone(gz)
	flipped[len(gz)-5] ^= 1
	check(t, []fault{
		{"ragged", one("a.csv", "a,b\n1,x\n2\n3,y\n4,x,9\n"), csv(nil), []string{"2 of 4 can't be decoded", "DIR/a.csv:3: 1 fields, want 2", "DIR/a.csv:5: 3 fields, want 2"}},
		{"NaN", one("a.csv", "a,b\n1,x\nNaN,y\n2,y\n"), csv(nil), []string{`DIR/a.csv:3: column a: "NaN" is no number`}},
		{"Inf", one("a.csv", "a,b\n1,x\n-Inf,y\n2,y\n"), csv(nil), []string{`DIR/a.csv:3: column a: "-Inf" does not fit into 32 bits`}},
		{"too large", one("a.csv", "a,b\n1,x\n1e999,y\n2,y\n"), csv(nil), []string{`DIR/a.csv:3: column a: "1e999" does not fit into 32 bits`}},
		{"far from the others", map[string][]byte{"a.csv": []byte("a,b\n1e-30,x\n2e-30,y\n"), "t.csv": []byte("a,b\n1e30,x\n")},
			func(at func(string) string) Spec {
				s := csv(nil)(at).(*CSV)
				s.Test = at("t.csv")
				return s
			}, []string{`DIR/t.csv:2: column a: "1e30", less 1.5000000000000001e-30 and divided by 5e-31, does not fit`}},
		{"no class", one("a.csv", "a,b\n1,x\n2,\n3,y\n"), csv(nil), []string{`DIR/a.csv:3: column b: "" is no class (want one of x, y)`}},
		{"UTF-16", map[string][]byte{"a.csv": utf16("a,b\n1,x\n")}, csv(nil), []string{"DIR/a.csv: offset 0: the bytes ff fe are the mark of UTF-16, want UTF-8"}},
		{"UTF-16 without a mark", map[string][]byte{"a.csv": utf16("a,b\n1,x\n")[2:]}, csv(nil), []string{"DIR/a.csv:1: field 1 has a byte 0x00 in it", "is the file UTF-16?"}},
		{"Latin-1", one("a.csv", "a,b\n1,caf\xe9\n2,y\n3,z\n"), csv(nil), []string{`DIR/a.csv:2: field 2 is not UTF-8: "caf\xe9"`}},
		{"a zero byte", one("a.csv", "a,b\n1,x\n2,y\x00\n3,z\n"), csv(nil), []string{`DIR/a.csv:3: field 2 has a byte 0x00 in it: "y\x00"`}},
		{"an endless quote", one("a.csv", "a,b\n1,x\n\"2,y\n3,x\n4,y\n"), csv(skip), []string{"DIR/a.csv:3: a quote that is opened in line 3 goes wrong in line"}},
		{"a stray quote", one("a.csv", "a,b\n1,x\n2\",y\n3,x\n4,y\n"), csv(nil), []string{"DIR/a.csv:3: parse error on line 3, column 2"}},
		{"two names", one("a.csv", "a,b,a\n1,x,1\n"), csv(nil), []string{`DIR/a.csv:1: two columns, 1 and 3, are called "a"`}},
		{"nothing left", one("a.csv", "a,b\n1,x,\n2,y,\n"), csv(skip), []string{"DIR/a.csv: no rows", "DIR/a.csv:2: 3 fields, want 2"}},
		{"a long row", one("a.csv", "a,b\n1,x\n2,\""+strings.Repeat("y\n", maxRow)), csv(skip), []string{"DIR/a.csv:", "a row of more than 16777216 bytes (is a quote never closed"}},
		{"a long line", one("a.tsv", "text\tlabel\na\tx\nb\ty"+strings.Repeat("y", 2*maxRow)), text("a.tsv"), []string{"DIR/a.tsv:3: a row of more than 16777216 bytes"}},
		{"a long value", one("a.csv", "a,b\n1,x\n2"+strings.Repeat("9", 1<<20)+"z,y\n3,x\n"), csv(func(c *CSV) { c.Numeric = []string{"a"} }), []string{"DIR/a.csv:3: column a: ", "… (1048578 bytes)\" is no number"}},
		{"other columns", map[string][]byte{"a.csv": []byte("a,b\n1,x\n2,y\n"), "t.csv": []byte("b,a\nx,1\n")},
			func(at func(string) string) Spec {
				s := csv(nil)(at).(*CSV)
				s.Test = at("t.csv")
				return s
			}, []string{"t.csv:1: columns are b, a, but those of"}},
		{"gz cut off", map[string][]byte{"a.csv.gz": gz[:len(gz)-9]}, text("a.csv.gz"), []string{"DIR/a.csv.gz: offset", "(unpacked): the file ends too early"}},
		{"gz checksum", map[string][]byte{"a.csv.gz": flipped}, text("a.csv.gz"), []string{"DIR/a.csv.gz: offset 19 (unpacked): gzip: invalid checksum"}},
		{"no file", nil, text("none.csv"), []string{"none.csv: no such file or directory"}},
		{"a directory", map[string][]byte{"d/x": nil}, text("d"), []string{"d: is a directory"}},
		{"a label that is none", one("a.csv", "text,label\na,x\nb,y\nc,z\n"), func(at func(string) string) Spec {
			s := text("a.csv")(at).(*TextCSV)
			s.Classes = []string{"x", "y"}
			return s
		}, []string{`DIR/a.csv:4: column label: "z" is no class (want one of x, y)`}},
	})
}

// What is odd in a table but not wrong is read.
func TestOddTablesAreRead(t *testing.T) {
	for name, file := range map[string]string{
		"plain":               "a,b\n1,x\n2,y\n",
		"mark of UTF-8":       "\ufeffa,b\n1,x\n2,y\n",
		"mark and quotes":     "\ufeff\"a\",\"b\"\n\"1\",x\n2,\"y\"\n",
		"CRLF":                "a,b\r\n1,x\r\n2,y\r\n",
		"no last line end":    "a,b\n1,x\n2,y",
		"spaces":              " a , b \n 1,x \n2 , y\n",
		"empty lines":         "\n\na,b\n\n1,x\n\n\n2,y\n\n",
		"not even numbers":    "a,b\n1e0,x\n+2,y\n",
		"smaller than others": "a,b\n1,x\n2,y\n",
	} {
		at := tableFiles(t, map[string]string{"a.csv": file, "a.tsv": strings.ReplaceAll(file, ",", "\t")})
		for _, ext := range []string{"csv", "tsv"} {
			if ext == "tsv" && strings.Contains(file, `"`) {
				continue // nothing quotes there
			}
			spec := newCSV()
			spec.Path, spec.Target, spec.Normalize = at("a."+ext), "b", "none"
			d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
			if a, b := read(t, d, 0), read(t, d, 1); d.Len() != 2 || a.X[0] != 1 || b.X[0] != 2 || a.Y[0] != 0 || b.Y[0] != 1 {
				t.Errorf("%s, %s: %v and %v of %d", name, ext, a, b, d.Len())
			}
		}
	}
	at := tableFiles(t, map[string]string{"a.csv": "\ufeff1,x\n2,y\n"})
	spec := newCSV()
	spec.Path, spec.Target, spec.Header, spec.Normalize = at("a.csv"), "2", false, "none"
	if d, _ := opened(t, spec, Env{CacheDir: t.TempDir()}); read(t, d, 0).X[0] != 1 {
		t.Errorf("without a header, the first field is %v", read(t, d, 0).X)
	}
	// Squares of such numbers are 0 in 64 bits.
	at = tableFiles(t, map[string]string{"a.csv": "a,b\n1e-200,x\n3e-200,y\n"})
	spec = newCSV()
	spec.Path, spec.Target = at("a.csv"), "b"
	if d, _ := opened(t, spec, Env{CacheDir: t.TempDir()}); read(t, d, 0).X[0] != 0 {
		t.Errorf("tiny numbers are %v", read(t, d, 0).X)
	}
}

func TestBadFoldersAreToldWithTheFile(t *testing.T) {
	red, blue := plain(t, 2, 2, color.White), plain(t, 2, 2, color.Black)
	good := map[string][]byte{"a/1.png": red, "b/1.png": blue}
	with := func(more map[string][]byte) map[string][]byte {
		all := map[string][]byte{}
		for _, files := range []map[string][]byte{good, more} {
			for name, b := range files {
				all[name] = b
			}
		}
		return all
	}
	images := func(at func(string) string) Spec { return smallImages(at("")) }
	inArchive := func(at func(string) string) Spec { return smallImages(at("x")) }
	texts := func(at func(string) string) Spec {
		s := newTextFolder()
		s.Path = at("")
		return &s
	}
	skipAll := func(at func(string) string) Spec {
		s := smallImages(at(""))
		s.OnBroken = "skip"
		return s
	}
	tar := asTar(t, good)
	z := zipped(t, tar)
	check(t, []fault{
		{"corrupt image", with(map[string][]byte{"b/2.png": append(bytes.Clone(blue[:40]), 1, 2, 3)}), images, []string{"1 of 3 can't be decoded", "DIR/b/2.png: before offset 43 of 43: "}},
		{"all corrupt, skipped", map[string][]byte{"a/1.png": red[:20], "b/1.png": nil}, skipAll, []string{"2 of 2 can't be decoded (nothing is left)", "DIR/b/1.png: the file is empty"}},
		{"empty class", map[string][]byte{"a/1.png": red, "b/1.txt": nil}, images, []string{"class folder b is empty or holds none of the files wanted"}},
		{"a class of the test set alone", map[string][]byte{"train/a/1.png": red, "train/b/1.png": red, "test/a/1.png": red, "test/b/1.png": red, "test/c/1.png": red}, images, []string{"test/c is no class of train/ (want one of a, b)"}},
		{"tar between two members", map[string][]byte{"x": tar[:1024]}, inArchive, []string{"DIR/x: offset 1024: the file ends too early: the blocks of zeros that end a tar are missing"}},
		{"tar within a member", map[string][]byte{"x": tar[:540]}, inArchive, []string{`DIR/x: offset 512: member "a/1.png" has`, "but 28 are left"}},
		{"tar.gz cut off", map[string][]byte{"x": z[:len(z)/2]}, inArchive, []string{"DIR/x: offset ", "(unpacked): the file ends too early"}},
		{"tar.gz checksum", map[string][]byte{"x": flip(bytes.Clone(z), len(z)-6)}, inArchive, []string{"DIR/x: offset 3072 (unpacked): gzip: invalid checksum"}},
		{"no archive", map[string][]byte{"x": []byte("<html>sign in")}, inArchive, []string{"DIR/x: offset 0: neither tar, tar.gz nor zip: it starts with 3c 68 74 6d"}},
		{"leads out", map[string][]byte{"x": asTar(t, map[string][]byte{"../a/1.png": red})}, inArchive, []string{`DIR/x: offset 512: member "../a/1.png" leads out of the archive`}},
		{"absolute", map[string][]byte{"x": asTar(t, map[string][]byte{"/a/1.png": red})}, inArchive, []string{`DIR/x: offset 512: member "/a/1.png" leads out of the archive`}},
		{"Latin-1", map[string][]byte{"a/1.txt": []byte("ok"), "b/1.txt": []byte("a caf\xe9")}, texts, []string{"DIR/b/1.txt: offset 5: byte 0xe9 is not UTF-8"}},
		{"UTF-16", map[string][]byte{"a/1.txt": []byte("ok"), "b/1.txt": utf16("hello")}, texts, []string{"DIR/b/1.txt: offset 0: the bytes ff fe are the mark of UTF-16, want UTF-8"}},
		{"zero byte", map[string][]byte{"a/1.txt": []byte("ok"), "b/1.txt": []byte("ab\x00c")}, texts, []string{"DIR/b/1.txt: offset 2: byte 0x00 (is it UTF-16, or no text?)"}},
		{"a huge text", map[string][]byte{"a/1.txt": []byte("ok"), "b/1.txt": bytes.Repeat([]byte("a "), maxText)}, texts, []string{"DIR/b/1.txt: 33554432 bytes, want at most 16777216"}},
	})
}

func TestLinksAreNotLeftOutInSilence(t *testing.T) {
	dir := writeTree(t, map[string][]byte{"set/a/1.png": plain(t, 2, 2, color.White), "set/b/1.png": plain(t, 2, 2, color.Black), "else/1.png": plain(t, 2, 2, color.White)})
	for _, l := range [][2]string{{"else", "set/c"}, {"else/1.png", "set/a/2.png"}, {"nowhere", "set/a/.#lock"}} {
		if err := os.Symlink(filepath.Join(dir, l[0]), filepath.Join(dir, l[1])); err != nil {
			t.Skip("no links here: ", err)
		}
	}
	spec := smallImages(filepath.Join(dir, "set"))
	if _, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "set: c is a link that is not followed") {
		t.Errorf("a link to a folder: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "set/c")); err != nil {
		t.Fatal(err)
	}
	if d, _ := opened(t, spec, Env{CacheDir: t.TempDir()}); d.Len() != 3 {
		t.Errorf("%d samples, want 3: one by a link to a file", d.Len())
	}
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "set/a/3.png")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "3.png: no such file or directory") {
		t.Errorf("a link to nowhere: %v", err)
	}
}

// zipOf makes a zip of stored files, each with what change makes of its header.
func zipOf(t testing.TB, files map[string][]byte, change func(*zip.FileHeader)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		change(h)
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = f.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBadArraysAreToldWithFileAndOffset(t *testing.T) {
	npy := func(version byte, header string, data ...byte) []byte {
		b := append([]byte("\x93NUMPY"), version, 0)
		if version == 1 {
			b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
		} else {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
		}
		return append(append(b, header...), data...)
	}
	head := func(descr, order, shape string) string {
		return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n"
	}
	y := npy(1, head("'|u1'", "False", "(2,)"), 0, 1)
	spec := func(at func(string) string) Spec {
		return &NPZ{Path: at("a.npz"), X: "x", Y: "y", Classes: 2, Scale: 1}
	}
	set := func(x []byte) map[string][]byte {
		return map[string][]byte{"a.npz": zipOf(t, map[string][]byte{"x.npy": x, "y.npy": y}, func(*zip.FileHeader) {})}
	}
	labels := func(y []byte) map[string][]byte {
		x := npy(1, head("'|u1'", "False", "(2, 1)"), 0, 1)
		return map[string][]byte{"a.npz": zipOf(t, map[string][]byte{"x.npy": x, "y.npy": y}, func(*zip.FileHeader) {})}
	}
	good := set(npy(1, head("'|u1'", "False", "(2, 1)"), 7, 9))["a.npz"]
	at := bytes.Index(good, []byte("x.npy")) + len("x.npy")
	check(t, []fault{
		{"objects", set(npy(1, head("'|O'", "False", "(2, 1)"))), spec, []string{"DIR/a.npz: x: offset", "want a 'descr' of bool, int, uint, float32 or float64"}},
		{"records", set(npy(1, head("[('a', '<f4')]", "False", "(2, 1)"))), spec, []string{"want a 'descr' of bool"}},
		{"complex", set(npy(1, head("'<c8'", "False", "(2, 1)"))), spec, []string{"want a 'descr' of bool"}},
		{"Fortran", set(npy(3, head("'<f4'", "True", "(2, 2)"))), spec, []string{"DIR/a.npz: x: offset", "Fortran's order, want C's"}},
		{"version 4", set(npy(4, head("'<f4'", "False", "(2, 2)"))), spec, []string{"DIR/a.npz: x: offset 8: the file starts with", "a version from 1 to 3"}},
		{"no shape", set(npy(2, "{'descr': '<f4', 'fortran_order': False}")), spec, []string{"want 'fortran_order' and 'shape'"}},
		{"no axis", set(npy(2, head("'<f4'", "False", "()"))), spec, []string{"shape (), want sizes of at least 1"}},
		{"zero samples", set(npy(2, head("'<f4'", "False", "(0, 1)"))), spec, []string{"shape (0, 1), want sizes of at least 1"}},
		{"overflow", set(npy(2, head("'<f4'", "False", "(2, 4294967296, 4294967296)"))), spec, []string{"a sample has more than 268435456 bytes"}},
		{"larger than an int", set(npy(2, head("'<f4'", "False", "(99999999999999999999, 1)"))), spec, []string{"want sizes of at least 1"}},
		{"many axes", set(npy(2, head("'<f4'", "False", "("+strings.Repeat("1,", 99)+")"))), spec, []string{"a shape of 99 axes, want at most 32"}},
		{"a huge header", set(append([]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff"), 'x')), spec, []string{"DIR/a.npz: x: offset 12: a header of more than 65536 bytes"}},
		{"a long header", set(npy(2, strings.Repeat(" ", 60_000))), spec, []string{"DIR/a.npz: x: offset 60012: the header is"}},
		{"cut off", set(npy(1, head("'<f4'", "False", "(2, 1)"), 1, 2, 3, 4, 5)), spec, []string{"DIR/a.npz: x: offset", "the file ends too early"}},
		{"trailing", set(npy(1, head("'|u1'", "False", "(2, 1)"), 1, 2, 3)), spec, []string{"trailing bytes after the last sample"}},
		{"infinite", set(npy(1, head("'>f4'", "False", "(2, 1)"), 0x7f, 0x80, 0, 0, 0, 0, 0, 0)), spec, []string{"DIR/a.npz: x: sample 0: value 0 is +Inf"}},
		{"labels out of range", labels(npy(1, head("'|u1'", "False", "(2,)"), 0, 2)), spec, []string{"DIR/a.npz: y: sample 1: class id is 2, want an integer from 0 to 1"}},
		{"labels that are too few", labels(npy(1, head("'|u1'", "False", "(1,)"), 0)), spec, []string{"DIR/a.npz: y: 1 samples, but", "x has 2"}},
		{"half a label", labels(npy(1, head("'<f4'", "False", "(2,)"), 0, 0, 0, 0x3f, 0, 0, 0, 0)), spec, []string{"DIR/a.npz: y: sample 0: class id is 0.5"}},
		{"no zip", map[string][]byte{"a.npz": []byte("PK\x03\x04 and then nothing")}, spec, []string{"DIR/a.npz: zip: not a valid zip file"}},
		{"zip cut off", map[string][]byte{"a.npz": good[:len(good)-30]}, spec, []string{"DIR/a.npz: zip: not a valid zip file"}},
		{"zip member", map[string][]byte{"a.npz": flip(flip(bytes.Clone(good), at+12), at+13)}, spec, []string{"DIR/a.npz: x: offset "}},
	})
}

// Numbers in a header cost no memory that the file does not back.
func TestPromisesCostNoMemory(t *testing.T) {
	lying := []byte("\x93NUMPY\x01\x00\x3e\x00{'descr': '|u1', 'fortran_order': False, 'shape': (2,268435455)}")
	lying[8] = byte(len(lying) - 10)
	png := plain(t, 2, 2, color.White)
	binary.BigEndian.PutUint32(png[16:], 8000)
	binary.BigEndian.PutUint32(png[20:], 8000)
	binary.BigEndian.PutUint32(png[29:], crc32.ChecksumIEEE(png[12:29]))
	png = append(png, make([]byte, 20_000)...) // enough for so many gray pixels
	dir := writeTree(t, map[string][]byte{
		"npz/x.npy": lying, "npz/y.npy": lying,
		"images/a/1.png": png, "images/b/1.png": png,
		"idx":              idx([]int{1 << 31}, nil),
		"set/dataset.json": []byte(`{"version":1,"kind":"npz","spec":{},"train":{"index":"` + strings.Repeat("0", 64) + `"}}`),
		"set/train/ids":    nil,
		"set/train/index.json": []byte(`{"version":1,"record":1073741824,"records":1,"records_per_block":1,"records_per_shard":1,"first_id":0,` +
			`"blocks":["` + strings.Repeat("0", 64) + `"],"meta":{}}`),
		"zeros.csv.gz": zipped(t, append([]byte("a,b\n1,x\n2,\""), make([]byte, 2*maxRow)...)),
	})
	table := newCSV()
	table.Path, table.Target = filepath.Join(dir, "zeros.csv.gz"), "b"
	for name, c := range map[string]struct {
		spec  Spec
		limit uint64
	}{
		"array":  {&NPZ{Path: filepath.Join(dir, "npz"), X: "x", Y: "y", Scale: 1}, 8 << 20},
		"images": {smallImages(filepath.Join(dir, "images")), 8 << 20},
		"idx":    {&Files{TrainImages: filepath.Join(dir, "idx"), TrainLabels: filepath.Join(dir, "idx"), Classes: 2}, 8 << 20},
		"pack":   {&Packed{Path: filepath.Join(dir, "set")}, 8 << 20},
		"table":  {table, 12 * maxRow}, // a row of so many bytes is read, in buffers that grow
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := Open(t.Context(), c.spec, Env{CacheDir: t.TempDir()})
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > c.limit {
			t.Errorf("%s: %d bytes allocated, want at most %d; %v", name, used, c.limit, err)
		}
	}
}

// A row that is bad is told once, and of a million not each.
func TestOfManyBrokenRowsTheFirstAreNamed(t *testing.T) {
	at := tableFiles(t, map[string]string{"a.csv": "a,b\n1,x\n2,y\n" + strings.Repeat("3\n", maxTold+5)})
	spec := newCSV()
	spec.Path, spec.Target = at("a.csv"), "b"
	_, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()})
	if want := fmt.Sprintf("%d of %d can't be decoded", maxTold+5, maxTold+7); err == nil || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), fmt.Sprintf("and %d more", maxTold-5)) {
		t.Errorf("got %v, want %s", err, want)
	}
	spec.OnBroken = "skip"
	d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
	if left := Skipped(d); d.Len() != 2 || len(left) != maxTold+1 || left[maxTold] != "and 5 more" {
		t.Errorf("%d samples; %d lines, the last %q", d.Len(), len(left), left[len(left)-1])
	}
}

func TestWhatAKilledDecoderLeftIsSwept(t *testing.T) {
	spec := smallImages(writeTree(t, photos(t)))
	cache := writeTree(t, map[string][]byte{
		"decoded/.image_folder-1.7.part/train/00000.shard": nil,
		"decoded/.image_folder-2.7.part/train/00000.shard": nil,
		"decoded/.image_folder-3.7.part/train/00000.shard": nil,
	})
	past := time.Now().Add(-2 * tempLife)
	age := func(names ...string) {
		for _, name := range names {
			if err := os.Chtimes(filepath.Join(cache, "decoded", name), past, past); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(".image_folder-1.7.part/train/00000.shard", ".image_folder-1.7.part/train", ".image_folder-1.7.part")
	age(".image_folder-2.7.part/train", ".image_folder-2.7.part") // one that still writes
	opened(t, spec, Env{CacheDir: cache})
	left, err := filepath.Glob(filepath.Join(cache, "decoded", ".*.part"))
	if err != nil || len(left) != 2 || strings.Contains(left[0], "-1.7") {
		t.Errorf("%q is left, %v", left, err)
	}
}

// A pack whose checksums fit may still hold what no reader writes.
func TestAPackIsHeldToWhatItSaysOfItself(t *testing.T) {
	words := &Preprocess{Text: &text.Tokenizer{Options: text.Default(), Words: []string{"a", "b"}}}
	words.Text.MaxLen = 2
	value := func(v ...float32) (b []byte) {
		for _, f := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		return b
	}
	ids := func(v ...int32) (b []byte) {
		for _, id := range v {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		}
		return b
	}
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		meta packMeta
		y, x []byte
		want string
	}{
		"a class too high": {packMeta{inFloats, Info{Input: []int{1}, Target: 1, Classes: 2}}, value(2), value(0), "record 0: class id is 2, want an integer from 0 to 1"},
		"half a class":     {packMeta{inBytes, Info{Input: []int{1}, Target: 1, Classes: 2}}, value(0.5), []byte{1}, "record 0: class id is 0.5"},
		"no target":        {packMeta{inFloats, Info{Input: []int{1}, Target: 1}}, value(nan), value(0), "record 0: target 0 is NaN, want a finite number"},
		"no input":         {packMeta{inFloats, Info{Input: []int{2}, Target: 1}}, value(1), value(0, nan), "record 0: input 1 is NaN, want a finite number"},
		"a word too high":  {packMeta{inTokens, Info{Input: []int{2}, Target: 1, Classes: 2, Preprocess: words}}, value(1), ids(1, 3), "record 0: input 1 is 3, want a word id from 0 to 2"},
		"a negative word":  {packMeta{inTokens, Info{Input: []int{2}, Target: 1, Classes: 2}}, value(1), ids(-1, 3), "record 0: input 0 is -1, want a word id from 0 to"},
	} {
		dir := t.TempDir()
		p, err := createPart(dir, c.meta)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := func() (pack.Sum, error) {
			if err := p.w.Add(0, append(c.y, c.x...)); err != nil {
				return pack.Sum{}, err
			}
			return p.finish()
		}()
		if err != nil {
			t.Fatal(err)
		}
		r, err := pack.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		d, err := believe(r, dir, setPart{Index: sum})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = d.Read(0, make([]float32, d.Info().InputLen()), make([]float32, 1)); err == nil || !strings.HasPrefix(err.Error(), dir+": "+c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	// What is made of raw input must have the length of the samples.
	words.Text.MaxLen = 3
	dir := t.TempDir()
	p, err := createPart(dir, packMeta{inTokens, Info{Input: []int{2}, Target: 1, Preprocess: words}})
	if err == nil {
		err = p.w.Add(0, append(value(1), ids(0, 0)...))
	}
	if err != nil {
		t.Fatal(err)
	}
	sum, err := p.finish()
	if err != nil {
		t.Fatal(err)
	}
	r, err := pack.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := believe(r, dir, setPart{Index: sum}); err == nil || !strings.Contains(err.Error(), "raw input becomes 3 values, but samples of shape [2] have 2") {
		t.Errorf("another length: %v", err)
	}
}

// What the system refuses is told; only what is damaged is decoded again.
func TestADecodedSetThatCannotBeReadIsKept(t *testing.T) {
	spec := smallImages(writeTree(t, photos(t)))
	env := Env{CacheDir: t.TempDir()}
	opened(t, spec, env)
	made, err := filepath.Glob(filepath.Join(env.CacheDir, "decoded", "image_folder-*"))
	if err != nil || len(made) != 1 {
		t.Fatal(made, err)
	}
	at := filepath.Join(made[0], setName)
	if err := errors.Join(os.Remove(at), os.Mkdir(at, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(t.Context(), spec, env); err == nil || !strings.Contains(err.Error(), setName) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(made[0], "train", "00000.shard")); err != nil {
		t.Error(err)
	}
}
