package fleet

import (
	"slices"
	"strings"
	"testing"
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
