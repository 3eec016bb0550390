package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tableFiles writes files and returns a function that gives their paths.
func tableFiles(t testing.TB, files map[string]string) func(name string) string {
	t.Helper()
	all := map[string][]byte{}
	for name, s := range files {
		all[name] = []byte(s)
		if strings.HasSuffix(name, ".gz") {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			_, err := w.Write([]byte(s))
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			all[name] = b.Bytes()
		}
	}
	dir := writeTree(t, all)
	return func(name string) string { return filepath.Join(dir, name) }
}

const spamCSV = "label,text,who\nham,\"Hello, you\",a\nspam,\"win\nwin \"\"now\"\"\",b\n\nham,hello hello,c\nspam,win,d\n"

func TestTextsInATableBecomeRows(t *testing.T) {
	at := tableFiles(t, map[string]string{
		"a.csv":    spamCSV,
		"a.csv.gz": spamCSV,
		"a.tsv":    "ham\t\"Hello, you\nspam\twin win \"now\"\nham\thello hello\nspam\twin\n",
	})
	want := []sample{
		{0, []float32{0, 1, 3}, []float32{0}},
		{1, []float32{2, 2, 4}, []float32{1}},
		{2, []float32{0, 1, 1}, []float32{0}},
		{3, []float32{0, 0, 2}, []float32{1}},
	}
	for _, name := range []string{"a.csv", "a.csv.gz", "a.tsv"} {
		spec := newTextCSV()
		spec.Path, spec.Test = at(name), at(name)
		if name == "a.tsv" {
			spec.Header, spec.Label, spec.Text = false, "1", "2"
		}
		train, test := opened(t, spec, Env{CacheDir: t.TempDir()})
		if diff := cmp.Diff(want, readAll(t, train)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff([]string{"ham", "spam"}, train.Info().ClassNames); diff != "" || test.Len() != 4 || test.ID(0) != 4 {
			t.Errorf("%s: %s; %d test samples from id %d on", name, diff, test.Len(), test.ID(0))
		}
	}
}

func TestBrokenRowsAreNamedAndSkippedIfWanted(t *testing.T) {
	at := tableFiles(t, map[string]string{
		"a.csv": "text,label\none,a\ntwo\nthree,b\nx\xff,a\nsay \"it\",a\nfour,a\n",
	})
	spec := newTextCSV()
	spec.Path = at("a.csv")
	env := Env{CacheDir: t.TempDir()}
	_, _, err := Open(t.Context(), spec, env)
	want := "3 of 6 can't be decoded (on_broken: skip leaves them out):\n" +
		"  PATH:3: 1 fields, want 2\n" +
		"  PATH:5: field 1 is not UTF-8: \"x\\xff\"\n" +
		"  PATH:6: parse error on line 6, column 5: bare \" in non-quoted-field"
	if want = strings.ReplaceAll(want, "PATH", spec.Path); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
	spec.OnBroken = "skip"
	d, _ := opened(t, spec, env)
	if got := []uint64{d.ID(0), d.ID(1), d.ID(2)}; d.Len() != 3 || !slices.Equal(got, []uint64{0, 2, 5}) {
		t.Errorf("%d samples with ids %d", d.Len(), got)
	}
}

func TestATableOfNumbersAndNames(t *testing.T) {
	at := tableFiles(t, map[string]string{
		"a.csv": "age,city,id,income,class\n1,Bonn,x1,10,10\n2,Ulm,x2,10,9\n3, Bonn ,x3,10,10\n",
		"b.csv": "age,city,id,income,class\n5,Ulm,y,20,9\n",
	})
	spec := newCSV()
	spec.Path, spec.Test, spec.Target, spec.Ignore = at("a.csv"), at("b.csv"), "class", []string{"id"}
	train, test := opened(t, spec, Env{CacheDir: t.TempDir()})
	sd := math.Sqrt(2.0 / 3)
	want := []sample{
		{0, []float32{float32(-1 / sd), 1, 0, 0}, []float32{1}},
		{1, []float32{0, 0, 1, 0}, []float32{0}},
		{2, []float32{float32(1 / sd), 1, 0, 0}, []float32{1}},
	}
	if diff := cmp.Diff(want, readAll(t, train)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]sample{{3, []float32{float32(3 / sd), 0, 1, 10}, []float32{0}}}, readAll(t, test)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"9", "10"}, train.Info().ClassNames); diff != "" {
		t.Error(diff)
	}
	wantCols := &Columns{Columns: []Column{
		{Name: "age", Center: 2, Scale: sd}, {Name: "city", Names: []string{"Bonn", "Ulm"}, Scale: 1}, {Name: "income", Center: 10, Scale: 1},
	}}
	if diff := cmp.Diff(wantCols, train.Info().Preprocess.Table); diff != "" {
		t.Error(diff)
	}

	spec.Target, spec.TargetType, spec.Normalize, spec.Ignore, spec.Numeric = "income", "number", "minmax", nil, []string{"age", "class"}
	train, _ = opened(t, spec, Env{CacheDir: t.TempDir()})
	if diff := cmp.Diff(sample{1, []float32{0.5, 0}, []float32{10}}, read(t, train, 1)); diff != "" || train.Info().Classes != 0 {
		t.Error(diff)
	}
}

func TestBadTablesAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		file   string
		change func(*CSV)
		want   string
	}{
		"nothing":         {"", nil, "a.csv: no rows"},
		"header only":     {"a,b\n", nil, "a.csv: no rows"},
		"no such column":  {"a,c\n1,x\n", nil, `target: there is no column "b" (want one of a, c)`},
		"nothing else":    {"b\nx\ny\n", nil, "there is no column beside the target"},
		"twice":           {"a,a\n1,2\n", nil, `a.csv:1: two columns, 1 and 2, are called "a"`},
		"a missing field": {"a,b\n1,x\n,y\n", nil, "a.csv:3: column a: the field is empty, want a number"},
		"no label":        {"a,b\n1,x\n2,y\n3,\n", nil, `a.csv:4: column b: "" is no class (want one of x, y)`},
		"no number":       {"a,b\n1,x\nz,y\n", func(c *CSV) { c.Numeric = []string{"a"} }, `a.csv:3: column a: "z" is no number`},
		"too large":       {"a,b\n1,x\n1e39,y\n", func(c *CSV) { c.Numeric = []string{"a"} }, `a.csv:3: column a: "1e39" does not fit into 32 bits`},
		"NaN":             {"a,b\n1,x\nNaN,y\n", func(c *CSV) { c.Numeric = []string{"a"} }, `a.csv:3: column a: "NaN" is no number`},
		"no number in y":  {"a,b\n1,2\n2,y\n", func(c *CSV) { c.TargetType = "number" }, `a.csv:3: column b: "y" is no number`},
		"one class":       {"a,b\n1,x\n2,x\n", nil, `column b: classes [x], want at least 2`},
		"an open quote":   {"a,b\n1,x\n2,y\n\"3,y\n", nil, `a.csv:4: parse error on line 4, column 6: extraneous or missing " in quoted-field`},
		"an unknown name": {"a,b\nu,x\nv,y\nw,x\n", func(c *CSV) { c.TestSplit = 0.4 }, `a.csv:4: column a: "w" is not among the 2 names of the training rows`},
		"all broken":      {"a,b\nu,x\n,y\n", func(c *CSV) { c.Numeric, c.OnBroken = []string{"a"}, "skip" }, "column a: no row can be used"},
		"ignored":         {"a,b\nu,x\n", func(c *CSV) { c.Ignore = []string{"q"} }, `ignore: there is no column "q"`},
	} {
		spec := newCSV()
		spec.Path, spec.Target = tableFiles(t, map[string]string{"a.csv": c.file})("a.csv"), "b"
		if c.change != nil {
			c.change(spec)
		}
		if _, _, err := Open(t.Context(), spec, Env{CacheDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	bad := &CSV{Target: "a", Numeric: []string{"a", "b"}, Categorical: []string{"b"}}
	if err := bad.Validate(); err == nil || strings.Count(err.Error(), "is not allowed") != 7 {
		t.Errorf("got %v, want seven complaints", err)
	}
}

func TestSumsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e30, 1e30), 1, 50).Draw(t, "values")
		var s exactSum
		want := new(big.Rat)
		for _, v := range values {
			s.add(v)
			want.Add(want, new(big.Rat).SetFloat64(v))
		}
		if s.rat().Cmp(want) != 0 {
			t.Fatalf("sum of %v is %v, want %v", values, s.rat(), want)
		}
	})
}

