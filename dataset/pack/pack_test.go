package pack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// payload is what record id holds.
func payload(id uint64, n int) []byte {
	b := make([]byte, n)
	for j := range b {
		b[j] = byte(id*31 + uint64(j)*7)
	}
	return b
}

// write makes a pack of some ids in dir.
func write(t testing.TB, dir string, l Layout, ids []uint64) Sum {
	t.Helper()
	w, err := Create(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := w.Add(id, payload(id, l.Payload)); err != nil {
			t.Fatal(err)
		}
	}
	sum, err := w.Finish([]byte(`{"what":"a test"}`))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return sum
}

func from(first uint64, n int) []uint64 {
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = first + uint64(i)
	}
	return ids
}

// open opens a pack until the test ends.
func open(t testing.TB, dir string) *Reader {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// same checks that r holds the records of ids.
func same(t interface{ Fatalf(string, ...any) }, r *Reader, ids []uint64) {
	if r.Index().Records != len(ids) {
		t.Fatalf("%d records, want %d", r.Index().Records, len(ids))
	}
	rec := make([]byte, r.RecordLen())
	for i := range slices.Backward(ids) {
		got, err := r.Read(i, rec)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if r.ID(i) != ids[i] || !bytes.Equal(got, payload(ids[i], len(got))) {
			t.Fatalf("record %d has id %d and bytes %x, want %d", i, r.ID(i), got, ids[i])
		}
	}
}

// cut is a layout of small blocks and shards: 3 records a block, 2 blocks a shard.
var cut = Layout{Payload: 13, BlockBytes: 3 * 21, ShardBytes: 6 * 21}

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		l := Layout{
			Payload:    rapid.IntRange(1, 40).Draw(rt, "payload"),
			BlockBytes: rapid.IntRange(1, 300).Draw(rt, "block"),
			ShardBytes: int64(rapid.IntRange(1, 900).Draw(rt, "shard")),
		}
		n := rapid.IntRange(1, 60).Draw(rt, "records")
		ids := from(rapid.Uint64Range(0, 1<<60).Draw(rt, "first"), n)
		if rapid.Bool().Draw(rt, "shuffled") {
			ids = rapid.Permutation(ids).Draw(rt, "ids")
		}
		sum := write(t, dir, l, ids)
		r, err := Open(dir)
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		same(rt, r, ids)
		if err := r.Verify(t.Context(), nil); err != nil || r.Sum() != sum {
			rt.Fatalf("verify: %v; the index is %v, want %v", err, r.Sum(), sum)
		}
	})
}

// The layout on disk is a promise to packs that have been written.
func TestTheFormatStaysWhatItIs(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, []uint64{5, 6, 8})
	if want := "bcf9a8857448c703b1a7a4a03e6c98fcd07ec7c058012f4cfbc07449f9ddfbd5"; sum.String() != want {
		t.Errorf("the index is %v, want %v", sum, want)
	}
	shard, err := os.ReadFile(filepath.Join(dir, "00000.shard"))
	if err != nil {
		t.Fatal(err)
	}
	want := "dlnode pack 1\n\x00\x00" + "\x00\x00\x00\x00" + "\x15\x00\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x00" + "\x03\x00\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 24)
	for _, id := range []uint64{5, 6, 8} {
		want += string([]byte{byte(id), 0, 0, 0, 0, 0, 0, 0}) + string(payload(id, 13))
	}
	if string(shard) != want {
		t.Errorf("the shard is\n%q, want\n%q", shard, want)
	}
	ids, err := os.ReadFile(filepath.Join(dir, "ids"))
	if err != nil || string(ids) != "\x05\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("ids are %q, %v", ids, err)
	}
}

func TestReadsAllocateNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, cut, from(0, 20))
	r := open(t, dir)
	same(t, r, from(0, 20))
	rec, i := make([]byte, r.RecordLen()), 0
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Read(i%20, rec); err != nil {
			t.Fatal(err)
		}
		i += 7
	}); n != 0 {
		t.Errorf("a Read allocates %v times", n)
	}
}

func TestManyReadAtOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, cut, from(100, 50))
	r := open(t, dir)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { same(fatals{t}, r, from(100, 50)) })
	}
	wg.Wait()
}

// fatals makes errors of what a goroutine may not end the test with.
type fatals struct{ t *testing.T }

func (f fatals) Fatalf(format string, args ...any) { f.t.Errorf(format, args...) }

