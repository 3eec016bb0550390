// Package augment shows a model the same image in another way each epoch: turned,
// shifted, sheared, zoomed, mirrored, brighter, cropped or with a hole in it. The
// fields and what they mean are those of Keras' ImageDataGenerator, with random
// crops and cutout beside them.
//
//	(seed, epoch, sample id) ── Draw ──► Transform ──► one affine map ─┐
//	                                                 src [h,w,c] ──► Apply ──► dst [h,w,c]
//
// What happens to an image is a pure function of the spec, the image and its key,
// so every node makes the same pixels of a sample, whatever the batch, the thread
// or the number of times.
//
// All of the geometry is one map: for each pixel written, the place in the source
// that it is read from, interpolated bilinearly among the four pixels around. An
// image is therefore sampled once, and not blurred once for each step. The
// coefficients of the map are rounded to 32 fractional bits and places are integers
// from then on: to go on by a pixel is an addition without an error, flips and
// crops are exact, and an image that nothing is done to comes out as it went in.
//
// With Keras' order and signs, the place that pixel p is read from is
//
//	src(p) = centre + R·(S·Z·(p' − centre) + (dx, dy))     p' = p cropped, then flipped
//	R = │cos θ  −sin θ│   S = │1  −sin σ│   Z = │zx    │   on columns (x, to the
//	    │sin θ   cos θ│       │0   cos σ│       │    zy│   right), rows (y, down)
//
// It differs from Keras 3 in three things. Keras lets width_shift_range move rows,
// and turns an image that is not square around a point that is not its centre:
// both are mistakes there. Its fill mode "wrap" leaves out one column of each
// period, because SciPy's does; here it is the one that Keras documents. And
// brightness multiplies, where Keras first stretches each image to its own minimum
// and maximum.
package augment

import (
	"errors"
	"fmt"
)

// Spec says how far images may be changed. The zero ranges change nothing; start
// from [Default].
type Spec struct {
	// RotationRange is the largest angle of a turn, in degrees.
	RotationRange float64 `yaml:"rotation_range"`
	// WidthShiftRange and HeightShiftRange are the largest shifts, as fractions of
	// width and height where below 1, else in pixels.
	WidthShiftRange  float64 `yaml:"width_shift_range"`
	HeightShiftRange float64 `yaml:"height_shift_range"`
	// ShearRange is the largest angle of a shear, in degrees.
	ShearRange float64 `yaml:"shear_range"`
	// ZoomRange bounds the two factors by which more or less than the image's own
	// width and height is seen: above 1 the image gets smaller.
	ZoomRange Range `yaml:"zoom_range"`
	// HorizontalFlip exchanges left and right, VerticalFlip top and bottom, in every
	// other image.
	HorizontalFlip bool `yaml:"horizontal_flip"`
	VerticalFlip   bool `yaml:"vertical_flip"`
	// RandomCrop is the number of pixels that an image is padded with on each side
	// before a piece of its own size is cut out somewhere.
	RandomCrop int `yaml:"random_crop"`
	// FillMode says what lies around an image: nearest, reflect, wrap or constant.
	FillMode string `yaml:"fill_mode"`
	// Cval is what lies around an image in mode constant, and in a hole.
	Cval float64 `yaml:"cval"`
	// BrightnessRange bounds the factor of all values, which are then cut off at 0
	// and 1: it is for images in [0, 1].
	BrightnessRange Range `yaml:"brightness_range"`
	// Cutout is the side of a square hole, in pixels. Its centre is anywhere in the
	// image, so part of it may lie outside (DeVries and Taylor, "Improved
	// regularization of convolutional neural networks with cutout", 2017).
	Cutout int `yaml:"cutout"`
}

// Range is where a factor is drawn from, evenly: from its first number up to its
// second. In a job file one number r stands for [1-r, 1+r].
type Range [2]float64

// Around returns [1-r, 1+r].
func Around(r float64) Range { return Range{1 - r, 1 + r} }

// Default returns a spec that changes nothing, to be filled in.
func Default() Spec {
	return Spec{ZoomRange: Range{1, 1}, BrightnessRange: Range{1, 1}, FillMode: "nearest"}
}

