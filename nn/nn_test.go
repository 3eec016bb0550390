package nn

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/rng"
	"pgregory.net/rapid"
)

// tutorial is the network of the Keras beginners' tutorial, which MNIST trains.
func tutorial() Spec {
	return Spec{
		Layers:  []LayerSpec{NewFlatten(), NewDense(128, "relu"), NewDropout(0.2), NewDense(10, "softmax")},
		Loss:    sparseCE,
		Metrics: []string{accuracy},
	}
}

func mustBuild(t testing.TB, spec Spec, input []int, target Target) *Model {
	t.Helper()
	m, err := Build(spec, input, target)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tutorialBatch is the tutorial's model with its first weights and n samples.
func tutorialBatch(t testing.TB, n int) (*Model, []float32, *Batch) {
	m := mustBuild(t, tutorial(), []int{28, 28}, Target{Len: 1, Classes: 10})
	params := make([]float32, m.NumParams())
	m.Init(1, params)
	b := &Batch{N: n, X: someFloats(2, n*m.InputLen()), Y: make([]float32, n), IDs: make([]uint64, n)}
	for i := range n {
		b.Y[i] = float32(i % 10)
		b.IDs[i] = uint64(1000 + 7*i)
	}
	return m, params, b
}

// sameBits compares NaN with NaN and tells +0 from -0.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func sameBits64(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
}

// Invariant I5 at the level of a model: drawn models of any width, and then the
// tutorial's, whose rows are long enough for every tile of the kernels.
func TestASampleGivesTheSameBitsInEveryBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		m, err := Build(c.spec, c.input, c.target)
		if err != nil {
			t.Fatal(err)
		}
		b := c.batch(t, m, rapid.IntRange(1, 32).Draw(t, "samples"))
		params := drawFloats(t, "params", m.NumParams())
		key := Key{rapid.Uint64().Draw(t, "seed"), rapid.Uint64().Draw(t, "step")}
		checkAlone(t, m, params, b, key, rapid.Bool().Draw(t, "train"))
	})
	m, params, b := tutorialBatch(t, 32)
	checkAlone(t, m, params, b, Key{3, 4}, true)
	checkAlone(t, m, params, b, Key{}, false)
}

// checkAlone compares a batch with its samples one by one, and with itself in
// reverse in a greater workspace.
func checkAlone(t interface{ Fatalf(string, ...any) }, m *Model, params []float32, b *Batch, key Key, train bool) {
	whole, single, turned := m.NewWorkspace(b.N), m.NewWorkspace(1), m.NewWorkspace(b.N+3)
	out := whole.Forward(params, b, key, train)
	back := turned.Forward(params, reversed(m, b), key, train)
	for i := range b.N {
		alone := single.Forward(params, sampleOf(m, b, i), key, train)
		j := b.N - 1 - i
		if !sameBits(row(out, i, m.OutputLen()), alone) || !sameBits(row(back, j, m.OutputLen()), alone) {
			t.Fatalf("sample %d of %d: out %v in the batch, %v alone", i, b.N, row(out, i, m.OutputLen()), alone)
		}
		if l := single.Losses()[0]; whole.Losses()[i] != l || turned.Losses()[j] != l {
			t.Fatalf("sample %d of %d: loss %v in the batch, %v alone", i, b.N, whole.Losses()[i], l)
		}
		for k, metric := range m.Metrics() {
			name := metric.Name
			if v := single.MetricValues(k)[0]; whole.MetricValues(k)[i] != v || turned.MetricValues(k)[j] != v {
				t.Fatalf("sample %d of %d: %s %v in the batch, %v alone", i, b.N, name, whole.MetricValues(k)[i], v)
			}
		}
	}
}

func sampleOf(m *Model, b *Batch, i int) *Batch {
	return &Batch{N: 1, X: row(b.X, i, m.InputLen()), Y: row(b.Y, i, m.TargetLen()), IDs: b.IDs[i : i+1]}
}

func reversed(m *Model, b *Batch) *Batch {
	r := &Batch{N: b.N}
	for i := b.N - 1; i >= 0; i-- {
		s := sampleOf(m, b, i)
		r.X, r.Y, r.IDs = append(r.X, s.X...), append(r.Y, s.Y...), append(r.IDs, s.IDs...)
	}
	return r
}

