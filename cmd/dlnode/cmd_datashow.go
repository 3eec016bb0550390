package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
)

const specHelp = "SPEC is a job file, or what stands under data: in one, such as mnist or\n" +
	"'image_folder: {path: photos.tar, size: [150, 150]}'."

func (m *Main) newDataShowCommand() *cobra.Command {
	var f showFlags
	c := &cobra.Command{
		Use:   "show SPEC",
		Short: "Tell what a data set holds",
		Long: "Tell what a data set holds: shapes, samples of each class, how raw input became numbers,\n" +
			"the first texts as they are read back from their numbers. " + specHelp,
		Args: takes("SPEC"),
		RunE: func(c *cobra.Command, args []string) error {
			var augmenting *job.Job
			if f.augmented != "" {
				var err error
				if augmenting, err = augmentingJob(args[0]); err != nil {
					return err
				}
			}
			return m.withData(c.Context(), args[0], func(train, test dataset.Dataset) error {
				return m.showData(train, test, augmenting, f)
			})
		},
	}
	c.Flags().StringVar(&f.sheet, "sheet", "", "write the first images of the train set as a PNG `FILE`")
	c.Flags().StringVar(&f.augmented, "augmented", "", "write them as a PNG `FILE` as the job augments them: a row for each, first as it\nis, then as its model sees it in epochs 1 to 7")
	c.Flags().IntVar(&f.samples, "samples", 0, "`N` samples to show: 64 on a sheet, 8 augmented, 5 texts where not given")
	return c
}

// showFlags are the flags of dlnode data show.
type showFlags struct {
	sheet, augmented string
	samples          int
}

func (m *Main) newDataPackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pack SPEC DIR",
		Short: "Write a data set to a directory, to be read in place, or from a web server",
		Long: "Write a data set to a new directory in the form that it is read in: shards with a checksum\n" +
			"for each block. A job reads it as data: {packed: {path: DIR}}; path may be the URL of the\n" +
			"directory behind a web server. " + specHelp,
		Args: takes("SPEC", "DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			spec, err := dataSpec(args[0])
			if err != nil {
				return err
			}
			return m.data(c.Context(), func(ctx context.Context, env dataset.Env) error {
				if err := dataset.Pack(ctx, spec, env, args[1]); err != nil {
					return err
				}
				fmt.Fprintf(m.Stdout, "packed into %s\n", args[1])
				return nil
			})
		},
	}
}

func (m *Main) newDataVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Check every byte of a packed data set",
		Args:  takes("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.data(c.Context(), func(ctx context.Context, env dataset.Env) error {
				n, err := dataset.Verify(ctx, args[0], env)
				if err != nil {
					return err
				}
				fmt.Fprintf(m.Stdout, "%s: %d samples, all as they were packed\n", args[0], n)
				return nil
			})
		},
	}
}

// dataSpec reads the data set that a command is called with.
func dataSpec(arg string) (dataset.Spec, error) {
	var section job.Section
	if isJobFile(arg) {
		j, err := loadJob(arg)
		if err != nil {
			return nil, err
		}
		section = j.Data
	} else {
		var err error
		if section, err = job.ParseData(arg); err != nil {
			return nil, exit(codeUsage, err)
		}
	}
	spec, ok := section.(dataset.Spec)
	if !ok {
		return nil, usage("%T is not a data set of package dataset", section)
	}
	return spec, nil
}

// data does something with data, tells how it goes and gives its error an exit
// code.
func (m *Main) data(ctx context.Context, do func(context.Context, dataset.Env) error) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	meter := newFetchMeter(m.Stderr)
	env := m.dataEnv()
	env.Progress = meter.show
	err := do(ctx, env)
	meter.end()
	return dataError(ctx, err)
}

