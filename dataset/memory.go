package dataset

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/dlnode/dlnode/internal/kernel"
)

// Memory is a data set of float32 values held in memory.
type Memory struct {
	info  Info
	width int       // length of one sample's x
	ids   []uint64  // [n]
	x     []float32 // [n, width]
	y     []float32 // [n, info.Target]
	w     []float32 // [n], what the samples' losses are multiplied by; nil: 1 each
	print func() [sha256.Size]byte
}

// NewMemory makes a data set of n = len(y)/info.Target samples from x
// [n, product of info.Input] and y [n, info.Target]. ids [n] must be distinct;
// nil numbers the samples from 0. The slices are kept, not copied: don't change
// them afterwards. What does not fit, a value that is not finite and a class id
// outside [0, info.Classes) are errors that name the record.
func NewMemory(info Info, ids []uint64, x, y []float32) (*Memory, error) {
	m := &Memory{info: info, width: info.InputLen(), ids: ids, x: x, y: y}
	if m.ids == nil && info.Target > 0 {
		m.ids = numbered(0, len(y)/info.Target)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("dataset %s: %w", info.Name, err)
	}
	m.print = sync.OnceValue(m.fingerprint)
	return m, nil
}

// Weigh returns the data set with weights for its samples: [n] finite numbers of at
// least 0, by which their losses are multiplied. It shares all else with m.
func (m *Memory) Weigh(weights []float32) (*Memory, error) {
	if len(weights) != m.Len() {
		return nil, fmt.Errorf("dataset %s: got %d weights for %d samples, want equal numbers", m.info.Name, len(weights), m.Len())
	}
	for i, w := range weights {
		if !(w >= 0 && w <= math.MaxFloat32) {
			return nil, fmt.Errorf("dataset %s: record %d: weight is %v, want a finite number of at least 0", m.info.Name, i, w)
		}
	}
	weighed := *m
	weighed.w = weights
	weighed.print = sync.OnceValue(weighed.fingerprint)
	return &weighed, nil
}

// numbered returns n ids from first upwards.
func numbered(first uint64, n int) []uint64 {
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = first + uint64(i)
	}
	return ids
}

func (m *Memory) check() error {
	if err := m.info.validate(); err != nil {
		return err
	}
	n := len(m.ids)
	if n == 0 {
		return errors.New("zero samples")
	}
	if len(m.x) != n*m.width || len(m.y) != n*m.info.Target {
		return fmt.Errorf("%d samples of %d inputs and %d targets need %d and %d values, got %d and %d",
			n, m.width, m.info.Target, n*m.width, n*m.info.Target, len(m.x), len(m.y))
	}
	if err := m.checkIDs(); err != nil {
		return err
	}
	return m.checkValues()
}

func (m *Memory) checkIDs() error {
	record := make(map[uint64]int, len(m.ids))
	for i, id := range m.ids {
		if first, dup := record[id]; dup {
			return fmt.Errorf("record %d: id %d is that of record %d, want distinct ids", i, id, first)
		}
		record[id] = i
	}
	return nil
}

func (m *Memory) checkValues() error {
	for i := range m.ids {
		x, y := m.sample(i)
		if j := notFinite(x); j >= 0 {
			return fmt.Errorf("record %d: input %d is %v, want a finite number", i, j, x[j])
		}
		if j := notFinite(y); j >= 0 {
			return fmt.Errorf("record %d: target %d is %v, want a finite number", i, j, y[j])
		}
		if m.info.Classes > 0 && m.info.Target == 1 && !isClass(y[0], m.info.Classes) {
			return fmt.Errorf("record %d: class id is %v, want an integer from 0 to %d", i, y[0], m.info.Classes-1)
		}
	}
	return nil
}

// notFinite returns the index of the first NaN or infinity in v, or -1.
func notFinite(v []float32) int {
	if kernel.MaxExponent(v) < 255 {
		return -1
	}
	for i, f := range v {
		if math.Float32bits(f)&0x7f800000 == 0x7f800000 {
			return i
		}
	}
	return -1
}

// isClass reports whether v is an integer in [0, classes).
func isClass(v float32, classes int) bool {
	return v >= 0 && float64(v) < float64(classes) && v == float32(math.Floor(float64(v)))
}

// sample returns windows of x and y.
func (m *Memory) sample(i int) (x, y []float32) {
	return m.x[i*m.width : (i+1)*m.width], m.y[i*m.info.Target : (i+1)*m.info.Target]
}

// Len returns the number of samples.
func (m *Memory) Len() int { return len(m.ids) }

// Info describes every sample.
func (m *Memory) Info() Info { return m.info }

// ID returns the id of sample i.
func (m *Memory) ID(i int) uint64 { return m.ids[i] }

// Weights tells whether the samples have weights.
func (m *Memory) Weights() bool { return m.w != nil }

// Weight returns what the loss of sample i is multiplied by; only where Weights.
func (m *Memory) Weight(i int) float32 { return m.w[i] }

// Read copies sample i into x and y; it never fails.
func (m *Memory) Read(i int, x, y []float32) (uint64, error) {
	checkRead(m.info, m.width, m.Len(), i, x, y)
	sx, sy := m.sample(i)
	copy(x, sx)
	copy(y, sy)
	return m.ids[i], nil
}

// Fingerprint hashes shapes, ids and the bits of all values and weights, once.
func (m *Memory) Fingerprint() [sha256.Size]byte { return m.print() }

func (m *Memory) fingerprint() [sha256.Size]byte {
	encoding := "float32"
	if m.w != nil {
		encoding = "float32, weights"
	}
	f := newFingerprinter(encoding, m.info, m.Len())
	for i, id := range m.ids {
		x, y := m.sample(i)
		f.floats(id, x, y)
		if m.w != nil {
			f.weight(m.w[i])
		}
	}
	return f.sum()
}
