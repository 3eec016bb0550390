package nn

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
)

// golden is testdata/golden.json, which testdata/golden.py writes with PyTorch.
type golden struct {
	Torch   string
	Dropout map[string][]float64 // rate: the values dropout makes of ones
	Cases   []goldenCase
}

type goldenCase struct {
	Name    string
	Input   []int
	Layers  []map[string]json.RawMessage
	Loss    string
	Classes int
	X, Y    []float32
	Params  []float32
	Out     []float64
	Losses  []float64
	Grads   []float64
	Metrics map[string][]float64
	Train   bool
	Rate    float64   // of ten steps of gradient descent,
	Steps   []float64 // and the parameters behind them

	Smoothing   float64
	ClassWeight []float64 `json:"class_weight"`
}

func readGolden(t *testing.T) golden {
	t.Helper()
	g := readRecord(t, "testdata/golden.json")
	g.Cases = append(g.Cases, readRecord(t, "testdata/layers.json").Cases...)
	return g
}

func readRecord(t *testing.T, file string) golden {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// model builds a case's model. The metrics are in the order of their names.
func (c *goldenCase) model(t *testing.T) *Model {
	t.Helper()
	spec := Spec{Loss: c.Loss, Layers: layersOf(t, c.Layers), LabelSmoothing: c.Smoothing, ClassWeights: c.ClassWeight}
	for name := range c.Metrics {
		spec.Metrics = append(spec.Metrics, name)
	}
	slices.Sort(spec.Metrics)
	n := len(c.Losses)
	m, err := Build(spec, c.Input, Target{Len: len(c.Y) / n, Classes: c.Classes})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// layersOf reads layers as a job file would have them, in JSON.
func layersOf(t *testing.T, list []map[string]json.RawMessage) []LayerSpec {
	t.Helper()
	specs := []LayerSpec{}
	for _, layer := range list {
		for kind, args := range layer {
			specs = append(specs, layerOf(t, kind, args))
		}
	}
	return specs
}

func layerOf(t *testing.T, kind string, args json.RawMessage) LayerSpec {
	t.Helper()
	l, ok := NewLayerSpec(kind)
	if !ok {
		t.Fatalf("no layer %q", kind)
	}
	type layers = []map[string]json.RawMessage
	var inside struct {
		Layers, Shortcut layers
		Branches         []layers
		Layer            map[string]json.RawMessage
		MergeMode        string `json:"merge_mode"`
	}
	into := any(&inside)
	if _, ok := l.(Container); !ok {
		into = l
	}
	if err := json.Unmarshal(args, into); err != nil {
		t.Fatal(err)
	}
	switch l := l.(type) {
	case *Residual:
		l.Layers, l.Shortcut = layersOf(t, inside.Layers), layersOf(t, inside.Shortcut)
	case *Concat:
		for _, b := range inside.Branches {
			l.Branches = append(l.Branches, layersOf(t, b))
		}
	case *Bidirectional:
		l.Layer = layersOf(t, layers{inside.Layer})[0]
		if inside.MergeMode != "" {
			l.MergeMode = inside.MergeMode
		}
	}
	return l
}

// rounding is what 32 roundings to float32 do to a number of size 1, or
// relatively to a greater one. The record is exact to 1e-12, so all of a
// difference is ours: sums of up to 42 products through up to four layers, whose
// roundings mostly cancel (the worst case measured needs 16). Logits in the
// thousands lose no more, because nothing behind them adds what they are not.
const rounding = 32.0 / (1 << 24)

func TestForwardLossesAndGradientsMatchPyTorch(t *testing.T) {
	for _, c := range readGolden(t).Cases {
		t.Run(c.Name, func(t *testing.T) {
			m := c.model(t)
			n := len(c.Losses)
			w := m.NewWorkspace(n)
			grads := make([]float32, m.NumParams())
			out := w.Forward(c.Params, c.batch(), Key{}, c.Train)
			w.Backward(c.Params, grads, nil)

			near(t, "out", widen(out), c.Out)
			near(t, "loss", w.Losses(), c.Losses)
			near(t, "gradient", widen(grads), c.Grads)
			for i, metric := range m.Metrics() {
				near(t, metric.Name, w.MetricValues(i), c.Metrics[metric.Name])
			}
			for i := range n {
				if err := m.CheckTarget(row(c.Y, i, m.TargetLen())); err != nil {
					t.Errorf("label %d is refused: %v", i, err)
				}
			}
		})
	}
}

func (c *goldenCase) batch() *Batch {
	n := len(c.Losses)
	return &Batch{N: n, X: c.X, Y: c.Y, IDs: make([]uint64, n)}
}

func TestTenStepsMatchKeras(t *testing.T) {
	for _, c := range readGolden(t).Cases {
		if c.Rate == 0 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			m := c.model(t)
			n := len(c.Losses)
			w := m.NewWorkspace(n)
			params, grads := slices.Clone(c.Params), make([]float32, m.NumParams())
			for range 10 {
				w.Forward(params, c.batch(), Key{}, true)
				w.Backward(params, grads, nil)
				for _, tensor := range m.Tensors() {
					p, g := tensor.of(params), tensor.of(grads)
					for i := range p {
						mean := g[i] / float32(n)
						if tensor.Use == Statistic {
							p[i] = float32(float32(tensor.Momentum)*p[i]) + float32(float32(1-tensor.Momentum)*mean)
						} else {
							p[i] -= float32(float32(c.Rate) * mean)
						}
					}
				}
			}
			near(t, "parameters", widen(params), c.Steps)
		})
	}
}

func TestGoldenCasesCoverEveryLossMetricAndActivation(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range readGolden(t).Cases {
		seen[c.Loss] = true
		for name := range c.Metrics {
			seen[name] = true
		}
		see(seen, layersOf(t, c.Layers))
	}
	for _, name := range slices.Concat(Losses(), Metrics(), Activations(), LayerKinds()) {
		if !seen[name] && !(slices.Contains(Metrics(), name) && counts(name)) {
			t.Errorf("no golden case uses %s", name)
		}
	}
}

func TestDropoutScalesAsPyTorchDoes(t *testing.T) {
	for text, want := range readGolden(t).Dropout {
		rate, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		d := newDropout(rate, 1, 0)
		if float64(d.scale) != want[1] {
			t.Errorf("rate %v scales by %v, PyTorch by %v", rate, d.scale, want[1])
		}
	}
}

// near reports the worst of the elements that differ by more than rounding.
func near(t *testing.T, what string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	worst, at := 0.0, 0
	for i := range want {
		e := math.Abs(got[i]-want[i]) / max(1, math.Abs(want[i]))
		if !(e <= worst) {
			worst, at = e, i
		}
	}
	if !(worst <= rounding) {
		t.Errorf("%s[%d] = %v, want %v: off by %.2g", what, at, got[at], want[at], worst)
	}
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// see marks what layers use.
func see(seen map[string]bool, layers []LayerSpec) {
	for _, l := range layers {
		seen[l.Kind()] = true
		switch l := l.(type) {
		case *Dense:
			seen[l.Activation] = true
		case *Activation:
			seen[l.Function] = true
		}
		for _, p := range parts(l) {
			see(seen, p.Layers)
		}
	}
}
