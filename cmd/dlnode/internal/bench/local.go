package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
)

// Ready is the line of JSON that a worker writes once it listens.
type Ready struct {
	Addr string `json:"addr"`
}

// LocalConfig describes workers that are processes of this machine.
type LocalConfig struct {
	Program string   // this program; it is run as "Program bench worker ..."
	Env     []string // as "key=value", on top of our own
	Workers int
	Threads int // of each
}

// Local runs f with workers of this machine, which are gone when it returns. One that
// dies meanwhile ends f's context, and is the error.
func Local(ctx context.Context, cfg LocalConfig, f func(ctx context.Context, workers []Worker) error) (err error) {
	dir, err := os.MkdirTemp("", "dlnode-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	var names []string
	for i := range cfg.Workers {
		names = append(names, "worker-"+strconv.Itoa(i+1))
	}
	type hello struct {
		name string
		line []byte
	}
	ready := make(chan hello, cfg.Workers)
	over := make(chan struct{}) // nobody listens to ready any more
	s, err := supervise.Start(supervise.Config{
		LogDir: dir,
		Command: func(string, int) supervise.Command {
			return supervise.Command{Env: append(supervise.Share(cfg.Workers, cfg.Threads), cfg.Env...), Argv: []string{
				cfg.Program, "bench", "worker", "--bind", "127.0.0.1:0", "--threads", strconv.Itoa(cfg.Threads), "--supervised",
			}}
		},
		Line: func(id string, line []byte) {
			select {
			case ready <- hello{id, bytes.Clone(line)}:
			case <-over:
			}
		},
		Event: func(e supervise.Event) {
			if e.Kind == supervise.Exited {
				fail(&diedError{e, lastLine(filepath.Join(dir, e.ID+".log"))})
			}
		},
	}, names...)
	if err != nil {
		return err
	}
	defer s.Close()
	defer close(over)
	workers := make([]Worker, 0, len(names))
	at := map[string]string{}
	for range names {
		select {
		case h := <-ready:
			var r Ready
			if err := json.Unmarshal(h.line, &r); err != nil {
				return fmt.Errorf("%s says %q: %w", h.name, h.line, err)
			}
			at[h.name] = r.Addr
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for _, name := range names {
		workers = append(workers, Worker{Name: name, Addr: at[name]})
	}
	err = f(ctx, workers)
	if died := (*diedError)(nil); err != nil && errors.As(context.Cause(ctx), &died) {
		return died // all that f had to say comes from that
	}
	return err
}

// diedError says how a worker of this machine ended.
type diedError struct {
	event supervise.Event
	last  string // line of its log
}

func (e *diedError) Error() string {
	text := fmt.Sprintf("%s %s", e.event.ID, e.event.Exit)
	if e.last != "" {
		text += ": " + e.last
	}
	return text
}

// lastLine is the last line of a log that there may be.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}
