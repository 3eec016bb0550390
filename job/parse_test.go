package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/optim"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const small = `name: small
data: mnist
model:
  - flatten
  - dense: {units: 128, activation: relu}
  - dropout: {rate: 0.2}
  - dense: {units: 10, activation: softmax}
loss: sparse_categorical_crossentropy
metrics: [accuracy]
`

func parse(t *testing.T, text string) *Job {
	t.Helper()
	j, err := testRegistry().Parse("job.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestWhatIsNotSaidHasItsDefault(t *testing.T) {
	want := testRegistry().Default()
	want.Name = "small"
	want.Data = &mnist_{}
	want.Model = []Section{
		&flatten_{},
		&dense_{Units: 128, Activation: "relu", UseBias: true},
		&dropout_{Rate: 0.2},
		&dense_{Units: 10, Activation: "softmax", UseBias: true},
	}
	want.Loss = "sparse_categorical_crossentropy"
	want.Metrics = []string{"accuracy"}
	want.Optimizer = &adam_{optim.Constant(0.001), 0.9}
	want.Batch.Microbatch = 32
	if diff := cmp.Diff(want, parse(t, small), cmpopts.IgnoreUnexported(Job{})); diff != "" {
		t.Error(diff)
	}
}

func TestMicrobatchDefaultFitsSmallBatches(t *testing.T) {
	if j := parse(t, small+"batch: {global: 7}\n"); j.Batch.Microbatch != 7 {
		t.Errorf("microbatch is %d, want 7", j.Batch.Microbatch)
	}
}

func TestAnchorsAndMergesAreFollowed(t *testing.T) {
	j := parse(t, `
data: mnist
model:
  - dense: &wide {units: 64, activation: relu}
  - dense: *wide
  - dense: {<<: *wide, activation: tanh}
