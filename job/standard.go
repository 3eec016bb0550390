package job

import (
	"fmt"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/nn"
	"github.com/dlnode/dlnode/optim"
)

// Standard returns all that this program can build a job of.
func Standard() Registry {
	return Registry{
		Layers:     familyOf("layer", nn.LayerKinds, nn.NewLayerSpec),
		Optimizers: familyOf("optimizer", optim.Kinds, optim.NewSpec),
		Datasets:   familyOf("data set", dataset.Kinds, dataset.NewSpec),
		Losses:     nn.Losses(),
		Metrics:    nn.Metrics(),
	}
}

// familyOf adapts a room's own two functions.
func familyOf[S Section](noun string, kinds func() []string, make func(kind string) (S, bool)) Family {
	return Family{noun, func(kind string) (Section, bool) {
		s, ok := make(kind)
		return s, ok
	}, kinds}
}

// Network returns what nn.Build takes. Its error names a layer that is not one
// of package nn's. (Data and Optimizer need no such help: a Section is a
// dataset.Spec and an optim.Spec as it is.)
func (m *Maths) Network() (nn.Spec, error) {
	spec := nn.Spec{Loss: m.Loss, Metrics: m.Metrics, LabelSmoothing: m.LabelSmoothing, ClassWeights: m.ClassWeight, Layers: make([]nn.LayerSpec, len(m.Model))}
	for i, s := range m.Model {
		layer, ok := s.(nn.LayerSpec)
		if !ok {
			return nn.Spec{}, &Error{Field: layerPath(i), Problem: fmt.Sprintf("%T is not a layer of package nn", s)}
		}
		spec.Layers[i] = layer
	}
	return spec, nil
}
