package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/chart"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/train"
)

// worstDrawn is how many mistakes are drawn unless a number is given.
const worstDrawn = 24

// mistake is a sample that the model is wrong about, as eval tells it.
type mistake struct {
	Sample int    `json:"sample"` // its place in the part of the data
	ID     uint64 `json:"id"`
	Class  choice `json:"class"`
	Taken  choice `json:"taken_for"`
	Text   string `json:"text,omitempty"` // as the model reads it
}

// findMistakes goes through the data once more, for what eval's flags ask.
func (m *Main) findMistakes(ctx context.Context, t *train.Task, snap *checkpoint.Snapshot, data dataset.Dataset, f evalFlags, r *evalResult) error {
	keep := f.worst
	if keep == 0 {
		keep = worstDrawn
	}
	p, err := train.NewPredictor(snap, data.Info().Input)
	if err != nil {
		return exit(codeForeign, err)
	}
	if data.Info().Classes == 0 || len(p.Choices(make([]float32, p.Model.OutputLen()), 1)) == 0 {
		return usage("--worst, --pictures: the model tells no classes apart, so that it makes no mistakes")
	}
	s := &survey{p: p, data: data, keep: keep}
	if err := s.run(ctx); err != nil {
		return dataError(ctx, err)
	}
	if f.worst > 0 {
		if r.Worst, err = s.mistakes(); err != nil {
			return dataError(ctx, err)
		}
	}
	if f.pictures == "" {
		return nil
	}
	r.Pictures, err = s.drawInto(f.pictures, t.Job.Name, f.part)
	return err
}

// survey is what a model makes of all samples of a data set.
type survey struct {
	p    *train.Predictor
	data dataset.Dataset
	keep int

	counts [][]uint64      // [of class, taken for class]
	worst  []chart.Mistake // keep of them
}

// run predicts the samples, so many at a time.
func (s *survey) run(ctx context.Context) error {
	info := s.data.Info()
	s.counts = make([][]uint64, info.Classes)
	for i := range s.counts {
		s.counts[i] = make([]uint64, info.Classes)
	}
	in, width := info.InputLen(), s.p.Model.OutputLen()
	room := max(1, min(maxBatchSamples, maxBatchValues/in, s.data.Len()))
	x, y := make([]float32, room*in), make([]float32, info.Target)
	labels := make([]int, room)
	for lo := 0; lo < s.data.Len(); lo += room {
		n := min(room, s.data.Len()-lo)
		for i := range n {
			if _, err := s.data.Read(lo+i, x[i*in:(i+1)*in], y); err != nil {
				return fmt.Errorf("sample %d: %w", lo+i, err)
			}
			labels[i], _ = classOf(info, y)
		}
		out, err := s.p.Predict(ctx, x[:n*in])
		if err != nil {
			return err
		}
		s.judge(lo, labels[:n], out, width)
	}
	return nil
}

// judge counts the outputs for samples from lo on.
func (s *survey) judge(lo int, labels []int, out []float32, width int) {
	classes := len(s.counts)
	rows := make([]float32, len(labels)*classes)
	for i, label := range labels {
		all := s.p.Choices(out[i*width:(i+1)*width], classes)
		for _, c := range all {
			rows[i*classes+c.Class] = c.Probability
		}
		if !math.IsNaN(float64(all[0].Probability)) {
			s.counts[label][all[0].Class]++
		}
	}
	found := chart.Worst(rows, labels, s.keep)
	for i := range found {
		found[i].Sample += lo
	}
	s.worst = chart.WorstOf(append(s.worst, found...), s.keep)
}

// mistakes puts the worst into words.
func (s *survey) mistakes() (all []mistake, err error) {
	info := s.data.Info()
	x, y := make([]float32, info.InputLen()), make([]float32, info.Target)
	for _, w := range s.worst {
		told := mistake{Sample: w.Sample, Class: s.choice(w.Class), Taken: s.choice(w.Taken)}
		told.Taken.Probability, told.Class.Probability = real(w.Probability), real(w.Probability-w.Lead)
		if told.ID, err = s.data.Read(w.Sample, x, y); err != nil {
			return nil, fmt.Errorf("sample %d: %w", w.Sample, err)
		}
		if p := info.Preprocess; p != nil && p.Text != nil {
			told.Text = dataset.MeaningOf(info).Words(x)
		}
		all = append(all, told)
	}
	return all, nil
}

func (s *survey) choice(class int) choice {
	c := choice{Class: class}
	if names := s.data.Info().ClassNames; class < len(names) {
		c.Name = names[class]
	}
	return c
}

// drawInto draws the confusion matrix and, of images, the worst mistakes.
func (s *survey) drawInto(dir, job, part string) (paths []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	title := fmt.Sprintf("%s: %d %s samples", job, s.data.Len(), part)
	p, err := chart.Confusion(title, s.counts, s.data.Info().ClassNames)
	if err != nil {
		return nil, err
	}
	pictures := map[string]*chart.Picture{"confusion": p}
	names := []string{"confusion"}
	if how := s.data.Info().Preprocess; how != nil && how.Image != nil && len(s.worst) > 0 {
		photos, err := s.photos()
		if err != nil {
			return nil, err
		}
		if pictures["worst"], err = chart.Sheet(title+", the worst mistakes", s.data.Info().Input, photos); err != nil {
			return nil, err
		}
		names = append(names, "worst")
	}
	for _, name := range names {
		for _, ext := range chart.Formats {
			path := filepath.Join(dir, name+ext)
			if err := pictures[name].Save(path); err != nil {
				return nil, err
			}
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// photos are the worst mistakes with words below them.
func (s *survey) photos() (all []chart.Photo, err error) {
	info := s.data.Info()
	y := make([]float32, info.Target)
	for _, w := range s.worst {
		x := make([]float32, info.InputLen())
		if _, err := s.data.Read(w.Sample, x, y); err != nil {
			return nil, fmt.Errorf("sample %d: %w", w.Sample, err)
		}
		all = append(all, chart.Photo{Pixels: x, Caption: [2]string{
			fmt.Sprintf("%v as %v, %.2f", s.choice(w.Class), s.choice(w.Taken), w.Probability),
			fmt.Sprintf("sample %d", w.Sample),
		}})
	}
	return all, nil
}

// maxShown is how much of a text is shown in a table, in letters. JSON has all.
const maxShown = 100

// writeMistakes writes the worst mistakes as a table.
func writeMistakes(out io.Writer, all []mistake) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(out, "the worst mistakes, the worst first")
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	head := "SAMPLE\tID\tCLASS\tTAKEN FOR\tPROBABILITY"
	if all[0].Text != "" {
		head += "\tREAD AS"
	}
	fmt.Fprintln(w, head)
	for _, m := range all {
		fmt.Fprintf(w, "%d\t%d\t%v\t%v\t%.4f", m.Sample, m.ID, m.Class, m.Taken, m.Taken.Probability)
		if m.Text != "" {
			text := []rune(m.Text)
			if len(text) > maxShown {
				text = append(text[:maxShown-1], '…')
			}
			fmt.Fprintf(w, "\t%s", string(text))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
