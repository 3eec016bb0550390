package dataset

import (
	"archive/zip"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dlnode/dlnode/dataset/archive"
)

// NPZ is arrays of NumPy: of an .npz, or of a directory, where array NAME is the
// file NAME.npy. The first axis counts samples, which keep the order of the arrays;
// the id of a sample is its row, the training ones first.
type NPZ struct {
	Path    string  `yaml:"path" json:"-"`        // relative paths start at Env.Dir
	X       string  `yaml:"x" json:"x"`           // name of the array of inputs
	Y       string  `yaml:"y" json:"y"`           // of the targets: [n] or [n, 1], or [n, k] for k of them
	XTest   string  `yaml:"x_test" json:"x_test"` // likewise of the test set; both or none
	YTest   string  `yaml:"y_test" json:"y_test"`
	Classes int     `yaml:"classes" json:"classes"` // y is class ids below it; 0: y is numbers
	Scale   float64 `yaml:"scale" json:"scale"`     // x is divided by it; images of bytes have 255
}

// Kind returns "npz".
func (*NPZ) Kind() string { return "npz" }

// Validate tells which field is missing or out of its range.
func (z *NPZ) Validate() error {
	var p problems
	p.unless(z.Path != "", "path", `""`, "the path of an .npz, or of a directory of .npy files")
	p.unless(z.X != "", "x", `""`, "the name of an array")
	p.unless(z.Y != "", "y", `""`, "the name of an array")
	p.unless((z.XTest == "") == (z.YTest == ""), "y_test", fmt.Sprintf("%q", z.YTest), "both arrays of the test set, or none")
	p.unless(z.Classes >= 0 && z.Classes != 1 && z.Classes <= maxClasses, "classes", z.Classes, fmt.Sprintf("0 for numbers, or 2 to %d", maxClasses))
	p.unless(z.Scale != 0 && !math.IsInf(z.Scale, 0) && !math.IsNaN(z.Scale), "scale", z.Scale, "a number other than 0")
	return errors.Join(p...)
}

func (z *NPZ) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	src, err := archive.Open(env.at(z.Path))
	if err != nil {
		return nil, nil, err
	}
	defer src.Close() // only read from
	digest, err := src.Digest(ctx)
	if err != nil {
		return nil, nil, err
	}
	return decodeOnce(ctx, env, z, digest, func(ctx context.Context, w *setWriter) error { return z.fill(ctx, env, w) })
}

func (z *NPZ) fill(ctx context.Context, env Env, w *setWriter) error {
	id := uint64(0)
	var shape []int
	for _, names := range [][2]string{{z.X, z.Y}, {z.XTest, z.YTest}} {
		if names[0] == "" {
			continue
		}
		x, err := openArray(env.at(z.Path), names[0])
		if err != nil {
			return err
		}
		defer x.Close() // only read from
		y, err := openArray(env.at(z.Path), names[1])
		if err != nil {
			return err
		}
		defer y.Close() // only read from
		if shape == nil {
			shape = x.shape[1:]
		}
		if err := z.fits(x, y, shape); err != nil {
			return err
		}
		if id, err = z.part(ctx, w, x, y, id); err != nil {
			return err
		}
	}
	return nil
}

// fits checks two arrays against one another, and x against the train set's.
func (z *NPZ) fits(x, y *array, shape []int) error {
	switch {
	case len(x.shape) < 2:
		return fmt.Errorf("%s: shape %v, want at least two axes: samples × their inputs", x.name, x.shape)
	case len(y.shape) < 1 || len(y.shape) > 2:
		return fmt.Errorf("%s: shape %v, want one axis or two: samples × their targets", y.name, y.shape)
	case x.shape[0] != y.shape[0]:
		return fmt.Errorf("%s: %d samples, but %s has %d", y.name, y.shape[0], x.name, x.shape[0])
	case !slices.Equal(x.shape[1:], shape):
		return fmt.Errorf("%s: samples are %v, but those of %s are %v", x.name, x.shape[1:], z.X, shape)
	case z.Classes > 0 && y.width() != 1 && y.width() != z.Classes:
		return fmt.Errorf("%s: %d targets a sample, want 1 or %d", y.name, y.width(), z.Classes)
	}
	return nil
}

