package dataset

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/dlnode/dlnode/internal/kernel"
)

// images is a data set of bytes with one class id each. Bytes stay bytes, a
// quarter of the float32 size (47 MB for MNIST), and become float32(byte)/255 on
// their way into a batch.
type images struct {
	info   Info
	width  int    // bytes of one image
	pixels []byte // [n, width]
	labels []byte // [n], each < info.Classes
	print  func() [sha256.Size]byte
}

// loadImages reads the image file and the label file of one part of a data set.
// The id of a sample is the number of its record.
func loadImages(name, imagePath, labelPath string, classes int, classNames []string) (*images, error) {
	pix, err := readIDXFile(imagePath)
	if err != nil {
		return nil, err
	}
	lab, err := readIDXFile(labelPath)
	if err != nil {
		return nil, err
	}
	if err := checkImages(imagePath, pix); err != nil {
		return nil, err
	}
	if err := checkLabels(labelPath, lab, imagePath, pix.Len(), classes); err != nil {
		return nil, err
	}
	info := Info{Name: name, Input: pix.Dims[1:], Target: 1, Classes: classes, ClassNames: classNames}
	return newImages(info, pix.Data, lab.Data), nil
}

func newImages(info Info, pixels, labels []byte) *images {
	info.Preprocess = imageSteps(info.Input)
	d := &images{info: info, width: info.InputLen(), pixels: pixels, labels: labels}
	d.print = sync.OnceValue(d.fingerprint)
	return d
}

func checkImages(path string, x *IDX) error {
	if len(x.Dims) < 2 {
		return fmt.Errorf("%s: offset 3: %d dimension, want at least 2: images × their size", path, len(x.Dims))
	}
	return nil
}

func checkLabels(path string, x *IDX, imagePath string, n, classes int) error {
	if len(x.Dims) != 1 {
		return fmt.Errorf("%s: offset 3: %d dimensions, want 1: one label per image", path, len(x.Dims))
	}
	if x.Len() != n {
		return fmt.Errorf("%s: offset 4: %d labels, but %s has %d images", path, x.Len(), imagePath, n)
	}
	for i, label := range x.Data {
		if int(label) >= classes {
			return fmt.Errorf("%s: record %d (offset %d): label is %d, want 0 to %d", path, i, x.offset(i), label, classes-1)
		}
	}
	return nil
}

func (d *images) Len() int   { return len(d.labels) }
func (d *images) Info() Info { return d.info }

func (d *images) ID(i int) uint64 { return uint64(i) }

func (d *images) Read(i int, x, y []float32) (uint64, error) {
	checkRead(d.info, d.width, d.Len(), i, x, y)
	kernel.Unit(x, d.pixels[i*d.width:(i+1)*d.width])
	y[0] = float32(d.labels[i])
	return uint64(i), nil
}

func (d *images) Fingerprint() [sha256.Size]byte { return d.print() }

func (d *images) fingerprint() [sha256.Size]byte {
	f := newFingerprinter("uint8/255", d.info, d.Len())
	for i, label := range d.labels {
		f.bytes(uint64(i), d.pixels[i*d.width:(i+1)*d.width], label)
	}
	return f.sum()
}
