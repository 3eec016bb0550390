package dataset

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dlnode/dlnode/internal/rng"
)

// Synthetic makes a small dense problem that a fixed random network, the
// teacher, has solved: inputs are uniform in [-1, 1), targets are the teacher's.
// It needs no files, and its bits are the same on every machine, so tests and
// simulations train on it.
type Synthetic struct {
	Samples     int    `yaml:"samples" json:"samples"`           // in the train set
	TestSamples int    `yaml:"test_samples" json:"test_samples"` // in the test set, other samples of the same teacher
	Features    int    `yaml:"features" json:"features"`         // length of x
	Classes     int    `yaml:"classes" json:"classes"`           // 0 makes a regression with one target
	Seed        uint64 `yaml:"seed" json:"seed"`                 // of teacher and samples
	// Vocabulary makes sequences for an embedding: inputs are whole numbers from 1
	// to Vocabulary-1, and 0 from some place on, which stands for padding. 0 makes
	// none.
	Vocabulary int `yaml:"vocabulary,later" json:"vocabulary,omitempty"`
	// Shape is that of x, such as [5, 4, 3] for small images; none is [Features].
	Shape []int `yaml:"shape,later" json:"shape,omitempty"`
}

const (
	maxSyntheticValues  = 1 << 26 // inputs of one set: 256 MiB of float32
	maxSyntheticClasses = 1 << 12
	maxVocabulary       = 1 << 24 // float32 tells so many whole numbers apart
)

// Kind returns "synthetic".
func (s *Synthetic) Kind() string { return "synthetic" }

// Validate tells which field is out of its range.
func (s *Synthetic) Validate() error {
	var p problems
	p.unless(s.Features >= 1 && s.Features <= maxSyntheticValues, "features", s.Features,
		fmt.Sprintf("1 to %d", maxSyntheticValues))
	most := maxSyntheticValues / max(1, s.Features)
	want := fmt.Sprintf("1 to %d, which makes %d values", most, maxSyntheticValues)
	p.unless(s.Samples >= 1 && s.Samples <= most, "samples", s.Samples, want)
	p.unless(s.TestSamples >= 1 && s.TestSamples <= most, "test_samples", s.TestSamples, want)
	p.unless(s.Classes == 0 || s.Classes >= 2 && s.Classes <= maxSyntheticClasses, "classes", s.Classes,
		fmt.Sprintf("0 for regression, or 2 to %d", maxSyntheticClasses))
	p.unless(s.Vocabulary == 0 || s.Vocabulary >= 2 && s.Vocabulary <= maxVocabulary, "vocabulary", s.Vocabulary,
		fmt.Sprintf("0 for numbers in [-1, 1), or 2 to %d", maxVocabulary))
	p.unless(s.Shape == nil || s.shaped(), "shape", s.Shape, fmt.Sprintf("sides whose product is features = %d", s.Features))
	return errors.Join(p...)
}

// shaped tells whether the shape holds the features.
func (s *Synthetic) shaped() bool {
	left := s.Features
	for _, side := range s.Shape {
		if side < 1 || left%side != 0 {
			return false
		}
		left /= side
	}
	return left == 1
}

// input is the shape of x.
func (s *Synthetic) input() []int {
	if s.Shape == nil {
		return []int{s.Features}
	}
	return slices.Clone(s.Shape)
}

func (s *Synthetic) open(context.Context, Env) (train, test Dataset, err error) {
	tr, te, err := s.Generate()
	if err != nil {
		return nil, nil, err
	}
	return tr, te, nil
}

// Generate makes both sets. Ids run through: 0 to Samples-1 for the train set,
// then on for the test set, so no sample is in both.
func (s *Synthetic) Generate() (train, test *Memory, err error) {
	if err := s.Validate(); err != nil {
		return nil, nil, fmt.Errorf("dataset synthetic: %w", err)
	}
	t := newTeacher(s)
	if train, err = t.samples(0, s.Samples); err != nil {
		return nil, nil, err
	}
	if test, err = t.samples(uint64(s.Samples), s.TestSamples); err != nil {
		return nil, nil, err
	}
	return train, test, nil
}

