package dataset

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io/fs"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// plain is a PNG file of one colour.
func plain(t testing.TB, w, h int, c color.Color) []byte {
	t.Helper()
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.Set(x, y, c)
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// asTar makes a tar of files.
func asTar(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var err error
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(files[name])), Mode: 0o644}))
		_, e := w.Write(files[name])
		err = errors.Join(err, e)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// writeTree puts files into a new directory, with the directories they need.
func writeTree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// photos are the files of 12 images, red ones and blue ones, brighter by number.
func photos(t testing.TB) map[string][]byte {
	t.Helper()
	files := map[string][]byte{"README": []byte("no image"), "red/Thumbs.db": []byte("no image either")}
	for i := range 6 {
		v := uint8(40 * (i + 1))
		files[fmt.Sprintf("red/%d.png", i)] = plain(t, 5+i, 4, color.NRGBA{v, 0, 0, 255})
		files[fmt.Sprintf("blue/deep/%d.PNG", i)] = plain(t, 3, 9+i, color.NRGBA{0, 0, v, 255})
	}
	return files
}

func smallImages(path string) *ImageFolder {
	f := newImageFolder(2, 3)
	f.Path = path
	return &f
}

func TestAFolderOfImagesIsDecoded(t *testing.T) {
	spec := smallImages(writeTree(t, photos(t)))
	env := Env{CacheDir: t.TempDir()}
	d, test := opened(t, spec, env)
	info := d.Info()
	if d.Len() != 12 || test != nil || !slices.Equal(info.ClassNames, []string{"blue", "red"}) || !slices.Equal(info.Input, []int{2, 3, 3}) {
		t.Fatalf("%d samples of %+v", d.Len(), info)
	}
	places := map[uint64]int{}
	for i, s := range readAll(t, d) {
		places[s.ID] = i
		class, channel := int(s.ID/6), 2-2*int(s.ID/6) // the blue ones come first
		want := float32(40*(s.ID%6+1)) / 255
		for j, v := range s.X {
			if j%3 == channel && v != want || j%3 != channel && v != 0 {
				t.Fatalf("sample with id %d is %v, want %v in channel %d", s.ID, s.X, want, channel)
			}
		}
		if s.Y[0] != float32(class) {
			t.Errorf("sample with id %d has class %v, want %d", s.ID, s.Y[0], class)
		}
	}
	if len(places) != 12 || places[0] == 0 && places[1] == 1 && places[2] == 2 {
		t.Errorf("the order of ids is %v, want a shuffled one", places)
	}
}

// What does not change the samples does not change the fingerprint, and what
// changes them does.
func TestTheSameImagesElsewhereAreTheSameData(t *testing.T) {
	files := photos(t)
	above := map[string][]byte{}
	for name, b := range files {
		above["a/b/"+name] = b
	}
	env := Env{CacheDir: t.TempDir()}
	print := func(change func(*ImageFolder)) [32]byte {
		spec := smallImages(writeTree(t, files))
		change(spec)
		d, _ := opened(t, spec, env)
		return d.Fingerprint()
	}
	base := print(func(*ImageFolder) {})
	for name, change := range map[string]func(*ImageFolder){
		"a directory around it": func(f *ImageFolder) { f.Path = writeTree(t, above) },
		"a tar": func(f *ImageFolder) {
			f.Path = filepath.Join(writeTree(t, map[string][]byte{"x.tar": asTar(t, above)}), "x.tar")
		},
		"classes by name":  func(f *ImageFolder) { f.Classes = []string{"blue", "red"} },
		"another filter":   func(f *ImageFolder) { f.Filter = "nearest" }, // of one colour each
		"broken are fatal": func(f *ImageFolder) { f.OnBroken = "skip" },
	} {
		if print(change) != base {
			t.Errorf("%s: another fingerprint", name)
		}
	}
	for name, change := range map[string]func(*ImageFolder){
		"another order":    func(f *ImageFolder) { f.Shuffle = 2 },
		"no order":         func(f *ImageFolder) { f.Shuffle = 0 },
		"classes reversed": func(f *ImageFolder) { f.Classes = []string{"red", "blue"} },
		"another size":     func(f *ImageFolder) { f.Size = []int{3, 2} },
		"gray":             func(f *ImageFolder) { f.Color = "gray" },
		"fewer":            func(f *ImageFolder) { f.TestSplit = 0.3 },
	} {
		if print(change) == base {
			t.Errorf("%s: the same fingerprint", name)
		}
	}
}

