package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dlnode/dlnode/dataset/archive"
)

// ownName is the file in the cache that tells of an archive which the user had.
const ownName = "own.json"

// Adopt is Get from a file, or from a directory of files, that the user has
// already; it is copied into the cache. A file must be one of the data set's, by
// its digest. Where Entry.Own, any archive will do that holds the same classes: it
// is then the data set of that name until another one is fetched or adopted.
func Adopt(ctx context.Context, name, from string, env Env) (dir string, err error) {
	e, err := lookup(name)
	if err != nil {
		return "", err
	}
	if dir, err = e.adopt(ctx, from, env); err != nil {
		return "", fmt.Errorf("dataset %s: %w", name, err)
	}
	return dir, nil
}

func (e Entry) adopt(ctx context.Context, from string, env Env) (dir string, err error) {
	cache, err := env.cache()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(from)
	if err != nil {
		return "", err
	}
	src := &localSource{dir: from}
	if !info.IsDir() {
		src = &localSource{file: from}
	}
	f := newFetcher(filepath.Join(cache, e.Name), []source{src}, env)
	if info.IsDir() || !e.Own {
		return f.dir, f.run(ctx, e.pick(src))
	}
	own, err := e.measure(ctx, from, cache)
	if err != nil {
		return "", err
	}
	if own.SHA256 == e.Files[0].SHA256 { // the published one
		err := f.run(ctx, e.Files)
		return f.dir, errors.Join(err, ignoreMissing(os.Remove(filepath.Join(f.dir, ownName))))
	}
	if err := f.run(ctx, []File{own}); err != nil {
		return "", err
	}
	text, err := json.Marshal(own)
	if err != nil {
		return "", err
	}
	return f.dir, writeSynced(filepath.Join(f.dir, ownName), append(text, '\n'))
}

// pick returns the files that a single file may stand for: those of its length, or
// else all, so that the error tells what is wanted.
func (e Entry) pick(src *localSource) []File {
	info, err := os.Stat(src.file)
	if src.file == "" || err != nil {
		return e.Files
	}
	for _, f := range e.Files {
		if f.Size == info.Size() {
			return []File{f}
		}
	}
	return e.Files
}

// measure checks that an archive has the classes of the data set, and describes it.
func (e Entry) measure(ctx context.Context, from, cache string) (f File, err error) {
	src, err := archive.Open(from)
	if err != nil {
		return f, err
	}
	defer src.Close() // only read from
	files, err := src.List(ctx, filepath.Join(cache, "decoded"))
	if err != nil {
		return f, err
	}
	defer files.Close() // only read from
	folder, extensions := Folder{}, imageExtensions
	if e.Name == "imdb" {
		folder.Classes, extensions = e.ClassNames, []string{".txt"}
	}
	t, err := folder.tree(files, extensions)
	if err != nil {
		return f, err
	}
	if len(t.classes) != len(e.ClassNames) {
		return f, fmt.Errorf("%s: classes %q, want %d", from, t.classes, len(e.ClassNames))
	}
	sum, err := src.Digest(ctx)
	if err != nil {
		return f, err
	}
	info, err := os.Stat(from)
	if err != nil {
		return f, err
	}
	return File{"own-" + filepath.Base(from), info.Size(), hex.EncodeToString(sum[:])}, nil
}

// Adopted describes the archive of the user's that is the data set for now, if
// there is one.
func (e Entry) Adopted(cacheDir string) (f File, there bool) {
	f, there, err := e.own(cacheDir)
	return f, there && err == nil
}

// own returns the user's archive in the cache, if there is one.
func (e Entry) own(cache string) (f File, there bool, err error) {
	path := filepath.Join(cache, e.Name, ownName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || !e.Own {
		return f, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err == nil && (f.Name == "" || filepath.Base(f.Name) != f.Name || len(f.SHA256) != 2*sha256.Size || f.Size < 0) {
		err = fmt.Errorf("%q of %d bytes is no file of the cache", f.Name, f.Size)
	}
	if err != nil {
		return f, false, fmt.Errorf("%s: %w", path, err)
	}
	return f, true, nil
}

// archive returns where the archive of an entry lies: at path if that is given,
// else in the cache, fetched if need be.
func (e Entry) archive(ctx context.Context, env Env, path string) (string, error) {
	if path != "" {
		return path, nil
	}
	cache, err := env.cache()
	if err != nil {
		return "", err
	}
	own, there, err := e.own(cache)
	if err != nil {
		return "", err
	}
	at := filepath.Join(cache, e.Name, own.Name)
	if !there {
		var dir string
		if dir, err = e.get(ctx, env); err != nil {
			return "", err
		}
		at = filepath.Join(dir, e.Files[0].Name)
	} else if err := own.verify(at); err != nil {
		return "", err
	}
	return filepath.Abs(at) // relative paths of a spec start elsewhere
}

// localSource takes files that the user has: one file, whatever it is called, or
// those of a directory.
type localSource struct{ dir, file string }

func (l *localSource) String() string {
	if l.file != "" {
		return l.file
	}
	return l.dir
}

func (l *localSource) open(_ context.Context, f File, _ int64) (io.ReadCloser, int64, error) {
	path := l.file
	if path == "" {
		path = filepath.Join(l.dir, f.Name)
	}
	in, err := os.Open(path)
	return in, 0, err
}

func (l *localSource) close() {}
