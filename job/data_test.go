package job

import (
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset"
)

func TestADataSectionStandsByItself(t *testing.T) {
	s, err := ParseData("image_folder: {path: photos, size: [10, 20]}")
	if err != nil {
		t.Fatal(err)
	}
	f, ok := s.(*dataset.ImageFolder)
	if !ok || f.Path != "photos" || f.Size[1] != 20 || f.Filter != "bilinear" {
		t.Errorf("got %#v", s)
	}
	if s, err := ParseData("csv:\n  path: a.csv\n  target: b"); err != nil || s.(*dataset.CSV).Target != "b" {
		t.Errorf("in lines: %#v, %v", s, err)
	}
	for text, want := range map[string]string{
		"nothing":            `"nothing" is not a data set`,
		"mnist\nloss: x":     "", // a string in two lines is no kind
		"{image_folder: {}}": `data.image_folder.path: "" is not allowed`,
	} {
		if _, err := ParseData(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// Paths are no part of the mathematics; all else of a data section is.
func TestWhereDataLieIsNoMathematics(t *testing.T) {
	canonical := func(data string) string {
		j, err := Parse("job.yaml", []byte("data: {"+data+"}\nmodel: [{dense: {units: 2}}]\nloss: mean_squared_error\n"))
		if err != nil {
			t.Fatal(err)
		}
		return string(j.Canonical())
	}
	a := canonical("imdb: {path: here.tar.gz}")
	if a != canonical("imdb: {}") || strings.Contains(a, "here") {
		t.Errorf("the path is in %s", a)
	}
	if a == canonical("imdb: {maxlen: 201}") || !strings.Contains(a, `"classes":["neg","pos"]`) {
		t.Errorf("the fields are not in %s", a)
	}
	if _, err := Restore([]byte(a)); err != nil {
		t.Error(err)
	}
}
