//go:build unix

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
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
	env         []string // further variables
}

// process is one life of a node.
type process struct {
	*lives.Process
	f *fleet
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
		p.kill()
		<-p.Gone()
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
	env := append([]string{"DLNODE_DATA=" + cmp.Or(o.cache, dataDir())}, o.env...)
	if o.gomaxprocs > 0 {
		env = append(env, "GOMAXPROCS="+strconv.Itoa(o.gomaxprocs))
	}
	if o.cpu != "" {
		env = append(env, "DLNODE_CPU="+o.cpu)
	}
	started, err := lives.Start(id, lives.Command{
		Argv: append(command[:len(command):len(command)], f.arguments(id, o)...), Env: env, Log: filepath.Join(f.dir, id+".log"),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	p := &process{started, f}
	f.procs = append(f.procs, p)
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
		p.await("its ready line", func(now lives.Told) bool { return now.Ready != nil })
		all = append(all, p.Told().Ready.Gossip)
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
		if p.Living() {
			all = append(all, p)
		}
	}
	return all
}

// node returns the living process of that name.
func (f *fleet) node(id string) *process {
	f.t.Helper()
	for _, p := range f.living() {
		if p.ID == id {
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
			if q.ID == id {
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

// now returns the last progress that the process told.
func (p *process) now() train.Progress { return p.Told().Progress }

// await waits until a condition on what the process has told holds.
func (p *process) await(what string, holds func(lives.Told) bool) {
	p.f.t.Helper()
	ctx, cancel := context.WithTimeout(p.f.t.Context(), patience)
	defer cancel()
	if err := p.Await(ctx, holds); err != nil {
		p.f.t.Fatalf("waiting for %s: %v", what, err)
	}
}

// event waits for a line of the story and returns it.
func (p *process) event(kind string) (found train.Event) {
	p.f.t.Helper()
	p.await("event "+kind, func(now lives.Told) (ok bool) {
		found, ok = now.Event(kind)
		return ok
	})
	return found
}

// kill sends SIGKILL and returns when.
func (p *process) kill() time.Time {
	p.f.t.Helper()
	at, err := p.Kill()
	if err != nil {
		p.f.t.Fatal(err)
	}
	return at
}

func (p *process) signal(s syscall.Signal) {
	p.f.t.Helper()
	if err := p.Signal(s); err != nil {
		p.f.t.Fatal(err)
	}
}

// exit waits until the process is gone and returns its exit code.
func (p *process) exit() int {
	p.f.t.Helper()
	select {
	case <-p.Gone():
	case <-time.After(patience):
		p.f.t.Fatalf("%s does not end", p.ID)
	}
	return p.ExitCode()
}

// finish waits for the process to end with a final state.
func (p *process) finish() train.Result {
	p.f.t.Helper()
	code, result := p.exit(), p.Told().Result
	if code != 0 || p.Err() != nil || result == nil {
		p.f.t.Fatalf("%s ended with %d (%v), result %+v", p.ID, code, p.Err(), result)
	}
	return *result
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
			f.t.Errorf("%s: %+v\nwant the oracle's %+v", p.ID, got, want)
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
		names[p.ID] = true
	}
	return slices.Sorted(maps.Keys(names))
}
