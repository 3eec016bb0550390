//go:build unix

package e2e

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dlnode/dlnode/train"
)

// patience bounds every wait for a process that should get on. A race detector
// on a busy machine is slow, so it is only the difference to never.
const patience = 2 * time.Minute

// fleet is one run: the processes that take part, and their directories.
type fleet struct {
	t     *testing.T
	job   job
	dir   string // a directory for each node, the job file, logs
	label string
	procs []*process // every life of every node, in the order of starts
}

// options are flags of one start.
type options struct {
	expect      int
	threads     int      // 0: 1
	gomaxprocs  int      // 0: whatever it is
	cpu         string   // kernels to use; "": the best
	through     []string // command to start the program by, and the program if it is another; nil: the program
	checkpoints string   // "": the node's own
	more        []string // further flags
	job         string   // the job file; "": that of the fleet
	cache       string   // of data sets; "": where the tests find theirs
	alone       bool     // joins nobody
}

// process is one life of a node.
type process struct {
	f       *fleet
	id      string
	cmd     *exec.Cmd
	stdin   io.Closer
	started time.Time
	killed  time.Time // when SIGKILL was sent; zero if it wasn't

	mu       sync.Mutex
	changed  chan struct{} // closed at each line, and replaced
	ready    *train.Ready
	progress train.Progress
	events   []train.Event
	result   *train.Result

	done chan struct{} // closed once the process is gone
	err  error         // of Wait, valid then
	rss  int64         // greatest resident set, bytes, valid then
}

