package train

import (
	"context"
	"math"
	"runtime"
	"testing"

	"github.com/dlnode/dlnode/internal/testjobs"
	"github.com/dlnode/dlnode/shard"
)

func TestMemoryIsWhatIsHeld(t *testing.T) {
	task := simTask(t)
	f := newFitter(t.Context(), task, 3, nil)
	defer f.pool.close()
	if _, err := f.run(); err != nil {
		t.Fatal(err)
	}
	m := task.Memory()
	if got, want := f.pool.engine.Bytes(), m.Sum+3*m.Worker; got != want {
		t.Errorf("the engine holds %d bytes, want %d", got, want)
	}
	held := func(s *State) (n int64) {
		for _, v := range append(s.slots[:len(s.slots):len(s.slots)], s.params, s.best) {
			n += int64(4 * len(v))
		}
		return n
	}
	if got := held(f.node.state); got != m.State {
		t.Errorf("the state holds %d bytes, want %d", got, m.State)
	}
	if got := held(f.node.spare); got != m.Copy {
		t.Errorf("its copy holds %d bytes, want %d", got, m.Copy)
	}
	if got := int64(4 * len(task.start.params)); got != m.Start {
		t.Errorf("the start holds %d bytes, want %d", got, m.Start)
	}
	if got := m.Total(2) - m.Total(1); got != m.Worker {
		t.Errorf("a second thread takes %d bytes, want %d", got, m.Worker)
	}
}

func TestTheEngineOfAnyTestJobHoldsWhatWasToldBefore(t *testing.T) {
	for _, f := range testJobs() {
		task := testTask(t, f)
		p := newPool(NewEngine(task, 2))
		p.close()
		need := task.Memory()
		if got, want := p.engine.Bytes(), need.Sum+2*need.Worker; got != want {
			t.Errorf("%s: the engine holds %d bytes, told were %d", f.Name, got, want)
		}
		p.engine.Sums()
		if got, want := p.engine.Bytes(), need.Sum+need.Mean+2*need.Worker; got != want {
			t.Errorf("%s: with others the engine holds %d bytes, told were %d", f.Name, got, want)
		}
	}
}

// The nets that are timed against others, in microbatches as they are trained.
const (
	bigMLP = `data: {synthetic: {samples: 130, test_samples: 1, features: 784, classes: 10}}
model: [{dense: {units: 1024, activation: relu}}, {dense: {units: 1024, activation: relu}}, {dense: {units: 10, activation: softmax}}]
batch: {global: 128, microbatch: 64}
`
	bigCNN = `data: {synthetic: {samples: 40, test_samples: 1, features: 784, classes: 10}}
model:
  - reshape: {target_shape: [28, 28, 1]}
  - conv2d: {filters: 32, kernel_size: 3, activation: relu}
  - conv2d: {filters: 64, kernel_size: 3, activation: relu}
  - max_pooling2d
  - batch_normalization
  - flatten
  - dropout: {rate: 0.25}
  - dense: {units: 128, activation: relu}
  - dense: {units: 10, activation: softmax}
batch: {global: 32, microbatch: 32}
`
	bigLSTM = `data: {synthetic: {samples: 20, test_samples: 1, features: 200, classes: 2, vocabulary: 10000}}
model:
  - embedding: {input_dim: 10000, output_dim: 128, mask_zero: true}
  - lstm: {units: 128, dropout: 0.2, recurrent_dropout: 0.1}
  - dense: {units: 2, activation: softmax}
batch: {global: 16, microbatch: 16}
`
)

// What is told before training is what the process then takes from the system's
// memory, packing buffers of kernels and all, to a tenth.
func TestWhatIsAllocatedWasToldBefore(t *testing.T) {
	if testing.Short() {
		t.Skip("an emulator takes a minute")
	}
	for name, text := range map[string]string{"mlp": bigMLP, "cnn": bigCNN, "lstm": bigLSTM} {
		task := testTask(t, testjobs.File{Name: name, Text: []byte(text + "loss: sparse_categorical_crossentropy\n")})
		s := task.Start()
		a := task.attempt(s)
		before := heap()
		e := NewEngine(task, 1)
		if _, err := e.Compute(context.Background(), a, shard.Range{Hi: task.microbatches(a)}, s.params, nil); err != nil {
			t.Fatal(err)
		}
		got := float64(heap() - before)
		runtime.KeepAlive([]any{e, s})
		need := task.Memory()
		want := float64(need.Sum + need.Worker)
		t.Logf("%s: %d parameters: told %.2f MB, allocated %.2f MB (%+.1f %%)", name, task.Model.NumParams(), want/1e6, got/1e6, 100*(got/want-1))
		if math.Abs(got-want) > 0.1*want {
			t.Errorf("%s: %.0f bytes are allocated, told were %.0f", name, got, want)
		}
	}
}

// heap returns how many bytes are reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