func TestEveryInstructionSetGivesTheSameBits(t *testing.T) {
	name := kernel.Name()
	t.Cleanup(func() {
		if err := kernel.Use(name); err != nil {
			t.Error(err)
		}
	})
	m, params, b := tutorialBatch(t, 13)
	var first []float32
	var losses []float64
	for _, v := range kernel.Variants() {
		if err := kernel.Use(v); err != nil {
			t.Fatal(err)
		}
		w := m.NewWorkspace(b.N)
		grads := make([]float32, m.NumParams())
		w.Forward(params, b, Key{5, 6}, true)
		w.Backward(params, grads, nil)
		if first == nil {
			first, losses = grads, slices.Clone(w.Losses())
		}
		if !sameBits(grads, first) || !sameBits64(w.Losses(), losses) {
			t.Errorf("%s and %s differ", v, kernel.Variants()[0])
		}
	}
}

func TestAStepAllocatesNothing(t *testing.T) {
	m, params, b := tutorialBatch(t, 32)
	checkAllocations(t, "tutorial", m, params, b)
	for _, c := range readGolden(t).Cases {
		n := len(c.Losses)
		checkAllocations(t, c.Name, c.model(t), c.Params, &Batch{N: n, X: c.X, Y: c.Y, IDs: make([]uint64, n)})
	}
}

func checkAllocations(t *testing.T, name string, m *Model, params []float32, b *Batch) {
	t.Helper()
	w := m.NewWorkspace(b.N)
	w.Cancelled = func() bool { return false }
	grads := make([]float32, m.NumParams())
	windows := 0
	ready := func(lo, hi int) { windows++ }
	for _, train := range []bool{true, false} {
		n := testing.AllocsPerRun(5, func() {
			w.Forward(params, b, Key{1, 2}, train)
			w.Backward(params, grads, ready)
			_ = w.Losses()
			for i := range m.Metrics() {
				_ = w.MetricValues(i)
			}
		})
		if n != 0 {
			t.Errorf("%s, train %v: %v allocations a step", name, train, n)
		}
	}
}

// Workers of one process share a model; under the race detector this also says
// that nothing of it is written.
func TestWorkspacesOfOneModelAreIndependent(t *testing.T) {
	m, params, b := tutorialBatch(t, 8)
	var wg sync.WaitGroup
	grads := make([][]float32, 4)
	for i := range grads {
		grads[i] = make([]float32, m.NumParams())
		wg.Go(func() {
			w := m.NewWorkspace(b.N)
			w.Forward(params, b, Key{1, 1}, true)
			w.Backward(params, grads[i], nil)
		})
	}
	wg.Wait()
	for i := range grads {
		if !sameBits(grads[i], grads[0]) {
			t.Errorf("worker %d has another gradient", i)
		}
	}
}

func TestWorkspaceAccountsForItsMemory(t *testing.T) {
	m := mustBuild(t, tutorial(), []int{28, 28}, Target{Len: 1, Classes: 10})
	// A sample needs: dense 128, dropout 128, logits and probabilities 10 each, their
	// maximum and sum 1 each, the gradients on both sides of the last layer; all
	// float32. Then one float64 for the loss, one for the metric, and as much for the
	// stream of dropout. The second gradient begins at a cache line.
	perSample := 4*(128+128+10+10+1+1+128+10) + 8*3
	if got, want := m.NewWorkspace(32).Bytes(), 32*perSample+64; got != want {
		t.Errorf("32 samples take %d bytes, want %d", got, want)
	}
}

func TestTheFirstLayerComputesNoInputGradient(t *testing.T) {
	const inputs, batch = 100_000, 4
	spec := Spec{Layers: []LayerSpec{NewFlatten(), NewDense(2, "linear")}, Loss: meanSquared}
	m := mustBuild(t, spec, []int{inputs}, Target{Len: 2})
	if got := m.NewWorkspace(batch).Bytes(); got > 4096 {
		t.Errorf("the workspace has %d bytes: enough for a gradient of the input", got)
	}
}

func TestReadyWindowsAreFinalInReverseOrderAndCoverAll(t *testing.T) {
	spec := Spec{Loss: meanSquared}
	for i := range 4 {
		d := NewDense(3+i, "tanh")
		d.UseBias = i%2 == 0
		spec.Layers = append(spec.Layers, d)
	}
	m := mustBuild(t, spec, []int{5}, Target{Len: 6})
	params := someFloats(1, m.NumParams())
	w := m.NewWorkspace(3)
	w.Forward(params, &Batch{N: 3, X: someFloats(2, 15), Y: someFloats(3, 18)}, Key{}, false)
	grads := make([]float32, m.NumParams())
	fill(grads, float32(math.NaN()))
	announced := make([]float32, m.NumParams())
	next, calls := m.NumParams(), 0
	w.Backward(params, grads, func(lo, hi int) {
		if hi != next {
			t.Errorf("window [%d, %d) comes when %d is next", lo, hi, next)
		}
		copy(announced[lo:hi], grads[lo:hi])
		next, calls = lo, calls+1
	})
	if next != 0 || calls != len(spec.Layers) {
		t.Errorf("%d windows reach down to %d, want %d down to 0", calls, next, len(spec.Layers))
	}
	if !sameBits(announced, grads) {
		t.Error("a window changed after it was announced")
	}
	if i := slices.IndexFunc(grads, func(g float32) bool { return g != g }); i >= 0 {
		t.Errorf("gradient %d was not overwritten", i)
	}
}

