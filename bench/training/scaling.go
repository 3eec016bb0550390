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
// gloo. All take turns; what is told is how much faster several are.

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

// scale measures all nets that match at a batch, and prints a table.
func (c *config) scale(processes, batch int) error {
	if len(c.pythons) > 1 {
		return errors.New("-processes: one interpreter at a time")
	}
	fmt.Printf("%s; %s; %s; global batch %d, one thread a process; medians of %d turns of %.3gs\n\n",
		time.Now().Format(time.DateOnly), processor(), kernel.Name(), batch, c.rounds, c.seconds)
	printHead("net", "dlnode 1", fmt.Sprintf("dlnode %d", processes), "speedup", "turns", "DDP 1", fmt.Sprintf("DDP %d", processes), "speedup", "turns", fmt.Sprintf("dlnode/DDP, %d", processes), "turns")
	for i := range nets {
		n := &nets[i]
		if !c.rows.MatchString(n.about) {
			continue
		}
		cells, err := c.scaleNet(n, processes, batch)
		if err != nil {
			return fmt.Errorf("%s: %w", n.about, err)
		}
		printCells(append([]string{n.about}, cells...))
	}
	return nil
}

// scaleNet lets one and several of each side take turns.
func (c *config) scaleNet(n *net, processes, batch int) ([]string, error) {
	t := turn{Net: n.name, Batch: batch, Threads: 1, Micro: batch / processes, Samples: n.cut(batch), Seconds: c.seconds, Windows: windows}
	sides := []*side{{name: "dlnode"}}
	for _, python := range c.pythons {
		sides = append(sides, &side{name: python, python: python})
	}
	rates := make([][2][]float64, len(sides)) // of each side, of one process and of several
	for round := range c.rounds {
		for i, s := range sides {
			for k, n := range []int{1, processes} {
				t.Processes = n
				r, err := s.playTogether(t)
				if err != nil {
					return nil, err
				}
				rates[i][k] = append(rates[i][k], median(r.Rates))
				progress("%s, round %d: %s, %d processes: %.4g samples/s", t.Net, round+1, s.name, n, median(r.Rates))
			}
		}
	}
	var cells []string
	for _, r := range rates {
		cells = append(cells, samples(median(r[0])), samples(median(r[1])))
		cells = append(cells, quotients(r[1], r[0])...)
	}
	if len(rates) < 2 {
		return append(cells, "", "", "", "", "", ""), nil
	}
	return append(cells, quotients(rates[0][1], rates[1][1])...), nil
}

// quotients is a by b, turn by turn: the median, then the least and the greatest.
func quotients(a, b []float64) []string {
	var all []float64
	for i := range a {
		all = append(all, a[i]/b[i])
	}
	return []string{fmt.Sprintf("**%.2f**", median(all)), fmt.Sprintf("%.2f–%.2f", slices.Min(all), slices.Max(all))}
}

// playTogether lets fresh processes take a turn. The report is rank 0's; the others of
// dlnode's nodes would train on for ever, and are killed then.
func (s *side) playTogether(t turn) (r *report, err error) {
	if t.alone() {
		t.party = party{}
		return s.play(t)
	}
	if t.Dir, err = os.MkdirTemp("", "bench-training-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(t.Dir)) }()
	if t.Addrs, err = freeAddrs(t.Processes); err != nil {
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
	}()
	for rank := 1; rank < t.Processes; rank++ {
		other := t
		other.Rank = rank
		cmd, err := s.command(&other)
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		others = append(others, cmd)
	}
	return s.play(t)
}

// freeAddrs finds ports of loopback that nobody uses now, for TCP and UDP.
func freeAddrs(n int) (addrs []string, err error) {
	for len(addrs) < n {
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
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// environment is what PyTorch finds the others by.
func (p party) environment() []string {
	if p.alone() {
		return nil
	}
	host, port, _ := network.SplitHostPort(p.Addrs[0]) // we made it
	return []string{"RANK=" + strconv.Itoa(p.Rank), "WORLD_SIZE=" + strconv.Itoa(p.Processes), "MASTER_ADDR=" + host, "MASTER_PORT=" + port, "GLOO_SOCKET_IFNAME=lo"}
}

// trainTogether trains as one node of several, as `dlnode run` does, until ctx ends.
// All begin together.
func trainTogether(ctx context.Context, task *train.Task, t *turn) error {
	name := "node-" + strconv.Itoa(t.Rank)
	dir := filepath.Join(t.Dir, name)
	join := slices.Delete(slices.Clone(t.Addrs), t.Rank, t.Rank+1)
	_, err := train.Run(ctx, train.Config{
		Task:   task,
		Gossip: cluster.Config{Name: name, Bind: t.Addrs[t.Rank], Join: join, Label: strings.ReplaceAll(t.Addrs[0], ":", "-")},
		Dir:    dir, Checkpoints: filepath.Join(dir, "checkpoints"), Threads: t.Threads, MinNodes: t.Processes, Expect: t.Processes, ExpectFor: time.Minute,
	})
	return cmp.Or(err, context.Cause(ctx))
}
