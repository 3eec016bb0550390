package checkpoint_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/checkpoint"
)

// These change only with the format, and then with its version. A state of which
// nobody tells what its samples mean has the bytes that it had in version 1.
const (
	goldenDigest = "b6a1e5916afdca18188a9d0cab1c7e898bbc42459d7c0fe2428cac520dbd479b"
	goldenModel  = "59a1ab6f23b3ee852b2d78109519c688195a4fca133220773711344c6d319a28"
	goldenBlob   = "b6e94afb3fcc0906670840bc4b1e1e38bf98c3d1c14d1d8d1bfc50f2bac13fd8"

	plainDigest = "564481b35efaf2f221a89fab515520ea99d36be93eb9c66d36e652b2ba612a9c"
	plainBlob   = "ad2e415cf0e97e2e26adf851c7423d870648a7c95de16e7203c056a9100bf0dc"
)

func TestBytesAreAFunctionOfTheSnapshotAlone(t *testing.T) {
	s := snapshot(123)
	slices.Reverse(s.Model)
	plain := snapshot(123)
	plain.Data = nil
	for name, v := range map[string]struct{ got, want string }{
		"digest":       {fmt.Sprintf("%x", checkpoint.Digest(s)), goldenDigest},
		"model digest": {fmt.Sprintf("%x", checkpoint.ModelDigest(s)), goldenModel},
		"blob":         {fmt.Sprintf("%x", sha256.Sum256(checkpoint.Marshal(s))), goldenBlob},
		"plain digest": {fmt.Sprintf("%x", checkpoint.Digest(plain)), plainDigest},
		"plain blob":   {fmt.Sprintf("%x", sha256.Sum256(checkpoint.Marshal(plain))), plainBlob},
	} {
		if v.got != v.want {
			t.Errorf("%s is %s, want %s", name, v.got, v.want)
		}
	}
}

func TestEveryPartOfASnapshotIsInItsDigest(t *testing.T) {
	seen := map[[32]byte]string{checkpoint.Digest(snapshot(7)): "nothing"}
	for name, change := range map[string]func(*checkpoint.Snapshot){
		"trajectory": func(s *checkpoint.Snapshot) { s.Trajectory[31]++ },
		"transition": func(s *checkpoint.Snapshot) { s.Transition++ },
		"step":       func(s *checkpoint.Snapshot) { s.Step++ },
		"epoch":      func(s *checkpoint.Snapshot) { s.Epoch++ },
		"meta":       func(s *checkpoint.Snapshot) { s.Meta = []byte("{}") },
		"job":        func(s *checkpoint.Snapshot) { s.Job = []byte("{}") },
		"data":       func(s *checkpoint.Snapshot) { s.Data = []byte("{}") },
		"no data":    func(s *checkpoint.Snapshot) { s.Data, s.Job = nil, append(s.Job, s.Data...) },
		"model":      func(s *checkpoint.Snapshot) { s.Model[1].Data[0] = float32(math.Copysign(0, -1)) },
		"state":      func(s *checkpoint.Snapshot) { s.State[1].Data[8] = 1e-45 },
		"name":       func(s *checkpoint.Snapshot) { s.Model[0].Name += "x" },
		"shape":      func(s *checkpoint.Snapshot) { s.Model[0].Shape = []int{3, 2} },
		"exchanged":  func(s *checkpoint.Snapshot) { s.Model, s.State = s.State, s.Model },
	} {
		s := snapshot(7)
		change(s)
		d := checkpoint.Digest(s)
		if other, dup := seen[d]; dup {
			t.Errorf("%s changed and %s changed give one digest", name, other)
		}
		seen[d] = name
	}
}

func TestABlobBringsBackTheSnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawSnapshot(t)
		blob := checkpoint.Marshal(want)
		got, err := checkpoint.Unmarshal(blob)
		if err != nil {
			t.Fatal(err)
		}
		requireSame(t, got, want)
		digest, transition, err := checkpoint.BlobDigest(blob)
		if err != nil || digest != checkpoint.Digest(want) || digest != checkpoint.Digest(got) || transition != want.Transition {
			t.Fatalf("BlobDigest = %x, %d, %v", digest, transition, err)
		}
	})
}

func drawSnapshot(t *rapid.T) *checkpoint.Snapshot {
	return &checkpoint.Snapshot{
		Trajectory: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "T")),
		Transition: rapid.Uint64().Draw(t, "transition"),
		Step:       rapid.Uint64().Draw(t, "step"),
		Epoch:      rapid.IntRange(0, math.MaxInt32).Draw(t, "epoch"),
		Meta:       rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "meta"),
		Job:        rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "job"),
		Data:       rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data"),
		Model:      drawTensors(t, "model"),
		State:      drawTensors(t, "state"),
	}
}

func drawTensors(t *rapid.T, label string) []checkpoint.Tensor {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zäß_0-9/"\\]{1,8}`), 0, 4, rapid.ID).Draw(t, label)
	tensors := make([]checkpoint.Tensor, 0, len(names))
	for _, name := range names {
		rows, cols := rapid.IntRange(0, 3).Draw(t, "rows"), rapid.IntRange(0, 3).Draw(t, "cols")
		data := make([]float32, rows*cols)
		for i := range data {
			data[i] = math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
		}
		tensors = append(tensors, checkpoint.Tensor{Name: name, Shape: []int{rows, cols}, Data: data})
	}
	return tensors
}

