// Package picture turns image files into pixels of one size: JPEG and PNG, resized
// by a stated filter, RGB or gray.
//
// The same file gives the same bytes on every machine. Decoding is done in integers
// by the standard library; resizing is done here, in 22-bit fixed point, with
// weights that no compiler can round differently. It is Pillow's Image.resize, bit
// for bit, so what was trained elsewhere on Pillow's pixels sees the same ones.
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"slices"
	"strings"
)

// MaxPixels bounds the images that are decoded.
const MaxPixels = 1 << 26

// The best that the two formats can do: a header that promises more lies, and costs
// nothing. In a JPEG a bit makes a block of 8×8 at best (that of a coarse scan); in
// a PNG deflate makes 1032 bytes of one.
const (
	jpegPixelsPerByte = 8 * 64
	inflated          = 1032
)

// Steps says what becomes of a file. It is all that a prediction needs to treat an
// image as training did.
type Steps struct {
	Height int    `json:"height"`
	Width  int    `json:"width"`
	Color  string `json:"color"`  // "rgb" or "gray"
	Filter string `json:"filter"` // one of Filters
}

// Colors are the values of Steps.Color.
func Colors() []string { return []string{"rgb", "gray"} }

// Channels returns the bytes of a pixel.
func (s Steps) Channels() int {
	if s.Color == "gray" {
		return 1
	}
	return 3
}

// Len returns the bytes of an image.
func (s Steps) Len() int { return s.Height * s.Width * s.Channels() }

// Validate tells what is wrong with the fields.
func (s Steps) Validate() error {
	switch {
	case s.Height < 1 || s.Width < 1 || s.Height > 1<<13 || s.Width > 1<<13:
		return fmt.Errorf("a size of %d×%d, want 1×1 to 8192×8192", s.Height, s.Width)
	case !slices.Contains(Colors(), s.Color):
		return fmt.Errorf("colour %q, want %s", s.Color, strings.Join(Colors(), " or "))
	case !slices.Contains(Filters(), s.Filter):
		return fmt.Errorf("filter %q, want one of %s", s.Filter, strings.Join(Filters(), ", "))
	}
	return nil
}

// Decode reads an image file into dst [height, width, channels]. Gray, CMYK and
// palettes become RGB; of 16 bits the upper eight count; transparency is left out,
// and an orientation in EXIF is not looked at. PNG gives Pillow's pixels, JPEG about
// those: see the tests for how far they may be apart.
func (s Steps) Decode(file, dst []byte) error {
	if len(dst) != s.Len() {
		panic(fmt.Sprintf("picture: decode into %d bytes, want %d", len(dst), s.Len()))
	}
	img, err := decode(file)
	if err != nil {
		return err
	}
	p := planar{img.Bounds().Dx(), img.Bounds().Dy(), 3, nil}
	p.pix = rgb(img)
	if s.Color == "gray" {
		p.pix, p.ch = gray(p.pix), 1
	}
	copy(dst, resize(p, s.Width, s.Height, s.Filter).pix)
	return nil
}

// decode reads a file whose header keeps its promises.
func decode(file []byte) (image.Image, error) {
	var config func(*bytes.Reader) (image.Config, error)
	var whole func(*bytes.Reader) (image.Image, error)
	pixelsPerByte := jpegPixelsPerByte
	switch {
	case len(file) == 0:
		return nil, errors.New("the file is empty")
	case bytes.HasPrefix(file, []byte("\xff\xd8")):
		config = func(r *bytes.Reader) (image.Config, error) { return jpeg.DecodeConfig(r) }
		whole = func(r *bytes.Reader) (image.Image, error) { return jpeg.Decode(r) }
	case bytes.HasPrefix(file, []byte("\x89PNG\r\n\x1a\n")):
		config = func(r *bytes.Reader) (image.Config, error) { return png.DecodeConfig(r) }
		whole = func(r *bytes.Reader) (image.Image, error) { return png.Decode(r) }
		pixelsPerByte = 8 * inflated / pngDepth(file)
	default:
		return nil, fmt.Errorf("offset 0: neither JPEG nor PNG: it starts with % x", file[:min(len(file), 4)])
	}
	r := bytes.NewReader(file)
	c, err := config(r)
	if err != nil {
		return nil, at(r, err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > MaxPixels/c.Height || c.Width*c.Height > pixelsPerByte*len(file) {
		return nil, fmt.Errorf("the header says %d×%d pixels, which %d bytes can't hold, or which are more than %d",
			c.Width, c.Height, len(file), MaxPixels)
	}
	r.Reset(file)
	img, err := whole(r)
	if err != nil {
		return nil, at(r, err)
	}
	return img, nil
}

// pngDepth returns the bits of a pixel by the header, whose own checksum the
// decoder looks at.
func pngDepth(file []byte) int {
	const depthAt, colorAt = 24, 25
	if len(file) <= colorAt {
		return 1
	}
	channels := 1 // gray, or a palette
	switch file[colorAt] {
	case 2:
		channels = 3
	case 4:
		channels = 2
	case 6:
		channels = 4
	}
	return min(max(1, int(file[depthAt])), 16) * channels
}

// at adds how far the decoder has come.
func at(r *bytes.Reader, err error) error {
	return fmt.Errorf("before offset %d of %d: %w", r.Size()-int64(r.Len()), r.Size(), err)
}

// rgb returns the pixels of an image, three bytes each.
func rgb(img image.Image) []byte {
	b := img.Bounds()
	out := make([]byte, 0, 3*b.Dx()*b.Dy())
	switch img := img.(type) {
	case *image.YCbCr:
		for y := b.Min.Y; y < b.Max.Y; y++ {
			line := img.Y[img.YOffset(b.Min.X, y):][:b.Dx()]
			for i, lum := range line {
				ci := img.COffset(b.Min.X+i, y)
				r, g, bl := color.YCbCrToRGB(lum, img.Cb[ci], img.Cr[ci])
				out = append(out, r, g, bl)
			}
		}
	case *image.Gray:
		for y := range b.Dy() {
			for _, v := range img.Pix[y*img.Stride:][:b.Dx()] {
				out = append(out, v, v, v)
			}
		}
	default:
		for y := b.Min.Y; y < b.Max.Y; y++ {
			for x := b.Min.X; x < b.Max.X; x++ {
				c := opaque(img, x, y)
				out = append(out, c.R, c.G, c.B)
			}
		}
	}
	return out
}

// opaque is a pixel as its colour alone: what is transparent keeps its colour.
func opaque(img image.Image, x, y int) color.NRGBA {
	c := img.At(x, y)
	if deep, ok := c.(color.NRGBA64); ok { // the model would go through premultiplied values
		return color.NRGBA{R: uint8(deep.R >> 8), G: uint8(deep.G >> 8), B: uint8(deep.B >> 8)}
	}
	return color.NRGBAModel.Convert(c).(color.NRGBA)
}

// gray is ITU-R 601-2's luma, in Pillow's fixed point.
func gray(rgb []byte) []byte {
	out := make([]byte, len(rgb)/3)
	for i := range out {
		r, g, b := uint32(rgb[3*i]), uint32(rgb[3*i+1]), uint32(rgb[3*i+2])
		out[i] = byte((r*19595 + g*38470 + b*7471 + 1<<15) >> 16)
	}
	return out
}
