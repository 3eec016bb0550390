// Package testjobs holds job files that tests train: what the promise of the same
// bits is tested on. They are small, so that a training takes milliseconds, and
// together they have every layer, activation, loss, optimizer and schedule in
// them; a test in package train sees to that.
//
//	layers.txt   one model for each kind and option of a layer
//	jobs/        whole jobs, with all that goes on around a model
//
// What they end in is recorded in train/testdata/bits.txt.
package testjobs

import (
	"embed"
	"path"
	"strings"
)

// File is a job file.
type File struct {
	Name string // without spaces: names of tests and records
	Text []byte // YAML
}

//go:embed layers.txt
var layers string

//go:embed jobs
var jobs embed.FS

// frame is what the layers' jobs have in common. Forty-seven samples in steps of
// twenty and microbatches of six end an epoch with a step of seven, and that with
// a microbatch of one sample.
const frame = `seed: 7
optimizer: {adam: {learning_rate: 0.01}}
batch: {global: 20, microbatch: 6}
epochs: 2
checkpoint: {every_steps: 3}
`

// The data that a line of layers.txt asks for by a word: sixty values a sample.
var data = map[string]string{
	"classes": `data: {synthetic: {samples: 47, test_samples: 4, features: 60, classes: 3}}
`,
	"words": `data: {synthetic: {samples: 47, test_samples: 4, features: 12, classes: 3, vocabulary: 11}}
`,
}

// head turns what a layer makes of a sample into three classes.
const head = `  - flatten
  - dense: {units: 3, activation: softmax}
loss: sparse_categorical_crossentropy
`

// Layers returns a job for each kind and option of a layer.
func Layers() (all []File) {
	for _, part := range strings.Split(layers, "\n-- ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		name, words, _ := strings.Cut(title, ": ")
		if words == "" {
			words = "classes"
		}
		name = "layer-" + strings.ReplaceAll(name, " ", "-")
		text := "name: " + name + "\n" + frame + data[words] + "model:\n" + strings.TrimRight(body, "\n") + "\n" + head
		all = append(all, File{name, []byte(text)})
	}
	return all
}

// Whole returns the whole jobs.
func Whole() (all []File) {
	entries, err := jobs.ReadDir("jobs")
	if err != nil {
		panic("testjobs: " + err.Error())
	}
	for _, e := range entries {
		text, err := jobs.ReadFile(path.Join("jobs", e.Name()))
		if err != nil {
			panic("testjobs: " + err.Error())
		}
		all = append(all, File{strings.TrimSuffix(e.Name(), ".yaml"), text})
	}
	return all
}