func TestEveryFlippedBitOfABlobIsRefused(t *testing.T) {
	blob := checkpoint.Marshal(snapshot(9))
	for bit := range 8 * len(blob) {
		blob[bit/8] ^= 1 << (bit % 8)
		if _, err := checkpoint.Unmarshal(blob); err == nil {
			t.Fatalf("bit %d of byte %d of %d may be flipped", bit%8, bit/8, len(blob))
		}
		blob[bit/8] ^= 1 << (bit % 8)
	}
}

func TestABlobOfAnotherLengthIsRefused(t *testing.T) {
	blob := checkpoint.Marshal(snapshot(9))
	for n := range blob {
		if _, err := checkpoint.Unmarshal(blob[:n]); err == nil {
			t.Fatalf("%d of %d bytes were enough", n, len(blob))
		}
	}
	if _, err := checkpoint.Unmarshal(append(blob, 0)); err == nil || !strings.Contains(err.Error(), "1 bytes too many") {
		t.Errorf("one byte more: %v", err)
	}
}

func TestBlobsShareNoMemoryWithSnapshots(t *testing.T) {
	want := snapshot(9)
	blob := checkpoint.Marshal(want)
	got, err := checkpoint.Unmarshal(blob)
	if err != nil {
		t.Fatal(err)
	}
	clear(blob)
	requireSame(t, got, want)
}

// A manifest may promise anything; memory is taken for what is there only.
func TestHostileBlobsTakeLittleMemory(t *testing.T) {
	honest := checkpoint.Marshal(snapshot(9))
	long := bytes.Clone(honest)
	binary.LittleEndian.PutUint32(long[8:], math.MaxUint32)
	for name, blob := range map[string][]byte{
		"nothing":               nil,
		"magic alone":           honest[:8],
		"endless manifest":      long,
		"files that don't come": honest[:len(honest)-200],
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := checkpoint.Unmarshal(blob)
		runtime.ReadMemStats(&after)
		if err == nil || after.TotalAlloc-before.TotalAlloc > 1<<20 {
			t.Errorf("%s: error %v, %d bytes taken", name, err, after.TotalAlloc-before.TotalAlloc)
		}
	}
}

func TestBrokenSnapshotsPanic(t *testing.T) {
	for name, spoil := range map[string]func(*checkpoint.Snapshot){
		"epoch":  func(s *checkpoint.Snapshot) { s.Epoch = -1 },
		"length": func(s *checkpoint.Snapshot) { s.State[0].Shape = []int{8} },
		"name":   func(s *checkpoint.Snapshot) { s.Model[1].Name = s.Model[0].Name },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			s := snapshot(1)
			spoil(s)
			checkpoint.Digest(s)
		}()
	}
}

func TestTensorsAreFoundByName(t *testing.T) {
	s := snapshot(1)
	if v, ok := checkpoint.Find(s.State, "adam/v"); !ok || v.Name != "adam/v" {
		t.Errorf("Find = %v, %v", v, ok)
	}
	if _, ok := checkpoint.Find(s.State, "adam"); ok {
		t.Error("found what is not there")
	}
}

// Whatever is believed must survive the way back.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("dlnode\xf5\x01\xff\xff\xff\xff"))
	f.Add(checkpoint.Marshal(&checkpoint.Snapshot{}))
	f.Add(checkpoint.Marshal(snapshot(9)))
	f.Add(checkpoint.Marshal(snapshot(9))[:700])
	f.Fuzz(func(t *testing.T, blob []byte) {
		s, err := checkpoint.Unmarshal(blob)
		if err != nil {
			return
		}
		again, err := checkpoint.Unmarshal(checkpoint.Marshal(s))
		if err != nil {
			t.Fatal(err)
		}
		requireSame(t, again, s)
	})
}

func BenchmarkMarshal100MB(b *testing.B) {
	s := large(100 << 20)
	b.SetBytes(100 << 20)
	for b.Loop() {
		checkpoint.Marshal(s)
	}
}

func BenchmarkDigest100MB(b *testing.B) {
	s := large(100 << 20)
	b.SetBytes(100 << 20)
	for b.Loop() {
		checkpoint.Digest(s)
	}
}

func BenchmarkUnmarshal100MB(b *testing.B) {
	blob := checkpoint.Marshal(large(100 << 20))
	b.SetBytes(100 << 20)
	for b.Loop() {
		if _, err := checkpoint.Unmarshal(blob); err != nil {
			b.Fatal(err)
		}
	}
}

// large is a snapshot of Adam's proportions: parameters and two slots.
func large(bytes int) *checkpoint.Snapshot {
	n := bytes / 12
	vector := func(name string) checkpoint.Tensor {
		return checkpoint.Tensor{Name: name, Shape: []int{n}, Data: make([]float32, n)}
	}
	s := snapshot(1)
	s.Model = []checkpoint.Tensor{vector("w")}
	s.State = []checkpoint.Tensor{vector("m"), vector("v")}
	for i := range s.Model[0].Data {
		s.Model[0].Data[i] = float32(i)
	}
	return s
}
