package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/fleet"
	"github.com/dlnode/dlnode/train"
)

// StepConfig says how to measure the steps of a job with one number of nodes.
type StepConfig struct {
	Fleet fleet.Config // to be started, Watch apart; its job must go on for long enough
	Warm  uint64       // steps before the measured ones
	Time  time.Duration
	Ask   func(ctx context.Context, addr string) (*train.Status, error) // a node how things stand
}

// StepRow is where the time of a step goes, in milliseconds, as the nodes themselves
// tell it: the mean over steps, and over nodes.
type StepRow struct {
	Nodes   int     `json:"nodes"`
	Threads int     `json:"threads"` // of each
	Pinned  bool    `json:"pinned"`  // each ran on CPUs of its own
	Steps   uint64  `json:"steps"`   // measured
	Samples float64 `json:"samples_per_s"`
	Step    float64 `json:"step_ms"`
	Compute float64 `json:"compute_ms"` // with Data and Round; with Reduce and Update it is all of Step
	Data    float64 `json:"data_ms"`    // waiting for samples, summed over threads
	Round   float64 `json:"round_ms"`   // likewise
	Reduce  float64 `json:"reduce_ms"`  // the ring, and waiting for the slowest
	Update  float64 `json:"update_ms"`  // and what else is done between two steps
	CPU     float64 `json:"cpu_ms"`     // of the whole process; 0 for unknown
	Allocs  float64 `json:"allocs"`     // objects taken from the heap
	Ahead   string  `json:"ahead"`      // of the first node: when updates are made, and why
	Sent    float64 `json:"sent_bytes"` // payload that a node sends in a step
}

// errStopped ends a fleet that has been measured.
var errStopped = errors.New("measured")

// snapshot is what all nodes told at about one time.
type snapshot struct {
	at  time.Time
	all []*train.Status // by name
}

// Steps starts a fleet, lets it warm up, measures, and has it leave.
func Steps(ctx context.Context, cfg StepConfig) (StepRow, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	news := make(chan train.Progress, 1)
	cfg.Fleet.Watch = func(_ *fleet.Fleet, p train.Progress) {
		select {
		case <-news: // is old
		default:
		}
		news <- p // there is room: nobody else sends
	}
	ended := make(chan error, 1)
	go func() {
		o, err := fleet.Run(ctx, cfg.Fleet)
		if err == nil && o.Finished {
			err = fmt.Errorf("the job was done after %d steps, before it was measured", o.Result.Step)
		}
		ended <- err
	}()
	var first *snapshot
	for {
		select {
		case err := <-ended:
			if err == nil { // all left in order, as the user wished
				err = errors.New("interrupted")
			}
			return StepRow{}, err
		case p := <-news:
			if p.World != cfg.Fleet.Nodes || p.Step < cfg.Warm || first != nil && time.Since(first.at) < cfg.Time {
				continue
			}
		}
		s, err := takeStock(ctx, cfg)
		if err == nil && first == nil {
			first = s
			continue
		}
		stop(errStopped)
		if left := <-ended; err == nil && left != nil {
			err = left
		}
		if err != nil {
			return StepRow{}, err
		}
		return stepRow(cfg, first, s)
	}
}

// takeStock asks all nodes.
func takeStock(ctx context.Context, cfg StepConfig) (*snapshot, error) {
	r, err := fleet.ReadRoster(cfg.Fleet.Dir)
	if err != nil {
		return nil, err
	}
	s := &snapshot{at: time.Now()}
	for _, n := range r.Nodes {
		status, err := cfg.Ask(ctx, n.GRPC)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Node, err)
		}
		s.all = append(s.all, status)
	}
	if len(s.all) != cfg.Fleet.Nodes {
		return nil, fmt.Errorf("%d of %d nodes run", len(s.all), cfg.Fleet.Nodes)
	}
	return s, nil
}

