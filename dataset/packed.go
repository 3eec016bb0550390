package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/dlnode/dlnode/dataset/pack"
	"github.com/dlnode/dlnode/internal/kernel"
)

// encoding is how the x of a record lies in a pack. Its y comes first, as float32.
type encoding string

const (
	inBytes  encoding = "uint8/255" // a byte b for float32(b)/255
	inFloats encoding = "float32"
	inTokens encoding = "int32" // a whole number below 2^24 each
)

// maxToken is above every word id: below it whole numbers are exact as float32.
const maxToken = 1 << 24

// size returns the bytes of one value.
func (e encoding) size() (int, error) {
	switch e {
	case inBytes:
		return 1, nil
	case inFloats, inTokens:
		return 4, nil
	}
	return 0, fmt.Errorf("encoding is %q, want %s, %s or %s", e, inBytes, inFloats, inTokens)
}

// packMeta is what the index of a pack says of the samples.
type packMeta struct {
	Encoding encoding `json:"encoding"`
	Info     Info     `json:"info"`
}

// payload returns the bytes of one record's y and x.
func (m packMeta) payload() (int, error) {
	if err := m.Info.validate(); err != nil {
		return 0, err
	}
	size, err := m.Encoding.size()
	if err != nil {
		return 0, err
	}
	n := 1
	for _, d := range m.Info.Input {
		if n > math.MaxInt32/d {
			return 0, fmt.Errorf("input shape %v has more than %d values", m.Info.Input, math.MaxInt32)
		}
		n *= d
	}
	return 4*m.Info.Target + size*n, nil
}

// packed is a data set that lies in a pack.
type packed struct {
	packMeta
	r      *pack.Reader
	at     string    // where it lies, for people
	width  int       // values of x
	tokens int       // word ids are below it
	recs   sync.Pool // *[]byte of a record
	print  [sha256.Size]byte

	skipped []string // what was left out when the set was decoded
}

// Skipped tells what a decoded data set was made without, and why, by its train
// set.
func Skipped(train Dataset) []string {
	if d, ok := train.(*packed); ok {
		return d.skipped
	}
	return nil
}

// newPacked checks that the pack is one of samples.
func newPacked(r *pack.Reader) (*packed, error) {
	d := &packed{r: r}
	if err := json.Unmarshal(r.Index().Meta, &d.packMeta); err != nil {
		return nil, fmt.Errorf("meta: %w", err)
	}
	n, err := d.payload()
	if err == nil && n != r.RecordLen()-8 {
		err = fmt.Errorf("records have %d bytes beside the id, want %d for input %v and target %d",
			r.RecordLen()-8, n, d.packMeta.Info.Input, d.packMeta.Info.Target)
	}
	if err == nil {
		err = d.packMeta.Info.Preprocess.ready()
	}
	if made := d.packMeta.Info.Preprocess.length(); err == nil && made != 0 && made != d.packMeta.Info.InputLen() {
		err = fmt.Errorf("raw input becomes %d values, but samples of shape %v have %d", made, d.packMeta.Info.Input, d.packMeta.Info.InputLen())
	}
	if err != nil {
		return nil, fmt.Errorf("meta: %w", err)
	}
	if d.Encoding == inBytes && d.packMeta.Info.Preprocess == nil {
		d.packMeta.Info.Preprocess = imageSteps(d.packMeta.Info.Input)
	}
	d.tokens = maxToken
	if p := d.packMeta.Info.Preprocess; p != nil && p.Text != nil {
		d.tokens = p.Text.Vocabulary()
	}
	d.width = d.packMeta.Info.InputLen()
	d.recs.New = func() any {
		b := make([]byte, r.RecordLen())
		return &b
	}
	return d, nil
}

func (d *packed) Len() int   { return d.r.Index().Records }
func (d *packed) Info() Info { return d.packMeta.Info }

func (d *packed) ID(i int) uint64 { return d.r.ID(i) }

func (d *packed) Weights() bool        { return d.r.Weights() != nil }
func (d *packed) Weight(i int) float32 { return d.r.Weights()[i] }

