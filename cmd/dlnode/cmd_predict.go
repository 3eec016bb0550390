package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/train"
)

func (m *Main) newPredictCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "predict CHECKPOINT FILE...",
		Short: "Apply a checkpoint to samples in files",
		Long: "Apply a checkpoint to samples in files (- is standard input), each of which holds\n\n" +
			"  IDX images, plain or .gz: bytes, which become 0 to 1 as in training, or\n" +
			"  JSON: one array of numbers for each sample, nested as the sample's shape is.\n\n" +
			"CHECKPOINT is a checkpoint, or a directory around some: the newest undamaged one counts.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return fmt.Errorf("predict: got %d argument(s) (want CHECKPOINT FILE...)", len(args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return m.predict(c.Context(), args[0], args[1:], format)
		},
	}
	c.Flags().StringVar(&format, "format", "table", "`format` of the output: table, or json for one object per line")
	return c
}

// prediction is one line of predict's output.
type prediction struct {
	File        string `json:"file"`
	Sample      int    `json:"sample"`          // from 0, in the file
	Class       *int   `json:"class,omitempty"` // where the model tells classes apart
	Probability *real  `json:"probability,omitempty"`
	Output      []real `json:"output"`
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

func (m *Main) predict(ctx context.Context, path string, files []string, format string) error {
	write, ok := map[string]func(io.Writer) predictionWriter{"table": newTableWriter, "json": newJSONWriter}[format]
	if !ok {
		return usage("--format: %q is not allowed (want table or json)", format)
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	snap, _, err := m.loadCheckpoint(path)
	if err != nil {
		return err
	}
	w := write(m.Stdout)
	for _, file := range files {
		if err := m.predictFile(ctx, snap, file, w); err != nil {
			return err
		}
	}
	return w.flush()
}

// predictFile predicts the samples of one file. What was read from others stays
// told if it fails.
func (m *Main) predictFile(ctx context.Context, snap *checkpoint.Snapshot, file string, w predictionWriter) error {
	s, err := m.openSamples(file)
	if err != nil {
		return exit(codeData, err)
	}
	p, err := train.NewPredictor(snap, s.shape)
	if err != nil {
		return exit(codeForeign, fmt.Errorf("%s: %w", file, err))
	}
	out, err := p.Predict(ctx, s.x)
	if err != nil {
		return err
	}
	width := p.Model.OutputLen()
	for i := range s.n {
		if err := w.write(predictionOf(p, file, i, out[i*width:(i+1)*width])); err != nil {
			return err
		}
	}
	return nil
}

func predictionOf(p *train.Predictor, file string, sample int, out []float32) prediction {
	r := prediction{File: file, Sample: sample, Output: make([]real, len(out))}
	for i, v := range out {
		r.Output[i] = real(v)
	}
	if class, probability, ok := p.Class(out); ok {
		shown := real(probability)
		r.Class, r.Probability = &class, &shown
	}
	return r
}

// openSamples reads a file, or standard input if it is called "-".
func (m *Main) openSamples(file string) (*samples, error) {
	in := m.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close() // only read from
		in = f
	}
	s, err := readSamples(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// predictionWriter writes predictions in one format.
type predictionWriter interface {
	write(prediction) error
	flush() error
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
	head, line := "FILE\tSAMPLE\tOUTPUT\n", fmt.Sprintf("%s\t%d\t%s\n", p.File, p.Sample, reals(p.Output))
	if p.Class != nil {
		head, line = "FILE\tSAMPLE\tCLASS\tPROBABILITY\n", fmt.Sprintf("%s\t%d\t%d\t%.4f\n", p.File, p.Sample, *p.Class, *p.Probability)
	}
	if !w.headed {
		w.headed = true
		line = head + line
	}
	_, err := io.WriteString(w.w, line)
	return err
}

func (w *tableWriter) flush() error { return w.w.Flush() }

func reals(all []real) string {
	words := make([]string, len(all))
	for i, r := range all {
		words[i] = r.String()
	}
	return strings.Join(words, " ")
}
