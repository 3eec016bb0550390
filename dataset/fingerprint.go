package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math"
)

// fingerprinter hashes one data set: first what every record has in common,
// then each record. All numbers are little-endian, so the value is the same on
// every machine.
type fingerprinter struct {
	h   hash.Hash
	buf []byte // reused; holds one record in the making
}

// newFingerprinter starts the hash of n samples. The encoding names how a record
// is turned into values, so that equal bytes with another meaning differ.
func newFingerprinter(encoding string, info Info, n int) *fingerprinter {
	f := &fingerprinter{h: sha256.New()}
	b := append([]byte("dlnode dataset 1\n"), encoding...)
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	b = binary.LittleEndian.AppendUint64(b, uint64(info.Target))
	b = binary.LittleEndian.AppendUint64(b, uint64(info.Classes))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(info.Input)))
	for _, d := range info.Input {
		b = binary.LittleEndian.AppendUint64(b, uint64(d))
	}
	f.h.Write(b) // hash.Hash: never returns an error
	return f
}

// floats adds one record of float32 values.
func (f *fingerprinter) floats(id uint64, x, y []float32) {
	b := binary.LittleEndian.AppendUint64(f.buf[:0], id)
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	for _, v := range y {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	f.buf = b
	f.h.Write(b)
}

// weight adds the weight of the record before.
func (f *fingerprinter) weight(w float32) {
	f.buf = binary.LittleEndian.AppendUint32(f.buf[:0], math.Float32bits(w))
	f.h.Write(f.buf)
}

// bytes adds one record of pixels and its label.
func (f *fingerprinter) bytes(id uint64, pixels []byte, label byte) {
	b := binary.LittleEndian.AppendUint64(f.buf[:0], id)
	b = append(b, label)
	b = append(b, pixels...)
	f.buf = b
	f.h.Write(b)
}

func (f *fingerprinter) sum() (s [sha256.Size]byte) {
	f.h.Sum(s[:0])
	return s
}

// raw adds one record whose values are bytes already.
func (f *fingerprinter) raw(id uint64, x, y []byte) {
	b := binary.LittleEndian.AppendUint64(f.buf[:0], id)
	b = append(b, x...)
	b = append(b, y...)
	f.buf = b
	f.h.Write(b)
}
