package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// stored is the meaning of a data set's numbers as a checkpoint brings it back.
func stored(t testing.TB, d Dataset) *Meaning {
	t.Helper()
	b := MeaningOf(d.Info()).Encode()
	m, err := DecodeMeaning(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Encode(), b) {
		t.Fatalf("%s\ncomes back as\n%s", b, m.Encode())
	}
	return m
}

// What the data set has of a file is what a prediction makes of it, to the bit.
func TestRawInputBecomesTheNumbersOfTheDataSet(t *testing.T) {
	inputs := map[string]struct {
		files map[string][]byte
		spec  func(dir string) Spec
		fill  func(m *Meaning, file []byte, x []float32) error
	}{
		"images": {photos(t), func(dir string) Spec { return smallImages(dir) }, (*Meaning).Image},
		"gray images": {photos(t), func(dir string) Spec {
			f := smallImages(dir)
			f.Color, f.Filter = "gray", "bicubic"
			return f
		}, (*Meaning).Image},
		"texts": {map[string][]byte{
			"bad/1.txt": []byte("A bad, BAD film.\r\nNo more"), "bad/2.txt": []byte("\ufeffbad"),
			"good/1.txt": []byte("A good film, the best of films!"), "good/2.txt": []byte("Unheard of"),
		}, func(dir string) Spec {
			f := newTextFolder()
			f.Path, f.NumWords, f.OOV, f.MaxLen = dir, 5, "<oov>", 4
			return &f
		}, (*Meaning).TextFile},
	}
	for name, in := range inputs {
		t.Run(name, func(t *testing.T) {
			dir := writeTree(t, in.files)
			d, _ := opened(t, in.spec(dir), Env{CacheDir: t.TempDir()})
			m := stored(t, d)
			if diff := cmp.Diff(d.Info().ClassNames, m.ClassNames); diff != "" {
				t.Error(diff)
			}
			byName := filesByName(t, dir)
			x := make([]float32, m.InputLen())
			for _, s := range readAll(t, d) {
				if err := in.fill(m, byName[s.ID], x); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(x, s.X) { // ids are numbers of files, in the order of names
					t.Errorf("sample with id %d is %v, of its file become %v", s.ID, s.X, x)
				}
			}
		})
	}
}

