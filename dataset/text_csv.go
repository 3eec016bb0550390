package dataset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/dataset/text"
)

// TextCSV is a table with a column of texts and one of classes. Texts become rows
// of word ids as those of a TextFolder do; rows and their order: see Table.
type TextCSV struct {
	Table        `yaml:",inline"`
	Text         string   `yaml:"text" json:"text"`       // the column of the texts
	Label        string   `yaml:"label" json:"label"`     // the column of the classes
	Classes      []string `yaml:"classes" json:"classes"` // names in the order of their ids; none: those of the training rows, sorted
	text.Options `yaml:",inline"`
}

// Kind returns "text_csv".
func (*TextCSV) Kind() string { return "text_csv" }

func newTextCSV() *TextCSV {
	return &TextCSV{Table: tableDefaults(), Text: "text", Label: "label", Options: text.Default()}
}

// Validate tells which field is missing or out of its range.
func (t *TextCSV) Validate() error {
	var p problems
	t.check(&p)
	p.unless(t.Text != "", "text", `""`, "the name of a column")
	for i, c := range t.Classes {
		p.unless(c != "" && c == strings.TrimSpace(c), fmt.Sprintf("classes[%d]", i), fmt.Sprintf("%q", c), "a name without spaces around it")
		p.unless(!slices.Contains(t.Classes[:i], c), fmt.Sprintf("classes[%d]", i), fmt.Sprintf("%q", c), "each class once")
	}
	p.unless(len(t.Classes) != 1 && len(t.Classes) <= maxClasses, "classes", len(t.Classes), fmt.Sprintf("none for those of the rows, or 2 to %d", maxClasses))
	p.unless(t.Label != "" && t.Label != t.Text, "label", fmt.Sprintf("%q", t.Label), "the name of another column")
	if err := t.Options.Validate(); err != nil {
		p = append(p, err)
	}
	return errors.Join(p...)
}

func (t *TextCSV) open(ctx context.Context, env Env) (train, test Dataset, err error) {
	return t.decode(ctx, env, t, t.fill)
}

func (t *TextCSV) fill(ctx context.Context, w *setWriter, tb *table) error {
	textAt, err := tb.column("text", t.Text)
	if err != nil {
		return err
	}
	labelAt, err := tb.column("label", t.Label)
	if err != nil {
		return err
	}
	classes := t.Classes
	if classes == nil {
		if classes, err = tb.classes(ctx, labelAt); err != nil {
			return err
		}
	}
	places := placesOf(classes)
	ordered := make([]leaf, len(tb.train))
	for i, r := range tb.train {
		ordered[i].id = r.id
	}
	c := &corpus{
		name: "text_csv", classes: classes, options: t.Options, skip: tb.bad.skip,
		train: len(tb.train), test: len(tb.test), counted: byID(ordered), bad: tb.bad,
		read: func(i int) (document, error) {
			r := pick(tb.train, tb.test, i)
			fields, err := r.fields()
			if err != nil {
				return document{}, err
			}
			label := strings.TrimSpace(fields[labelAt])
			class, known := places[label]
			if !known {
				return document{}, r.errorf("column %s: %q is no class (want one of %s)", t.Label, short(label), someOf(classes))
			}
			return document{r.id, fields[textAt], class}, nil
		},
	}
	return c.fill(ctx, w)
}

// classes lists what stands in a column of the training rows. A field without
// anything in it names no class.
func (t *table) classes(ctx context.Context, at int) ([]string, error) {
	seen := map[string]bool{}
	err := inOrder(ctx, len(t.train), func(i int) (string, error) {
		fields, err := t.train[i].fields()
		if err != nil {
			return "", err
		}
		return strings.TrimSpace(fields[at]), nil
	}, func(_ int, name string) error {
		if name != "" {
			seen[name] = true
		}
		if len(seen) > maxClasses {
			return fmt.Errorf("column %s has more than %d classes (is it another column?)", t.header[at], maxClasses)
		}
		return nil
	})
	if err == nil && len(seen) < 2 {
		err = fmt.Errorf("column %s: classes [%s], want at least 2", t.header[at], someOf(classNames(seen)))
	}
	return classNames(seen), err
}