// part packs one part. Bytes that are divided by 255 stay bytes.
func (z *NPZ) part(ctx context.Context, w *setWriter, x, y *array, id uint64) (uint64, error) {
	meta := packMeta{inFloats, Info{Name: "npz", Input: x.shape[1:], Target: y.width(), Classes: z.Classes}}
	bytes := x.kind == "u1" && z.Scale == 255
	if bytes {
		meta.Encoding = inBytes
	}
	p, err := w.part(meta)
	if err != nil {
		return id, err
	}
	var values, targets []float32
	for i := range x.shape[0] {
		if err := errors.Join(ctx.Err(), x.next(), y.next()); err != nil {
			return id, err
		}
		if values == nil { // only now is it known that there are so many
			values, targets = make([]float32, x.width()), make([]float32, y.width())
		}
		if err := z.targets(y, targets); err != nil {
			return id, fmt.Errorf("%s: sample %d: %w", y.name, i, err)
		}
		if bytes {
			err = p.addBytes(id, x.rec, targets...)
		} else if err = x.floats(values, z.Scale); err == nil {
			err = p.addFloats(id, values, targets...)
		}
		if err != nil {
			return id, fmt.Errorf("%s: sample %d: %w", x.name, i, err)
		}
		id++
		w.progress(i+1, x.shape[0])
	}
	return id, errors.Join(x.end(), y.end())
}

// targets takes those of the sample that y has read.
func (z *NPZ) targets(y *array, dst []float32) error {
	if err := y.floats(dst, 1); err != nil {
		return err
	}
	if z.Classes > 0 && len(dst) == 1 && !isClass(dst[0], z.Classes) {
		return fmt.Errorf("class id is %v, want an integer from 0 to %d", dst[0], z.Classes-1)
	}
	return nil
}

// array is an .npy file, read record by record.
type array struct {
	name  string // for people
	kind  string // as "f4"
	big   bool   // big-endian
	shape []int
	rec   []byte // the record read last
	read  int64  // bytes

	in      *bufio.Reader
	closers []io.Closer
}

func (a *array) Close() error {
	var err error
	for _, c := range slices.Backward(a.closers) {
		err = errors.Join(err, c.Close())
	}
	return err
}

// openArray opens an array of an .npz, or of a directory.
func openArray(path, name string) (a *array, err error) {
	a = &array{name: filepath.Join(path, name+".npy")}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
			a = nil
		}
	}()
	info, err := os.Stat(path)
	if err != nil {
		return a, err
	}
	if info.IsDir() {
		f, err := os.Open(a.name)
		if err != nil {
			return a, err
		}
		a.closers = append(a.closers, f)
		return a, a.start(f)
	}
	a.name = path + ": " + name
	z, err := zip.OpenReader(path)
	if err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	a.closers = append(a.closers, z)
	f, err := z.Open(name + ".npy")
	if errors.Is(err, fs.ErrNotExist) {
		var have []string
		for _, m := range z.File {
			have = append(have, strings.TrimSuffix(m.Name, ".npy"))
		}
		return a, fmt.Errorf("%s: there is no array %q (want one of %s)", path, name, strings.Join(have[:min(len(have), 20)], ", "))
	}
	if err != nil {
		return a, fmt.Errorf("%s: %w", a.name, err)
	}
	a.closers = append(a.closers, f)
	return a, a.start(f)
}

func (a *array) start(r io.Reader) error {
	a.in = bufio.NewReaderSize(r, 256<<10)
	if err := a.header(); err != nil {
		return fmt.Errorf("%s: offset %d: %w", a.name, a.read, err)
	}
	return nil
}

const (
	maxNPYHeader = 1 << 16
	maxNPYSample = 1 << 28 // bytes of one
	maxNPYAxes   = 32      // as NumPy had for long
)

// header reads the format that numpy.lib.format describes: a magic, two bytes of
// version, the length of a header of 2 or 4 bytes, and the header: a Python
// dictionary.
func (a *array) header() error {
	var head [8]byte
	if err := a.full(head[:]); err != nil {
		return err
	}
	if string(head[:6]) != "\x93NUMPY" || head[6] < 1 || head[6] > 3 {
		return fmt.Errorf("the file starts with % x, want \\x93NUMPY and a version from 1 to 3", head)
	}
	size := make([]byte, 4)
	if head[6] == 1 {
		size = size[:2]
	}
	if err := a.full(size); err != nil {
		return err
	}
	n := int(binary.LittleEndian.Uint16(size))
	if len(size) == 4 {
		n = int(min(binary.LittleEndian.Uint32(size), maxNPYHeader+1))
	}
	if n > maxNPYHeader {
		return fmt.Errorf("a header of more than %d bytes", maxNPYHeader)
	}
	text := make([]byte, n)
	if err := a.full(text); err != nil {
		return err
	}
	return a.parse(string(text))
}

func (a *array) full(b []byte) error {
	n, err := io.ReadFull(a.in, b)
	a.read += int64(n)
	return truncated(err)
}