// teacherUnits is the width of the teacher's hidden layer.
const teacherUnits = 16

// teacher is the network out = w2·clip(w1·x, ±1). The clip is odd, so no class
// is favoured. Sums are float64 in index order and each product is rounded by
// itself, so that no compiler can fuse it into the sum.
type teacher struct {
	spec Synthetic
	outs int       // classes, or 1 for regression
	w1   []float64 // [teacherUnits, features], uniform in [-1, 1)
	w2   []float64 // [outs, teacherUnits], uniform in [-1, 1)
}

// Coordinate b of rng.Data: what a stream is for.
const (
	drawSample = iota // a = sample id
	drawHidden
	drawOut
	drawOrder // of the samples of a folder or a table
)

func newTeacher(s *Synthetic) *teacher {
	outs := max(s.Classes, 1)
	return &teacher{
		spec: *s,
		outs: outs,
		w1:   weights(rng.New(s.Seed, rng.Data, 0, drawHidden, 0), teacherUnits*s.Features),
		w2:   weights(rng.New(s.Seed, rng.Data, 0, drawOut, 0), outs*teacherUnits),
	}
}

func weights(s rng.Stream, n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = float64(centred(s.Uint32(uint64(i))))
	}
	return w
}

// centred maps a random word to [-1, 1), exactly: both steps are powers of two.
func centred(u uint32) float32 { return float32(2*rng.Unit32(u)) - 1 }

// samples makes n samples with ids from first upwards.
func (t *teacher) samples(first uint64, n int) (*Memory, error) {
	info := Info{Name: "synthetic", Input: t.spec.input(), Target: 1, Classes: t.spec.Classes}
	ids := numbered(first, n)
	x := make([]float32, n*t.spec.Features)
	y := make([]float32, n)
	out := make([]float64, t.outs)
	for i, id := range ids {
		row := x[i*t.spec.Features : (i+1)*t.spec.Features]
		draw := rng.New(t.spec.Seed, rng.Data, id, drawSample, 0)
		for j := range row {
			row[j] = centred(draw.Uint32(uint64(j)))
		}
		t.forward(row, out)
		y[i] = t.target(out)
		if t.spec.Vocabulary > 0 {
			t.spell(row, draw)
		}
	}
	return NewMemory(info, ids, x, y)
}

// spell makes words of what the teacher has seen: the same draws, on a grid of
// whole numbers. A last draw says how many of them are there.
func (t *teacher) spell(row []float32, draw rng.Stream) {
	below := func(u uint32, n int) int { return int(uint64(u) * uint64(n) >> 32) }
	there := 1 + below(draw.Uint32(uint64(len(row))), len(row))
	for j := range row {
		if row[j] = 0; j < there {
			row[j] = float32(1 + below(draw.Uint32(uint64(j)), t.spec.Vocabulary-1))
		}
	}
}

// forward writes the teacher's answer to x into out [outs].
func (t *teacher) forward(x []float32, out []float64) {
	var hidden [teacherUnits]float64
	for u := range hidden {
		for j, v := range x {
			hidden[u] += float64(t.w1[u*len(x)+j] * float64(v))
		}
		hidden[u] = max(-1, min(1, hidden[u]))
	}
	for c := range out {
		out[c] = 0
		for u, h := range hidden {
			out[c] += float64(t.w2[c*teacherUnits+u] * h)
		}
	}
}

// target is the first class with the greatest score, or the one score.
func (t *teacher) target(out []float64) float32 {
	if t.spec.Classes == 0 {
		return float32(out[0])
	}
	best := 0
	for c, v := range out {
		if v > out[best] {
			best = c
		}
	}
	return float32(best)
}
