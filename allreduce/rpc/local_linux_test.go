package rpc

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// listenAsNobody takes a socket's name as another user of the machine would.
func listenAsNobody(t *testing.T, name string) net.Listener {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	become := func(uid uintptr) syscall.Errno { // this thread alone
		_, _, err := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0))
		return err
	}
	runtime.LockOSThread()
	if err := become(65534); err != 0 {
		runtime.UnlockOSThread()
		t.Skip(err)
	}
	l, err := net.Listen("unix", name)
	if err := become(0); err != 0 {
		t.Fatal(err) // the thread ends with the goroutine, which keeps it
	}
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestASocketOfAnotherUserIsNotTakenForTheNode(t *testing.T) {
	node := listen(t)
	defer node.Close()
	squatter := listenAsNobody(t, localNames(netip.MustParseAddrPort(node.addr()))[0])
	link := &link{linkConfig: linkConfig{timeout: time.Second}}
	conn, err := link.dial(t.Context(), node.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().Network() != "tcp" {
		t.Errorf("a call of %s came to %s, which another user listens on", node.addr(), squatter.Addr())
	}
}
