package pack

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
)

// A Reader is a source of what it has here. It never fetches anything for others,
// and gives no block that it has not just checked.
var _ Source = (*Reader)(nil)

func (r *Reader) String() string { return r.dir }

// Whole implements Source.
func (r *Reader) Whole(_ context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	switch {
	case name == IndexName, name == IDsName && r.ids != nil, name == WeightsName && r.weights != nil:
		text, err := readFile(filepath.Join(r.dir, name), limit)
		if err == nil {
			err = check(text)
		}
		return text, err
	}
	return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// Part implements Source for whole blocks. Where the first of them is not here the
// error is fs.ErrNotExist.
func (r *Reader) Part(_ context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	return r.index.give(name, off, dst, check, func(b int, block []byte) error {
		if err := r.shelf.block(b, block); err != nil {
			return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return nil
	})
}

// give fills dst with blocks, up to the first that is not to be had.
func (x *Index) give(name string, off int64, dst []byte, check func(int) error, block func(b int, dst []byte) error) (n int, err error) {
	lo, hi, err := x.run(name, off, len(dst))
	if err != nil {
		return 0, err
	}
	if lo == hi {
		return 0, fmt.Errorf("%s: offset %d: %d bytes are less than the block there", name, off, len(dst))
	}
	for b := lo; b < hi; b++ {
		size := x.blockBytes(b)
		if err := block(b, dst[n:n+size]); err != nil {
			if b == lo {
				return 0, err
			}
			break
		}
		n += size
	}
	return n, check(n)
}
