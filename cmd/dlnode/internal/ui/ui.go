// Package ui shows a training run on a terminal: events as lines that scroll
// away, and below them one live line with a bar that says how far it is.
//
//	node-1 (coordinator) lost at step 412: stream reset; 3 nodes go on
//	epoch 2/5 ━━━━━━━╸──────── 812/2110  loss 0.2341  18.3k samples/s  3 nodes  ETA 12s
//
// The end of each epoch leaves a line behind. Where the output is no terminal (a file, a pipe, a CI log) there is nothing
// to redraw: the same facts come as plain lines, one every few seconds.
//
// What is written is decided by a [Screen], a value that knows neither clock
// nor file: time and terminal width are arguments, bytes are the result. The
// [Display] is its driver: it owns the writer, asks the terminal for its width
// and redraws while nothing happens.
package ui

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is a named number, such as {"val_accuracy", 0.9712}.
type Value struct {
	Name  string
	Value float64
}

// Progress is where a run is. Fields that are zero are not shown.
type Progress struct {
	Epoch, Epochs int     // the epoch at work, from 1, and how many there are
	Step, Steps   uint64  // steps done of the whole run, and how many there are
	Values        []Value // losses and metrics, the most interesting first
	Samples       uint64  // trained on by this process' view of the run so far; its growth is the rate
	World         int     // nodes at work
	Note          string  // what is waited for, such as "waiting for 2 more nodes"
}

// Line renders progress within width columns: the parts that fit, in the order
// of reading, and a bar that takes what is left. rate is in samples per second
// and eta what remains; 0 hides either.
func Line(p Progress, rate float64, eta time.Duration, width int, ascii bool) string {
	parts := partsOf(p, rate, eta)
	if p.Steps > 0 {
		parts = slices.Insert(parts, 1, part{strings.Repeat(" ", barMin), barRank})
	}
	for len(parts) > 0 && taken(parts) > width {
		parts = drop(parts)
	}
	for i := range parts {
		if parts[i].rank == barRank {
			columns := min(barMin+width-taken(parts), barMax)
			parts[i].text = Bar(float64(p.Step)/float64(p.Steps), columns, ascii)
		}
	}
	return join(parts)
}

// part is one piece of the line. Of those that do not fit, the one of the
// highest rank goes first.
type part struct {
	text string
	rank int
}

const (
	gap     = 2  // columns between two parts
	barMin  = 6  // columns of the shortest bar worth drawing
	barMax  = 40 // and of the longest
	barRank = 6
)

// partsOf are the parts without the bar, in the order of reading.
func partsOf(p Progress, rate float64, eta time.Duration) []part {
	parts := []part{{epochText(p), 1}}
	add := func(rank int, text string) {
		if text != "" {
			parts = append(parts, part{text, rank})
		}
	}
	add(2, stepText(p))
	add(3, p.Note)
	for i, v := range p.Values {
		rank := 4
		if i > 0 {
			rank = 8 + i
		}
		add(rank, v.Name+" "+Number(v.Value))
	}
	add(8, rateText(rate))
	add(7, worldText(p.World))
	add(5, etaText(eta))
	return parts
}

// taken is the width of the parts, joined, without a bar.
func taken(parts []part) int {
	n := -gap
	for _, p := range parts {
		n += len([]rune(p.text)) + gap
	}
	return max(n, 0)
}

// drop removes the least important part.
func drop(parts []part) []part {
	worst := 0
	for i, p := range parts {
		if p.rank >= parts[worst].rank {
			worst = i
		}
	}
	return append(parts[:worst:worst], parts[worst+1:]...)
}

func join(parts []part) string {
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.text
	}
	return strings.Join(texts, strings.Repeat(" ", gap))
}

// Bar draws a fraction of 0 to 1 in so many columns, to half a column.
func Bar(fraction float64, columns int, ascii bool) string {
	full, half, rest := "━", "╸", "─"
	if ascii {
		full, half, rest = "=", ">", "."
	}
	halves := int(min(max(fraction, 0), 1) * float64(2*columns))
	bar := strings.Repeat(full, halves/2)
	if halves%2 == 1 {
		bar += half
	}
	return bar + strings.Repeat(rest, columns-halves/2-halves%2)
}

func epochText(p Progress) string {
	if p.Epochs == 0 {
		return "starting"
	}
	return fmt.Sprintf("epoch %d/%d", p.Epoch, p.Epochs)
}

// stepText keeps its width while steps are counted, so that nothing behind it
// dances.
func stepText(p Progress) string {
	if p.Steps == 0 {
		return ""
	}
	total := strconv.FormatUint(p.Steps, 10)
	return fmt.Sprintf("%*d/%s", len(total), p.Step, total)
}

func rateText(rate float64) string {
	if !(rate > 0) {
		return ""
	}
	return SI(rate) + " samples/s"
}

func worldText(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

func etaText(eta time.Duration) string {
	if eta <= 0 {
		return ""
	}
	return "ETA " + Span(eta)
}

// Number writes a metric in the width that carries its meaning: four digits
// after the point, and an exponent where these would say nothing.
func Number(x float64) string {
	if a := math.Abs(x); a != 0 && (a < 1e-3 || a >= 1e5) {
		return strconv.FormatFloat(x, 'e', 3, 64)
	}
	return strconv.FormatFloat(x, 'f', 4, 64)
}

// SI writes a rate in three digits: "812", "18.3k", "1.25M".
func SI(x float64) string {
	unit := ""
	for _, u := range []string{"k", "M", "G", "T"} {
		if x < 999.5 {
			break
		}
		x, unit = x/1000, u
	}
	digits := 0
	switch {
	case unit == "" && x >= 9.95:
	case x < 9.995:
		digits = 2
	case x < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(x, 'f', digits, 64) + unit
}

// Span writes a duration in its two largest units: "12s", "3m05s", "2h07m".
func Span(d time.Duration) string {
	switch s := int64((d + time.Second/2) / time.Second); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}
