package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/dlnode/dlnode/train"
)

// writeConfusion writes a confusion matrix as a table: a row for each class, a
// column for each that its samples were taken for. names are those of the classes,
// or none.
func writeConfusion(out io.Writer, title string, rows [][]uint64, names []string) error {
	fmt.Fprintf(out, "%s (a row for each class, a column for what it was taken for)\n", title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	name := func(i int) string {
		if i < len(names) {
			return names[i]
		}
		return fmt.Sprint(i)
	}
	for j := range rows {
		fmt.Fprintf(w, "\t%s", name(j))
	}
	fmt.Fprintln(w, "\t")
	for i, row := range rows {
		fmt.Fprint(w, name(i))
		for _, n := range row {
			fmt.Fprintf(w, "\t%d", n)
		}
		fmt.Fprintln(w, "\t")
	}
	return w.Flush()
}

// writeConfusions writes those of a history: of its last epoch, and of the best.
func writeConfusions(out io.Writer, history []train.Epoch) error {
	for _, e := range history {
		if e.Confusion == nil {
			continue
		}
		title := fmt.Sprintf("validation samples after epoch %d", e.Epoch)
		if err := writeConfusion(out, title, e.Confusion, nil); err != nil {
			return err
		}
	}
	return nil
}
