//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/testjobs"
)

// wholeJob is one of the jobs that other packages train in one process, for some
// epochs. What is left of its samples to train on, and how many microbatches a
// step has, is as the file says.
func wholeJob(t *testing.T, name string, epochs, samples, micro int) job {
	t.Helper()
	all := testjobs.Whole()
	i := slices.IndexFunc(all, func(f testjobs.File) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("there is no job %s", name)
	}
	text := regexp.MustCompile(`(?m)^epochs: .*`).ReplaceAll(all[i].Text, fmt.Appendf(nil, "epochs: %d", epochs))
	return job{name: name, yaml: string(text), samples: samples, micro: micro}
}

// A convolutional net with statistics of batches and a net over sequences, on
// processes that differ in the kernels they use and the threads they have: one
// SHA-256, that of one process alone.
func TestNodesWithOtherKernelsComeToOneHash(t *testing.T) {
	for _, j := range []job{wholeJob(t, "cnn", 20, 88, 5), wholeJob(t, "lstm", 20, 72, 5)} {
		want := j.oracle(t)
		variants := kernel.Variants()
		for n := 1; n <= 3; n++ {
			t.Run(fmt.Sprintf("%s,nodes=%d", j.name, n), func(t *testing.T) {
				f := newFleet(t, j)
				for i := range n {
					threads := 1 << i // 1, 2, 4
					f.start(fmt.Sprintf("node-%d", i+1), options{
						expect: n, threads: threads, gomaxprocs: threads, cpu: variants[(i+n)%len(variants)],
					})
				}
				f.finish(want)
				f.audit(want)
			})
		}
	}
}

// Processors of other makers and ages, emulated: one without fused multiplication
// and one of ARM's train together with this machine.
func TestProcessorsOfOtherMakersComeToOneHash(t *testing.T) {
	old, err := exec.LookPath("qemu-x86_64-static")
	arm, failed := exec.LookPath("qemu-aarch64-static")
	if err := errors.Join(err, failed); err != nil || raced || testing.Short() {
		t.Skipf("no emulator of other processors (Debian's qemu-user-static): %v; or no time, or a race detector, which none bears", err)
	}
	onARM := filepath.Join(t.TempDir(), "dlnode")
	build := exec.Command("go", "build", "-o", onARM, "../cmd/dlnode")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	machines := [][]string{{old, "-cpu", "Nehalem", program}, {arm, onARM}, nil}
	for _, j := range []job{wholeJob(t, "cnn", 2, 88, 5), wholeJob(t, "lstm", 2, 72, 5)} {
		want := j.oracle(t)
		f := newFleet(t, j)
		for i, m := range machines {
			f.start(fmt.Sprintf("node-%d", i+1), options{expect: len(machines), through: m})
		}
		f.finish(want)
		f.audit(want)
		for node, why := range map[string]string{"node-1": "this processor has no AVX2, FMA", "node-2": "there is no assembly for this architecture"} {
			log, err := os.ReadFile(filepath.Join(f.dir, node+".log"))
			if err != nil {
				t.Fatal(err)
			}
			if line := "kernels: generic: " + why; !strings.Contains(string(log), line) {
				t.Errorf("the log of %s does not say %q:\n%s", node, line, log)
			}
		}
	}
	// What this processor has not cannot be asked for.
	asked := exec.Command(old, "-cpu", "Nehalem", program, "version")
	asked.Env = append(os.Environ(), "DLNODE_CPU=avx2")
	out, err := asked.CombinedOutput()
	if want := `DLNODE_CPU: kernel "avx2" is not among those this CPU runs: ["generic"], since this processor has no AVX2, FMA`; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("asked for AVX2 without it: %v, %s", err, out)
	}
}
