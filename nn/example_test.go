package nn_test

import (
	"fmt"

	"github.com/dlnode/dlnode/nn"
)

// A network learns exclusive or by plain gradient descent. The figures are the
// same on every machine.
func Example() {
	spec := nn.Spec{
		Layers:  []nn.LayerSpec{nn.NewDense(8, "tanh"), nn.NewDense(1, "sigmoid")},
		Loss:    "binary_crossentropy",
		Metrics: []string{"accuracy"},
	}
	model, err := nn.Build(spec, []int{2}, nn.Target{Len: 1, Classes: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	params := make([]float32, model.NumParams())
	grads := make([]float32, model.NumParams())
	model.Init(1, params)

	batch := &nn.Batch{
		N: 4,
		X: []float32{0, 0, 0, 1, 1, 0, 1, 1},
		Y: []float32{0, 1, 1, 0},
	}
	work := model.NewWorkspace(batch.N)
	for range 1000 {
		work.Forward(params, batch, nn.Key{}, false)
		work.Backward(params, grads, nil)
		for i, g := range grads {
			params[i] -= float32(0.1 * g)
		}
	}
	out := work.Forward(params, batch, nn.Key{}, false)
	fmt.Printf("%.3f\n", out)
	fmt.Println(work.MetricValues(0))
	// Output:
	// [0.002 0.996 0.995 0.006]
	// [1 1 1 1]
}
