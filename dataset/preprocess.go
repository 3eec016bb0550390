package dataset

import (
	"github.com/dlnode/dlnode/dataset/picture"
	"github.com/dlnode/dlnode/dataset/text"
)

// Preprocess says how raw input became x, so that a prediction can do the same. At
// most one of its parts is there. Its JSON is the same for the same data.
type Preprocess struct {
	Image *picture.Steps  `json:"image,omitempty"` // x is pixels/255
	Text  *text.Tokenizer `json:"text,omitempty"`  // x is a row of word ids
	Table *Columns        `json:"table,omitempty"` // x is made of the fields of a row
}

// ready checks what came from a file.
func (p *Preprocess) ready() error {
	switch {
	case p == nil:
		return nil
	case p.Image != nil:
		return p.Image.Validate()
	case p.Text != nil:
		return p.Text.Ready()
	case p.Table != nil:
		return p.Table.validate()
	}
	return nil
}
