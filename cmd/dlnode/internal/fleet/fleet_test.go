package fleet

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/supervise"
)

func TestOnlyTheFirstProcessesWaitForOneAnother(t *testing.T) {
	p := &ports{taken: map[string]bool{}}
	f := &Fleet{
		cfg:      Config{Program: "dlnode", Job: "-job.yaml", Dir: "dir", Threads: 2, Args: []string{"--fork", "there"}},
		label:    "L",
		founders: []string{"node-1", "node-2"},
		addrs:    &addresses{of: map[string]string{}, free: p.free},
	}
	for _, id := range []string{"node-1", "node-2", "node-3"} {
		if err := f.addrs.assign(id); err != nil {
			t.Fatal(err)
		}
	}
	got := f.command("node-2", 1).Argv
	want := strings.Fields("dlnode run --name node-2 --label L --bind 127.0.0.1:2 --dir dir/node-2 --checkpoints dir/checkpoints" +
		" --threads 2 --expect 2 --events --supervised --join 127.0.0.1:1,127.0.0.1:3 --fork there -- -job.yaml")
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, later := range [][]string{f.command("node-2", 2).Argv, f.command("node-3", 1).Argv} {
		if at := slices.Index(later, "--expect"); later[at+1] != "1" {
			t.Errorf("%q waits for others", later)
		}
	}
}

func TestTheFirstProcessesHaveCPUsOfTheirOwn(t *testing.T) {
	n := runtime.NumCPU()
	if supervise.CPUs(0, n, 1) == nil {
		t.Skip("needs two CPUs that may be chosen")
	}
	p := &ports{taken: map[string]bool{}}
	f := &Fleet{cfg: Config{Nodes: n, Threads: 1, Pin: true}, addrs: &addresses{of: map[string]string{}, free: p.free}}
	var got []int
	for i := range n + 1 {
		id := NodeID(i + 1)
		if i < n {
			f.founders = append(f.founders, id)
		}
		if err := f.addrs.assign(id); err != nil {
			t.Fatal(err)
		}
		first, again := f.command(id, 1).CPUs, f.command(id, 2).CPUs
		if (len(first) == 1) != (i < n) || !slices.Equal(first, again) {
			t.Errorf("%s of %d runs on %v, started again on %v", id, n, first, again)
		}
		got = append(got, first...)
	}
	if slices.Sort(got); len(slices.Compact(got)) != n || !f.cfg.Pinned() {
		t.Errorf("%d nodes run on %v", n, got)
	}
	f.cfg.Pin = false
	if cpus := f.command(NodeID(1), 1).CPUs; cpus != nil || f.cfg.Pinned() {
		t.Errorf("a node runs on %v, and it should not matter where", cpus)
	}
}
