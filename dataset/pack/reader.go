package pack

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Reader reads the records of a pack in any order, from any number of
// goroutines. It allocates nothing once each block has been touched.
type Reader struct {
	index  *Index
	sum    Sum
	dir    string
	shards []*os.File
	ids    []uint64                          // nil where they run on by one
	fetch  func(block int, dst []byte) error // where the files are elsewhere; else nil
	cancel context.CancelFunc                // ends fetches; nil where there are none
	seen   []atomic.Uint32                   // a bit for each block whose checksum was right
	locks  [64]sync.Mutex                    // of block b: b mod 64, so that a block is checked once
	blocks sync.Pool                         // *[]byte of a whole block
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
	if err := errors.Join(r.openShards(), r.readIDs(func() ([]byte, error) {
		return readFile(filepath.Join(dir, IDsName), int64(r.index.Records)*idSize)
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
	r := &Reader{index: x, sum: sha256.Sum256(text), dir: dir, seen: make([]atomic.Uint32, len(x.Blocks)/32+1)}
	r.blocks.New = func() any {
		b := make([]byte, x.blockRecords(0)*x.Record) // no other block is longer
		return &b
	}
	return r, nil
}

// openShards opens the files and believes nothing that the index says of them.
func (r *Reader) openShards() error {
	for s := range r.index.shards() {
		f, err := os.Open(filepath.Join(r.dir, shardName(s)))
		if err != nil {
			return err
		}
		r.shards = append(r.shards, f)
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if want := r.index.shardBytes(s); info.Size() != want {
			return fmt.Errorf("%s: %d bytes, want %d", f.Name(), info.Size(), want)
		}
		head := make([]byte, headerSize)
		if _, err := f.ReadAt(head, 0); err != nil {
			return fmt.Errorf("%s: offset 0: %w", f.Name(), err)
		}
		if err := r.index.checkHeader(s, head); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return nil
}

// readIDs takes the file of ids, if there is one.
func (r *Reader) readIDs(read func() ([]byte, error)) error {
	if r.index.IDs == nil {
		return nil
	}
	text, err := read()
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, IDsName)
	if want := r.index.Records * idSize; len(text) != want {
		return fmt.Errorf("%s: %d bytes, want %d", path, len(text), want)
	}
	if got := Sum(sha256.Sum256(text)); got != *r.index.IDs {
		return fmt.Errorf("%s: SHA-256 is %v, want %v", path, got, *r.index.IDs)
	}
	r.ids = make([]uint64, r.index.Records)
	for i := range r.ids {
		r.ids[i] = binary.LittleEndian.Uint64(text[idSize*i:])
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

// RecordLen returns the bytes of a record, its id included.
func (r *Reader) RecordLen() int { return r.index.Record }

// Read fills rec [RecordLen] with record i and returns its payload, a part of
// rec. The error names the file and the block that is damaged.
func (r *Reader) Read(i int, rec []byte) (payload []byte, err error) {
	if i < 0 || i >= r.index.Records || len(rec) != r.index.Record {
		panic(fmt.Sprintf("pack: record %d of %d into %d bytes, want %d", i, r.index.Records, len(rec), r.index.Record))
	}
	b := i / r.index.PerBlock
	if r.checked(b) {
		err = r.readAt(i, rec)
	} else {
		err = r.firstTouch(b, i, rec)
	}
	if err != nil {
		return nil, err
	}
	if got, want := binary.LittleEndian.Uint64(rec), r.ID(i); got != want {
		return nil, fmt.Errorf("%s: record %d carries id %d, want %d by the index", r.dir, i, got, want)
	}
	return rec[idSize:], nil
}

func (r *Reader) checked(b int) bool { return r.seen[b/32].Load()&(1<<(b%32)) != 0 }

// readAt fills dst with the bytes from record i onwards.
func (r *Reader) readAt(i int, dst []byte) error {
	s, off := r.index.place(i)
	n, err := r.shards[s].ReadAt(dst, off)
	if n == len(dst) {
		return nil // io.EOF may come with the last byte
	}
	return fmt.Errorf("%s: offset %d: record %d: %w", r.shards[s].Name(), off, i, err)
}

// firstTouch checks block b and takes record i out of it.
func (r *Reader) firstTouch(b, i int, rec []byte) error {
	lock := &r.locks[b%len(r.locks)]
	lock.Lock()
	defer lock.Unlock()
	if r.checked(b) {
		return r.readAt(i, rec)
	}
	buf := r.blocks.Get().(*[]byte)
	defer r.blocks.Put(buf)
	block := (*buf)[:r.index.blockRecords(b)*r.index.Record]
	if err := r.loadBlock(b, block); err != nil {
		return err
	}
	r.seen[b/32].Or(1 << (b % 32))
	copy(rec, block[(i-b*r.index.PerBlock)*r.index.Record:])
	return nil
}

// loadBlock fills block with block b, from here if it is right here, and else
// from where the pack is.
func (r *Reader) loadBlock(b int, block []byte) error {
	first := b * r.index.PerBlock
	err := r.readAt(first, block)
	if err == nil {
		if Sum(sha256.Sum256(block)) == r.index.Blocks[b] {
			return nil
		}
		s, off := r.index.place(first)
		err = fmt.Errorf("%s: offset %d: block %d (records %d to %d) is damaged: its SHA-256 is not that of the index",
			r.shards[s].Name(), off, b, first, first+r.index.blockRecords(b)-1)
	}
	if r.fetch == nil {
		return err
	}
	return r.fetch(b, block)
}

// Verify checks every block, whatever was checked before. Progress is called
// after each with the bytes done and in all; nil for none.
func (r *Reader) Verify(ctx context.Context, progress func(done, total int64)) error {
	block := make([]byte, r.index.blockRecords(0)*r.index.Record)
	total := int64(r.index.Records) * int64(r.index.Record)
	var done int64
	for b := range r.index.Blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := block[:r.index.blockRecords(b)*r.index.Record]
		if err := r.loadBlock(b, part); err != nil {
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
	if r.cancel != nil {
		r.cancel()
	}
	var errs []error
	for _, f := range r.shards {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
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
