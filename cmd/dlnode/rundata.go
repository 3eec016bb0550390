package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/cmd/dlnode/internal/fleet"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
	"github.com/dlnode/dlnode/train"
)

// dataFlags say where a node has its data from, which changes nothing of what is
// computed.
type dataFlags struct {
	where string // "", fromPeers, or where the data lie packed
	cache size   // of what comes from elsewhere; 0: peersCache from peers, all of it from a web server
}

const (
	fromPeers  = "peers"
	peersCache = 16 << 30
)

// add makes flags of f; peers tells what the data of the peers are.
func (f *dataFlags) add(c *cobra.Command, peers string) {
	fl := c.Flags()
	fl.StringVar(&f.where, "data", "", "where the data are if not where the job says: a `directory` or URL of what was packed, or \"peers\", "+peers)
	fl.Var(&f.cache, "data-cache", "how much of data from peers or a URL a node keeps, in its run directory, such as 2GiB (default 16GiB from peers, all from a URL)")
}

// env completes what opening data needs, for a node whose run directory is dir.
func (f *dataFlags) env(env dataset.Env, dir string) dataset.Env {
	env.KeepDir, env.KeepBytes = filepath.Join(dir, "data"), int64(f.cache)
	switch {
	case f.where == fromPeers && f.cache == 0:
		env.KeepBytes = peersCache
	case f.where != fromPeers:
		env.Packed = f.where
	}
	return env
}

// argsOf are the flags of a node that launch starts. Somebody must have the data
// that the others get.
func (f *dataFlags) argsOf(id string) (all []string) {
	if f.where == fromPeers && id == fleet.NodeID(1) {
		return nil
	}
	if f.where != "" {
		all = append(all, "--data", f.where)
	}
	if f.cache != 0 {
		all = append(all, "--data-cache", f.cache.String())
	}
	return all
}

// size is a flag: a number of bytes.
type size int64

var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// Set is for the flag.
func (s *size) Set(text string) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n*u.bytes >= 1 && n*u.bytes < math.MaxInt64) {
			break
		}
		*s = size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not allowed (want a number and a unit, such as 500MB or 2GiB)", text)
}

// String is for the flag.
func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*s), 10) + "B"
}

// Type is for the flag.
func (s *size) Type() string { return "size" }

// runTask gives a node its task, or what it takes to make one of others' data.
func (m *Main) runTask(ctx context.Context, j *job.Job, f runFlags, cfg *train.Config) (err error) {
	env := f.data.env(m.dataEnv(), cfg.Dir)
	from, err := forkFrom(f.fork)
	if err != nil {
		return err
	}
	if f.data.where != fromPeers {
		cfg.Task, err = m.task(ctx, j, from, env)
		if f.data.where == "" && dataset.Missing(err) {
			err = exit(codeData, fmt.Errorf("%w (with --data peers they come from nodes that have them)", err))
		}
		return err
	}
	spec, ok := j.Data.(dataset.Spec)
	if !ok {
		return usage("--data peers: %T is not a data set of package dataset", j.Data)
	}
	cfg.FromPeers = &train.FromPeers{
		Job: j, Kept: dataset.KeptFromPeers(env.KeepDir, spec),
		Open: func(ctx context.Context, others dataset.Source) (*train.Task, error) {
			env := env
			env.Peers = others
			return m.task(ctx, j, from, env)
		},
	}
	return nil
}

// forkFrom loads the checkpoint that a run starts from, nil if there is none. It
// must be one checkpoint, not a directory of some: all nodes, and all restarts,
// have to start from the same.
func forkFrom(fork string) (*checkpoint.Snapshot, error) {
	if fork == "" {
		return nil, nil
	}
	store, err := checkpoint.Open(checkpoint.OS(), filepath.Dir(fork))
	if err != nil {
		return nil, exit(codeData, err)
	}
	snap, err := store.Load(fork)
	return snap, exit(codeData, err)
}

// task opens the data of a job and builds its model, from the state of another
// run's checkpoint unless that is nil. That they do not fit together is the job's
// fault.
func (m *Main) task(ctx context.Context, j *job.Job, from *checkpoint.Snapshot, env dataset.Env) (*train.Task, error) {
	data, test, err := m.openData(ctx, j, env)
	if err != nil {
		return nil, err
	}
	if from == nil {
		t, err := train.NewTask(j, data, test)
		return t, exit(codeUsage, err)
	}
	t, err := train.Fork(j, data, test, from)
	return t, exit(codeUsage, err)
}
