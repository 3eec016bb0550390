package augment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
)

// tolerance against results in float64: the source's values and the two weights have
// 24 bits here, and so has the result of each of nine operations on values up to 1.
// The map's own rounding, to 32 bits behind the point, is far below that.
const tolerance = 10.0 / (1 << 24)

// TestImagesAreThoseOfSciPyAndKeras holds the geometry against other people's.
func TestImagesAreThoseOfSciPyAndKeras(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Source, FillMode string
		Shape, Image     []int
		Cval             float64
		Transform        Transform
		Want             []float64
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 30 {
		t.Fatalf("%d cases, want 30", len(cases))
	}
	worst := 0.0
	for i, c := range cases {
		spec := Default()
		spec.FillMode, spec.Cval = c.FillMode, c.Cval
		a := must(New(spec, c.Shape))
		src, got := make([]float32, a.Len()), make([]float32, a.Len())
		for j, v := range c.Image {
			src[j] = float32(v) / 255
		}
		a.Apply(got, src, c.Transform)
		for j, want := range c.Want {
			off := math.Abs(float64(got[j]) - want)
			worst = max(worst, off)
			if off > tolerance {
				t.Errorf("case %d (%s, %s, %v): value %d is %v, want %v", i, c.Source, c.FillMode, c.Shape, j, got[j], want)
				break
			}
		}
	}
	t.Logf("largest error %.2g", worst)
}

// recorded names the bits of the images below. It changes only with a definition,
// and then every trajectory with augmentation does: raise the program's numerics
// version with it.
const recorded = "5a0c53464f039e2c7bfb046b0e21bbfc58f1ebf515852881b1812e51be8397df"

func TestPixelsAreTheRecordedOnes(t *testing.T) {
	hash := sha256.New()
	for _, mode := range FillModes() {
		for _, shape := range [][]int{{28, 28}, {31, 40, 3}, {9, 5, 4}, {1, 7, 3}, {6, 1, 1}} {
			spec := everything()
			spec.FillMode = mode
			a := must(New(spec, shape))
			src, dst := picture(a), make([]float32, a.Len())
			for id := range uint64(20) {
				a.Image(dst, src, Key{Seed: 7, Epoch: id % 3, ID: id})
				if err := binary.Write(hash, binary.LittleEndian, dst); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != recorded {
		t.Errorf("the pixels' SHA-256 is %s, want %s", got, recorded)
	}
}

// everything is a spec with every field at work.
func everything() Spec {
	return Spec{
		RotationRange: 40, WidthShiftRange: 0.2, HeightShiftRange: 3, ShearRange: 20, ZoomRange: Around(0.3),
		HorizontalFlip: true, VerticalFlip: true, RandomCrop: 2, FillMode: "nearest", Cval: 0.5,
		BrightnessRange: Range{0.5, 1.5}, Cutout: 3,
	}
}

// guide is what Keras' guide to small data sets uses.
func guide() Spec {
	s := Default()
	s.RotationRange, s.WidthShiftRange, s.HeightShiftRange, s.ShearRange = 40, 0.2, 0.2, 0.2
	s.ZoomRange, s.HorizontalFlip = Around(0.2), true
	return s
}

// picture is an image of which no two pixels are alike, in [0, 1).
func picture(a *Augmenter) []float32 {
	x := make([]float32, a.Len())
	for i := range x {
		x[i] = float32(uint32(i)*2654435761>>8) * (1.0 / (1 << 24))
	}
	return x
}

func must(a *Augmenter, err error) *Augmenter {
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return a
}
