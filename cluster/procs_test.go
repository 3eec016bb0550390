package cluster

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

var (
	procs     = flag.Int("procs", 0, "measure gossip among so many processes")
	procName  = flag.String("proc-name", "", "be one of them")
	procSeeds = flag.String("proc-seeds", "", "whom it joins")
)

// TestProc is one process that gossips and tells on standard output what it
// hears, until its standard input ends.
func TestProc(t *testing.T) {
	if *procName == "" {
		t.Skip("a part of TestProcs")
	}
	fact := view.Fact{ID: *procName, Incarnation: rand.Uint64(), Addr: "127.0.0.1:1"}
	cfg := Config{Name: fact.ID, Incarnation: fact.Incarnation, Label: "procs", Secret: []byte("procs"), Wait: true}
	if *procSeeds != "" {
		cfg.Join = strings.Split(*procSeeds, ",")
	}
	g, err := Start(cfg, fact, func(e Event) { say(e.Kind.String(), e.Fact.ID) })
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	say("addr", g.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func say(kind, what string) { fmt.Printf("! %s %s %d\n", kind, what, time.Now().UnixNano()) }

// swarm is what a test knows of its processes.
type swarm struct {
	t     *testing.T
	seeds string

	mu    sync.Mutex
	procs map[string]*proc
}

type proc struct {
	cmd  *exec.Cmd
	in   io.Closer
	addr chan listening
	at   map[string]time.Time // by kind and name, when it was heard first
}

// listening tells where and since when a process can be spoken to.
type listening struct {
	addr string
	at   time.Time
}

func (s *swarm) start(name string) *proc {
	cmd := exec.Command(os.Args[0], "-test.run=^TestProc$", "-proc-name="+name, "-proc-seeds="+s.seeds)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	p := &proc{cmd, in, make(chan listening, 1), map[string]time.Time{}}
	s.mu.Lock()
	s.procs[name] = p
	s.mu.Unlock()
	go s.listen(p, out)
	return p
}

func (s *swarm) listen(p *proc, out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var kind, what string
		var at int64
		if _, err := fmt.Sscanf(lines.Text(), "! %s %s %d", &kind, &what, &at); err != nil {
			continue
		}
		s.mu.Lock()
		if key := kind + " " + what; p.at[key].IsZero() {
			p.at[key] = time.Unix(0, at)
		}
		s.mu.Unlock()
		if kind == "addr" {
			p.addr <- listening{what, time.Unix(0, at)}
		}
	}
}

// kill ends a process as kill -9 does and returns when it was.
func (s *swarm) kill(name string) time.Time {
	s.mu.Lock()
	p := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	at := time.Now()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return at
}

// heard waits until all others have heard something of name, and returns how long
// after since each did.
func (s *swarm) heard(kind, name string, since time.Time) []time.Duration {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if took, all := s.whoHeard(kind, name, since); all {
			return took
		}
	}
	took, _ := s.whoHeard(kind, name, since)
	s.t.Errorf("only %d have heard that %s is %s", len(took), name, kind)
	return took
}

func (s *swarm) whoHeard(kind, name string, since time.Time) (took []time.Duration, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all = true
	for other, p := range s.procs {
		at, ok := p.at[kind+" "+name]
		switch {
		case other == name:
		case ok:
			took = append(took, at.Sub(since))
		default:
			all = false
		}
	}
	return took, all
}

// known waits until everybody knows everybody.
func (s *swarm) known(since time.Time) (latest time.Duration) {
	for i := range len(s.procs) {
		for _, d := range s.heard("up", procID(i), since) {
			latest = max(latest, d)
		}
	}
	return latest
}

func (s *swarm) stop() {
	for _, p := range s.procs {
		_ = p.in.Close()
	}
	for _, p := range s.procs {
		_ = p.cmd.Wait()
	}
}

func procID(i int) string { return fmt.Sprintf("p%03d", i) }

// loopback reads how many bytes the machine has sent to itself.
func loopback(t *testing.T) (bytes uint64) {
	text, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Log("no count of bytes:", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "lo:"); ok {
			_, _ = fmt.Sscan(rest, &bytes)
		}
	}
	return bytes
}

func quantiles(ds []time.Duration) string {
	slices.Sort(ds)
	at := func(q float64) float64 { return ds[min(len(ds)-1, int(q*float64(len(ds))))].Seconds() }
	return fmt.Sprintf("p50 %.2f s, p99 %.2f s, last %.2f s", at(0.5), at(0.99), at(1))
}

// TestProcs measures memberlist as it is: real processes, real sockets.
func TestProcs(t *testing.T) {
	if *procs < 2 {
		t.Skip("takes a minute; run with -procs 50")
	}
	s := &swarm{t: t, procs: map[string]*proc{}}
	defer s.stop()
	first := s.start(procID(0))
	s.seeds = (<-first.addr).addr
	begun := time.Now()
	var started []*proc
	for i := 1; i < *procs; i++ {
		started = append(started, s.start(procID(i)))
	}
	for _, p := range started {
		<-p.addr
	}
	listening := time.Since(begun)
	fmt.Printf("%d processes: all listen after %.2f s, everybody knows everybody after %.2f s\n", *procs, listening.Seconds(), s.known(begun).Seconds())

	time.Sleep(5 * time.Second)
	before, since := loopback(t), time.Now()
	time.Sleep(10 * time.Second)
	rate := float64(loopback(t)-before) / time.Since(since).Seconds()
	fmt.Printf("at rest: %.0f kB/s in all, %.2f kB/s for each process\n", rate/1e3, rate/1e3/float64(*procs))

	var joins, losses []time.Duration
	for i := range 5 {
		name := procID(*procs + i)
		at := (<-s.start(name).addr).at
		joins = append(joins, s.heard("up", name, at)...)
	}
	fmt.Printf("join of one: known to the others after %s\n", quantiles(joins))
	for i := range 5 {
		name := procID(1 + i*(*procs-1)/5)
		losses = append(losses, s.heard("failed", name, s.kill(name))...)
	}
	fmt.Printf("kill -9 of one: told to the others after %s\n", quantiles(losses))
}
