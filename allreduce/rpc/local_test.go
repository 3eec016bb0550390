package rpc

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// across makes a world whose nodes may use unix sockets, and returns how their links' connections are named.
func across(t *testing.T, addr func(n *node) string) (networks []string) {
	nodes := []*node{newNode(t, 0), newNode(t, 1), newNode(t, 2)}
	for _, n := range nodes {
		l := listen(t)
		n.listener = l
		n.server.Close()
		n.server = Serve(ServerConfig{Listener: l, GroupWait: time.Second})
	}
	for rank, n := range nodes {
		n.start(rank, nodes, func(c *GroupConfig) {
			for i, o := range nodes {
				c.Addrs[i] = addr(o)
			}
		})
	}
	up(t, nodes)
	reduce(t, nodes, 1, 100_000)
	for _, p := range nodes[0].group.peers {
		if p != nil && p.link.Load() != nil {
			networks = append(networks, p.link.Load().conn.RemoteAddr().Network())
		}
	}
	return networks
}

func TestNodesOfOneMachineUseUnixSockets(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("abstract sockets are Linux'")
	}
	for _, n := range across(t, func(n *node) string { return n.listener.addr() }) {
		if n != "unix" {
			t.Errorf("a link goes over %s", n)
		}
	}
}

func TestANodeWithoutAUnixSocketIsReachedByTCP(t *testing.T) {
	l := listen(t)
	defer l.Close()
	if conn, err := dialLocal(t.Context(), l.addr()); err == nil {
		t.Fatalf("reached %s", conn.RemoteAddr())
	}
	link := &link{linkConfig: linkConfig{timeout: time.Second}}
	conn, err := link.dial(t.Context(), l.addr())
	if err != nil || conn.RemoteAddr().Network() != "tcp" {
		t.Fatal(conn, err)
	}
	conn.Close()
}

func TestAnAddressOfAnotherMachineIsNeverLookedForHere(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:7000", "[2001:db8::1]:7000", "example.invalid:7000", "7000"} {
		if _, err := dialLocal(context.Background(), addr); err == nil {
			t.Errorf("%s was found on this machine", addr)
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !isLocal(p.Addr()) {
			t.Errorf("%s is not taken for this machine's", a)
		}
	}
}

func TestASocketNameThatIsTakenLeavesTCP(t *testing.T) {
	l := listen(t)
	first := listenLocal(l)
	if first == nil {
		t.Skip("no abstract sockets")
	}
	defer first.Close()
	s := Serve(ServerConfig{Listener: l})
	defer s.Close()
	c := NewClient(ClientConfig{})
	defer c.Close()
	if _, err := c.Ping(t.Context(), s.Addr(), 0); KindOf(err) != Rejected {
		t.Errorf("over TCP: %v", err)
	}
}

func TestPooledBuffersHaveTheLengthThatWasAskedFor(t *testing.T) {
	p := new(wirePool)
	for _, n := range []int{0, 1, 2, 3, 1000, 1024, 1025, 16384, 1 << 20, 1<<20 + 1, 5 << 20} {
		for range 3 {
			b := p.Get(n)
			if len(*b) != n {
				t.Fatalf("%d bytes for %d", len(*b), n)
			}
			p.Put(b)
		}
	}
	other := make([]byte, 1000) // not of this pool
	p.Put(&other)
	if b := p.Get(1000); cap(*b) < 1000 {
		t.Fatal(cap(*b))
	}
}