// damage changes a file of a pack.
func damage(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestADamagedBlockIsToldWhenItIsTouched(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, cut, from(0, 20))
	damage(t, filepath.Join(dir, "00001.shard"), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	r := open(t, dir)
	rec := make([]byte, r.RecordLen())
	if _, err := r.Read(8, rec); err != nil {
		t.Errorf("a block beside the damaged one: %v", err)
	}
	const want = "00001.shard: offset 127: block 3 (records 9 to 11) is damaged: its SHA-256 is not that of the index"
	for range 2 {
		if _, err := r.Read(9, rec); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := r.Verify(t.Context(), nil); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("verify: %v, want %s", err, want)
	}
}

func TestWhatIsWrongWithThePackIsToldByOpen(t *testing.T) {
	edit := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	for _, c := range []struct {
		file   string
		change func([]byte) []byte
		want   string
	}{
		{"00001.shard", func(b []byte) []byte { return b[:len(b)-1] }, "00001.shard: 84 bytes, want 85"},
		{"00000.shard", func(b []byte) []byte { b[24] = 9; return b }, "offset 24: the header of the shard has 0x09 there, want 0x00"},
		{"00000.shard", func(b []byte) []byte { b[3] = 'x'; return b }, "offset 3: the header of the shard has 0x78 there, want 0x6f"},
		{"ids", func(b []byte) []byte { b[0] ^= 1; return b }, "ids: SHA-256 is "},
		{"ids", func(b []byte) []byte { return b[1:] }, "ids: 55 bytes, want 56"},
		{"ids", func(b []byte) []byte { return append(b, 0) }, "ids: more than 56 bytes"},
		{"index.json", func([]byte) []byte { return nil }, "index.json: offset 0: EOF"},
		{"index.json", func(b []byte) []byte { return append(b, '1') }, "trailing bytes after the index"},
		{"index.json", edit(`"version":1`, `"version":2`), "version is 2, want 1"},
		{"index.json", edit(`"record":21`, `"record":8`), "record is 8, want 9 to 1073741824 bytes"},
		{"index.json", edit(`"records":7`, `"records":0`), "records is 0, want 1 to"},
		{"index.json", edit(`"records":7`, `"records":10`), "number of blocks is 3, want 4 for 10 records"},
		{"index.json", edit(`"records_per_block":3`, `"records_per_block":99999999`), "records_per_block is 99999999, want"},
		{"index.json", edit(`"records_per_shard":6`, `"records_per_shard":7`), "records_per_shard is 7, want a multiple of records_per_block"},
		{"index.json", edit(`"meta"`, `"metal"`), `unknown field "metal"`},
		{"index.json", edit(`"blocks":["`, `"blocks":["0`), "a SHA-256 has 65 digits, want 64"},
	} {
		dir := t.TempDir()
		write(t, dir, cut, []uint64{1, 2, 3, 4, 5, 6, 9})
		damage(t, filepath.Join(dir, c.file), c.change)
		r, err := Open(dir)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.file, err, c.want)
		}
		if err == nil {
			r.Close()
		}
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestWhatCannotBeWrittenIsTold(t *testing.T) {
	if _, err := Create(t.TempDir(), Layout{}); err == nil {
		t.Error("records of nothing")
	}
	w, err := Create(t.TempDir(), cut)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(nil); err == nil || !strings.Contains(err.Error(), "zero records") {
		t.Errorf("no records: %v", err)
	}
	w, err = Create(t.TempDir(), cut)
	for range 2 {
		err = errors.Join(err, w.Add(4, payload(4, 13)))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish([]byte("{}")); err == nil || !strings.Contains(err.Error(), "two records have id 4") {
		t.Errorf("one id twice: %v", err)
	}
}

// server counts and serves the files of a pack; spoil may change an answer.
func server(t testing.TB, dir string, spoil func(n int64, w http.ResponseWriter, r *http.Request) bool) (*HTTP, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	files := http.FileServer(http.Dir(dir))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k := n.Add(1); spoil == nil || !spoil(k, w, r) {
			files.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return &HTTP{Base: s.URL + "/", Client: s.Client(), Timeout: 5 * time.Second, Retry: time.Millisecond}, &n
}

func TestAPackBehindAServerIsReadOnce(t *testing.T) {
	dir, here := t.TempDir(), t.TempDir()
	ids := []uint64{7, 3, 4, 5, 6, 10, 11, 12, 13, 14}
	sum := write(t, dir, cut, ids)
	src, asked := server(t, dir, nil)
	for round, want := range []int64{2 + 4, 0} { // index, ids and, as the last is read first, four blocks; then nothing
		asked.Store(0)
		r, err := OpenFrom(t.Context(), src, sum, Keep{Dir: here})
		if err != nil {
			t.Fatal(err)
		}
		same(t, r, ids)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if got := asked.Load(); got != want {
			t.Errorf("round %d: %d requests, want %d", round, got, want)
		}
	}
	same(t, open(t, here), ids) // what has been read is a pack of its own
}

func TestABlockThatRottedHereIsFetchedAnew(t *testing.T) {
	dir, here := t.TempDir(), t.TempDir()
	sum := write(t, dir, cut, from(0, 10))
	src, asked := server(t, dir, nil)
	for range 2 {
		r, err := OpenFrom(t.Context(), src, sum, Keep{Dir: here})
		if err != nil {
			t.Fatal(err)
		}
		same(t, r, from(0, 10))
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		damage(t, filepath.Join(here, "00000.shard"), func(b []byte) []byte { b[70] ^= 1; return b })
	}
	if got := asked.Load(); got != 1+4+1 {
		t.Errorf("%d requests, want 6", got)
	}
}

func TestAServerThatFailsIsAskedAgain(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, from(0, 10))
	src, _ := server(t, dir, func(n int64, w http.ResponseWriter, r *http.Request) bool {
		switch n % 3 {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Content-Length", "63")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "too little")
		}
		return n%3 != 0
	})
	r, err := OpenFrom(t.Context(), src, sum, Keep{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	same(t, r, from(0, 10))
}

func TestAServerIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, from(0, 10))
	src, _ := server(t, dir, func(n int64, w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/00000.shard":
			w.WriteHeader(http.StatusPartialContent)
			w.Write(make([]byte, 126))
		case "/00001.shard":
			r.Header.Del("Range")
			return false
		default:
			return false
		}
		return true
	})
	r, err := OpenFrom(t.Context(), src, sum, Keep{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	rec := make([]byte, r.RecordLen())
	for i, want := range map[int]string{
		1: "00000.shard: offset 64: block 0 is damaged",
		7: "00001.shard: offset 64: block 2: the server answered with the whole file",
	} {
		if _, err := r.Read(i, rec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("record %d: %v, want %q", i, err, want)
		}
	}
	other := sum
	other[0] ^= 1
	if _, err := OpenFrom(t.Context(), src, other, Keep{Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "index.json: SHA-256 is") {
		t.Errorf("another index: %v", err)
	}
	src.Base += "missing/"
	if _, err := OpenFrom(t.Context(), src, sum, Keep{Dir: t.TempDir()}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no index: %v", err)
	}
}

func TestCloseEndsAFetch(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, from(0, 10))
	asked := make(chan struct{})
	src, _ := server(t, dir, func(_ int64, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/00000.shard" {
			return false
		}
		close(asked)
		<-r.Context().Done()
		return true
	})
	src.Timeout = time.Hour
	r, err := OpenFrom(t.Context(), src, sum, Keep{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := r.Read(0, make([]byte, r.RecordLen()))
		failed <- err
	}()
	<-asked
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled read", err)
	}
}

// FuzzIndex holds the reader of the index to: no panic, and what is accepted
// fits together.
func FuzzIndex(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, cut, from(0, 7))
	text, err := os.ReadFile(filepath.Join(dir, IndexName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"version":1,"record":1073741824,"records":1099511627776,"records_per_block":1,"records_per_shard":1,"blocks":[]}`))
	f.Add([]byte(`{"version":1,"record":9,"records":1,"records_per_block":1073741824,"records_per_shard":1073741824,"blocks":["` + strings.Repeat("0", 64) + `"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		x, err := decodeIndex(text)
		if err != nil {
			return
		}
		records := 0
		for b := range x.Blocks {
			records += x.blockRecords(b)
		}
		if records != x.Records || x.PerBlock*x.Record > maxBlock {
			t.Fatalf("accepted %+v", x)
		}
		if _, err := json.Marshal(x); err != nil {
			t.Fatal(fmt.Errorf("accepted what it can't write: %w", err))
		}
	})
}

// FuzzOpen puts any index beside the shards of a small pack.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, cut, from(0, 7))
	text, err := os.ReadFile(filepath.Join(dir, IndexName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, byte(70))
	f.Fuzz(func(t *testing.T, text []byte, at byte) {
		here := t.TempDir()
		if err := os.CopyFS(here, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		damage(t, filepath.Join(here, "00000.shard"), func(b []byte) []byte { b[int(at)%len(b)] ^= at; return b })
		if err := os.WriteFile(filepath.Join(here, IndexName), text, 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Open(here)
		if err != nil {
			return
		}
		defer r.Close()
		rec := make([]byte, r.RecordLen())
		for i := range r.Index().Records {
			if _, err := r.Read(i, rec); err != nil {
				return
			}
		}
	})
}