func TestPartsOfAFolder(t *testing.T) {
	red, blue := plain(t, 2, 2, color.White), plain(t, 2, 2, color.Black)
	files := map[string][]byte{}
	for _, part := range []string{"train", "validation"} {
		for i := range 3 {
			files[fmt.Sprintf("top/%s/a/%d.png", part, i)] = red
			files[fmt.Sprintf("top/%s/b/%d.png", part, i)] = blue
		}
	}
	train, test := opened(t, smallImages(writeTree(t, files)), Env{CacheDir: t.TempDir()})
	if train.Len() != 6 || test.Len() != 6 {
		t.Fatalf("%d and %d samples, want 6 and 6", train.Len(), test.Len())
	}
	ids := map[uint64]bool{}
	for i := range 6 {
		ids[train.ID(i)], ids[test.ID(i)] = true, true
		if train.ID(i) > 5 || test.ID(i) < 6 {
			t.Errorf("ids %d and %d", train.ID(i), test.ID(i))
		}
	}
	spec := smallImages(writeTree(t, photos(t)))
	spec.TestSplit = 0.25
	train, test = opened(t, spec, Env{CacheDir: t.TempDir()})
	for i := range train.Len() {
		ids[train.ID(i)] = true
	}
	if train.Len() != 9 || test.Len() != 3 || len(ids) != 12 {
		t.Errorf("%d and %d samples, want 9 and 3", train.Len(), test.Len())
	}
}

func TestBrokenImagesAreNamedAndSkippedIfWanted(t *testing.T) {
	files := photos(t)
	files["red/1.png"] = files["red/1.png"][:30]
	files["blue/x.jpg"] = nil
	spec := smallImages(writeTree(t, files))
	env := Env{CacheDir: t.TempDir()}
	_, _, err := Open(t.Context(), spec, env)
	want := fmt.Sprintf("dataset image_folder: 2 of 13 can't be decoded (on_broken: skip leaves them out):\n  %s",
		filepath.Join(spec.Path, "blue", "x.jpg")+": the file is empty")
	if err == nil || !strings.Contains(err.Error(), "2 of 13 can't be decoded") ||
		!strings.Contains(err.Error(), "x.jpg: the file is empty") || !strings.Contains(err.Error(), "1.png: before offset 30 of 30: ") {
		t.Errorf("got %v\nwant something like %s", err, want)
	}
	if left, err := os.ReadDir(filepath.Join(env.CacheDir, "decoded")); err != nil || len(left) != 0 {
		t.Errorf("%d files are left behind, %v", len(left), err)
	}
	spec.OnBroken = "skip"
	d, _ := opened(t, spec, env)
	if d.Len() != 11 {
		t.Errorf("%d samples, want 11", d.Len())
	}
}

func TestFoldersThatMakeNoDataSetAreTold(t *testing.T) {
	good := plain(t, 2, 2, color.White)
	for name, c := range map[string]struct {
		files  map[string][]byte
		change func(*ImageFolder)
		want   string
	}{
		"no images":      {map[string][]byte{"a/x.txt": nil}, nil, "none of its 1 files is called *.jpg, *.jpeg, *.png"},
		"no folder":      {map[string][]byte{"x.png": good}, nil, `classes [], want a folder for each of at least 2`},
		"one class":      {map[string][]byte{"a/x.png": good}, nil, `classes ["a"], want a folder for each of at least 2`},
		"an empty class": {map[string][]byte{"a/x.png": good, "b/x.txt": nil}, nil, "class folder b is empty or holds none of the files wanted"},
		"no such class":  {map[string][]byte{"a/x.png": good, "b/x.png": good}, func(f *ImageFolder) { f.Classes = []string{"a", "c"} }, "class folder c is empty"},
		"empty test":     {map[string][]byte{"train/a/x.png": good, "train/b/x.png": good, "test/a/x.png": good}, nil, "class folder test/b is empty"},
		"two splits":     {map[string][]byte{"train/a/x.png": good, "train/b/x.png": good, "test/a/x.png": good, "test/b/x.png": good}, func(f *ImageFolder) { f.TestSplit = 0.5 }, "there is a test set (want test_split: 0)"},
		"a small split":  {map[string][]byte{"a/x.png": good, "b/x.png": good}, func(f *ImageFolder) { f.TestSplit = 0.1 }, "test_split: 0.1 leaves 2 of 2 samples to train on"},
	} {
		spec := smallImages(writeTree(t, c.files))
		if c.change != nil {
			c.change(spec)
		}
		if _, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	bad := &ImageFolder{Folder: Folder{Classes: []string{"a/b"}, TestSplit: math.NaN(), OnBroken: "?"}, Size: []int{3}}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "is not allowed") != 6 {
		t.Errorf("got %v, want six complaints", err)
	}
}

