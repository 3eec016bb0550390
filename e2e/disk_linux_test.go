package e2e

import (
	"fmt"
	"syscall"
)

// mountMemory mounts a file system in memory, of a size in bytes.
func mountMemory(dir string, size int) error {
	return syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
}
