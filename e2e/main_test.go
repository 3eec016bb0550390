//go:build unix

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var (
	full = flag.Bool("full", false, "run every story in full length")
	seed = flag.Uint64("seed", 1, "of the moments and victims of the random kills")
	runs = flag.Int("runs", 0, "how many runs with random kills (default 3, with -full 30)")
	only = flag.String("victim", "", "kill none but these: worker, coordinator, pair or joiner")
	keep = flag.Bool("keep", false, "keep the run directories also of tests that pass")
)

// program is the path of the binary under test.
var program string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == measureWord {
		os.Exit(measure(os.Args[2:]))
	}
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dlnode-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "dlnode")
	args := []string{"build", "-tags", "flips", "-o", program}
	if raced {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/dlnode")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the program:", err)
		return 1
	}
	return m.Run()
}
