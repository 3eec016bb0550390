package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// train1 is dlnode's turn: train.Fit as anyone calls it, with exact sums,
// digests and checks, stopped when the windows are full.
func train1(t *turn) (*report, error) {
	n := named(t.Net)
	if n == nil {
		return nil, fmt.Errorf("no net is called %q", t.Net)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	begun := time.Now()
	x, y := n.random(t.Samples)
	w := &watch{turn: t, stop: func() { stop(errFull) }, report: report{
		Version: runtime.Version() + " " + kernel.Name(), Data: time.Since(begun).Seconds(),
	}}
	task, err := n.task(t, w, x, y)
	if err != nil {
		return nil, err
	}
	if t.alone() {
		_, err = train.Fit(ctx, task, t.Threads, nil)
	} else {
		err = trainTogether(ctx, task, t)
	}
	if !errors.Is(err, errFull) {
		return nil, cmp.Or(err, errors.New("training ended before its time"))
	}
	w.report.Peak, err = peakMemory()
	return &w.report, err
}

var errFull = errors.New("all windows are full")

// random makes up samples. Inputs lie around 0, as those of photographs that were
// prepared do: around 1/2, most units of a ReLU layer die within a hundred steps.
func (n *net) random(samples int) (x, y []float32) {
	seed := uint64(1)
	draw := func(below int) float32 {
		seed = seed*6364136223846793005 + 1442695040888963407
		if below == 0 {
			return float32(seed>>40)/(1<<23) - 1
		}
		return float32((seed >> 32) * uint64(below) >> 32)
	}
	x, y = make([]float32, samples*n.info.InputLen()), make([]float32, samples*n.info.Target)
	for i := range x {
		x[i] = draw(n.below)
	}
	for i := range y {
		y[i] = draw(n.info.Classes)
	}
	return x, y
}

// task is the net's job over the samples, watched.
func (n *net) task(t *turn, w *watch, x, y []float32) (*train.Task, error) {
	memory, err := dataset.NewMemory(n.info, nil, x, y)
	if err != nil {
		return nil, err
	}
	w.Dataset = memory
	j := job.Default()
	j.Model, j.Loss = n.layers(), n.loss
	j.Batch = job.Batch{Global: t.Batch, Microbatch: t.Micro}
	j.Epochs = math.MaxInt32 // the watch stops it
	return train.NewTask(j, w, nil)
}

// watch is a data set that knows from what is read where training stands: when
// the first sample of a step is read, the step before is done, since a step reads
// nothing before the last one is committed, and all of its samples. Of several nodes
// each reads its share of them: nodes of one speed have equal shares. One that reads
// ahead is ahead by as much in every window.
type watch struct {
	dataset.Dataset
	turn   *turn
	report report
	stop   func()

	read  atomic.Uint64 // samples
	begun time.Time     // of the window
	step  uint64        // in which it began
	until time.Time     // 0 while the first steps warm up
	first moment        // when the first window began
}

// warmUp is how many steps are no part of a window, as in the peer's script.
const warmUp = 5

func (w *watch) Read(i int, x, y []float32) (uint64, error) {
	share := uint64(w.turn.share())
	if n := w.read.Add(1) - 1; n%share == 0 {
		if err := w.done(n / share); err != nil {
			return 0, err
		}
	}
	return w.Dataset.Read(i, x, y)
}

// done notes that so many steps are. One goroutine at a time calls it: the one
// that begins a step.
func (w *watch) done(steps uint64) error {
	now := time.Now()
	switch {
	case steps == 1:
		w.report.First = float64(now.UnixNano()) / 1e9
	case steps == warmUp:
		w.begin(steps, now)
		w.first = moment{now, cpuTime()}
		return w.profile()
	case w.turn.Rank > 0: // rank 0 measures, and needs the others until it has
	case steps > warmUp && now.After(w.until):
		w.report.Rates = append(w.report.Rates, float64((steps-w.step)*uint64(w.turn.Batch))/now.Sub(w.begun).Seconds())
		if len(w.report.Rates) == w.turn.Windows {
			w.report.Busy = (cpuTime() - w.first.cpu).Seconds() / now.Sub(w.first.wall).Seconds()
			pprof.StopCPUProfile()
			w.stop()
		}
		w.begin(steps, now)
	}
	return nil
}

func (w *watch) begin(steps uint64, now time.Time) {
	w.begun, w.step = now, steps
	w.until = now.Add(time.Duration(w.turn.Seconds / float64(w.turn.Windows) * 1e9))
}

func (w *watch) profile() error {
	if w.turn.Profile == "" {
		return nil
	}
	f, err := os.Create(w.turn.Profile)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f)
}

// moment is one by two clocks.
type moment struct {
	wall time.Time
	cpu  time.Duration
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(fmt.Sprintf("training: getrusage: %v", err)) // of oneself: it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakMemory is the most that this process had resident, in bytes.
func peakMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscanf(string(after), "%d kB", &kib); err != nil {
		return 0, fmt.Errorf("/proc/self/status: VmHWM: %w", err)
	}
	return kib << 10, nil
}