// reviews are texts for words that differ in how frequent they are.
func reviews() map[string][]byte {
	return map[string][]byte{
		"imdb/imdb.vocab":        []byte("not looked at"),
		"imdb/train/neg/0_1.txt": []byte("Bad, bad, BAD film."),
		"imdb/train/neg/1_2.txt": []byte("a bad film"),
		"imdb/train/pos/0_9.txt": []byte("A good film!"),
		"imdb/train/pos/1_8.txt": []byte("good\r\nfun"),
		"imdb/train/unsup/0.txt": []byte("nobody knows nobody knows nobody knows"),
		"imdb/test/neg/0_3.txt":  []byte("bad acting"),
		"imdb/test/pos/0_7.txt":  []byte("so good"),
	}
}

func TestAFolderOfTextsBecomesRows(t *testing.T) {
	spec := newIMDb()
	spec.NumWords, spec.MaxLen, spec.Shuffle = 5, 3, 0
	spec.Path = writeTree(t, reviews())
	train, test := opened(t, spec, Env{CacheDir: t.TempDir()})
	// bad 4, film 3, then a and good 2 each, a first.
	want := []sample{
		{0, []float32{1, 1, 2}, []float32{0}},
		{1, []float32{3, 1, 2}, []float32{0}},
		{2, []float32{3, 4, 2}, []float32{1}},
		{3, []float32{0, 0, 4}, []float32{1}},
	}
	if diff := cmp.Diff(want, readAll(t, train)); diff != "" {
		t.Error(diff)
	}
	want = []sample{{4, []float32{0, 0, 1}, []float32{0}}, {5, []float32{0, 0, 4}, []float32{1}}}
	if diff := cmp.Diff(want, readAll(t, test)); diff != "" {
		t.Error(diff)
	}
	// The vocabulary is that of the training texts, whatever their order.
	shuffled := newIMDb()
	shuffled.Path, shuffled.Shuffle = spec.Path, 7
	other, _ := opened(t, shuffled, Env{CacheDir: t.TempDir()})
	if got := strings.Join(other.Info().Preprocess.Text.Words, " "); got != "bad film a good fun" {
		t.Errorf("words are %q", got)
	}
}

func TestATextInAWrongEncodingIsTold(t *testing.T) {
	files := reviews()
	files["imdb/train/neg/1_2.txt"] = []byte("caf\xe9")
	spec := newIMDb()
	spec.Path = writeTree(t, files)
	env := Env{CacheDir: t.TempDir()}
	if _, _, err := Open(t.Context(), spec, env); err == nil || !strings.Contains(err.Error(), "1_2.txt: offset 3: byte 0xe9 is not UTF-8") {
		t.Errorf("got %v", err)
	}
	spec.OnBroken = "skip"
	if train, _ := opened(t, spec, env); train.Len() != 3 {
		t.Errorf("%d samples, want 3", train.Len())
	}
}

func TestADamagedCacheIsDecodedAgain(t *testing.T) {
	spec := smallImages(writeTree(t, photos(t)))
	env := Env{CacheDir: t.TempDir()}
	d, _ := opened(t, spec, env)
	made, err := filepath.Glob(filepath.Join(env.CacheDir, "decoded", "image_folder-*"))
	if err != nil || len(made) != 1 {
		t.Fatal(made, err)
	}
	for _, file := range []string{"dataset.json", "train/index.json", "train/00000.shard"} {
		if err := os.Truncate(filepath.Join(made[0], file), 50); err != nil {
			t.Fatal(err)
		}
		again, _ := opened(t, spec, env)
		if again.Fingerprint() != d.Fingerprint() {
			t.Errorf("%s: another fingerprint", file)
		}
	}
}