// Cancelling at every question in turn: the calls return, and nothing of it is
// left in what is computed afterwards.
func TestCancelledWorkIsGivenUpBetweenOperations(t *testing.T) {
	m, params, b := tutorialBatch(t, 4)
	want := make([]float32, m.NumParams())
	w := m.NewWorkspace(b.N)
	w.Forward(params, b, Key{1, 1}, true)
	w.Backward(params, want, nil)

	const forward, backward = 4, 3 // flatten is none, relu is dense's; the loss takes softmax's way back
	const questions = forward + backward
	for stop := range questions {
		asked := 0
		w.Cancelled = func() bool { asked++; return asked > stop }
		grads := make([]float32, m.NumParams())
		out := w.Forward(params, b, Key{1, 1}, true)
		w.Backward(params, grads, nil)
		if !w.Aborted() {
			t.Fatalf("cancelled at question %d, but not aborted after %d", stop, asked)
		}
		if (out == nil) != (stop < forward) || (w.Losses() == nil) != (stop < forward) {
			t.Errorf("cancelled at question %d: out %v, losses %v", stop, out != nil, w.Losses())
		}
	}
	w.Cancelled = nil
	grads := make([]float32, m.NumParams())
	w.Forward(params, b, Key{1, 1}, true)
	w.Backward(params, grads, nil)
	if w.Aborted() || !sameBits(grads, want) {
		t.Error("a cancelled step changed the one after it")
	}
}

// A second way back would meet gradients where it looks for gates and statistics.
func TestASecondBackwardIsRefused(t *testing.T) {
	m, params, b := tutorialBatch(t, 2)
	w, grads := m.NewWorkspace(2), make([]float32, m.NumParams())
	refused := func() (what any) {
		defer func() { what = recover() }()
		w.Backward(params, grads, nil)
		return nil
	}
	for range 2 {
		w.Forward(params, b, Key{}, true)
		if what := refused(); what != nil {
			t.Fatalf("the first Backward behind a Forward is refused: %v", what)
		}
		if refused() == nil {
			t.Error("a second Backward is not refused")
		}
	}
}

func TestPredictionsNeedNoLabels(t *testing.T) {
	m, params, b := tutorialBatch(t, 5)
	w := m.NewWorkspace(5)
	want := slices.Clone(w.Forward(params, b, Key{}, false))
	got := w.Forward(params, &Batch{N: 5, X: b.X}, Key{}, false)
	if !sameBits(got, want) {
		t.Error("labels change a prediction")
	}
	if w.Losses() != nil || w.MetricValues(0) != nil {
		t.Error("there are losses or metrics without labels")
	}
}

// passThrough is a model whose output is its input behind dropout.
func passThrough(t *testing.T, width int, rate float64) (*Model, []float32) {
	d := NewDense(width, "linear")
	d.UseBias = false
	m := mustBuild(t, Spec{Layers: []LayerSpec{NewDropout(rate), d}, Loss: meanSquared}, []int{width}, Target{Len: width})
	params := make([]float32, m.NumParams())
	for i := range width {
		params[i*width+i] = 1
	}
	return m, params
}

func TestDropoutKeepsTheMeanAndForgetsTheRest(t *testing.T) {
	const width, samples = 100, 100
	for _, rate := range []float64{0.1, 0.5, 0.8} {
		m, params := passThrough(t, width, rate)
		w := m.NewWorkspace(samples)
		b := &Batch{N: samples, X: make([]float32, width*samples), IDs: make([]uint64, samples)}
		fill(b.X, 1)
		for i := range b.IDs {
			b.IDs[i] = uint64(i)
		}
		dropped := 0
		for _, v := range w.Forward(params, b, Key{1, 1}, true) {
			if v == 0 {
				dropped++
			} else if v != float32(1/(1-rate)) {
				t.Fatalf("rate %v makes %v of 1", rate, v)
			}
		}
		const n = width * samples
		if off := math.Abs(float64(dropped) - rate*n); off > 5*math.Sqrt(n*rate*(1-rate)) {
			t.Errorf("rate %v dropped %d of %d", rate, dropped, n)
		}
		if out := w.Forward(params, b, Key{1, 1}, false); !sameBits(out, b.X) {
			t.Errorf("rate %v changes an evaluation", rate)
		}
	}
}

