package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// content is what the files of the data sets in these tests hold.
var content = map[string][]byte{
	"big.gz":   bytes.Repeat([]byte("0123456789abcdef"), 40_000), // several chunks
	"small.gz": []byte("small"),
}

// entry is a data set of the files of content.
func entry() Entry {
	e := Entry{Name: "toy"}
	for _, name := range []string{"big.gz", "small.gz"} {
		sum := sha256.Sum256(content[name])
		e.Files = append(e.Files, File{name, int64(len(content[name])), hex.EncodeToString(sum[:])})
	}
	return e
}

// mirror serves content, through spoil if that is not nil. It counts requests.
func mirror(t *testing.T, spoil http.HandlerFunc) (url string, requests *atomic.Int32) {
	t.Helper()
	requests = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if spoil != nil {
			spoil(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[filepath.Base(r.URL.Path)]))
	}))
	t.Cleanup(s.Close)
	return s.URL + "/toy", requests
}

// fetchToy is get with a time-out of our own for the first mirror.
func fetchToy(ctx context.Context, dir string, stall time.Duration, mirrors ...string) error {
	f := &fetcher{dir: filepath.Join(dir, "toy"), keep: 1 << 20, progress: func(Progress) {}, log: discard()}
	for _, m := range mirrors {
		f.sources = append(f.sources, newMirrorSource(m, stall))
		stall = time.Minute
	}
	return f.run(ctx, entry().Files)
}

// wantCache checks that dir holds these files of the toy data set, unspoilt, and
// nothing besides.
func wantCache(t *testing.T, dir string, names ...string) {
	t.Helper()
	var got []string
	files, err := os.ReadDir(filepath.Join(dir, "toy"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, f := range files {
		got = append(got, f.Name())
		b, err := os.ReadFile(filepath.Join(dir, "toy", f.Name()))
		if err != nil || !bytes.Equal(b, content[f.Name()]) {
			t.Errorf("%s does not hold what it should (error %v)", f.Name(), err)
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("the cache holds %q, want %q", got, names)
	}
}

func TestGetFetchesWhatTheCacheLacks(t *testing.T) {
	dir := t.TempDir()
	url, requests := mirror(t, nil)
	var seen []Progress
	env := Env{CacheDir: dir, Mirrors: []string{url}, Progress: func(p Progress) { seen = append(seen, p) }}
	for range 2 {
		got, err := entry().get(t.Context(), env)
		if err != nil || got != filepath.Join(dir, "toy") {
			t.Fatalf("get returned %q, %v", got, err)
		}
		wantCache(t, dir, "big.gz", "small.gz")
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests, want one per file", n)
	}
	first := Progress{Doing: "fetching", Source: url + "/", File: "big.gz", Done: 0, Total: 640_000}
	last := Progress{Doing: "fetching", Source: url + "/", File: "small.gz", Done: 5, Total: 5}
	if diff := cmp.Diff([]Progress{first, last}, []Progress{seen[0], seen[len(seen)-1]}); diff != "" {
		t.Error(diff)
	}
	if ok := slices.IsSortedFunc(seen, func(a, b Progress) int {
		return strings.Compare(fmt.Sprintf("%s %9d", a.File, a.Done), fmt.Sprintf("%s %9d", b.File, b.Done))
	}); !ok || len(seen) < 5 {
		t.Errorf("progress is %v, want rising bytes of one file after the other", seen)
	}
	if !entry().Cached(dir) || entry().Cached(t.TempDir()) {
		t.Error("Cached does not tell a full cache from an empty one")
	}
}

func TestADamagedCacheIsFetchedAgain(t *testing.T) {
	dir := t.TempDir()
	url, requests := mirror(t, nil)
	if err := fetchToy(t.Context(), dir, time.Minute, url); err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(content["big.gz"])
	bad[1000] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "toy", "big.gz"), bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fetchToy(t.Context(), dir, time.Minute, url); err != nil {
		t.Fatal(err)
	}
	wantCache(t, dir, "big.gz", "small.gz")
	if n := requests.Load(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
}

// Each way in which a mirror can fail is told, leaves nothing behind, and sends
// us to the next mirror.
func TestABadMirrorIsToldAndLeavesNothingBehind(t *testing.T) {
	big := content["big.gz"]
	hang := func(r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name  string
		spoil http.HandlerFunc
		want  string
	}{
		{"missing", http.NotFound, "the server answered 404 Not Found"},
		{"truncated", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			_, _ = w.Write(big[:300_000]) // then the connection is cut
		}, "after 300000 of 640000 bytes: unexpected EOF"},
		{"short", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(big[:300_000]) }, "300000 bytes, want 640000"},
		{"long", func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = w.Write(big)
			}
		}, "more than 640000 bytes"},
		{"another file", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append(bytes.Clone(big[1:]), 0))
		}, fmt.Sprintf("SHA-256 is %x, want %s", sha256.Sum256(append(bytes.Clone(big[1:]), 0)), entry().Files[0].SHA256)},
		{"hangs at once", func(_ http.ResponseWriter, r *http.Request) { hang(r) }, "no byte came for 500ms"},
		{"hangs on the way", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(big[:300_000])
			_ = http.NewResponseController(w).Flush()
			hang(r)
		}, "after 300000 of 640000 bytes: no byte came for 500ms"},
		{"cuts the line", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			bad, _ := mirror(t, c.spoil)
			err := fetchToy(t.Context(), dir, 500*time.Millisecond, bad)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), bad) {
				t.Errorf("got %v, want the mirror's address and %q", err, c.want)
			}
			wantCache(t, dir)
			good, _ := mirror(t, nil)
			if err := fetchToy(t.Context(), dir, 500*time.Millisecond, bad, good); err != nil {
				t.Error(err)
			}
			wantCache(t, dir, "big.gz", "small.gz")
		})
	}
}

