package checkpoint

import (
	"io"
	"sync/atomic"
)

// Watch returns fsys, and a number that grows with each operation on it that comes to
// its end, and with each piece of a file. An operation of a system can't be
// interrupted, and a disk behind a network may take any time: who waits for one
// can only look whether anything moves.
func Watch(fsys FS) (FS, *atomic.Uint64) {
	w := &watchedFS{fs: fsys}
	return w, &w.moves
}

// watchPiece is how much of a file is written or read between two signs of life, in bytes.
const watchPiece = 1 << 20

type watchedFS struct {
	fs    FS
	moves atomic.Uint64
}

func (w *watchedFS) moved() { w.moves.Add(1) }

func (w *watchedFS) Mkdir(path string) error {
	defer w.moved()
	return w.fs.Mkdir(path)
}

func (w *watchedFS) MkdirTemp(parent, prefix string) (string, io.Closer, error) {
	defer w.moved()
	return w.fs.MkdirTemp(parent, prefix)
}

func (w *watchedFS) Abandoned(path string) (bool, error) {
	defer w.moved()
	return w.fs.Abandoned(path)
}

func (w *watchedFS) Create(path string) (File, error) {
	defer w.moved()
	f, err := w.fs.Create(path)
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, w}, nil
}

func (w *watchedFS) Open(path string) (io.ReadCloser, int64, error) {
	defer w.moved()
	r, size, err := w.fs.Open(path)
	if err != nil {
		return nil, 0, err
	}
	return &watchedReader{r, w}, size, nil
}

func (w *watchedFS) Rename(from, to string) error {
	defer w.moved()
	return w.fs.Rename(from, to)
}

func (w *watchedFS) SyncDir(path string) error {
	defer w.moved()
	return w.fs.SyncDir(path)
}

func (w *watchedFS) ReadDir(path string) ([]string, error) {
	defer w.moved()
	return w.fs.ReadDir(path)
}

func (w *watchedFS) RemoveAll(path string) error {
	defer w.moved()
	return w.fs.RemoveAll(path)
}

type watchedFile struct {
	File
	w *watchedFS
}

func (f *watchedFile) Write(b []byte) (n int, err error) {
	for first := true; err == nil && (first || n < len(b)); first = false {
		var k int
		k, err = f.File.Write(b[n:min(len(b), n+watchPiece)])
		n += k
		f.w.moved()
	}
	return n, err
}

func (f *watchedFile) Sync() error {
	defer f.w.moved()
	return f.File.Sync()
}

func (f *watchedFile) Close() error {
	defer f.w.moved()
	return f.File.Close()
}

type watchedReader struct {
	io.ReadCloser
	w *watchedFS
}

func (r *watchedReader) Read(b []byte) (int, error) {
	defer r.w.moved()
	return r.ReadCloser.Read(b[:min(len(b), watchPiece)])
}
