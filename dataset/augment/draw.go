package augment

import "github.com/dlnode/dlnode/internal/rng"

// Key names one showing of one sample.
type Key struct {
	Seed  uint64 // of the run
	Epoch uint64 // from 0
	ID    uint64 // of the sample's record
}

// Transform is what is done to one image.
type Transform struct {
	Theta, Shear float64 // degrees
	Dx, Dy       float64 // pixels by which the place read lies right of and below the one written
	Zx, Zy       float64 // how many columns and rows of the source a pixel spans
	FlipX, FlipY bool    // left and right, top and bottom change places
	CropX, CropY int     // pixels by which the piece cut out lies right of and below the image
	Brightness   float32 // factor of every value, unless it is 1
	HoleX, HoleY int     // centre of the hole
}

// The words of a key's stream, by what they are drawn for: a field that is switched
// on moves no draw of another.
const (
	drawTheta = iota
	drawDx
	drawDy
	drawShear
	drawZx
	drawZy
	drawFlipX
	drawFlipY
	drawCropX
	drawCropY
	drawBrightness
	drawHoleX
	drawHoleY
	draws
)

// Draw returns what is done to the image of a key.
func (a *Augmenter) Draw(k Key) Transform {
	var words [(draws + 3) / 4 * 4]uint32
	stream := rng.New(k.Seed, rng.Augment, k.Epoch, k.ID, 0)
	for i := 0; i < len(words); i += 4 {
		block := stream.Block(uint64(i / 4))
		copy(words[i:], block[:])
	}
	s := &a.spec
	dx, dy := pixels(s.WidthShiftRange, a.w), pixels(s.HeightShiftRange, a.h)
	return Transform{
		Theta:      between(words[drawTheta], -s.RotationRange, s.RotationRange),
		Shear:      between(words[drawShear], -s.ShearRange, s.ShearRange),
		Dx:         between(words[drawDx], -dx, dx),
		Dy:         between(words[drawDy], -dy, dy),
		Zx:         between(words[drawZx], s.ZoomRange[0], s.ZoomRange[1]),
		Zy:         between(words[drawZy], s.ZoomRange[0], s.ZoomRange[1]),
		FlipX:      s.HorizontalFlip && words[drawFlipX]>>31 == 1,
		FlipY:      s.VerticalFlip && words[drawFlipY]>>31 == 1,
		CropX:      below(words[drawCropX], 2*s.RandomCrop+1) - s.RandomCrop,
		CropY:      below(words[drawCropY], 2*s.RandomCrop+1) - s.RandomCrop,
		Brightness: float32(between(words[drawBrightness], s.BrightnessRange[0], s.BrightnessRange[1])),
		HoleX:      below(words[drawHoleX], a.w),
		HoleY:      below(words[drawHoleY], a.h),
	}
}

// pixels turns a shift of a job file into pixels.
func pixels(shift float64, side int) float64 {
	if shift < 1 {
		return float64(shift * float64(side))
	}
	return shift
}

// between maps a random word to [lo, hi].
func between(word uint32, lo, hi float64) float64 {
	return lo + float64((hi-lo)*(float64(word)*(1.0/(1<<32))))
}

// below maps a random word to 0 .. n-1.
func below(word uint32, n int) int { return int(uint64(word) * uint64(n) >> 32) }
