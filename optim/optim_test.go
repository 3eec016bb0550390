package optim

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/internal/rng"
	"pgregory.net/rapid"
)

// golden is testdata/golden.json, which golden.py recorded from PyTorch.
type golden struct {
	Steps     []goldenRun
	Schedules []struct {
		Name  string
		Rates []float64
	}
}

type goldenRun struct {
	Kind   string
	Args   map[string]any
	Clip   float64
	Start  []float32
	Grads  [][]float32
	Params [][]float32
}

func readGolden(t *testing.T) golden {
	t.Helper()
	g, more := readRecord(t, "testdata/golden.json"), readRecord(t, "testdata/more.json")
	g.Steps, g.Schedules = append(g.Steps, more.Steps...), append(g.Schedules, more.Schedules...)
	return g
}

func readRecord(t *testing.T, file string) golden {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// spec is the optimizer that PyTorch was asked for.
func (r goldenRun) spec() Spec {
	num := func(name string) float64 { x, _ := r.Args[name].(float64); return x }
	rate := Constant(num("lr"))
	if r.Kind == "sgd" {
		nesterov, _ := r.Args["nesterov"].(bool)
		return &SGD{LearningRate: rate, Momentum: num("momentum"), Nesterov: nesterov}
	}
	switch r.Kind {
	case "rmsprop":
		return &RMSprop{LearningRate: rate, Rho: num("alpha"), Momentum: num("momentum"), Epsilon: num("eps")}
	case "adagrad":
		return &Adagrad{LearningRate: rate, InitialAccumulatorValue: num("initial_accumulator_value"), Epsilon: num("eps")}
	}
	betas := r.Args["betas"].([]any)
	b1, b2 := betas[0].(float64), betas[1].(float64)
	if r.Kind == "lamb" {
		return &Lamb{LearningRate: rate, Beta1: b1, Beta2: b2, Epsilon: num("eps")}
	}
	if r.Kind == "adam" {
		return &Adam{LearningRate: rate, Beta1: b1, Beta2: b2, Epsilon: num("eps")}
	}
	return &AdamW{LearningRate: rate, WeightDecay: num("weight_decay"), Beta1: b1, Beta2: b2, Epsilon: num("eps")}
}

func newSlots(o Optimizer, n int) [][]float32 {
	slots := make([][]float32, len(o.Slots()))
	for i := range slots {
		slots[i] = make([]float32, n)
	}
	return slots
}

func TestTenStepsAreThoseOfPyTorch(t *testing.T) {
	for _, run := range readGolden(t).Steps {
		n := len(run.Start)
		o := New(run.spec(), n, run.Clip)
		if run.Kind == "lamb" {
			o = Over(run.spec(), []Window{{Hi: 5}, {Lo: 5, Hi: n}}, run.Clip)
		}
		p, slots := slices.Clone(run.Start), newSlots(o, len(run.Start))
		before, way := run.Start, make([]float64, len(run.Start))
		for step, g := range run.Grads {
			o.Step(p, slices.Clone(g), slots, uint64(step), 5)
			for i, want := range run.Params[step] {
				// A few roundings of the parameter and of the way it has come.
				way[i] += math.Abs(float64(want) - float64(before[i]))
				tolerance := 0x1p-22*math.Abs(float64(want)) + 2e-7*way[i]
				if run.Kind == "lamb" {
					tolerance *= 4 // Keras' norms and corrections are float32
				}
				if off := math.Abs(float64(p[i]) - float64(want)); off > tolerance {
					t.Errorf("%s %v clip %v, step %d, parameter %d: %v, PyTorch has %v",
						run.Kind, run.Args, run.Clip, step, i, p[i], want)
				}
			}
			before = run.Params[step]
		}
	}
}

func TestEveryOptimizerAndScheduleIsOnRecord(t *testing.T) {
	g, seen := readGolden(t), map[string]bool{"constant": true} // it has nothing to compare
	for _, run := range g.Steps {
		seen[run.Kind] = true
	}
	for _, s := range g.Schedules {
		for _, word := range strings.Fields(s.Name) {
			seen[strings.Trim(word, ",")] = true
		}
	}
	for _, name := range slices.Concat(Kinds(), Schedules()) {
		if !seen[name] {
			t.Errorf("no framework's record of %s", name)
		}
	}
}

func TestSchedulesAreThoseOfPyTorch(t *testing.T) {
	cosine := Schedule{Name: "cosine", Initial: 0.1, DecaySteps: 20, Alpha: 0.1}
	step := Schedule{Name: "step", Initial: 0.1, DecaySteps: 4, DecayRate: 0.3}
	warm := func(s Schedule) Schedule { s.WarmupSteps = 5; return s }
	ours := map[string]Schedule{
		"cosine": cosine, "step": step, "warm cosine": warm(cosine), "warm step": warm(step),
		"exponential": {Name: "exponential", Initial: 0.1, DecaySteps: 4, DecayRate: 0.5},
		"piecewise":   {Name: "piecewise", Initial: 0.1, Boundaries: []uint64{5, 12}, Values: []float64{0.25, 0.03125}},
	}
	for _, g := range readGolden(t).Schedules {
		s := ours[g.Name]
		end := len(g.Rates)
		if s.Name == "cosine" {
			end = min(end, int(s.WarmupSteps+s.DecaySteps)+1) // PyTorch's rises again
		}
		for i, want := range g.Rates[:end] {
			if got := s.At(uint64(i), 3); math.Abs(got-want) > 1e-14 && float32(got) != float32(want) { // Keras' are float32

				t.Errorf("%s at step %d: %v, PyTorch has %v", g.Name, i, got, want)
			}
		}
	}
}

func TestACosineStaysAtItsEnd(t *testing.T) {
	s := Schedule{Name: "cosine", Initial: 2, DecaySteps: 10, Alpha: 0.25, WarmupSteps: 3}
	for _, step := range []uint64{13, 14, 1000, 1 << 60} {
		if got := s.At(step, 1); got != 0.5 {
			t.Errorf("rate at step %d is %v, want 0.5", step, got)
		}
	}
	if got := s.At(3, 1); got != 2 {
		t.Errorf("rate after the warm-up is %v, want 2", got)
	}
}

func TestEpochsAreSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perEpoch := rapid.Uint64Range(1, 500).Draw(t, "steps per epoch")
		warm, decay := rapid.Uint64Range(0, 5).Draw(t, "warm"), rapid.Uint64Range(1, 5).Draw(t, "decay")
		epochs := Schedule{Name: "cosine", Initial: 0.1, WarmupEpochs: warm, DecayEpochs: decay}
		steps := Schedule{Name: "cosine", Initial: 0.1, WarmupSteps: warm * perEpoch, DecaySteps: decay * perEpoch}
		step := rapid.Uint64Range(0, 6000).Draw(t, "step")
		if a, b := epochs.At(step, perEpoch), steps.At(step, 7); a != b {
			t.Fatalf("%v by epochs, %v by steps", a, b)
		}
	})
}

func TestWarmUpRisesAndDecayFalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{
			Name:        rapid.SampledFrom([]string{"step", "cosine"}).Draw(t, "name"),
			Initial:     rapid.Float64Range(1e-6, 10).Draw(t, "initial"),
			WarmupSteps: rapid.Uint64Range(0, 50).Draw(t, "warm"),
			DecaySteps:  rapid.Uint64Range(1, 50).Draw(t, "decay"),
		}
		if s.Name == "step" {
			s.DecayRate = 0.5
		}
		if err := s.validate(); err != nil {
			t.Fatal(err)
		}
		for step := range uint64(100) {
			before, after := s.At(step, 1), s.At(step+1, 1)
			if rising := step < s.WarmupSteps; rising && !(0 < before && before < after) || !rising && before < after {
				t.Fatalf("%+v goes from %v at step %d to %v", s, before, step, after)
			}
		}
	})
}

// optimizers is one of each sort.
func optimizers(n int, clip float64) map[string]Optimizer {
	cosine := Schedule{Name: "cosine", Initial: 0.01, WarmupSteps: 2, DecayEpochs: 3}
	return map[string]Optimizer{
		"sgd":      New(&SGD{LearningRate: Constant(0.1)}, n, clip),
		"momentum": New(&SGD{LearningRate: cosine, Momentum: 0.9}, n, clip),
		"nesterov": New(&SGD{LearningRate: cosine, Momentum: 0.9, Nesterov: true}, n, clip),
		"adam":     New(&Adam{LearningRate: cosine, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, n, clip),
		"adamw":    New(&AdamW{LearningRate: cosine, WeightDecay: 0.1, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, n, clip),
	}
}

// An element's update must not depend on its place, or on who else is there.
func TestElementsAreUpdatedAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 70).Draw(t, "n")
		vec := rapid.SliceOfN(rapid.Float32Range(-2, 2), n, n)
		start := vec.Draw(t, "params")
		grads := rapid.SliceOfN(vec, 3, 3).Draw(t, "gradients")
		i := rapid.IntRange(0, n-1).Draw(t, "element")
		for name, o := range optimizers(n, 0) {
			one := optimizers(1, 0)[name]
			p, slots := slices.Clone(start), newSlots(o, n)
			q, oneSlots := []float32{start[i]}, newSlots(one, 1)
			for step, g := range grads {
				o.Step(p, slices.Clone(g), slots, uint64(step), 4)
				one.Step(q, []float32{g[i]}, oneSlots, uint64(step), 4)
			}
			if math.Float32bits(p[i]) != math.Float32bits(q[0]) {
				t.Fatalf("%s: element %d of %d becomes %v, alone %v", name, i, n, p[i], q[0])
			}
		}
	})
}

