package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// side is one of those who take turns.
type side interface {
	name() string
	turn(world int, t *table) error
}

// command is a process of a rank, where the rank is.
func (c *config) command(ctx context.Context, rank int, argv ...string) *exec.Cmd {
	if len(c.places) > 0 {
		argv = append(slices.Clone(c.places[rank].prefix), argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = os.Environ()
	return cmd
}

// complaint is the end of what a process had to say.
func complaint(b *bytes.Buffer) string {
	text := strings.TrimSpace(b.String())
	return text[max(0, len(text)-400):]
}

// --- dlnode ---

type ours struct {
	c   *config
	tls bool
}

func (o ours) name() string {
	if o.tls {
		return "dlnode, TLS"
	}
	return "dlnode"
}

// port is where workers listen in their places.
const port = "7950"

func (o ours) turn(world int, t *table) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	file := filepath.Join(o.c.dir, "ours.json")
	argv := []string{
		o.c.dlnode, "bench", "allreduce", "-n", strconv.Itoa(world), "--sizes", strings.Join(o.c.sizes, ","), "--rounds", "1",
		"--time", fmt.Sprintf("%gs", o.c.seconds), "--kinds", o.c.kinds, "--transport", o.c.local, "--json", file,
	}
	if o.c.rate != "" {
		argv = append(argv, "--rate", o.c.rate)
	}
	if o.tls {
		argv = append(argv, "--tls")
	}
	var workers []*exec.Cmd
	defer func() {
		cancel()
		for _, w := range workers {
			_ = w.Wait() // it was told to end
		}
	}()
	if len(o.c.places) > 0 {
		var addrs []string
		for rank := range world {
			addr := net.JoinHostPort(o.c.places[rank].addr, port)
			w := o.c.command(ctx, rank, o.c.dlnode, "bench", "worker", "--bind", addr, "--insecure", "--threads", "1")
			out, err := w.StdoutPipe()
			if err != nil {
				return err
			}
			if err := w.Start(); err != nil {
				return err
			}
			workers = append(workers, w)
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				return fmt.Errorf("the worker at %s says %q: %w", addr, line, err)
			}
			addrs = append(addrs, addr)
		}
		argv = append(argv, "--workers", strings.Join(addrs, ","))
	}
	var out bytes.Buffer
	cmd := o.c.command(ctx, 0, argv...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, complaint(&out))
	}
	return o.take(file, t)
}

// take reads what dlnode has written.
func (o ours) take(file string, t *table) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var r struct {
		Workers []struct{ Program string }
		Rows    []struct {
			World int
			Bytes int64
			Kind  string
			Mean  float64 `json:"mean_us"`
			CPU   float64 `json:"cpu_s_per_gb"`
			Sent  int64   `json:"sent_bytes"`
			Link  float64 `json:"share_of_link"`
			Over  string
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return err
	}
	for _, row := range r.Rows {
		kind := row.Kind
		if o.tls {
			if kind != "train" {
				continue
			}
			kind = "train, TLS"
		}
		t.add(key{row.World, row.Bytes, kind}, cell{mean: row.Mean * 1e-6, cpu: row.CPU, sent: row.Sent, link: row.Link})
	}
	t.note("dlnode " + r.Workers[0].Program)
	for _, row := range r.Rows {
		if row.Kind == "train" || row.Kind == "bare" {
			t.note(row.Kind + " over " + row.Over)
		}
	}
	return nil
}

// --- the peers ---

// peerLine is what a peer prints for a size.
type peerLine struct {
	Bytes   int64
	Times   []float64 // seconds
	CPU     float64
	Version string
}

// takeLines reads what rank 0 of a peer has printed.
func takeLines(world int, kind string, out []byte, t *table) error {
	for line := range bytes.Lines(out) {
		var p peerLine
		if err := json.Unmarshal(line, &p); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		t.add(key{world, p.Bytes, kind}, cell{mean: mean(p.Times), cpu: p.CPU / (float64(p.Bytes) * float64(len(p.Times)) / 1e9)})
		t.note(kind + " of " + p.Version)
	}
	return nil
}

// bytesOf is the sizes in bytes, as the peers take them.
func (c *config) bytesOf() (string, error) {
	var all []string
	for _, s := range c.sizes {
		unit, number := 1, s
		for name, factor := range map[string]int{"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10} {
			if n, ok := strings.CutSuffix(s, name); ok {
				unit, number = factor, n
			}
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return "", fmt.Errorf("-sizes: %q is no size", s)
		}
		all = append(all, strconv.Itoa(n*unit))
	}
	return strings.Join(all, ","), nil
}

//go:embed peer/gloo.py
var glooScript string

type gloo struct{ c *config }

func (g gloo) name() string { return "gloo" }

func (g gloo) turn(world int, t *table) error {
	sizes, err := g.c.bytesOf()
	if err != nil {
		return err
	}
	master := "127.0.0.1"
	if len(g.c.places) > 0 {
		master = g.c.places[0].addr
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free here is free in a fresh namespace, too
	if err != nil {
		return err
	}
	free := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	outs, errs := make([]bytes.Buffer, world), make([]error, world)
	done := make(chan int, world)
	for rank := range world {
		cmd := g.c.command(ctx, rank, g.c.python, "-W", "ignore", "-c", glooScript, sizes, fmt.Sprint(g.c.seconds))
		cmd.Env = append(cmd.Env, "RANK="+strconv.Itoa(rank), "WORLD_SIZE="+strconv.Itoa(world), "MASTER_ADDR="+master, "MASTER_PORT="+free,
			"GLOO_SOCKET_IFNAME="+g.c.nic, "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1")
		go func() {
			var complaints bytes.Buffer
			cmd.Stdout, cmd.Stderr = &outs[rank], &complaints
			if errs[rank] = cmd.Run(); errs[rank] != nil {
				errs[rank] = fmt.Errorf("rank %d: %w: %s", rank, errs[rank], complaint(&complaints))
			}
			done <- rank
		}()
	}
	for range world {
		if rank := <-done; errs[rank] != nil {
			cancel() // the others would wait for it
		}
	}
	return errors.Join(errors.Join(errs...), takeLines(world, "gloo", outs[0].Bytes(), t))
}

//go:embed peer/mpi.c
var mpiSource string

type mpi struct {
	c       *config
	program string
}

func newMPI(c *config) (*mpi, error) {
	m := &mpi{c, filepath.Join(c.dir, "mpi")}
	source := m.program + ".c"
	if err := os.WriteFile(source, []byte(mpiSource), 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("mpicc", "-O2", "-o", m.program, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mpicc: %w: %s", err, out)
	}
	return m, nil
}

func (m *mpi) name() string { return "Open MPI" }

// turn runs it over TCP, as between machines. Ranks yield where there are more than
// CPUs: else they would spin in each other's way.
func (m *mpi) turn(world int, t *table) error {
	sizes, err := m.c.bytesOf()
	if err != nil {
		return err
	}
	cmd := exec.Command("mpirun", "--oversubscribe", "--bind-to", "none", "-n", strconv.Itoa(world),
		"--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", m.c.nic, "--mca", "mpi_yield_when_idle", "1",
		m.program, sizes, fmt.Sprint(m.c.seconds))
	cmd.Env = append(os.Environ(), "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, complaint(&complaints))
	}
	return takeLines(world, "MPI", out, t)
}