// stepRow is what happened between two snapshots. Nodes tell means since they began, so
// that sums can be subtracted.
func stepRow(cfg StepConfig, a, b *snapshot) (StepRow, error) {
	row := StepRow{Nodes: cfg.Fleet.Nodes, Threads: cfg.Fleet.Threads, Pinned: cfg.Fleet.Pinned()}
	n := float64(len(b.all))
	for i := range b.all {
		was, is := a.all[i], b.all[i]
		if was.Incarnation != is.Incarnation || is.Counters.Views != was.Counters.Views || is.Progress.Step <= was.Progress.Step {
			return row, fmt.Errorf("%s was disturbed while it was measured", is.Node)
		}
		from, to := float64(was.Progress.Step), float64(is.Progress.Step)
		mean := func(phase func(*train.PhaseMillis) float64) float64 {
			return (phase(&is.Phases)*to - phase(&was.Phases)*from) / (to - from) / n
		}
		row.Compute += mean(func(p *train.PhaseMillis) float64 { return p.Compute })
		row.Data += mean(func(p *train.PhaseMillis) float64 { return p.Data })
		row.Round += mean(func(p *train.PhaseMillis) float64 { return p.Round })
		row.Reduce += mean(func(p *train.PhaseMillis) float64 { return p.Reduce })
		row.Update += mean(func(p *train.PhaseMillis) float64 { return p.Update })
		row.CPU += 1e3 * (is.CPUSeconds - was.CPUSeconds) / (to - from) / n
		row.Allocs += float64(is.Allocated-was.Allocated) / (to - from) / n
		row.Sent += float64(is.Counters.BytesOut-was.Counters.BytesOut) / (to - from) / n
	}
	was, is, took := a.all[0], b.all[0], b.at.Sub(a.at)
	row.Ahead = is.Ahead
	row.Steps = is.Progress.Step - was.Progress.Step
	row.Step = float64(took) / 1e6 / float64(row.Steps)
	row.Samples = float64(is.Progress.Samples-was.Progress.Samples) / took.Seconds()
	return row, nil
}

// StepReport is the steps of one job with several numbers of nodes.
type StepReport struct {
	When  time.Time `json:"when"`
	Job   string    `json:"job"`
	Batch int       `json:"batch"`
	Rows  []StepRow `json:"rows"`  // the medians of the turns, by samples per second
	Turns []StepRow `json:"turns"` // all, as they were taken
}

// Add takes a turn in.
func (r *StepReport) Add(row StepRow) { r.Turns = append(r.Turns, row) }

// Settle chooses the median turn for each number of nodes, in the order of the first turns.
func (r *StepReport) Settle() {
	byNodes := map[int][]StepRow{}
	var order []int
	for _, t := range r.Turns {
		if byNodes[t.Nodes] == nil {
			order = append(order, t.Nodes)
		}
		byNodes[t.Nodes] = append(byNodes[t.Nodes], t)
	}
	for _, n := range order {
		turns := slices.SortedFunc(slices.Values(byNodes[n]), func(a, b StepRow) int { return cmp.Compare(a.Samples, b.Samples) })
		r.Rows = append(r.Rows, turns[len(turns)/2])
	}
}

// WriteTable writes a report for people.
func (r *StepReport) WriteTable(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join([]string{"nodes", "threads", "samples/s", "speedup", "step ms", "compute", "data", "round", "reduce", "update", "cpu", "allocs", "sent"}, "\t")+"\t")
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%d\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%s\t\n", row.Nodes, row.Threads, row.Samples,
			ratio(row.Samples, r.Rows[0].Samples), row.Step, row.Compute, row.Data, row.Round, row.Reduce, row.Update, row.CPU, row.Allocs, Size(int64(row.Sent)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, row := range r.Rows {
		if row.Nodes > 1 {
			if _, err := fmt.Fprintf(out, "%d nodes: %s\n", row.Nodes, row.Ahead); err != nil {
				return err
			}
		}
	}
	return nil
}
