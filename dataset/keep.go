package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/dataset/pack"
)

// testShare is the part of a budget that a test set gets, which training never
// reads: one in so many.
const testShare = 16

// keep says where the parts of a set that lies elsewhere are kept. What is bounded
// belongs to one process, and to one data set: whatever else is in its directory
// goes.
func (e Env) keep(s *set) (func(setPart) pack.Keep, error) {
	warn := func(err error) { e.log().Warn("data that came from elsewhere could not be kept", "error", err) }
	if e.KeepBytes == 0 {
		cache, err := e.cache()
		return func(p setPart) pack.Keep {
			return pack.Keep{Dir: filepath.Join(cache, "remote", p.Index.String()[:24])}
		}, err
	}
	if e.KeepDir == "" {
		return nil, errors.New("a bound on what is kept needs a directory of its own")
	}
	names, train, test := []string{keptName(s.Train)}, e.KeepBytes, int64(0)
	if s.Test != nil {
		test = train / testShare
		train -= test
		names = append(names, keptName(*s.Test))
	}
	if err := keepOnly(e.KeepDir, names); err != nil {
		return nil, err
	}
	return func(p setPart) pack.Keep {
		k := pack.Keep{Dir: filepath.Join(e.KeepDir, keptName(p)), Bytes: train, Warn: warn}
		if s.Test != nil && p == *s.Test {
			k.Bytes = test
		}
		return k
	}, nil
}

// keptName is the directory of what is kept of a pack within a bound.
func keptName(p setPart) string { return "pack-" + p.Index.String()[:24] }

// keepOnly removes what was kept of other packs.
func keepOnly(dir string, names []string) error {
	all, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), "pack-") || slices.Contains(names, e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("making room: %w", err)
		}
	}
	return nil
}
