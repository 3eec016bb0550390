package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/dataset"
)

// session runs commands in this process, in a directory of its own.
type session struct {
	t   *testing.T
	env []string
}

func newSession(t *testing.T) *session {
	return &session{t, []string{"DLNODE_DATA=" + t.TempDir()}}
}

// run runs a command that must succeed, and returns what it prints.
func (s *session) run(args ...string) string {
	s.t.Helper()
	var out, errs bytes.Buffer
	m := &Main{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Env: s.env}
	if code := m.Run(context.Background(), args); code != codeDone {
		s.t.Fatalf("dlnode %s: exit code %d\n%s", strings.Join(args, " "), code, errs.String())
	}
	return out.String()
}

// predictions are those of raw files, in the order in which they were told.
func (s *session) predictions(args ...string) (all []prediction) {
	s.t.Helper()
	dec := json.NewDecoder(strings.NewReader(s.run(append([]string{"predict", "--format", "json"}, args...)...)))
	for dec.More() {
		var p prediction
		if err := dec.Decode(&p); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// outputs are those of a run's model for the samples of its data set, by ids.
func (s *session) outputs(run, jobFile string) (all []prediction) {
	s.t.Helper()
	m := &Main{Stderr: &bytes.Buffer{}, Env: s.env}
	j, err := loadJob(jobFile)
	if err != nil {
		s.t.Fatal(err)
	}
	task, err := m.openTask(s.t.Context(), j)
	if err != nil {
		s.t.Fatal(err)
	}
	snap, _, err := m.loadCheckpoint(run)
	if err != nil {
		s.t.Fatal(err)
	}
	params, err := task.LoadModel(snap)
	if err != nil {
		s.t.Fatal(err)
	}
	type numbered struct {
		id uint64
		p  prediction
	}
	var found []numbered
	for _, d := range []dataset.Dataset{task.Train, task.Validation, task.Test} {
		if d == nil {
			continue
		}
		info := d.Info()
		x, y := make([]float32, info.InputLen()), make([]float32, info.Target)
		for i := range d.Len() {
			id, err := d.Read(i, x, y)
			if err != nil {
				s.t.Fatal(err)
			}
			out, err := task.Predict(s.t.Context(), params, x)
			if err != nil {
				s.t.Fatal(err)
			}
			p := prediction{Name: info.ClassNames[int(y[0])]}
			for _, v := range out {
				p.Output = append(p.Output, real(v))
			}
			found = append(found, numbered{id, p})
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return cmp.Compare(a.id, b.id) })
	for _, f := range found {
		all = append(all, f.p)
	}
	return all
}

// job writes a job file and trains it.
func (s *session) job(text string) (run, jobFile string) {
	s.t.Helper()
	dir := s.t.TempDir()
	run, jobFile = filepath.Join(dir, "run"), filepath.Join(dir, "job.yaml")
	if err := os.WriteFile(jobFile, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.run("run", "--name", "n", "--log-level", "error", "--dir", run, jobFile)
	return run, jobFile
}

// write puts a file below a directory.
func (s *session) write(dir, name string, b []byte) {
	s.t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// same tells whether raw files have the outputs of their samples, to the bit.
func (s *session) same(got, want []prediction) {
	s.t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		s.t.Fatalf("%d predictions of %d samples", len(got), len(want))
	}
	for i := range want {
		if !slices.Equal(got[i].Output, want[i].Output) { // float32 in JSON comes back as it was
			s.t.Errorf("%s: sample %d has %v, in the data set %v", got[i].File, got[i].Sample, got[i].Output, want[i].Output)
		}
	}
}

// stripes is a PNG of w×h pixels.
func stripes(w, h, seed int) []byte {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		v := (i*i*7 + seed*31) % 251
		img.Set(i%w, i/w, color.NRGBA{uint8(v), uint8(255 - v), uint8(v * seed), 255})
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestRawImagesHaveTheOutputsOfTheirSamples(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	photos := t.TempDir()
	for i := range 24 {
		s.write(photos, fmt.Sprintf("%s/%02d.png", []string{"lines", "dots"}[i%2], i), stripes(9+i, 30-i, i))
	}
	run, jobFile := s.job(`name: photos
data: {image_folder: {path: ` + photos + `, size: [8, 10], color: gray}}
model: [flatten, {dense: {units: 2, activation: softmax}}]
loss: categorical_crossentropy
optimizer: {adam: {learning_rate: 0.1}}
batch: {global: 8, microbatch: 3}
validation: {split: 0.25}
`)
	want := s.outputs(run, jobFile)
	s.same(s.predictions(run, photos), want) // ids are in the order of names, and so is a directory
	files, err := filepath.Glob(filepath.Join(photos, "*", "*.png"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	slices.Reverse(want)
	s.same(s.predictions(append([]string{run}, files...)...), want)
}

func TestRawTextsHaveTheOutputsOfTheirSamples(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	reviews, words := t.TempDir(), strings.Fields("A good, bad BAD film; the best of films. Ünheard\r\nof!")
	for i := range 30 {
		var text strings.Builder
		for k := range 3 + i%5 {
			text.WriteString(words[(i*i+3*k)%len(words)] + " ")
		}
		part := []string{"train", "test"}[i/24]
		s.write(reviews, fmt.Sprintf("%s/%s/%02d.txt", part, []string{"neg", "pos"}[i%2], i), []byte(text.String()))
	}
	run, jobFile := s.job(`name: reviews
data: {text_folder: {path: ` + reviews + `, num_words: 9, maxlen: 5, oov_token: "<oov>"}}
model: [{embedding: {input_dim: 9, output_dim: 4}}, {lstm: {units: 3}}, {dense: {units: 1, activation: sigmoid}}]
loss: binary_crossentropy
optimizer: {adam: {learning_rate: 0.1}}
batch: {global: 8, microbatch: 2}
`)
	// Of the data set, the training texts have the first ids.
	s.same(s.predictions(run, filepath.Join(reviews, "train"), filepath.Join(reviews, "test")), s.outputs(run, jobFile))
}

func TestRowsOfATableHaveTheOutputsOfTheirSamples(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	dir := t.TempDir()
	var rows, bare strings.Builder
	rows.WriteString("rooms,town,kind\n")
	bare.WriteString("town,id,rooms\n")
	for i := range 40 {
		town := []string{"Ulm", "Bonn", "\"Köln, Süd\""}[i%3]
		fmt.Fprintf(&rows, "%d.25,%s,%s\n", i*i%17, town, []string{"flat", "house"}[i/2%2])
		fmt.Fprintf(&bare, "%s,%d,%d.25\n", town, i, i*i%17)
	}
	s.write(dir, "rows.csv", []byte(rows.String()))
	s.write(dir, "bare.csv", []byte(bare.String()))
	run, jobFile := s.job(`name: houses
data: {csv: {path: ` + filepath.Join(dir, "rows.csv") + `, target: kind}}
model: [{dense: {units: 2, activation: softmax}}]
loss: sparse_categorical_crossentropy
optimizer: {adam: {learning_rate: 0.1}}
batch: {global: 8, microbatch: 2}
`)
	want := s.outputs(run, jobFile)
	s.same(s.predictions(run, filepath.Join(dir, "rows.csv")), want)
	s.same(s.predictions(run, filepath.Join(dir, "bare.csv")), want) // without its target, in another order
}

// More samples than are in memory at a time come out one after another.
func TestThereMayBeMoreSamplesThanABatch(t *testing.T) {
	t.Parallel()
	s := newSession(t)
	dir := t.TempDir()
	run, _ := s.job(`name: many
data: {synthetic: {samples: 40, features: 2, classes: 2}}
model: [{dense: {units: 1, activation: sigmoid}}]
loss: binary_crossentropy
optimizer: adam
batch: {global: 8, microbatch: 2}
`)
	var rows strings.Builder
	const n = 2*maxBatchSamples + 3
	for i := range n {
		fmt.Fprintf(&rows, "[%d, %d]\n", i%7, i%11)
	}
	s.write(dir, "rows.json", []byte(rows.String()))
	got := s.predictions(run, filepath.Join(dir, "rows.json"))
	if len(got) != n {
		t.Fatalf("%d predictions of %d", len(got), n)
	}
	for i, p := range got {
		if p.Sample != i || !slices.Equal(p.Output, got[i%77].Output) {
			t.Fatalf("line %d is of sample %d: %v, want %v", i, p.Sample, p.Output, got[i%77].Output)
		}
	}
}
