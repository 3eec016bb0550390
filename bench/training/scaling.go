package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	network "net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dlnode/dlnode/cluster"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/train"
)

// Scaling: one process with one thread against several with one thread each, at the same
// global batch: dlnode's nodes on loopback, and PyTorch's DistributedDataParallel over
// gloo, or the program with plain sums. All take turns; what is told is how much faster
// several are and, of plain sums, by how much a step is shorter with them. Of that CPU
// time tells the same on a machine that others use.

// party is several processes that take a turn together.
type party struct {
	Processes int      `json:"processes,omitempty"`
	Rank      int      `json:"rank,omitempty"`
	Addrs     []string `json:"addrs,omitempty"` // by rank: gossip; PyTorch takes the first for its rendezvous
	Dir       string   `json:"dir,omitempty"`   // for what nodes write
}

// alone tells that there is one process only.
func (p party) alone() bool { return p.Processes <= 1 }

// share is how many samples of a batch a process has.
func (t *turn) share() int { return t.Batch / max(1, t.Processes) }

// place is where a process runs: behind a command, under an address.
type place struct {
	prefix []string
	addr   string
}

// parsePlaces reads what -places says of so many processes; without it all run here.
func parsePlaces(text string, n int) ([]place, error) {
	if text == "" {
		return slices.Repeat([]place{{nil, "127.0.0.1"}}, n), nil
	}
	var all []place
	for p := range words(text) {
		command, addr, ok := strings.Cut(p, "=")
		if !ok {
			return nil, fmt.Errorf("-places: %q has no address", p)
		}
		all = append(all, place{strings.Fields(command), addr})
	}
	if len(all) < n {
		return nil, fmt.Errorf("-places: %d for %d processes", len(all), n)
	}
	return all[:n], nil
}

// rival is what dlnode is compared with.
type rival struct {
	*side
	name string
}

// rival is the program with plain sums, or else PyTorch; nil is none.
func (c *config) rival(plain string) (*rival, error) {
	switch {
	case plain != "":
		return &rival{&side{name: "plain", program: plain}, "plain"}, nil
	case len(c.pythons) == 0:
		return nil, nil
	case len(c.pythons) > 1:
		return nil, errors.New("-processes: one interpreter at a time")
	}
	return &rival{&side{name: c.pythons[0], python: c.pythons[0]}, "DDP"}, nil
}

// scale measures all nets that match at a batch, and prints a table.
func (c *config) scale(processes, batch int, plain, places string) error {
	where, err := parsePlaces(places, processes)
	if err != nil {
		return err
	}
	r, err := c.rival(plain)
	if err != nil {
		return err
	}
	fmt.Printf("%s; %s; %s; global batch %d, one thread a process; medians of %d turns of %.3gs\n\n",
		time.Now().Format(time.DateOnly), processor(), kernel.Name(), batch, c.rounds, c.seconds)
	several := func(name string) string { return fmt.Sprintf("%s %d", name, processes) }
	head := []string{"net", "dlnode 1", several("dlnode"), "speedup"}
	if r != nil {
		head = append(head, r.name+" 1", several(r.name), "speedup")
	}
	switch {
	case r == nil:
	case plain != "":
		head = append(head, "price 1", several("price"), several("price in CPU"))
	default:
		head = append(head, several("dlnode/"+r.name), "dlnode/"+r.name+" 1")
	}
	printHead(head...)
	for i := range nets {
		n := &nets[i]
		if !c.rows.MatchString(n.name + " " + n.about) {
			continue
		}
		cells, err := c.scaleNet(n, where, batch, r)
		if err != nil {
			return fmt.Errorf("%s: %w", n.about, err)
		}
		printCells(append([]string{n.about}, cells...))
	}
	return nil
}

