package chart

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/train"
)

// run makes a run of so many epochs of ten steps of 64 samples, 100 ms each, on
// three nodes, of which one is lost in the middle and one joins at three quarters.
func run(name string, epochs int, validated bool) *Run {
	r := &Run{Name: name}
	for i := range 10 * epochs {
		s := Step{At: time.Duration(i+1) * 100 * time.Millisecond, Step: uint64(i + 1), World: 3, Samples: 64}
		if i >= 5*epochs && i < 8*epochs {
			s.World = 2
		}
		r.Steps = append(r.Steps, s)
	}
	r.Marks = []Mark{
		{r.Steps[5*epochs-1].At + time.Millisecond, "lost"}, {r.Steps[8*epochs-1].At + time.Millisecond, "joined"},
	}
	for i := range epochs {
		e := Epoch{Number: i + 1, Step: uint64(10 * (i + 1)), LR: 0.01}
		value := func(name string, v float64) {
			e.Values = append(e.Values, train.Value{Name: name, Value: train.Number(v)})
		}
		value("loss", 1/float64(i+1))
		value("top_k_accuracy", 1-1/float64(i+2))
		if validated {
			value("val_loss", 1.2/float64(i+1))
			value("val_top_k_accuracy", math.NaN())
		}
		r.Epochs = append(r.Epochs, e)
	}
	return r
}

// svg returns a picture as text.
func svg(t *testing.T, p *Picture, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	w, err := p.render(".svg")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func curves(t *testing.T, runs ...*Run) string {
	t.Helper()
	p, err := Curves(runs)
	return svg(t, p, err)
}

// colour is how a colour is written in an SVG file.
func colour(i int) string { return fmt.Sprintf("stroke:#%02X%02X%02X", hue(i).R, hue(i).G, hue(i).B) }

func TestARunsCurvesAreAllThere(t *testing.T) {
	got := curves(t, run("small", 6, true))
	for _, want := range []string{
		">small<", ">loss<", ">top k accuracy<", ">learning rate<", ">samples per second<", ">nodes<", ">epoch<", ">seconds<",
		">training<", ">validation<", ">node lost<", ">node joined<",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the picture has no %s", want)
		}
	}
	if strings.Contains(got, ">node left<") {
		t.Error("the legend has a word for what is not in the picture")
	}
	if n := strings.Count(got, colour(1)); n != 2 { // the legend's, and the loss; there is no number in the other
		t.Errorf("%d lines in the colour of validation, want 2", n)
	}
}

func TestWhatARunDoesNotHaveIsNotDrawn(t *testing.T) {
	got := curves(t, run("small", 6, false))
	for _, stranger := range []string{">validation<", ">training<"} {
		if strings.Contains(got, stranger) {
			t.Errorf("the picture has %s", stranger)
		}
	}
	young := &Run{Name: "young", Steps: run("", 1, false).Steps[:5]}
	if got := curves(t, young); strings.Contains(got, ">loss<") || !strings.Contains(got, ">nodes<") {
		t.Error("before the first epoch ends there is throughput, and no loss")
	}
	if _, err := Curves([]*Run{{Name: "empty"}}); err == nil {
		t.Error("nothing can be drawn")
	}
}

func TestSeveralRunsShareOnePicture(t *testing.T) {
	var runs []*Run
	for i := range 12 { // more than there are colours, and than fit a line of the legend
		runs = append(runs, run(fmt.Sprintf("a run with quite a long name %d", i), i+1, i%2 == 0))
	}
	got := curves(t, runs...)
	for _, r := range runs {
		if !strings.Contains(got, ">"+r.Name+"<") {
			t.Errorf("no word of %s", r.Name)
		}
	}
	for i := range palette {
		if !strings.Contains(got, colour(i)) {
			t.Errorf("colour %d is not used", i)
		}
	}
}

func TestThroughputIsSamplesOverTime(t *testing.T) {
	for _, p := range run("", 4, false).throughput(time.Second) {
		if math.Abs(p.Y-640) > 160 { // a step more or less in eight
			t.Errorf("at %v s the rate is %v, want about 640", p.X, p.Y)
		}
	}
	r := run("", 4, false)
	sum, points := 0.0, r.throughput(time.Second)
	for i := 0; i < len(points); i += 2 {
		sum += points[i].Y * (points[i+1].X - points[i].X)
	}
	if want := 64.0 * float64(len(r.Steps)-1); math.Abs(sum-want) > 1e-6 {
		t.Errorf("the stretches hold %v samples, want %v", sum, want)
	}
}

func TestNodesAreAStair(t *testing.T) {
	got := fmt.Sprint(run("", 2, false).nodes(time.Second))
	if want := "[{0 3} {1.1 3} {1.1 2} {1.7 2} {1.7 3} {2 3}]"; got != want {
		t.Errorf("nodes are %s, want %s", got, want)
	}
}

func TestNumbersThatAreNoneAreLeftOut(t *testing.T) {
	r := run("diverged", 5, false)
	for i := range r.Epochs {
		r.Epochs[i].Values[0].Value = train.Number(math.Inf(1))
		r.Epochs[i].LR = math.NaN()
	}
	if got := curves(t, r); strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
		t.Error("the picture is drawn to infinity")
	}
}

