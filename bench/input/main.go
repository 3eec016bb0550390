// Command input measures what comes before the first layer, on one core: photographs
// decoded, resized and augmented, beside what Python's users have, and samples read
// from where they lie once they are decoded.
//
//	go run ./input -python python3 -data DIR
//
// DIR holds mnist/, as the product's cache does, and the archives of photographs and
// reviews. Python has Pillow, and torch with torchvision and Keras as far as they are
// to be measured. Both sides take turns; what is counted is CPU time, so a machine
// with others on it tells about the same.
package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/dataset/augment"
	"github.com/dlnode/dlnode/dataset/pack"
	"github.com/dlnode/dlnode/dataset/picture"
)

// side is that of a photograph in the case study.
const side = 150

type options struct {
	python, data   string
	photos, rounds int
	seconds        float64
}

func main() {
	var o options
	flag.StringVar(&o.python, "python", "python3", "what runs peer.py; \"\" for none")
	flag.StringVar(&o.data, "data", "", "`directory` with mnist/, dogs-vs-cats-2000.tar and aclImdb_v1_labelled.tar.gz")
	flag.IntVar(&o.photos, "photos", 200, "how many")
	flag.IntVar(&o.rounds, "rounds", 3, "turns of each side")
	flag.Float64Var(&o.seconds, "seconds", 1, "of CPU time for each figure of a turn")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "input:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	work, err := os.MkdirTemp("", "dlnode-input-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	photos, err := extract(filepath.Join(o.data, "dogs-vs-cats-2000.tar"), filepath.Join(work, "photos"), o.photos)
	if err != nil {
		return err
	}
	sets, err := open(ctx, o.data, filepath.Join(work, "cache"))
	if err != nil {
		return err
	}
	figures := map[string][]float64{} // by side and row
	for range o.rounds {
		if err := ours(o, photos, sets, figures); err != nil {
			return err
		}
		if err := theirs(ctx, o, filepath.Join(work, "photos"), figures); err != nil {
			return err
		}
	}
	print(figures)
	return nil
}

// extract takes the first JPEG files of an archive, and leaves them in a directory for
// the other side.
func extract(from, to string, n int) (files [][]byte, err error) {
	f, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, err
	}
	in := tar.NewReader(f)
	for len(files) < n {
		h, err := in.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: after %d photographs: %w", from, len(files), err)
		}
		if path.Ext(h.Name) != ".jpg" {
			continue
		}
		text, err := io.ReadAll(in)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, path.Base(h.Name)), text, 0o644)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, text)
	}
	return files, nil
}

// stored is a data set whose samples are read.
type stored struct {
	name string
	data dataset.Dataset
	dir  string // of the pack, where it is one
}

// open opens the case studies' data sets, decoded into a cache.
func open(ctx context.Context, data, cache string) (all []stored, err error) {
	env := dataset.Env{CacheDir: cache, Offline: true}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	if err := os.Symlink(filepath.Join(data, "mnist"), filepath.Join(cache, "mnist")); err != nil {
		return nil, err
	}
	for _, s := range []struct{ name, kind, file string }{
		{"MNIST, images of 28×28 in memory", "mnist", ""},
		{"photographs, packed records of 150×150×3", "cats_vs_dogs", "dogs-vs-cats-2000.tar"},
		{"reviews, packed rows of 200 words", "imdb", "aclImdb_v1_labelled.tar.gz"},
	} {
		spec, _ := dataset.NewSpec(s.kind)
		switch spec := spec.(type) {
		case *dataset.CatsVsDogs:
			spec.Path = filepath.Join(data, s.file)
		case *dataset.IMDb:
			spec.Path = filepath.Join(data, s.file)
		}
		train, _, err := dataset.Open(ctx, spec, env)
		if err != nil {
			return nil, err
		}
		dir := ""
		if s.file != "" {
			made, err := filepath.Glob(filepath.Join(cache, "decoded", s.kind+"-*"))
			if err != nil || len(made) != 1 {
				return nil, errors.Join(fmt.Errorf("%s: %d decoded sets, want 1", s.kind, len(made)), err)
			}
			dir = made[0]
		}
		all = append(all, stored{s.name, train, dir})
	}
	return all, nil
}

