//go:build unix

package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is its own node: with childEnv set it plays the part named
// there instead of running tests.
const childEnv = "SUPERVISE_TEST_PART"

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		os.Exit(playPart(part))
	}
	goleak.VerifyTestMain(m)
}

// playPart is main of a node; the status is 99 where the test itself is wrong.
func playPart(part string) int {
	verb, arg, _ := strings.Cut(part, " ")
	switch verb {
	case "exit":
		status, err := strconv.Atoi(arg)
		if err != nil {
			return 99
		}
		fmt.Println("going to exit")
		fmt.Fprintln(os.Stderr, "a log line")
		return status
	case "work": // until told to leave
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		fmt.Println("ready")
		<-signals
		fmt.Print("leaving") // without an end of line
		return 0
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		select {}
	case "watch": // until the parent is gone
		fmt.Println("ready")
		AwaitParent(os.Stdin)
		return 7
	case "hold": // a connection that tells when we are gone
		conn, err := net.Dial("tcp", arg)
		if err != nil {
			return 99
		}
		fmt.Fprintln(conn, "held")
		select {}
	case "parent": // supervises a node that holds a connection
		s, err := Start(Config{LogDir: os.TempDir(), Command: as("hold " + arg)}, "orphan-test")
		if err != nil {
			return 99
		}
		s.Wait()
	}
	return 99
}

// as is a Command that plays the same part each time.
func as(part string) func(string, int) Command {
	return func(string, int) Command { return child(part) }
}

func child(part string) Command {
	noSleep := "GORACE=atexit_sleep_ms=0" // the race detector's own second at exit
	return Command{Argv: []string{os.Args[0]}, Env: []string{childEnv + "=" + part, noSleep}}
}

// record keeps lines and events, and lets a test wait for them.
type record struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newRecord() *record { return &record{more: make(chan struct{}, 1)} }

func (r *record) add(line string) {
	r.mu.Lock()
	r.lines = append(r.lines, line)
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *record) count(part string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, line := range r.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// await waits until n lines contain a text.
func (r *record) await(t *testing.T, n int, part string) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for r.count(part) < n {
		select {
		case <-r.more:
		case <-limit:
			t.Fatalf("no %d × %q in %q", n, part, r.lines)
		}
	}
}

func (r *record) config(t *testing.T, p Policy, command func(string, int) Command) Config {
	return Config{
		Policy: p, Command: command, LogDir: t.TempDir(),
		Line:  func(id string, line []byte) { r.add(id + ": " + string(line)) },
		Event: func(e Event) { r.add(e.String()) },
	}
}

