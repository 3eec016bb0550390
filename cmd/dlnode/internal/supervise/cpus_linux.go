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

// allowedCPUs lists the CPUs that we may run on, those of a core side by side, and the cores of a package.
func allowedCPUs() (all []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil // more CPUs than a set holds: nobody gets any of their own
	}
	for cpu := range mostCPUs {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	slices.SortFunc(all, func(a, b int) int {
		return cmp.Or(cmp.Compare(topology(a, "physical_package_id"), topology(b, "physical_package_id")),
			cmp.Compare(topology(a, "core_id"), topology(b, "core_id")), cmp.Compare(a, b))
	})
	return all
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

// startOn has the process that start starts run on cpus, if there are any. It inherits that from the calling thread,
// which is back where it was when startOn returns.
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
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return fmt.Errorf("CPUs to run on: %w", err)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return start() // they were taken away meanwhile: wherever there is room
	}
	defer unix.SchedSetaffinity(0, &was) // it fails if those were taken away meanwhile: then the kernel has put us elsewhere
	return start()
}