func TestDropoutMasksDependOnSeedStepSampleAndLayer(t *testing.T) {
	const width = 64
	mask := func(layer uint64, key Key, id uint64) []float32 {
		p := newDropout(0.5, width, layer)
		var mem arena
		p.bind(&mem, 1)
		d := p.bind(&arena{buf: make([]float32, mem.used)}, 1).(*dropout)
		x := make([]float32, width)
		fill(x, 1)
		return d.forward(&Workspace{n: 1, train: true, key: key, ids: []uint64{id}}, x)
	}
	base := mask(1, Key{1, 1}, 1)
	if !sameBits(base, mask(1, Key{1, 1}, 1)) {
		t.Error("the same place has two masks")
	}
	for name, other := range map[string][]float32{
		"seed": mask(1, Key{2, 1}, 1), "step": mask(1, Key{1, 2}, 1), "sample": mask(1, Key{1, 1}, 2), "layer": mask(2, Key{1, 1}, 1),
	} {
		if sameBits(base, other) {
			t.Errorf("the mask does not depend on the %s", name)
		}
	}
}

func TestInitializersHaveTheirScale(t *testing.T) {
	const in, out = 300, 200
	variance := map[string]float64{
		"glorot_uniform": 2.0 / (in + out), "he_uniform": 2.0 / in, "lecun_uniform": 1.0 / in,
		"glorot_normal": 2.0 / (in + out), "he_normal": 2.0 / in, "lecun_normal": 1.0 / in,
	}
	for name, want := range variance {
		p := make([]float32, in*out)
		start(name, rng.New(1, rng.Init, 0, 0, 0), []int{in, out}, p)
		mean, v, top := momentsOf(p)
		// Five standard deviations of mean and variance of 60,000 draws; fourth
		// moments of both distributions are below 3·variance².
		if n := float64(len(p)); math.Abs(v-want) > 5*want*math.Sqrt(2/n) || math.Abs(mean) > 5*math.Sqrt(want/n) {
			t.Errorf("%s: mean %v, variance %v, want 0 and %v", name, mean, v, want)
		}
		limit := math.Sqrt(3 * want)
		if strings.HasSuffix(name, "normal") {
			limit = 2 * math.Sqrt(want) / truncation
		}
		if top > limit*(1+1e-6) || top < 0.99*limit {
			t.Errorf("%s: the greatest of many is %v, the limit %v", name, top, limit)
		}
	}
}

func TestZerosAndOnesAreThat(t *testing.T) {
	d := NewDense(3, "linear")
	d.KernelInitializer, d.BiasInitializer = "zeros", "ones"
	m := mustBuild(t, Spec{Layers: []LayerSpec{d}, Loss: meanSquared}, []int{2}, Target{Len: 3})
	p := someFloats(1, m.NumParams())
	m.Init(1, p)
	if want := []float32{0, 0, 0, 0, 0, 0, 1, 1, 1}; !sameBits(p, want) {
		t.Errorf("got %v, want %v", p, want)
	}
}

func momentsOf(p []float32) (mean, variance, top float64) {
	for _, v := range p {
		mean += float64(v) / float64(len(p))
		top = max(top, math.Abs(float64(v)))
	}
	for _, v := range p {
		d := float64(v) - mean
		variance += d * d / float64(len(p))
	}
	return mean, variance, top
}

func TestFirstWeightsDependOnSeedAndTensorAlone(t *testing.T) {
	a := mustBuild(t, Spec{Layers: []LayerSpec{NewDense(8, "tanh"), NewDense(8, "tanh")}, Loss: meanSquared}, []int{8}, Target{Len: 8})
	b := mustBuild(t, Spec{Layers: []LayerSpec{NewDense(8, "relu"), NewDropout(0.5), NewDense(8, "linear"), NewDense(8, "linear")}, Loss: meanSquared}, []int{8}, Target{Len: 8})
	pa, pb, other := make([]float32, a.NumParams()), make([]float32, b.NumParams()), make([]float32, a.NumParams())
	fill(pa, float32(math.NaN()))
	a.Init(1, pa)
	b.Init(1, pb)
	a.Init(2, other)
	for i, w := range a.Tensors() {
		if !sameBits(w.of(pa), w.of(pb)) {
			t.Errorf("%s depends on more than seed and tensor", w.Name)
		}
		if i%2 == 0 && sameBits(w.of(pa), w.of(other)) {
			t.Errorf("%s does not depend on the seed", w.Name)
		}
	}
	if k := a.Tensors(); sameBits(k[0].of(pa), k[2].of(pa)) {
		t.Error("two kernels start alike")
	}
}