func TestADeadMirrorIsAskedOnce(t *testing.T) {
	bad, asked := mirror(t, http.NotFound)
	good, _ := mirror(t, nil)
	if err := fetchToy(t.Context(), t.TempDir(), time.Minute, bad, good); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the dead mirror was asked %d times for two files, want once", n)
	}
}

func TestASlowMirrorThatMovesIsWaitedFor(t *testing.T) {
	t.Parallel()
	slow, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
		for chunk := range slices.Chunk(content[filepath.Base(r.URL.Path)], 80_000) {
			_, _ = w.Write(chunk)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(150 * time.Millisecond)
		}
	})
	dir := t.TempDir()
	if err := fetchToy(t.Context(), dir, time.Second, slow); err != nil { // takes 1.2 s
		t.Error(err)
	}
	wantCache(t, dir, "big.gz", "small.gz")
}

// A server that calls a .gz file an encoding must not make us unpack it.
func TestContentEncodingIsLeftAlone(t *testing.T) {
	url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(content[filepath.Base(r.URL.Path)])
	})
	dir := t.TempDir()
	if err := fetchToy(t.Context(), dir, time.Minute, url); err != nil {
		t.Error(err)
	}
	wantCache(t, dir, "big.gz", "small.gz")
}

func TestCancellingEndsADownload(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(content["big.gz"][:1000])
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	dir := t.TempDir()
	err := fetchToy(ctx, dir, time.Minute, url, "http://never.invalid/")
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "never.invalid") {
		t.Errorf("got %v, want that it was cancelled and nothing else was asked", err)
	}
	wantCache(t, dir)
}

