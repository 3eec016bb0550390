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
// tore is found out by its digest at the next use, and fetched again. Of a download
// that breaks off, what has come is kept under a name of its own, and the next one,
// which takes it by another rename, asks for the rest.
type fetcher struct {
	dir      string
	sources  []source      // in the order to ask
	offline  bool          // there are no sources because the user wants none
	keep     int64         // how many bytes of a broken download are worth to go on from
	quiet    time.Duration // for so long nobody has written to what a killed process left
	progress func(Progress)
	log      *slog.Logger
}

// source is a place that may have the files of a data set.
type source interface {
	// String names the source in errors and progress.
	String() string
	// open returns the bytes of a file from an offset on, which nobody has checked
	// yet: from the one asked for, or from 0 where the source can't do that. Reading
	// ends with an error soon after ctx is cancelled.
	open(ctx context.Context, f File, from int64) (body io.ReadCloser, at int64, err error)
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
	f := &fetcher{dir: dir, sources: sources, offline: env.Offline, keep: 1 << 20, quiet: 3 * mirrorStall, progress: env.Progress, log: env.log()}
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
// gives it its name. It goes on from what is left of a broken download; if what
// comes of that is wrong, it starts anew.
func (f *fetcher) store(ctx context.Context, s source, file File) error {
	from := f.left(file)
	err := f.storeFrom(ctx, s, file, from)
	if from > 0 && errors.As(err, new(wrongContent)) {
		f.log.Warn("a download that was gone on with is wrong, and starts anew", "file", file.Name, "error", err)
		err = f.storeFrom(ctx, s, file, 0)
	}
	return err
}

// partial is the path of what is left of a broken download.
func (f *fetcher) partial(file File) string { return filepath.Join(f.dir, "."+file.Name+".partial") }

// adopt takes what a process that was killed has left of a download, if it is more
// than what is left already: a temporary file that nobody has written to for longer
// than any download that lives stands still. Should it live after all, the digest
// tells.
func (f *fetcher) adopt(file File) {
	var most int64
	if info, err := os.Stat(f.partial(file)); err == nil {
		most = info.Size()
	}
	best := ""
	for _, path := range f.temporaries(file.Name) {
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > f.quiet &&
			info.Size() >= f.keep && info.Size() > most && info.Size() < file.Size {
			best, most = path, info.Size()
		}
	}
	if best == "" {
		return
	}
	if err := os.Rename(best, f.partial(file)); ignoreMissing(err) != nil {
		f.log.Warn("what is left of a download can't be gone on with", "error", err)
	}
}

// left returns how many bytes are left of a broken download.
func (f *fetcher) left(file File) int64 {
	f.adopt(file)
	info, err := os.Stat(f.partial(file))
	if err != nil || info.Size() >= file.Size {
		return 0
	}
	return info.Size()
}

// storeFrom is one attempt at store. When it fails, the temporary file is gone, or
// kept as what is left.
func (f *fetcher) storeFrom(ctx context.Context, s source, file File, from int64) (err error) {
	f.progress(Progress{Doing: "fetching", Source: s.String(), File: file.Name, Done: from, Total: file.Size})
	in, from, err := s.open(ctx, file, from)
	if err != nil {
		return err
	}
	defer in.Close() // only read from
	tmp, err := f.temporary(file, from)
	if err != nil {
		return err
	}
	have := from
	defer func() {
		if err != nil {
			err = errors.Join(err, f.drop(tmp.Name(), file, have, err))
		}
	}()
	have, err = f.copy(ctx, tmp, in, s.String(), file, from)
	if err := errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(tmp.Name(), filepath.Join(f.dir, file.Name)), ignoreMissing(os.Remove(f.partial(file))))
}

// temporary makes a file to download into. Where from is above 0, it is what is
// left of a broken download, which only one process gets.
func (f *fetcher) temporary(file File, from int64) (*os.File, error) {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(f.dir, tempPattern(file.Name))
	if err != nil || from == 0 {
		return tmp, err
	}
	taken := os.Rename(f.partial(file), tmp.Name())
	left, err := os.OpenFile(tmp.Name(), os.O_RDWR, 0)
	if err = errors.Join(err, tmp.Close()); err == nil {
		var info fs.FileInfo
		if info, err = left.Stat(); err == nil && info.Size() != from {
			err = wrongContent{fmt.Errorf("%s: somebody else goes on with it", f.partial(file))}
		}
	}
	if taken != nil {
		err = errors.Join(err, wrongContent{taken})
	}
	if err != nil {
		if left != nil {
			err = errors.Join(err, left.Close())
		}
		return nil, errors.Join(err, os.Remove(tmp.Name()))
	}
	return left, nil
}

// drop removes a temporary file, or keeps what may be gone on from.
func (f *fetcher) drop(tmp string, file File, have int64, why error) error {
	if have >= f.keep && !errors.As(why, new(wrongContent)) {
		return os.Rename(tmp, f.partial(file))
	}
	return ignoreMissing(os.Remove(tmp))
}

// copy writes what in holds to tmp, after the bytes that lie there already, and
// checks length and digest. It takes at most one byte more than the file should
// have. have is how many bytes lie in tmp then.
func (f *fetcher) copy(ctx context.Context, tmp io.ReadWriter, in io.Reader, source string, file File, from int64) (have int64, err error) {
	h := sha256.New()
	if _, err := io.CopyN(h, tmp, from); err != nil {
		return 0, err
	}
	report := Progress{Doing: "fetching", Source: source, File: file.Name, Done: from, Total: file.Size}
	in = io.LimitReader(in, file.Size+1-from)
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return report.Done, err
		}
		n, err := in.Read(buf)
		h.Write(buf[:n])
		if _, err := tmp.Write(buf[:n]); err != nil {
			return report.Done, err
		}
		report.Done += int64(n)
		f.progress(report)
		if err == io.EOF {
			return report.Done, file.check(report.Done, h.Sum(nil))
		}
		if err != nil {
			return report.Done, fmt.Errorf("after %d of %d bytes: %w", report.Done, file.Size, err)
		}
	}
}

// wrongContent says that all has come, and that it is not what it should be.
type wrongContent struct{ error }

// check compares what came with what the file should be.
func (f File) check(size int64, sum []byte) error {
	switch got := hex.EncodeToString(sum); {
	case size > f.Size:
		return wrongContent{fmt.Errorf("more than %d bytes", f.Size)}
	case size < f.Size:
		return wrongContent{fmt.Errorf("%d bytes, want %d", size, f.Size)}
	case got != f.SHA256:
		return wrongContent{fmt.Errorf("SHA-256 is %s, want %s", got, f.SHA256)}
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

// temporaries returns the temporary files of downloads of a file, or of all where
// name is "". A directory that can't be read has none.
func (f *fetcher) temporaries(name string) []string {
	begin := "."
	if name != "" {
		begin = "." + name + "."
	}
	files, err := os.ReadDir(f.dir)
	if ignoreMissing(err) != nil {
		f.log.Warn("what is left of downloads can't be looked for", "error", err)
	}
	var paths []string
	for _, d := range files {
		if strings.HasPrefix(d.Name(), begin) && strings.HasSuffix(d.Name(), ".part") {
			paths = append(paths, filepath.Join(f.dir, d.Name()))
		}
	}
	return paths
}

// tempLife is far more than any download takes.
const tempLife = 24 * time.Hour

// sweep removes temporary files that a killed process left behind long ago. It
// is a courtesy: what it can't remove does no harm and is only logged.
func (f *fetcher) sweep() {
	for _, path := range f.temporaries("") {
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
