//go:build unix

package train

import (
	"syscall"
	"time"
)

// cpuTime is what this process has used of all CPUs.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // of oneself: it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