func TestManyMayFetchAtOnce(t *testing.T) {
	dir := t.TempDir()
	url, _ := mirror(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := fetchToy(t.Context(), dir, time.Minute, url); err != nil {
				t.Error(err)
			}
			for _, f := range entry().Files { // whole as soon as one of them has it
				if err := f.verify(filepath.Join(dir, "toy", f.Name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantCache(t, dir, "big.gz", "small.gz")
}

func TestOldTemporaryFilesAreSweptAndFreshOnesLeft(t *testing.T) {
	dir := t.TempDir()
	toy := filepath.Join(dir, "toy")
	if err := os.Mkdir(toy, 0o755); err != nil {
		t.Fatal(err)
	}
	old, fresh := filepath.Join(toy, ".big.gz.1.part"), filepath.Join(toy, ".big.gz.2.part")
	for _, path := range []string{old, fresh} {
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-2 * tempLife)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	url, _ := mirror(t, nil)
	if err := fetchToy(t.Context(), dir, time.Minute, url); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file that was left behind is still there (%v)", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("the file of a running download is gone: %v", err)
	}
}

func TestTheErrorTellsEverySourceThatWasTried(t *testing.T) {
	fakeGo(t, `echo '{"Path": "example.org/toy", "Error": "lookup proxy.invalid: no such host"}'; exit 1`)
	dir := t.TempDir()
	e := entry()
	e.Module = Module{"example.org/toy", "v1.0.0", "data"}
	a, _ := mirror(t, http.NotFound)
	b, _ := mirror(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	_, err := e.get(t.Context(), Env{CacheDir: dir, Mirrors: []string{a, b}})
	want := "big.gz could not be had from any source:" +
		"\n  cache: open " + dir + "/toy/big.gz: no such file or directory" +
		"\n  go module example.org/toy@v1.0.0: lookup proxy.invalid: no such host" +
		"\n  " + a + "/: the server answered 404 Not Found" +
		"\n  " + b + "/: the server answered 403 Forbidden"
	if err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
	wantCache(t, dir)
}

func TestOfflineAsksNobody(t *testing.T) {
	fakeGo(t, "touch started")
	url, requests := mirror(t, nil)
	e := entry()
	e.Module = Module{"example.org/toy", "v1.0.0", "data"}
	_, err := e.get(t.Context(), Env{CacheDir: t.TempDir(), Mirrors: []string{url}, Offline: true})
	if err == nil || !strings.Contains(err.Error(), "go module and mirrors: not asked") {
		t.Errorf("got %v", err)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestGetOfAnUnknownNameTellsTheKnownOnes(t *testing.T) {
	_, err := Get(t.Context(), "minst", Env{CacheDir: t.TempDir(), Offline: true})
	const want = `dataset: no data set is called "minst", want one of: mnist, fashion_mnist, cifar10, cifar100, imdb, cats_vs_dogs`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAnUnwritableCacheIsTold(t *testing.T) {
	dir := writeFiles(t, map[string][]byte{"file": nil})
	url, _ := mirror(t, nil)
	err := fetchToy(t.Context(), filepath.Join(dir, "file"), time.Minute, url)
	if err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("got %v, want that the cache is not a directory", err)
	}
}

// fakeGo puts a go command in front of the PATH that runs a shell script.
func fakeGo(t *testing.T, script string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the stand-in for the go command is a shell script")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func toyModule(limit time.Duration) *moduleSource {
	return &moduleSource{module: Module{"example.org/toy", "v1.0.0", "data"}, limit: limit}
}

func TestTheModuleIsAskedOnceAndFromOutsideAnyModule(t *testing.T) {
	mod := writeFiles(t, nil)
	if err := os.Mkdir(filepath.Join(mod, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range content {
		if err := os.WriteFile(filepath.Join(mod, "data", name), b, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	seen := filepath.Join(t.TempDir(), "seen")
	t.Setenv("GOFLAGS", "-mod=vendor -modcacherw")
	t.Setenv("GO111MODULE", "off")
	fakeGo(t, `echo "$*|$GOFLAGS|$GO111MODULE|$GOWORK|$(ls -A | wc -l)|$PWD" >>`+seen+`
echo '{"Dir": "`+mod+`"}'`)
	dir := t.TempDir()
	f := &fetcher{dir: filepath.Join(dir, "toy"), sources: []source{toyModule(time.Minute)}, progress: func(Progress) {}, log: discard()}
	if err := f.run(t.Context(), entry().Files); err != nil {
		t.Fatal(err)
	}
	wantCache(t, dir, "big.gz", "small.gz")
	b, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	line, work, _ := strings.Cut(strings.TrimSpace(string(b)), "|0|")
	if want := "mod download -json example.org/toy@v1.0.0|-mod=mod -modcacherw|on|off"; line != want {
		t.Errorf("the go command saw %q, want once %q", b, want)
	}
	if _, err := os.Stat(work); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its working directory %q is still there (%v)", work, err)
	}
}

func TestWhatTheGoCommandFailsWithIsTold(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"known failure", `echo '{"Error": "no such version"}'; exit 1`, "no such version"},
		{"other failure", `echo 'go: GOPATH' >&2; echo 'is not set' >&2; exit 2`, "go mod download: exit status 2: go: GOPATH is not set"},
		{"long failure", `printf '%01000d' 7 >&2; exit 2`, "0…"},
		{"no answer", `exit 0`, "go mod download: unreadable answer: unexpected end of JSON input"},
		{"another answer", `echo '{}'`, "go mod download: the answer names no directory"},
		{"no such directory", `echo '{"Dir": "/nonexistent"}'`, "open /nonexistent/data/big.gz: no such file or directory"},
		{"hangs", `exec sleep 60`, "go mod download took more than 200ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fakeGo(t, c.script)
			_, _, err := toyModule(200*time.Millisecond).open(t.Context(), entry().Files[0], 0)
			if c.name != "hangs" {
				_, _, err = toyModule(time.Minute).open(t.Context(), entry().Files[0], 0)
			}
			if err == nil || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf(" got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestWithoutAGoCommandTheModuleIsPassedOver(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, _, err := toyModule(time.Minute).open(t.Context(), entry().Files[0], 0)
	if err == nil || err.Error() != "no go command on the PATH" {
		t.Errorf("got %v", err)
	}
}

func TestCancellingEndsTheGoCommand(t *testing.T) {
	fakeGo(t, "exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := toyModule(time.Minute).open(ctx, entry().Files[0], 0)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}

// Names in the temporary pattern are told apart from the files themselves.
func TestNoFileIsCalledLikeATemporaryOne(t *testing.T) {
	for _, e := range List() {
		for _, f := range e.Files {
			if ok, err := filepath.Match(tempPattern("*"), f.Name); ok || err != nil {
				t.Errorf("%s: %v, %v", f.Name, ok, err)
			}
			if len(f.SHA256) != 64 || strings.ToLower(f.SHA256) != f.SHA256 || f.Size < 1 {
				t.Errorf("%s: digest or size is malformed", f.Name)
			}
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// A download of 640,000 bytes breaks off after 400,000 of them, again and again.
func TestABrokenDownloadIsGoneOnWith(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(have []byte) // what lies there between the two
		ranges bool              // the server knows them
		want   []string          // what was asked for, of big.gz
	}{
		"from where it broke off":       {func([]byte) {}, true, []string{"", "bytes=400000-"}},
		"anew, without ranges":          {func([]byte) {}, false, []string{"", "bytes=400000-"}},
		"anew, as what lies there rots": {func(have []byte) { have[7] ^= 1 }, true, []string{"", "bytes=400000-", ""}},
	} {
		dir := t.TempDir()
		var asked []string
		url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
			body := content[filepath.Base(r.URL.Path)]
			if filepath.Base(r.URL.Path) == "big.gz" {
				asked = append(asked, r.Header.Get("Range"))
				if len(asked) == 1 {
					w.Header().Set("Content-Length", "640000")
					w.Write(body[:400_000])
					return
				}
			}
			if !c.ranges {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		})
		get := func() error {
			f := newFetcher(filepath.Join(dir, "toy"), []source{newMirrorSource(url, time.Minute)}, Env{})
			f.keep = 100_000
			return f.run(t.Context(), entry().Files)
		}
		if err := get(); err == nil || !strings.Contains(err.Error(), "after 400000 of 640000 bytes") {
			t.Fatalf("%s: the first attempt: %v", name, err)
		}
		left := filepath.Join(dir, "toy", ".big.gz.partial")
		have, err := os.ReadFile(left)
		if err != nil || len(have) != 400_000 {
			t.Fatalf("%s: %d bytes are left, %v", name, len(have), err)
		}
		c.spoil(have)
		if err := os.WriteFile(left, have, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := get(); err != nil {
			t.Errorf("%s: the second attempt: %v", name, err)
		}
		wantCache(t, dir, "big.gz", "small.gz")
		if diff := cmp.Diff(c.want, asked); diff != "" {
			t.Errorf("%s: asked for %s", name, diff)
		}
	}
}

// A download may break off anywhere: what is there then is whole, or kept to be gone
// on with, or nothing.
func TestADownloadThatBreaksOffAnywhereIsGoneOnWith(t *testing.T) {
	const keep = 100_000
	big := content["big.gz"]
	for _, at := range []int{0, 1, keep - 1, keep, 256 << 10, 256<<10 + 1, len(big) - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var asked []string
			url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
				body := content[filepath.Base(r.URL.Path)]
				if filepath.Base(r.URL.Path) == "big.gz" {
					asked = append(asked, r.Header.Get("Range"))
					if len(asked) == 1 {
						w.Header().Set("Content-Length", fmt.Sprint(len(body)))
						w.Write(body[:at])
						return
					}
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			})
			var reported []int64 // where the second attempt begins
			get := func(env Env) error {
				f := newFetcher(filepath.Join(dir, "toy"), []source{newMirrorSource(url, time.Minute)}, env)
				f.keep = keep
				return f.run(t.Context(), entry().Files)
			}
			if err := get(Env{}); err == nil {
				t.Fatal("half a file is a file")
			}
			want := ""
			if at >= keep {
				want = fmt.Sprintf("bytes=%d-", at)
				if info, err := os.Stat(filepath.Join(dir, "toy", ".big.gz.partial")); err != nil || info.Size() != int64(at) {
					t.Fatalf("kept: %v, %v", info, err)
				}
			} else {
				wantCache(t, dir)
			}
			if err := get(Env{Progress: func(p Progress) { reported = append(reported, p.Done) }}); err != nil {
				t.Fatal(err)
			}
			wantCache(t, dir, "big.gz", "small.gz")
			if len(asked) != 2 || asked[1] != want {
				t.Errorf("asked for %q, want %q the second time", asked, want)
			}
			if want != "" && reported[0] != int64(at) {
				t.Errorf("progress begins at %d, want %d", reported[0], at)
			}
		})
	}
}

// A server whose file is another one by now, or that answers with another range than
// was asked for, is asked for the whole; nothing is stuck for ever.
func TestARangeThatIsRefusedStartsAnew(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"416": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) },
		"another range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-9/10")
			w.WriteHeader(http.StatusPartialContent)
		},
		"another file": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(bytes.Repeat([]byte("x"), 640_000)))
		},
	} {
		dir := writeTree(t, map[string][]byte{"toy/.big.gz.partial": content["big.gz"][:300_000]})
		url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				refuse(w, r)
				return
			}
			w.Write(content[filepath.Base(r.URL.Path)])
		})
		if err := fetchToy(t.Context(), dir, time.Minute, url); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantCache(t, dir, "big.gz", "small.gz")
	}
}

// A process that is killed leaves a temporary file, which the next one takes if it is
// still.
func TestWhatAKilledDownloadLeftIsGoneOnWith(t *testing.T) {
	big := content["big.gz"]
	for name, c := range map[string]struct {
		age  time.Duration
		left []byte
		want string
	}{
		"long still":    {time.Hour, big[:300_000], "bytes=300000-"},
		"being written": {0, big[:300_000], ""},
		"too little":    {time.Hour, big[:1000], ""},
		"rotten":        {time.Hour, bytes.Repeat([]byte("x"), 300_000), "bytes=300000-, "},
		"all of it":     {time.Hour, append(bytes.Clone(big), 1), ""},
	} {
		dir := writeTree(t, map[string][]byte{"toy/.big.gz.123.part": c.left, "toy/.other.gz.9.part": nil})
		part := filepath.Join(dir, "toy", ".big.gz.123.part")
		then := time.Now().Add(-c.age)
		if err := os.Chtimes(part, then, then); err != nil {
			t.Fatal(err)
		}
		var asked []string
		url, _ := mirror(t, func(w http.ResponseWriter, r *http.Request) {
			if filepath.Base(r.URL.Path) == "big.gz" {
				asked = append(asked, r.Header.Get("Range"))
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[filepath.Base(r.URL.Path)]))
		})
		f := newFetcher(filepath.Join(dir, "toy"), []source{newMirrorSource(url, time.Minute)}, Env{})
		f.keep = 100_000
		if err := f.run(t.Context(), entry().Files); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(asked, ", "); got != c.want {
			t.Errorf("%s: asked for %q, want %q", name, got, c.want)
		}
		for _, name := range []string{"big.gz", "small.gz"} {
			if b, err := os.ReadFile(filepath.Join(dir, "toy", name)); err != nil || !bytes.Equal(b, content[name]) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// What the user has is copied into the cache if its digest is right, from a file of
// any name or a directory; what is wrong with it is told otherwise.
func TestEveryDataSetIsTakenFromWhatTheUserHas(t *testing.T) {
	for _, e := range List() {
		have := map[string][]byte{}
		for i := range e.Files { // stand-ins for what was published
			b := []byte(fmt.Sprintf("%s of %s, file %d", e.Files[i].Name, e.Name, i))
			sum := sha256.Sum256(b)
			e.Files[i] = File{e.Files[i].Name, int64(len(b)), hex.EncodeToString(sum[:])}
			have[e.Files[i].Name] = b
		}
		dir, env := writeFiles(t, have), Env{CacheDir: t.TempDir(), Offline: true}
		if _, err := e.adopt(t.Context(), dir, env); err != nil || !e.Cached(env.CacheDir) {
			t.Errorf("%s from a directory: %v", e.Name, err)
		}
		last := e.Files[len(e.Files)-1].Name
		if err := os.WriteFile(filepath.Join(dir, last), bytes.ToUpper(have[last]), 0o644); err != nil {
			t.Fatal(err)
		}
		env.CacheDir = t.TempDir()
		_, err := e.adopt(t.Context(), dir, env)
		want := fmt.Sprintf("%s could not be had from any source:", last)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("%s: SHA-256 is %x, want ", dir, sha256.Sum256(bytes.ToUpper(have[last])))) {
			t.Errorf("%s: got %v, want %q", e.Name, err, want)
		}
		if _, err := os.Stat(filepath.Join(env.CacheDir, e.Name, last)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a file of another content is in the cache (%v)", e.Name, err)
		}
		if _, err := e.adopt(t.Context(), filepath.Join(dir, "none"), env); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s from nowhere: %v", e.Name, err)
		}
	}
}
