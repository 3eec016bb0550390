package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// fetcher brings the files of one data set into one directory.
//
// A file appears there by rename, under its name only once its digest is right,
// so readers never see half of it and processes that fetch at once replace a
// file by an equal one. There is no lock and no fsync: a file that a power cut
// tore is found out by its digest at the next use, and fetched again.
type fetcher struct {
	dir      string
	sources  []source // in the order to ask
	offline  bool     // there are no sources because the user wants none
	progress func(Progress)
	log      *slog.Logger
}

// source is a place that may have the files of a data set.
type source interface {
	// String names the source in errors and progress.
	String() string
	// open returns the bytes of a file, which nobody has checked yet. Reading ends
	// with an error soon after ctx is cancelled.
	open(ctx context.Context, f File) (io.ReadCloser, error)
	// close lets go of what open kept for the next file.
	close()
}

// get is Get for one entry.
func (e Entry) get(ctx context.Context, env Env) (dir string, err error) {
	cache, err := env.cache()
	if err != nil {
		return "", err
	}
	f := newFetcher(filepath.Join(cache, e.Name), e.sources(env), env)
	return f.dir, f.run(ctx, e.Files)
}

func newFetcher(dir string, sources []source, env Env) *fetcher {
	f := &fetcher{dir: dir, sources: sources, offline: env.Offline, progress: env.Progress, log: env.log()}
	if f.progress == nil {
		f.progress = func(Progress) {}
	}
	return f
}

// sources returns where env allows to ask for the files of e.
func (e Entry) sources(env Env) []source {
	if env.Offline {
		return nil
	}
	mirrors := e.Mirrors
	if env.Mirrors != nil {
		mirrors = env.Mirrors
	}
	var sources []source
	if e.Module.Path != "" {
		sources = append(sources, &moduleSource{module: e.Module, limit: moduleLimit})
	}
	for _, base := range mirrors {
		sources = append(sources, newMirrorSource(base, mirrorStall))
	}
	return sources
}

// run returns once every file lies in the directory and is verified.
func (f *fetcher) run(ctx context.Context, files []File) error {
	defer func() {
		for _, s := range f.sources {
			s.close()
		}
	}()
	swept := false
	for _, file := range files {
		cached := file.verify(filepath.Join(f.dir, file.Name))
		if cached == nil {
			continue
		}
		if !errors.Is(cached, fs.ErrNotExist) {
			f.log.Warn("a cached file is damaged and is fetched again", "error", cached)
		}
		if !swept {
			f.sweep()
			swept = true
		}
		if err := f.fetch(ctx, file, cached); err != nil {
			return err
		}
	}
	return nil
}

// fetch asks one source after another. The one that had the file is asked first
// for the next, so that a dead source costs its time-out once.
func (f *fetcher) fetch(ctx context.Context, file File, cached error) error {
	missing := &unavailableError{file: file.Name}
	missing.add("cache", cached)
	if f.offline {
		missing.add("go module and mirrors", errors.New("not asked, as we are told to stay offline"))
	}
	for i, s := range f.sources {
		err := f.store(ctx, s, file)
		if err == nil {
			f.log.Info("fetched", "file", file.Name, "bytes", file.Size, "source", s.String())
			f.sources[0], f.sources[i] = f.sources[i], f.sources[0]
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("fetching %s from %s: %w", file.Name, s, context.Cause(ctx))
		}
		f.log.Warn("a source failed", "file", file.Name, "source", s.String(), "error", err)
		missing.add(s.String(), err)
	}
	return missing
}

// store copies a file from s into a temporary name, checks it on the way, and
// gives it its name. Whatever fails, the temporary file is gone.
func (f *fetcher) store(ctx context.Context, s source, file File) (err error) {
	f.progress(Progress{Doing: "fetching", Source: s.String(), File: file.Name, Total: file.Size})
	in, err := s.open(ctx, file)
	if err != nil {
		return err
	}
	defer in.Close() // only read from
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.dir, tempPattern(file.Name))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(tmp.Name())))
		}
	}()
	if err := errors.Join(f.copy(ctx, tmp, in, s.String(), file), tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(f.dir, file.Name))
}

// copy writes what in holds to tmp and checks its length and digest. It takes at
// most one byte more than the file should have.
func (f *fetcher) copy(ctx context.Context, tmp io.Writer, in io.Reader, from string, file File) error {
	h := sha256.New()
	report := Progress{Doing: "fetching", Source: from, File: file.Name, Total: file.Size}
	in = io.LimitReader(in, file.Size+1)
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := in.Read(buf)
		h.Write(buf[:n])
		if _, err := tmp.Write(buf[:n]); err != nil {
			return err
		}
		report.Done += int64(n)
		f.progress(report)
		if err == io.EOF {
			return file.check(report.Done, h.Sum(nil))
		}
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", report.Done, file.Size, err)
		}
	}
}

// check compares what came with what the file should be.
func (f File) check(size int64, sum []byte) error {
	switch got := hex.EncodeToString(sum); {
	case size > f.Size:
		return fmt.Errorf("more than %d bytes", f.Size)
	case size < f.Size:
		return fmt.Errorf("%d bytes, want %d", size, f.Size)
	case got != f.SHA256:
		return fmt.Errorf("SHA-256 is %s, want %s", got, f.SHA256)
	}
	return nil
}

// verify checks the file at path; the error carries the path.
func (f File) verify(path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close() // only read from
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(in, f.Size+1))
	if err == nil {
		err = f.check(n, h.Sum(nil))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Temporary files of downloads are called .NAME.RANDOM.part.
func tempPattern(name string) string { return "." + name + ".*.part" }

// tempLife is far more than any download takes.
const tempLife = 24 * time.Hour

// sweep removes temporary files that a killed process left behind long ago. It
// is a courtesy: what it can't remove does no harm and is only logged.
func (f *fetcher) sweep() {
	left, err := filepath.Glob(filepath.Join(f.dir, tempPattern("*")))
	if err != nil {
		panic("dataset: bad pattern: " + err.Error())
	}
	for _, path := range left {
		info, err := os.Stat(path)
		if err == nil && time.Since(info.ModTime()) > tempLife {
			err = os.Remove(path)
		}
		if ignoreMissing(err) != nil {
			f.log.Warn("an old temporary file stays", "error", err)
		}
	}
}

// ignoreMissing is err unless someone else was quicker to remove the file.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// unavailableError tells every source that was tried for a file, and why it
// failed, one per line.
type unavailableError struct {
	file  string
	names []string
	why   []error
}

func (e *unavailableError) add(source string, err error) {
	e.names = append(e.names, source)
	e.why = append(e.why, err)
}

func (e *unavailableError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s could not be had from any source:", e.file)
	for i, name := range e.names {
		fmt.Fprintf(&b, "\n  %s: %v", name, e.why[i])
	}
	return b.String()
}

// Unwrap lets errors.Is find the causes.
func (e *unavailableError) Unwrap() []error { return e.why }
