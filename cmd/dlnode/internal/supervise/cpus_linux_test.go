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
	if len(before) < 2 {
		t.Skip("needs two CPUs that may be chosen")
	}
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

func TestThreadsOfACoreAreSideBySide(t *testing.T) {
	t.Parallel()
	all := allowedCPUs()
	sorted := slices.Clone(all)
	byCore(sorted)
	seen := map[[2]int]int{} // where the last one of a core is
	for i, cpu := range sorted {
		core := [2]int{topology(cpu, "physical_package_id"), topology(cpu, "core_id")}
		if last, ok := seen[core]; ok && last != i-1 {
			t.Errorf("CPUs of core %v are apart: %v", core, sorted)
		}
		seen[core] = i
	}
	if slices.Sort(sorted); !slices.Equal(sorted, all) {
		t.Errorf("%v are not %v in another order", sorted, all)
	}
}
