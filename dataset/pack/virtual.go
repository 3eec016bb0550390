package pack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
)

// Virtual is a pack that nobody has written: its records are made when they are
// asked for. The same records have the same index as in a pack that a Writer has
// written in the same layout, so the one can stand in for the other.
type Virtual struct {
	index   *Index
	sum     Sum
	files   map[string][]byte // index, ids, weights
	payload func(i int, dst []byte) error
	ids     []uint64
}

// Records are what a Virtual pack is made of.
type Records struct {
	IDs     []uint64                      // of each
	Weights []float32                     // of each; nil where there are none
	Payload func(i int, dst []byte) error // fills dst [Layout.Payload]; called from any goroutine
	Meta    []byte                        // JSON
}

// NewVirtual makes each record once, for the checksums.
func NewVirtual(ctx context.Context, l Layout, from Records) (*Virtual, error) {
	x, err := l.index()
	if err != nil {
		return nil, err
	}
	if x.Records = len(from.IDs); x.Records == 0 {
		return nil, fmt.Errorf("zero records, want at least 1")
	}
	c := columns{append([]uint64(nil), from.IDs...), from.Weights}
	ids, weights, err := c.put(&x)
	if err != nil {
		return nil, err
	}
	v := &Virtual{index: &x, payload: from.Payload, ids: from.IDs, files: map[string][]byte{}}
	x.Blocks = make([]Sum, (x.Records-1)/x.PerBlock+1)
	block := make([]byte, x.blockBytes(0))
	for b := range x.Blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := block[:x.blockBytes(b)]
		if err := v.make(b, part); err != nil {
			return nil, err
		}
		x.Blocks[b] = sha256.Sum256(part)
	}
	text, err := x.encode(from.Meta)
	if err != nil {
		return nil, err
	}
	v.sum = sha256.Sum256(text)
	for name, text := range map[string][]byte{IndexName: text, IDsName: ids, WeightsName: weights} {
		if text != nil {
			v.files[name] = text
		}
	}
	return v, nil
}

// make fills dst with block b.
func (v *Virtual) make(b int, dst []byte) error {
	for i := b * v.index.PerBlock; len(dst) > 0; i++ {
		binary.LittleEndian.PutUint64(dst, v.ids[i])
		if err := v.payload(i, dst[idSize:v.index.Record]); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		dst = dst[v.index.Record:]
	}
	return nil
}

// Index describes the pack. It is shared: read it, don't write to it.
func (v *Virtual) Index() *Index { return v.index }

// Sum returns the SHA-256 of the index.
func (v *Virtual) Sum() Sum { return v.sum }

func (v *Virtual) String() string { return "a pack in memory" }

// Whole implements Source.
func (v *Virtual) Whole(_ context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	text, ok := v.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return bytes.Clone(text), check(text)
}

// Part implements Source for whole blocks.
func (v *Virtual) Part(_ context.Context, name string, off int64, dst []byte, check func(int) error) (int, error) {
	return v.index.give(name, off, dst, check, v.make)
}
