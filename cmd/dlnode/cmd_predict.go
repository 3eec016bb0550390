package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/train"
)

// predictFlags are the flags of dlnode predict.
type predictFlags struct {
	format, as, column string
	top                int
}

func (m *Main) newPredictCommand() *cobra.Command {
	var f predictFlags
	c := &cobra.Command{
		Use:   "predict CHECKPOINT FILE...",
		Short: "Apply a checkpoint to pictures, texts, rows or numbers",
		Long: "Apply a checkpoint to samples. The checkpoint says how they become numbers, and what its\n" +
			"classes are called. FILE is a file, a directory of those that the model was trained on,\n" +
			"or - for standard input, and holds\n\n" +
			"  image  a JPEG or a PNG, resized as in training;\n" +
			"  text   a text, or one in each line (lines);\n" +
			"  csv    a table with the columns of the training table, or with one of texts (or tsv);\n" +
			"  idx    images of bytes, which become 0 to 1, plain or .gz;\n" +
			"  json   one array of numbers for each sample, nested as the sample's shape is.\n\n" +
			"What can't be read is named and left out: the exit code is 3, once all others are told.\n" +
			"CHECKPOINT is a checkpoint, or a directory around some: the newest undamaged one counts.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("predict: got %d argument(s) (want CHECKPOINT FILE...)", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return m.predict(c.Context(), args[0], args[1:], f)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.format, "format", "table", "`format` of the output: table, or json for one object per line")
	fl.IntVar(&f.top, "top", 1, "`N` likeliest classes to tell")
	fl.StringVar(&f.as, "as", "", "`kind` of all files: image, text, lines, csv, tsv, idx or json (default by their names, then\nby how they begin, then as the model was trained)")
	fl.StringVar(&f.column, "column", "", "`name` of the column of texts in a table (default that of the job, or text)")
	return c
}

func (f predictFlags) validate() error {
	if f.top < 1 {
		return usage("--top: %d is not allowed (want at least 1)", f.top)
	}
	return checkKind(f.as)
}

// prediction is one line of predict's output.
type prediction struct {
	File        string   `json:"file"`
	Sample      int      `json:"sample"`          // from 0, in the file
	Class       *int     `json:"class,omitempty"` // where the model tells classes apart
	Name        string   `json:"name,omitempty"`  // of the class, where it has one
	Probability *real    `json:"probability,omitempty"`
	Top         []choice `json:"top,omitempty"` // of several, this one first
	Output      []real   `json:"output"`
}

// choice is a class that the sample may be of.
type choice struct {
	Class       int    `json:"class"`
	Name        string `json:"name,omitempty"`
	Probability real   `json:"probability"`
}

// String returns what people call the class.
func (c choice) String() string {
	if c.Name != "" {
		return c.Name
	}
	return strconv.Itoa(c.Class)
}

// real is a float32 that may be NaN or infinite in JSON too.
type real float32

// MarshalJSON writes a number in its shortest form, or "NaN", "+Inf", "-Inf".
func (r real) MarshalJSON() ([]byte, error) {
	if f := float64(r); math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.AppendQuote(nil, r.String()), nil
	}
	return json.Marshal(float32(r))
}

// String writes a number in its shortest form.
func (r real) String() string { return strconv.FormatFloat(float64(r), 'g', -1, 32) }

func (m *Main) predict(ctx context.Context, path string, files []string, f predictFlags) error {
	write, ok := map[string]func(io.Writer) predictionWriter{"table": newTableWriter, "json": newJSONWriter}[f.format]
	if !ok {
		return usage("--format: %q is not allowed (want table or json)", f.format)
	}
	if err := f.validate(); err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	snap, at, err := m.loadCheckpoint(path)
	if err != nil {
		return err
	}
	in, err := m.newInputs(snap, at, f)
	if err != nil {
		return err
	}
	p := &predicting{snap: snap, names: in.classNames(), top: f.top, out: write(m.Stdout), broken: in.broken}
	err = in.each(files, func(r raw) error { return p.add(ctx, r) })
	if err == nil {
		err = p.flush(ctx)
	}
	if err == nil && in.failed > 0 {
		err = exit(codeData, fmt.Errorf("files or samples that were left out, as told above: %d", in.failed))
	}
	return err
}

// predictionOf puts an output into words.
func predictionOf(p *train.Predictor, r raw, out []float32, top int, names []string) prediction {
	line := prediction{File: r.file, Sample: r.sample, Output: make([]real, len(out))}
	for i, v := range out {
		line.Output[i] = real(v)
	}
	for _, c := range p.Choices(out, top) {
		told := choice{Class: c.Class, Probability: real(c.Probability)}
		if c.Class < len(names) {
			told.Name = names[c.Class]
		}
		line.Top = append(line.Top, told)
	}
	if len(line.Top) > 0 {
		first := line.Top[0]
		line.Class, line.Name, line.Probability = &first.Class, first.Name, &first.Probability
	}
	if top == 1 {
		line.Top = nil // it says no more
	}
	return line
}

// predictionWriter writes predictions in one format.
type predictionWriter interface {
	write(prediction) error
	flush() error // what was written is seen
}

type jsonWriter struct{ enc *json.Encoder }

func newJSONWriter(w io.Writer) predictionWriter { return jsonWriter{json.NewEncoder(w)} }

func (w jsonWriter) write(p prediction) error { return w.enc.Encode(p) }
func (w jsonWriter) flush() error             { return nil }

// tableWriter writes its head before the first line, which tells whether the
// model chooses classes.
type tableWriter struct {
	w      *tabwriter.Writer
	headed bool
}

func newTableWriter(w io.Writer) predictionWriter {
	return &tableWriter{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
}

func (w *tableWriter) write(p prediction) error {
	head, line := "FILE\tSAMPLE\tOUTPUT", fmt.Sprintf("%s\t%d\t%s", p.File, p.Sample, reals(p.Output))
	if p.Class != nil {
		head = "FILE\tSAMPLE\tCLASS\tPROBABILITY"
		line = fmt.Sprintf("%s\t%d\t%v\t%.4f", p.File, p.Sample, choice{Class: *p.Class, Name: p.Name}, *p.Probability)
	}
	if len(p.Top) > 1 {
		head += "\tTHEN"
		line += "\t" + others(p.Top[1:])
	}
	if !w.headed {
		w.headed = true
		line = head + "\n" + line
	}
	_, err := fmt.Fprintln(w.w, line)
	return err
}

func (w *tableWriter) flush() error { return w.w.Flush() }

// others lists what else a sample may be.
func others(all []choice) string {
	words := make([]string, len(all))
	for i, c := range all {
		words[i] = fmt.Sprintf("%v %.4f", c, c.Probability)
	}
	return strings.Join(words, ", ")
}

func reals(all []real) string {
	words := make([]string, len(all))
	for i, r := range all {
		words[i] = r.String()
	}
	return strings.Join(words, " ")
}
