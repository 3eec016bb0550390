package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
)

// Sweep says what to measure: each kind at each size in each world.
type Sweep struct {
	Worlds []int   // numbers of ranks, 2 or more
	Sizes  []int64 // of the float32 vector, in bytes; multiples of 4
	Kinds  []Kind
	Time   time.Duration // of one kind at one size, in all rounds together
	Rounds int           // turns that each kind has
	TLS    bool          // of the groups; raw rings are always in the clear
	Local  rpc.Transport // the quickest that the groups may take within a machine
	Rate   float64       // of the links, in bit/s; 0 is not known

	Progress func(text string) // is told what is measured now
}

// Row is what was measured of one kind at one size in one world.
//
// Ranks that do op after op may be ahead of each other by part of one, the more so the
// less an op binds them: a rank that is behind finds all that it needs there, and takes no
// time. So p10 may be far below what anyone could wait for, and of small vectors the mean,
// which is all the time by all the ops, is the one to go by.
//
// With s the bytes of the vector (4 for each element, whatever is sent), t the mean
// and n the ranks, the algorithm bandwidth is s/t and the bus bandwidth s/t·2(n−1)/n,
// as nccl-tests define them. A GB is 10^9 bytes.
type Row struct {
	World      int     `json:"world"`
	Bytes      int64   `json:"bytes"`
	Kind       Kind    `json:"kind"`
	Over       string  `json:"over"` // what the links are, as rpc.Transport calls it; of several, all
	Ops        int     `json:"ops"`
	MeanUS     float64 `json:"mean_us"` // of rank 0's times, as those that follow
	MedianUS   float64 `json:"median_us"`
	P10US      float64 `json:"p10_us"`
	P90US      float64 `json:"p90_us"`
	AlgBW      float64 `json:"algbw_gb_s"`
	BusBW      float64 `json:"busbw_gb_s"`
	CPUPerGB   float64 `json:"cpu_s_per_gb"`         // of all ranks together, for 10^9 bytes of vectors
	SentBytes  int64   `json:"sent_bytes"`           // payload that a rank sends in an op, on average
	ShareOfTCP float64 `json:"share_of_tcp"`         // of the raw ring's bandwidth; 0 where none was measured
	ShareOfBus float64 `json:"share_of_link"`        // of what the links would take for SentBytes; 0 where their rate is not known
	BoundUS    float64 `json:"link_bound_us"`        // that time
	Spread     float64 `json:"spread_of_rank_times"` // greatest of the ranks' medians by the least
}

// Report is all of a sweep.
type Report struct {
	When    time.Time `json:"when"`
	TLS     bool      `json:"tls"`
	Rate    float64   `json:"link_bits_per_s"`
	Workers []Worker  `json:"workers"`
	Rows    []Row     `json:"rows"`
}

// How many ops one measurement has.
const (
	leastOps = 5
	mostOps  = 5000
)

// Run measures it all. What was measured before an error is in the report.
func (c *Conductor) Run(ctx context.Context, s Sweep) (*Report, error) {
	r := &Report{When: time.Now(), TLS: s.TLS, Rate: s.Rate, Workers: c.Workers}
	for _, world := range s.Worlds {
		w, err := c.Open(ctx, world, s.TLS, slices.Contains(s.Kinds, Unix), s.Local)
		if err != nil {
			return r, err
		}
		for _, bytes := range s.Sizes {
			s.Progress(fmt.Sprintf("%d ranks, %s", world, Size(bytes)))
			rows, err := w.sizeOf(ctx, &s, bytes)
			if err != nil {
				return r, err
			}
			r.Rows = append(r.Rows, rows...)
		}
		if err := w.Close(ctx); err != nil {
			return r, err
		}
	}
	return r, nil
}

// tally is what a kind's turns have come to.
type tally struct {
	ops   int // of a turn
	times [][]time.Duration
	cpu   time.Duration
	bytes uint64
	over  []rpc.Transport
}

// sizeOf has all kinds take turns at one size.
func (w *World) sizeOf(ctx context.Context, s *Sweep, bytes int64) ([]Row, error) {
	elements := int(bytes / 4)
	tallies := make([]tally, len(s.Kinds))
	for i, kind := range s.Kinds {
		trial, err := w.measure(ctx, measureRequest{Kind: kind, Elements: elements, Warm: 2, Ops: 3})
		if err != nil {
			return nil, err
		}
		tallies[i] = tally{ops: opsFor(s, trial), times: make([][]time.Duration, w.size)}
	}
	for range s.Rounds {
		for i, kind := range s.Kinds {
			t := &tallies[i]
			all, err := w.measure(ctx, measureRequest{Kind: kind, Elements: elements, Warm: 1, Ops: t.ops})
			if err != nil {
				return nil, err
			}
			for rank, m := range all {
				t.times[rank] = append(t.times[rank], m.Times...)
				t.cpu += m.CPU
				t.bytes += m.Bytes
				t.over = append(t.over, m.Over...)
			}
		}
	}
	return w.rows(s, bytes, tallies), nil
}

