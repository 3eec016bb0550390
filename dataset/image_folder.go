package dataset

import (
	"context"
	"errors"
	"fmt"

	"github.com/dlnode/dlnode/dataset/picture"
)

// ImageFolder is a folder of JPEG and PNG files for each class, resized to one
// size. A lone directory, archives, parts and the order of samples: see Folder.
type ImageFolder struct {
	Folder `yaml:",inline"`
	Size   []int  `yaml:"size" json:"size"`     // height and width
	Filter string `yaml:"filter" json:"filter"` // nearest, box, bilinear or bicubic, as Pillow's
	Color  string `yaml:"color" json:"color"`   // rgb or gray
}

// imageExtensions are those of the files that are looked at.
var imageExtensions = []string{".jpg", ".jpeg", ".png"}

// maxImageFile bounds one file.
const maxImageFile = 256 << 20

// Kind returns "image_folder".
func (*ImageFolder) Kind() string { return "image_folder" }

func newImageFolder(h, w int) ImageFolder {
	return ImageFolder{Folder: folderDefaults(), Size: []int{h, w}, Filter: "bilinear", Color: "rgb"}
}

// Validate tells which field is missing or out of its range.
func (f *ImageFolder) Validate() error {
	var p problems
	p.unless(f.Path != "", "path", `""`, "a directory, or a tar, tar.gz or zip")
	f.check(&p)
	return errors.Join(p...)
}

func (f *ImageFolder) check(p *problems) {
	f.Folder.check(p)
	p.unless(len(f.Size) == 2, "size", fmt.Sprint(f.Size), "height and width, such as [150, 150]")
	if len(f.Size) == 2 {
		if err := f.steps().Validate(); err != nil {
			*p = append(*p, err)
		}
	}
}

func (f *ImageFolder) steps() picture.Steps {
	return picture.Steps{Height: f.Size[0], Width: f.Size[1], Color: f.Color, Filter: f.Filter}
}

func (f *ImageFolder) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return f.decode(ctx, env, f, imageExtensions, f.fill)
}

// fill decodes all images.
func (f *ImageFolder) fill(ctx context.Context, w *setWriter, t *tree) error {
	s := f.steps()
	meta := packMeta{inBytes, Info{
		Name: "image_folder", Input: []int{s.Height, s.Width, s.Channels()}, Target: 1,
		Classes: len(t.classes), ClassNames: t.classes, Preprocess: &Preprocess{Image: &s},
	}}
	bad := broken{skip: f.OnBroken == "skip", total: len(t.train) + len(t.test)}
	done := 0
	for _, leaves := range [][]leaf{t.train, t.test} {
		if leaves == nil {
			continue
		}
		p, err := w.part(meta)
		if err != nil {
			return err
		}
		err = inOrder(ctx, len(leaves), func(i int) (decoded, error) {
			return decodeImage(s, t, leaves[i]), nil
		}, func(i int, d decoded) error {
			done++
			w.progress(done, bad.total)
			if d.err != nil {
				bad.note(d.err)
				return nil
			}
			return p.addBytes(leaves[i].id, d.pixels, float32(leaves[i].class))
		})
		if err != nil {
			return err
		}
	}
	w.set.Skipped = bad.skipped()
	return bad.err(w.least())
}

// decoded is an image, or why there is none.
type decoded struct {
	pixels []byte
	err    error
}

func decodeImage(s picture.Steps, t *tree, l leaf) decoded {
	file, err := t.files.Read(l.Member, maxImageFile)
	if err != nil {
		return decoded{err: err}
	}
	d := decoded{pixels: make([]byte, s.Len())}
	if err := s.Decode(file, d.pixels); err != nil {
		d.err = fmt.Errorf("%s: %w", t.files.Title(l.Member), err)
	}
	return d
}