var (
	npyDescr   = regexp.MustCompile(`'descr':\s*'([<>|=])(b1|[iuf][1248])'`)
	npyFortran = regexp.MustCompile(`'fortran_order':\s*(True|False)`)
	npyShape   = regexp.MustCompile(`'shape':\s*\(([\d,\s]*)\)`)
)

// shortHeader is what an error shows of a header.
func shortHeader(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

func (a *array) parse(text string) error {
	descr, fortran, shape := npyDescr.FindStringSubmatch(text), npyFortran.FindStringSubmatch(text), npyShape.FindStringSubmatch(text)
	switch {
	case descr == nil || descr[2] == "f1":
		return fmt.Errorf("the header is %q, want a 'descr' of bool, int, uint, float32 or float64", shortHeader(text))
	case descr[2] == "f2":
		return errors.New("the numbers are float16, want float32 or float64 (numpy.astype)")
	case fortran == nil || shape == nil:
		return fmt.Errorf("the header is %q, want 'fortran_order' and 'shape'", shortHeader(text))
	case fortran[1] == "True" && strings.Count(strings.Trim(shape[1], ", "), ",") > 0:
		return errors.New("the array lies in Fortran's order, want C's (numpy.ascontiguousarray)")
	}
	a.kind, a.big = descr[2], descr[1] == ">"
	width := int(a.kind[1] - '0')
	axes := strings.Split(strings.Trim(shape[1], ", "), ",")
	if len(axes) > maxNPYAxes {
		return fmt.Errorf("a shape of %d axes, want at most %d", len(axes), maxNPYAxes)
	}
	for i, s := range axes {
		d, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || d < 1 {
			return fmt.Errorf("shape (%s), want sizes of at least 1", shortHeader(shape[1]))
		}
		if i > 0 && width > maxNPYSample/d {
			return fmt.Errorf("shape (%s): a sample has more than %d bytes", shortHeader(shape[1]), maxNPYSample)
		}
		if i > 0 {
			width *= d
		}
		a.shape = append(a.shape, d)
	}
	return nil
}

// width returns the values of a sample.
func (a *array) width() int {
	n := 1
	for _, d := range a.shape[1:] {
		n *= d
	}
	return n
}

// next reads a sample. Memory for it grows with what comes.
func (a *array) next() error {
	want := a.width() * int(a.kind[1]-'0')
	if len(a.rec) != want {
		b, err := readExactly(a.in, int64(want))
		a.rec, a.read = b, a.read+int64(len(b))
		if err != nil {
			return fmt.Errorf("%s: offset %d: %w", a.name, a.read, err)
		}
		return nil
	}
	if err := a.full(a.rec); err != nil {
		return fmt.Errorf("%s: offset %d: %w", a.name, a.read, err)
	}
	return nil
}

// end makes sure that nothing follows; in a zip, its checksum is verified there.
func (a *array) end() error {
	if _, err := a.in.ReadByte(); err != io.EOF {
		if err == nil {
			err = errors.New("trailing bytes after the last sample")
		}
		return fmt.Errorf("%s: offset %d: %w", a.name, a.read, err)
	}
	return nil
}

// floats turns the record into values divided by scale. What float32 can't hold is
// an error; whole numbers must come out exactly if nothing divides them.
func (a *array) floats(dst []float32, scale float64) error {
	size := int(a.kind[1] - '0')
	for i := range dst {
		v, whole := a.value(a.rec[i*size:])
		dst[i] = float32(v / scale)
		switch {
		case math.IsNaN(v) || math.Abs(v/scale) > math.MaxFloat32:
			return fmt.Errorf("value %d is %v, want one that float32 can hold", i, v)
		case whole && scale == 1 && float64(dst[i]) != v:
			return fmt.Errorf("value %d is %v, which float32 can't hold exactly", i, v)
		}
	}
	return nil
}

// value reads one number.
func (a *array) value(b []byte) (v float64, whole bool) {
	var order binary.ByteOrder = binary.LittleEndian
	if a.big {
		order = binary.BigEndian
	}
	switch a.kind {
	case "f4":
		return float64(math.Float32frombits(order.Uint32(b))), false
	case "f8":
		return math.Float64frombits(order.Uint64(b)), false
	case "i1":
		return float64(int8(b[0])), true
	case "i2":
		return float64(int16(order.Uint16(b))), true
	case "i4":
		return float64(int32(order.Uint32(b))), true
	case "i8":
		return float64(int64(order.Uint64(b))), true
	case "u2":
		return float64(order.Uint16(b)), true
	case "u4":
		return float64(order.Uint32(b)), true
	case "u8":
		return float64(order.Uint64(b)), true
	}
	return float64(b[0]), true // u1, b1
}
