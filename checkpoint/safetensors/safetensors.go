// Package safetensors reads and writes the part of the safetensors format that
// training needs: named float32 tensors (dtype F32).
//
//	┌────────────┬──────────────────────────────┬───────────────────────────┐
//	│ N, 8 bytes │ header, N bytes of JSON      │ data, float32, row-major, │
//	│ little end.│ name → dtype, shape, offsets │ little endian, no gaps    │
//	└────────────┴──────────────────────────────┴───────────────────────────┘
//
// The format is specified at https://huggingface.co/docs/safetensors. Writing
// is canonical: tensors and header entries are sorted by name, the header is
// compact and padded with spaces to a multiple of eight, so that equal tensors
// give equal bytes whatever their order in memory. They are also the bytes that
// the reference implementation gives for the same tensors.
//
// Reading takes any order, padding and __metadata__ that the specification
// allows, and nothing else: what is read may come from a damaged disk or from a
// stranger, so every length is checked against what is really there before
// memory is taken for it.
//
// The package is pure: it knows readers and writers, not files.
package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxHeader bounds the header in bytes, here as when reading. A tensor takes
// some hundred bytes of it.
const MaxHeader = 16 << 20

// metadataKey is the one header entry that is not a tensor.
const metadataKey = "__metadata__"

// chunkBytes is the size of the pieces that are converted and written at once:
// small enough to stay in the cache between conversion and hashing.
const chunkBytes = 64 << 10

// Tensor is a named array of float32.
type Tensor struct {
	Name  string    // not empty, UTF-8, unique within a file
	Shape []int     // dimensions, outermost first; none for a scalar
	Data  []float32 // row-major; its length is the product of Shape
}

// Check tells what keeps the tensors from being written, nil if nothing does.
func Check(tensors []Tensor) error {
	seen := make(map[string]bool, len(tensors))
	for i, t := range tensors {
		switch {
		case t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name):
			return fmt.Errorf("tensor %d: %q can't be a name", i, t.Name)
		case seen[t.Name]:
			return fmt.Errorf("tensor %d: the name %q is taken", i, t.Name)
		}
		seen[t.Name] = true
		n, err := elements(t.Shape)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if n != len(t.Data) {
			return fmt.Errorf("tensor %q: shape %v has %d elements, the data %d", t.Name, t.Shape, n, len(t.Data))
		}
	}
	return nil
}

// elements is the product of the dimensions: at least 0, and small enough that
// as many float32 have a size in bytes.
func elements(shape []int) (int, error) {
	n := 1
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		if d > 0 && n > math.MaxInt/4/d {
			return 0, fmt.Errorf("shape %v is too large", shape)
		}
		n *= d
	}
	return n, nil
}

// Encoder holds what is to be written: the finished header and the tensors in
// the order of the file. It refers to the tensors' data and copies none of it.
type Encoder struct {
	prefix  []byte   // length and header
	tensors []Tensor // sorted by name
	size    int64
}

// NewEncoder prepares the tensors for writing. It panics if Check would
// complain or the header would exceed MaxHeader.
func NewEncoder(tensors []Tensor) *Encoder {
	if err := Check(tensors); err != nil {
		panic("safetensors: " + err.Error())
	}
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })

	prefix := appendHeader(make([]byte, 8), sorted)
	if len(prefix)-8 > MaxHeader {
		panic(fmt.Sprintf("safetensors: %d tensors need a header of %d bytes, more than %d", len(sorted), len(prefix)-8, MaxHeader))
	}
	binary.LittleEndian.PutUint64(prefix, uint64(len(prefix)-8))

	e := &Encoder{prefix: prefix, tensors: sorted, size: int64(len(prefix))}
	for _, t := range sorted {
		e.size += 4 * int64(len(t.Data))
	}
	return e
}

// Size is the length of the file in bytes.
func (e *Encoder) Size() int64 { return e.size }

// WriteTo writes the file. It may be called any number of times.
func (e *Encoder) WriteTo(w io.Writer) (int64, error) {
	out := chunked{w: w, buf: make([]byte, 0, chunkBytes)}
	out.bytes(e.prefix)
	for _, t := range e.tensors {
		out.floats(t.Data)
	}
	out.flush()
	return out.n, out.err
}

// chunked gathers what is written into full chunks. After the first error it
// takes everything and writes nothing.
type chunked struct {
	w   io.Writer
	buf []byte // what is not written yet; its capacity is a multiple of 4
	n   int64
	err error
}

func (c *chunked) bytes(p []byte) {
	for len(p) > 0 {
		k := min(len(p), cap(c.buf)-len(c.buf))
		c.buf = append(c.buf, p[:k]...)
		p = p[k:]
		c.flushIfFull()
	}
}

// floats converts little endian. The header's length is a multiple of eight, so
// a float32 never straddles two chunks.
func (c *chunked) floats(x []float32) {
	for len(x) > 0 {
		k := min(len(x), (cap(c.buf)-len(c.buf))/4)
		dst := c.buf[len(c.buf) : len(c.buf)+4*k]
		c.buf = c.buf[:len(c.buf)+4*k]
		for _, v := range x[:k] {
			binary.LittleEndian.PutUint32(dst, math.Float32bits(v))
			dst = dst[4:]
		}
		x = x[k:]
		c.flushIfFull()
	}
}

func (c *chunked) flushIfFull() {
	if len(c.buf) == cap(c.buf) {
		c.flush()
	}
}

