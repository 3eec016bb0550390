// Command dlnode trains neural networks on any set of machines, any of which may
// die: the model comes out byte for byte as one machine alone would have made it.
//
//	dlnode demo                          the whole story in a minute, on this machine
//	dlnode launch -n 4 job.yaml          train with four local processes
//	dlnode run --join host:port job.yaml be one node of a cluster
//	dlnode status --addr host:port       ask a node how things stand
//	dlnode job show job.yaml             a job file with every default written out
//	dlnode data list | get mnist         data sets
//	dlnode checkpoint ls | verify DIR    what was saved, and whether it is whole
//	dlnode eval, dlnode predict          a checkpoint at work, on its data or on raw files
//	dlnode version                       which program this is, and its kernels here
//	dlnode plot RUN...                   learning curves as a picture
//	dlnode replay, dlnode audit          steps of a run computed once more, alone, and compared
//	dlnode explain RUN                   what failed in a run, and what it cost
//	dlnode bench allreduce | link | step how good the network is, and where a step's time goes
//
// This package is flags, wiring and words for people. It is the only one that
// reads the environment and the only one that ends the process:
//
//	DLNODE_DATA    directory of fetched data sets, instead of the user's cache
//	DLNODE_SECRET  key of the gossip, instead of a file
//	DLNODE_CPU     kernels to use (avx512, avx2, generic), instead of the best; same bits
//
// Its exit codes are a contract with whatever restarts it:
//
//	0  done: finished, or left in order
//	1  failed, in a way that trying again may cure
//	2  used wrongly: flags, or a job file that can't be
//	3  data or a checkpoint missing or damaged
//	4  does not belong here: another job, other data
//	5  the run itself failed, on all nodes alike: not a number, or replicas that differ and nobody can know who is right
//	6  this machine is at fault: others have proved it, again and again
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/job"
)

// The exit codes. 2 to 6 are hopeless: a restart changes nothing.
const (
	codeDone     = 0
	codeFailed   = 1
	codeUsage    = 2
	codeData     = 3
	codeForeign  = 4
	codeFatal    = 5
	codeExpelled = 6
)

func main() {
	os.Exit(NewMain().Run(context.Background(), os.Args[1:]))
}

// Main is the program with its surroundings in fields, so that a test runs what
// production runs.
type Main struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Env            []string // "KEY=value", as os.Environ gives it
}

// NewMain returns the program in the surroundings of this process.
func NewMain() *Main {
	return &Main{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Environ()}
}

// Run does what the arguments (without the program's name) say and returns the
// exit code. Errors have been told on Stderr by then.
func (m *Main) Run(ctx context.Context, args []string) int {
	root := m.newRootCommand()
	started := false
	beforeRun(root, func() error {
		started = true
		return m.prepare()
	})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return codeDone
	}
	if !started { // cobra's own words on arguments and flags
		err = usage("%w\nRun 'dlnode --help' for how it is meant.", err)
	}
	return m.fail(err)
}

// beforeRun puts a function before the RunE of a command and of those below it.
func beforeRun(c *cobra.Command, f func() error) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := f(); err != nil {
				return err
			}
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		beforeRun(sub, f)
	}
}

// prepare checks that this CPU computes as every other, and lets the user
// choose the kernels.
func (m *Main) prepare() error {
	if err := kernel.CheckMode(); err != nil {
		return err
	}
	if name := m.getenv("DLNODE_CPU"); name != "" {
		if err := kernel.Use(name); err != nil {
			return usage("DLNODE_CPU: %w", err)
		}
	}
	return nil
}

// getenv returns the value of an environment variable, "" if it is not set. As
// with a process' own environment the last one counts.
func (m *Main) getenv(key string) string {
	for _, pair := range slices.Backward(m.Env) {
		if value, ok := strings.CutPrefix(pair, key+"="); ok {
			return value
		}
	}
	return ""
}

// dataEnv is what opening data sets needs. Relative paths in a job file start
// at the working directory.
func (m *Main) dataEnv() dataset.Env {
	return dataset.Env{CacheDir: m.getenv("DLNODE_DATA")}
}

// exitError is an error with the exit code that it means.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// exit gives an error an exit code, unless it is nil or has one.
func exit(code int, err error) error {
	if err == nil || errors.As(err, new(*exitError)) {
		return err
	}
	return &exitError{code, err}
}

// usage is an error in how the program was called.
func usage(format string, args ...any) error {
	return exit(codeUsage, fmt.Errorf(format, args...))
}

// fail tells an error and returns its exit code. Problems of a job file start
// with file and line, as editors like it; all else with the program's name.
func (m *Main) fail(err error) int {
	prefix := "dlnode: "
	if errors.As(err, new(*job.Error)) {
		prefix = ""
	}
	fmt.Fprintf(m.Stderr, "%s%v\n", prefix, err)
	if e := (*exitError)(nil); errors.As(err, &e) {
		return e.code
	}
	return codeFailed
}