func TestTheFirstStepOfAdamIsTheLearningRate(t *testing.T) {
	o := New(&Adam{LearningRate: Constant(0.25), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-20}, 2, 0)
	p := []float32{0, 0}
	o.Step(p, []float32{3, -0x1p-20}, newSlots(o, 2), 0, 1)
	for i, want := range []float64{-0.25, 0.25} {
		if math.Abs(float64(p[i])-want) > 0x1p-23 {
			t.Errorf("parameter %d moves by %v, want %v", i, p[i], want)
		}
	}
}

func TestDecayIsDecoupledFromTheGradient(t *testing.T) {
	o := New(&AdamW{LearningRate: Constant(0.5), WeightDecay: 0.25, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, 1, 0)
	p := []float32{8}
	o.Step(p, []float32{0}, newSlots(o, 1), 0, 1)
	if p[0] != 7 { // 8 − 0.5·0.25·8
		t.Errorf("8 decays to %v, want 7", p[0])
	}
}

func TestTheNormIsOneFixedSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SliceOfN(rapid.Float32(), 0, 50).Draw(t, "g")
		var lane [8]float64
		for i, x := range g {
			lane[i%8] += float64(float64(x) * float64(x))
		}
		want := math.Sqrt(((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7])))
		if got := GlobalNorm(g); got != want || math.IsInf(got, 0) {
			t.Fatalf("norm %v, want %v", got, want)
		}
	})
}

func TestClippingKeepsTheDirection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SliceOfN(rapid.Float32Range(-100, 100), 1, 40).Draw(t, "g")
		limit := rapid.Float64Range(0.01, 50).Draw(t, "limit")
		was, norm := slices.Clone(g), GlobalNorm(g)
		clip(g, limit)
		if norm <= limit {
			if !slices.Equal(g, was) {
				t.Fatalf("a norm of %v was clipped at %v", norm, limit)
			}
			return
		}
		if got := GlobalNorm(g); math.Abs(got-limit) > 1e-6*limit {
			t.Fatalf("norm %v after clipping at %v", got, limit)
		}
		for i := range g {
			if want := float64(was[i]) * limit / norm; math.Abs(float64(g[i])-want) > 2e-7*math.Abs(want)+0x1p-149 {
				t.Fatalf("element %d is %v, want %v", i, g[i], want)
			}
		}
	})
}

// Whoever changes these bits changes every model that was ever trained. They are
// the same for every compiler setting (CI runs GOAMD64=v1 and v3) and processor.
func TestTheBitsAreTheRecordedOnes(t *testing.T) {
	const n = 1001
	want := map[string]string{
		"sgd":      "b35b259ae2802d7d",
		"momentum": "fe6ac4eaddda3c6a",
		"nesterov": "e61c5bc824a4883d",
		"adam":     "1d205671cef79783",
		"adamw":    "3c8ce83c1b26b92e",
	}
	for name, o := range optimizers(n, 10) {
		p, g, slots := make([]float32, n), make([]float32, n), newSlots(o, n)
		draw(p, 0)
		for step := range uint64(10) {
			draw(g, step+1)
			o.Step(p, g, slots, step, 2)
		}
		h := sha256.New()
		for _, x := range p {
			h.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(x)))
		}
		if got := hex.EncodeToString(h.Sum(nil)[:8]); got != want[name] {
			t.Errorf("%s: %s, want %s", name, got, want[name])
		}
	}
}