// opsFor says how many ops a turn has, from what a few have taken.
func opsFor(s *Sweep, trial []measured) int {
	ops := int(s.Time / max(Mean(trial[0].Times), time.Microsecond))
	ops = min(max(ops, leastOps), mostOps)
	return (ops + s.Rounds - 1) / s.Rounds
}

func (w *World) rows(s *Sweep, bytes int64, tallies []tally) (rows []Row) {
	var tcp float64
	for i, kind := range s.Kinds {
		row := w.row(s, bytes, kind, &tallies[i])
		if kind == TCP {
			tcp = row.AlgBW
		}
		rows = append(rows, row)
	}
	for i := range rows {
		rows[i].ShareOfTCP = ratio(rows[i].AlgBW, tcp)
	}
	return rows
}

func (w *World) row(s *Sweep, bytes int64, kind Kind, t *tally) Row {
	var medians []time.Duration
	for _, times := range t.times[1:] {
		medians = append(medians, QuantilesOf(times).Median)
	}
	q := QuantilesOf(t.times[0])
	medians = append(medians, q.Median)
	ops := len(t.times[0])
	mean := Mean(t.times[0])
	row := Row{
		World: w.size, Bytes: bytes, Kind: kind, Over: overCell(kind, t.over), Ops: ops,
		MeanUS: micros(mean), MedianUS: micros(q.Median), P10US: micros(q.P10), P90US: micros(q.P90),
		AlgBW: AlgorithmBandwidth(bytes, mean), BusBW: BusBandwidth(bytes, mean, w.size),
		CPUPerGB:  ratio(t.cpu.Seconds(), float64(bytes)*float64(ops)/1e9),
		SentBytes: int64(t.bytes / uint64(ops*w.size)),
		Spread:    ratio(float64(slices.Max(medians)), float64(slices.Min(medians))),
	}
	row.BoundUS = ratio(float64(row.SentBytes)*8*1e6, s.Rate)
	row.ShareOfBus = ratio(row.BoundUS, row.MeanUS)
	return row
}

// overCell lists the transports of a kind's links.
func overCell(kind Kind, links []rpc.Transport) string {
	if len(links) == 0 {
		return string(kind) // bare sockets
	}
	slices.Sort(links)
	var names []string
	for _, t := range slices.Compact(links) {
		names = append(names, t.String())
	}
	return strings.Join(names, ", ")
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// WriteTable writes a report for people.
func (r *Report) WriteTable(out io.Writer) error {
	head := []string{"ranks", "size", "what", "over", "ops", "mean", "median", "p10", "p90", "algbw GB/s", "busbw GB/s", "CPU s/GB", "sent", "of TCP"}
	if r.Rate > 0 {
		head = append(head, "of link")
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join(head, "\t")+"\t")
	for _, row := range r.Rows {
		cells := []string{
			fmt.Sprint(row.World), Size(row.Bytes), string(row.Kind), row.Over, fmt.Sprint(row.Ops), timeCell(row.MeanUS), timeCell(row.MedianUS), timeCell(row.P10US), timeCell(row.P90US),
			fmt.Sprintf("%.3f", row.AlgBW), fmt.Sprintf("%.3f", row.BusBW), fmt.Sprintf("%.2f", row.CPUPerGB), Size(row.SentBytes), share(row.ShareOfTCP),
		}
		if r.Rate > 0 {
			cells = append(cells, share(row.ShareOfBus))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	return t.Flush()
}

// timeCell writes microseconds in the unit that suits them.
func timeCell(us float64) string {
	if us < 1000 {
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.2f ms", us/1e3)
}

// share writes a part of something, "-" where it is not known.
func share(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*x)
}

// units of sizes, the greatest first.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// Size writes a number of bytes as people say it.
func Size(bytes int64) string {
	for _, u := range units {
		switch {
		case bytes >= u.bytes && bytes%u.bytes == 0:
			return fmt.Sprintf("%d %s", bytes/u.bytes, u.name)
		case bytes >= u.bytes:
			return fmt.Sprintf("%.1f %s", float64(bytes)/float64(u.bytes), u.name)
		}
	}
	return "0 B"
}

// ParseSize reads what Size writes, a space less, and plain numbers of bytes.
func ParseSize(text string) (int64, error) {
	unit, number := int64(1), strings.TrimSpace(text)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			unit, number = u.bytes, strings.TrimSpace(n)
			break
		}
	}
	var n int64
	if _, err := fmt.Sscan(number, &n); err != nil || fmt.Sprint(n) != number || n < 1 || n > (1<<40)/unit {
		return 0, fmt.Errorf("%q is no size (want bytes, or KiB, MiB or GiB, as in 64KiB)", text)
	}
	return n * unit, nil
}
