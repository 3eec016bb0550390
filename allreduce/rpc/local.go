package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
)

// Nodes of one machine reach one another by unix sockets, which cost a third less than TCP does, and by memory
// that both have mapped; see memory.go. A node that listens on a TCP port listens on a socket of that name too, and
// whoever is about to call an address that is this machine's tries the socket of that name first.
//
// The sockets are abstract: they have no file, go with their process, and belong to a network namespace
// as ports do. So a name can't be left over, and means the same process as the port does, also where
// containers share files or addresses. But anyone may take a name that is free, so a socket that another
// user has made is not called. Where there are no such sockets, TCP is left.

// Transport is what the frames of a link go by.
type Transport uint8

// The transports, the quickest first. Each is for those for which there is none before it: unix sockets for nodes of one
// machine, memory for those that are processes of one user, or root's, without TLS.
const (
	SharedMemory Transport = iota // large payloads; the others, and all heads, by a unix socket
	UnixSocket
	TCP
)

// String returns the transport's name in lower case.
func (t Transport) String() string {
	switch t {
	case SharedMemory:
		return "shared memory"
	case UnixSocket:
		return "unix socket"
	case TCP:
		return "tcp"
	}
	return fmt.Sprintf("transport %d", uint8(t))
}

// localNames lists the sockets by which the owner of a TCP address may be reached, the likeliest first: of
// the address itself, and of whoever has the port on all addresses. The number in a name changes with what is said
// before gRPC begins.
func localNames(a netip.AddrPort) []string {
	if runtime.GOOS != "linux" {
		return nil
	}
	port := strconv.Itoa(int(a.Port()))
	return []string{"@dlnode-2/" + a.Addr().Unmap().String() + "/" + port, "@dlnode-2/*/" + port}
}

// listenLocal listens on the unix socket of a TCP listener; nil where there is none to be had.
func listenLocal(l net.Listener) net.Listener {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	names := localNames(tcp.AddrPort())
	if len(names) == 0 {
		return nil
	}
	name := names[0]
	if tcp.IP.IsUnspecified() {
		name = names[1]
	}
	local, err := net.Listen("unix", name)
	if err != nil {
		return nil // somebody else has the name: callers see that it is another node, or are refused
	}
	return local
}

// localBuffer is what a socket between nodes of one machine may hold, in bytes, if the system lets it: two
// segments. Usually it is less than one, so that who sends sleeps several times in a segment, and twice this
// goes out of the cache before it is read.
const localBuffer = 512 << 10

// widen has a unix socket hold more. Where the system refuses, it works as it is.
func widen(c net.Conn) {
	if u, ok := c.(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(localBuffer)
		_ = u.SetReadBuffer(localBuffer)
	}
}

var errNotLocal = errors.New("no node of this machine")

// dialLocal connects to the node at addr by a unix socket, if it is one of this machine.
func dialLocal(ctx context.Context, addr string) (net.Conn, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !isLocal(a.Addr().Unmap()) {
		return nil, errNotLocal
	}
	var d net.Dialer
	for _, name := range localNames(a) {
		conn, err := d.DialContext(ctx, "unix", name)
		if err != nil {
			continue
		}
		if isTrusted(conn.(*net.UnixConn)) {
			widen(conn)
			return conn, nil
		}
		conn.Close()
	}
	return nil, errNotLocal
}

// isLocal tells whether an address is one of this machine's.
func isLocal(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a
	})
}

// isLocalConn tells whether the other end of a connection is on this machine.
func isLocalConn(c net.Conn) bool {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	return !ok || isLocal(tcp.AddrPort().Addr().Unmap())
}
