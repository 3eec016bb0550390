package job

import (
	"fmt"
	"slices"

	"github.com/dlnode/dlnode/optim"
)

// A registry of this package's own, so that its tests say the same whatever
// layers there are.

type (
	flatten_ struct{}
	dense_   struct {
		Units      int    `yaml:"units" json:"units"`
		Activation string `yaml:"activation" json:"activation"`
		UseBias    bool   `yaml:"use_bias" json:"use_bias"`
		Name       string `yaml:"name,omitempty" json:"name"`
	}
	dropout_ struct {
		Rate float64 `yaml:"rate" json:"rate"`
	}
	adam_ struct {
		LearningRate optim.Schedule `yaml:"learning_rate" json:"learning_rate"`
		Beta1        float64        `yaml:"beta_1" json:"beta_1"`
	}
	sgd_ struct {
		Nesterov bool `yaml:"nesterov" json:"nesterov"`
	}
	mnist_ struct{}
	files_ struct {
		Path    string `yaml:"path" json:"-"`
		Classes uint8  `yaml:"classes" json:"classes"`
	}
)

func (*flatten_) Kind() string { return "flatten" }
func (*dense_) Kind() string   { return "dense" }
func (*dropout_) Kind() string { return "dropout" }
func (*adam_) Kind() string    { return "adam" }
func (*sgd_) Kind() string     { return "sgd" }
func (*mnist_) Kind() string   { return "mnist" }
func (*files_) Kind() string   { return "files" }

func (*flatten_) Validate() error { return nil }
func (d *dense_) Validate() error {
	if d.Units < 1 {
		return fmt.Errorf("dense: units is %d, want at least 1", d.Units)
	}
	return nil
}

func (d *dropout_) Validate() error {
	if !(d.Rate >= 0 && d.Rate < 1) {
		return fmt.Errorf("rate: %v is not allowed (want 0 to below 1)", d.Rate)
	}
	return nil
}
func (*adam_) Validate() error  { return nil }
func (*sgd_) Validate() error   { return nil }
func (*mnist_) Validate() error { return nil }
func (f *files_) Validate() error {
	if f.Path == "" {
		return fmt.Errorf("path is missing, want a file")
	}
	return nil
}

func family(noun string, kinds []string, make func(kind string) Section) Family {
	return Family{
		Noun:  noun,
		Kinds: func() []string { return kinds },
		New: func(kind string) (Section, bool) {
			if !slices.Contains(kinds, kind) {
				return nil, false
			}
			return make(kind), true
		},
	}
}

func testRegistry() Registry {
	return Registry{
		Layers: family("layer", []string{"dense", "dropout", "flatten"}, func(kind string) Section {
			return map[string]Section{
				"dense": &dense_{Activation: "linear", UseBias: true}, "dropout": &dropout_{Rate: 0.5}, "flatten": &flatten_{},
			}[kind]
		}),
		Optimizers: family("optimizer", []string{"adam", "sgd"}, func(kind string) Section {
			return map[string]Section{"adam": &adam_{optim.Constant(0.001), 0.9}, "sgd": &sgd_{}}[kind]
		}),
		Datasets: family("data set", []string{"mnist", "files"}, func(kind string) Section {
			return map[string]Section{"mnist": &mnist_{}, "files": &files_{Classes: 10}}[kind]
		}),
		Losses:  []string{"sparse_categorical_crossentropy", "mean_squared_error"},
		Metrics: []string{"accuracy", "mse", "mae"},
	}
}
