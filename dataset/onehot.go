package dataset

import (
	"context"
	"crypto/sha256"
	"fmt"
)

// OneHot returns d with its class ids spread out: y has one value per class, 1
// at the sample's class and 0 elsewhere, as categorical cross-entropy takes it.
// It panics unless d has class ids; ids of samples stay what they are.
func OneHot(d Dataset) Dataset {
	info := d.Info()
	if info.Classes < 1 || info.Target != 1 {
		panic(fmt.Sprintf("dataset: OneHot of %s, which has %d classes and a target of %d values",
			info.Name, info.Classes, info.Target))
	}
	info.Target = info.Classes
	return &oneHot{base: d, info: info}
}

type oneHot struct {
	base Dataset
	info Info
}

func (o *oneHot) Len() int   { return o.base.Len() }
func (o *oneHot) Info() Info { return o.info }

func (o *oneHot) ID(i int) uint64 { return o.base.ID(i) }

func (o *oneHot) Weights() bool        { return Weights(o.base) != nil }
func (o *oneHot) Weight(i int) float32 { return o.base.(Weighted).Weight(i) }

func (o *oneHot) Read(i int, x, y []float32) (uint64, error) {
	return o.readContext(context.Background(), i, x, y)
}

func (o *oneHot) readContext(ctx context.Context, i int, x, y []float32) (uint64, error) {
	if len(y) != o.info.Target {
		panic(fmt.Sprintf("dataset: Read into y[%d], want y[%d]", len(y), o.info.Target))
	}
	id, err := ReadContext(ctx, o.base, i, x, y[:1])
	if err != nil {
		return 0, err
	}
	class := int(y[0])
	if class < 0 || class >= len(y) {
		return 0, fmt.Errorf("dataset %s: sample %d: class id is %v, want 0 to %d", o.info.Name, i, y[0], len(y)-1)
	}
	clear(y)
	y[class] = 1
	return id, nil
}

func (o *oneHot) Fingerprint() [sha256.Size]byte {
	base := o.base.Fingerprint()
	return sha256.Sum256(append([]byte("dlnode one-hot 1\n"), base[:]...))
}
