//go:build unix

package e2e

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A net on made data, and the smallest net on the same data.
type footprint struct{ name, data, model, least, batch string }

var footprints = []footprint{
	{
		"mlp", "samples: 640, features: 784, classes: 10",
		"[{dense: {units: 1024, activation: relu}}, {dense: {units: 1024, activation: relu}}, {dense: {units: 10, activation: softmax}}]",
		"[{dense: {units: 10, activation: softmax}}]", "{global: 128, microbatch: 64}",
	},
	{
		"cnn", "samples: 160, features: 784, classes: 10",
		`[{reshape: {target_shape: [28, 28, 1]}}, {conv2d: {filters: 32, kernel_size: 3, activation: relu}}, {conv2d: {filters: 64, kernel_size: 3, activation: relu}},
    max_pooling2d, batch_normalization, flatten, {dropout: {rate: 0.25}}, {dense: {units: 128, activation: relu}}, {dense: {units: 10, activation: softmax}}]`,
		"[{dense: {units: 10, activation: softmax}}]", "{global: 64, microbatch: 32}",
	},
	{
		"lstm", "samples: 160, features: 200, classes: 2, vocabulary: 10000",
		"[{embedding: {input_dim: 10000, output_dim: 128, mask_zero: true}}, {lstm: {units: 128, dropout: 0.2, recurrent_dropout: 0.1}}, {dense: {units: 2, activation: softmax}}]",
		"[{dense: {units: 2, activation: softmax}}]", "{global: 32, microbatch: 16}",
	},
}

func (f footprint) job(model string) job {
	return job{name: f.name, yaml: fmt.Sprintf(`name: %s
data: {synthetic: {%s}}
model: %s
loss: sparse_categorical_crossentropy
batch: %s
epochs: 1
checkpoint: {every_steps: 2}
`, f.name, f.data, model, f.batch)}
}

// What dlnode job show tells of a job's memory before it is trained is what the
// process then takes more than one that trains next to nothing on the same data,
// checkpoints included: to an eighth, since what the garbage collector leaves for
// later is in it, too.
func TestAProcessTakesTheMemoryThatWasTold(t *testing.T) {
	for _, net := range footprints {
		for threads := 1; threads <= 2; threads++ {
			told := toldMemory(t, net.job(net.model), threads) - toldMemory(t, net.job(net.least), threads)
			took := resident(t, net.job(net.model), threads) - resident(t, net.job(net.least), threads)
			t.Logf("%s, threads %d: told %.1f MB, took %.1f MB (%+.1f %%)", net.name, threads, told/1e6, took/1e6, 100*(took/told-1))
			if !raced && math.Abs(took-told) > told/8 {
				t.Errorf("%s, threads %d: took %.1f MB, told were %.1f MB", net.name, threads, took/1e6, told/1e6)
			}
		}
	}
}

// resident is the greatest resident set of a process that trains a job, in bytes.
// The kernel counts that of the parent in, as it was at the fork, so the parent is
// a fresh process: this program once more, see measure.
func resident(t *testing.T, j job, threads int) float64 {
	t.Helper()
	f := newFleet(t, j)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := strconv.Itoa(threads)
	c := exec.Command(self, measureWord, program, "run", "--name", "alone", "--dir", f.nodeDir("alone"), "--threads", n, f.jobFile())
	c.Env = append(os.Environ(), "GOMAXPROCS="+n)
	var log strings.Builder
	c.Stderr = &log
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	rss, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		t.Fatal(err)
	}
	return rss
}

// measureWord makes this program run a command and print its greatest resident set.
const measureWord = "measure"

// measure is what this program does instead of testing when its first argument is
// measureWord.
func measure(command []string) int {
	c := exec.Command(command[0], command[1:]...)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	u, ok := c.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 1
	}
	fmt.Println(u.Maxrss * 1024)
	return 0
}

var memoryLine = regexp.MustCompile(`(?m)^memory: ([0-9.]+) ([kMG]?B) with one thread, ([0-9.]+) ([kMG]?B) for each further one`)

// toldMemory is what job show says of a job, in bytes.
func toldMemory(t *testing.T, j job, threads int) float64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte(j.yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "job", "show", "--summary", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := memoryLine.FindSubmatch(out)
	if m == nil {
		t.Fatalf("job show tells nothing of memory:\n%s", out)
	}
	return bytesOf(t, m[1], m[2]) + float64(threads-1)*bytesOf(t, m[3], m[4])
}

func bytesOf(t *testing.T, number, unit []byte) float64 {
	t.Helper()
	x, err := strconv.ParseFloat(string(number), 64)
	if err != nil {
		t.Fatal(err)
	}
	return x * map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[string(unit)]
}