func TestTensorsAndSummaryDescribeTheModel(t *testing.T) {
	m := mustBuild(t, tutorial(), []int{28, 28}, Target{Len: 1, Classes: 10})
	wantTensors := []Tensor{
		{"dense/kernel", []int{784, 128}, 0, 100352, Weight, 0, Regularizer{}},
		{"dense/bias", []int{128}, 100352, 128, Weight, 0, Regularizer{}},
		{"dense_1/kernel", []int{128, 10}, 100480, 1280, Weight, 0, Regularizer{}},
		{"dense_1/bias", []int{10}, 101760, 10, Weight, 0, Regularizer{}},
	}
	if got := m.Tensors(); !reflect.DeepEqual(got, wantTensors) {
		t.Errorf("tensors %v, want %v", got, wantTensors)
	}
	wantRows := []Row{
		{"flatten", "flatten", []int{784}, 0, 1, 0, 0},
		{"dense", "dense", []int{128}, 100480, 1, 2*100352 + 128, 4 * 128},
		{"dropout", "dropout", []int{128}, 0, 1, 0, 4*128 + 8},                   // with its stream
		{"dense_1", "dense", []int{10}, 1290, 1, 2*1280 + 10, 4 * (10 + 10 + 2)}, // softmax keeps the logits for the loss, their maximum and sum
	}
	if got := m.Summary(); !reflect.DeepEqual(got, wantRows) {
		t.Errorf("summary %v, want %v", got, wantRows)
	}
	if m.NumParams() != 101770 || m.InputLen() != 784 || m.OutputLen() != 10 || m.TargetLen() != 1 {
		t.Errorf("params %d, input %d, output %d, target %d", m.NumParams(), m.InputLen(), m.OutputLen(), m.TargetLen())
	}
}

