package safetensors

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func encode(t testing.TB, tensors []Tensor) []byte {
	t.Helper()
	var buf bytes.Buffer
	e := NewEncoder(tensors)
	n, err := e.WriteTo(&buf)
	if err != nil || n != e.Size() || int64(buf.Len()) != n {
		t.Fatalf("WriteTo = %d, %v; %d bytes came, Size is %d", n, err, buf.Len(), e.Size())
	}
	return buf.Bytes()
}

func decode(b []byte) ([]Tensor, error) { return Read(bytes.NewReader(b), int64(len(b))) }

// file puts a header of one's own before some data.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// bitsEqual compares every bit, so that a NaN equals itself and -0 is not +0.
func bitsEqual(a, b Tensor) bool {
	return a.Name == b.Name && slices.Equal(a.Shape, b.Shape) &&
		slices.EqualFunc(a.Data, b.Data, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// The bytes were written once by the reference implementation:
// safetensors.numpy.save({...}) of the Python package safetensors 0.8.0.
func TestTheBytesAreThoseOfTheReferenceImplementation(t *testing.T) {
	got := encode(t, []Tensor{
		{"dense_1/kernel", []int{2, 3}, []float32{0, 1, 2, 3, 4, 5}},
		{"dense_1/bias", []int{3}, []float32{-1, 0.5, float32(math.Inf(1))}},
		{"scalar", []int{}, []float32{7}},
		{"a \"quoted\"\tname <&>\u2028", []int{1}, []float32{1e-45}},
		{"empty", []int{0, 4}, nil},
	})
	if sum := fmt.Sprintf("%x", sha256.Sum256(got)); sum != reference {
		t.Errorf("sha256 is %s, want %s; the bytes are\n%q", sum, reference, got)
	}
}

const reference = "5c65fbbaa14ece89a02818c60371ad4f99efe910608fcc2cfaddececeb0475f8"

func TestWhatIsWrittenIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawTensors(t)
		b := func() []byte {
			var buf bytes.Buffer
			if _, err := NewEncoder(want).WriteTo(&buf); err != nil {
				t.Fatal(err)
			}
			return buf.Bytes()
		}()
		got, err := decode(b)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(want, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
		if !slices.EqualFunc(got, want, bitsEqual) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func drawTensors(t *rapid.T) []Tensor {
	names := rapid.SliceOfNDistinct(rapid.StringN(1, 12, -1), 0, 5, rapid.ID).Draw(t, "names")
	var tensors []Tensor
	for _, name := range names {
		if name == metadataKey || strings.ToValidUTF8(name, "") != name {
			continue
		}
		shape := rapid.SliceOfN(rapid.IntRange(0, 4), 0, 3).Draw(t, "shape")
		n, err := elements(shape)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]float32, n)
		for i := range data {
			data[i] = math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
		}
		tensors = append(tensors, Tensor{name, shape, data})
	}
	return tensors
}

func TestTheOrderInMemoryDoesNotMatter(t *testing.T) {
	a := Tensor{"a", []int{2}, []float32{1, 2}}
	b := Tensor{"b", []int{1}, []float32{3}}
	if x, y := encode(t, []Tensor{a, b}), encode(t, []Tensor{b, a}); !bytes.Equal(x, y) {
		t.Errorf("%q and %q", x, y)
	}
}

func TestTensorsLongerThanAChunkSurvive(t *testing.T) {
	want := Tensor{"long", []int{3*chunkBytes/4 + 5}, make([]float32, 3*chunkBytes/4+5)}
	for i := range want.Data {
		want.Data[i] = float32(i)
	}
	got, err := decode(encode(t, []Tensor{want, {"one", []int{1}, []float32{1}}}))
	if err != nil || !bitsEqual(got[0], want) {
		t.Errorf("err %v, or another tensor came back", err)
	}
}

func TestWhatTheFormatAllowsIsRead(t *testing.T) {
	b := file(`{"__metadata__":{"format":"pt"}, "b":{"shape":[1],"data_offsets":[0,4],"dtype":"F32"},`+
		`"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}   `, 8)
	got, err := decode(b)
	if err != nil || len(got) != 2 || got[0].Name != "b" || got[1].Name != "a" {
		t.Errorf("got %v, %v", got, err)
	}
}

// hostile files, each with a word of the complaint.
var hostile = []struct {
	name, complaint string
	bytes           []byte
}{
	{"nothing", "too few", nil},
	{"a length alone", "header", file("", 0)},
	{"a header longer than the file", "more than", file("{}", 0)[:9]},
	{"a header of 2^64-1 bytes", "more than", bytes.Repeat([]byte{0xff}, 8)},
	{"a header over the limit", "more than", binary.LittleEndian.AppendUint64(nil, MaxHeader+1)},
	{"no brace", "{", file(` {}`, 0)},
	{"half a header", "header", file(`{"a":{"dtype":"F32"`, 0)},
	{"something behind the brace", "follows", file(`{}{}`, 0)},
	{"data without a tensor", "end at byte", file(`{}`, 4)},
	{"an array", "{", file(`[]`, 0)},
	{"a number for an entry", "cannot unmarshal", file(`{"a":1}`, 4)},
	{"an empty name", "name", file(`{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4)},
	{"another dtype", "F64", file(`{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}`, 8)},
	{"no shape", "shape", file(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, 4)},
	{"three offsets", "data_offsets", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}`, 4)},
	{"an unknown field", "unknown", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, 4)},
	{"a negative dimension", "negative", file(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4)},
	{"a product that overflows", "too large", file(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}`, 4)},
	{"a tensor larger than the file", "of 4", file(`{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}`, 4)},
	{"offsets backwards", "bytes [4, 0)", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4)},
	{"negative offsets", "bytes [-4, 0)", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4)},
	{"a gap", "from 0 on", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8)},
	{"an overlap", "from 4 on", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4)},
	{"one name twice", "twice", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8)},
	{"shape and offsets at odds", "8 bytes from 0", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4)},
	{"metadata that isn't text", "__metadata__", file(`{"__metadata__":{"a":1}}`, 0)},
}

func TestHostileFilesAreRefusedWithAReason(t *testing.T) {
	for _, h := range hostile {
		if _, err := decode(h.bytes); err == nil || !strings.Contains(err.Error(), h.complaint) {
			t.Errorf("%s: error is %v, want one with %q", h.name, err, h.complaint)
		}
	}
}

func TestHostileFilesTakeLittleMemory(t *testing.T) {
	for _, h := range hostile {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decode(h.bytes)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%s (%v): took %d bytes", h.name, err, got)
		}
	}
}

func TestEveryTruncationIsAnError(t *testing.T) {
	whole := encode(t, []Tensor{{"a", []int{2, 2}, []float32{1, 2, 3, 4}}})
	for n := range whole {
		if _, err := decode(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes were enough", n, len(whole))
		}
		if _, err := Read(bytes.NewReader(whole[:n]), int64(len(whole))); err == nil {
			t.Errorf("a reader that ends after %d of %d bytes was enough", n, len(whole))
		}
	}
}

func TestBrokenPromisesPanic(t *testing.T) {
	for name, tensors := range map[string][]Tensor{
		"length":   {{"a", []int{2}, []float32{1}}},
		"no name":  {{"", []int{1}, []float32{1}}},
		"reserved": {{metadataKey, []int{1}, []float32{1}}},
		"not utf8": {{"\xff", []int{1}, []float32{1}}},
		"twice":    {{"a", []int{0}, nil}, {"a", []int{0}, nil}},
		"negative": {{"a", []int{-1}, nil}},
		"too long": {{strings.Repeat("x", MaxHeader), []int{0}, nil}},
	} {
		func() {
			defer func() {
				if p, _ := recover().(string); !strings.HasPrefix(p, "safetensors: ") {
					t.Errorf("%s: recovered %q", name, p)
				}
			}()
			NewEncoder(tensors)
		}()
	}
}

type failingWriter struct{ room int }

var errFull = errors.New("full")

func (w *failingWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.room)
	w.room -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestWriteErrorsComeBack(t *testing.T) {
	e := NewEncoder([]Tensor{{"a", []int{chunkBytes}, make([]float32, chunkBytes)}})
	n, err := e.WriteTo(&failingWriter{room: chunkBytes + 10})
	if !errors.Is(err, errFull) || n != chunkBytes+10 {
		t.Errorf("WriteTo = %d, %v", n, err)
	}
}

// What is read must be what is written again, up to the order and the padding.
func FuzzRead(f *testing.F) {
	for _, h := range hostile {
		f.Add(h.bytes)
	}
	f.Add(encode(f, []Tensor{{"a", []int{2}, []float32{1, 2}}, {"b", []int{}, []float32{3}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decode(b)
		if err != nil || Check(first) != nil {
			return
		}
		again, err := decode(encode(t, first))
		slices.SortFunc(first, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
		if err != nil || !slices.EqualFunc(first, again, bitsEqual) {
			t.Errorf("%v became %v, %v", first, again, err)
		}
	})
}