func (d *packed) Read(i int, x, y []float32) (uint64, error) {
	return d.readContext(context.Background(), i, x, y)
}

func (d *packed) readContext(ctx context.Context, i int, x, y []float32) (uint64, error) {
	checkRead(d.packMeta.Info, d.width, d.Len(), i, x, y)
	rec := d.recs.Get().(*[]byte)
	defer d.recs.Put(rec)
	payload, err := d.r.ReadContext(ctx, i, *rec)
	if err != nil {
		return 0, err
	}
	for j := range y {
		y[j] = math.Float32frombits(binary.LittleEndian.Uint32(payload[4*j:]))
	}
	d.values(payload[4*len(y):], x)
	if err := d.believable(x, y); err != nil {
		return 0, fmt.Errorf("%s: record %d: %w", d.at, i, err)
	}
	return d.r.ID(i), nil
}

// believable holds a sample to what Info says of all. A checksum tells only that a
// record is what its writer wrote.
func (d *packed) believable(x, y []float32) error {
	info := &d.packMeta.Info
	if j := notFinite(y); j >= 0 {
		return fmt.Errorf("target %d is %v, want a finite number", j, y[j])
	}
	if info.Classes > 0 && info.Target == 1 && !isClass(y[0], info.Classes) {
		return fmt.Errorf("class id is %v, want an integer from 0 to %d", y[0], info.Classes-1)
	}
	switch d.Encoding {
	case inFloats:
		if j := notFinite(x); j >= 0 {
			return fmt.Errorf("input %d is %v, want a finite number", j, x[j])
		}
	case inTokens:
		for j, v := range x {
			if !(v >= 0 && v < float32(d.tokens)) {
				return fmt.Errorf("input %d is %v, want a word id from 0 to %d", j, v, d.tokens-1)
			}
		}
	}
	return nil
}

// values turns stored values into x.
func (d *packed) values(b []byte, x []float32) {
	switch d.Encoding {
	case inBytes:
		kernel.Unit(x, b[:len(x)])
	case inFloats:
		for j := range x {
			x[j] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*j:]))
		}
	case inTokens:
		for j := range x {
			x[j] = float32(int32(binary.LittleEndian.Uint32(b[4*j:])))
		}
	}
}

func (d *packed) Fingerprint() [sha256.Size]byte { return d.print }

// Close closes the files of the pack.
func (d *packed) Close() error { return d.r.Close() }

// fingerprint reads every record. It is that of the same content held in memory,
// or read from IDX files.
func (d *packed) fingerprint() ([sha256.Size]byte, error) {
	info := d.packMeta.Info
	classed := info.Target == 1 && info.Classes >= 1 && info.Classes <= 256
	name := string(d.Encoding)
	if d.Encoding == inBytes && !classed {
		name += " float32"
	}
	if d.Weights() {
		name += ", weights"
	}
	f := newFingerprinter(name, info, d.Len())
	rec := make([]byte, d.r.RecordLen())
	for i := range d.Len() {
		payload, err := d.r.Read(i, rec)
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		y, x := payload[:4*info.Target], payload[4*info.Target:]
		if d.Encoding == inBytes && classed {
			class := math.Float32frombits(binary.LittleEndian.Uint32(y))
			if !isClass(class, info.Classes) {
				return [sha256.Size]byte{}, fmt.Errorf("record %d: class id is %v, want an integer from 0 to %d", i, class, info.Classes-1)
			}
			f.bytes(d.ID(i), x, byte(class))
		} else {
			f.raw(d.ID(i), x, y)
		}
		if d.Weights() {
			f.weight(d.Weight(i))
		}
	}
	return f.sum(), nil
}

// part writes one pack of samples.
type part struct {
	packMeta
	w       *pack.Writer
	n       int    // records whose making was begun
	payload []byte // reused; of the record in the making
}

