package dataset

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Spec says which data set a job trains on. The kinds are those of this package;
// a data set of your own needs no Spec, it implements Dataset.
type Spec interface {
	// Kind is the name that job files use.
	Kind() string
	// Validate tells what is wrong with the fields alone, each problem as
	// "field: value is not allowed (want …)"; it looks at no file.
	Validate() error
}

// opener is what the kinds of this package are besides; open is called on a valid
// Spec only.
type opener interface {
	open(ctx context.Context, env Env) (train, test Dataset, err error)
}

// Kinds returns the names that NewSpec knows, in the order to show them.
func Kinds() []string {
	kinds := make([]string, len(all))
	for i, make := range all {
		kinds[i] = make().Kind()
	}
	return kinds
}

// all makes a Spec of each kind, with its defaults.
var all = []func() Spec{
	func() Spec { return &MNIST{} },
	func() Spec { return &FashionMNIST{} },
	func() Spec { return &CIFAR10{} },
	func() Spec { return &CIFAR100{} },
	func() Spec { return &Files{Classes: 10} },
	func() Spec { f := newImageFolder(256, 256); return &f },
	func() Spec { return &CatsVsDogs{newImageFolder(150, 150)} },
	func() Spec { f := newTextFolder(); return &f },
	func() Spec { return newIMDb() },
	func() Spec { return newTextCSV() },
	func() Spec { return newCSV() },
	func() Spec { return &NPZ{X: "x_train", Y: "y_train", Classes: 10, Scale: 1} },
	func() Spec { return &Packed{} },
	func() Spec { return &Synthetic{Samples: 1024, TestSamples: 256, Features: 16, Classes: 4, Seed: 1} },
}

// NewSpec returns a Spec of a kind with its defaults filled in, a pointer to
// decode a job file's fields into.
func NewSpec(kind string) (Spec, bool) {
	for _, make := range all {
		if spec := make(); spec.Kind() == kind {
			return spec, true
		}
	}
	return nil, false
}

// Open validates spec and opens its data set, fetching it if it is one that can
// be fetched. Test is nil where the spec names no test set. Everything is read
// and checked here; cancelling ctx ends downloads. A Spec that is not from this
// package is an error.
func Open(ctx context.Context, spec Spec, env Env) (train, test Dataset, err error) {
	o, known := spec.(opener)
	if !known {
		return nil, nil, fmt.Errorf("dataset: no way to open a %q (%T), want one of: %s",
			spec.Kind(), spec, strings.Join(Kinds(), ", "))
	}
	err = errors.Join(ctx.Err(), spec.Validate())
	switch {
	case err != nil:
	case env.Peers != nil:
		train, test, err = fromPeers(ctx, spec, env)
	case env.Packed != "":
		train, test, err = instead(ctx, spec, env)
	default:
		train, test, err = o.open(ctx, env)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("dataset %s: %w", spec.Kind(), err)
	}
	return train, test, nil
}

// Files is a data set of images that lies in IDX files, plain or .gz, such as
// Fashion-MNIST. Paths are no part of what is computed, so they stay out of the
// canonical form: the fingerprint of what the files hold names the data.
type Files struct {
	TrainImages string `yaml:"train_images" json:"-"` // relative paths start at Env.Dir
	TrainLabels string `yaml:"train_labels" json:"-"`
	TestImages  string `yaml:"test_images" json:"-"` // both test files, or none
	TestLabels  string `yaml:"test_labels" json:"-"`
	Classes     int    `yaml:"classes" json:"classes"` // labels are below it
}

// Kind returns "idx".
func (f *Files) Kind() string { return "idx" }

// Validate tells which field is missing or out of its range.
func (f *Files) Validate() error {
	var p problems
	const path = "the path of an IDX file"
	p.unless(f.TrainImages != "", "train_images", `""`, path)
	p.unless(f.TrainLabels != "", "train_labels", `""`, path)
	p.unless(f.TestImages != "" || f.TestLabels == "", "test_images", `""`, path+", as test_labels has one")
	p.unless(f.TestLabels != "" || f.TestImages == "", "test_labels", `""`, path+", as test_images has one")
	p.unless(f.Classes >= 2 && f.Classes <= 256, "classes", f.Classes, "2 to 256")
	return errors.Join(p...)
}

// problems gathers what is wrong with the fields of a Spec.
type problems []error

// unless records that a field's value is not the one wanted.
func (p *problems) unless(ok bool, field string, value any, want string) {
	if !ok {
		*p = append(*p, fmt.Errorf("%s: %v is not allowed (want %s)", field, value, want))
	}
}

func (f *Files) open(_ context.Context, env Env) (train, test Dataset, err error) {
	at := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(env.Dir, path)
	}
	abs := Files{at(f.TrainImages), at(f.TrainLabels), at(f.TestImages), at(f.TestLabels), f.Classes}
	return abs.load("idx", nil)
}

// load reads both parts, side by side.
func (f *Files) load(name string, classNames []string) (train, test Dataset, err error) {
	var g errgroup.Group
	part := func(dst *Dataset, images, labels string) {
		g.Go(func() error {
			d, err := loadImages(name, images, labels, f.Classes, classNames)
			if err != nil {
				return err
			}
			*dst = d
			return nil
		})
	}
	part(&train, f.TrainImages, f.TrainLabels)
	if f.TestImages != "" {
		part(&test, f.TestImages, f.TestLabels)
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	return train, test, checkParts(train, test, f)
}

// checkParts makes sure that what is trained on the one can be tested on the other.
func checkParts(train, test Dataset, f *Files) error {
	if test == nil {
		return nil
	}
	a, b := train.Info().Input, test.Info().Input
	if !slices.Equal(a, b) {
		return fmt.Errorf("%s: offset 8: images are %v, but those of %s are %v", f.TestImages, b, f.TrainImages, a)
	}
	return nil
}