// scaleNet lets one and several of each side take turns.
func (c *config) scaleNet(n *net, where []place, batch int, r *rival) ([]string, error) {
	processes := len(where)
	t := turn{Net: n.name, Batch: batch, Threads: 1, Micro: batch / processes, Samples: max(n.cut(batch), batch), Seconds: c.seconds, Windows: windows}
	sides := []*side{{name: "dlnode"}}
	if r != nil {
		sides = append(sides, r.side)
	}
	rates := make([][2][]float64, len(sides)) // of each side, of one process and of several
	cpu := make([][]float64, len(sides))      // likewise, seconds a sample, of several
	for round := range c.rounds {
		for i, s := range sides {
			for k, n := range []int{1, processes} {
				t.Processes = n
				r, err := s.playTogether(t, where[:n])
				if err != nil {
					return nil, err
				}
				rates[i][k] = append(rates[i][k], median(r.Rates))
				if k == 1 {
					cpu[i] = append(cpu[i], r.Busy/mean(r.Rates))
				}
				progress("%s, round %d: %s, %d processes: %.4g samples/s (%.2f CPUs)", t.Net, round+1, s.name, n, median(r.Rates), r.Busy)
			}
		}
	}
	var cells []string
	for _, r := range rates {
		cells = append(cells, samples(median(r[0])), samples(median(r[1])), quotients(r[1], r[0]))
	}
	switch {
	case r == nil:
	case r.program != "":
		cells = append(cells, quotients(rates[1][0], rates[0][0]), quotients(rates[1][1], rates[0][1]), quotients(cpu[0], cpu[1]))
	default:
		cells = append(cells, quotients(rates[0][1], rates[1][1]), quotients(rates[0][0], rates[1][0]))
	}
	return cells, nil
}

func mean(all []float64) (m float64) {
	for _, x := range all {
		m += x
	}
	return m / float64(len(all))
}

// quotients is a by b, turn by turn: the median, then the least and the greatest.
func quotients(a, b []float64) string {
	var all []float64
	for i := range a {
		all = append(all, a[i]/b[i])
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", median(all), slices.Min(all), slices.Max(all))
}

// playTogether lets fresh processes take a turn. The report is rank 0's; the others of
// dlnode's nodes would train on for ever, and are killed then.
func (s *side) playTogether(t turn, where []place) (r *report, err error) {
	lead := *s
	lead.prefix = where[0].prefix
	if t.alone() {
		t.party = party{}
		return lead.play(t)
	}
	if t.Dir, err = os.MkdirTemp("", "bench-training-"); err != nil {
		return nil, err
	}
	var others []*exec.Cmd
	defer func() {
		for _, o := range others {
			if s.python == "" || err != nil {
				_ = o.Process.Kill() // it may have ended
			}
			_ = o.Wait() // rank 0 has told all there is
		}
		err = errors.Join(err, os.RemoveAll(t.Dir))
	}()
	if t.Addrs, err = freeAddrs(where); err != nil {
		return nil, err
	}
	for rank := 1; rank < t.Processes; rank++ {
		one, other := *s, t
		one.prefix, other.Rank = where[rank].prefix, rank
		cmd, err := one.command(&other)
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		others = append(others, cmd)
	}
	return lead.play(t)
}

// freeAddrs finds ports that nobody uses now, for TCP and UDP. What is free on loopback
// here is free in a network namespace that nobody else has, too.
func freeAddrs(where []place) (addrs []string, err error) {
	for len(addrs) < len(where) {
		l, err := network.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // so that each is another one
		p, err := network.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue // taken for UDP
		}
		p.Close()
		_, port, _ := network.SplitHostPort(l.Addr().String()) // it has one
		addrs = append(addrs, network.JoinHostPort(where[len(addrs)].addr, port))
	}
	return addrs, nil
}

// environment is what PyTorch finds the others by.
func (p party) environment() []string {
	if p.alone() {
		return nil
	}
	host, port, _ := network.SplitHostPort(p.Addrs[0]) // we made it
	nic := "GLOO_SOCKET_IFNAME=eth0"                   // of netns.sh
	if host == "127.0.0.1" {
		nic = "GLOO_SOCKET_IFNAME=lo"
	}
	return []string{nic, "RANK=" + strconv.Itoa(p.Rank), "WORLD_SIZE=" + strconv.Itoa(p.Processes), "MASTER_ADDR=" + host, "MASTER_PORT=" + port}
}

// trainTogether trains as one node of several, as `dlnode run` does, until ctx ends.
// All begin together.
func trainTogether(ctx context.Context, task *train.Task, t *turn) error {
	name := "node-" + strconv.Itoa(t.Rank)
	dir := filepath.Join(t.Dir, name)
	join := slices.Delete(slices.Clone(t.Addrs), t.Rank, t.Rank+1)
	_, err := train.Run(ctx, train.Config{
		Task:   task,
		Gossip: cluster.Config{Name: name, Bind: t.Addrs[t.Rank], Join: join, Label: strings.ReplaceAll(t.Addrs[0], ":", "-"), Insecure: true},
		Dir:    dir, Checkpoints: filepath.Join(dir, "checkpoints"), Threads: t.Threads, MinNodes: t.Processes, Expect: t.Processes, ExpectFor: time.Minute,
	})
	return cmp.Or(err, context.Cause(ctx))
}