func run(t *testing.T, cfg Config, ids ...string) *Supervisor {
	t.Helper()
	s, err := Start(cfg, ids...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestNodesRunAndTheirOutputIsKept(t *testing.T) {
	r := newRecord()
	cfg := r.config(t, Policy{}, as("exit 0"))
	result := run(t, cfg, "a", "b").Wait()
	if err := result.Err(); err != nil || result.Interrupted || len(result.Nodes) != 2 {
		t.Errorf("%v, %+v", err, result)
	}
	for _, n := range result.Nodes {
		log, err := os.ReadFile(n.Log)
		if err != nil || string(log) != "a log line\n" {
			t.Errorf("log of %s: %q, %v", n.ID, log, err)
		}
		if r.count(n.ID+": going to exit") != 1 || r.count(n.ID+" exited with status 0: finished") != 1 {
			t.Errorf("%q", r.lines)
		}
	}
}

func TestAFailedJobTellsEveryExitStatus(t *testing.T) {
	r := newRecord()
	cfg := r.config(t, Policy{MaxRestarts: 2, Backoff: time.Millisecond}, func(id string, _ int) Command {
		return child("exit " + id)
	})
	cfg.Line = nil // standard output goes to the log then
	result := run(t, cfg, "3", "4").Wait()
	want := fmt.Sprintf("no node finished: 3 exited with status 3 (log: %s/3.log); 4 exited with status 4 (log: %s/4.log)", cfg.LogDir, cfg.LogDir)
	if err := result.Err(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if result.Nodes[0].Starts != 3 {
		t.Errorf("%d starts, want 3", result.Nodes[0].Starts)
	}
	log, err := os.ReadFile(filepath.Join(cfg.LogDir, "3.log"))
	if err != nil || strings.Count(string(log), "going to exit\n") != 3 {
		t.Errorf("%q, %v", log, err)
	}
}

func TestAKilledNodeComesBackAndACtrlCEndsInOrder(t *testing.T) {
	r := newRecord()
	s := run(t, r.config(t, Policy{MaxRestarts: 1, Backoff: time.Millisecond}, as("work")), "a", "b")
	r.await(t, 2, ": ready")
	if err := s.Kill("a"); err != nil {
		t.Fatal(err)
	}
	r.await(t, 1, "a ended by signal: killed; to be started again in 1ms")
	r.await(t, 2, "a: ready")
	stop := s.ForwardInterrupts()
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	result := s.Wait()
	if err := result.Err(); err != nil || !result.Interrupted {
		t.Errorf("%v, %+v", err, result)
	}
	if r.count(": leaving") != 2 || r.count("exited with status 0: left") != 2 {
		t.Errorf("%q", r.lines)
	}
}

func TestASecondCtrlCKills(t *testing.T) {
	r := newRecord()
	s := run(t, r.config(t, Policy{}, as("stubborn")), "a")
	r.await(t, 1, "a: ready")
	s.Interrupt()
	s.Interrupt()
	if got := s.Wait().Nodes[0]; got.Last.Signal != "killed" || got.Outcome != Left {
		t.Errorf("%+v", got)
	}
}

func TestAStubbornNodeIsKilledAfterItsGrace(t *testing.T) {
	r := newRecord()
	s := run(t, r.config(t, Policy{LeaveGrace: 20 * time.Millisecond}, as("stubborn")), "a")
	r.await(t, 1, "a: ready")
	if err := s.Leave("a"); err != nil {
		t.Fatal(err)
	}
	if got := s.Wait().Nodes[0]; got.Last.Signal != "killed" || r.count("a was asked to leave") != 1 || r.count("a is killed") != 1 {
		t.Errorf("%+v", got)
	}
}

// TestCallbacksMayAct lets the demo's way work: a line of one node leads to the
// death of another and to a new one.
func TestCallbacksMayAct(t *testing.T) {
	r := newRecord()
	var s *Supervisor
	ready := make(chan struct{})
	cfg := r.config(t, Policy{}, func(id string, _ int) Command {
		if id == "late" {
			return child("exit 0")
		}
		return child("work")
	})
	cfg.Event = func(e Event) {
		r.add(e.String())
		<-ready
		if e.Kind == Exited && e.ID == "a" {
			if err := s.Add("late"); err != nil {
				t.Error(err)
			}
		}
		if e.Kind == Exited && e.ID == "late" {
			s.Interrupt()
		}
	}
	s = run(t, cfg, "a", "b")
	close(ready)
	r.await(t, 2, ": ready")
	if err := s.Kill("a"); err != nil {
		t.Fatal(err)
	}
	result := s.Wait()
	if result.Err() != nil || result.Nodes[2].Outcome != Finished || result.Nodes[0].Outcome != Lost {
		t.Errorf("%+v", result)
	}
}

func TestAFrozenNodeCanBeKilled(t *testing.T) {
	r := newRecord()
	s := run(t, r.config(t, Policy{}, as("work")), "a")
	r.await(t, 1, "a: ready")
	if err := s.Signal("a", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if got := s.Wait().Nodes[0].Last.Signal; got != "killed" {
		t.Errorf("got %q", got)
	}
}

func TestWhatCannotBeStartedIsToldAndTriedAgain(t *testing.T) {
	r := newRecord()
	cfg := r.config(t, Policy{MaxRestarts: 1, Backoff: time.Millisecond}, func(_ string, attempt int) Command {
		if attempt == 1 {
			return Command{Argv: []string{"/does/not/exist"}}
		}
		return Command{}
	})
	result := run(t, cfg, "a").Wait()
	if r.count("a could not be started: fork/exec /does/not/exist: no such file or directory; to be started again") != 1 {
		t.Errorf("%q", r.lines)
	}
	if err := result.Err(); err == nil || !strings.Contains(err.Error(), "an empty command line") {
		t.Errorf("got %v", err)
	}
}

func TestMistakesOfTheCallerAreTold(t *testing.T) {
	r := newRecord()
	s := run(t, r.config(t, Policy{}, as("work")), "a")
	for _, c := range []struct {
		err  error
		want string
	}{
		{s.Add("a"), "supervise: add a: there is a node of this id"},
		{s.Add("../a"), `supervise: add "../a": want letters, digits, '.', '_' and '-', a letter or digit first`},
		{s.Kill("b"), "supervise: signal b: there is no such node"},
		{s.Leave("b"), "supervise: leave b: there is no such node"},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("got %v, want %s", c.err, c.want)
		}
	}
	s.Close()
	if err := errors.Join(s.Add("c"), s.Kill("a")); !errors.Is(err, ErrOver) {
		t.Errorf("got %v", err)
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Config{LogDir: blocked, Command: as("work")}, "a"); err == nil {
		t.Error("a file as the log directory is taken")
	}
}

// TestNoNodeOutlivesItsSupervisor kills a supervisor the hard way. That its
// node is gone shows by the connection which it held.
func TestNoNodeOutlivesItsSupervisor(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), childEnv+"=parent "+listener.Addr().String(), "TMPDIR="+t.TempDir())
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	held := bufio.NewReader(conn)
	if line, err := held.ReadString('\n'); line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the supervisor ended before it was killed")
	}
	var timeout net.Error
	if _, err := held.ReadByte(); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the node lives on")
	}
}

// TestANodeSeesThatItsParentIsGone is the way that works on every system.
func TestANodeSeesThatItsParentIsGone(t *testing.T) {
	node := exec.Command(os.Args[0])
	node.Env = append(os.Environ(), childEnv+"=watch")
	stdin, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := node.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v", err)
	}
}

func TestLinesAreCutWhereTheyEnd(t *testing.T) {
	var got []string
	w := &lineWriter{emit: func(line []byte) { got = append(got, string(line)) }}
	for _, part := range []string{"a", "b\nc\n\nd", "", "e"} {
		if n, err := io.WriteString(w, part); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	w.flush()
	w.flush()
	if want := "ab|c||de"; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	for range maxLine/1024 + 1 {
		if _, err := w.Write(make([]byte, 1024)); err != nil {
			t.Error(err)
		}
	}
	if w.flush(); len(got) != 2 || len(got[0]) != maxLine {
		t.Errorf("%d pieces", len(got))
	}
}
