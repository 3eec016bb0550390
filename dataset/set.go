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
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dlnode/dlnode/dataset/pack"
)

// setName is the file that makes a directory a packed data set:
//
//	DIR/dataset.json   kind, fields, and the names of the packs
//	DIR/train/         a pack
//	DIR/test/          a pack, where there is a test set
const setName = "dataset.json"

const (
	setVersion  = 1
	maxSetBytes = 64 << 20
)

// set is what setName holds.
type set struct {
	Version int             `json:"version"`
	Kind    string          `json:"kind"`              // of the spec that it was made by
	Spec    json.RawMessage `json:"spec"`              // its fields, but for paths
	Skipped []string        `json:"skipped,omitempty"` // what was left out, and why
	Train   setPart         `json:"train"`
	Test    *setPart        `json:"test,omitempty"`
}

// setPart names a pack.
type setPart struct {
	Index       pack.Sum `json:"index"`       // SHA-256 of the pack's index
	Fingerprint pack.Sum `json:"fingerprint"` // of the data set
}

func decodeSet(text []byte) (*set, error) {
	s := &set{}
	if err := json.Unmarshal(text, s); err != nil {
		if at := (*json.SyntaxError)(nil); errors.As(err, &at) {
			return nil, fmt.Errorf("offset %d: %w", at.Offset, err)
		}
		return nil, err
	}
	if s.Version != setVersion {
		return nil, fmt.Errorf("version is %d, want %d", s.Version, setVersion)
	}
	return s, nil
}

// readSet reads the file of a set, which is bounded.
func readSet(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	text, err := io.ReadAll(io.LimitReader(f, maxSetBytes+1))
	if err == nil && len(text) > maxSetBytes {
		err = fmt.Errorf("more than %d bytes", maxSetBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// openSet opens a packed data set in a directory.
func openSet(dir string) (train, test *packed, s *set, err error) {
	text, err := readSet(filepath.Join(dir, setName))
	if err != nil {
		return nil, nil, nil, err
	}
	if s, err = decodeSet(text); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, setName), err)
	}
	open := func(name string, want *setPart) (*packed, error) {
		if want == nil {
			return nil, nil
		}
		at := filepath.Join(dir, name)
		r, err := pack.Open(at)
		if err != nil {
			return nil, err
		}
		return believe(r, at, *want)
	}
	if train, test, err = both(s, open); err == nil {
		train.skipped = s.Skipped
	}
	return train, test, s, err
}

// both opens the two parts, or none.
func both(s *set, open func(name string, want *setPart) (*packed, error)) (train, test *packed, err error) {
	if train, err = open("train", &s.Train); err != nil {
		return nil, nil, err
	}
	if test, err = open("test", s.Test); err != nil {
		return nil, nil, errors.Join(err, train.Close())
	}
	return train, test, nil
}

// believe makes a data set of a pack if it is the one that is wanted.
func believe(r *pack.Reader, at string, want setPart) (*packed, error) {
	var err error
	if r.Sum() != want.Index {
		err = fmt.Errorf("the index is %v, want %v by %s", r.Sum(), want.Index, setName)
	}
	var d *packed
	if err == nil {
		d, err = newPacked(r)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", at, err), r.Close())
	}
	d.at, d.print = at, want.Fingerprint
	return d, nil
}

// asDatasets makes nil pointers nil.
func asDatasets(train, test *packed, err error) (Dataset, Dataset, error) {
	if err != nil {
		return nil, nil, err
	}
	if test == nil {
		return train, nil, nil
	}
	return train, test, nil
}

// setWriter writes a packed data set into a directory that nobody knows yet.
type setWriter struct {
	dir      string
	set      set
	parts    []*part
	progress func(done, total int)
}

// part starts the train set, then perhaps the test set.
func (w *setWriter) part(meta packMeta) (*part, error) {
	dir := filepath.Join(w.dir, []string{"train", "test"}[len(w.parts)])
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	p, err := createPart(dir, meta)
	if err != nil {
		return nil, err
	}
	w.parts = append(w.parts, p)
	return p, nil
}

// least returns the number of samples of the part that has the fewest.
func (w *setWriter) least() int {
	n := math.MaxInt
	for _, p := range w.parts {
		n = min(n, p.n)
	}
	return n
}

// finish reads what was written once more, for the fingerprints, and makes a
// packed data set of the directory.
func (w *setWriter) finish() error {
	var named []setPart
	for i, p := range w.parts {
		sum, err := p.finish()
		if err != nil {
			return err
		}
		at := filepath.Join(w.dir, []string{"train", "test"}[i])
		r, err := pack.Open(at)
		if err != nil {
			return err
		}
		d, err := believe(r, at, setPart{Index: sum})
		if err != nil {
			return err
		}
		print, err := d.fingerprint()
		if err = errors.Join(err, d.Close()); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		named = append(named, setPart{sum, print})
	}
	w.set.Train = named[0]
	if len(named) == 2 {
		w.set.Test = &named[1]
	}
	text, err := json.MarshalIndent(w.set, "", " ")
	if err != nil {
		return err
	}
	return writeSynced(filepath.Join(w.dir, setName), append(text, '\n'))
}

