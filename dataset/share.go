package dataset

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/dlnode/dlnode/dataset/pack"
)

// Source is a place that others' data can be had from: a Share, or what brings one
// from another machine.
type Source = pack.Source

// Share is a data set as others get it, a Source of these files:
//
//	dataset.json        as of a packed data set
//	INDEX/index.json    and the other files of a pack, under the SHA-256 of its index
//
// A data set that lies in a pack gives its blocks, as far as they are here. Any
// other is given as the pack that Pack would write of it, which is never written:
// all who have the data make the same one.
type Share struct {
	set   *set
	text  []byte
	parts map[string]pack.Source // by the SHA-256 of the index
	index *pack.Index            // of the train set
}

// NewShare makes a share of the parts of an opened data set; test may be nil. Of a
// part that lies in no pack each sample is read, for the checksums.
func NewShare(ctx context.Context, spec Spec, train, test Dataset) (*Share, error) {
	fields, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	train = unspread(train)
	s := &Share{
		set:   &set{Version: setVersion, Kind: spec.Kind(), Spec: fields, Skipped: Skipped(train)},
		parts: map[string]pack.Source{},
	}
	if s.set.Train, s.index, err = s.add(ctx, train); err != nil {
		return nil, err
	}
	if test != nil {
		p, _, err := s.add(ctx, unspread(test))
		if err != nil {
			return nil, err
		}
		s.set.Test = &p
	}
	s.text, err = json.Marshal(s.set)
	return s, err
}

// unspread returns the data set that OneHot was made of.
func unspread(d Dataset) Dataset {
	if o, ok := d.(*oneHot); ok {
		return o.base
	}
	return d
}

func (s *Share) add(ctx context.Context, d Dataset) (setPart, *pack.Index, error) {
	if p, ok := d.(*packed); ok {
		s.parts[p.r.Sum().String()] = p.r
		return setPart{p.r.Sum(), p.print}, p.r.Index(), nil
	}
	v, err := virtual(ctx, d)
	if err != nil {
		return setPart{}, nil, fmt.Errorf("dataset %s: %w", d.Info().Name, err)
	}
	s.parts[v.Sum().String()] = v
	return setPart{v.Sum(), d.Fingerprint()}, v.Index(), nil
}

// virtual returns the pack that Pack would write of d.
func virtual(ctx context.Context, d Dataset) (*pack.Virtual, error) {
	m := metaOf(d)
	payload, err := m.payload()
	if err != nil {
		return nil, err
	}
	meta, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	ids := make([]uint64, d.Len())
	for i := range ids {
		ids[i] = d.ID(i)
	}
	return pack.NewVirtual(ctx, pack.Layout{Payload: payload}, pack.Records{
		IDs: ids, Weights: weightsOf(d), Payload: payloads(d), Meta: meta,
	})
}

// payloads returns what makes the stored form of a sample.
func payloads(d Dataset) func(i int, dst []byte) error {
	put := func(dst []byte, v []float32) []byte {
		for _, f := range v {
			dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(f))
		}
		return dst
	}
	if d, ok := d.(*images); ok {
		return func(i int, dst []byte) error {
			copy(put(dst[:0], []float32{float32(d.labels[i])})[4:len(dst)], d.pixels[i*d.width:(i+1)*d.width])
			return nil
		}
	}
	type sample struct{ x, y []float32 }
	info := d.Info()
	pool := sync.Pool{New: func() any {
		return &sample{make([]float32, info.InputLen()), make([]float32, info.Target)}
	}}
	return func(i int, dst []byte) error {
		s := pool.Get().(*sample)
		defer pool.Put(s)
		id, err := d.Read(i, s.x, s.y)
		if err == nil && id != d.ID(i) {
			err = fmt.Errorf("sample %d carries id %d, want %d by the index", i, id, d.ID(i))
		}
		put(put(dst[:0], s.y), s.x)
		return err
	}
}

func (s *Share) String() string { return "this node's data" }

// Whole implements pack.Source.
func (s *Share) Whole(ctx context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	if name == setName {
		return s.text, check(s.text)
	}
	part, file, err := s.part(name)
	if err != nil {
		return nil, err
	}
	return part.Whole(ctx, file, limit, check)
}

// Part implements pack.Source.
func (s *Share) Part(ctx context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	part, file, err := s.part(name)
	if err != nil {
		return 0, err
	}
	return part.Part(ctx, file, off, dst, check)
}

func (s *Share) part(name string) (part pack.Source, file string, err error) {
	index, file, _ := strings.Cut(name, "/")
	if part = s.parts[index]; part == nil {
		return nil, "", fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return part, file, nil
}

// fromPeers opens a data set that others share, if it was made by the same spec,
// paths aside. What one of them has told once is as good as what they would tell
// now: a node that is started again may be the first to be there.
func fromPeers(ctx context.Context, spec Spec, env Env) (train, test Dataset, err error) {
	if env.KeepDir == "" || env.KeepBytes == 0 {
		return nil, nil, errors.New("data from peers need a directory and a number of bytes to keep")
	}
	path := filepath.Join(env.KeepDir, setName)
	ours := func(text []byte) error {
		s, err := decodeSet(text)
		if err == nil {
			err = s.sameAs(spec)
		}
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil || ours(text) != nil {
		if text, err = env.Peers.Whole(ctx, setName, maxSetBytes, ours); err != nil {
			return nil, nil, fmt.Errorf("%v: %s: %w", env.Peers, setName, err)
		}
	}
	tr, te, _, err := openRemote(ctx, env, env.Peers, text, func(_ string, p setPart) string { return p.Index.String() })
	if err == nil {
		err = pack.ReplaceFile(path, text)
	}
	return asDatasets(tr, te, err)
}

// KeptFromPeers tells whether a directory has what it takes to open a spec's data
// from peers before any of them is there.
func KeptFromPeers(dir string, spec Spec) bool {
	text, err := os.ReadFile(filepath.Join(dir, setName))
	if err != nil {
		return false
	}
	s, err := decodeSet(text)
	return err == nil && s.sameAs(spec) == nil
}

// Missing tells whether an error of Open says that the data are not here and could
// not be fetched.
func Missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*unavailableError))
}