func TestEqualRunsMakeEqualBytes(t *testing.T) {
	for _, ext := range Formats {
		var files [2][]byte
		for i := range files {
			p, err := Curves([]*Run{run("small", 6, true)})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "x"+ext)
			if err := p.Save(path); err != nil {
				t.Fatal(err)
			}
			files[i], err = os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(files[0], files[1]) {
			t.Errorf("two %s files of one run differ", ext)
		}
	}
}

func TestAPictureAppearsWholeOrNotAtAll(t *testing.T) {
	p, err := Confusion("", [][]uint64{{1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "x.bmp"), filepath.Join(dir, "nowhere", "x.svg")} {
		if err := p.Save(path); err == nil || !strings.Contains(err.Error(), "x.") {
			t.Errorf("saving %s: %v", path, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "x.png"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := p.Save(filepath.Join(dir, "x.png")); err == nil {
		t.Error("a file took a directory's place")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("%v is left (%v)", left, err)
	}
}

func TestTicksAreRoundAndTellThemselvesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lo := rapid.Float64Range(-1e7, 1e7).Draw(t, "lo")
		width := math.Pow(10, rapid.Float64Range(-6, 7).Draw(t, "width"))
		if width < math.Abs(lo)*1e-6 {
			t.Skip("narrower than what labels have digits for")
		}
		s := scale{labels: 5, whole: rapid.Bool().Draw(t, "whole")}
		seen := map[string]bool{}
		ticks := s.Ticks(lo, lo+width)
		if len(ticks) > 7 || len(ticks) < 2 && !s.whole {
			t.Fatalf("%d ticks from %v to %v", len(ticks), lo, lo+width)
		}
		for _, tick := range ticks {
			if seen[tick.Label] {
				t.Fatalf("two ticks are called %s: %v", tick.Label, ticks)
			}
			seen[tick.Label] = true
		}
	})
}

func TestLabelsAreShort(t *testing.T) {
	for _, c := range []struct {
		x, step float64
		want    string
	}{
		{0, 0.1, "0"}, {0.30000000000000004, 0.1, "0.3"}, {0.25, 0.05, "0.25"}, {5, 5, "5"}, {1500, 500, "1500"}, {15000, 5000, "15k"},
		{12500, 500, "12.5k"}, {2e6, 1e6, "2M"}, {2.5e6, 5e5, "2.5M"}, {2e-5, 1e-5, "2e-05"}, {-3, 1, "-3"},
	} {
		if got := label(c.x, c.step); got != c.want {
			t.Errorf("label(%v, %v) = %q, want %q", c.x, c.step, got, c.want)
		}
	}
}

func TestAConfusionMatrixShowsItsCounts(t *testing.T) {
	p, err := Confusion("test samples", [][]uint64{{180, 20}, {31, 169}}, []string{"cats", "dogs"})
	got := svg(t, p, err)
	for _, want := range []string{">test samples<", ">180<", ">20<", ">31<", ">169<", ">cats<", ">dogs<", ">class<", ">taken for<"} {
		if !strings.Contains(got, want) {
			t.Errorf("the picture has no %s", want)
		}
	}
	if _, err := Confusion("", nil, nil); err == nil {
		t.Error("a matrix of no class is drawn")
	}
	if _, err := Confusion("", [][]uint64{{1, 2}, {3}}, nil); err == nil {
		t.Error("a matrix with a short row is drawn")
	}
}

func TestTheWorstMistakesComeFirst(t *testing.T) {
	nan := float32(math.NaN())
	got := Worst([]float32{
		0.1, 0.9, // wrong by 0.8
		0.6, 0.4, // right
		0.4, 0.6, // wrong by 0.2
		0.0, 1.0, // wrong by 1
		nan, nan, // nobody knows
	}, []int{0, 0, 0, 0, 0}, 2)
	if want := "[{3 0 1 1 1} {0 0 1 0.9 0.79999995}]"; fmt.Sprint(got) != want {
		t.Errorf("the worst are %v, want %s", got, want)
	}
	if got := Worst([]float32{1, 0}, []int{0}, 5); len(got) != 0 {
		t.Errorf("a sample that is right is among the worst: %v", got)
	}
}

// The middle of each image has the colour that it was given.
func TestASheetShowsImagesAsTheyAre(t *testing.T) {
	photos := []Photo{{Pixels: make([]float32, 12)}, {Pixels: make([]float32, 12), Caption: [2]string{"cat as dog", "sample 7"}}}
	for i := 0; i < 12; i += 3 {
		photos[1].Pixels[i] = 1 // red
	}
	p, err := Sheet("worst", []int{2, 2, 3}, photos)
	if got := svg(t, p, err); !strings.Contains(got, ">cat as dog<") || !strings.Contains(got, ">sample 7<") {
		t.Error("the picture has no captions")
	}
	w, err := p.render(".png")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint32{0, 0xffff} {
		x, y := (margin+i*(cellWidth+gutter)+thumb/2)*dpi/72, (36+thumb/2)*dpi/72
		if r, g, b, _ := img.At(x, y).RGBA(); r != want || g != 0 || b != 0 {
			t.Errorf("image %d is %x %x %x, want %x 0 0", i, r, g, b, want)
		}
	}
	for _, shape := range [][]int{{4}, {2, 2, 2}, {2, 3, 3}} {
		if _, err := Sheet("", shape, photos); err == nil {
			t.Errorf("images of shape %v are drawn", shape)
		}
	}
}