// draw fills x with numbers in [-1, 1).
func draw(x []float32, stream uint64) {
	s := rng.New(1, rng.Audit, stream, 0, 0)
	for i := range x {
		x[i] = 2*rng.Unit32(s.Uint32(uint64(i))) - 1
	}
}

func TestAStepAllocatesNothing(t *testing.T) {
	const n = 1000
	for name, o := range optimizers(n, 0.5) {
		p, g, slots := make([]float32, n), make([]float32, n), newSlots(o, n)
		g[1] = 5
		step := uint64(0)
		if allocs := testing.AllocsPerRun(20, func() {
			o.Step(p, g, slots, step, 10)
			step++
		}); allocs != 0 {
			t.Errorf("a step of %s allocates %v times", name, allocs)
		}
	}
}

func TestDefaultsAreKeras(t *testing.T) {
	for kind, want := range map[string]string{
		"rmsprop": `{"learning_rate":{"schedule":"constant","initial":0.001},"rho":0.9,"momentum":0,"epsilon":1e-7}`,
		"adagrad": `{"learning_rate":{"schedule":"constant","initial":0.001},"initial_accumulator_value":0.1,"epsilon":1e-7}`,
		"lamb":    `{"learning_rate":{"schedule":"constant","initial":0.001},"weight_decay":0,"beta_1":0.9,"beta_2":0.999,"epsilon":1e-7}`,
		"sgd":     `{"learning_rate":{"schedule":"constant","initial":0.01},"momentum":0,"nesterov":false}`,
		"adam":    `{"learning_rate":{"schedule":"constant","initial":0.001},"beta_1":0.9,"beta_2":0.999,"epsilon":1e-7}`,
		"adamw":   `{"learning_rate":{"schedule":"constant","initial":0.001},"weight_decay":0.004,"beta_1":0.9,"beta_2":0.999,"epsilon":1e-7}`,
	} {
		s, ok := NewSpec(kind)
		if !ok || s.Kind() != kind || s.Validate() != nil || !slices.Contains(Kinds(), kind) {
			t.Errorf("%s: %+v, %v, %v", kind, s, ok, s.Validate())
			continue
		}
		if got, err := json.Marshal(s); err != nil || string(got) != want {
			t.Errorf("%s is %s, want %s (%v)", kind, got, want, err)
		}
	}
	if _, ok := NewSpec("lbfgs"); ok {
		t.Error("lbfgs is known")
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	schedule := func(f func(*Schedule)) Spec {
		s := Schedule{Name: "step", Initial: 0.1, DecaySteps: 10, DecayRate: 0.5}
		f(&s)
		return &SGD{LearningRate: s}
	}
	adam := func(f func(*Adam)) Spec {
		s, _ := NewSpec("adam")
		f(s.(*Adam))
		return s
	}
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{&SGD{LearningRate: Constant(0)}, "learning_rate: 0 is not allowed (want a number above 0)"},
		{&SGD{LearningRate: Constant(math.NaN())}, "NaN is not allowed (want a number above 0)"},
		{&SGD{LearningRate: Constant(1e300)}, "learning_rate: 1e+300 is not allowed"},
		{&SGD{}, `learning_rate.schedule: "" is not allowed (want constant, step, exponential, cosine, piecewise)`},
		{&SGD{LearningRate: Constant(1), Momentum: 1}, "momentum: 1 is not allowed (want a number from 0 to below 1)"},
		{&SGD{LearningRate: Constant(1), Nesterov: true}, "nesterov: true is not allowed (want false, or a momentum above 0)"},
		{adam(func(s *Adam) { s.Beta1 = -0.1 }), "beta_1: -0.1 is not allowed"},
		{adam(func(s *Adam) { s.Beta2 = 1 - 1e-9 }), "beta_2: 0.999999999 is not allowed"},
		{adam(func(s *Adam) { s.Epsilon = 0 }), "epsilon: 0 is not allowed (want a number above 0)"},
		{&AdamW{LearningRate: Constant(1), Epsilon: 1, WeightDecay: -1}, "weight_decay: -1 is not allowed"},
		{schedule(func(s *Schedule) { s.Initial = -1 }), "learning_rate.initial: -1 is not allowed"},
		{schedule(func(s *Schedule) { s.DecayRate = 0 }), "learning_rate.decay_rate: 0 is not allowed"},
		{schedule(func(s *Schedule) { s.DecaySteps = 0 }), "learning_rate.decay_steps: missing"},
		{schedule(func(s *Schedule) { s.DecayEpochs = 2 }), "learning_rate.decay_epochs: 2 stands beside decay_steps"},
		{schedule(func(s *Schedule) { s.WarmupSteps, s.WarmupEpochs = 1, 2 }), "learning_rate.warmup_epochs: 2 stands beside warmup_steps"},
		{schedule(func(s *Schedule) { s.WarmupSteps = 1 << 40 }), "learning_rate.warmup_steps: 1099511627776 is not allowed"},
		{schedule(func(s *Schedule) { s.Alpha = 0.1 }), "learning_rate.alpha: not a field of a step schedule"},
		{schedule(func(s *Schedule) { s.Name = "cosine" }), "learning_rate.decay_rate: not a field of a cosine schedule"},
		{schedule(func(s *Schedule) { *s = Schedule{Name: "cosine", Initial: 1, DecaySteps: 1, Alpha: 2} }), "learning_rate.alpha: 2 is not allowed"},
		{schedule(func(s *Schedule) { *s = Schedule{Name: "constant", Initial: 1, DecaySteps: 1} }), "learning_rate.decay_steps: not a field"},
		{schedule(func(s *Schedule) { *s = Schedule{Name: "exponential", Initial: 1, DecayEpochs: 1} }), "learning_rate.decay_rate: 0 is not allowed"},
		{schedule(func(s *Schedule) { *s = Schedule{Name: "piecewise", Initial: 1} }), "learning_rate.boundaries: missing"},
		{schedule(func(s *Schedule) { *s = Schedule{Name: "piecewise", Initial: 1, Boundaries: []uint64{1}} }), "learning_rate.values: 0 of them are not allowed (want one for each of the 1 boundaries)"},
		{schedule(func(s *Schedule) {
			*s = Schedule{Name: "piecewise", Initial: 1, Boundaries: []uint64{2, 2}, Values: []float64{1, 1}}
		}), "learning_rate.boundaries: 2 behind 2 is not allowed"},
		{&RMSprop{LearningRate: Constant(1), Rho: 1, Epsilon: 1}, "rho: 1 is not allowed"},
		{&Adagrad{LearningRate: Constant(1), InitialAccumulatorValue: -1, Epsilon: 1}, "initial_accumulator_value: -1 is not allowed"},
		{&Lamb{LearningRate: Constant(1), WeightDecay: -1, Epsilon: 1}, "weight_decay: -1 is not allowed"},
		{schedule(func(s *Schedule) { *s = Schedule{Name: "constant", Initial: 1, DecayEpochs: 1} }), "learning_rate.decay_epochs: not a field"},
	} {
		if err := c.spec.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.spec, err, c.want)
		}
	}
}

