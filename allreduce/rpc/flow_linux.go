package rpc

import (
	"net"

	"golang.org/x/sys/unix"
)

// flowOf returns how many bytes a second a TCP connection has brought to its other end, lately and while there
// was enough to send (tcpi_delivery_rate); 0 where the system does not know.
func flowOf(c net.Conn) (rate float64) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return 0
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		if info, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); e == nil {
			rate = float64(info.Delivery_rate)
		}
	})
	if err != nil {
		return 0 // the connection is closed
	}
	return rate
}
