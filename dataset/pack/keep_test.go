package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// counted is a source that counts what it is asked for.
type counted struct {
	Source
	parts, bytes atomic.Int64
}

func (c *counted) Part(ctx context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	n, err := c.Source.Part(ctx, name, off, dst, check)
	c.parts.Add(1)
	c.bytes.Add(int64(n))
	return n, err
}

// bounded opens a pack from src and keeps so many blocks of those of cut.
func bounded(t testing.TB, src Source, want Sum, dir string, blocks int) *Reader {
	t.Helper()
	r, err := OpenFrom(t.Context(), src, want, Keep{Dir: dir, Bytes: int64(blocks) * (slotHead + 63), Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestAnyBudgetGivesTheSameRecords(t *testing.T) {
	dir := t.TempDir()
	ids := append(from(5, 40), from(2, 3)...)
	sum := write(t, dir, cut, ids)
	origin := open(t, dir)
	rapid.Check(t, func(rt *rapid.T) {
		here, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		rec := make([]byte, 21)
		for range 3 { // a process that finds what the one before has kept
			blocks := rapid.IntRange(1, 20).Draw(rt, "blocks")
			r, err := OpenFrom(t.Context(), origin, sum, Keep{Dir: here, Bytes: int64(blocks) * (slotHead + 63)})
			if err != nil {
				rt.Fatal(err)
			}
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(ids)-1), 0, 40).Draw(rt, "reads") {
				got, err := r.Read(i, rec)
				if err != nil || !bytes.Equal(got, payload(ids[i], 13)) {
					rt.Fatalf("record %d: %x, %v", i, got, err)
				}
			}
			if err := r.Close(); err != nil {
				rt.Fatal(err)
			}
			if info, err := os.Stat(filepath.Join(here, slotsName)); err != nil || info.Size() > int64(blocks)*(slotHead+63) {
				rt.Fatalf("%d bytes are kept, %v", info.Size(), err)
			}
		}
	})
}

func TestManyReadAtOnceThroughASmallBudget(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, from(0, 60))
	r := bounded(t, open(t, dir), sum, t.TempDir(), 3)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			draw, rec := rand.New(rand.NewPCG(1, uint64(g))), make([]byte, 21)
			for range 2000 {
				i := draw.IntN(60)
				if got, err := r.Read(i, rec); err != nil || !bytes.Equal(got, payload(uint64(i), 13)) {
					t.Errorf("record %d: %x, %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWhatIsKeptIsNotAskedForAgain(t *testing.T) {
	dir, here := t.TempDir(), t.TempDir()
	sum := write(t, dir, cut, from(0, 60)) // 20 blocks, 2 in a shard
	src := &counted{Source: open(t, dir)}
	for _, c := range []struct {
		blocks, parts, least, most int
	}{
		{20, 10, 20, 20}, // all of it, two blocks at a time
		{20, 0, 0, 0},    // is here
		{16, 0, 4, 6},    // the file was cut: four blocks are missing, and push out two
		{16, 6, 6, 6},    // 14 stay for good, for the others there are two places
		{40, 0, 4, 4},    // there is room for all
		{0, 10, 20, 20},  // in the layout of a pack: elsewhere, so all of it again
	} {
		src.parts.Store(0)
		src.bytes.Store(0)
		r, err := OpenFrom(t.Context(), src, sum, Keep{Dir: here, Bytes: int64(c.blocks) * (slotHead + 63)})
		if err != nil {
			t.Fatal(err)
		}
		rec := make([]byte, 21)
		for i := range 60 {
			if _, err := r.Read(i, rec); err != nil {
				t.Fatal(err)
			}
		}
		if n := int(src.bytes.Load() / 63); n < c.least || n > c.most || c.parts > 0 && int(src.parts.Load()) != c.parts {
			t.Errorf("%d blocks to keep: asked %d times for %d blocks, want %d and %d to %d", c.blocks, src.parts.Load(), n, c.parts, c.least, c.most)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	same(t, open(t, here), from(0, 60))
}

func TestWhatAKilledProcessLeftHalfWrittenIsFetchedAnew(t *testing.T) {
	dir, here := t.TempDir(), t.TempDir()
	sum := write(t, dir, cut, from(0, 12))
	src := &counted{Source: open(t, dir)}
	same(t, bounded(t, src, sum, here, 9), from(0, 12))
	damage(t, filepath.Join(here, slotsName), func(b []byte) []byte {
		b[slotHead+30] ^= 1                     // a block
		b[slotHead+63] = 99                     // the number of another, which is none
		copy(b[2*(slotHead+63):], []byte{4, 0}) // two places that claim one block, or a wrong one
		return b
	})
	src.bytes.Store(0)
	r := bounded(t, src, sum, here, 9)
	for range 2 {
		same(t, r, from(0, 12))
	}
	if n := src.bytes.Load() / 63; n < 2 || n > 3 {
		t.Errorf("%d blocks were fetched, want 2 or 3", n)
	}
}

func TestABudgetBelowOneBlockIsRefused(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, from(0, 12))
	if _, err := OpenFrom(t.Context(), open(t, dir), sum, Keep{Dir: t.TempDir(), Bytes: 70}); err == nil || !strings.Contains(err.Error(), "70 bytes hold no block, want at least 71") {
		t.Errorf("got %v", err)
	}
}

func TestAReadThatWaitsEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	sum := write(t, dir, cut, from(0, 12))
	src := &waiting{Source: open(t, dir), asked: make(chan struct{}, 2)}
	r := bounded(t, src, sum, t.TempDir(), 9)
	first, end := context.WithCancelCause(t.Context())
	why := errors.New("the generation is over")
	failed := make(chan error, 2)
	read := func() {
		_, err := r.ReadContext(first, 0, make([]byte, 21))
		failed <- err
	}
	go read() // fetches
	<-src.asked
	go read() // waits for the other, or fetches
	end(why)
	for range 2 {
		if err := <-failed; !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
	}
	src.open.Store(true)
	same(t, r, from(0, 12)) // nobody stands in the way
}

// waiting is a source that answers once it is open.
type waiting struct {
	Source
	asked chan struct{}
	open  atomic.Bool
}

func (w *waiting) Part(ctx context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	if w.open.Load() {
		return w.Source.Part(ctx, name, off, dst, check)
	}
	w.asked <- struct{}{}
	<-ctx.Done()
	return 0, context.Cause(ctx)
}

func TestAVirtualPackIsThePackThatWouldBeWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := Layout{
			Payload:    rapid.IntRange(1, 40).Draw(rt, "payload"),
			BlockBytes: rapid.IntRange(1, 300).Draw(rt, "block"),
			ShardBytes: int64(rapid.IntRange(500, 900).Draw(rt, "shard")),
		}
		n := rapid.IntRange(1, 60).Draw(rt, "records")
		ids := from(rapid.Uint64Range(0, 1<<60).Draw(rt, "first"), n)
		if rapid.Bool().Draw(rt, "shuffled") {
			ids = rapid.Permutation(ids).Draw(rt, "ids")
		}
		var weights []float32
		if rapid.Bool().Draw(rt, "weighted") {
			weights = rapid.SliceOfN(rapid.Float32Range(0, 9), n, n).Draw(rt, "weights")
		}
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		w, err := Create(dir, l)
		if err != nil {
			rt.Fatal(err)
		}
		for _, id := range ids {
			if err := w.Add(id, payload(id, l.Payload)); err != nil {
				rt.Fatal(err)
			}
		}
		w.Weigh(weights)
		sum, err := w.Finish([]byte(`{"what":"a test"}`))
		if err != nil {
			rt.Fatal(err)
		}
		v, err := NewVirtual(t.Context(), l, Records{
			IDs: ids, Weights: weights, Meta: []byte(`{"what":"a test"}`),
			Payload: func(i int, dst []byte) error { copy(dst, payload(ids[i], l.Payload)); return nil },
		})
		if err != nil || v.Sum() != sum {
			rt.Fatalf("the index is %v, want %v: %v", v.Sum(), sum, err)
		}
		r, err := OpenFrom(t.Context(), v, sum, Keep{Dir: filepath.Join(dir, "copy"), Bytes: 1000})
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		same(rt, r, ids)
		if got := fmt.Sprint(r.Weights()); got != fmt.Sprint(weights) {
			rt.Fatalf("weights %v, want %v", got, weights)
		}
	})
}