loss: mean_squared_error
`)
	want := []Section{
		&dense_{Units: 64, Activation: "relu", UseBias: true},
		&dense_{Units: 64, Activation: "relu", UseBias: true},
		&dense_{Units: 64, Activation: "tanh", UseBias: true},
	}
	if diff := cmp.Diff(want, j.Model); diff != "" {
		t.Error(diff)
	}
}

// with replaces or adds lines of a good job.
func with(lines string) string { return small + lines }

// TestEveryMistakeIsToldWithPlaceValueAndWhatIsAllowed is the golden table of
// messages: what users see, letter by letter.
func TestEveryMistakeIsToldWithPlaceValueAndWhatIsAllowed(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{
			"empty", "",
			"job.yaml:1: the file is empty (want a map of name, seed, data, augment, model, loss, label_smoothing, class_weight, metrics, optimizer, clip_norm, batch, epochs, validation, early_stopping, reduce_on_plateau, on_nonfinite, checkpoint or min_nodes)",
		},
		{
			"only comments", "# nothing\n",
			"job.yaml:1: the file is empty (want a map of name, seed, data, augment, model, loss, label_smoothing, class_weight, metrics, optimizer, clip_norm, batch, epochs, validation, early_stopping, reduce_on_plateau, on_nonfinite, checkpoint or min_nodes)",
		},
		{
			"a list", "- a\n",
			"job.yaml:1: a list (want a map of name, seed, data, augment, model, loss, label_smoothing, class_weight, metrics, optimizer, clip_norm, batch, epochs, validation, early_stopping, reduce_on_plateau, on_nonfinite, checkpoint or min_nodes)",
		},
		{
			"two documents", small + "---\nname: b\n",
			"job.yaml:11: a second document starts here (want one job in a file)",
		},
		{
			"not YAML", small + "batch: {global: 1\n",
			"job.yaml:10: not YAML: did not find expected ',' or '}'",
		},
		{
			"tab", small + "batch:\n\tglobal: 1\n",
			"job.yaml:11: not YAML: found character that cannot start any token",
		},
		{
			"unknown field", with("epoch: 3\n"),
			"job.yaml:10: epoch: unknown field (want name, seed, data, augment, model, loss, label_smoothing, class_weight, metrics, optimizer, clip_norm, batch, epochs, validation, early_stopping, reduce_on_plateau, on_nonfinite, checkpoint or min_nodes; did you mean epochs?)",
		},
		{
			"unknown nested field", with("batch: {size: 3}\n"),
			"job.yaml:10: batch.size: unknown field (want global or microbatch)",
		},
		{
			"abbreviated field", with("batch:\n  micro: 3\n"),
			"job.yaml:11: batch.micro: unknown field (want global or microbatch; did you mean microbatch?)",
		},
		{
			"given twice", with("loss: mse\n"),
			"job.yaml:10: loss: given twice (first in line 8)",
		},
		{
			"text for number", with("epochs: many\n"),
			`job.yaml:10: epochs: "many" is a string (want a whole number)`,
		},
		{
			"fraction for whole number", with("epochs: 1.5\n"),
			"job.yaml:10: epochs: 1.5 is a floating-point number (want a whole number)",
		},
		{
			"number for text", with("on_nonfinite: 3\n"),
			"job.yaml:10: on_nonfinite: 3 is a whole number (want a string)",
		},
		{
			"yes for true", with("early_stopping: {monitor: loss, restore_best: yes}\n"),
			`job.yaml:10: early_stopping.restore_best: "yes" is a string (want true or false)`,
		},
		{
			"no value", with("seed:\n"),
			"job.yaml:10: seed: no value (want a whole number)",
		},
		{
			"negative seed", with("seed: -1\n"),
			"job.yaml:10: seed: -1 is out of range (want 0 to 18446744073709551615)",
		},
		{
			"list for map", with("batch: [1]\n"),
			"job.yaml:10: batch: a list (want a map of global, microbatch)",
		},
		{
			"infinite number", with("clip_norm: .inf\n"),
			"job.yaml:10: clip_norm: .inf is not allowed (want a finite number)",
		},
		{
			"negative number", with("clip_norm: -1\n"),
			"job.yaml:10: clip_norm: -1 is not allowed (want a number above 0, or 0 for no limit)",
		},
		{
			"bad name", strings.Replace(small, "small", "a/b", 1),
			`job.yaml:1: name: "a/b" is not allowed (want 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first)`,
		},
		{
			"microbatch 0", with("batch:\n  global: 128\n  microbatch: 0\n"),
			"job.yaml:12: batch.microbatch: 0 is not allowed (want 1 to batch.global = 128)",
		},
		{
			"microbatch too large", with("batch: {global: 8, microbatch: 9}\n"),
			"job.yaml:10: batch.microbatch: 9 is not allowed (want 1 to batch.global = 8)",
		},
		{
			"no complaint follows from another", with("batch: {global: x, microbatch: 200}\n"),
			`job.yaml:10: batch.global: "x" is a string (want a whole number)`,
		},
		{
			"global 0", with("batch: {global: 0}\n"),
			"job.yaml:10: batch.global: 0 is not allowed (want 1 to 1048576)",
		},
		{
			"epochs 0", with("epochs: 0\n"),
			"job.yaml:10: epochs: 0 is not allowed (want at least 1)",
		},
		{
			"split 1", with("validation: {split: 1}\n"),
			"job.yaml:10: validation.split: 1 is not allowed (want a fraction above 0 and below 1; for none write validation: none)",
		},
		{
			"validation as a number", with("validation: 0.1\n"),
			"job.yaml:10: validation: 0.1 is a floating-point number (want none or a map of split)",
		},
		{
			"monitor without validation", with("early_stopping: {monitor: val_loss}\n"),
			`job.yaml:10: early_stopping.monitor: "val_loss" needs validation samples (want validation: {split: 0.1} or the like, or monitor loss or accuracy)`,
		},
		{
			"defaulted monitor without validation", with("early_stopping:\n  patience: 2\n"),
			`job.yaml:10: early_stopping.monitor: "val_loss" needs validation samples (want validation: {split: 0.1} or the like, or monitor loss or accuracy)`,
		},
		{
			"unknown monitor", with("validation: {split: 0.1}\nearly_stopping: {monitor: val_acuracy}\n"),
			`job.yaml:11: early_stopping.monitor: "val_acuracy" is not allowed (want val_loss, val_accuracy, loss or accuracy; did you mean val_accuracy?)`,
		},
		{
			"negative patience", with("early_stopping: {monitor: loss, patience: -1, min_delta: -0.5, mode: up}\n"),
			"job.yaml:10: early_stopping.patience: -1 is not allowed (want at least 0)\n" +
				"job.yaml:10: early_stopping.min_delta: -0.5 is not allowed (want at least 0)\n" +
				`job.yaml:10: early_stopping.mode: "up" is not allowed (want auto, min or max)`,
		},
		{
			"unknown word", with("on_nonfinite: ignore\n"),
			`job.yaml:10: on_nonfinite: "ignore" is not allowed (want stop or skip)`,
		},
		{
			"unknown loss", strings.Replace(small, "sparse_categorical_crossentropy", "categorical_crossentropy", 1),
			`job.yaml:8: loss: "categorical_crossentropy" is not allowed (want sparse_categorical_crossentropy or mean_squared_error; did you mean sparse_categorical_crossentropy?)`,
		},
		{
			"metrics as text", strings.Replace(small, "[accuracy]", "accuracy", 1),
			`job.yaml:9: metrics: "accuracy" is a string (want a list of strings such as [a, b])`,
		},
		{
			"unknown metric", strings.Replace(small, "[accuracy]", "[accurate, mse, mse]", 1),
			"job.yaml:9: metrics[0]: \"accurate\" is not allowed (want accuracy, mse or mae; did you mean accuracy?)\n" +
				`job.yaml:9: metrics[2]: "mse" is listed twice (first as metrics[1])`,
		},
		{
			"unknown layer", strings.Replace(small, "dropout:", "drop_out:", 1),
			`job.yaml:6: model[2]: "drop_out" is not a layer (want dense, dropout or flatten; did you mean dropout?)`,
		},
		{
			"unknown field of a layer", strings.Replace(small, "rate", "rat", 1),
			"job.yaml:6: model[2].dropout.rat: unknown field (want rate; did you mean rate?)",
		},
		{
			"field of a layer without fields", strings.Replace(small, "- flatten", "- flatten: {axis: 1}", 1),
			"job.yaml:4: model[0].flatten.axis: unknown field (want nothing)",
		},
		{
			"ill-typed field of a layer", strings.Replace(small, "128", "[128]", 1),
			"job.yaml:5: model[1].dense.units: a list (want a whole number)",
		},
		{
			"bad value in the words of a layer", strings.Replace(small, "units: 128", "units: 0", 1),
			"job.yaml:5: model[1].dense.units: 0 is not allowed (want at least 1)",
		},
		{
			"bad value on its own line", strings.Replace(small, "dropout: {rate: 0.2}", "dropout:\n      rate: 1", 1),
			"job.yaml:7: model[2].dropout.rate: 1 is not allowed (want 0 to below 1)",
		},
		{
			"fields beside the kind", strings.Replace(small, "dropout: {rate: 0.2}", "dropout:\n    rate: 0.2", 1),
			"job.yaml:7: model[2]: rate stands beside dropout (want it inside: dropout: {rate: …}, or indented deeper)",
		},
		{
			"learning rate in words", with("optimizer: {adam: {learning_rate: fast}}\n"),
			"job.yaml:10: optimizer.adam.learning_rate: \"fast\" is a string (want a number or a map of schedule, initial, warmup_steps, warmup_epochs, decay_steps, decay_epochs, decay_rate, alpha, boundaries, values)",
		},
		{
			"unknown field of a schedule", with("optimizer:\n  adam:\n    learning_rate:\n      schedule: cosine\n      warmup: 3\n"),
			"job.yaml:14: optimizer.adam.learning_rate.warmup: unknown field (want schedule, initial, warmup_steps, warmup_epochs, decay_steps, decay_epochs, decay_rate, alpha, boundaries or values; did you mean warmup_steps?)",
		},
		{
			"two kinds", with("optimizer: {adam: {}, sgd: {}}\n"),
			"job.yaml:10: optimizer: adam and sgd in one optimizer (want one kind)",
		},
		{
			"no kind", with("optimizer: {}\n"),
			"job.yaml:10: optimizer: an empty map (want an optimizer: adam or sgd)",
		},
		{
			"number as a section", with("optimizer: 3\n"),
			"job.yaml:10: optimizer: 3 is a whole number (want an optimizer: adam or sgd)",
		},
		{
			"missing field of a section", strings.Replace(small, "data: mnist", "data: files", 1),
			"job.yaml:2: data.files.path: missing (want a file)",
		},
		{
			"too small a type", strings.Replace(small, "data: mnist", "data: {files: {classes: 300, path: a}}", 1),
			"job.yaml:2: data.files.classes: 300 is out of range (want 0 to 255)",
		},
		{
			"empty model", "data: mnist\nmodel: []\nloss: mean_squared_error\n",
			"job.yaml:2: model: no layers (want a list of dense, dropout or flatten)",
		},
		{
			"everything missing", "seed: 2\n",
			"job.yaml:1: data: missing (want a data set: mnist or files)\n" +
				"job.yaml:1: model: no layers (want a list of dense, dropout or flatten)\n" +
				"job.yaml:1: loss: missing (want sparse_categorical_crossentropy or mean_squared_error)",
		},
		{
			"merge of a list", with("optimizer: {adam: {<<: [3]}}\n"),
			"job.yaml:10: optimizer.adam: << of the single value \"3\" (want a map)",
		},
		{
			"merge in a merge", with("optimizer: &a {<<: *a}\n"),
			"job.yaml:10: optimizer: << of a map that has << itself (want a plain map)\n" +
				"job.yaml:10: optimizer: an empty map (want an optimizer: adam or sgd)",
		},
		{
			"map as a key", with("batch: {{a: b}: 1}\n"),
			"job.yaml:10: batch: a map as a field name (want a string)",
		},
		{
			"the free part", with("checkpoint: {dir: \"\", every_steps: -1, keep: -1, replicas: 0}\nmin_nodes: 0\n"),
			"job.yaml:10: checkpoint.dir: \"\" is not allowed (want a directory)\n" +
				"job.yaml:10: checkpoint.every_steps: -1 is not allowed (want at least 0)\n" +
				"job.yaml:10: checkpoint.keep: -1 is not allowed (want at least 0)\n" +
				"job.yaml:10: checkpoint.replicas: 0 is not allowed (want at least 1)\n" +
				"job.yaml:11: min_nodes: 0 is not allowed (want at least 1)",
		},
		{
			"augmentation", with("augment: {rotation_range: -1, zoom_range: [1, 2, 3], brightness_range: [a, 1], fill_mode: mirror, hue: 1}\n"),
			"job.yaml:10: augment.zoom_range: a list (want [lower, upper] such as [0.8, 1.2], or 0.2 for that)\n" +
				"job.yaml:10: augment.brightness_range: \"a\" is a string (want a number)\n" +
				"job.yaml:10: augment.hue: unknown field (want rotation_range, width_shift_range, height_shift_range, shear_range, zoom_range, horizontal_flip, vertical_flip, random_crop, fill_mode, cval, brightness_range or cutout)\n" +
				"job.yaml:10: augment.rotation_range: -1 is not allowed (want 0 to 360 degrees)\n" +
				"job.yaml:10: augment.fill_mode: \"mirror\" is not allowed (want nearest, reflect, wrap or constant)",
		},
		{
			"several, by line", "epoch: 1\ndata: minst\nmodel: [flaten]\nloss: 3\nbatch: {global: 0}\n",
			"job.yaml:1: epoch: unknown field (want name, seed, data, augment, model, loss, label_smoothing, class_weight, metrics, optimizer, clip_norm, batch, epochs, validation, early_stopping, reduce_on_plateau, on_nonfinite, checkpoint or min_nodes; did you mean epochs?)\n" +
				"job.yaml:2: data: \"minst\" is not a data set (want mnist or files; did you mean mnist?)\n" +
				"job.yaml:3: model[0]: \"flaten\" is not a layer (want dense, dropout or flatten; did you mean flatten?)\n" +
				"job.yaml:4: loss: 3 is a whole number (want a string)\n" +
				"job.yaml:5: batch.global: 0 is not allowed (want 1 to 1048576)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := testRegistry().Parse("job.yaml", []byte(c.text))
			if err == nil {
				t.Fatalf("no error, want\n%s", c.want)
			}
			if diff := cmp.Diff(strings.Split(c.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAMissingFileIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(path)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestSingleErrorsCanBeFound(t *testing.T) {
	_, err := testRegistry().Parse("job.yaml", []byte(with("epochs: 0\n")))
	var one *Error
	if !errors.As(err, &one) || one.Field != "epochs" || one.Line != 10 {
		t.Errorf("got %#v", one)
	}
}

func FuzzParseNeverPanics(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("a: &a [*a, {<<: *a}]\nmodel: *a\n"))
	f.Add([]byte("model: [{dense: &a {<<: [*a, *a]}}]"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := testRegistry().Parse("job.yaml", data)
		if err == nil && testRegistry().Validate(j) != nil {
			t.Error("parsed, but not valid")
		}
	})
}