func TestColumnsSurviveJSON(t *testing.T) {
	cols := &Columns{Columns: []Column{{Name: "a", Center: 0.1, Scale: 1e-7}, {Name: "b", Names: []string{"u", "v"}, Scale: 1}}}
	text, err := json.Marshal(cols)
	if err != nil {
		t.Fatal(err)
	}
	back := &Columns{}
	if err := errors.Join(json.Unmarshal(text, back), back.validate()); err != nil || !cmp.Equal(cols, back) {
		t.Errorf("%+v, %v", back, err)
	}
	if err := (&Columns{Columns: []Column{{Name: "a"}}}).validate(); err == nil {
		t.Error("a scale of 0 is accepted")
	}
}

// FuzzTable holds the reader of rows to: no panic, and each row reads back with as
// many fields as there are columns.
func FuzzTable(f *testing.F) {
	f.Add([]byte(spamCSV), false, true)
	f.Add([]byte("a\tb\r\n1\t2\r\n\n3\t4"), true, false)
	f.Add([]byte("a,b\n\"1\n\",2\n\"3"), false, true)
	f.Add([]byte("\xef\xbb\xbfa,b\n\xff,2\n"), false, true)
	f.Fuzz(func(t *testing.T, b []byte, tab, named bool) {
		spec := tableDefaults()
		spec.Path = filepath.Join(writeTree(t, map[string][]byte{"x": b}), "x")
		spec.Header, spec.OnBroken, spec.Delimiter = named, "skip", "comma"
		if tab {
			spec.Delimiter = "tab"
		}
		err := spec.with(t.Context(), Env{}, t.TempDir(), func(tb *table) error {
			return tb.each(t.Context(), tb.train, func(r row, fields []string) error {
				if len(fields) != len(tb.header) {
					return fmt.Errorf("row %d has %q, of columns %q", r.id, fields, tb.header)
				}
				return nil
			})
		})
		if err != nil && strings.Contains(err.Error(), "of columns") {
			t.Fatal(err)
		}
	})
}

// table.csv and table.json were written by csv.py, beside them: NumPy computes in 80
// bits what the kind csv computes exactly, so they agree but for the last rounding.
func TestColumnsAreNormalisedAsNumPyDoes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "table.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][][]float64{}
	if err := json.Unmarshal(text, &want); err != nil || len(want) != 2 {
		t.Fatal(len(want), err)
	}
	for how, rows := range want {
		spec := newCSV()
		spec.Path, spec.Target, spec.Normalize = filepath.Join("testdata", "table.csv"), "y", how
		d, _ := opened(t, spec, Env{CacheDir: t.TempDir()})
		if d.Len() != len(rows) {
			t.Fatalf("%s: %d samples, want %d", how, d.Len(), len(rows))
		}
		for i, row := range rows {
			for j, v := range read(t, d, i).X {
				// 1e7 is known to 1e-9 in 64 bits, which is so much of its deviation of 1.
				if diff := math.Abs(float64(v) - row[j]); diff > 1e-7*math.Abs(row[j])+1e-8 {
					t.Errorf("%s: row %d, column %d is %v, want %v", how, i, j, v, row[j])
				}
			}
		}
	}
}
