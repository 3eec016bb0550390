package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// print writes the tables.
func (c *config) print(rows []*row, begun time.Time) error {
	fmt.Printf("%s; %s; %s; FMA peak %.0f GFLOP/s a core; medians of %d turns of %.3gs\n\n",
		begun.Format(time.DateOnly), processor(), runtime.Version(), c.peak, c.rounds, c.seconds)
	if err := c.printSpeed(rows); err != nil {
		return err
	}
	c.printCost(rows)
	return nil
}

// names are those of the peers, or their interpreters if nothing was measured.
func (c *config) names(rows []*row) (names []string) {
	for i, python := range c.pythons {
		if len(rows) > 0 {
			python = rows[0].peers[i].name
		}
		names = append(names, python)
	}
	return names
}

// printSpeed writes samples a second, and what share of the multipliers' peak
// that is.
func (c *config) printSpeed(rows []*row) error {
	head := []string{"net", "batch", "threads", "microbatch", "dlnode"}
	head = append(head, c.names(rows)...)
	printHead(append(head, "ratio", "turns' ratios", "CPUs had", "GFLOP/s", "of peak", "the faster torch's switches")...)
	for _, r := range rows {
		flops, err := r.net.flops()
		if err != nil {
			return err
		}
		rate := median(r.ours.rates)
		cells := []string{r.net.about, fmt.Sprint(r.turn.Batch), fmt.Sprint(r.turn.Threads), fmt.Sprint(r.turn.Micro), samples(rate)}
		for _, p := range r.peers {
			cells = append(cells, samples(median(p.rates)))
		}
		speed := rate * flops / 1e9
		cells = append(cells, r.ratio()...)
		cells = append(cells, r.busy())
		cells = append(cells, fmt.Sprintf("%.1f", speed), fmt.Sprintf("%.0f %%", 100*speed/(c.peak*float64(r.turn.Threads))), r.settings())
		printCells(cells)
	}
	fmt.Println()
	return nil
}

// ratio is dlnode's speed by that of the fastest peer: the median of the turns',
// then the least and the greatest.
func (r *row) ratio() []string {
	i := r.peer()
	if i < 0 {
		return []string{"", ""}
	}
	least, greatest := r.ratios[i][0], r.ratios[i][0]
	for _, x := range r.ratios[i] {
		least, greatest = min(least, x), max(greatest, x)
	}
	return []string{fmt.Sprintf("**%.2f**", median(r.ratios[i])), fmt.Sprintf("%.2f–%.2f", least, greatest)}
}

// busy is how many CPUs dlnode and the fastest peer had. Fewer than threads: others
// were on the machine, or threads waited.
func (r *row) busy() string {
	cell := fmt.Sprintf("%.2f", median(r.ours.busy))
	if i := r.peer(); i >= 0 {
		cell += fmt.Sprintf(" / %.2f", median(r.peers[i].busy))
	}
	return cell
}

// printCost writes memory and the time to the first step.
func (c *config) printCost(rows []*row) {
	head := []string{"net", "batch", "threads", "samples MB"}
	for _, what := range []string{"MB", "first step s"} {
		for _, name := range append([]string{"dlnode"}, c.names(rows)...) {
			head = append(head, name+" "+what)
		}
	}
	printHead(head...)
	for _, r := range rows {
		cells := []string{r.net.about, fmt.Sprint(r.turn.Batch), fmt.Sprint(r.turn.Threads), megabytes(r.net.bytes(r.turn.Batch))}
		sides := append([]*side{r.ours}, r.peers...)
		for _, s := range sides {
			cells = append(cells, megabytes(s.peak))
		}
		for _, s := range sides {
			cells = append(cells, fmt.Sprintf("%.2f", median(s.firsts)))
		}
		printCells(cells)
	}
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/1e6) }

// samples writes a rate with three digits or more.
func samples(rate float64) string {
	if rate < 100 {
		return fmt.Sprintf("%.1f", rate)
	}
	return fmt.Sprintf("%.0f", rate)
}

func printHead(titles ...string) {
	printCells(titles)
	rule := make([]string, len(titles))
	for i := range rule {
		rule[i] = "--:"
	}
	rule[0] = "---"
	printCells(rule)
}

func printCells(cells []string) { fmt.Println("| " + strings.Join(cells, " | ") + " |") }

// processor is the CPU's name as Linux tells it.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	_, after, _ := strings.Cut(string(info), "model name")
	name, _, _ := strings.Cut(after, "\n")
	return cmp.Or(strings.Trim(name, " \t:"), runtime.GOARCH)
}
