package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroup is a group of processes whose memory, page cache included, is bounded.
type cgroup struct {
	dir string
	v2  bool
}

const cgroupRoot = "/sys/fs/cgroup"

// newCgroup makes a group below the one that this process is in.
func newCgroup(limit int64) (*cgroup, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	above, v2 := "", false
	for line := range strings.Lines(string(text)) {
		// hierarchy:controllers:path, where version 2 is 0 and names no controllers
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(part) == 3 && part[1] == "memory":
			above, v2 = filepath.Join(cgroupRoot, "memory", part[2]), false
		case len(part) == 3 && part[0] == "0" && above == "":
			above, v2 = filepath.Join(cgroupRoot, part[2]), true
		}
	}
	if above == "" {
		return nil, errors.New("/proc/self/cgroup names no group for memory")
	}
	if _, err := os.Stat(above); err != nil { // a container may not see the path of its own
		above = cgroupRoot
		if !v2 {
			above = filepath.Join(cgroupRoot, "memory")
		}
	}
	g := &cgroup{dir: filepath.Join(above, fmt.Sprintf("dlnode-larger-%d", os.Getpid())), v2: v2}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	if err := g.bound(limit); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

func (g *cgroup) bound(limit int64) error {
	if !g.v2 {
		return g.write("memory.limit_in_bytes", limit)
	}
	return errors.Join(g.write("memory.max", limit), g.write("memory.swap.max", 0))
}

func (g *cgroup) write(file string, value int64) error {
	return os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.FormatInt(value, 10)), 0)
}

// command starts a command within the group.
func (g *cgroup) command(argv []string) []string {
	return append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}, argv...)
}

// most returns the greatest memory so far, in bytes.
func (g *cgroup) most() (float64, error) {
	file := "memory.max_usage_in_bytes"
	if g.v2 {
		file = "memory.peak"
	}
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}

func (g *cgroup) remove() error { return os.Remove(g.dir) }
