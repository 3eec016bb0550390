// Command allreduce compares dlnode's all-reduce with those of gloo (PyTorch) and of
// Open MPI, in turns, and prints tables for README.md.
//
//	go run ./allreduce -python python3 -mpi
//
// All ranks are processes of this machine; with -places they run where a command puts
// them, such as a network namespace of their own (see netns.sh).
//
// A turn is a fresh set of processes that measures all sizes. dlnode's is `dlnode bench
// allreduce`: train is what a step does between its gradient and the mean, bare is the
// ring alone, tcp are the same bytes through bare sockets.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// config is what the flags say.
type config struct {
	dlnode  string // program; built if ""
	python  string // interpreter that has torch; "" leaves gloo out
	mpi     bool
	worlds  []int
	sizes   []string // as dlnode takes them
	rounds  int
	seconds float64 // of a kind at a size, in a turn
	rate    string  // of the links, as dlnode takes it; "" is not known
	kinds   string
	tls     bool
	local   string // transport of dlnode within a machine
	nic     string // interface that gloo and MPI use
	places  []place
	dir     string // temporary
}

// place is where a rank runs: behind a command, under an address.
type place struct {
	prefix []string
	addr   string
}

func main() {
	var c config
	var worlds, sizes, places string
	flag.StringVar(&c.dlnode, "dlnode", "", "the `program`; built from this module's parent if it is not named")
	flag.StringVar(&c.python, "python", "", "an `interpreter` that has torch, for gloo")
	flag.BoolVar(&c.mpi, "mpi", false, "compare with Open MPI over TCP, too (needs mpicc and mpirun)")
	flag.StringVar(&worlds, "worlds", "2,4,8", "`numbers` of ranks")
	flag.StringVar(&sizes, "sizes", "4KiB,64KiB,1MiB,4MiB,16MiB,64MiB,256MiB", "`sizes` of the vector, 4 bytes an element")
	flag.IntVar(&c.rounds, "rounds", 3, "turns of each side")
	flag.Float64Var(&c.seconds, "seconds", 0.5, "time of each kind at each size, in a turn")
	flag.StringVar(&c.rate, "rate", "", "`bits` per second of the links, as in 1G, if they are the bound")
	flag.StringVar(&c.kinds, "kinds", "train,bare,tcp", "what to measure of dlnode")
	flag.BoolVar(&c.tls, "tls", false, "have dlnode measured with TLS as well")
	flag.StringVar(&c.local, "transport", "memory", "the `quickest` way that dlnode may take within a machine: memory, unix or tcp")
	flag.StringVar(&c.nic, "nic", "lo", "network `interface` for gloo and MPI")
	flag.StringVar(&places, "places", "", "where ranks run: `COMMAND=ADDRESS,...`, one each, as in \"ip netns exec a=10.0.0.1\"")
	flag.Parse()
	if err := c.start(worlds, sizes, places); err != nil {
		fmt.Fprintln(os.Stderr, "allreduce:", err)
		os.Exit(1)
	}
}

func (c *config) start(worlds, sizes, places string) (err error) {
	for _, w := range strings.Split(worlds, ",") {
		n, err := strconv.Atoi(w)
		if err != nil || n < 2 {
			return fmt.Errorf("-worlds: %q is no number of ranks", w)
		}
		c.worlds = append(c.worlds, n)
	}
	c.sizes = strings.Split(sizes, ",")
	if places != "" {
		for _, p := range strings.Split(places, ",") {
			command, addr, ok := strings.Cut(p, "=")
			if !ok {
				return fmt.Errorf("-places: %q has no address", p)
			}
			c.places = append(c.places, place{strings.Fields(command), addr})
		}
		if c.mpi {
			return errors.New("-mpi: mpirun starts its ranks itself, and not in -places")
		}
		for _, n := range c.worlds {
			if n > len(c.places) {
				return fmt.Errorf("-worlds: %d ranks have no place", n)
			}
		}
	}
	if c.dir, err = os.MkdirTemp("", "bench-allreduce-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	if c.dlnode == "" {
		if c.dlnode, err = c.build(); err != nil {
			return err
		}
	}
	return c.run()
}

// build makes dlnode of the module that this one belongs to.
func (c *config) build() (string, error) {
	program := filepath.Join(c.dir, "dlnode")
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/dlnode/dlnode").Output()
	if err != nil {
		return "", fmt.Errorf("finding dlnode's module: %w", err)
	}
	cmd := exec.Command("go", "build", "-o", program, "./cmd/dlnode")
	cmd.Dir, cmd.Env = strings.TrimSpace(string(dir)), append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return program, cmd.Run()
}

// run lets all sides take turns and prints what came of it.
func (c *config) run() error {
	t := &table{c: c, cells: map[key][]cell{}}
	sides := []side{ours{c, false}}
	if c.tls {
		sides = append(sides, ours{c, true})
	}
	if c.python != "" {
		sides = append(sides, gloo{c})
	}
	if c.mpi {
		m, err := newMPI(c)
		if err != nil {
			return err
		}
		sides = append(sides, m)
	}
	for _, world := range c.worlds {
		for round := range c.rounds {
			for _, s := range sides {
				fmt.Fprintf(os.Stderr, "%d ranks, round %d: %s\n", world, round+1, s.name())
				if err := s.turn(world, t); err != nil {
					return errors.Join(fmt.Errorf("%s, %d ranks: %w", s.name(), world, err), t.print())
				}
			}
		}
	}
	return t.print()
}