// filesByName returns the images and texts below a directory in the order of names.
func filesByName(t testing.TB, dir string) (all [][]byte) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if ext := strings.ToLower(filepath.Ext(path)); err != nil || e.IsDir() || ext != ".png" && ext != ".txt" {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRowsBecomeTheNumbersOfTheDataSet(t *testing.T) {
	at := tableFiles(t, map[string]string{
		"houses.csv": "rooms,town,price\n2, Ulm ,100\n\n4,\"Bonn\",300\n7,Ulm,200\n",
		"bare.tsv":   "2\tUlm\t100\n\n4\tBonn\t300\n7\tUlm\t200\n",
	})
	for name, target := range map[string]string{"houses.csv": "price", "bare.tsv": "3"} {
		spec := newCSV()
		spec.Path, spec.Target, spec.TargetType, spec.Header = at(name), target, "number", target == "price"
		d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
		m := stored(t, d)
		x := make([]float32, m.InputLen())
		samples := readAll(t, d)
		eachRow(t, at(name), isTSV(name), spec.Header, func(i int, field func(string) string) {
			if err := m.Row(field, x); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(x, samples[i].X) {
				t.Errorf("%s: row %d becomes %v, in the data set it is %v", name, i, x, samples[i].X)
			}
		})
	}
}

func TestTextsOfATableBecomeTheNumbersOfTheDataSet(t *testing.T) {
	at := tableFiles(t, map[string]string{"a.csv": spamCSV})
	spec := newTextCSV()
	spec.Path = at("a.csv")
	d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
	m := stored(t, d)
	x := make([]float32, m.InputLen())
	samples := readAll(t, d)
	eachRow(t, at("a.csv"), false, true, func(i int, field func(string) string) {
		if m.Text(field("text"), x); !slices.Equal(x, samples[i].X) {
			t.Errorf("row %d becomes %v, in the data set it is %v", i, x, samples[i].X)
		}
	})
	if got, want := m.Words(samples[1].X), "win win now"; got != want {
		t.Errorf("a row reads back as %q, want %q", got, want)
	}
}

// eachRow reads a file of three or more rows to its end.
func eachRow(t testing.TB, path string, tab, named bool, use func(i int, field func(string) string)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read from
	rows, err := ReadRows(f, tab, named)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		fields, _, err := rows.Next()
		if err == io.EOF && i >= 3 {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		use(i, func(name string) string { return fields[slices.Index(rows.Header, name)] })
	}
}

func TestRowsTellWhatIsBrokenAndGoOn(t *testing.T) {
	for _, c := range []struct {
		name  string
		text  string
		named bool
		want  string
	}{
		{"header", "\ufeffa, b\n1,2\n3\n4,\"5\n6\",7\n8,9\n", true, "[a b] 2:[1 2] line 3: 1 fields, want 2; line 4: 3 fields, want 2; 6:[8 9]"},
		{"none", "\n1,2\nx\xff,2\n3,4", false, "[1 2] 2:[1 2] line 3: field 1 is not UTF-8: \"x\\xff\"; 4:[3 4]"},
		{"quote", "a\n\"x\"y\nz\n", true, "[a] line 2: parse error on line 2, column 3: extraneous or missing \" in quoted-field; 3:[z]"},
		{"empty", "", true, "no rows"},
		{"two", "a,a\n", true, "line 1: two columns, 1 and 2, are called \"a\""},
	} {
		if got := strings.TrimSuffix(readOut(c.text, c.named), ";"); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// readOut puts all that comes of a table into a line.
func readOut(text string, named bool) string {
	rows, err := ReadRows(strings.NewReader(text), false, named)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for b.WriteString(fmt.Sprint(rows.Header)); ; {
		fields, line, err := rows.Next()
		switch broken := (*BrokenRow)(nil); {
		case err == io.EOF:
			return b.String()
		case errors.As(err, &broken):
			b.WriteString(" " + err.Error() + ";")
		case err != nil:
			return b.String() + " " + err.Error()
		default:
			b.WriteString(" " + fmt.Sprint(line) + ":" + fmt.Sprint(fields))
		}
	}
}

// Images of bytes that were no files are made of files of their own size as they
// are.
func TestFilesOfASampleOfBytesAreThatSample(t *testing.T) {
	spec := &Files{TrainImages: "x", TrainLabels: "y", Classes: 2}
	dir := t.TempDir()
	pixel := []byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 7, 250, 250}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "x"), pixel, 0o644),
		os.WriteFile(filepath.Join(dir, "y"), []byte{0, 0, 8, 1, 0, 0, 0, 2, 1, 0}, 0o644)); err != nil {
		t.Fatal(err)
	}
	d, _ := opened(t, spec, Env{Dir: dir})
	m := stored(t, d)
	x := make([]float32, 2)
	for i, v := range []uint8{7, 250} {
		if err := m.Image(plain(t, 2, 1, color.Gray{v}), x); err != nil {
			t.Fatal(err)
		}
		if s := readAll(t, d)[i]; !slices.Equal(x, s.X) {
			t.Errorf("file %d becomes %v, the sample is %v", i, x, s.X)
		}
	}
	// Packed, they mean the same, and so do those packed before anybody asked.
	out := filepath.Join(dir, "packed")
	if err := Pack(t.Context(), spec, Env{Dir: dir}, out); err != nil {
		t.Fatal(err)
	}
	packed, _ := opened(t, &Packed{Path: out}, Env{})
	if diff := cmp.Diff(MeaningOf(d.Info()), MeaningOf(packed.Info())); diff != "" {
		t.Error(diff)
	}
}

func TestNumbersAloneMeanNothing(t *testing.T) {
	if m := MeaningOf(Info{Input: []int{3}, Target: 1, Classes: 2}); m != nil || m.Encode() != nil {
		t.Errorf("%+v, encoded %s", m, m.Encode())
	}
	if m, err := DecodeMeaning(nil); m != nil || err != nil {
		t.Errorf("of nothing: %+v, %v", m, err)
	}
}

