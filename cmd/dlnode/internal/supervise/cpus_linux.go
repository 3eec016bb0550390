package supervise

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mostCPUs is how many a unix.CPUSet knows.
const mostCPUs = 1024

// allowedCPUs lists the CPUs that we may run on, in order.
func allowedCPUs() (all []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil // more CPUs than a set holds, or nobody may ask
	}
	for cpu := range mostCPUs {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all
}

// byCore puts those of a core side by side, and the cores of a package.
func byCore(all []int) {
	type place struct{ chip, core int }
	at := make(map[int]place, len(all))
	for _, cpu := range all {
		at[cpu] = place{topology(cpu, "physical_package_id"), topology(cpu, "core_id")}
	}
	slices.SortFunc(all, func(a, b int) int {
		return cmp.Or(cmp.Compare(at[a].chip, at[b].chip), cmp.Compare(at[a].core, at[b].core), cmp.Compare(a, b))
	})
}

// topology reads where a CPU is, 0 where the system does not tell.
func topology(cpu int, what string) int {
	b, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/%s", cpu, what))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}

// startOn has the process that start starts run on cpus, if there are any and we may choose. It inherits that from the
// calling thread, which is back where it was when startOn returns.
func startOn(cpus []int, start func() error) error {
	if len(cpus) == 0 {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var was, set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if unix.SchedGetaffinity(0, &was) != nil || unix.SchedSetaffinity(0, &set) != nil {
		return start() // those may have been taken away meanwhile: wherever there is room
	}
	defer unix.SchedSetaffinity(0, &was) // it fails if all of these were taken away: then the kernel has put us elsewhere
	return start()
}
