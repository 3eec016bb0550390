package rpc

import (
	"net"
	"os"
	"syscall"
)

// isTrusted tells whether the socket at the other end of a unix connection was made by this user, or by
// root. Anyone on the machine may take the name of a socket that is not there yet, while a port is its
// node's alone: who has the name need not be who has the port.
func isTrusted(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return err == nil && failed == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}
