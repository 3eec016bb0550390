//go:build unix

package lives

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/dlnode/dlnode/train"
)

// Command is a process to start. It is to print lines of train.Line, as dlnode run
// does with --events, and to leave when its standard input ends (--supervised).
type Command struct {
	Argv []string
	Env  []string             // as "key=value", on top of our own
	Log  string               // file that standard error is appended to
	Attr *syscall.SysProcAttr // nil: nothing special
}

// Process is one life of a node. Its methods may be called from any goroutine.
type Process struct {
	ID      string
	Started time.Time

	cmd   *exec.Cmd
	stdin io.Closer // the end of the pipe that tells the node we live

	mu      sync.Mutex
	changed chan struct{} // closed at each line, and replaced
	killed  time.Time     // when SIGKILL was sent; zero if it wasn't
	told    Told

	gone chan struct{} // closed once the process has ended
	err  error         // of its end, valid then
	rss  int64         // greatest resident set, bytes, valid then
}

// Told is what a process has told so far.
type Told struct {
	Ready    *train.Ready
	Progress train.Progress // the last
	Events   []train.Event
	Result   *train.Result
}

// Event returns the first line of the story of a kind.
func (t Told) Event(kind string) (e train.Event, ok bool) {
	i := slices.IndexFunc(t.Events, func(e train.Event) bool { return e.Kind == kind })
	if i < 0 {
		return e, false
	}
	return t.Events[i], true
}

// Start starts a process.
func Start(id string, c Command) (*Process, error) {
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env = append(cmd.Environ(), c.Env...)
	cmd.SysProcAttr = c.Attr
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &Process{ID: id, cmd: cmd, stdin: stdin, Started: time.Now(), changed: make(chan struct{}), gone: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	go p.follow(stdout)
	return p, nil
}

// follow reads the lines of a process until it has ended.
func (p *Process) follow(stdout io.Reader) {
	defer close(p.gone)
	in := json.NewDecoder(stdout)
	var bad error
	for {
		var l train.Line
		if err := in.Decode(&l); err != nil {
			if err != io.EOF {
				bad = fmt.Errorf("standard output: %w", err)
			}
			break
		}
		p.take(l)
	}
	_, err := io.Copy(io.Discard, stdout)
	end := p.cmd.Wait()
	if !p.Signaled() { // else it was cut off within a line
		end = errors.Join(bad, err, end)
	}
	p.err = end
	if u, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		p.rss = u.Maxrss * 1024
	}
}

func (p *Process) take(l train.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.Ready != nil:
		p.told.Ready = l.Ready
	case l.Progress != nil:
		p.told.Progress = *l.Progress
	case l.Event != nil:
		p.told.Events = append(p.told.Events, *l.Event)
	case l.Result != nil:
		p.told.Result = l.Result
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Told returns what the process has told so far.
func (p *Process) Told() Told {
	told, _ := p.look()
	return told
}

// look returns what was told, and what is closed when there is more.
func (p *Process) look() (Told, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.told
	t.Events = t.Events[:len(t.Events):len(t.Events)]
	return t, p.changed
}

// Await waits until a condition on what the process has told holds. The error is
// that it ended before, or that ctx did.
func (p *Process) Await(ctx context.Context, holds func(Told) bool) error {
	for {
		told, changed := p.look()
		if holds(told) {
			return nil
		}
		select {
		case <-changed:
		case <-p.gone:
			if !holds(p.Told()) {
				return fmt.Errorf("%s has ended (%w)", p.ID, cmp.Or(p.err, errInOrder))
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", p.ID, ctx.Err())
		}
	}
}

// errInOrder stands for the end of a process that had no error.
var errInOrder = errors.New("in order")

// Kill sends SIGKILL and returns when.
func (p *Process) Kill() (at time.Time, err error) {
	p.mu.Lock()
	at = time.Now()
	p.killed = at
	p.mu.Unlock()
	return at, p.Signal(syscall.SIGKILL)
}

// Killed returns when Kill was called; zero if it wasn't.
func (p *Process) Killed() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// Signal sends a signal. A process that has ended is no error.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to %s: %w", s, p.ID, err)
	}
	return nil
}

// PID is the process' number, of use until it is gone.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Gone is closed when the process has ended and all it told is taken.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Living tells whether the process has neither ended nor been killed.
func (p *Process) Living() bool {
	select {
	case <-p.gone:
		return false
	default:
		return p.Killed().IsZero()
	}
}

// The following are valid once Gone is closed.

// Err is what was wrong with the end of the process: an exit status, a signal, or
// output that is none.
func (p *Process) Err() error { return p.err }

// ExitCode is -1 where a signal ended the process.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Signaled tells whether a signal ended the process.
func (p *Process) Signaled() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// PeakRSS is the greatest resident set, in bytes.
func (p *Process) PeakRSS() int64 { return p.rss }
