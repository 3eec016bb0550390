package dataset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/dlnode/dlnode/dataset/picture"
	"github.com/dlnode/dlnode/dataset/text"
	"github.com/dlnode/dlnode/internal/kernel"
)

// Meaning is what the numbers of a data set mean outside of it: how raw input
// becomes x, and what people call the classes. A checkpoint holds it, so that
// predictions need nothing else.
//
//	file, text, row ─► Meaning.Image, Text, Row ─► x ─► model ─► class id ─► ClassNames
//
// What it makes of raw input has the bits that the data set has of the same input.
type Meaning struct {
	Input      []int       `json:"input"` // as in Info, like the others
	ClassNames []string    `json:"class_names,omitempty"`
	Preprocess *Preprocess `json:"preprocess,omitempty"`
}

// MeaningOf returns the meaning of a data set's numbers, nil where numbers are all
// there ever was.
func MeaningOf(info Info) *Meaning {
	if len(info.ClassNames) == 0 && info.Preprocess == nil {
		return nil
	}
	return &Meaning{Input: info.Input, ClassNames: info.ClassNames, Preprocess: info.Preprocess}
}

// Encode returns the canonical JSON of a meaning, nil for nil: the same bytes for
// the same meaning.
func (m *Meaning) Encode() []byte {
	if m == nil {
		return nil
	}
	b, err := json.Marshal(m)
	if err != nil { // only for a scale that is no number, which no data set has
		panic(fmt.Sprintf("dataset: what the data mean has no encoding: %v", err))
	}
	return b
}

// DecodeMeaning is the inverse of Encode. What it returns is ready for use,
// whoever wrote the text. A field that is unknown is an error: it may be another
// step on the way from raw input to x.
func DecodeMeaning(b []byte) (*Meaning, error) {
	if len(b) == 0 {
		return nil, nil
	}
	m := &Meaning{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("offset %d: more than one value", d.InputOffset())
	}
	return m, m.ready()
}

// ready checks what came from a file.
func (m *Meaning) ready() error {
	info := Info{Input: m.Input, Target: 1, Classes: len(m.ClassNames), ClassNames: m.ClassNames}
	if _, err := (packMeta{inFloats, info}).payload(); err != nil {
		return err
	}
	if err := m.Preprocess.ready(); err != nil {
		return err
	}
	if made := m.Preprocess.length(); m.Preprocess != nil && made != info.InputLen() {
		return fmt.Errorf("raw input becomes %d values, but samples of shape %v have %d", made, m.Input, info.InputLen())
	}
	return nil
}

// InputLen returns the length of x.
func (m *Meaning) InputLen() int { return Info{Input: m.Input}.InputLen() }

// Image fills x [InputLen] from an image file. It panics unless there is
// Preprocess.Image.
func (m *Meaning) Image(file []byte, x []float32) error {
	pixels := make([]byte, len(x))
	if err := m.Preprocess.Image.Decode(file, pixels); err != nil {
		return err
	}
	kernel.Unit(x, pixels)
	return nil
}

// TextFile fills x [InputLen] from a file that holds one text. It panics unless
// there is Preprocess.Text.
func (m *Meaning) TextFile(file []byte, x []float32) error {
	s, err := text.Clean(file)
	if err != nil {
		return err
	}
	m.Text(s, x)
	return nil
}

// Text fills x [InputLen] from a text. It panics unless there is Preprocess.Text.
func (m *Meaning) Text(s string, x []float32) {
	row := make([]int32, len(x))
	m.Preprocess.Text.Encode(s, row)
	for i, id := range row {
		x[i] = float32(id)
	}
}

// Words returns the words of a row of ids, those that are none left out: a text as
// the model sees it. It panics unless there is Preprocess.Text.
func (m *Meaning) Words(x []float32) string {
	row := make([]int32, len(x))
	for i, id := range x {
		row[i] = int32(id)
	}
	return m.Preprocess.Text.Decode(row)
}

// Row fills x [InputLen] from the fields of a table's row. It panics unless there
// is Preprocess.Table.
func (m *Meaning) Row(field func(column string) string, x []float32) error {
	if err := m.Preprocess.Table.Encode(field, x); err != nil {
		return err
	}
	if j := notFinite(x); j >= 0 {
		return fmt.Errorf("input %d is %v, want a finite number", j, x[j])
	}
	return nil
}

// Differences tells in words in what two meanings differ.
func (m *Meaning) Differences(here, there string, other *Meaning) (diff []string) {
	if m == nil || other == nil {
		if m != other {
			diff = append(diff, fmt.Sprintf("data: what raw input becomes, and what classes are called, is told on one of %s and %s only", here, there))
		}
		return diff
	}
	for _, part := range []struct {
		what string
		a, b any
	}{
		{"shape of a sample", m.Input, other.Input},
		{"names of the classes", m.ClassNames, other.ClassNames},
		{"way from raw input to numbers", m.Preprocess, other.Preprocess},
	} {
		wholeA, a := brief(part.a)
		wholeB, b := brief(part.b)
		if wholeA != wholeB {
			diff = append(diff, fmt.Sprintf("data: the %s: %s %s, %s %s", part.what, a, here, b, there))
		}
	}
	return diff
}

// shownBytes is how much of a part is shown; a vocabulary is long.
const shownBytes = 80

// brief is a part of a meaning as JSON, and so that it can be shown.
func brief(part any) (whole, shown string) {
	b, err := json.Marshal(part)
	if err != nil {
		b = []byte(err.Error())
	}
	if len(b) > shownBytes {
		return string(b), fmt.Sprintf("%s… (%d bytes)", bytes.ToValidUTF8(b[:shownBytes], nil), len(b))
	}
	return string(b), string(b)
}

// imageSteps says how image files become samples of bytes: those of the data set's
// own size as they are, others resized as a folder of images is by default. It is
// nil for samples that are no images.
func imageSteps(shape []int) *Preprocess {
	s := picture.Steps{Color: "gray", Filter: "bilinear"}
	switch {
	case len(shape) == 2, len(shape) == 3 && shape[2] == 1:
	case len(shape) == 3 && shape[2] == 3:
		s.Color = "rgb"
	default:
		return nil
	}
	s.Height, s.Width = shape[0], shape[1]
	if s.Validate() != nil {
		return nil
	}
	return &Preprocess{Image: &s}
}
