package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	product "github.com/dlnode/dlnode/train"
)

// networks are what is trained: the case study's convolutions, with their mean in
// place of the dense layer, whose state alone would be larger than the limit; and one
// that computes next to nothing.
var networks = map[string]string{
	"cnn": `[{conv2d: {filters: 32, kernel_size: 3, activation: relu}}, max_pooling2d, {conv2d: {filters: 64, kernel_size: 3, activation: relu}}, max_pooling2d,
  {conv2d: {filters: 128, kernel_size: 3, activation: relu}}, max_pooling2d, {conv2d: {filters: 128, kernel_size: 3, activation: relu}}, global_average_pooling2d,
  {dense: {units: 1, activation: sigmoid}}]`,
	"light": `[{average_pooling2d: {pool_size: 10}}, flatten, {dense: {units: 1, activation: sigmoid}}]`,
}

const jobText = `name: larger
data: {packed: {path: %q}}
model: %s
loss: binary_crossentropy
batch: {global: 20, microbatch: 5}
epochs: 1000000
checkpoint: {every_steps: 1000000000}
`

// turn is what one process did.
type turn struct {
	rate, half float64 // images/s, and those of its second half
	waited     float64 // share of a step
	disk       float64 // bytes/s
	memory     float64 // bytes
}

// train trains for a while in a cgroup of its own.
func train(ctx context.Context, o options, model string, s set, program, work string) (t turn, err error) {
	group, err := newCgroup(o.limit)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, group.remove()) }()
	if err := s.forget(); err != nil {
		return t, err
	}
	dir := filepath.Join(work, "run")
	if err := os.RemoveAll(dir); err != nil {
		return t, err
	}
	job := filepath.Join(work, "job.yaml")
	if err := os.WriteFile(job, fmt.Appendf(nil, jobText, s.dir, networks[model]), 0o644); err != nil {
		return t, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(o.seconds)*time.Second+turnLimit)
	defer cancel()
	argv := group.command([]string{program, "run", "--name", "alone", "--dir", dir, "--threads", strconv.Itoa(o.threads), job})
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var log strings.Builder
	c.Stderr = &log
	if err := c.Start(); err != nil {
		return t, err
	}
	select {
	case <-time.After(time.Duration(o.seconds) * time.Second): // the measurement itself
	case <-ctx.Done():
		return t, errors.Join(context.Cause(ctx), c.Wait())
	}
	disk, diskErr := fromDisk(c.Process.Pid)
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		return t, fmt.Errorf("%w\n%s", err, log.String())
	}
	if err := c.Wait(); err != nil {
		return t, fmt.Errorf("%w\n%s", err, log.String())
	}
	if diskErr != nil {
		return t, diskErr
	}
	if t, err = read(filepath.Join(dir, "journal.jsonl")); err != nil {
		return t, err
	}
	t.disk = disk / float64(o.seconds)
	t.memory, err = group.most()
	return t, err
}

// fromDisk returns the bytes that a process has had read from a disk.
func fromDisk(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "read_bytes: "); ok {
			return strconv.ParseFloat(strings.TrimSpace(n), 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/io tells no read_bytes", pid)
}

// read makes the figures of a journal.
func read(path string) (t turn, err error) {
	f, err := os.Open(path)
	if err != nil {
		return t, err
	}
	defer f.Close() // only read from
	var steps []product.Record
	var took, waited float64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r product.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return t, fmt.Errorf("%s: %w", path, err)
		}
		if r.T == "step" && product.Kind(r.Kind) == product.Update {
			steps = append(steps, r)
			took, waited = took+r.Millis, waited+r.Waited
		}
	}
	if err := lines.Err(); err != nil {
		return t, err
	}
	if len(steps) < 4 {
		return t, fmt.Errorf("%s: %d steps are too few to tell a rate", path, len(steps))
	}
	begun, end := steps[0].Time, steps[len(steps)-1].Time
	middle := begun.Add(end.Sub(begun) / 2)
	var samples, late float64 // after the first step
	for _, r := range steps[1:] {
		samples += float64(r.Samples)
		if r.Time.After(middle) {
			late += float64(r.Samples)
		}
	}
	span := end.Sub(begun).Seconds()
	return turn{rate: samples / span, half: late / (span / 2), waited: waited / took}, nil
}