// writeSynced writes a file that a power cut leaves whole.
func writeSynced(path string, text []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// writeSet makes the packed data set dir, which appears whole or not at all. One
// that is there already is kept, and fs.ErrExist says so.
func writeSet(spec Spec, dir, doing string, progress func(Progress), fill func(*setWriter) error) (err error) {
	fields, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	dir = filepath.Clean(dir) // of "packed/", too, the directory above is not itself
	above := filepath.Dir(dir)
	if err := os.MkdirAll(above, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(above, tempPattern(filepath.Base(dir)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	w := &setWriter{dir: tmp, set: set{Version: setVersion, Kind: spec.Kind(), Spec: fields}}
	w.progress = func(done, total int) {
		if progress != nil {
			progress(Progress{Doing: doing, File: spec.Kind(), Done: int64(done), Total: int64(total)})
		}
	}
	err = fill(w)
	if err == nil {
		err = w.finish()
	}
	for _, p := range w.parts {
		err = errors.Join(err, p.w.Close())
	}
	if err = errors.Join(err, os.Chmod(tmp, 0o755)); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(above)
}

// sweepParts removes what killed processes have left of packed data sets, long ago:
// directories of the temporary pattern into which nothing is written any more.
func sweepParts(above string) error {
	entries, err := os.ReadDir(above)
	if ignoreMissing(err) != nil {
		return err
	}
	for _, d := range entries {
		if !d.IsDir() || !strings.HasPrefix(d.Name(), ".") || !strings.HasSuffix(d.Name(), ".part") {
			continue
		}
		at := filepath.Join(above, d.Name())
		last, err := lastWritten(at)
		if err == nil && time.Since(last) > tempLife {
			err = os.RemoveAll(at)
		}
		if ignoreMissing(err) != nil { // another process may be at it
			return err
		}
	}
	return nil
}

// lastWritten returns when something below a directory was last written.
func lastWritten(dir string) (last time.Time, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
		return err
	})
	return last, err
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// decoderVersion goes up when any decoder makes something else of the same files.
const decoderVersion = 2

// decodeOnce opens the packed form of a data set from the cache, where it is named
// by the digest of its sources and by the fields of its spec, and makes it first
// if it isn't there.
func decodeOnce(ctx context.Context, env Env, spec Spec, sources [sha256.Size]byte, decode func(context.Context, *setWriter) error) (train, test Dataset, err error) {
	fields, err := json.Marshal(spec)
	if err != nil {
		return nil, nil, err
	}
	cache, err := env.cache()
	if err != nil {
		return nil, nil, err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "dlnode decoded %d\n%s\n%s\n%x", decoderVersion, spec.Kind(), fields, sources))
	dir := filepath.Join(cache, "decoded", spec.Kind()+"-"+hex.EncodeToString(key[:12]))
	tr, te, _, err := openSet(dir)
	if err == nil {
		return asDatasets(tr, te, nil)
	}
	if unreadable(err) {
		return nil, nil, err
	}
	if _, there := os.Lstat(dir); there == nil {
		env.log().Warn("a decoded data set is damaged and is decoded again", "error", err)
		if err := os.RemoveAll(dir); err != nil {
			return nil, nil, err
		}
	}
	if err := sweepParts(filepath.Dir(dir)); err != nil {
		env.log().Warn("what a killed process left of a data set stays", "error", err)
	}
	err = writeSet(spec, dir, "decoding", env.Progress, func(w *setWriter) error { return decode(ctx, w) })
	if err != nil && !errors.Is(err, fs.ErrExist) { // somebody else has decoded it meanwhile
		return nil, nil, err
	}
	tr, te, s, err := openSet(dir)
	if err == nil && len(s.Skipped) > 0 {
		env.log().Warn("left out of the data set", "kind", s.Kind, "files", len(s.Skipped), "first", s.Skipped[0])
	}
	return asDatasets(tr, te, err)
}

// unreadable tells what the system won't give us from what is damaged: the former
// is no reason to throw away what it took hours to decode.
func unreadable(err error) bool {
	return errors.As(err, new(*fs.PathError)) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, io.EOF)
}

// cache is the directory of fetched and decoded data sets.
func (e Env) cache() (string, error) {
	if e.CacheDir != "" {
		return e.CacheDir, nil
	}
	return DefaultCacheDir()
}

func (e Env) log() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}

// at makes a path of a spec one that can be opened.
func (e Env) at(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(e.Dir, path)
}

// broken gathers what could not be decoded.
type broken struct {
	skip  bool
	total int
	n     int      // how many there are
	what  []string // the first maxTold of them
}

// maxTold bounds what is kept of a data set whose every row is broken.
const maxTold = 10_000

// note records a failure.
func (b *broken) note(err error) {
	if b.n++; b.n <= maxTold {
		b.what = append(b.what, err.Error())
	}
}

// skipped lists what was left out.
func (b *broken) skipped() []string {
	if more := b.n - len(b.what); more > 0 {
		return append(slices.Clone(b.what), fmt.Sprintf("and %d more", more))
	}
	return b.what
}

// err tells the failures, unless they are to be skipped and something is left.
func (b *broken) err(left int) error {
	if b.n == 0 || b.skip && left > 0 {
		return nil
	}
	shown, more := b.what, ""
	if len(shown) > 10 {
		shown, more = shown[:10], fmt.Sprintf("\n  and %d more", b.n-10)
	}
	hint := "on_broken: skip leaves them out"
	if b.skip {
		hint = "nothing is left"
	}
	return fmt.Errorf("%d of %d can't be decoded (%s):\n  %s%s", b.n, b.total, hint, strings.Join(shown, "\n  "), more)
}

// checkBroken checks a field on_broken.
func (p *problems) checkBroken(value string) {
	p.unless(value == "fail" || value == "skip", "on_broken", fmt.Sprintf("%q", value), "fail or skip")
}
