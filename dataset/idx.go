package dataset

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
)

// MaxIDXBytes bounds what one IDX file may hold once decompressed: 4 GiB, or
// 1 GiB where an int has 32 bits.
const MaxIDXBytes int64 = min(4<<30, math.MaxInt>>1+1)

const (
	idxUbyte   = 0x08 // the element type of every image data set in this format
	idxMaxDims = 8    // images have 3, colour images 4
)

// IDX is a decoded IDX file, the format of MNIST and its successors:
//
//	offset 0       two zero bytes
//	offset 2       element type, 0x08 for unsigned bytes
//	offset 3       number of dimensions d
//	offset 4       d sizes, uint32 big-endian; the first counts records
//	offset 4 + 4d  the elements, last dimension fastest
//
// Source: the page of the MNIST database by LeCun, Cortes and Burges.
type IDX struct {
	Dims []int  // one or more, each at least 1
	Data []byte // product of Dims
}

// Len returns the number of records.
func (x *IDX) Len() int { return x.Dims[0] }

// RecordLen returns the bytes of one record.
func (x *IDX) RecordLen() int {
	n := 1
	for _, d := range x.Dims[1:] {
		n *= d
	}
	return n
}

// offset returns where record i starts in the decompressed file.
func (x *IDX) offset(i int) int64 {
	return int64(4+4*len(x.Dims)) + int64(i)*int64(x.RecordLen())
}

// DecodeIDX reads one IDX file of unsigned bytes, plain or gzip-compressed, to
// its end. Errors name the offset (in the decompressed bytes) and what was seen
// and wanted there. Hostile input costs no more memory than about four times
// what it really holds, and never more than maxBytes of data.
func DecodeIDX(r io.Reader, maxBytes int64) (*IDX, error) {
	plain, err := gunzip(r)
	if err != nil {
		return nil, err
	}
	in := &countingReader{r: plain}
	dims, size, err := readIDXHeader(in, maxBytes)
	if err != nil {
		return nil, err
	}
	data, err := readExactly(in, size)
	if err != nil {
		return nil, fmt.Errorf("offset %d: %w after %d of %d bytes of data (dimensions %v)", in.n, err, len(data), size, dims)
	}
	if err := expectEnd(in); err != nil {
		return nil, err
	}
	return &IDX{Dims: dims, Data: data}, nil
}

// readIDXFile decodes the file at path, which starts every error.
func readIDXFile(path string) (*IDX, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // carries the path
	}
	defer f.Close() // read only: nothing is lost by a failing close
	x, err := DecodeIDX(f, MaxIDXBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return x, nil
}

// gunzip returns the decompressed bytes of r, or r itself if it is not gzip.
// The formats can't be mixed up: IDX starts with 00 00, gzip with 1f 8b.
func gunzip(r io.Reader) (io.Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("offset 0: %w", err)
	}
	if len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
		return br, nil
	}
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, fmt.Errorf("gzip header: %w", truncated(err))
	}
	return z, nil
}

// readIDXHeader returns the dimensions and their product in bytes.
func readIDXHeader(in *countingReader, maxBytes int64) (dims []int, size int64, err error) {
	var b [4 * idxMaxDims]byte
	if _, err := io.ReadFull(in, b[:4]); err != nil {
		return nil, 0, fmt.Errorf("offset %d: %w in the IDX header", in.n, truncated(err))
	}
	if err := checkMagic([4]byte(b[:4])); err != nil {
		return nil, 0, err
	}
	sizes := b[:4*int(b[3])]
	if _, err := io.ReadFull(in, sizes); err != nil {
		return nil, 0, fmt.Errorf("offset %d: %w in the IDX header", in.n, truncated(err))
	}
	return parseDims(sizes, maxBytes)
}

func checkMagic(m [4]byte) error {
	switch {
	case m[0] != 0 || m[1] != 0:
		return fmt.Errorf("offset 0: IDX magic starts with %02x %02x, want 00 00 (or 1f 8b, gzip)", m[0], m[1])
	case m[2] != idxUbyte:
		return fmt.Errorf("offset 2: IDX element type is 0x%02x, want 0x%02x (unsigned byte)", m[2], idxUbyte)
	case m[3] < 1 || m[3] > idxMaxDims:
		return fmt.Errorf("offset 3: IDX has %d dimensions, want 1 to %d", m[3], idxMaxDims)
	}
	return nil
}

// parseDims reads the sizes and multiplies them, never beyond maxBytes.
func parseDims(sizes []byte, maxBytes int64) (dims []int, size int64, err error) {
	size = 1
	for axis := range len(sizes) / 4 {
		d := int64(binary.BigEndian.Uint32(sizes[4*axis:]))
		if d == 0 && axis == 0 {
			return nil, 0, errors.New("offset 4: zero samples, want at least 1")
		}
		if d == 0 {
			return nil, 0, fmt.Errorf("offset %d: IDX dimension %d is 0, want at least 1", 4+4*axis, axis)
		}
		if size > maxBytes/d {
			return nil, 0, fmt.Errorf("offset %d: IDX dimension %d is %d, which makes more than %d bytes in all",
				4+4*axis, axis, d, maxBytes)
		}
		size *= d
		dims = append(dims, int(d))
	}
	return dims, size, nil
}

// readExactly reads n bytes. The buffer follows what has come, not what was
// promised: it grows fourfold, from 1 MiB.
func readExactly(r io.Reader, n int64) ([]byte, error) {
	buf := make([]byte, 0, min(n, 1<<20))
	for int64(len(buf)) < n {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, int(min(n-int64(len(buf)), 3*int64(len(buf)))))
		}
		room := buf[len(buf):min(int64(cap(buf)), n)]
		m, err := io.ReadFull(r, room)
		buf = buf[:len(buf)+m]
		if err != nil {
			return buf, truncated(err)
		}
	}
	return buf, nil
}

// expectEnd makes sure that nothing follows; for gzip, this is also where its
// checksum is verified.
func expectEnd(in *countingReader) error {
	end := in.n
	var b [1]byte
	switch _, err := io.ReadFull(in, b[:]); {
	case err == nil:
		return fmt.Errorf("offset %d: trailing bytes after the last record, the first is 0x%02x", end, b[0])
	case errors.Is(err, gzip.ErrHeader):
		return fmt.Errorf("offset %d: trailing bytes after the gzip stream", end)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("offset %d: %w", end, truncated(err))
	}
	return nil
}

// errTruncated stands for io.EOF and io.ErrUnexpectedEOF, in words.
var errTruncated = errors.New("the file ends too early")

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}

// countingReader knows the offset of what it reads next.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