func TestBuildSaysWhichLayerGotAndWantsWhat(t *testing.T) {
	named := func(d *Dense, name string) *Dense { d.Name = name; return d }
	classes := Target{Len: 1, Classes: 10}
	for _, c := range []struct {
		layers  []LayerSpec
		loss    string
		metrics []string
		input   []int
		target  Target
		want    string
	}{
		{nil, meanSquared, nil, []int{4}, Target{Len: 1}, "the model has no layers"},
		{[]LayerSpec{NewFlatten(), nil}, meanSquared, nil, []int{4}, Target{Len: 1}, "layer 2 (?): there is no layer here"},
		{[]LayerSpec{NewFlatten()}, meanSquared, nil, []int{4}, Target{Len: 4}, "layer 1 (flatten): the model ends here without parameters, want at least one dense layer"},
		{[]LayerSpec{NewDense(0, "relu")}, meanSquared, nil, []int{4}, Target{Len: 1}, "layer 1 (dense): units is 0, want 1 to 16777216"},
		{[]LayerSpec{NewDense(3, "relu"), NewDense(3, "mish")}, meanSquared, nil, []int{4}, Target{Len: 3}, `layer 2 (dense_1): activation is "mish", want one of elu, gelu, leaky_relu, linear, relu, sigmoid, softmax, swish, tanh`},
		{[]LayerSpec{NewDropout(1), NewDense(1, "linear")}, meanSquared, nil, []int{4}, Target{Len: 1}, "layer 1 (dropout): rate is 1, want at least 0 and less than 1"},
		{[]LayerSpec{NewDropout(math.NaN()), NewDense(1, "linear")}, meanSquared, nil, []int{4}, Target{Len: 1}, "layer 1 (dropout): rate is NaN, want at least 0 and less than 1"},
		{[]LayerSpec{NewActivation("")}, meanSquared, nil, []int{4}, Target{Len: 1}, `layer 1 (activation): kind is "", want one of elu, gelu, leaky_relu, linear, relu, sigmoid, softmax, swish, tanh`},
		{[]LayerSpec{named(NewDense(3, "relu"), "a/b")}, meanSquared, nil, []int{4}, Target{Len: 1}, `layer 1 (a/b): name is "a/b", want at most 64 of A-Z, a-z, 0-9, '_', '-' and '.'`},
		{[]LayerSpec{named(NewDense(3, "relu"), "dense_1"), NewDense(3, "relu"), NewDense(3, "relu")}, meanSquared, nil, []int{4}, Target{Len: 3}, "layer 3 (dense_1): layer 1 has this name already"},
		{[]LayerSpec{NewDense(3, "relu")}, meanSquared, nil, []int{28, 28}, Target{Len: 3}, "layer 1 (dense): got samples of shape 28x28, want one axis: put flatten before it (Keras would apply dense to the last axis alone)"},
		{[]LayerSpec{NewActivation("softmax"), NewFlatten(), NewDense(1, "linear")}, meanSquared, nil, []int{2, 2}, Target{Len: 1}, "layer 1 (activation): softmax got samples of shape 2x2, want one axis: put flatten before it"},
		{[]LayerSpec{NewDense(4, "relu"), NewDense(1, "softmax")}, sparseCE, nil, []int{4}, Target{Len: 1, Classes: 1}, "layer 2 (dense_1): softmax got 1 value, want at least 2: over one it is always 1; sigmoid is for one unit"},
		{[]LayerSpec{NewDense(7, "softmax")}, sparseCE, nil, []int{4}, classes, "layer 1 (dense): loss sparse_categorical_crossentropy got 10 classes but 7 units, want at least one unit a class"},
		{[]LayerSpec{NewDense(10, "relu")}, sparseCE, nil, []int{4}, classes, "layer 1 (dense): loss sparse_categorical_crossentropy got a model that ends with relu, want softmax at the end: the loss is computed from its logits"},
		{[]LayerSpec{NewDense(10, "linear")}, sparseCE, nil, []int{4}, classes, "layer 1 (dense): loss sparse_categorical_crossentropy got a model that ends with dense without an activation, want softmax at the end: the loss is computed from its logits"},
		{[]LayerSpec{NewDense(10, "softmax"), NewDropout(0.1)}, sparseCE, nil, []int{4}, classes, "layer 2 (dropout): loss sparse_categorical_crossentropy got a model that ends with dropout, want softmax at the end: the loss is computed from its logits"},
		{[]LayerSpec{NewDense(1, "softmax")}, binaryCE, nil, []int{4}, Target{Len: 1, Classes: 2}, "layer 1 (dense): softmax got 1 value, want at least 2: over one it is always 1; sigmoid is for one unit"},
		{[]LayerSpec{NewDense(1, "sigmoid")}, binaryCE, nil, []int{4}, classes, "layer 1 (dense): loss binary_crossentropy got 10 classes, want 2: sparse_categorical_crossentropy takes more"},
		{[]LayerSpec{NewDense(10, "softmax")}, sparseCE, nil, []int{4}, Target{Len: 10}, "layer 1 (dense): loss sparse_categorical_crossentropy got labels of length 10, want one class id: categorical_crossentropy takes one value a class"},
		{[]LayerSpec{NewDense(10, "softmax")}, categoricalCE, nil, []int{4}, classes, "layer 1 (dense): loss categorical_crossentropy got class ids, want one value a class: sparse_categorical_crossentropy takes class ids"},
		{[]LayerSpec{NewDense(10, "softmax")}, meanSquared, nil, []int{4}, classes, "layer 1 (dense): loss mean_squared_error got labels of length 1 but 10 units, want equal numbers"},
		{[]LayerSpec{NewDense(10, "softmax")}, sparseCE, []string{accuracy, meanAbsolute}, []int{4}, classes, "metric mean_absolute_error: got labels of length 1 but 10 units, want equal numbers"},
		{[]LayerSpec{NewDense(1, "linear")}, "hinge", nil, []int{4}, Target{Len: 1}, `loss is "hinge", want one of binary_crossentropy, categorical_crossentropy, huber, mean_absolute_error, mean_squared_error, sparse_categorical_crossentropy`},
		{[]LayerSpec{NewDense(1, "linear")}, meanSquared, []string{"roc"}, []int{4}, Target{Len: 1}, `metric is "roc", want one of ` + strings.Join(Metrics(), ", ")},
		{[]LayerSpec{NewDense(1, "linear")}, meanSquared, []string{accuracy, accuracy}, []int{4}, Target{Len: 1}, `metric "accuracy" is listed twice`},
		{[]LayerSpec{NewDense(1, "linear")}, meanSquared, nil, nil, Target{Len: 1}, "input shape has no axes, want at least one"},
		{[]LayerSpec{NewDense(1, "linear")}, meanSquared, nil, []int{3, 0}, Target{Len: 1}, "input shape 3x0: want axes of at least 1 and at most 1073741824 values in all"},
		{[]LayerSpec{NewFlatten(), NewDense(1<<24, "linear")}, meanSquared, nil, []int{1 << 20}, Target{Len: 1}, "layer 2 (dense): kernel of 1048576x16777216 makes more than 2147483647 parameters"},
	} {
		_, err := Build(Spec{Layers: c.layers, Loss: c.loss, Metrics: c.metrics}, c.input, c.target)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestALayerErrorTellsThePlaceInTheSpec(t *testing.T) {
	_, err := Build(Spec{Layers: []LayerSpec{NewFlatten(), NewDense(-1, "relu")}, Loss: meanSquared}, []int{4}, Target{Len: 1})
	var le *LayerError
	if !errors.As(err, &le) || le.Index != 1 || le.Name != "dense" {
		t.Errorf("got %#v", err)
	}
}

func TestLabelsOutOfRangeAreToldApart(t *testing.T) {
	soft := func(units int, loss string, target Target) *Model {
		last := map[string]string{sparseCE: "softmax", categoricalCE: "softmax", binaryCE: "sigmoid", meanSquared: "linear"}
		return mustBuild(t, Spec{Layers: []LayerSpec{NewDense(units, last[loss])}, Loss: loss}, []int{2}, target)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	sparse := soft(10, sparseCE, Target{Len: 1, Classes: 10})
	wide := soft(12, sparseCE, Target{Len: 1})
	onehot := soft(3, categoricalCE, Target{Len: 3})
	binary := soft(1, binaryCE, Target{Len: 1, Classes: 2})
	real := soft(2, meanSquared, Target{Len: 2})
	for _, c := range []struct {
		m    *Model
		y    []float32
		want string
	}{
		{sparse, []float32{9}, ""},
		{sparse, []float32{0}, ""},
		{sparse, []float32{10}, "label is 10, want a class id from 0 to 9"},
		{wide, []float32{11}, ""},
		{wide, []float32{12}, "label is 12, want a class id from 0 to 11"},
		{sparse, []float32{-1}, "label is -1, want a class id from 0 to 9"},
		{sparse, []float32{2.5}, "label is 2.5, want a class id from 0 to 9"},
		{sparse, []float32{nan}, "label is NaN, want a class id from 0 to 9"},
		{sparse, []float32{1, 2}, "label has 2 values, want 1"},
		{onehot, []float32{0, 1, 0}, ""},
		{onehot, []float32{0.25, 0.25, 0.5}, ""},
		{onehot, []float32{0, 0, 0}, "values of the label sum to 0, want 1: one class is 1 and the others are 0"},
		{onehot, []float32{0, 2, -1}, "value 1 of the label is 2, want a share from 0 to 1"},
		{binary, []float32{1}, ""},
		{binary, []float32{2}, "value 0 of the label is 2, want a number from 0 to 1"},
		{binary, []float32{nan}, "value 0 of the label is NaN, want a number from 0 to 1"},
		{real, []float32{-1e30, 7}, ""},
		{real, []float32{0, inf}, "value 1 of the label is +Inf, want a finite number"},
	} {
		got := ""
		if err := c.m.CheckTarget(c.y); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s of %v: got %q, want %q", c.m.Loss(), c.y, got, c.want)
		}
	}
}

// Whatever a user writes, Build makes a model that runs or says what is wrong.
// About one half of these are built.
func TestAnySpecBuildsOrFailsClearly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		for range rapid.IntRange(0, 3).Draw(t, "mistakes") {
			c.mistake(t)
		}
		m, err := Build(c.spec, c.input, c.target)
		if err != nil {
			checkMessage(t, err, len(c.spec.Layers))
			return
		}
		b := c.batch(t, m, 3)
		params, grads := make([]float32, m.NumParams()), make([]float32, m.NumParams())
		m.Init(1, params)
		w := m.NewWorkspace(3)
		out := w.Forward(params, b, Key{}, true)
		w.Backward(params, grads, nil)
		if len(out) != 3*m.OutputLen() || len(w.Losses()) != 3 {
			t.Fatalf("%d outputs and %d losses of 3 samples of %d", len(out), len(w.Losses()), m.OutputLen())
		}
		for _, v := range slices.Concat(widen(out), widen(grads), w.Losses()) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("%v from finite numbers", v)
			}
		}
	})
}

