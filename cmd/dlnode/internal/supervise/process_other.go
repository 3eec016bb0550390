//go:build !unix

package supervise

import (
	"os"
	"syscall"
)

// terminateSignal: there is no signal here that a process could answer.
var terminateSignal = os.Kill

// ownGroup has nothing to ask for.
func ownGroup() *syscall.SysProcAttr { return nil }

var interrupts = []os.Signal{os.Interrupt}