// withData opens a data set for use.
func (m *Main) withData(ctx context.Context, arg string, use func(train, test dataset.Dataset) error) error {
	spec, err := dataSpec(arg)
	if err != nil {
		return err
	}
	var train, test dataset.Dataset
	if err := m.data(ctx, func(ctx context.Context, env dataset.Env) (err error) {
		train, test, err = dataset.Open(ctx, spec, env)
		return err
	}); err != nil {
		return err
	}
	err = use(train, test)
	for _, d := range []dataset.Dataset{train, test} {
		if c, ok := d.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	return exit(codeData, err)
}

// showData prints both parts, and some samples of the first; augmented ones if there
// is a job that says how.
func (m *Main) showData(train, test dataset.Dataset, augmenting *job.Job, f showFlags) error {
	info := train.Info()
	fmt.Fprintf(m.Stdout, "input   %v\n", info.Input)
	switch {
	case info.Classes > 0:
		fmt.Fprintf(m.Stdout, "target  one of %d classes\n", info.Classes)
	case info.Target == 1:
		fmt.Fprintln(m.Stdout, "target  a number")
	default:
		fmt.Fprintf(m.Stdout, "target  %d numbers\n", info.Target)
	}
	if err := m.showParts(train, test); err != nil {
		return err
	}
	if left := dataset.Skipped(train); len(left) > 0 {
		fmt.Fprintf(m.Stdout, "\nleft out: %d\n  %s\n", len(left), strings.Join(left, "\n  "))
	}
	if err := m.showPreprocess(train, f.samples); err != nil {
		return err
	}
	if f.sheet != "" {
		images, err := firstImages(train, cmp.Or(f.samples, 64))
		if err == nil {
			err = writeSheet(f.sheet, train.Info().Input, images)
		}
		if err != nil {
			return err
		}
	}
	if augmenting == nil {
		return nil
	}
	images, err := augmentedImages(train, augmenting, cmp.Or(f.samples, 8))
	if err != nil {
		return err
	}
	return writeSheet(f.augmented, train.Info().Input, images)
}

// augmentingJob reads the job that data show was called with.
func augmentingJob(spec string) (*job.Job, error) {
	if !isJobFile(spec) {
		return nil, usage("--augmented: %s is no job file (want one with a section augment)", spec)
	}
	j, err := loadJob(spec)
	if err == nil && j.Augment == nil {
		err = usage("--augmented: %s has no section augment", spec)
	}
	return j, err
}

// isJobFile tells a job file from what stands under data: in one.
func isJobFile(spec string) bool {
	ext := filepath.Ext(spec)
	return ext == ".yaml" || ext == ".yml"
}

// showParts prints how many samples there are, in all and of each class.
func (m *Main) showParts(train, test dataset.Dataset) error {
	w := tabwriter.NewWriter(m.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "\nPART\tSAMPLES")
	names := train.Info().ClassNames
	if len(names) > 12 {
		names = nil
	}
	for _, name := range names {
		fmt.Fprintf(w, "\t%s", strings.ToUpper(name))
	}
	fmt.Fprintln(w, "\tFINGERPRINT")
	for i, d := range []dataset.Dataset{train, test} {
		if d == nil {
			continue
		}
		fmt.Fprintf(w, "%s\t%d", []string{"train", "test"}[i], d.Len())
		counts, err := classCounts(d)
		if err != nil {
			return err
		}
		for c := range names {
			fmt.Fprintf(w, "\t%d", counts[c])
		}
		print := d.Fingerprint()
		fmt.Fprintf(w, "\t%x\n", print[:8])
	}
	return w.Flush()
}

// classCounts reads every sample.
func classCounts(d dataset.Dataset) ([]int, error) {
	info := d.Info()
	counts := make([]int, info.Classes)
	x, y := make([]float32, info.InputLen()), make([]float32, info.Target)
	for i := range d.Len() {
		if _, err := d.Read(i, x, y); err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		if c, ok := classOf(info, y); ok {
			counts[c]++
		}
	}
	return counts, nil
}

// classOf returns the class of a target, a class id or one-hot.
func classOf(info dataset.Info, y []float32) (class int, ok bool) {
	if info.Classes == 0 {
		return 0, false
	}
	if info.Target == 1 {
		return int(y[0]), y[0] >= 0 && int(y[0]) < info.Classes
	}
	for c, v := range y {
		if v > y[class] {
			class = c
		}
	}
	return class, true
}

// className is what people call a class.
func className(info dataset.Info, y []float32) string {
	c, ok := classOf(info, y)
	switch {
	case !ok:
		return fmt.Sprint(y)
	case len(info.ClassNames) > 0:
		return info.ClassNames[c]
	}
	return fmt.Sprint(c)
}

// showPreprocess prints how raw input became x.
func (m *Main) showPreprocess(d dataset.Dataset, n int) error {
	p := d.Info().Preprocess
	switch {
	case p == nil:
	case p.Image != nil:
		fmt.Fprintf(m.Stdout, "\nimages are %d×%d pixels, %s, divided by 255; those of another size are resized, %s\n", p.Image.Height, p.Image.Width, p.Image.Color, p.Image.Filter)
	case p.Text != nil:
		fmt.Fprintf(m.Stdout, "\ntexts become rows of %d ids below %d\n", p.Text.MaxLen, p.Text.Vocabulary())
		return m.showTexts(d, n)
	case p.Table != nil:
		w := tabwriter.NewWriter(m.Stdout, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "\nCOLUMN\tBECOMES")
		for _, c := range p.Table.Columns {
			if len(c.Names) > 0 {
				fmt.Fprintf(w, "%s\tone of %d: %s\n", c.Name, len(c.Names), strings.Join(c.Names[:min(len(c.Names), 8)], ", "))
			} else {
				fmt.Fprintf(w, "%s\t(value - %.6g) / %.6g\n", c.Name, c.Center, c.Scale)
			}
		}
		return w.Flush()
	}
	return nil
}

// showTexts prints the first rows as words.
func (m *Main) showTexts(d dataset.Dataset, n int) error {
	if n == 0 {
		n = 5
	}
	info := d.Info()
	x, y, row := make([]float32, info.InputLen()), make([]float32, info.Target), make([]int32, info.InputLen())
	for i := range min(n, d.Len()) {
		id, err := d.Read(i, x, y)
		if err != nil {
			return fmt.Errorf("sample %d: %w", i, err)
		}
		for j, v := range x {
			row[j] = int32(v)
		}
		fmt.Fprintf(m.Stdout, "  id %d, %s: %s\n", id, className(info, y), info.Preprocess.Text.Decode(row))
	}
	return nil
}

// writeSheet writes images of one shape as a PNG file.
func writeSheet(path string, shape []int, all [][]float32) error {
	img, err := contactSheet(shape, all)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, img), f.Close())
}
