package job

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/dlnode/dlnode/nn"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// everyLayer has a job with all kinds of layers, nested ones and short forms too.
const everyLayer = `data: {synthetic: {features: 12}}
model:
  - reshape: {target_shape: [4, 3, -1]}
  - conv2d: {filters: 4, kernel_size: 3, strides: [1, 2], padding: same, activation: swish, kernel_regularizer: {l2: 0.01}}
  - batch_normalization: {trainable: false}
  - spatial_dropout2d: {rate: 0.1}
  - max_pooling2d
  - average_pooling2d: {pool_size: 1, strides: 1}
  - residual:
      layers:
        - conv2d: {filters: 4, kernel_size: 1}
        - layer_normalization
      shortcut:
        - conv2d: {filters: 4, kernel_size: [1, 1], use_bias: false}
  - concat:
      branches:
        - []
        - [{conv2d: {filters: 2, kernel_size: 1}}, {activation: {kind: elu}}]
  - reshape: {target_shape: [-1, 3]}
  - bidirectional: {layer: {lstm: {units: 3, return_sequences: true, recurrent_dropout: 0.5}}, merge_mode: sum}
  - gru: {units: 4}
  - dense: {units: 4, activation: softmax, bias_initializer: constant(0.5)}
loss: sparse_categorical_crossentropy
label_smoothing: 0.1
class_weight: [1, 1, 2, 0.5]
validation: {split: 0.2}
reduce_on_plateau: {factor: 0.5, patience: 2}
optimizer: {lamb: {learning_rate: {schedule: piecewise, initial: 0.1, boundaries: [10, 20], values: [0.01, 0.001]}}}
`

func TestEveryLayerIsReadShownAndRestored(t *testing.T) {
	want, err := Parse("job.yaml", []byte(everyLayer))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := want.Show(&text); err != nil {
		t.Fatal(err)
	}
	got, err := Parse("shown.yaml", text.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%s", err, &text)
	}
	equal := []cmp.Option{cmpopts.IgnoreUnexported(Job{}), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(want, got, equal...); diff != "" {
		t.Error(diff)
	}
	m, err := Restore(want.Canonical())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Canonical(), want.Canonical()) {
		t.Errorf("%s is restored as\n%s", want.Canonical(), m.Canonical())
	}
	spec, err := m.Network()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nn.Build(spec, []int{12}, nn.Target{Len: 1, Classes: 4}); err != nil {
		t.Error(err)
	}
}

func TestMistakesInsideOfLayersFindTheirLine(t *testing.T) {
	_, err := Parse("job.yaml", []byte(`data: {synthetic: {}}
model:
  - conv2d: {filters: 4, kernel_size: [3, 3, 3]}
  - conv2d: {filters: 4, kernel_size: 3.5}
  - conv2d:
      filters: 4
      kernel_size: 0
      kernel_regularizer:
        l1: -1
  - residual:
      layers:
        - conv2d: {filters: 0, kernel_size: 3}
        - conv3d: {filters: 0, kernel_size: 3}
      shortcut:
        - dropout: {rate: 1}
  - concat:
      branches:
        - [flatten]
        - - dense: {units: 1}
          - dense: {unit: 1}
  - bidirectional:
      layer: {dense: {units: 3}}
  - bidirectional:
      layer:
        lstm: {units: 0}
  - bidirectional
  - residual: {layers: []}
  - reshape: {target_shape: [-1, -1]}
loss: mean_squared_error
label_smoothing: 0.5
class_weight: [1, -1]
reduce_on_plateau: {factor: 1}
`))
	if err == nil {
		t.Fatal("no error")
	}
	golden(t, "inside.txt", []byte(err.Error()+"\n"))
}

// A job written before a field was there has the canonical form that it had then.
func TestFieldsThatCameLaterLeaveOldJobsAlone(t *testing.T) {
	type section struct {
		Old       int            `yaml:"old"`
		Trainable bool           `yaml:"trainable,later=true"`
		Penalty   nn.Regularizer `yaml:"penalty,later"`
		Weights   []float64      `yaml:"weights,later"`
	}
	for _, c := range []struct {
		in   section
		want string
	}{
		{section{Trainable: true}, `{"old":0}`},
		{section{Trainable: false}, `{"old":0,"trainable":false}`},
		{section{Trainable: true, Penalty: nn.Regularizer{L2: 0.5}}, `{"old":0,"penalty":{"l1":0,"l2":0.5}}`},
		{section{Trainable: true, Weights: []float64{1}}, `{"old":0,"weights":[1]}`},
	} {
		if got := string(appendJSON(nil, encode(reflect.ValueOf(c.in), true))); got != c.want {
			t.Errorf("%+v is %s, want %s", c.in, got, c.want)
		}
	}
}
