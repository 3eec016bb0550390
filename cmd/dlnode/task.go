package main

import (
	"context"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// openTask opens a job's data, fetching it with a word on Stderr if need be, and
// builds its model. The error carries the exit code that its cause deserves.
func (m *Main) openTask(ctx context.Context, j *job.Job) (*train.Task, error) {
	meter := newFetchMeter(m.Stderr)
	defer meter.end()
	env := m.dataEnv()
	env.Progress = meter.show
	data, test, err := train.OpenData(ctx, j, env)
	if err != nil {
		return nil, exit(codeData, err)
	}
	return m.newTask(j, data, test)
}

// newTask builds a job's model for its data. What does not fit is the job's fault.
func (m *Main) newTask(j *job.Job, data, test dataset.Dataset) (*train.Task, error) {
	t, err := train.NewTask(j, data, test)
	return t, exit(codeUsage, err)
}
