package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Entry is a data set that Get can fetch.
type Entry struct {
	Name       string
	Title      string // one line for people
	ClassNames []string
	Files      []File
	Module     Module   // a Go module that carries the files; the zero value is none
	Mirrors    []string // base URLs of the files
	Own        bool     // it is one archive, and another one with the same folders will do
}

// File is one file of an Entry. Its digest is checked whatever the source.
type File struct {
	Name   string
	Size   int64
	SHA256 string // lower-case hex
}

// Module is a version of a Go module that carries files of a data set in Dir.
type Module struct {
	Path, Version string
	Dir           string // within the module, slash-separated
}

// Bytes returns the size of all files.
func (e Entry) Bytes() int64 {
	var n int64
	for _, f := range e.Files {
		n += f.Size
	}
	return n
}

// Cached reports whether every file lies in the cache with its proper content.
func (e Entry) Cached(cacheDir string) bool {
	if own, there, err := e.own(cacheDir); there && err == nil {
		return own.verify(filepath.Join(cacheDir, e.Name, own.Name)) == nil
	}
	for _, f := range e.Files {
		if f.verify(filepath.Join(cacheDir, e.Name, f.Name)) != nil {
			return false
		}
	}
	return true
}

// List returns the data sets that Get can fetch.
func List() []Entry {
	return []Entry{mnist(), fashionMNIST(), cifar10(), cifar100(), imdb(), catsVsDogs()}
}

// Get makes sure that the files of the data set called name lie in the cache,
// whole and verified, and returns their directory. It asks, in this order, the
// cache, the Go module (where a go command is on the PATH) and the mirrors. Any
// number of processes may Get the same data set at once. If no source can give a
// file, the error tells each source tried and why it failed, and whatever was
// half downloaded is gone, or kept to be gone on with.
func Get(ctx context.Context, name string, env Env) (dir string, err error) {
	e, err := lookup(name)
	if err != nil {
		return "", err
	}
	if dir, err = e.archiveOrFiles(ctx, env); err != nil {
		return "", fmt.Errorf("dataset %s: %w", name, err)
	}
	return dir, nil
}

// archiveOrFiles is get, but for an archive of the user's that lies in the cache.
func (e Entry) archiveOrFiles(ctx context.Context, env Env) (dir string, err error) {
	if !e.Own {
		return e.get(ctx, env)
	}
	at, err := e.archive(ctx, env, "")
	return filepath.Dir(at), err
}

// Prepare brings what a spec needs into the cache, fetched and decoded, so that
// processes that open it at once needn't each do it. Where a spec keeps nothing
// there, it does nothing, not even look at files.
func Prepare(ctx context.Context, spec Spec, env Env) error {
	switch spec.(type) {
	case *Files, *Synthetic, *Packed:
		return nil
	case *MNIST, *FashionMNIST:
		if env.Packed == "" && env.Peers == nil {
			_, err := Get(ctx, spec.Kind(), env)
			return err
		}
	}
	train, test, err := Open(ctx, spec, env)
	for _, d := range []Dataset{train, test} {
		if c, ok := d.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// lookup finds an entry.
func lookup(name string) (Entry, error) {
	var known []string
	for _, e := range List() {
		if e.Name == name {
			return e, nil
		}
		known = append(known, e.Name)
	}
	return Entry{}, fmt.Errorf("dataset: no data set is called %q, want one of: %s", name, strings.Join(known, ", "))
}

// DefaultCacheDir returns where fetched data sets lie unless the user says
// otherwise: the directory dlnode in the user's cache directory.
func DefaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("dataset: no cache directory: %w", err)
	}
	return filepath.Join(dir, "dlnode"), nil
}
