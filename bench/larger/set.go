package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dlnode/dlnode/dataset"
)

// side is that of an image, as in the case study.
const side = 150

// set is a packed data set of random images.
type set struct {
	name   string
	bytes  int64 // about
	images int
	dir    string
}

// make writes the images as arrays of NumPy and lets the product pack them.
func (s *set) make(ctx context.Context, work string) error {
	s.images = int(s.bytes / (3 * side * side))
	raw, cache := filepath.Join(work, "raw"), filepath.Join(work, "cache")
	if err := os.Mkdir(raw, 0o755); err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{1})
	pixels := make([]byte, 3*side*side)
	if err := writeArray(filepath.Join(raw, "x.npy"), fmt.Sprintf("%d, %d, %d, 3", s.images, side, side), s.images, func() []byte {
		noise.Read(pixels) // never fails
		return pixels
	}); err != nil {
		return err
	}
	label := []byte{0}
	if err := writeArray(filepath.Join(raw, "y.npy"), fmt.Sprintf("%d,", s.images), s.images, func() []byte {
		label[0] ^= 1
		return label
	}); err != nil {
		return err
	}
	spec := &dataset.NPZ{Path: raw, X: "x", Y: "y", Classes: 2, Scale: 255}
	if err := dataset.Prepare(ctx, spec, dataset.Env{CacheDir: cache}); err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(cache, "decoded", "npz-*"))
	if err != nil || len(made) != 1 {
		return errors.Join(fmt.Errorf("%s: %d decoded sets, want 1", cache, len(made)), err)
	}
	s.dir = filepath.Join(work, s.name)
	return errors.Join(os.Rename(made[0], s.dir), os.RemoveAll(raw), os.RemoveAll(cache))
}

// writeArray writes an .npy of n records of bytes.
func writeArray(path, shape string, n int, record func() []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	head := fmt.Sprintf("{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }", shape)
	head += strings.Repeat(" ", 63-(10+len(head))%64) + "\n"
	fmt.Fprintf(w, "\x93NUMPY\x01\x00%c%c%s", len(head)&255, len(head)>>8, head) // errors stay until Flush
	for range n {
		w.Write(record())
	}
	return errors.Join(w.Flush(), f.Close())
}

// forget drops the files from the page cache.
func (s set) forget() error {
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}