// kinds are data sets of every encoding.
func everyEncoding(t *testing.T) map[string]Dataset {
	images, _ := opened(t, smallImages(writeTree(t, photos(t))), Env{CacheDir: t.TempDir()})
	spec := newIMDb()
	spec.Path = writeTree(t, reviews())
	words, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
	return map[string]Dataset{"images": images, "words": words, "floats": letters(t), "idx": pictures()}
}

// given is a spec of data that are there.
type given struct{ d Dataset }

func (given) Kind() string    { return "given" }
func (given) Validate() error { return nil }

func (g given) open(context.Context, Env) (train, test Dataset, err error) { return g.d, g.d, nil }

func TestAPackedDataSetIsTheSameDataSet(t *testing.T) {
	for name, d := range everyEncoding(t) {
		dir := filepath.Join(t.TempDir(), "out")
		if err := Pack(t.Context(), given{d}, Env{}, dir); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s := httptest.NewServer(http.FileServer(http.Dir(dir)))
		defer s.Close()
		defer http.DefaultClient.CloseIdleConnections()
		cache := t.TempDir()
		for _, path := range []string{dir, s.URL} {
			train, test := opened(t, &Packed{Path: path}, Env{CacheDir: cache})
			for _, got := range []Dataset{train, test} {
				if got.Fingerprint() != d.Fingerprint() {
					t.Errorf("%s from %s: another fingerprint", name, path)
				}
				if diff := cmp.Diff(readAll(t, d), readAll(t, got)); diff != "" {
					t.Errorf("%s from %s: %s", name, path, diff)
				}
				if diff := cmp.Diff(d.Info().ClassNames, got.Info().ClassNames); diff != "" {
					t.Error(diff)
				}
			}
			if n, err := Verify(t.Context(), path, Env{CacheDir: cache}); err != nil || n != 2*d.Len() {
				t.Errorf("%s from %s: %d samples verified, %v", name, path, n, err)
			}
		}
		if err := Pack(t.Context(), given{d}, Env{}, dir); err == nil || !strings.Contains(err.Error(), "is there already") {
			t.Errorf("over what is there: %v", err)
		}
	}
}

// spoiler is given's data, and takes the name of what is packed meanwhile.
type spoiler struct {
	Dataset
	dir string
}

func (s spoiler) Len() int {
	if err := os.MkdirAll(filepath.Join(s.dir, "theirs"), 0o755); err != nil {
		panic(err)
	}
	return s.Dataset.Len()
}

