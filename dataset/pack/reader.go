package pack

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
)

// Reader reads the records of a pack in any order, from any number of
// goroutines. It allocates nothing once each block has been touched.
type Reader struct {
	index   *Index
	sum     Sum
	dir     string
	shelf   shelf
	ids     []uint64  // nil where they run on by one
	weights []float32 // nil where there are none
	from    *feed     // where the pack is, if it is elsewhere; else nil
	turns   turns
	blocks  sync.Pool // *[]byte of a whole block
}

// shelf is where the blocks of a pack lie on this machine, or some of them.
type shelf interface {
	// record fills rec with record i, if its block is here and has been checked.
	record(i int, rec []byte) (here bool, err error)
	// block fills dst with block b and checks it. The error tells that it is not
	// here, or damaged.
	block(b int, dst []byte) error
	// lacks tells whether block b seems not to be here, and could be put here
	// without another going.
	lacks(b int) bool
	// keep puts a block that was checked here.
	keep(b int, block []byte) error
	// prefetch has the system read what reading record i will, as far as it is here.
	prefetch(i int)
	close() error
}

// Open opens the pack in a directory. Its shards must have their proper lengths
// and headers; blocks are checked when they are read.
func Open(dir string) (*Reader, error) {
	text, err := readFile(filepath.Join(dir, IndexName), maxIndexBytes)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	r, err := newReader(dir, text)
	if err != nil {
		return nil, err
	}
	files := newShards(r)
	r.shelf = files
	if err := errors.Join(files.open(), r.readColumns(func(name string, _ Sum, limit int64) ([]byte, error) {
		return readFile(filepath.Join(dir, name), limit)
	})); err != nil {
		return nil, errors.Join(fmt.Errorf("pack: %w", err), r.Close())
	}
	return r, nil
}

func newReader(dir string, text []byte) (*Reader, error) {
	x, err := decodeIndex(text)
	if err != nil {
		return nil, fmt.Errorf("pack: %s: %w", filepath.Join(dir, IndexName), err)
	}
	r := &Reader{index: x, sum: sha256.Sum256(text), dir: dir}
	r.blocks.New = func() any {
		b := make([]byte, x.blockBytes(0)) // no other block is longer
		return &b
	}
	return r, nil
}

// readColumns takes the files of ids and weights, where there are any.
func (r *Reader) readColumns(read func(name string, want Sum, limit int64) ([]byte, error)) error {
	n := r.index.Records
	column := func(name string, want *Sum, size int) ([]byte, error) {
		if want == nil {
			return nil, nil
		}
		text, err := read(name, *want, int64(n)*int64(size))
		if err != nil {
			return nil, err
		}
		path := filepath.Join(r.dir, name)
		if len(text) != n*size {
			return nil, fmt.Errorf("%s: %d bytes, want %d", path, len(text), n*size)
		}
		if got := Sum(sha256.Sum256(text)); got != *want {
			return nil, fmt.Errorf("%s: SHA-256 is %v, want %v", path, got, *want)
		}
		return text, nil
	}
	ids, err := column(IDsName, r.index.IDs, idSize)
	if err != nil {
		return err
	}
	if ids != nil {
		r.ids = make([]uint64, n)
		for i := range r.ids {
			r.ids[i] = binary.LittleEndian.Uint64(ids[idSize*i:])
		}
	}
	weights, err := column(WeightsName, r.index.Weights, weightSize)
	if err != nil || weights == nil {
		return err
	}
	r.weights = make([]float32, n)
	for i := range r.weights {
		w := math.Float32frombits(binary.LittleEndian.Uint32(weights[weightSize*i:]))
		if !(w >= 0 && w <= math.MaxFloat32) {
			return fmt.Errorf("%s: record %d: weight is %v, want a finite number of at least 0", filepath.Join(r.dir, WeightsName), i, w)
		}
		r.weights[i] = w
	}
	return nil
}

// Index describes the pack. It is shared: read it, don't write to it.
func (r *Reader) Index() *Index { return r.index }

// Sum returns the SHA-256 of the index, which names the whole pack.
func (r *Reader) Sum() Sum { return r.sum }

// ID returns the id of record i, by the index.
func (r *Reader) ID(i int) uint64 {
	if r.ids != nil {
		return r.ids[i]
	}
	return r.index.FirstID + uint64(i)
}