// FillModes returns the fill modes, in the order to show them. What lies around an
// image whose row is a b c d:
//
//	nearest   a a a a|a b c d|d d d d
//	reflect   d c b a|a b c d|d c b a
//	wrap      a b c d|a b c d|a b c d
//	constant  k k k k|a b c d|k k k k   from one pixel's centre to the other's: nothing
//	                                    fades into k
func FillModes() []string { return []string{"nearest", "reflect", "wrap", "constant"} }

// Limits. They keep every place within the 31 bits before the point.
const (
	maxSide  = 1 << 14 // pixels
	maxZoom  = 64
	minZoom  = 1.0 / 64
	maxLight = 64
)

// Validate tells which field is out of its range, each problem as
// "field: value is not allowed (want …)".
func (s *Spec) Validate() error {
	var all []error
	unless := func(ok bool, field string, value any, want string) {
		if !ok {
			all = append(all, fmt.Errorf("%s: %v is not allowed (want %s)", field, value, want))
		}
	}
	in := func(x, lo, hi float64) bool { return x >= lo && x <= hi }
	shift := fmt.Sprintf("0 to %d: a fraction below 1, else pixels", maxSide)
	pixels := fmt.Sprintf("0 to %d pixels", maxSide)
	unless(in(s.RotationRange, 0, 360), "rotation_range", s.RotationRange, "0 to 360 degrees")
	unless(in(s.WidthShiftRange, 0, maxSide), "width_shift_range", s.WidthShiftRange, shift)
	unless(in(s.HeightShiftRange, 0, maxSide), "height_shift_range", s.HeightShiftRange, shift)
	unless(in(s.ShearRange, 0, 89), "shear_range", s.ShearRange, "0 to 89 degrees")
	unless(s.ZoomRange.within(minZoom, maxZoom), "zoom_range", s.ZoomRange, fmt.Sprintf("[lower, upper] from 1/%d to %d", maxZoom, maxZoom))
	unless(s.RandomCrop >= 0 && s.RandomCrop <= maxSide, "random_crop", s.RandomCrop, pixels)
	unless(modeOf(s.FillMode) >= 0, "fill_mode", fmt.Sprintf("%q", s.FillMode), "nearest, reflect, wrap or constant")
	unless(in(s.Cval, -1e6, 1e6), "cval", s.Cval, "-1e6 to 1e6")
	unless(s.BrightnessRange.within(0, maxLight), "brightness_range", s.BrightnessRange, fmt.Sprintf("[lower, upper] from 0 to %d", maxLight))
	unless(s.Cutout >= 0 && s.Cutout <= maxSide, "cutout", s.Cutout, pixels)
	return errors.Join(all...)
}

func (r Range) within(lo, hi float64) bool { return r[0] >= lo && r[0] <= r[1] && r[1] <= hi }

// mode is a fill mode as its place in FillModes.
type mode int

const (
	nearest mode = iota
	reflect
	wrap
	constant
)

// modeOf returns -1 for a name that is none.
func modeOf(name string) mode {
	for i, known := range FillModes() {
		if name == known {
			return mode(i)
		}
	}
	return -1
}

// Augmenter changes images of one shape. It is immutable: any number of goroutines
// may use it.
type Augmenter struct {
	spec    Spec
	mode    mode
	cval    float32
	h, w, c int
}

// New returns the Augmenter of a spec for images of a shape, [height width] or
// [height width channels], channels last. What is wrong with either is the error.
func New(s Spec, shape []int) (*Augmenter, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("augment: %w", err)
	}
	if len(shape) != 2 && len(shape) != 3 {
		return nil, fmt.Errorf("augment: samples of shape %v are no images (want [height width] or [height width channels])", shape)
	}
	a := &Augmenter{spec: s, mode: modeOf(s.FillMode), cval: float32(s.Cval), h: shape[0], w: shape[1], c: 1}
	if len(shape) == 3 {
		a.c = shape[2]
	}
	if min(a.h, a.w, a.c) < 1 || max(a.h, a.w) > maxSide {
		return nil, fmt.Errorf("augment: images of shape %v (want sides of 1 to %d pixels, and a channel)", shape, maxSide)
	}
	return a, nil
}

// Len returns the length of an image, height × width × channels.
func (a *Augmenter) Len() int { return a.h * a.w * a.c }

// Image writes src, changed as its key says, into dst. Both are [h, w, c] and must
// not overlap; other lengths panic. It allocates nothing.
func (a *Augmenter) Image(dst, src []float32, k Key) { a.Apply(dst, src, a.Draw(k)) }