func TestPackNeverSaysThatItPackedWhatItDidNot(t *testing.T) {
	d := letters(t)
	for _, end := range []string{"", "/", "/."} {
		dir := filepath.Join(t.TempDir(), "out")
		if err := Pack(t.Context(), given{d}, Env{}, dir+end); err != nil {
			t.Errorf("into out%s: %v", end, err)
		}
		if n, err := Verify(t.Context(), dir, Env{}); err != nil || n != 2*d.Len() {
			t.Errorf("into out%s: %d samples verified, %v", end, n, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := Pack(t.Context(), given{spoiler{d, dir}}, Env{}, dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("somebody took the name meanwhile: %v, want an error", err)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v is left, want nothing but theirs", left, err)
	}
}

func TestVerifyFindsWhatOpenDoesNot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if err := Pack(t.Context(), given{letters(t)}, Env{}, dir); err != nil {
		t.Fatal(err)
	}
	shard := filepath.Join(dir, "test", "00000.shard")
	b, err := os.ReadFile(shard)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-2] ^= 1
	if err := os.WriteFile(shard, b, 0o644); err != nil {
		t.Fatal(err)
	}
	opened(t, &Packed{Path: dir}, Env{})
	if _, err := Verify(t.Context(), dir, Env{}); err == nil || !strings.Contains(err.Error(), "00000.shard: offset 64: block 0 (records 0 to 5) is damaged") {
		t.Errorf("a flipped bit: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, setName))
	if err == nil {
		err = errors.Join(os.WriteFile(shard, flip(b, len(b)-2), 0o644),
			os.WriteFile(filepath.Join(dir, setName), bytes.ReplaceAll(text, []byte(hexOf(letters(t).Fingerprint())), bytes.Repeat([]byte("00"), 32)), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), dir, Env{}); err == nil || !strings.Contains(err.Error(), "the fingerprint of the content is ") {
		t.Errorf("another fingerprint: %v", err)
	}
}

func flip(b []byte, i int) []byte {
	b[i] ^= 1
	return b
}

func TestPackedDataTakeThePlaceOfTheirSources(t *testing.T) {
	spec := smallImages(writeTree(t, photos(t)))
	env := Env{CacheDir: t.TempDir()}
	d, _ := opened(t, spec, env)
	dir := filepath.Join(t.TempDir(), "out")
	if err := Pack(t.Context(), spec, env, dir); err != nil {
		t.Fatal(err)
	}
	elsewhere := Env{CacheDir: t.TempDir(), Packed: dir}
	gone := smallImages("nowhere")
	got, _ := opened(t, gone, elsewhere)
	if got.Fingerprint() != d.Fingerprint() {
		t.Error("another fingerprint")
	}
	gone.Size = []int{4, 4}
	if _, _, err := Open(t.Context(), gone, elsewhere); err == nil || !strings.Contains(err.Error(), `"size":[2,3]`) || !strings.Contains(err.Error(), `want {"classes":null`) {
		t.Errorf("another size: %v", err)
	}
	if _, _, err := Open(t.Context(), newIMDb(), elsewhere); err == nil || !strings.Contains(err.Error(), "it holds image_folder, want imdb") {
		t.Errorf("another kind: %v", err)
	}
}

func TestReadsOfAPackAllocateNothing(t *testing.T) {
	for name, d := range everyEncoding(t) {
		s := read(t, d, 0)
		readAll(t, d)
		if n := testing.AllocsPerRun(100, func() {
			Prefetch(d, []int{1})
			if _, err := d.Read(1, s.X, s.Y); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: a Read allocates %v times", name, n)
		}
	}
}

func TestAnArchiveOfTheUsersIsAdopted(t *testing.T) {
	archive := filepath.Join(writeTree(t, map[string][]byte{"mine.tar": asTar(t, reviews())}), "mine.tar")
	env := Env{CacheDir: t.TempDir(), Offline: true}
	if _, _, err := Open(t.Context(), newIMDb(), env); err == nil || !strings.Contains(err.Error(), "aclImdb_v1.tar.gz could not be had") {
		t.Errorf("before: %v", err)
	}
	dir, err := Adopt(t.Context(), "imdb", archive, env)
	if err != nil || dir != filepath.Join(env.CacheDir, "imdb") {
		t.Fatal(dir, err)
	}
	if !imdb().Cached(env.CacheDir) {
		t.Error("it counts as missing")
	}
	if train, test := opened(t, newIMDb(), env); train.Len() != 4 || test.Len() != 2 {
		t.Errorf("%d and %d samples", train.Len(), test.Len())
	}
	if err := os.Truncate(filepath.Join(dir, "own-mine.tar"), 99); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(t.Context(), newIMDb(), env); err == nil || !strings.Contains(err.Error(), "own-mine.tar: 99 bytes, want ") {
		t.Errorf("damaged: %v", err)
	}
	for from, want := range map[string]string{
		filepath.Join(writeTree(t, map[string][]byte{"x.tar": asTar(t, photos(t))}), "x.tar"):    "none of its 14 files is called *.txt",
		filepath.Join(writeTree(t, map[string][]byte{"x": []byte("nothing of that sort")}), "x"): "neither tar, tar.gz nor zip",
		t.TempDir(): "aclImdb_v1.tar.gz could not be had from any source",
	} {
		if _, err := Adopt(t.Context(), "imdb", from, env); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", from, err, want)
		}
	}
	if _, err := Adopt(t.Context(), "mnist", archive, env); err == nil || !strings.Contains(err.Error(), "train-images-idx3-ubyte.gz could not be had") {
		t.Errorf("no file of MNIST: %v", err)
	}
}
