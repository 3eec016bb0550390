package pack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Source is a place that has the files of a pack, or some of them. What it gives
// is checked, so it need not be trusted: one that is made of several places asks
// the next where the check fails.
type Source interface {
	// String names the source in errors.
	String() string
	// Whole returns a file of at most limit bytes that passes check. Where there is
	// none, the error is fs.ErrNotExist.
	Whole(ctx context.Context, name string, limit int64, check func(text []byte) error) ([]byte, error)
	// Part fills dst with the bytes of a file from off onwards and returns how many
	// there are of them, which pass check; a source that has not all may give less.
	Part(ctx context.Context, name string, off int64, dst []byte, check func(n int) error) (n int, err error)
}

// Sub is the source of the files in a directory of src.
func Sub(src Source, dir string) Source { return &sub{src, dir} }

type sub struct {
	src Source
	dir string
}

func (s *sub) String() string { return s.src.String() + "/" + s.dir }

func (s *sub) Whole(ctx context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	return s.src.Whole(ctx, s.dir+"/"+name, limit, check)
}

func (s *sub) Part(ctx context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	return s.src.Part(ctx, s.dir+"/"+name, off, dst, check)
}

// Keep says where, and how much of, what comes from elsewhere is kept.
type Keep struct {
	// Dir is made if it isn't there. Several processes may share it if all is kept.
	Dir string
	// Bytes is how much of the records is kept, at most, beside the index; 0 is all,
	// in the layout of a pack, so that once everything has been read it is one.
	Bytes int64
	// Warn is told that something could not be kept. Reading goes on. With nil it
	// is an error of the read.
	Warn func(error)
}

// slotsName is the file of a bounded number of blocks.
const slotsName = "blocks"

// feed is where a reader has blocks from that are not here.
type feed struct {
	src  Source
	life context.Context // ends with Close
	stop context.CancelFunc
	warn func(error)
	runs sync.Pool // *[]byte of runBytes, or one block
}

