package dataset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/dlnode/dlnode/dataset/pack"
)

// Packed is a data set that Pack has written: a directory, or one behind a web
// server, whose blocks are kept in the cache once they have been read.
type Packed struct {
	Path string `yaml:"path" json:"-"` // a directory, relative to Env.Dir, or an http or https URL
}

// Kind returns "packed".
func (*Packed) Kind() string { return "packed" }

// Validate tells whether a path is missing.
func (p *Packed) Validate() error {
	var all problems
	all.unless(p.Path != "", "path", `""`, "a directory or a URL")
	return errors.Join(all...)
}

func (p *Packed) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	tr, te, _, err := p.openSet(ctx, env)
	return asDatasets(tr, te, err)
}

func (p *Packed) openSet(ctx context.Context, env Env) (train, test *packed, s *set, err error) {
	if !strings.HasPrefix(p.Path, "https://") && !strings.HasPrefix(p.Path, "http://") {
		return openSet(env.at(p.Path))
	}
	src := &pack.HTTP{Base: p.Path}
	text, err := src.Whole(ctx, setName, maxSetBytes, anySet)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%v/%s: %w", src, setName, err)
	}
	return openRemote(ctx, env, src, text, func(name string, _ setPart) string { return name })
}

// anySet passes what decodeSet can read.
func anySet(text []byte) error {
	_, err := decodeSet(text)
	return err
}

// openRemote opens a packed data set that lies elsewhere, as text describes it; at
// tells how src calls the directory of a part.
func openRemote(ctx context.Context, env Env, src pack.Source, text []byte, at func(name string, p setPart) string) (train, test *packed, s *set, err error) {
	if s, err = decodeSet(text); err != nil {
		return nil, nil, nil, fmt.Errorf("%v/%s: %w", src, setName, err)
	}
	keep, err := env.keep(s)
	if err != nil {
		return nil, nil, nil, err
	}
	train, test, err = both(s, func(name string, want *setPart) (*packed, error) {
		if want == nil {
			return nil, nil
		}
		part := pack.Sub(src, at(name, *want))
		r, err := pack.OpenFrom(ctx, part, want.Index, keep(*want))
		if err != nil {
			return nil, err
		}
		return believe(r, part.String(), *want)
	})
	return train, test, s, err
}

// Pack opens a data set and writes it to a directory of its own, in the form that
// the kind packed opens. Values, ids and fingerprints are the same.
func Pack(ctx context.Context, spec Spec, env Env, dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s: is there already (want a new directory)", dir), err)
	}
	train, test, err := Open(ctx, spec, env)
	if err != nil {
		return err
	}
	return writeSet(spec, dir, "packing", env.Progress, func(w *setWriter) error {
		w.set.Skipped = Skipped(train)
		total, done := train.Len(), 0
		if test != nil {
			total += test.Len()
		}
		for _, d := range []Dataset{train, test} {
			if d == nil {
				continue
			}
			p, err := w.part(metaOf(d))
			if err != nil {
				return err
			}
			if err := p.addAll(d, func(int) error {
				done++
				w.progress(done, total)
				return ctx.Err()
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Verify checks every byte of a packed data set: checksums, values and
// fingerprints. It returns how many samples there are, in both parts.
func Verify(ctx context.Context, dir string, env Env) (samples int, err error) {
	train, test, s, err := (&Packed{Path: dir}).openSet(ctx, env)
	if err != nil {
		return 0, err
	}
	for _, d := range []*packed{train, test} {
		if d == nil {
			continue
		}
		samples += d.Len()
		err = errors.Join(err, d.verify(ctx, func(done, total int64) {
			if env.Progress != nil {
				env.Progress(Progress{Doing: "checking", File: s.Kind, Done: done, Total: total})
			}
		}), d.Close())
	}
	return samples, err
}

// verify checks blocks, and then that the content has the fingerprint told.
func (d *packed) verify(ctx context.Context, progress func(done, total int64)) error {
	if err := d.r.Verify(ctx, progress); err != nil {
		return err
	}
	print, err := d.fingerprint()
	if err == nil && print != d.print {
		err = fmt.Errorf("the fingerprint of the content is %x, want %x by %s", print, d.print, setName)
	}
	return err
}

// instead opens the packed form of a data set in place of its sources, if it was
// made by the same spec, paths aside.
func instead(ctx context.Context, spec Spec, env Env) (train, test Dataset, err error) {
	tr, te, s, err := (&Packed{Path: env.Packed}).openSet(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	if err := s.sameAs(spec); err != nil {
		err = fmt.Errorf("%s: %w", env.Packed, err)
		if te != nil {
			err = errors.Join(err, te.Close())
		}
		return nil, nil, errors.Join(err, tr.Close())
	}
	return asDatasets(tr, te, nil)
}

// sameAs compares the spec that a set was made by with another one. Fields that
// are newer than the set have their defaults in it.
func (s *set) sameAs(spec Spec) error {
	if s.Kind != spec.Kind() {
		return fmt.Errorf("it holds %s, want %s", s.Kind, spec.Kind())
	}
	made, ok := NewSpec(s.Kind)
	if !ok {
		return fmt.Errorf("it holds %s, which is no kind", s.Kind)
	}
	if err := json.Unmarshal(s.Spec, made); err != nil {
		return fmt.Errorf("its spec: %w", err)
	}
	a, err := json.Marshal(made)
	if err != nil {
		return err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("it was made by %s, want %s", a, b)
	}
	return nil
}
