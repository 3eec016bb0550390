package chaos

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// heldBy reads what a process holds.
func heldBy(pid int) (h Held, err error) {
	proc := "/proc/" + strconv.Itoa(pid)
	files, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return h, err
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return h, err
	}
	h.Files = len(files)
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		first, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		switch name {
		case "VmRSS":
			kb, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return h, fmt.Errorf("resident set: %w", err)
			}
			h.RSS = kb << 10
		case "Threads":
			if h.Threads, err = strconv.Atoi(first); err != nil {
				return h, fmt.Errorf("number of threads: %w", err)
			}
		}
	}
	return h, nil
}