// OpenFrom opens a pack that lies in src and whose index has the digest want.
// What is read is kept.
func OpenFrom(ctx context.Context, src Source, want Sum, keep Keep) (*Reader, error) {
	if err := os.MkdirAll(keep.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	text, err := kept(ctx, src, keep.Dir, IndexName, want, maxIndexBytes)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	r, err := newReader(keep.Dir, text)
	if err != nil {
		return nil, err
	}
	r.feedFrom(ctx, src, keep)
	err = r.readColumns(func(name string, want Sum, limit int64) ([]byte, error) {
		return kept(ctx, src, keep.Dir, name, want, limit)
	})
	if err = errors.Join(err, r.makeShelf(keep)); err != nil {
		return nil, errors.Join(fmt.Errorf("pack: %w", err), r.Close())
	}
	return r, nil
}

// feedFrom has blocks fetched from src as long as the reader is open.
func (r *Reader) feedFrom(ctx context.Context, src Source, keep Keep) {
	r.from = &feed{src: src, warn: keep.Warn}
	r.from.life, r.from.stop = context.WithCancel(context.WithoutCancel(ctx))
	size := max(runBytes, r.index.blockBytes(0))
	r.from.runs.New = func() any {
		b := make([]byte, size)
		return &b
	}
}

func (r *Reader) makeShelf(keep Keep) error {
	if keep.Bytes == 0 {
		files := newShards(r)
		r.shelf = files
		return files.create()
	}
	s, err := openSlots(filepath.Join(keep.Dir, slotsName), r.index, keep.Bytes)
	if err == nil {
		r.shelf = s
	}
	return err
}

// kept returns a small file from dir, or else from src, and then keeps it.
func kept(ctx context.Context, src Source, dir, name string, want Sum, limit int64) ([]byte, error) {
	path := filepath.Join(dir, name)
	if text, err := readFile(path, limit); err == nil && Sum(sha256.Sum256(text)) == want {
		return text, nil
	}
	text, err := src.Whole(ctx, name, limit, func(text []byte) error {
		if got := Sum(sha256.Sum256(text)); got != want {
			return fmt.Errorf("SHA-256 is %v, want %v", got, want)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%v: %s: %w", src, name, err)
	}
	return text, ReplaceFile(path, text)
}

// ReplaceFile writes a small file and gives it its name when it is whole.
func ReplaceFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// runBytes is how much is fetched at once, where blocks that lie side by side are
// all needed sooner or later: a request costs as much as some tens of kilobytes.
const runBytes = 1 << 20

// fetch fills block with block b from elsewhere, and keeps it. Where there is room
// for what comes after it, that is taken along.
func (r *Reader) fetch(ctx context.Context, b int, block []byte) error {
	f := r.from
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(f.life, func() { cancel(context.Cause(f.life)) })()
	buf := f.runs.Get().(*[]byte)
	defer f.runs.Put(buf)
	s, off := r.index.place(b * r.index.PerBlock)
	dst := (*buf)[:r.runLength(b)]
	n, err := f.src.Part(ctx, shardName(s), off, dst, func(n int) error {
		if n < len(block) {
			return fmt.Errorf("%d of %d bytes", n, len(block))
		}
		return r.index.check(b, dst[:len(block)])
	})
	if err != nil {
		if !errors.As(err, new(*damagedError)) {
			err = fmt.Errorf("block %d: %w", b, err)
		}
		return fmt.Errorf("%v: %s: offset %d: %w", f.src, shardName(s), off, err)
	}
	copy(block, dst)
	if err = r.shelf.keep(b, block); err == nil {
		err = r.keepRest(b, dst[:n])
	}
	if err != nil && f.warn != nil {
		f.warn(err)
		return nil
	}
	return err
}

// runLength returns how many bytes to fetch from block b on.
func (r *Reader) runLength(b int) int {
	n := r.index.blockBytes(b)
	for next := b + 1; next < r.index.blockEnd(b) && n+r.index.blockBytes(next) <= runBytes && r.shelf.lacks(next); next++ {
		n += r.index.blockBytes(next)
	}
	return n
}

// keepRest keeps what came with block b, as far as it is right.
func (r *Reader) keepRest(b int, run []byte) error {
	for len(run) > r.index.blockBytes(b) {
		run = run[r.index.blockBytes(b):]
		b++
		n := r.index.blockBytes(b)
		if n > len(run) || r.index.check(b, run[:n]) != nil {
			return nil // whoever needs it will hear of it
		}
		if err := r.shelf.keep(b, run[:n]); err != nil {
			return err
		}
	}
	return nil
}

// HTTP is a Source behind a web server that knows range requests.
type HTTP struct {
	Base    string        // URL of the directory
	Client  *http.Client  // nil is http.DefaultClient
	Timeout time.Duration // for one attempt at one block; 0 is a minute
	Retry   time.Duration // pause before the second attempt, doubled for each further one; 0 is 200 ms
}

// attempts is how often a request is made before its error is believed.
const attempts = 4

// finalError is an answer that asking again does not change.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func final(err error) error {
	if err == nil {
		return nil
	}
	return finalError{err}
}

func (h *HTTP) String() string { return strings.TrimSuffix(h.Base, "/") }

// Whole gets a file.
func (h *HTTP) Whole(ctx context.Context, name string, limit int64, check func([]byte) error) (text []byte, err error) {
	err = h.try(ctx, name, "", func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the server answered %s, want 200 OK", resp.Status)
		}
		text, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err == nil && int64(len(text)) > limit {
			return finalError{fmt.Errorf("more than %d bytes", limit)}
		}
		if err == nil {
			err = final(check(text))
		}
		return err
	})
	return text, err
}

// Part gets a range of a file.
func (h *HTTP) Part(ctx context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	last := off + int64(len(dst)) - 1
	return len(dst), h.try(ctx, name, fmt.Sprintf("bytes=%d-%d", off, last), func(resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			return finalError{errors.New("the server answered with the whole file, want one that knows range requests")}
		}
		if resp.StatusCode != http.StatusPartialContent {
			return fmt.Errorf("the server answered %s, want 206 Partial Content", resp.Status)
		}
		n, err := io.ReadFull(resp.Body, dst)
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", n, len(dst), err)
		}
		return final(check(n))
	})
}

// try makes a request until its answer can be used.
func (h *HTTP) try(ctx context.Context, name, span string, use func(*http.Response) error) error {
	pause := h.Retry
	if pause == 0 {
		pause = 200 * time.Millisecond
	}
	for n := 1; ; n++ {
		err := h.once(ctx, name, span, use)
		if err == nil || ctx.Err() != nil || n == attempts || errors.As(err, new(finalError)) {
			return err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
		pause *= 2
	}
}

func (h *HTTP) once(ctx context.Context, name, span string, use func(*http.Response) error) error {
	limit, client := h.Timeout, h.Client
	if limit == 0 {
		limit = time.Minute
	}
	if client == nil {
		client = http.DefaultClient
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.String()+"/"+name, nil)
	if err != nil {
		return finalError{err}
	}
	req.Header.Set("Accept-Encoding", "identity") // offsets count the bytes as they lie there
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // only read from
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
		return finalError{fmt.Errorf("the server answered %s: %w", resp.Status, os.ErrNotExist)}
	}
	if resp.StatusCode/100 == 4 && resp.StatusCode != http.StatusTooManyRequests {
		return finalError{fmt.Errorf("the server answered %s", resp.Status)}
	}
	return use(resp)
}
