package chaos

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
)

// limits is a machine for each node: how much of a CPU it has, how much memory, and how
// large the disk is that checkpoints go to.
//
// CPU and memory are control groups, of either version. Where there are none a node is
// starved by signals that stop it for the better part of each moment, and none runs out of memory. A
// disk is a file system in memory.
type limits struct {
	dir    string // of the run
	nodes  int
	cpu    []string // cgroups by node; nil where there are none
	memory []string
	v2     bool
	parent []string         // cgroups around them
	disks  []string         // mount points by node; nil where nothing can be mounted
	procs  []*lives.Process // of the nodes, the newest
	why    []string         // what is missing
}

// diskBytes holds some checkpoints of the job, and little more.
const diskBytes = 16 << 20

func newLimits(dir string, nodes int) *limits {
	l := &limits{dir: dir, nodes: nodes, procs: make([]*lives.Process, nodes)}
	if err := l.makeGroups(); err != nil {
		l.why = append(l.why, fmt.Sprintf("no control groups: %v", err))
	}
	if err := l.makeDisks(); err != nil {
		l.why = append(l.why, fmt.Sprintf("no disks of limited size: %v", err))
	}
	if err := exec.Command("unshare", "--time", "--monotonic", "1000", "--boottime", "1000", "true").Run(); err != nil {
		l.why = append(l.why, fmt.Sprintf("no other clocks: unshare --time: %v", err))
	}
	return l
}

// noLimits is a machine without any.
func noLimits(nodes int) *limits { return &limits{nodes: nodes, procs: make([]*lives.Process, nodes)} }

func (l *limits) kinds() []Kind {
	all := []Kind{Starve}
	if l.memory != nil {
		all = append(all, OutOfMem)
	}
	if l.disks != nil {
		all = append(all, FullDisk)
	}
	if !l.lacks("no other clocks") {
		all = append(all, Clock)
	}
	return all
}

func (l *limits) lacks(what string) bool {
	for _, w := range l.why {
		if strings.HasPrefix(w, what) {
			return true
		}
	}
	return false
}

func (l *limits) makeGroups() error {
	name := fmt.Sprintf("%s%d", lives.Prefix, os.Getpid())
	sweepGroups()
	if l.v2 = lives.CgroupV2(); l.v2 {
		return l.makeGroups2(filepath.Join(lives.CgroupRoot, name))
	}
	for _, controller := range []string{"cpu", "memory"} {
		parent := filepath.Join(lives.CgroupRoot, controller, name)
		if err := os.Mkdir(parent, 0o755); err != nil {
			return err
		}
		l.parent = append(l.parent, parent)
	}
	var err error
	if l.cpu, err = l.children(l.parent[0]); err == nil {
		l.memory, err = l.children(l.parent[1])
	}
	return err
}

func (l *limits) makeGroups2(parent string) error {
	for _, dir := range []string{lives.CgroupRoot, parent} {
		if dir == parent {
			if err := os.Mkdir(parent, 0o755); err != nil {
				return err
			}
			l.parent = []string{parent}
		}
		if err := lives.WriteFile(dir, "cgroup.subtree_control", "+cpu +memory"); err != nil {
			return err
		}
	}
	groups, err := l.children(parent)
	l.cpu, l.memory = groups, groups
	return err
}

