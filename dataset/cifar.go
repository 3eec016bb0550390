package dataset

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/dataset/archive"
)

// CIFAR10 is the data set of small photos by Krizhevsky: 50,000 + 10,000 images of
// 32×32 in colour, ten classes. It has no fields.
type CIFAR10 struct{}

// Kind returns "cifar10".
func (*CIFAR10) Kind() string { return "cifar10" }

// Validate returns nil.
func (*CIFAR10) Validate() error { return nil }

func (d *CIFAR10) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return d.format().open(ctx, env, cifar10())
}

func (d *CIFAR10) format() cifar {
	return cifar{spec: d, classes: 10, labels: 1, names: "batches.meta.txt",
		train: []string{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
		test:  []string{"test_batch.bin"}}
}

// CIFAR100 is as CIFAR10, with a hundred classes, 600 images each. It has no
// fields.
type CIFAR100 struct{}

// Kind returns "cifar100".
func (*CIFAR100) Kind() string { return "cifar100" }

// Validate returns nil.
func (*CIFAR100) Validate() error { return nil }

func (d *CIFAR100) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return d.format().open(ctx, env, cifar100())
}

func (d *CIFAR100) format() cifar {
	return cifar{spec: d, classes: 100, labels: 2, names: "fine_label_names.txt", train: []string{"train.bin"}, test: []string{"test.bin"}}
}

// cifar10 and cifar100 are the entries of the two. The digests are those of the
// files in Toronto.
func cifar10() Entry {
	return Entry{
		Name:       "cifar10",
		Title:      "small photos, 50,000 + 10,000 images of 32×32 in colour, 10 classes",
		ClassNames: []string{"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"},
		Files: []File{
			{"cifar-10-binary.tar.gz", 170052171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
		},
		Mirrors: []string{"https://www.cs.toronto.edu/~kriz/"},
	}
}

func cifar100() Entry {
	return Entry{
		Name:  "cifar100",
		Title: "small photos, 50,000 + 10,000 images of 32×32 in colour, 100 classes",
		Files: []File{
			{"cifar-100-binary.tar.gz", 168513733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
		},
		Mirrors: []string{"https://www.cs.toronto.edu/~kriz/"},
	}
}

// cifar is the binary format of the two: records of one label byte, or two of
// which the last counts, and three planes of 32×32 bytes, red, green and blue. The
// id of a sample is the number of its record, the training ones first.
type cifar struct {
	spec        Spec
	classes     int
	labels      int    // bytes
	names       string // of the file that lists the classes, one a line
	train, test []string
}

const (
	cifarSide  = 32
	cifarPlane = cifarSide * cifarSide

	maxCIFARFile = 1 << 28 // bytes of one; the largest that was published has 154 MB
)

func (c cifar) open(ctx context.Context, env Env, e Entry) (train, test Dataset, err error) {
	dir, err := e.get(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	return c.decode(ctx, env, filepath.Join(dir, e.Files[0].Name))
}

// decode opens an archive.
func (c cifar) decode(ctx context.Context, env Env, path string) (train, test Dataset, err error) {
	src, err := archive.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer src.Close() // only read from
	digest, err := src.Digest(ctx)
	if err != nil {
		return nil, nil, err
	}
	return decodeOnce(ctx, env, c.spec, digest, func(ctx context.Context, w *setWriter) error {
		files, err := src.List(ctx, filepath.Dir(path))
		if err != nil {
			return err
		}
		return errors.Join(c.fill(ctx, w, files), files.Close())
	})
}

// fill writes both parts.
func (c cifar) fill(ctx context.Context, w *setWriter, files *archive.Files) error {
	title, text, err := c.file(files, c.names)
	if err != nil {
		return err
	}
	classes := strings.Fields(string(text))
	if len(classes) != c.classes {
		return fmt.Errorf("%s: %d names of classes, want %d", title, len(classes), c.classes)
	}
	meta := packMeta{inBytes, Info{
		Name: c.spec.Kind(), Input: []int{cifarSide, cifarSide, 3}, Target: 1, Classes: len(classes), ClassNames: classes,
	}}
	id := uint64(0)
	for _, names := range [][]string{c.train, c.test} {
		p, err := w.part(meta)
		if err != nil {
			return err
		}
		for _, name := range names {
			title, b, err := c.file(files, name)
			if err = errors.Join(err, ctx.Err()); err == nil {
				if id, err = c.records(p, b, id); err != nil {
					err = fmt.Errorf("%s: %w", title, err)
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// file reads a file of the archive by its name, wherever it lies.
func (c cifar) file(files *archive.Files, name string) (title string, b []byte, err error) {
	i := slices.IndexFunc(files.Members, func(m archive.Member) bool { return path.Base(m.Name) == name })
	if i < 0 {
		return "", nil, fmt.Errorf("%s: there is no %s", files.Path, name)
	}
	b, err = files.Read(files.Members[i], maxCIFARFile)
	return files.Title(files.Members[i]), b, err
}

// records adds the records of one file, and returns the id after the last.
func (c cifar) records(p *part, b []byte, id uint64) (uint64, error) {
	size := c.labels + 3*cifarPlane
	if left := len(b) % size; len(b) == 0 || left != 0 {
		return id, fmt.Errorf("offset %d: %d bytes are no record, want %d each", len(b)-left, left, size)
	}
	x := make([]byte, 3*cifarPlane)
	for i := range len(b) / size {
		rec := b[i*size : (i+1)*size]
		planes := rec[c.labels:]
		for j := range cifarPlane {
			x[3*j], x[3*j+1], x[3*j+2] = planes[j], planes[cifarPlane+j], planes[2*cifarPlane+j]
		}
		if err := p.addBytes(id, x, float32(rec[c.labels-1])); err != nil {
			return id, fmt.Errorf("record %d (offset %d): %w", i, i*size+c.labels-1, err)
		}
		id++
	}
	return id, nil
}
