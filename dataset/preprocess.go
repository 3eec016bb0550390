package dataset

import (
	"fmt"

	"github.com/dlnode/dlnode/dataset/picture"
	"github.com/dlnode/dlnode/dataset/text"
)

// Preprocess says how raw input became x, so that a prediction can do the same.
// One of its parts is there. Its JSON is the same for the same data.
type Preprocess struct {
	Image *picture.Steps  `json:"image,omitempty"` // x is pixels/255
	Text  *text.Tokenizer `json:"text,omitempty"`  // x is a row of word ids
	Table *Columns        `json:"table,omitempty"` // x is made of the fields of a row
}

// parts counts what is there.
func (p *Preprocess) parts() (n int) {
	for _, there := range []bool{p.Image != nil, p.Text != nil, p.Table != nil} {
		if there {
			n++
		}
	}
	return n
}

// length returns how many values raw input becomes.
func (p *Preprocess) length() int {
	switch {
	case p == nil:
		return 0
	case p.Image != nil:
		return p.Image.Len()
	case p.Text != nil:
		return p.Text.MaxLen
	case p.Table != nil:
		return p.Table.Len()
	}
	return 0
}

// ready checks what came from a file.
func (p *Preprocess) ready() error {
	switch {
	case p == nil:
		return nil
	case p.parts() != 1:
		return fmt.Errorf("preprocess: %d ways from raw input to x, want 1", p.parts())
	case p.Image != nil:
		return p.Image.Validate()
	case p.Text != nil:
		return p.Text.Ready()
	case p.Table != nil:
		return p.Table.validate()
	}
	return nil
}