func TestASourceGivesWholeBlocksThatAreRight(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, cut, from(0, 20))
	damage(t, filepath.Join(dir, "00001.shard"), func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	r := open(t, dir)
	whole := func(int) error { return nil }
	for _, c := range []struct {
		name   string
		off    int64
		length int
		n      int
		want   string
	}{
		{"00000.shard", 64, 1000, 126, ""},
		{"00000.shard", 127, 100, 63, ""},
		{"00001.shard", 64, 126, 63, ""}, // what comes next is damaged
		{"00001.shard", 127, 63, 0, "file does not exist"},
		{"00003.shard", 64, 1000, 42, ""},
		{"00003.shard", 106, 1000, 0, "offset 106: no block begins there"},
		{"00000.shard", 0, 63, 0, "offset 0: no block begins there"},
		{"00000.shard", 64, 62, 0, "62 bytes are less than the block there"},
		{"00004.shard", 64, 63, 0, "no file of this pack"},
		{"-0001.shard", 64, 63, 0, "no file of this pack"},
		{"0.shard", 64, 63, 0, "no file of this pack"},
		{"../index.json", 64, 63, 0, "no file of this pack"},
	} {
		n, err := r.Part(t.Context(), c.name, c.off, make([]byte, c.length), whole)
		if n != c.n || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s at %d: %d bytes, %v; want %d, %q", c.name, c.off, n, err, c.n, c.want)
		}
	}
	if _, err := r.Whole(t.Context(), "../x", 10, func([]byte) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of nobody: %v", err)
	}
}

// FuzzSlots opens any file of blocks, and reads what is right nevertheless.
func FuzzSlots(f *testing.F) {
	dir := f.TempDir()
	sum := write(f, dir, cut, from(0, 7))
	origin := open(f, dir)
	f.Add([]byte{})
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{7}, 63)...))
	f.Add(bytes.Repeat([]byte{2, 0, 0, 0, 0, 0, 0, 0}, 40))
	f.Fuzz(func(t *testing.T, file []byte) {
		here := t.TempDir()
		if err := os.WriteFile(filepath.Join(here, slotsName), file, 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			same(t, bounded(t, origin, sum, here, 2), from(0, 7))
		}
	})
}