// Weights returns the weights of the records, nil where there are none. They are
// shared: read them, don't write to them.
func (r *Reader) Weights() []float32 { return r.weights }

// RecordLen returns the bytes of a record, its id included.
func (r *Reader) RecordLen() int { return r.index.Record }

// Read is ReadContext for who would wait for ever.
func (r *Reader) Read(i int, rec []byte) (payload []byte, err error) {
	return r.ReadContext(context.Background(), i, rec)
}

// ReadContext fills rec [RecordLen] with record i and returns its payload, a part
// of rec. The error names the file and the block that is damaged. A record whose
// block lies elsewhere is waited for until ctx ends.
func (r *Reader) ReadContext(ctx context.Context, i int, rec []byte) (payload []byte, err error) {
	if i < 0 || i >= r.index.Records || len(rec) != r.index.Record {
		panic(fmt.Sprintf("pack: record %d of %d into %d bytes, want %d", i, r.index.Records, len(rec), r.index.Record))
	}
	here, err := r.shelf.record(i, rec)
	if !here && err == nil {
		err = r.touch(ctx, i, rec)
	}
	if err != nil {
		return nil, err
	}
	if got, want := binary.LittleEndian.Uint64(rec), r.ID(i); got != want {
		return nil, fmt.Errorf("%s: record %d carries id %d, want %d by the index", r.dir, i, got, want)
	}
	return rec[idSize:], nil
}

// touch has the block of record i checked, and fetched if need be, by one
// goroutine at a time, and takes the record out of it.
func (r *Reader) touch(ctx context.Context, i int, rec []byte) error {
	b := i / r.index.PerBlock
	for {
		others := r.turns.begin(b)
		if others == nil {
			defer r.turns.end(b)
			return r.take(ctx, b, i, rec)
		}
		select {
		case <-others:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if here, err := r.shelf.record(i, rec); here || err != nil {
			return err
		}
	}
}

// take takes record i out of block b.
func (r *Reader) take(ctx context.Context, b, i int, rec []byte) error {
	buf := r.blocks.Get().(*[]byte)
	defer r.blocks.Put(buf)
	block := (*buf)[:r.index.blockBytes(b)]
	if err := r.load(ctx, b, block); err != nil {
		return err
	}
	copy(rec, block[(i-b*r.index.PerBlock)*r.index.Record:])
	return nil
}

// load fills block with block b, from here if it is right here, and else from
// where the pack is.
func (r *Reader) load(ctx context.Context, b int, block []byte) error {
	err := r.shelf.block(b, block)
	if err == nil || r.from == nil {
		return err
	}
	return r.fetch(ctx, b, block)
}

// check tells whether the bytes of block b are those of the index.
func (x *Index) check(b int, block []byte) error {
	if Sum(sha256.Sum256(block)) == x.Blocks[b] {
		return nil
	}
	return &damagedError{b}
}

// damagedError tells of a block whose bytes are others.
type damagedError struct{ block int }

func (e *damagedError) Error() string {
	return fmt.Sprintf("block %d is damaged: its SHA-256 is not that of the index", e.block)
}

// Verify checks every block, whatever was checked before. Progress is called
// after each with the bytes done and in all; nil for none.
func (r *Reader) Verify(ctx context.Context, progress func(done, total int64)) error {
	block := make([]byte, r.index.blockBytes(0))
	total := int64(r.index.Records) * int64(r.index.Record)
	var done int64
	for b := range r.index.Blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := block[:r.index.blockBytes(b)]
		if err := r.load(ctx, b, part); err != nil {
			return err
		}
		if done += int64(len(part)); progress != nil {
			progress(done, total)
		}
	}
	return nil
}

// Close closes the files and ends fetches. Reads fail from then on.
func (r *Reader) Close() error {
	if r.from != nil {
		r.from.stop()
	}
	if r.shelf == nil {
		return nil
	}
	return r.shelf.close()
}

// turns lets one goroutine at a time be at a block.
type turns struct {
	mu sync.Mutex
	at map[int]chan struct{}
}

// begin takes block b, or returns what is closed when another has done with it.
func (t *turns) begin(b int) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if busy, ok := t.at[b]; ok {
		return busy
	}
	if t.at == nil {
		t.at = map[int]chan struct{}{}
	}
	t.at[b] = make(chan struct{})
	return nil
}

func (t *turns) end(b int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.at[b])
	delete(t.at, b)
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return text, nil
}
