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
	"time"
)

// Source is a place that has the files of a pack. What it gives is checked, so
// it need not be trusted.
type Source interface {
	// String names the source in errors.
	String() string
	// Whole returns a file of at most limit bytes. Where there is none, the error
	// is fs.ErrNotExist.
	Whole(ctx context.Context, name string, limit int64) ([]byte, error)
	// Part fills dst with the bytes of a file from off onwards.
	Part(ctx context.Context, name string, off int64, dst []byte) error
}

// OpenFrom opens a pack that lies in src and whose index has the digest want.
// What is read is kept in dir, in the layout of a pack: several processes may
// share it, and once everything has been read it is one.
func OpenFrom(ctx context.Context, src Source, want Sum, dir string) (*Reader, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	text, err := keep(ctx, src, dir, IndexName, want, maxIndexBytes)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	r, err := newReader(dir, text)
	if err != nil {
		return nil, err
	}
	// Fetches are started by Read, which knows no context: they end with Close.
	var life context.Context
	life, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.fetch = func(b int, dst []byte) error { return r.fetchBlock(life, src, b, dst) }
	if err := errors.Join(r.makeShards(), r.readIDs(func() ([]byte, error) {
		return keep(ctx, src, dir, IDsName, *r.index.IDs, int64(r.index.Records)*idSize)
	})); err != nil {
		return nil, errors.Join(fmt.Errorf("pack: %w", err), r.Close())
	}
	return r, nil
}

// keep returns a small file from dir, or else from src, and then keeps it.
func keep(ctx context.Context, src Source, dir, name string, want Sum, limit int64) ([]byte, error) {
	path := filepath.Join(dir, name)
	if text, err := readFile(path, limit); err == nil && Sum(sha256.Sum256(text)) == want {
		return text, nil
	}
	text, err := src.Whole(ctx, name, limit)
	if err != nil {
		return nil, fmt.Errorf("%v: %s: %w", src, name, err)
	}
	if got := Sum(sha256.Sum256(text)); got != want {
		return nil, fmt.Errorf("%v: %s: SHA-256 is %v, want %v", src, name, got, want)
	}
	return text, replaceFile(path, text)
}

// replaceFile gives a file its name when it is whole.
func replaceFile(path string, text []byte) error {
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

// makeShards opens shards to be filled. A new one is all holes.
func (r *Reader) makeShards() error {
	for s := range r.index.shards() {
		f, err := os.OpenFile(filepath.Join(r.dir, shardName(s)), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		r.shards = append(r.shards, f)
		if _, err := f.WriteAt(r.index.header(s), 0); err != nil {
			return err
		}
		if err := f.Truncate(r.index.shardBytes(s)); err != nil {
			return err
		}
	}
	return nil
}

// fetchBlock takes block b from src and keeps it.
func (r *Reader) fetchBlock(ctx context.Context, src Source, b int, dst []byte) error {
	s, off := r.index.place(b * r.index.PerBlock)
	if err := src.Part(ctx, shardName(s), off, dst); err != nil {
		return fmt.Errorf("%v: %s: offset %d: block %d: %w", src, shardName(s), off, b, err)
	}
	if Sum(sha256.Sum256(dst)) != r.index.Blocks[b] {
		return fmt.Errorf("%v: %s: offset %d: block %d is damaged: its SHA-256 is not that of the index", src, shardName(s), off, b)
	}
	_, err := r.shards[s].WriteAt(dst, off)
	return err
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

func (h *HTTP) String() string { return strings.TrimSuffix(h.Base, "/") }

// Whole gets a file.
func (h *HTTP) Whole(ctx context.Context, name string, limit int64) (text []byte, err error) {
	err = h.try(ctx, name, "", func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the server answered %s, want 200 OK", resp.Status)
		}
		text, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err == nil && int64(len(text)) > limit {
			return finalError{fmt.Errorf("more than %d bytes", limit)}
		}
		return err
	})
	return text, err
}

// Part gets a range of a file.
func (h *HTTP) Part(ctx context.Context, name string, off int64, dst []byte) error {
	last := off + int64(len(dst)) - 1
	return h.try(ctx, name, fmt.Sprintf("bytes=%d-%d", off, last), func(resp *http.Response) error {
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
		return nil
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
