// Package supervise runs several nodes as processes of this machine: it starts
// them, keeps their logs, starts again those that die, passes Ctrl-C on as an
// orderly leave, and sees to it that none outlives it.
//
//	Add, Kill, Leave, Interrupt ──► mailbox ──► loop ──► machine (pure)
//	processes' ends, the clock ──────┘           ▲           │ effects
//	                                             └── start, signal, tell
//
// What happens next is decided by a [machine], which knows neither processes
// nor the clock; the loop of a [Supervisor] carries it out. A node goes through
//
//	        ┌────────── back-off ◄────────┐ died, restarts left
//	        ▼                             │
//	add ─► running ─┬─ exit status 0 ─► finished
//	                ├─ told to leave ──► left
//	                └─ died, no more ──► lost
//
// A node that ends with status 0 of its own accord says that the job is done:
// from then on the dead stay dead, since there is nothing left to join.
//
// No orphan survives. On Linux the kernel kills a node when its supervisor
// dies; everywhere a node's standard input is a pipe whose other end only the
// supervisor holds, so that a node which watches it ([AwaitParent]) leaves when
// it ends. A node is in a process group of its own: a Ctrl-C on the terminal
// reaches the supervisor alone, which passes on what it makes of it.
package supervise

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"sync"
	"time"
)

// Config is how a Supervisor starts its nodes. Command and LogDir are needed.
type Config struct {
	Policy
	// Command says what to run as a node; attempt counts its starts from 1. It
	// is called by the supervisor's goroutine before each start.
	Command func(id string, attempt int) Command
	// LogDir is the directory for <id>.log, which gets what a node writes to
	// its standard error, one start after the other. It is made if need be.
	LogDir string
	// Line gets each line that a node writes to its standard output, without
	// its end; nil sends them to the log. It is called by one goroutine per
	// node and may use line until it returns.
	Line func(id string, line []byte)
	// Event is told what happens, by the supervisor's goroutine. It may call
	// the Supervisor's methods, but for Wait and Close.
	Event func(Event)
}

// Command is a process to run.
type Command struct {
	Argv []string // the program and its arguments
	Env  []string // as "key=value", on top of the supervisor's own
	Dir  string   // to run in; "" is the supervisor's own
	CPUs []int    // to run on, where the system can be told; none: on those that the supervisor may run on
}

// Supervisor runs nodes. Its methods may be called from any goroutine.
type Supervisor struct {
	cfg     Config
	machine *machine
	running map[string]*process // the loop's own

	mu    sync.Mutex
	mail  []func(now time.Time)
	known map[string]bool
	over  bool
	wake  chan struct{}

	done   chan struct{} // closed when all nodes have ended and are told
	result Result        // set before done is closed
}

// ErrOver is returned for what comes after the last node has ended.
var ErrOver = errors.New("all nodes have ended")

var plainID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Start starts a node of each id. Wait for the result, or Close.
func Start(cfg Config, ids ...string) (*Supervisor, error) {
	if cfg.Command == nil || len(ids) == 0 {
		panic("supervise: Start without a command or without nodes")
	}
	if err := os.MkdirAll(cfg.LogDir, 0o755); err != nil {
		return nil, fmt.Errorf("supervise: log directory: %w", err)
	}
	s := &Supervisor{
		cfg: cfg, machine: newMachine(cfg.Policy), running: map[string]*process{},
		known: map[string]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	for _, id := range ids {
		if err := s.Add(id); err != nil {
			return nil, err
		}
	}
	go s.loop()
	return s, nil
}

// Add starts one more node. An id is used once; restarts keep it.
func (s *Supervisor) Add(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return fmt.Errorf("supervise: add %s: %w", id, ErrOver)
	case !plainID.MatchString(id):
		return fmt.Errorf("supervise: add %q: want letters, digits, '.', '_' and '-', a letter or digit first", id)
	case s.known[id]:
		return fmt.Errorf("supervise: add %s: there is a node of this id", id)
	}
	s.known[id] = true
	s.postLocked(func(now time.Time) { s.machine.add(now, id) })
	return nil
}

// Kill ends a node's process at once, as a crash would (SIGKILL). The policy
// decides whether it is started again. A node that does not run stays as it is.
func (s *Supervisor) Kill(id string) error { return s.Signal(id, os.Kill) }

