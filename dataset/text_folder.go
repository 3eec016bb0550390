package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dlnode/dlnode/dataset/text"
)

// TextFolder is a folder of .txt files for each class, such as that of the IMDb
// reviews, or its archive. Each text becomes a row of word ids, as Keras' Tokenizer
// and pad_sequences make it; the words are those of the training texts, counted in
// the order of file names. A lone directory, archives, parts and the order of
// samples: see Folder.
type TextFolder struct {
	Folder       `yaml:",inline"`
	text.Options `yaml:",inline"`
}

// maxText bounds one text: some are held at once, and a megabyte is a long novel.
const maxText = 16 << 20

// Kind returns "text_folder".
func (*TextFolder) Kind() string { return "text_folder" }

func newTextFolder() TextFolder { return TextFolder{folderDefaults(), text.Default()} }

// Validate tells which field is missing or out of its range.
func (f *TextFolder) Validate() error {
	var p problems
	p.unless(f.Path != "", "path", `""`, "a directory, or a tar, tar.gz or zip")
	f.check(&p)
	return errors.Join(p...)
}

func (f *TextFolder) check(p *problems) {
	f.Folder.check(p)
	if err := f.Options.Validate(); err != nil {
		*p = append(*p, err)
	}
}

func (f *TextFolder) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return f.decode(ctx, env, f, []string{".txt"}, f.fill)
}

func (f *TextFolder) fill(ctx context.Context, w *setWriter, t *tree) error {
	c := &corpus{
		name: "text_folder", classes: t.classes, options: f.Options, skip: f.OnBroken == "skip",
		train: len(t.train), test: len(t.test), counted: byID(t.train),
		read: func(i int) (document, error) {
			l := pick(t.train, t.test, i)
			file, err := t.files.Read(l.Member, maxText)
			if err != nil {
				return document{}, err
			}
			s, err := text.Clean(file)
			if err != nil {
				return document{}, fmt.Errorf("%s: %w", t.files.Title(l.Member), err)
			}
			return document{l.id, s, l.class}, nil
		},
	}
	return c.fill(ctx, w)
}

// pick returns element i of a followed by b.
func pick[T any](a, b []T, i int) T {
	if i < len(a) {
		return a[i]
	}
	return b[i-len(a)]
}

// corpus is what texts are packed from, wherever they lie.
type corpus struct {
	name        string
	classes     []string
	options     text.Options
	skip        bool   // texts that can't be read
	train, test int    // how many there are; test may be none
	counted     []int  // the training texts in the order of their ids
	bad         broken // what is broken already, or nothing
	// read returns text i, the training texts first. It is called for each twice.
	read func(i int) (document, error)
}

// document is one text.
type document struct {
	id    uint64
	text  string
	class int
}

// attempt is a document, or why there is none.
type attempt struct {
	document
	err error
}

func (c *corpus) attempt(i int) attempt {
	d, err := c.read(i)
	return attempt{d, err}
}

// fill counts the words, then writes the rows.
func (c *corpus) fill(ctx context.Context, w *setWriter) error {
	tok, bad, err := c.count(ctx, w)
	if err != nil {
		return err
	}
	if err := bad.err(1); err != nil {
		return err
	}
	w.set.Skipped = bad.skipped()
	meta := packMeta{inTokens, Info{
		Name: c.name, Input: []int{tok.MaxLen}, Target: 1,
		Classes: len(c.classes), ClassNames: c.classes, Preprocess: &Preprocess{Text: tok},
	}}
	if err := c.write(ctx, w, meta, tok, 0, c.train); err != nil {
		return err
	}
	if c.test > 0 {
		if err := c.write(ctx, w, meta, tok, c.train, c.train+c.test); err != nil {
			return err
		}
	}
	return bad.err(w.least())
}

// byID returns the places of leaves in the order of their ids.
func byID(leaves []leaf) []int {
	places := make([]int, len(leaves))
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int { return cmp.Compare(leaves[a].id, leaves[b].id) })
	return places
}

// count reads every text once. Words are counted in the order of ids, so that
// shuffling the samples leaves the vocabulary as it is.
func (c *corpus) count(ctx context.Context, w *setWriter) (*text.Tokenizer, *broken, error) {
	counter := text.NewCounter(c.options)
	bad := &c.bad
	bad.skip, bad.total = c.skip, max(c.train+c.test, c.bad.total)
	err := inOrder(ctx, c.train+c.test, func(i int) (attempt, error) {
		if i < c.train {
			i = c.counted[i]
		}
		return c.attempt(i), nil
	}, func(i int, a attempt) error {
		w.progress(i+1, 2*(c.train+c.test))
		switch {
		case a.err != nil:
			bad.note(a.err)
		case i < c.train:
			counter.Add(a.text)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	tok, err := counter.Tokenizer()
	return tok, bad, err
}

// write packs texts [lo, hi).
func (c *corpus) write(ctx context.Context, w *setWriter, meta packMeta, tok *text.Tokenizer, lo, hi int) error {
	p, err := w.part(meta)
	if err != nil {
		return err
	}
	type row struct {
		attempt
		ids []int32
	}
	return inOrder(ctx, hi-lo, func(i int) (row, error) {
		a := c.attempt(lo + i)
		r := row{a, make([]int32, tok.MaxLen)}
		if a.err == nil {
			tok.Encode(a.text, r.ids)
		}
		return r, nil
	}, func(i int, r row) error {
		w.progress(c.train+c.test+lo+i+1, 2*(c.train+c.test))
		if r.err != nil && c.skip {
			return nil // count has noted it
		}
		if r.err != nil {
			return r.err
		}
		return p.addTokens(r.id, r.ids, float32(r.class))
	})
}
