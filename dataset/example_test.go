package dataset_test

import (
	"context"
	"fmt"
	"log"

	"github.com/dlnode/dlnode/dataset"
)

// The last tenth of the training samples is set aside for validation.
func Example() {
	spec := &dataset.Synthetic{Samples: 100, TestSamples: 20, Features: 4, Classes: 3, Seed: 1}
	train, test, err := dataset.Open(context.Background(), spec, dataset.Env{})
	if err != nil {
		log.Fatal(err)
	}
	fit, validate := dataset.Slice(train, 0, 90), dataset.Slice(train, 90, 100)
	fmt.Println(fit.Len(), validate.Len(), test.Len())

	x, y := make([]float32, fit.Info().InputLen()), make([]float32, fit.Info().Target)
	id, err := validate.Read(3, x, y)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id, len(x), y[0] < 3)
	// Output:
	// 90 10 20
	// 93 4 true
}

// A data set of your own, held in memory.
func ExampleNewMemory() {
	info := dataset.Info{Name: "xor", Input: []int{2}, Target: 1, Classes: 2}
	xor, err := dataset.NewMemory(info, nil,
		[]float32{0, 0, 0, 1, 1, 0, 1, 1},
		[]float32{0, 1, 1, 2})
	fmt.Println(xor, err)
	// Output: <nil> dataset xor: record 3: class id is 2, want an integer from 0 to 1
}