func (l *limits) children(parent string) (all []string, err error) {
	for i := range l.nodes {
		dir := filepath.Join(parent, nodeName(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		all = append(all, dir)
	}
	return all, nil
}

// sweepGroups removes what others have left that were killed.
func sweepGroups() {
	for _, pattern := range []string{"cpu/", "memory/", ""} {
		dirs, _ := filepath.Glob(filepath.Join(lives.CgroupRoot, pattern+lives.Prefix+"[0-9]*"))
		for _, dir := range dirs {
			if !lives.Alive(strings.TrimPrefix(filepath.Base(dir), lives.Prefix)) {
				_ = removeGroup(dir) // somebody else may have swept as well
			}
		}
	}
}

// removeGroup removes a cgroup and those below it, which hold no process any more.
func removeGroup(dir string) error {
	below, err := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, procs := range below {
		if err := os.Remove(filepath.Dir(procs)); err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

func (l *limits) makeDisks() error {
	for i := range l.nodes {
		dir := filepath.Join(l.dir, "disk-"+strconv.Itoa(i+1))
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes))
		}
		if err != nil {
			return errors.Join(err, l.unmount())
		}
		l.disks = append(l.disks, dir)
	}
	return nil
}

func (l *limits) unmount() error {
	var errs []error
	for _, dir := range l.disks {
		errs = append(errs, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	l.disks = nil
	return errors.Join(errs...)
}

// through is a command by which node i's program comes under its limits, with clocks
// that stand somewhere.
func (l *limits) through(i int, clock float64) []string {
	var argv []string
	if l.cpu != nil {
		argv = []string{"sh", "-c", `for group in "$1" "$2"; do echo $$ >"$group/cgroup.procs" || exit 1; done; shift 2; exec "$@"`, "sh", l.cpu[i], l.memory[i]}
	}
	if clock != 0 {
		by := strconv.Itoa(int(clock))
		argv = append(argv, "unshare", "--time", "--monotonic", by, "--boottime", by)
	}
	return argv
}

// checkpoints is where node i writes them; "" for its own directory.
func (l *limits) checkpoints(i int) string {
	if l.disks == nil {
		return ""
	}
	return l.disks[i]
}

func (l *limits) started(i int, p *lives.Process) { l.procs[i] = p }

func (l *limits) strike(f Fault, victim int) (heal func() error, err error) {
	switch f.Kind {
	case Starve:
		return l.starve(victim, f.Amount)
	case OutOfMem:
		return l.exhaust(victim)
	case FullDisk:
		return l.fill(victim)
	}
	panic(fmt.Sprintf("chaos: %s is no fault of a machine", f.Kind))
}

// period is that of a CPU's quota.
const period = 100 * time.Millisecond

func (l *limits) starve(i int, share float64) (heal func() error, err error) {
	if l.cpu == nil {
		return starveBySignals(l.procs[i].Signal, share), nil
	}
	return func() error { return lives.LimitCPU(l.cpu[i], 0, period) }, lives.LimitCPU(l.cpu[i], share, period)
}

// beat is how often a process that is starved by signals gets its share.
const beat = 50 * time.Millisecond

// starveBySignals stops a process for most of each beat, until heal.
func starveBySignals(signal func(syscall.Signal) error, share float64) (heal func() error) {
	var failed error
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			for _, part := range []struct {
				signal syscall.Signal
				lasts  time.Duration
			}{{syscall.SIGSTOP, time.Duration((1 - share) * float64(beat))}, {syscall.SIGCONT, time.Duration(share * float64(beat))}} {
				if failed = signal(part.signal); failed != nil {
					return
				}
				select {
				case <-time.After(part.lasts):
				case <-stop:
					failed = signal(syscall.SIGCONT)
					return
				}
			}
		}
	}()
	return func() error {
		close(stop)
		<-done
		return failed
	}
}

// headroom is what a node that is to run out of memory has left, in bytes.
const headroom = 4 << 20

// exhaust gives a node's cgroup hardly more memory than it has, and puts a process into it
// that wants ever more. Of the two the kernel kills the node, since it is told to.
func (l *limits) exhaust(i int) (heal func() error, err error) {
	usage, limit, none := "memory.usage_in_bytes", "memory.limit_in_bytes", "-1"
	if l.v2 {
		usage, limit, none = "memory.current", "memory.max", "max"
	}
	text, err := os.ReadFile(filepath.Join(l.memory[i], usage))
	if err != nil {
		return nil, err
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, err
	}
	if err := lives.WriteFile("/proc/"+strconv.Itoa(l.procs[i].PID()), "oom_score_adj", "1000"); err != nil {
		return nil, err
	}
	if err := lives.WriteFile(l.memory[i], limit, strconv.FormatInt(used+headroom, 10)); err != nil {
		return nil, err
	}
	hog := exec.Command("sh", "-c", `echo $$ >"$1/cgroup.procs" && exec tail /dev/zero`, "sh", l.memory[i])
	hog.Stderr = io.Discard
	hog.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := hog.Start(); err != nil {
		return nil, errors.Join(err, lives.WriteFile(l.memory[i], limit, none))
	}
	return func() error {
		if err := hog.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		_ = hog.Wait() // it was killed, by us or by the kernel
		return lives.WriteFile(l.memory[i], limit, none)
	}, nil
}

// fill fills the disk of a node.
func (l *limits) fill(i int) (heal func() error, err error) {
	path := filepath.Join(l.disks[i], "full")
	heal = func() error { return os.Remove(path) }
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, errors.Join(fmt.Errorf("a disk that should be full: %w", err), f.Close(), heal())
	}
	return heal, f.Close()
}

func (l *limits) close() error {
	errs := []error{l.unmount()}
	for _, dir := range l.parent {
		errs = append(errs, removeGroup(dir))
	}
	return errors.Join(errs...)
}
