package main

import (
	"slices"
	"testing"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/job"
)

// Each row of the sheet is a sample as it is, then as training shows it.
func TestTheSheetShowsWhatTrainingSees(t *testing.T) {
	t.Parallel()
	x, y := make([]float32, 3*25), make([]float32, 3)
	for i := range x {
		x[i] = float32(i%19) / 19
	}
	d, err := dataset.NewMemory(dataset.Info{Input: []int{5, 5}, Target: 1}, []uint64{7, 3, 9}, x, y)
	if err != nil {
		t.Fatal(err)
	}
	j := job.Default()
	s := augment.Default()
	s.RotationRange, s.HorizontalFlip = 40, true
	j.Seed, j.Augment = 11, &s
	all, err := augmentedImages(d, j, 2)
	if err != nil || len(all) != 2*sheetColumns {
		t.Fatalf("%d images, %v", len(all), err)
	}
	a, err := augment.New(s, []int{5, 5})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]float32, 25)
	for i, id := range []uint64{7, 3} {
		row := all[i*sheetColumns:]
		if !slices.Equal(row[0], x[i*25:(i+1)*25]) {
			t.Errorf("row %d does not begin with its sample", i)
		}
		for epoch := range uint64(sheetColumns - 1) {
			a.Image(want, row[0], augment.Key{Seed: 11, Epoch: epoch, ID: id})
			if !slices.Equal(row[1+epoch], want) {
				t.Errorf("row %d, epoch %d: not what training sees", i, epoch+1)
			}
		}
	}
}
