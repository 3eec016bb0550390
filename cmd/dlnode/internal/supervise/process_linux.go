package supervise

import (
	"os"
	"syscall"
)

const terminateSignal = syscall.SIGTERM

// ownGroup keeps the terminal's Ctrl-C from a node, and has the kernel kill the
// node when the thread that started it ends. (The runtime's fork checks that
// the parent has not died before that was asked for.)
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

var interrupts = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