func TestAMeaningThatDoesNotFitTogetherIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"input":[2]}{}`:                     "more than one value",
		`{"input":[2],"colour":"red"}`:        "unknown field",
		`{"input":[]}`:                        "input shape is empty",
		`{"input":[0]}`:                       "axis 0 is 0",
		`{"input":[65536,65536,65536,65536]}`: "more than 2147483647 values",
		`{"input":[2],"preprocess":{}}`:       "0 ways from raw input to x, want 1",
		`{"input":[2],"preprocess":{"image":{"height":1,"width":2,"color":"gray","filter":"box"},"table":{"columns":[{"name":"a","scale":1},{"name":"b","scale":1}]}}}`: "2 ways",
		`{"input":[3],"preprocess":{"image":{"height":1,"width":2,"color":"gray","filter":"box"}}}`:                                                                     "becomes 2 values, but samples of shape [3] have 3",
		`{"input":[3],"preprocess":{"image":{"height":1,"width":2,"color":"gray","filter":"best"}}}`:                                                                    `filter "best"`,
		`{"input":[1],"preprocess":{"table":{"columns":[{"name":"a","scale":0}]}}}`:                                                                                     "a scale of 0",
		`{"input":[4],"preprocess":{"text":{"num_words":0,"split":" ","maxlen":4,"padding":"pre","truncating":"pre","words":["a","a"]}}}`:                               `"a" has ids 1 and 2`,
	} {
		if _, err := DecodeMeaning([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestDifferentMeaningsAreToldApart(t *testing.T) {
	long := make([]string, 50)
	for i := range long {
		long[i] = "class"
	}
	a := &Meaning{Input: []int{2}, ClassNames: []string{"cat", "dog"}}
	b := &Meaning{Input: []int{2}, ClassNames: long}
	got := strings.Join(a.Differences("here", "there", b), "\n")
	want := `data: the names of the classes: ["cat","dog"] here, ["class","class","class","class","class","class","class","class","class","class"… (401 bytes) there`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d := a.Differences("here", "there", a); len(d) > 0 {
		t.Errorf("a differs from itself: %q", d)
	}
	if d := a.Differences("here", "there", nil); len(d) != 1 {
		t.Errorf("one that tells nothing: %q", d)
	}
}

// Whatever a checkpoint brings along, it is refused, or can be used.
func FuzzDecodeMeaning(f *testing.F) {
	image := plain(f, 3, 2, color.NRGBA{1, 2, 3, 255})
	f.Add([]byte(`{"input":[2,3,3],"class_names":["a","b"],"preprocess":{"image":{"height":2,"width":3,"color":"rgb","filter":"bicubic"}}}`))
	f.Add([]byte(`{"input":[4],"preprocess":{"text":{"num_words":9,"lower":true,"filters":".","split":" ","oov_token":"?","maxlen":4,"padding":"post","truncating":"pre","words":["?","a"]}}}`))
	f.Add([]byte(`{"input":[3],"preprocess":{"table":{"columns":[{"name":"a","names":["x","y"],"center":0,"scale":1},{"name":"b","center":1e308,"scale":-1e-300}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMeaning(b)
		if err != nil || m == nil || m.InputLen() > 1<<16 {
			return
		}
		again, err := DecodeMeaning(m.Encode())
		if err != nil || len(m.Differences("a", "b", again)) > 0 {
			t.Fatalf("comes back as %+v, %v", again, err)
		}
		x := make([]float32, m.InputLen())
		switch p := m.Preprocess; {
		case p == nil:
		case p.Image != nil:
			err = m.Image(image, x)
		case p.Text != nil:
			m.Text("a b. A ?", x)
			m.Words(x)
		case p.Table != nil:
			err = m.Row(func(name string) string { return name }, x)
		}
		if j := notFinite(x); err == nil && j >= 0 {
			t.Errorf("x[%d] is %v", j, x[j])
		}
	})
}

// Whatever comes as a table, it ends, and every row has a field for each column.
func FuzzReadRows(f *testing.F) {
	for _, text := range []string{spamCSV, "a\tb\n\n1\t2\r\n3\n", "\ufeffa,b\n\"1\n2\",3\n\"", "a,a\n", "\"", "\r\n\r\n1,2"} {
		f.Add([]byte(text), false, true)
		f.Add([]byte(text), true, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, tab, named bool) {
		rows, err := ReadRows(bytes.NewReader(b), tab, named)
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			fields, _, err := rows.Next()
			switch {
			case err == io.EOF:
				return
			case n > len(b):
				t.Fatalf("%d rows in %d bytes", n, len(b))
			case err == nil && len(fields) != len(rows.Header):
				t.Fatalf("row %d has %q, the header %q", n, fields, rows.Header)
			case err != nil && !errors.As(err, new(*BrokenRow)):
				t.Fatal(err)
			}
		}
	})
}
