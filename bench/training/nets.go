package main

import (
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/nn"
)

// net is a network as a user of Keras would write it, and the samples that it is
// trained on: random ones, because only their shapes matter. The peer's script
// has the same ones by the same names.
type net struct {
	name    string
	about   string
	batches []int
	layers  func() []job.Section
	loss    string
	samples int // how many, if not cut to whole batches
	info    dataset.Info
	below   int // inputs are whole numbers from 0 to below-1; 0: reals in [-1, 1)
	conv    bool
}

const (
	oneOfMany = "sparse_categorical_crossentropy"
	yesOrNo   = "binary_crossentropy"
)

var nets = []net{
	{
		name: "mlp", about: "MLP 784-128-10", batches: []int{32, 128, 512},
		layers: func() []job.Section {
			return []job.Section{nn.NewDense(128, "relu"), nn.NewDense(10, "softmax")}
		},
		loss: oneOfMany, samples: 60000, info: dataset.Info{Name: "digits", Input: []int{784}, Target: 1, Classes: 10},
	},
	{
		name: "widemlp", about: "MLP 784-1024-1024-10", batches: []int{128},
		layers: func() []job.Section {
			return []job.Section{nn.NewDense(1024, "relu"), nn.NewDense(1024, "relu"), nn.NewDense(10, "softmax")}
		},
		loss: oneOfMany, samples: 60000, info: dataset.Info{Name: "digits", Input: []int{784}, Target: 1, Classes: 10},
	},
	{
		name: "mnistcnn", about: "MNIST CNN", batches: []int{64, 128}, conv: true,
		layers: func() []job.Section {
			return []job.Section{
				conv(32), conv(64), nn.NewMaxPooling2D(nn.Pair{2, 2}),
				nn.NewFlatten(), nn.NewDense(128, "relu"), nn.NewDense(10, "softmax"),
			}
		},
		loss: oneOfMany, samples: 60000, info: dataset.Info{Name: "digits", Input: []int{28, 28, 1}, Target: 1, Classes: 10},
	},
	{
		name: "lstm", about: "LSTM", batches: []int{32, 128},
		layers: func() []job.Section {
			return []job.Section{nn.NewEmbedding(10000, 128), nn.NewLSTM(128), nn.NewDense(1, "sigmoid")}
		},
		loss: yesOrNo, samples: 25000, info: dataset.Info{Name: "reviews", Input: []int{200}, Target: 1, Classes: 2}, below: 10000,
	},
	{
		name: "catsdogs", about: "cats-vs-dogs CNN", batches: []int{32}, conv: true,
		layers: func() []job.Section {
			return []job.Section{
				conv(32), nn.NewMaxPooling2D(nn.Pair{2, 2}), conv(64), nn.NewMaxPooling2D(nn.Pair{2, 2}),
				conv(128), nn.NewMaxPooling2D(nn.Pair{2, 2}),
				nn.NewFlatten(), nn.NewDense(512, "relu"), nn.NewDense(1, "sigmoid"),
			}
		},
		loss: yesOrNo, samples: 512, info: dataset.Info{Name: "photographs", Input: []int{150, 150, 3}, Target: 1, Classes: 2},
	},
}

func conv(filters int) job.Section { return nn.NewConv2D(filters, nn.Pair{3, 3}, "relu") }

// named returns the net of that name, or nil.
func named(name string) *net {
	for i := range nets {
		if nets[i].name == name {
			return &nets[i]
		}
	}
	return nil
}

// cut returns how many samples make whole batches: PyTorch's loop drops the rest.
func (n *net) cut(batch int) int { return n.samples / batch * batch }

// bytes is the size of the samples in memory, as float32.
func (n *net) bytes(batch int) int64 {
	return int64(n.cut(batch)) * int64(4*(n.info.InputLen()+n.info.Target))
}

// flops is what a training step multiplies and adds for one sample: forward, and
// as much again for each of two gradients; nobody wants that of the input.
func (n *net) flops() (float64, error) {
	spec := nn.Spec{Loss: n.loss}
	for _, l := range n.layers() {
		spec.Layers = append(spec.Layers, l.(nn.LayerSpec))
	}
	m, err := nn.Build(spec, n.info.Input, nn.Target{Len: n.info.Target, Classes: n.info.Classes})
	if err != nil {
		return 0, err
	}
	rows := m.Summary()
	sum := -rows[0].FLOPs
	for _, r := range rows {
		sum += 3 * r.FLOPs
	}
	return float64(sum), nil
}
