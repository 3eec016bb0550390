package job

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/optim"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/dataset/augment"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// anyJob draws a valid job of the test registry's parts.
func anyJob(t *rapid.T) *Job {
	j := testRegistry().Default()
	j.Name = rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,20}`).Draw(t, "name")
	j.Seed = rapid.Uint64().Draw(t, "seed")
	j.Data = rapid.SampledFrom([]Section{
		&mnist_{}, &files_{Path: rapid.StringN(1, 20, -1).Draw(t, "path"), Classes: rapid.Uint8().Draw(t, "classes")},
	}).Draw(t, "data")
	if rapid.Bool().Draw(t, "augmented") {
		spec := augment.Default()
		spec.ZoomRange = augment.Around(rapid.Float64Range(0, 0.9).Draw(t, "zoom"))
		spec.RandomCrop, spec.VerticalFlip = rapid.IntRange(0, 9).Draw(t, "crop"), rapid.Bool().Draw(t, "flip")
		j.Augment = &spec
	}
	j.Model = rapid.SliceOfN(rapid.Custom(anyLayer), 1, 6).Draw(t, "model")
	j.Loss = rapid.SampledFrom(testRegistry().Losses).Draw(t, "loss")
	j.Metrics = rapid.SampledFrom([][]string{nil, {"accuracy"}, {"mse", "mae"}}).Draw(t, "metrics")
	j.Optimizer = rapid.SampledFrom([]Section{
		&sgd_{rapid.Bool().Draw(t, "nesterov")}, &adam_{anySchedule(t), positive(t)},
	}).Draw(t, "optimizer")
	j.ClipNorm = positive(t)
	j.Batch.Global = rapid.IntRange(1, MaxGlobalBatch).Draw(t, "global")
	j.Batch.Microbatch = rapid.IntRange(1, j.Batch.Global).Draw(t, "microbatch")
	j.Epochs = rapid.IntRange(1, 1<<40).Draw(t, "epochs")
	j.OnNonfinite = rapid.SampledFrom([]string{"stop", "skip"}).Draw(t, "on_nonfinite")
	if rapid.Bool().Draw(t, "validated") {
		j.Validation = &Validation{Split: rapid.Float64Range(1e-9, 0.999).Draw(t, "split")}
	}
	if rapid.Bool().Draw(t, "stopped") {
		j.EarlyStopping = &EarlyStopping{"loss", rapid.IntRange(0, 9).Draw(t, "patience"), positive(t), "max", rapid.Bool().Draw(t, "restore")}
	}
	j.Checkpoint = Checkpoint{rapid.StringN(1, 20, -1).Draw(t, "dir"), 7, 8, 9}
	j.MinNodes = rapid.IntRange(1, 100).Draw(t, "min_nodes")
	return j
}

func anyLayer(t *rapid.T) Section {
	return rapid.SampledFrom([]Section{
		&flatten_{},
		&dropout_{rapid.Float64Range(0, 0.999).Draw(t, "rate")},
		&dense_{
			rapid.IntRange(1, 1<<40).Draw(t, "units"), rapid.String().Draw(t, "activation"),
			rapid.Bool().Draw(t, "use_bias"), rapid.String().Draw(t, "layer"),
		},
	}).Draw(t, "layer kind")
}

func anySchedule(t *rapid.T) optim.Schedule {
	s := optim.Constant(positive(t))
	if rapid.Bool().Draw(t, "scheduled") {
		s.Name, s.DecayEpochs, s.Alpha = "cosine", rapid.Uint64Range(1, 9).Draw(t, "decay"), positive(t)
	}
	return s
}

func positive(t *rapid.T) float64 { return rapid.Float64Min(0).Draw(t, "number") + 0 }

func TestShowParsesBackToAnEqualJob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyJob(t)
		var text bytes.Buffer
		if err := want.Show(&text); err != nil {
			t.Fatal(err)
		}
		got, err := testRegistry().Parse("shown.yaml", text.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, text.Bytes())
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Job{})); diff != "" {
			t.Fatalf("%s\n%s", diff, text.Bytes())
		}
	})
}

func TestCanonicalIsJSONThatRestoresTheMathematics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := anyJob(t)
		canonical := j.Canonical()
		if !json.Valid(canonical) {
			t.Fatalf("not JSON: %s", canonical)
		}
		got, err := testRegistry().Restore(canonical)
		if err != nil {
			t.Fatalf("%v\n%s", err, canonical)
		}
		if !bytes.Equal(got.Canonical(), canonical) {
			t.Fatalf("restored\n%s, want\n%s", got.Canonical(), canonical)
		}
	})
}

func TestWhatCannotChangeABitIsNotCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anyJob(t)
		b := *a
		b.Running = Running{Checkpoint{"elsewhere", 1, 1, 1}, 99}
		if f, ok := a.Data.(*files_); ok {
			b.Data = &files_{Path: "elsewhere", Classes: f.Classes}
		}
		if !bytes.Equal(a.Canonical(), b.Canonical()) {
			t.Fatalf("%v", Diff(a.Canonical(), b.Canonical()))
		}
	})
}

func TestCanonicalDoesNotDependOnTheWriting(t *testing.T) {
	a := parse(t, small)
	b := parse(t, `# the same in other words
loss: "sparse_categorical_crossentropy"
metrics:
- accuracy
model: [flatten: {}, {dense: {activation: relu, units: 0x80}}, dropout: {rate: 2e-1}, dense: {units: 10, use_bias: true, activation: softmax}]
data: {mnist: }
optimizer: {adam: {learning_rate: 1.0e-3}}
epochs: 1
name: small
min_nodes: 3
early_stopping: ~
`)
	if lines := Diff(a.Canonical(), b.Canonical()); lines != nil {
		t.Error(strings.Join(lines, "\n"))
	}
}

// TestCanonicalStaysAsItWas guards the names of trajectories: a change here
// makes every checkpoint that exists the checkpoint of another job.
func TestCanonicalStaysAsItWas(t *testing.T) {
	golden(t, "small.json", append(parse(t, small).Canonical(), '\n'))
}

func TestShowStaysAsItWas(t *testing.T) {
	var text bytes.Buffer
	full := small + "validation: {split: 0.1}\nearly_stopping: {patience: 2, restore_best: true}\n"
	if err := parse(t, full).Show(&text); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.yaml", text.Bytes())
}

// golden compares with a file of testdata; -rewrite makes it what it is now.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestShowTellsThatItCouldNotWrite(t *testing.T) {
	if err := parse(t, small).Show(failing{}); err == nil {
		t.Error("no error")
	}
}