func newFleet(t *testing.T, j job) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "dlnode-"+j.name+"-")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, job: j, dir: dir, label: filepath.Base(dir)}
	t.Cleanup(f.clean)
	if err := os.WriteFile(f.jobFile(), []byte(j.yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) jobFile() string          { return filepath.Join(f.dir, "job.yaml") }
func (f *fleet) nodeDir(id string) string { return filepath.Join(f.dir, id) }

// clean ends what still runs; what a failed test left is kept, and told.
func (f *fleet) clean() {
	for _, p := range f.living() {
		p.cmd.Process.Kill()
		<-p.done
	}
	if f.t.Failed() || *keep {
		f.t.Logf("kept: %s", f.dir)
		f.story()
		return
	}
	if err := os.RemoveAll(f.dir); err != nil {
		f.t.Error(err)
	}
}

// story prints the last lines of every node's log.
func (f *fleet) story() {
	logs, _ := filepath.Glob(filepath.Join(f.dir, "*.log"))
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			f.t.Error(err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		f.t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// start starts a node; it joins whoever lives.
func (f *fleet) start(id string, o options) *process {
	f.t.Helper()
	command := o.through
	if command == nil {
		command = []string{program}
	}
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], f.arguments(id, o)...)...)
	cmd.Env = append(os.Environ(), "DLNODE_DATA="+cmp.Or(o.cache, dataDir()))
	if o.gomaxprocs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(o.gomaxprocs))
	}
	if o.cpu != "" {
		cmd.Env = append(cmd.Env, "DLNODE_CPU="+o.cpu)
	}
	log, err := os.OpenFile(filepath.Join(f.dir, id+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		f.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	p := &process{f: f, id: id, cmd: cmd, stdin: stdin, started: time.Now(), changed: make(chan struct{}), done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.procs = append(f.procs, p)
	go p.follow(stdout)
	return p
}

func (f *fleet) arguments(id string, o options) []string {
	args := []string{
		"run", "--name", id, "--dir", f.nodeDir(id), "--label", f.label, "--events", "--supervised",
		"--threads", strconv.Itoa(max(1, o.threads)),
	}
	if o.expect > 0 {
		args = append(args, "--expect", strconv.Itoa(o.expect), "--expect-for", "60s")
	}
	if o.checkpoints != "" {
		args = append(args, "--checkpoints", o.checkpoints)
	}
	if join := f.addresses(); len(join) > 0 && !o.alone {
		args = append(args, "--join", strings.Join(join, ","))
	}
	return append(append(args, o.more...), cmp.Or(o.job, f.jobFile()))
}

// addresses are the gossip addresses of those who live.
func (f *fleet) addresses() (all []string) {
	for _, p := range f.living() {
		p.await("its ready line", func() bool { return p.ready != nil })
		all = append(all, p.ready.Gossip)
	}
	return all
}

// launch starts n nodes that wait for each other before the first step.
func (f *fleet) launch(n int, o options) []*process {
	o.expect = n
	for i := range n {
		f.start(fmt.Sprintf("node-%d", i+1), o)
	}
	return f.procs[len(f.procs)-n:]
}

// living returns the processes that are not gone and not killed.
func (f *fleet) living() (all []*process) {
	for _, p := range f.procs {
		select {
		case <-p.done:
		default:
			if p.killed.IsZero() {
				all = append(all, p)
			}
		}
	}
	return all
}

// node returns the living process of that name.
func (f *fleet) node(id string) *process {
	f.t.Helper()
	for _, p := range f.living() {
		if p.id == id {
			return p
		}
	}
	f.t.Fatalf("%s does not live", id)
	return nil
}

// coordinator returns whom the living take for it, or nil if that one is gone.
func (f *fleet) coordinator() *process {
	for _, p := range f.living() {
		id := p.now().Coordinator
		for _, q := range f.living() {
			if q.id == id {
				return q
			}
		}
	}
	return nil
}

// reach waits until some living node has completed a step.
func (f *fleet) reach(step uint64) {
	f.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		alive := f.living()
		if slices.ContainsFunc(alive, func(p *process) bool { return p.now().Step >= step }) {
			return
		}
		if len(alive) == 0 || time.Now().After(deadline) {
			f.t.Fatalf("nobody completed step %d; %d nodes live", step, len(alive))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// follow reads the lines of a process until it is gone.
func (p *process) follow(stdout io.Reader) {
	defer close(p.done)
	in := json.NewDecoder(stdout)
	var bad error
	for {
		var l train.Line
		if err := in.Decode(&l); err != nil {
			if err != io.EOF && p.wasKilled().IsZero() {
				bad = fmt.Errorf("standard output: %w", err)
			}
			break
		}
		p.take(l)
	}
	io.Copy(io.Discard, stdout)
	p.err = errors.Join(bad, p.cmd.Wait())
	if u, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		p.rss = u.Maxrss * 1024
	}
}

func (p *process) take(l train.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.Ready != nil:
		p.ready = l.Ready
	case l.Progress != nil:
		p.progress = *l.Progress
	case l.Event != nil:
		p.events = append(p.events, *l.Event)
	case l.Result != nil:
		p.result = l.Result
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// now returns the last progress that the process told.
func (p *process) now() train.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.progress
}

func (p *process) wasKilled() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// await waits until a condition on what the process has told holds.
func (p *process) await(what string, holds func() bool) {
	p.f.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		ok, changed := holds(), p.changed
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-p.done:
			p.mu.Lock()
			ok := holds()
			p.mu.Unlock()
			if !ok {
				p.f.t.Fatalf("%s ended (%v) before %s", p.id, p.err, what)
			}
			return
		case <-deadline:
			p.f.t.Fatalf("%s: no sign of %s for %s", p.id, what, patience)
		}
	}
}

// event waits for a line of the story and returns it.
func (p *process) event(kind string) train.Event {
	p.f.t.Helper()
	var found train.Event
	p.await("event "+kind, func() bool {
		i := slices.IndexFunc(p.events, func(e train.Event) bool { return e.Kind == kind })
		if i >= 0 {
			found = p.events[i]
		}
		return i >= 0
	})
	return found
}

// kill sends SIGKILL and returns when.
func (p *process) kill() time.Time {
	p.mu.Lock()
	p.killed = time.Now()
	at := p.killed
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
	return at
}

func (p *process) signal(s syscall.Signal) {
	p.f.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.f.t.Fatalf("signal %v to %s: %v", s, p.id, err)
	}
}

// exit waits until the process is gone and returns its exit code.
func (p *process) exit() int {
	p.f.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.f.t.Fatalf("%s does not end", p.id)
	}
	return p.cmd.ProcessState.ExitCode()
}

// finish waits for the process to end with a final state.
func (p *process) finish() train.Result {
	p.f.t.Helper()
	code := p.exit()
	if code != 0 || p.err != nil || p.result == nil {
		p.f.t.Fatalf("%s ended with %d (%v), result %+v", p.id, code, p.err, p.result)
	}
	return *p.result
}

// finish waits for all who live; each must have the verdict of the oracle, or
// have come when all was over.
func (f *fleet) finish(want verdict) {
	f.t.Helper()
	finished := 0
	for _, p := range f.living() {
		r := p.finish()
		if !r.Finished && strings.HasPrefix(r.Reason, "the run is finished") {
			continue
		}
		finished++
		if got := (verdict{r.ModelSHA256, r.StateSHA256, r.Step, r.Transition}); got != want {
			f.t.Errorf("%s: %+v\nwant the oracle's %+v", p.id, got, want)
		}
	}
	if finished == 0 {
		f.t.Error("nobody finished")
	}
}

// nodes lists the names that ever lived.
func (f *fleet) nodes() []string {
	names := map[string]bool{}
	for _, p := range f.procs {
		names[p.id] = true
	}
	return slices.Sorted(maps.Keys(names))
}
