package supervise

import (
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestAProcessStaysOnItsCPUs asks the kernel where a process may run that was started with one CPU of its own, and
// where its parent may afterwards.
func TestAProcessStaysOnItsCPUs(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := allowedCPUs()
	mine := before[len(before)-1]
	cmd := exec.Command("sed", "-n", "s/^Cpus_allowed_list:[[:space:]]*//p", "/proc/self/status")
	var out strings.Builder
	cmd.Stdout = &out
	if err := startOn([]int{mine}, cmd.Start); err != nil {
		t.Fatal(err)
	}
	if after := allowedCPUs(); !slices.Equal(after, before) {
		t.Errorf("the parent may run on %v, on %v before", after, before)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(out.String()); got != strconv.Itoa(mine) {
		t.Errorf("the process may run on %q, want %d", got, mine)
	}
}