// createPart starts a pack in a directory that exists.
func createPart(dir string, meta packMeta) (*part, error) {
	n, err := meta.payload()
	if err != nil {
		return nil, err
	}
	w, err := pack.Create(dir, pack.Layout{Payload: n})
	if err != nil {
		return nil, err
	}
	return &part{packMeta: meta, w: w}, nil
}

// target begins a record with its y, which must be what Info says.
func (p *part) target(y []float32) error {
	if len(y) != p.Info.Target {
		panic(fmt.Sprintf("dataset: a target of %d values, want %d", len(y), p.Info.Target))
	}
	if j := notFinite(y); j >= 0 {
		return fmt.Errorf("target %d is %v, want a finite number", j, y[j])
	}
	if p.Info.Classes > 0 && p.Info.Target == 1 && !isClass(y[0], p.Info.Classes) {
		return fmt.Errorf("class id is %v, want an integer from 0 to %d", y[0], p.Info.Classes-1)
	}
	p.n++
	p.payload = p.payload[:0]
	p.floats(y)
	return nil
}

func (p *part) floats(v []float32) {
	for _, f := range v {
		p.payload = binary.LittleEndian.AppendUint32(p.payload, math.Float32bits(f))
	}
}

// addBytes, addFloats and addTokens append a record of the encoding of that name.
func (p *part) addBytes(id uint64, x []byte, y ...float32) error {
	if err := p.target(y); err != nil {
		return err
	}
	p.payload = append(p.payload, x...)
	return p.w.Add(id, p.payload)
}

func (p *part) addFloats(id uint64, x []float32, y ...float32) error {
	if err := p.target(y); err != nil {
		return err
	}
	if j := notFinite(x); j >= 0 {
		return fmt.Errorf("input %d is %v, want a finite number", j, x[j])
	}
	p.floats(x)
	return p.w.Add(id, p.payload)
}

func (p *part) addTokens(id uint64, x []int32, y ...float32) error {
	if err := p.target(y); err != nil {
		return err
	}
	for _, v := range x {
		p.payload = binary.LittleEndian.AppendUint32(p.payload, uint32(v))
	}
	return p.w.Add(id, p.payload)
}

// finish ends the pack and returns its name.
func (p *part) finish() (pack.Sum, error) {
	meta, err := json.Marshal(p.packMeta)
	if err != nil {
		return pack.Sum{}, err
	}
	return p.w.Finish(meta)
}

// weightsOf returns the weights of the samples of d, nil if there are none.
func weightsOf(d Dataset) []float32 {
	w := Weights(d)
	if w == nil {
		return nil
	}
	all := make([]float32, d.Len())
	for i := range all {
		all[i] = w.Weight(i)
	}
	return all
}

// addAll copies the samples of d.
func (p *part) addAll(d Dataset, each func(i int) error) error {
	x, y := make([]float32, p.Info.InputLen()), make([]float32, p.Info.Target)
	var rec []byte
	if from, ok := d.(*packed); ok {
		rec = make([]byte, from.r.RecordLen())
	}
	for i := range d.Len() {
		var err error
		switch d := d.(type) {
		case *packed:
			var payload []byte
			if payload, err = d.r.Read(i, rec); err == nil {
				err = p.w.Add(d.ID(i), payload)
			}
		case *images:
			err = p.addBytes(d.ID(i), d.pixels[i*d.width:(i+1)*d.width], float32(d.labels[i]))
		default:
			var id uint64
			if id, err = d.Read(i, x, y); err == nil {
				err = p.addFloats(id, x, y...)
			}
		}
		if err = errors.Join(err, each(i)); err != nil {
			return fmt.Errorf("sample %d: %w", i, err)
		}
	}
	p.w.Weigh(weightsOf(d))
	return nil
}

// metaOf says how the samples of d are packed.
func metaOf(d Dataset) packMeta {
	switch d := d.(type) {
	case *packed:
		return d.packMeta
	case *images:
		return packMeta{inBytes, d.info}
	}
	info := d.Info()
	info.Input = slices.Clone(info.Input)
	return packMeta{inFloats, info}
}
