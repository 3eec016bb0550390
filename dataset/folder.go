package dataset

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/dlnode/dlnode/dataset/archive"
	"github.com/dlnode/dlnode/internal/rng"
)

// Folder is what the kinds have in common that read a folder for each class:
//
//	CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE
//
// in a directory, or in a tar, tar.gz or zip. A lone directory around it all is
// passed through. Where there is train/, the test set is test/, validation/ or
// val/, the first that holds files. Classes are numbered in the order of their
// names, and files belong to a class however deep they lie in it. Hidden files,
// and those with another extension, are not looked at. Links to files are followed
// in a directory; others that may hide a sample or a class are an error, and so is a
// class of the test set that nothing is trained on.
//
// The id of a sample is the number of its file in the order of names, the training
// files first. Samples stand in the order of a permutation that the field shuffle
// keys, so that a part taken from the end is a fair one, as with Keras'
// image_dataset_from_directory.
type Folder struct {
	Path      string   `yaml:"path" json:"-"`                // relative paths start at Env.Dir
	Classes   []string `yaml:"classes" json:"classes"`       // the folders to take, in the order of their ids; none: all
	Shuffle   uint64   `yaml:"shuffle" json:"shuffle"`       // keys the order of the samples; 0 is that of names
	TestSplit float64  `yaml:"test_split" json:"test_split"` // the part of the samples, from the end, that is the test set; 0 is none
	OnBroken  string   `yaml:"on_broken" json:"on_broken"`   // "fail", or "skip" a file that can't be decoded
}

// folderDefaults are those that the kinds share.
func folderDefaults() Folder { return Folder{Shuffle: 1, OnBroken: "fail"} }

func (f *Folder) check(p *problems) {
	for i, c := range f.Classes {
		p.unless(c != "" && !strings.Contains(c, "/"), fmt.Sprintf("classes[%d]", i), fmt.Sprintf("%q", c), "the name of a folder")
		p.unless(!slices.Contains(f.Classes[:i], c), fmt.Sprintf("classes[%d]", i), fmt.Sprintf("%q", c), "each class once")
	}
	p.unless(len(f.Classes) != 1, "classes", len(f.Classes), "none for all, or at least 2")
	p.checkSplit(f.TestSplit)
	p.checkBroken(f.OnBroken)
}

func (p *problems) checkSplit(split float64) {
	p.unless(split >= 0 && split < 1, "test_split", split, "0 for none, or a fraction below 1")
}

// decode opens the source and hands its samples to the kind, which packs them.
func (f *Folder) decode(ctx context.Context, env Env, spec Spec, extensions []string, fill func(context.Context, *setWriter, *tree) error) (train, test Dataset, err error) {
	src, err := archive.Open(env.at(f.Path))
	if err != nil {
		return nil, nil, err
	}
	defer src.Close() // only read from
	digest, err := src.Digest(ctx)
	if err != nil {
		return nil, nil, err
	}
	cache, err := env.cache()
	if err != nil {
		return nil, nil, err
	}
	return decodeOnce(ctx, env, spec, digest, func(ctx context.Context, w *setWriter) error {
		files, err := src.List(ctx, filepath.Join(cache, "decoded"))
		if err != nil {
			return err
		}
		t, err := f.tree(files, extensions)
		if err == nil {
			err = fill(ctx, w, t)
		}
		return errors.Join(err, files.Close())
	})
}

// tree is a folder, understood.
type tree struct {
	files       *archive.Files
	classes     []string
	train, test []leaf // in the order of the samples; test may be none
}

// leaf is a file that makes a sample.
type leaf struct {
	archive.Member
	id    uint64
	class int
}

// tree sorts the files with one of some extensions into parts and classes.
func (f *Folder) tree(files *archive.Files, extensions []string) (*tree, error) {
	members := slices.DeleteFunc(slices.Clone(files.Members), func(m archive.Member) bool {
		return !slices.Contains(extensions, strings.ToLower(path.Ext(m.Name)))
	})
	if len(members) == 0 {
		return nil, fmt.Errorf("%s: none of its %d files is called %s", files.Path, len(files.Members), "*"+strings.Join(extensions, ", *"))
	}
	if err := checkLinks(files, extensions); err != nil {
		return nil, err
	}
	root := lone(members)
	trainAt, testAt := parts(members, root)
	t := &tree{files: files, classes: f.Classes}
	if t.classes == nil {
		t.classes = folders(files, members, trainAt)
	}
	if len(t.classes) < 2 {
		return nil, fmt.Errorf("%s: classes %q, want a folder for each of at least 2", files.Path, t.classes)
	}
	var err error
	if t.train, err = t.leaves(members, trainAt, 0); err != nil {
		return nil, err
	}
	if testAt != "" {
		if f.Classes == nil {
			err = t.checkTest(folders(files, members, testAt), testAt, trainAt)
		}
		if err == nil {
			t.test, err = t.leaves(members, testAt, uint64(len(t.train)))
		}
	}
	if err != nil {
		return nil, err
	}
	return t, f.order(t)
}

// checkLinks refuses links that could be files wanted, or folders of them: what
// lies behind them would be missing, and nobody would know.
func checkLinks(files *archive.Files, extensions []string) error {
	for _, name := range files.Links {
		if ext := strings.ToLower(path.Ext(name)); ext == "" || slices.Contains(extensions, ext) {
			return fmt.Errorf("%s: %s is a link that is not followed (want what it leads to in its place)", files.Path, name)
		}
	}
	return nil
}

