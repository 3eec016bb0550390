package lives

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// CgroupRoot is where control groups are mounted.
const CgroupRoot = "/sys/fs/cgroup"

// CgroupV2 tells that they are of version 2, where one group has all controllers; else each
// controller has a tree of its own, CgroupRoot/NAME.
func CgroupV2() bool {
	_, err := os.Stat(filepath.Join(CgroupRoot, "cgroup.controllers"))
	return err == nil
}

// LimitCPU gives the processes of a group so much of a CPU, together, in each period; 0 is
// as much as they want.
func LimitCPU(group string, share float64, period time.Duration) error {
	every := strconv.FormatInt(period.Microseconds(), 10)
	quota := strconv.FormatInt(int64(share*float64(period.Microseconds())), 10)
	if CgroupV2() {
		if share == 0 {
			quota = "max"
		}
		return WriteFile(group, "cpu.max", quota+" "+every)
	}
	if share == 0 {
		quota = "-1"
	}
	return errors.Join(WriteFile(group, "cpu.cfs_period_us", every), WriteFile(group, "cpu.cfs_quota_us", quota))
}

// WriteFile writes a value into a file of the system's, such as one of a group.
func WriteFile(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
}
