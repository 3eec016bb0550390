// Package dataset holds the samples of a training run: reads them from files,
// makes synthetic ones for tests, fetches the well-known ones, and names their
// content by a fingerprint.
//
//	cache ─┐
//	go module ─► Get ─► verified files ─► DecodeIDX ─► images ─┐
//	mirrors ─┘                                                 │
//	folders, archives, tables ─► decoded once ─► pack ─► packed├─► Dataset ─► Slice ─► Read
//	                          Synthetic ─► NewMemory ─► Memory ┘
//
// A Dataset is immutable once it is open: all that the world can get wrong
// (damage, missing files, labels out of range) is told by Open, with file,
// record and value, and before the first step. Only a packed data set, which is
// read where it lies and may be larger than memory, tells of a damaged block when
// one of its samples is first read. Read can be called from any number of
// goroutines without a lock, in any order, and allocates nothing in the data sets
// of this package.
//
// Every sample has an id that belongs to its record and not to its place in a
// slice or a batch. Ids key dropout and augmentation and are summed to check
// that each step used exactly the samples it was meant to.
//
// Two nodes may train together only if they hold the same data. The fingerprint
// decides that: SHA-256 over what was decoded (values, shapes, ids), so the same
// content compressed another way, or lying elsewhere, is the same data.
package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
)

// Info describes the samples of a data set. Its slices are shared by everyone
// who asks: read them, don't write to them.
type Info struct {
	Name       string      `json:"name"`                  // for people; in no fingerprint and no checkpoint
	Input      []int       `json:"input"`                 // shape of one sample's x, such as [28 28]
	Target     int         `json:"target"`                // length of one sample's y
	Classes    int         `json:"classes"`               // classes of a class id in y[0] (or of a one-hot y); 0 for regression
	ClassNames []string    `json:"class_names,omitempty"` // for people, Classes of them or none; no part of the fingerprint
	Preprocess *Preprocess `json:"preprocess,omitempty"`  // how raw input became x; nil where x is all there ever was
}

// InputLen returns the length of one sample's x, the product of Input.
func (i Info) InputLen() int {
	n := 1
	for _, d := range i.Input {
		n *= d
	}
	return n
}

// validate tells what does not fit within the description itself.
func (i Info) validate() error {
	if len(i.Input) == 0 {
		return errors.New("input shape is empty")
	}
	for axis, d := range i.Input {
		if d < 1 {
			return fmt.Errorf("input shape %v: axis %d is %d, want at least 1", i.Input, axis, d)
		}
	}
	switch {
	case i.Target < 1:
		return fmt.Errorf("target length is %d, want at least 1", i.Target)
	case i.Classes < 0:
		return fmt.Errorf("classes is %d, want at least 0", i.Classes)
	case i.Classes > 0 && i.Target != 1 && i.Target != i.Classes:
		return fmt.Errorf("target length is %d, want 1 (a class id) or %d (one-hot)", i.Target, i.Classes)
	case len(i.ClassNames) != 0 && len(i.ClassNames) != i.Classes:
		return fmt.Errorf("%d class names for %d classes", len(i.ClassNames), i.Classes)
	}
	return nil
}

// Dataset is an immutable, randomly accessible sequence of samples.
// All methods are safe for concurrent use.
type Dataset interface {
	// Len returns the number of samples, at least 1.
	Len() int
	// Info describes every sample.
	Info() Info
	// Read fills x [product of Info().Input] and y [Info().Target] with sample i,
	// 0 <= i < Len(), and returns the id that its record carries. A class is held
	// in y[0] as a float32. Wrong lengths or a wrong i panic; an error is the
	// world's doing, and x and y are then undefined.
	Read(i int, x, y []float32) (id uint64, err error)
	// ID returns the id of sample i by the index that the fingerprint covers,
	// without reading the sample. What Read returns is held against it.
	ID(i int) uint64
	// Fingerprint names the decoded content: two data sets with one fingerprint
	// give the same id, x, y and weight for every i. It is computed once.
	Fingerprint() [sha256.Size]byte
}

// Weighted is a data set whose samples may count differently in the loss.
type Weighted interface {
	Dataset
	// Weights tells whether there are any: whether Weight may be called.
	Weights() bool
	// Weight returns what the loss of sample i is multiplied by, a finite number of
	// at least 0. It belongs to the index, as ID does: no sample is read.
	Weight(i int) float32
}

// Weights returns d if its samples have weights, and nil where all count the same.
// The fingerprint covers them.
func Weights(d Dataset) Weighted {
	if w, ok := d.(Weighted); ok && w.Weights() {
		return w
	}
	return nil
}

