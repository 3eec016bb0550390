package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/chart"
	"github.com/dlnode/dlnode/train"
)

func (m *Main) newPlotCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "plot RUN...",
		Short: "Draw the learning curves of runs",
		Long: "plot draws what the journals of run directories tell, of one run or of several in one\n" +
			"picture: loss, metrics and learning rate over epochs, throughput and nodes over time,\n" +
			"with the nodes that were lost or joined. RUN is a node's directory or that of a launch.\n" +
			"A run that goes on may be drawn too. Pauses between two starts are left out.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return m.plot(args, out) },
	}
	c.Flags().StringVarP(&out, "out", "o", "", "`file` to draw, .svg or .png; without an ending both\n(default curves in RUN; with several runs, here)")
	return c
}

func (m *Main) plot(dirs []string, out string) error {
	paths, err := pictures(dirs, out)
	if err != nil {
		return err
	}
	var runs []*chart.Run
	for _, dir := range dirs {
		r, err := chart.ReadRun(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return exit(codeData, fmt.Errorf("plot: %w", err))
		}
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		if r.Broken > 0 {
			fmt.Fprintf(m.Stderr, "dlnode: %s: %d lines of its journals cannot be read, and are left out\n", dir, r.Broken)
		}
		m.tellFlaws(r.Flaws)
		runs = append(runs, r)
	}
	tellApart(runs, dirs)
	if err := drawCurves(runs, paths); err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	for _, path := range paths {
		fmt.Fprintln(m.Stdout, path)
	}
	return nil
}

// maxFlaws is how many lines of journals are told one by one.
const maxFlaws = 8

// tellFlaws says which lines of journals are not as they were written.
func (m *Main) tellFlaws(flaws []train.Flaw) {
	for _, f := range flaws[:min(maxFlaws, len(flaws))] {
		fmt.Fprintf(m.Stderr, "dlnode: %v\n", f)
	}
	if n := len(flaws) - maxFlaws; n > 0 {
		fmt.Fprintf(m.Stderr, "dlnode: and %d more such lines\n", n)
	}
}

// curvesName is the name of a run's picture, without its ending.
const curvesName = "curves"

// pictures returns the files to draw.
func pictures(dirs []string, out string) (paths []string, err error) {
	ext := filepath.Ext(out)
	switch {
	case slices.Contains(chart.Formats, ext):
		return []string{out}, nil
	case ext != "" && ext != ".":
		return nil, usage("--out: no way to draw a %q (want .svg, .png, or no ending for both)", ext)
	case out == "" && len(dirs) == 1:
		out = filepath.Join(dirs[0], curvesName)
	case out == "":
		out = curvesName
	}
	for _, ext := range chart.Formats {
		paths = append(paths, out+ext)
	}
	return paths, nil
}

// tellApart gives runs whose directories have one name their whole paths.
func tellApart(runs []*chart.Run, dirs []string) {
	count := map[string]int{}
	for _, r := range runs {
		count[r.Name]++
	}
	for i, r := range runs {
		if count[r.Name] > 1 || strings.Trim(r.Name, ".") == "" {
			r.Name = dirs[i]
		}
	}
}

func drawCurves(runs []*chart.Run, paths []string) error {
	p, err := chart.Curves(runs)
	if err != nil {
		return err
	}
	for _, path := range paths {
		err = errors.Join(err, p.Save(path))
	}
	return err
}

// leaveCurves draws the curves of a run that has ended into its directory. A
// picture is worth no run: a failure is told, and that is all.
func (m *Main) leaveCurves(dir string) {
	r, err := chart.ReadRun(dir)
	if err == nil {
		paths, _ := pictures([]string{dir}, "") // which knows no error without --out
		err = drawCurves([]*chart.Run{r}, paths)
	}
	if err != nil {
		fmt.Fprintf(m.Stderr, "dlnode: the learning curves are not drawn: %v\n", err)
	}
}
