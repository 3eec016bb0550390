package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
)

// shards is the shelf that holds all blocks, in the files of a pack. Where these
// are filled from elsewhere, what has not come is a hole.
type shards struct {
	r     *Reader
	index *Index
	files []*os.File
	seen  []atomic.Uint32 // a bit for each block whose checksum was right
}

func newShards(r *Reader) *shards {
	return &shards{r: r, index: r.index, seen: make([]atomic.Uint32, len(r.index.Blocks)/32+1)}
}

// open opens the files and believes nothing that the index says of them.
func (s *shards) open() error {
	for n := range s.index.shards() {
		f, err := os.Open(filepath.Join(s.r.dir, shardName(n)))
		if err != nil {
			return err
		}
		s.files = append(s.files, f)
		atRandom(f)
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if want := s.index.shardBytes(n); info.Size() != want {
			return fmt.Errorf("%s: %d bytes, want %d", f.Name(), info.Size(), want)
		}
		head := make([]byte, headerSize)
		if _, err := f.ReadAt(head, 0); err != nil {
			return fmt.Errorf("%s: offset 0: %w", f.Name(), err)
		}
		if err := s.index.checkHeader(n, head); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
	return nil
}

// create opens files to be filled. A new one is all holes.
func (s *shards) create() error {
	for n := range s.index.shards() {
		f, err := os.OpenFile(filepath.Join(s.r.dir, shardName(n)), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		s.files = append(s.files, f)
		atRandom(f)
		if _, err := f.WriteAt(s.index.header(n), 0); err != nil {
			return err
		}
		if err := f.Truncate(s.index.shardBytes(n)); err != nil {
			return err
		}
	}
	return nil
}

func (s *shards) checked(b int) bool { return s.seen[b/32].Load()&(1<<(b%32)) != 0 }

func (s *shards) mark(b int) { s.seen[b/32].Or(1 << (b % 32)) }

// readAt fills dst with the bytes from record i onwards.
func (s *shards) readAt(i int, dst []byte) error {
	n, off := s.index.place(i)
	got, err := s.files[n].ReadAt(dst, off)
	if got == len(dst) {
		return nil // io.EOF may come with the last byte
	}
	return fmt.Errorf("%s: offset %d: record %d: %w", s.files[n].Name(), off, i, err)
}

func (s *shards) record(i int, rec []byte) (here bool, err error) {
	if !s.checked(i / s.index.PerBlock) {
		return false, nil
	}
	return true, s.readAt(i, rec)
}

func (s *shards) block(b int, dst []byte) error {
	first := b * s.index.PerBlock
	if err := s.readAt(first, dst); err != nil {
		return err
	}
	if s.index.check(b, dst) != nil {
		n, off := s.index.place(first)
		return fmt.Errorf("%s: offset %d: block %d (records %d to %d) is damaged: its SHA-256 is not that of the index",
			s.files[n].Name(), off, b, first, first+s.index.blockRecords(b)-1)
	}
	s.mark(b)
	return nil
}

// lacks looks for the id that a block begins with, which a hole has not.
func (s *shards) lacks(b int) bool {
	if s.checked(b) {
		return false
	}
	var id [idSize]byte
	first := b * s.index.PerBlock
	return s.readAt(first, id[:]) != nil || binary.LittleEndian.Uint64(id[:]) != s.r.ID(first)
}

func (s *shards) keep(b int, block []byte) error {
	n, off := s.index.place(b * s.index.PerBlock)
	if _, err := s.files[n].WriteAt(block, off); err != nil {
		return err
	}
	s.mark(b)
	return nil
}

func (s *shards) prefetch(i int) {
	first, length := i, int64(s.index.Record)
	if b := i / s.index.PerBlock; !s.checked(b) { // all of it is read then
		first, length = b*s.index.PerBlock, int64(s.index.blockBytes(b))
	}
	n, off := s.index.place(first)
	willNeed(s.files[n], off, length)
}

func (s *shards) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