// checkTest makes sure that the classes of the test set are trained on.
func (t *tree) checkTest(names []string, testAt, trainAt string) error {
	for _, name := range names {
		if !slices.Contains(t.classes, name) {
			return fmt.Errorf("%s: %s is no class of %s (want one of %s)", t.files.Path, testAt+name, trainAt, someOf(t.classes))
		}
	}
	return nil
}

// lone returns the directories that everything lies in, with a slash at the end,
// or "".
func lone(members []archive.Member) string {
	root := ""
	for {
		first, _, deep := strings.Cut(members[0].Name[len(root):], "/")
		next := root + first + "/"
		for _, m := range members {
			// What is passed through must hold folders, or it is a class.
			rest, in := strings.CutPrefix(m.Name, next)
			deep = deep && in && strings.Contains(rest, "/")
		}
		if !deep || first == "train" {
			return root
		}
		root = next
	}
}

// parts returns where the classes of the two parts lie; testAt is "" for none.
func parts(members []archive.Member, root string) (trainAt, testAt string) {
	holds := func(dir string) bool {
		return slices.ContainsFunc(members, func(m archive.Member) bool { return strings.HasPrefix(m.Name, root+dir+"/") })
	}
	if !holds("train") {
		return root, ""
	}
	for _, name := range []string{"test", "validation", "val"} {
		if holds(name) {
			return root + "train/", root + name + "/"
		}
	}
	return root + "train/", ""
}

// folders lists the directories right below dir, empty ones too.
func folders(files *archive.Files, members []archive.Member, dir string) []string {
	var names []string
	for _, d := range files.Dirs {
		if name, in := strings.CutPrefix(d, dir); in && name != "" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	for _, m := range members {
		if name, _, in := strings.Cut(strings.TrimPrefix(m.Name, dir), "/"); in && strings.HasPrefix(m.Name, dir) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// leaves lists the files of one part, numbered from first upwards.
func (t *tree) leaves(members []archive.Member, dir string, first uint64) ([]leaf, error) {
	var out []leaf
	count := make([]int, len(t.classes))
	classes := placesOf(t.classes)
	for _, m := range members {
		rest, in := strings.CutPrefix(m.Name, dir)
		name, _, deep := strings.Cut(rest, "/")
		class, known := classes[name]
		if in && deep && known {
			out = append(out, leaf{m, first + uint64(len(out)), class})
			count[class]++
		}
	}
	for class, n := range count {
		if n == 0 {
			return nil, fmt.Errorf("%s: class folder %s is empty or holds none of the files wanted", t.files.Path, dir+t.classes[class])
		}
	}
	return out, nil
}

// placesOf returns where in names each of them stands.
func placesOf(names []string) map[string]int {
	at := make(map[string]int, len(names))
	for i, name := range names {
		at[name] = i
	}
	return at
}

// someOf lists names for an error: the first 20, and no more of each than a line
// can hold.
func someOf(names []string) string {
	shown := make([]string, 0, 21)
	for _, name := range names[:min(len(names), 20)] {
		shown = append(shown, short(name))
	}
	if len(names) > 20 {
		shown = append(shown, fmt.Sprintf("… (%d in all)", len(names)))
	}
	return strings.Join(shown, ", ")
}

// short is what an error shows of a value, however long that is.
func short(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
}

// order permutes the samples, and takes the test set from their end.
func (f *Folder) order(t *tree) error {
	if f.TestSplit > 0 && t.test != nil {
		return fmt.Errorf("%s: there is a test set (want test_split: 0)", t.files.Path)
	}
	permute(f.Shuffle, t.train)
	permute(f.Shuffle, t.test)
	cut, err := cutAt(len(t.train), f.TestSplit)
	if err == nil && cut < len(t.train) {
		t.train, t.test = t.train[:cut], t.train[cut:]
	}
	return err
}

// cutAt returns how many of n samples are trained on.
func cutAt(n int, testSplit float64) (int, error) {
	cut := n - int(float64(float64(n)*testSplit))
	if cut == 0 || testSplit > 0 && cut == n {
		return 0, fmt.Errorf("test_split: %v leaves %d of %d samples to train on", testSplit, cut, n)
	}
	return cut, nil
}

// permute shuffles s by a key (Fisher and Yates); 0 leaves it as it is.
func permute[T any](key uint64, s []T) {
	if key == 0 {
		return
	}
	draw := rng.New(key, rng.Data, 0, drawOrder, 0)
	for i := len(s) - 1; i > 0; i-- {
		j, _ := bits.Mul64(draw.Uint64(uint64(i)), uint64(i)+1)
		s[i], s[j] = s[j], s[i]
	}
}

// inOrder calls produce for 0 to n-1, several at a time, and use for each result in
// turn. The first error ends it.
func inOrder[T any](ctx context.Context, n int, produce func(i int) (T, error), use func(i int, v T) error) error {
	// So many results are held at once, each perhaps of megabytes.
	chunk := min(64, max(16, 4*runtime.GOMAXPROCS(0)))
	values := make([]T, chunk)
	for lo := 0; lo < n; lo += chunk {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i := lo; i < min(n, lo+chunk); i++ {
			g.Go(func() (err error) {
				if err = ctx.Err(); err == nil {
					values[i-lo], err = produce(i)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i := lo; i < min(n, lo+chunk); i++ {
			if err := use(i, values[i-lo]); err != nil {
				return err
			}
		}
	}
	return nil
}