func (c *chunked) flush() {
	if c.err == nil && len(c.buf) > 0 {
		var n int
		n, c.err = c.w.Write(c.buf)
		c.n += int64(n)
	}
	c.buf = c.buf[:0]
}

// appendHeader appends the JSON header with its padding. len(b) must be a
// multiple of eight.
func appendHeader(b []byte, tensors []Tensor) []byte {
	b = append(b, '{')
	offset := int64(0)
	for i, t := range tensors {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, t.Name)
		b = append(b, `:{"dtype":"F32","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(d), 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, offset, 10)
		offset += 4 * int64(len(t.Data))
		b = strconv.AppendInt(append(b, ','), offset, 10)
		b = append(b, "]}"...)
	}
	b = append(b, '}')
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	return b
}

// appendString appends s as a JSON string with no more escapes than JSON asks
// for, which is what the reference implementation writes.
func appendString(b []byte, s string) []byte {
	const short = "\b\t\n\f\r\"\\"
	const letter = "btnfr\"\\"
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		if j := strings.IndexByte(short, c); j >= 0 {
			b = append(b, '\\', letter[j])
		} else if c < 0x20 {
			b = fmt.Appendf(b, `\u%04x`, c)
		} else {
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// entry is a tensor's line of the header.
type entry struct {
	name  string
	DType string  `json:"dtype"`
	Shape []int   `json:"shape"`
	Range []int64 `json:"data_offsets"`
}

// Read reads a whole file of the given size in bytes, and exactly that many.
// The tensors come in the order of their data. Memory taken is bounded by a
// small multiple of size, which must therefore be what is really there, not
// what somebody claims. Errors name the tensor and what is wrong with it.
func Read(r io.Reader, size int64) ([]Tensor, error) {
	header, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	entries, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := checkLayout(entries, size-8-int64(len(header))); err != nil {
		return nil, err
	}
	return readData(r, entries)
}

func readHeader(r io.Reader, size int64) ([]byte, error) {
	var word [8]byte
	if size < 8 {
		return nil, fmt.Errorf("%d bytes are too few for a safetensors file", size)
	}
	if _, err := io.ReadFull(r, word[:]); err != nil {
		return nil, fmt.Errorf("read the header's length: %w", err)
	}
	n := binary.LittleEndian.Uint64(word[:])
	if n > MaxHeader || n > uint64(size-8) {
		return nil, fmt.Errorf("a header of %d bytes is more than the file has (%d) or the limit (%d)", n, size-8, MaxHeader)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	return header, nil
}

// parseHeader decodes the header token by token, because encoding/json would
// let the second of two equal names win in silence.
func parseHeader(header []byte) ([]entry, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, errors.New("does not begin with {")
	}
	dec := json.NewDecoder(bytes.NewReader(header))
	dec.DisallowUnknownFields()
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var entries []entry
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok || name == "" || seen[name] {
			return nil, fmt.Errorf("%q can't be a name here, or is one twice", token)
		}
		seen[name] = true
		e, err := parseEntry(dec, name)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		if name != metadataKey {
			entries = append(entries, e)
		}
	}
	return entries, endOfHeader(dec)
}

func parseEntry(dec *json.Decoder, name string) (entry, error) {
	if name == metadataKey {
		var ignored map[string]string
		return entry{}, dec.Decode(&ignored)
	}
	e := entry{name: name}
	if err := dec.Decode(&e); err != nil {
		return e, err
	}
	if e.DType != "F32" {
		return e, fmt.Errorf("dtype is %q, only F32 can be read", e.DType)
	}
	if e.Shape == nil || len(e.Range) != 2 {
		return e, errors.New("shape or data_offsets are missing or ill-formed")
	}
	return e, nil
}

// endOfHeader takes the closing brace and refuses anything but white space
// behind it.
func endOfHeader(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the closing brace")
	}
	return nil
}

// checkLayout sorts the entries by their data and checks that they tile the
// data exactly: no gap, no overlap, each as long as its shape says.
func checkLayout(entries []entry, dataBytes int64) error {
	slices.SortStableFunc(entries, func(a, b entry) int { return slices.Compare(a.Range, b.Range) })
	end := int64(0)
	for _, e := range entries {
		n, err := elements(e.Shape)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", e.name, err)
		}
		lo, hi := e.Range[0], e.Range[1]
		if lo != end || hi < lo || hi > dataBytes || hi-lo != 4*int64(n) {
			return fmt.Errorf("tensor %q: shape %v at bytes [%d, %d) of %d, where %d bytes from %d on were due",
				e.name, e.Shape, lo, hi, dataBytes, 4*int64(n), end)
		}
		end = hi
	}
	if end != dataBytes {
		return fmt.Errorf("the tensors end at byte %d, the data at %d", end, dataBytes)
	}
	return nil
}

func readData(r io.Reader, entries []entry) ([]Tensor, error) {
	buf := make([]byte, chunkBytes)
	tensors := make([]Tensor, 0, len(entries))
	for _, e := range entries {
		data := make([]float32, (e.Range[1]-e.Range[0])/4)
		if err := readFloats(r, data, buf); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", e.name, err)
		}
		tensors = append(tensors, Tensor{Name: e.name, Shape: e.Shape, Data: data})
	}
	return tensors, nil
}

func readFloats(r io.Reader, dst []float32, buf []byte) error {
	for len(dst) > 0 {
		k := min(len(dst), len(buf)/4)
		src := buf[:4*k]
		if _, err := io.ReadFull(r, src); err != nil {
			return err
		}
		for i := range dst[:k] {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src))
			src = src[4:]
		}
		dst = dst[k:]
	}
	return nil
}
