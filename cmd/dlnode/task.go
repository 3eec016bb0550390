package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// openData opens a job's data, fetching it with a word on Stderr if need be. The
// error carries its exit code.
func (m *Main) openData(ctx context.Context, j *job.Job, env dataset.Env) (data, test dataset.Dataset, err error) {
	meter := newFetchMeter(m.Stderr)
	defer meter.end()
	env.Progress = meter.show
	data, test, err = train.OpenData(ctx, j, env)
	return data, test, dataError(ctx, err)
}

// openTask is task for who trains nothing.
func (m *Main) openTask(ctx context.Context, j *job.Job) (*train.Task, error) {
	return m.task(ctx, j, nil, m.dataEnv())
}

// dataError gives an error in reading data its exit code, unless it only says that
// the user has interrupted it.
func dataError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return exit(codeData, err)
}

// interruptible returns a context that Ctrl-C and SIGTERM end, so that what is
// half written is removed. A second one kills, once the first has been seen.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
