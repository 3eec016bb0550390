package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
