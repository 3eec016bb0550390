package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// key names what was measured.
type key struct {
	world int
	bytes int64
	kind  string // train, bare, tcp, gloo, MPI
}

// cell is what one turn came to.
type cell struct {
	mean float64 // seconds: all the time by all the ops; single ones deceive where ranks run ahead
	cpu  float64 // seconds for 10^9 bytes, of all ranks
	sent int64   // payload of a rank in an op
	link float64 // share of it that was used
}

// table is all turns.
type table struct {
	c     *config
	keys  []key // in the order in which they came
	cells map[key][]cell
	notes []string // who took part
}

func (t *table) add(k key, c cell) {
	if t.cells[k] == nil {
		t.keys = append(t.keys, k)
	}
	t.cells[k] = append(t.cells[k], c)
}

func (t *table) note(text string) {
	if !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

// kinds lists what was measured, in the order in which it came.
func (t *table) kinds() (all []string) {
	for _, k := range t.keys {
		if !slices.Contains(all, k.kind) {
			all = append(all, k.kind)
		}
	}
	return all
}

// of picks a figure of each turn.
func (t *table) of(k key, figure func(cell) float64) (all []float64) {
	for _, c := range t.cells[k] {
		all = append(all, figure(c))
	}
	return all
}

func (t *table) medianOf(k key, figure func(cell) float64) float64 {
	return median(t.of(k, figure))
}

func took(c cell) float64 { return c.mean }

// print writes the table in Markdown.
func (t *table) print() error {
	kinds := t.kinds()
	links := "processes of one machine"
	if t.c.rate != "" {
		links = "links of " + t.c.rate + "bit/s"
	}
	_, err := fmt.Printf("%s; %s, %d CPUs; %s; %s; medians of %d turns of %gs\n\n", time.Now().Format(time.DateOnly), processor(), runtime.NumCPU(), strings.Join(t.notes, "; "), links, t.c.rounds, t.c.seconds)
	head := []string{"ranks", "size"}
	for _, k := range kinds {
		head = append(head, k+" ms")
	}
	for _, k := range []string{"gloo", "MPI", "train, TLS", "tcp"} {
		if slices.Contains(kinds, k) {
			head = append(head, k+"/train")
		}
	}
	head = append(head, "GB/s alg, bus")
	for _, k := range kinds {
		if k != "tcp" && k != "unix" {
			head = append(head, k+" CPU s/GB")
		}
	}
	if head = append(head, "sent"); t.c.rate != "" {
		head = append(head, "of link")
	}
	row(head)
	row(rule(len(head)))
	for _, k := range t.keys {
		if k.kind == "train" {
			row(t.row(k, kinds))
		}
	}
	return err
}

// row is what was measured of all kinds in one world at one size.
func (t *table) row(k key, kinds []string) []string {
	cells := []string{fmt.Sprint(k.world), size(k.bytes)}
	with := func(kind string) key { return key{k.world, k.bytes, kind} }
	for _, kind := range kinds {
		cells = append(cells, fmt.Sprintf("%.3g", 1e3*t.medianOf(with(kind), took)))
	}
	mine := t.of(k, took)
	for _, kind := range []string{"gloo", "MPI", "train, TLS", "tcp"} {
		if slices.Contains(kinds, kind) {
			cells = append(cells, ratios(t.of(with(kind), took), mine))
		}
	}
	alg := float64(k.bytes) / 1e9 / median(mine)
	cells = append(cells, fmt.Sprintf("%.3f, %.3f", alg, alg*2*float64(k.world-1)/float64(k.world)))
	for _, kind := range kinds {
		if kind != "tcp" && kind != "unix" {
			cells = append(cells, fmt.Sprintf("%.2f", t.medianOf(with(kind), func(c cell) float64 { return c.cpu })))
		}
	}
	cells = append(cells, fmt.Sprintf("%.2f MB", t.medianOf(k, func(c cell) float64 { return float64(c.sent) / 1e6 })))
	if t.c.rate != "" {
		cells = append(cells, fmt.Sprintf("%.0f %%", 100*t.medianOf(k, func(c cell) float64 { return c.link })))
	}
	return cells
}

// ratios is theirs by ours, above 1 where ours is the faster: the median of the turns', and
// the least and the greatest.
func ratios(theirs, ours []float64) string {
	var all []float64
	for i := range min(len(theirs), len(ours)) {
		all = append(all, theirs[i]/ours[i])
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(all), slices.Min(all), slices.Max(all))
}

// median returns the middle of x, which it leaves as it is; 0 if there is none. Of an even
// number it is between two: with few turns neither side shall gain by a choice.
func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

func mean(x []float64) (sum float64) {
	for _, x := range x {
		sum += x
	}
	return sum / float64(len(x))
}

func size(bytes int64) string {
	switch {
	case bytes%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", bytes>>20)
	case bytes%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d B", bytes)
}

func row(cells []string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

func rule(n int) []string { return slices.Repeat([]string{"--:"}, n) }

// processor is the CPU's name as Linux tells it.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	_, after, _ := strings.Cut(string(info), "model name")
	name, _, _ := strings.Cut(after, "\n")
	return strings.TrimLeft(name, "\t :")
}