// mistake changes one thing of a case that fitted, as a user's hand might.
func (c *drawn) mistake(t *rapid.T) {
	layers := c.spec.Layers
	at := rapid.IntRange(0, max(0, len(layers)-1)).Draw(t, "at")
	switch rapid.IntRange(0, 6).Draw(t, "what") {
	case 0:
		c.input = rapid.SliceOfN(rapid.IntRange(0, 4), 0, 3).Draw(t, "input")
	case 1:
		c.target = Target{Len: rapid.IntRange(0, 4).Draw(t, "label"), Classes: rapid.IntRange(0, 5).Draw(t, "classes")}
	case 2:
		c.spec.Loss = rapid.SampledFrom(append(Losses(), "hinge")).Draw(t, "other loss")
	case 3:
		c.spec.Metrics = append(c.spec.Metrics, rapid.SampledFrom(append(Metrics(), "f1")).Draw(t, "metric"))
	case 4:
		if len(layers) > 0 {
			c.spec.Layers = slices.Delete(slices.Clone(layers), at, at+1)
		}
	default:
		c.spec.Layers = slices.Insert(slices.Clone(layers), at, drawAnyLayer(t))
	}
}

func drawAnyLayer(t *rapid.T) LayerSpec {
	l, _ := NewLayerSpec(rapid.SampledFrom(LayerKinds()).Draw(t, "kind"))
	switch l := l.(type) {
	case *Dense:
		l.Units = rapid.IntRange(0, 4).Draw(t, "units")
		l.Activation = rapid.SampledFrom(append(Activations(), "mish")).Draw(t, "activation")
		l.UseBias = rapid.Bool().Draw(t, "bias")
		l.KernelInitializer = rapid.SampledFrom(append(Initializers(), "identity", "constant(0.5)")).Draw(t, "kernel")
		l.Name = rapid.SampledFrom([]string{"", "", "", "x", "dense", "a b"}).Draw(t, "name")
	case *Dropout:
		l.Rate = rapid.Float64Range(-0.1, 1.1).Draw(t, "rate")
	case *Activation:
		l.Function = rapid.SampledFrom(append(Activations(), "")).Draw(t, "function")
	}
	return l
}

