package checkpoint_test

import (
	"bytes"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/checkpoint/memfs"
)

const dir = "/runs/mnist/checkpoints"

// trajectory is a T whose first byte tells it from others.
func trajectory(first byte) [32]byte {
	t := [32]byte{first}
	for i := range t[1:] {
		t[i+1] = byte(i)
	}
	return t
}

// snapshot returns the state after a transition of the trajectory 'T'.
func snapshot(transition uint64) *checkpoint.Snapshot {
	x := float32(transition)
	return &checkpoint.Snapshot{
		Trajectory: trajectory('T'), Transition: transition, Step: transition - transition/10, Epoch: int(transition / 100),
		Meta: []byte(`{"history":[]}`),
		Job:  []byte(`{"seed":1}`),
		Data: []byte(`{"class_names":["cat","dog"]}`),
		Model: []checkpoint.Tensor{
			{Name: "dense_1/kernel", Shape: []int{2, 3}, Data: []float32{x, 1, -2, 0.5, float32(math.Inf(1)), 1e-45}},
			{Name: "dense_1/bias", Shape: []int{3}, Data: []float32{0, float32(math.Copysign(0, -1)), x / 3}},
		},
		State: []checkpoint.Tensor{
			{Name: "adam/m", Shape: []int{9}, Data: []float32{1, 2, 3, 4, 5, 6, 7, 8, x}},
			{Name: "adam/v", Shape: []int{9}, Data: make([]float32, 9)},
		},
	}
}

func pathOf(s *checkpoint.Snapshot) string {
	const ofT = "5400010203040506" // 'T', then 0, 1, 2, …
	name := "000000000000"
	digits := []byte(name)
	for i, t := len(digits)-1, s.Transition; t > 0; i, t = i-1, t/10 {
		digits[i] = '0' + byte(t%10)
	}
	return filepath.Join(dir, ofT, string(digits))
}

func open(t rapid.TB, fsys checkpoint.FS) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(fsys, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func save(t rapid.TB, s *checkpoint.Store, snap *checkpoint.Snapshot) checkpoint.Saved {
	t.Helper()
	saved, err := s.Save(snap)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

// diskWith returns a disk that holds the checkpoints of these transitions.
func diskWith(t rapid.TB, transitions ...uint64) *memfs.Disk {
	t.Helper()
	d := memfs.NewDisk()
	s := open(t, d.Process())
	for _, transition := range transitions {
		save(t, s, snapshot(transition))
	}
	return d
}

// latest is the newest transition that a fresh process believes, 0 if there is
// none. What it reads must be the state of that transition to the bit.
func latest(t rapid.TB, d *memfs.Disk) (uint64, []checkpoint.Skipped) {
	t.Helper()
	got, skipped, err := open(t, d.Process()).Latest(trajectory('T'))
	if got == nil {
		if err == nil {
			t.Fatal("neither a state nor an error")
		}
		return 0, skipped
	}
	if err != nil {
		t.Fatal(err)
	}
	requireSame(t, got, snapshot(got.Transition))
	return got.Transition, skipped
}

func requireSame(t rapid.TB, got, want *checkpoint.Snapshot) {
	t.Helper()
	if got.Trajectory != want.Trajectory || got.Transition != want.Transition || got.Step != want.Step || got.Epoch != want.Epoch ||
		!bytes.Equal(got.Meta, want.Meta) || !bytes.Equal(got.Job, want.Job) || !bytes.Equal(got.Data, want.Data) ||
		!sameTensors(got.Model, want.Model) || !sameTensors(got.State, want.State) {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
}

func sameTensors(a, b []checkpoint.Tensor) bool {
	byName := func(a, b checkpoint.Tensor) int { return strings.Compare(a.Name, b.Name) }
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, byName)
	slices.SortFunc(b, byName)
	return slices.EqualFunc(a, b, func(x, y checkpoint.Tensor) bool {
		return x.Name == y.Name && slices.Equal(x.Shape, y.Shape) &&
			slices.EqualFunc(x.Data, y.Data, func(p, q float32) bool { return math.Float32bits(p) == math.Float32bits(q) })
	})
}

// leftovers are the temporary and dead directories on a disk.
func leftovers(d *memfs.Disk) []string {
	return slices.DeleteFunc(d.Paths(), func(path string) bool {
		return !strings.HasPrefix(filepath.Base(path), ".")
	})
}