// ReadContext is d.Read, but where a sample has to be waited for since it lies
// elsewhere, the end of ctx ends it.
func ReadContext(ctx context.Context, d Dataset, i int, x, y []float32) (id uint64, err error) {
	if d, ok := d.(contextReader); ok {
		return d.readContext(ctx, i, x, y)
	}
	return d.Read(i, x, y)
}

// contextReader is a data set whose samples may lie elsewhere.
type contextReader interface {
	readContext(ctx context.Context, i int, x, y []float32) (id uint64, err error)
}

// Env is what opening a data set needs from its surroundings. The zero value
// uses the user's cache directory, the network and no log.
type Env struct {
	CacheDir  string         // fetched data sets lie in CacheDir/NAME, decoded ones in CacheDir/decoded; "" is DefaultCacheDir()
	Dir       string         // where relative paths of a Spec start; "" is the working directory
	Packed    string         // where the data lie packed, a directory or a URL: taken instead of a Spec's own sources
	Peers     Source         // others who have the data, as Share gives it: taken instead of all that; KeepDir and KeepBytes are needed then
	KeepDir   string         // of this process alone: what comes from a web server or from Peers is kept there …
	KeepBytes int64          // … up to so much; 0 keeps all of it, in CacheDir, for any number of processes
	Offline   bool           // use the cache only: start no go command, open no connection
	Mirrors   []string       // base URLs, as https://host/dir/, instead of the data set's own; content is verified all the same
	Progress  func(Progress) // called between chunks of a download or of decoding, by its goroutine; nil for none
	Log       *slog.Logger   // nil discards
}

// Progress is a moment of fetching one file, or of what else takes its time.
type Progress struct {
	Doing  string // "fetching" a file; "decoding" a data set, once, or "packing" or "checking" it
	Source string // where the bytes come from, as an error would name it; only when fetching
	File   string // name of the file, or of the data set
	Done   int64  // bytes received or checked, or samples decoded or packed
	Total  int64  // bytes the file has, or samples there are
}

// Slice returns samples [lo, hi) of d as a data set of their own. It copies no
// sample, ids stay what they are, and a slice of a slice is the slice it looks
// like: equal bounds within one data set give equal fingerprints.
func Slice(d Dataset, lo, hi int) Dataset {
	if lo < 0 || hi > d.Len() || lo >= hi {
		panic(fmt.Sprintf("dataset: slice [%d:%d) of %d samples", lo, hi, d.Len()))
	}
	if lo == 0 && hi == d.Len() {
		return d
	}
	if s, ok := d.(*slice); ok {
		return Slice(s.base, s.lo+lo, s.lo+hi)
	}
	return &slice{base: d, lo: lo, hi: hi}
}

// slice is samples [lo, hi) of base, which is no slice itself.
type slice struct {
	base   Dataset
	lo, hi int
}

func (s *slice) Len() int   { return s.hi - s.lo }
func (s *slice) Info() Info { return s.base.Info() }

func (s *slice) ID(i int) uint64 { return s.base.ID(s.lo + i) }

func (s *slice) Weights() bool        { return Weights(s.base) != nil }
func (s *slice) Weight(i int) float32 { return s.base.(Weighted).Weight(s.lo + i) }

func (s *slice) Read(i int, x, y []float32) (uint64, error) {
	return s.readContext(context.Background(), i, x, y)
}

func (s *slice) readContext(ctx context.Context, i int, x, y []float32) (uint64, error) {
	if i < 0 || i >= s.Len() {
		panic(fmt.Sprintf("dataset: sample %d of %d", i, s.Len()))
	}
	return ReadContext(ctx, s.base, s.lo+i, x, y)
}

// Fingerprint is derived from the base's, so that slicing never reads samples.
func (s *slice) Fingerprint() [sha256.Size]byte {
	base := s.base.Fingerprint()
	b := append([]byte("dlnode slice 1\n"), base[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.lo))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.hi))
	return sha256.Sum256(b)
}

// checkRead panics if a Read of sample i of n into x and y breaks the contract.
func checkRead(info Info, width, n, i int, x, y []float32) {
	if i < 0 || i >= n {
		panic(fmt.Sprintf("dataset: sample %d of %d", i, n))
	}
	if len(x) != width || len(y) != info.Target {
		panic(fmt.Sprintf("dataset: Read into x[%d], y[%d], want x[%d], y[%d]", len(x), len(y), width, info.Target))
	}
}
