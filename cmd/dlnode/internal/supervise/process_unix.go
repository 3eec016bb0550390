//go:build unix && !linux

package supervise

import (
	"os"
	"syscall"
)

const terminateSignal = syscall.SIGTERM

// ownGroup keeps the terminal's Ctrl-C from a node.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

var interrupts = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
