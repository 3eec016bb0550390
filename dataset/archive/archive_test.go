package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is what the sources of the tests hold, hidden files besides.
var content = map[string]string{
	"top/a/1.txt":      "one",
	"top/a/2.txt":      "",
	"top/b/3.txt":      strings.Repeat("three ", 500),
	"top/.DS_Store":    "hidden",
	"__MACOSX/a/1.txt": "hidden",
}

func names() []string {
	return []string{"top/b/3.txt", "__MACOSX/a/1.txt", "top/a/2.txt", "top/.DS_Store", "top/a/1.txt"}
}

func asTar(t testing.TB, names []string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: "top/empty/", Typeflag: tar.TypeDir, Mode: 0o755})
	for _, n := range names {
		h := &tar.Header{Name: n, Typeflag: tar.TypeReg, Size: int64(len(content[n])), Mode: 0o644}
		err = errors.Join(err, w.WriteHeader(h))
		_, e := w.Write([]byte(content[n]))
		err = errors.Join(err, e)
	}
	err = errors.Join(err, w.WriteHeader(&tar.Header{Name: "top/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asGzip(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func asZip(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	_, err := w.Create("top/empty/")
	for _, n := range names() {
		f, e := w.Create(n)
		if e == nil {
			_, e = f.Write([]byte(content[n]))
		}
		err = errors.Join(err, e)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func directory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for n, text := range content {
		path := filepath.Join(dir, filepath.FromSlash(n))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "top", "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// list opens a path and lists it until the test ends.
func list(t testing.TB, path string) (*Files, error) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	tmp := t.TempDir()
	files, err := s.List(context.Background(), tmp)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { files.Close() })
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("%d files are left in the directory for temporary ones, %v", len(left), err)
	}
	return files, nil
}

func TestEverySourceHoldsTheSame(t *testing.T) {
	for name, path := range map[string]string{
		"directory": directory(t),
		"tar":       file(t, asTar(t, names())),
		"tar.gz":    file(t, asGzip(t, asTar(t, names()))),
		"zip":       file(t, asZip(t)),
	} {
		files, err := list(t, path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, m := range files.Members {
			b, err := files.Read(m, 1<<20)
			if err != nil || string(b) != content[m.Name] || m.Size != int64(len(b)) {
				t.Errorf("%s: %s is %q, %v", name, m.Name, b, err)
			}
			got = append(got, m.Name)
		}
		if diff := cmp.Diff([]string{"top/a/1.txt", "top/a/2.txt", "top/b/3.txt"}, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if !strings.Contains(strings.Join(files.Dirs, " "), "top/empty") {
			t.Errorf("%s: directories are %v", name, files.Dirs)
		}
		if _, err := files.Read(files.Members[2], 99); err == nil || !strings.HasSuffix(err.Error(), "3.txt: 3000 bytes, want at most 99") {
			t.Errorf("%s: beyond the limit: %v", name, err)
		}
	}
}

func TestDigestsNameTheContent(t *testing.T) {
	digest := func(path string) [32]byte {
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		d, err := s.Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a, b := directory(t), directory(t)
	if digest(a) != digest(b) {
		t.Error("equal directories differ")
	}
	if err := os.WriteFile(filepath.Join(b, "top", "a", "1.txt"), []byte("eno"), 0o644); err != nil {
		t.Fatal(err)
	}
	if digest(a) == digest(b) {
		t.Error("another content has one digest")
	}
	if digest(file(t, asZip(t))) == digest(file(t, asTar(t, names()))) {
		t.Error("another archive has one digest")
	}
}

func TestALinkToAFileIsTheFile(t *testing.T) {
	dir := directory(t)
	if err := os.Symlink(filepath.Join(dir, "top", "a", "1.txt"), filepath.Join(dir, "x.txt")); err != nil {
		t.Skip(err)
	}
	files, err := list(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := files.Read(files.Members[3], 9); err != nil || string(b) != "one" || files.Members[3].Name != "x.txt" {
		t.Errorf("%+v: %q, %v", files.Members[3], b, err)
	}
}

func TestDamagedArchivesAreTold(t *testing.T) {
	whole := asTar(t, names())
	z := asGzip(t, whole)
	flipped := bytes.Clone(z)
	flipped[len(z)-6] ^= 1
	content["../out.txt"] = "x"
	defer delete(content, "../out.txt")
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":        {nil, "offset 0: neither tar, tar.gz nor zip: it starts with "},
		"text":           {[]byte("hello"), "offset 0: neither tar, tar.gz nor zip: it starts with 68 65 6c 6c"},
		"short tar":      {whole[:1024+512], `offset 1024: member "top/b/3.txt" has 3000 bytes, but 512 are left`},
		"cut header":     {whole[:512+100], "offset 612: unexpected EOF"},
		"short gz":       {z[:len(z)/2], "(unpacked): the file ends too early"},
		"flipped gz":     {flipped, "gzip: invalid checksum"},
		"short zip":      {asZip(t)[:100], "zip: not a valid zip file"},
		"leading out":    {asTar(t, []string{"../out.txt"}), `member "../out.txt" leads out of the archive`},
		"twice the same": {asTar(t, []string{"top/a/1.txt", "top/a/1.txt"}), `two members are called "top/a/1.txt"`},
	} {
		_, err := list(t, file(t, c.b))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "archive: ") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestACancelledContextEndsTheReading(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, path := range []string{directory(t), file(t, asGzip(t, asTar(t, names())))} {
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Digest(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// FuzzList holds List and Read to: no panic, no member beyond the archive, no name
// that leads out of it.
func FuzzList(f *testing.F) {
	whole := asTar(f, names())
	f.Add(whole)
	f.Add(asGzip(f, whole))
	f.Add(asZip(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := list(t, file(t, b))
		if err != nil {
			return
		}
		for _, m := range files.Members {
			if strings.HasPrefix(m.Name, "/") || strings.HasPrefix(m.Name, "..") {
				t.Fatalf("a member is called %q", m.Name)
			}
			if b, err := files.Read(m, 1<<20); err == nil && int64(len(b)) != m.Size {
				t.Fatalf("%d bytes of %d", len(b), m.Size)
			}
		}
	})
}

// member is one of a tar with all that a header can say.
type member struct {
	tar.Header
	content string
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Mode, m.Size = 0o644, int64(len(m.content))
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Links in an archive are listed, and never followed: what they lead to may lie
// anywhere. A tar that is cut between two members is told from one that ends.
func TestWhatATarMayHoldBesideFiles(t *testing.T) {
	one := member{tar.Header{Name: "a/1.txt", Typeflag: tar.TypeReg}, "one"}
	whole := tarOf(t, one,
		member{tar.Header{Name: "a/2.txt", Typeflag: tar.TypeLink, Linkname: "a/1.txt"}, ""},
		member{tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, ""},
		member{tar.Header{Name: "a/.hidden", Typeflag: tar.TypeSymlink, Linkname: "x"}, ""},
		member{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo}, ""})
	files, err := list(t, file(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a/2.txt", "b"}, files.Links); diff != "" || len(files.Members) != 1 {
		t.Errorf("%d members, links %s", len(files.Members), diff)
	}
	sparse := tarOf(t, member{tar.Header{Name: "x", Typeflag: tar.TypeReg, Format: tar.FormatGNU}, ""})
	sparse[156] = tar.TypeGNUSparse
	copy(sparse[148:], "        ")
	var sum int
	for _, b := range sparse[:512] {
		sum += int(b)
	}
	copy(sparse[148:], fmt.Sprintf("%06o\x00 ", sum))
	const end = 1024 // two blocks of zeros
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"as it is":            {whole, ""},
		"one block of zeros":  {whole[:len(whole)-end/2], ""},
		"cut between members": {whole[:len(whole)-end], "the blocks of zeros that end a tar are missing"},
		"sparse":              {sparse, `member "x" is sparse (want a plain tar)`},
		"absolute":            {tarOf(t, member{tar.Header{Name: "/etc/x", Typeflag: tar.TypeReg}, "x"}), `member "/etc/x" leads out of the archive`},
		"hidden way out":      {tarOf(t, member{tar.Header{Name: "a/../../x", Typeflag: tar.TypeReg}, "x"}), `member "../x" leads out of the archive`},
		"a way out by a link": {tarOf(t, member{tar.Header{Name: "../x", Typeflag: tar.TypeSymlink, Linkname: "y"}, ""}), `member "../x" leads out of the archive`},
	} {
		if _, err := list(t, file(t, c.b)); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A member may be larger than it says, or not what its checksum says.
func TestMembersOfAZipAreHeldToTheirHeaders(t *testing.T) {
	zeros := make([]byte, 1<<20)
	make1 := func(change func(*zip.FileHeader)) []byte {
		var packed, b bytes.Buffer
		d, err := flate.NewWriter(&packed, flate.BestCompression)
		if err == nil {
			_, err = d.Write(zeros)
		}
		if err = errors.Join(err, d.Close()); err != nil {
			t.Fatal(err)
		}
		h := &zip.FileHeader{
			Name: "a/1.txt", Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(zeros),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(zeros)),
		}
		change(h)
		w := zip.NewWriter(&b)
		f, err := w.CreateRaw(h)
		if err == nil {
			_, err = f.Write(packed.Bytes())
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		change func(*zip.FileHeader)
		want   string
	}{
		"as it is":        {func(*zip.FileHeader) {}, ""},
		"more than said":  {func(h *zip.FileHeader) { h.UncompressedSize64 = 9 }, "a/1.txt: "},
		"less than said":  {func(h *zip.FileHeader) { h.UncompressedSize64 = 1<<20 + 1 }, "a/1.txt: "},
		"above the limit": {func(h *zip.FileHeader) { h.UncompressedSize64 = 1 << 40 }, "a/1.txt: 1099511627776 bytes, want at most 2097152"},
		"checksum":        {func(h *zip.FileHeader) { h.CRC32++ }, "a/1.txt: zip: checksum error"},
		"encrypted":       {func(h *zip.FileHeader) { h.Flags |= 1 }, "a/1.txt: the member is encrypted"},
		"method":          {func(h *zip.FileHeader) { h.Method = 99 }, "a/1.txt: zip: unsupported compression algorithm"},
	} {
		files, err := list(t, file(t, make1(c.change)))
		if err != nil || len(files.Members) != 1 {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = files.Read(files.Members[0], 2<<20)
		runtime.ReadMemStats(&after)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}