// Signal sends a node's process any signal, such as SIGSTOP.
func (s *Supervisor) Signal(id string, sig os.Signal) error {
	return s.ask("signal", id, func(time.Time) { s.signal(id, sig) })
}

// Leave asks a node to leave in order (SIGTERM), and does not start it again.
// One that is not gone after LeaveGrace is killed.
func (s *Supervisor) Leave(id string) error {
	return s.ask("leave", id, func(now time.Time) { s.machine.leave(now, id) })
}

// Interrupt asks all nodes to leave in order; the second time it kills them.
func (s *Supervisor) Interrupt() {
	s.post(func(now time.Time) { s.machine.interrupt(now) })
}

// Wait returns when all nodes have ended, with what became of each.
func (s *Supervisor) Wait() Result {
	<-s.done
	return s.result
}

// Done is closed when all nodes have ended.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Close kills what still runs and returns when it is gone. Closing again does
// nothing more.
func (s *Supervisor) Close() {
	s.post(func(time.Time) { s.machine.killAll() })
	<-s.done
}

// ask posts a request about a node that must be known.
func (s *Supervisor) ask(what, id string, f func(now time.Time)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known[id] {
		return fmt.Errorf("supervise: %s %s: there is no such node", what, id)
	}
	if s.over {
		return fmt.Errorf("supervise: %s %s: %w", what, id, ErrOver)
	}
	s.postLocked(f)
	return nil
}

func (s *Supervisor) post(f func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.postLocked(f)
}

// postLocked never blocks, so that callbacks may call us.
func (s *Supervisor) postLocked(f func(now time.Time)) {
	s.mail = append(s.mail, f)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Supervisor) take() []func(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mail := s.mail
	s.mail = nil
	return mail
}

// seal ends the taking of requests, unless some have come in meanwhile.
func (s *Supervisor) seal() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = len(s.mail) == 0
	return s.over
}

// loop lets the machine decide and carries out what it decides, until all nodes
// have ended. It keeps its thread to itself: the kernel takes the end of the
// thread which started a process for the end of its parent.
func (s *Supervisor) loop() {
	runtime.LockOSThread()
	defer close(s.done)
	for {
		s.await()
		for _, f := range s.take() {
			f(time.Now())
			s.perform()
		}
		s.machine.tick(time.Now())
		s.perform()
		if s.machine.over() && s.seal() {
			s.result = s.machine.result(s.cfg.LogDir)
			return
		}
	}
}

// await returns when there is mail, or the machine wants to be asked again.
func (s *Supervisor) await() {
	var alarm <-chan time.Time
	if at, ok := s.machine.next(); ok {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-s.wake:
	case <-alarm:
	}
}

// perform carries out effects, and those that come of them.
func (s *Supervisor) perform() {
	for effects := s.machine.take(); len(effects) > 0; effects = s.machine.take() {
		for _, e := range effects {
			switch e.verb {
			case start:
				s.start(e.id, e.attempt)
			case terminate:
				s.signal(e.id, terminateSignal)
			case kill:
				s.signal(e.id, os.Kill)
			case tell:
				if s.cfg.Event != nil {
					s.cfg.Event(e.event)
				}
			}
		}
	}
}

// start runs a node's process and a goroutine that waits for its end.
func (s *Supervisor) start(id string, attempt int) {
	p, err := launch(id, s.cfg.Command(id, attempt), s.cfg.LogDir, s.cfg.Line)
	if err != nil {
		s.machine.exited(time.Now(), id, Exit{Err: err})
		return
	}
	s.running[id] = p
	s.machine.started(id, p.cmd.Process.Pid)
	go func() {
		exit, err := p.wait()
		s.post(func(now time.Time) {
			delete(s.running, id)
			if err != nil {
				s.machine.trouble(id, fmt.Errorf("output: %w", err))
			}
			s.machine.exited(now, id, exit)
		})
	}()
}

// signal reaches processes that still run; the others are on their way to us as
// exited.
func (s *Supervisor) signal(id string, sig os.Signal) {
	p := s.running[id]
	if p == nil {
		return
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.machine.trouble(id, fmt.Errorf("signal %v: %w", sig, err))
	}
}

// AwaitParent is for a node that a Supervisor started: it returns when the
// supervisor is gone, however it ended. Give it os.Stdin, and leave when it
// returns; nothing else may read from it.
func AwaitParent(stdin io.Reader) {
	buf := make([]byte, 64)
	for {
		if _, err := stdin.Read(buf); err != nil {
			return
		}
	}
}
