package job

import (
	"bytes"
	"testing"

	"github.com/dlnode/dlnode/dataset/augment"
)

// A job without augmentation has the canonical form, and so the trajectory, that it
// had before there was any.
func TestAugmentationIsMathematicsOnlyWhereItIs(t *testing.T) {
	const text = "data: mnist\nmodel: [flatten]\nloss: mean_squared_error\n"
	parse := func(text string) *Job {
		t.Helper()
		j, err := testRegistry().Parse("job.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	plain, none := parse(text), parse(text+"augment: none\n")
	if bytes.Contains(plain.Canonical(), []byte("augment")) || !bytes.Equal(plain.Canonical(), none.Canonical()) {
		t.Errorf("without augmentation the canonical form is\n%s", plain.Canonical())
	}
	j := parse(text + "augment: {rotation_range: 40, zoom_range: 0.25, brightness_range: [0.5, 1], horizontal_flip: true}\n")
	want := augment.Default()
	want.RotationRange, want.ZoomRange, want.BrightnessRange, want.HorizontalFlip = 40, augment.Range{0.75, 1.25}, augment.Range{0.5, 1}, true
	if *j.Augment != want {
		t.Errorf("the augmentation is %+v, want %+v", *j.Augment, want)
	}
	if diff := Diff(plain.Canonical(), j.Canonical()); len(diff) == 0 {
		t.Error("it is not told in what the jobs differ")
	}
}