func checkMessage(t *rapid.T, err error, layers int) {
	msg := err.Error()
	clear := []string{"want ", "no layers", "listed twice", "already"}
	if !slices.ContainsFunc(clear, func(s string) bool { return strings.Contains(msg, s) }) {
		t.Fatalf("unclear: %q", msg)
	}
	var le *LayerError
	if errors.As(err, &le) && (le.Index < 0 || le.Index >= layers || !strings.HasPrefix(msg, fmt.Sprintf("layer %d (%s): ", le.Index+1, le.Name))) {
		t.Fatalf("not the place: %q of %d layers", msg, layers)
	}
}

func TestAccuracyTakesTheFirstOfEqualsAndNeverNaN(t *testing.T) {
	nan := float32(math.NaN())
	for _, c := range []struct {
		x    []float32
		want int
	}{{[]float32{1, 3, 3, 2}, 1}, {[]float32{0, nan, 2}, 2}, {[]float32{nan, nan}, 0}} {
		if got := argmax(c.x); got != c.want {
			t.Errorf("argmax %v = %d, want %d", c.x, got, c.want)
		}
	}
}

// NaN must come out where it went in: a node that hides it would train on.
func TestNaNReachesLossAndGradient(t *testing.T) {
	m, params, b := tutorialBatch(t, 2)
	params[m.Tensors()[2].Off] = float32(math.NaN())
	w := m.NewWorkspace(2)
	grads := make([]float32, m.NumParams())
	w.Forward(params, b, Key{}, false)
	w.Backward(params, grads, nil)
	if l := w.Losses()[0]; !math.IsNaN(l) {
		t.Errorf("the loss is %v", l)
	}
	if kernel.MaxExponent(grads) != 255 {
		t.Error("the gradient is finite")
	}
}

func TestEveryKindDecodesOverItsDefaults(t *testing.T) {
	want := map[string]string{
		"activation": `{"kind":""}`,
		"dense":      `{"units":0,"activation":"linear","use_bias":true,"kernel_initializer":"glorot_uniform","bias_initializer":"zeros","trainable":true}`,
		"dropout":    `{"rate":0.5}`,
		"flatten":    `{}`,
	}
	for _, kind := range LayerKinds() {
		l, ok := NewLayerSpec(kind)
		if !ok || l.Kind() != kind {
			t.Fatalf("NewLayerSpec(%q) = %v, %v", kind, l, ok)
		}
		if want[kind] == "" {
			continue
		}
		got, err := json.Marshal(l)
		if err != nil || string(got) != want[kind] {
			t.Errorf("%s: %s, want %s (%v)", kind, got, want[kind], err)
		}
	}
	if l, ok := NewLayerSpec("conv4d"); ok {
		t.Errorf("NewLayerSpec(conv4d) = %v", l)
	}
}

func BenchmarkStepOfTheTutorial(b *testing.B) {
	m, params, batch := tutorialBatch(b, 32)
	w := m.NewWorkspace(batch.N)
	grads := make([]float32, m.NumParams())
	for b.Loop() {
		w.Forward(params, batch, Key{}, true)
		w.Backward(params, grads, nil)
	}
	b.ReportMetric(float64(batch.N)*float64(b.N)/b.Elapsed().Seconds(), "samples/s")
}
