// Command scaling predicts how long steps of dlnode take among many nodes, and what they send.
//
//	cd bench
//	go run ./scaling -table                  # the tables of docs/scaling.md
//	go run ./scaling -plot ../docs/img       # its pictures
//	go run ./scaling -check loopback.json    # predictions beside what 'dlnode bench allreduce --json' measured
//
// What an all-reduce takes is counted by package allreduce itself ([allreduce.WorkOf]), by which dlnode
// chooses among its algorithms; this program adds headers, packing, computing and what is not built yet.
// More files after the first, comma-separated, are predicted by the fit to the first.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// pngs has PNG files drawn beside the SVG ones.
var pngs = flag.Bool("png", false, "draw PNG files as well, to look at")

func main() {
	table := flag.Bool("table", false, "write the tables")
	plot := flag.String("plot", "", "a `directory` to draw into")
	files := flag.String("check", "", "`files` of 'dlnode bench allreduce --json', comma-separated; the first is fitted to")
	cores := flag.Int("cores", 2, "CPUs of the machine that the files are from, which its ranks share")
	flag.Parse()
	if err := run(*table, *plot, *files, *cores); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func run(table bool, plot, files string, cores int) error {
	if !table && plot == "" && files == "" || flag.NArg() > 0 {
		return fmt.Errorf("nothing to do, or %q too much (want -table, -plot DIR, -check FILE)", flag.Args())
	}
	if cores < 1 {
		return fmt.Errorf("-cores: %d is no number of CPUs", cores)
	}
	var points []point
	if files != "" {
		f, all, err := check(strings.Split(files, ","), cores)
		if err != nil {
			return err
		}
		writeCheck(os.Stdout, f, all)
		points = all
	}
	if table {
		writeTables(os.Stdout)
	}
	if plot == "" {
		return nil
	}
	return drawAll(plot, points)
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// span writes seconds with three digits.
func span(s float64) string {
	switch {
	case s < 1e-3:
		return fmt.Sprintf("%.3g µs", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.3g ms", s*1e3)
	case s < 999.5:
		return fmt.Sprintf("%.3g s", s)
	}
	return fmt.Sprintf("%.0f s", s)
}

// size writes bytes with three digits.
func size(b float64) string {
	switch {
	case b < 1e6:
		return fmt.Sprintf("%.3g kB", b/1e3)
	case b < 1e9:
		return fmt.Sprintf("%.3g MB", b/1e6)
	}
	return fmt.Sprintf("%.3g GB", b/1e9)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