// guide is the augmentation of the case study.
func guide() augment.Spec {
	s := augment.Default()
	s.RotationRange, s.WidthShiftRange, s.HeightShiftRange, s.ShearRange = 40, 0.2, 0.2, 0.2
	s.ZoomRange, s.HorizontalFlip = augment.Around(0.2), true
	return s
}

// ours measures a turn of this side.
func ours(o options, photos [][]byte, sets []stored, figures map[string][]float64) error {
	add := func(row string, v float64) { figures["dlnode: "+row] = append(figures["dlnode: "+row], v) }
	steps := picture.Steps{Height: side, Width: side, Color: "rgb", Filter: "bilinear"}
	a, err := augment.New(guide(), []int{side, side, 3})
	if err != nil {
		return err
	}
	pixels, x, y := make([]byte, steps.Len()), make([]float32, steps.Len()), make([]float32, steps.Len())
	decode := func(i int) {
		if e := steps.Decode(photos[i%len(photos)], pixels); e != nil {
			err = e
		}
	}
	add(decoded, rate(o.seconds, decode))
	add(augmented, rate(o.seconds, func(i int) { a.Image(y, x, augment.Key{ID: uint64(i)}) }))
	if err != nil {
		return err
	}
	for _, s := range sets {
		info, n := s.data.Info(), s.data.Len()
		in, target := make([]float32, info.InputLen()), make([]float32, info.Target)
		read := func(i int) {
			if _, e := s.data.Read(i*7919%n, in, target); e != nil { // 7919 is prime: all over the place
				err = e
			}
		}
		for i := range n {
			read(i) // so that each block has been touched
		}
		add(s.name, rate(o.seconds, read))
		if err != nil {
			return err
		}
		if s.dir != "" {
			v, err := firstTouch(s.dir)
			if err != nil {
				return err
			}
			add(s.name+", first touch, MB/s", v)
		}
	}
	return nil
}

// rate returns how often f is done in a second of CPU time.
func rate(seconds float64, f func(i int)) float64 {
	begun, n := cpu(), 0
	for {
		for range 16 {
			f(n)
			n++
		}
		if spent := cpu() - begun; spent.Seconds() >= seconds {
			return float64(n) / spent.Seconds()
		}
	}
}

// firstTouch returns how many megabytes of a pack in the page cache are read and
// checked in a second of CPU time.
func firstTouch(dir string) (float64, error) {
	r, err := pack.Open(filepath.Join(dir, "train"))
	if err != nil {
		return 0, err
	}
	begun, size := cpu(), int64(0)
	err = r.Verify(context.Background(), func(done, _ int64) { size = done })
	spent := cpu() - begun
	return float64(size) / 1e6 / spent.Seconds(), errors.Join(err, r.Close())
}

// cpu is the time that this process has had.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // there is no way for it to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// theirs measures a turn of the other side.
func theirs(ctx context.Context, o options, photos string, figures map[string][]float64) error {
	if o.python == "" {
		return nil
	}
	c := exec.CommandContext(ctx, o.python, filepath.Join("input", "peer.py"), photos, fmt.Sprint(o.seconds))
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "KERAS_BACKEND=jax", "OMP_NUM_THREADS=1", "JAX_PLATFORMS=cpu")
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("peer.py: %w", err)
	}
	var got map[string]float64
	if err := json.Unmarshal(out, &got); err != nil {
		return fmt.Errorf("peer.py: %w", err)
	}
	for row, v := range got {
		figures[row] = append(figures[row], v)
	}
	return nil
}

// The rows that both sides have.
const (
	decoded   = "decode and resize, photographs/s"
	augmented = "augment 150×150×3, images/s"
)

// print writes the medians, and ours in relation to each of theirs.
func print(figures map[string][]float64) {
	median := func(v []float64) float64 {
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	fmt.Printf("%s; one core; medians of CPU time\n\n| | | a second | dlnode is faster by |\n|---|---|--:|--:|\n", runtime.Version())
	var rows []string
	for row := range figures {
		rows = append(rows, row)
	}
	slices.Sort(rows)
	for _, row := range rows {
		who, what, _ := strings.Cut(row, ": ")
		v := median(figures[row])
		if own := figures["dlnode: "+what]; who != "dlnode" && own != nil {
			fmt.Printf("| %s | %s | %.4g | **%.2f** |\n", who, what, v, median(own)/v)
			continue
		}
		fmt.Printf("| %s | %s | %.4g | |\n", who, what, v)
	}
}