func TestBrokenPromisesPanic(t *testing.T) {
	o := New(&SGD{LearningRate: Constant(1), Momentum: 0.5}, 2, 0)
	v := make([]float32, 2)
	for name, f := range map[string]func(){
		"invalid spec":    func() { New(&SGD{}, 2, 0) },
		"negative clip":   func() { New(&SGD{LearningRate: Constant(1)}, 2, -1) },
		"short params":    func() { o.Step(v[:1], v, [][]float32{v}, 0, 1) },
		"short gradients": func() { o.Step(v, v[:1], [][]float32{v}, 0, 1) },
		"no slot":         func() { o.Step(v, v, nil, 0, 1) },
		"short slot":      func() { o.Step(v, v, [][]float32{v[:1]}, 0, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func BenchmarkStep(b *testing.B) {
	const n = 101770 // 784-128-10
	for name, o := range optimizers(n, 1) {
		b.Run(name, func(b *testing.B) {
			p, g, slots := make([]float32, n), make([]float32, n), newSlots(o, n)
			for i := range g {
				g[i] = float32(i%17) * 1e-3
			}
			for b.Loop() {
				o.Step(p, g, slots, 5, 10)
			}
		})
	}
}

// clip scales g as an update at this limit would.
func clip(g []float32, limit float64) {
	scale(g, New(&SGD{LearningRate: Constant(1)}, len(g), limit).clipFactor(g))
}
