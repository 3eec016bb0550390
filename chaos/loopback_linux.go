package chaos

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// loopback is all nodes on 127.0.0.1, each behind a proxy. Faults of the network happen in
// the proxies' wires.
type loopback struct {
	nodes   int
	gossips []string // where nodes listen, for gossip and for gRPC
	grpcs   []string
	w       *wires
	cuts    cuts
	proxies []*proxy

	mu   sync.Mutex
	pids []int
}

func newLoopback(nodes int, seed uint64) (*loopback, error) {
	l := &loopback{nodes: nodes, w: newWires(nodes, seed), cuts: newCuts(nodes), pids: make([]int, nodes)}
	for range nodes {
		gossip, grpc, err := freePorts()
		if err != nil {
			return nil, err
		}
		l.gossips, l.grpcs = append(l.gossips, gossip), append(l.grpcs, grpc)
	}
	for i := range nodes {
		p, err := newProxy(l.w, i, l.gossips[i], l.grpcs[i], l.who)
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		l.proxies = append(l.proxies, p)
		l.w.limit(i, linkRate)
	}
	return l, nil
}

// freePorts returns two addresses on which nobody listens.
func freePorts() (gossip, grpc string, err error) {
	a, c, err := listenBoth()
	if err != nil {
		return "", "", err
	}
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", errors.Join(err, a.Close(), c.Close())
	}
	return a.Addr().String(), b.Addr().String(), errors.Join(a.Close(), b.Close(), c.Close())
}

func (l *loopback) name() string { return "loopback, a proxy before each node" }

func (l *loopback) kinds() []Kind {
	return []Kind{LinkDown, Partition, OneWay, Delay, Loss, Bandwidth}
}

func (l *loopback) through(int) []string { return nil }

func (l *loopback) flags(i int) []string {
	p := l.proxies[i]
	return []string{"--bind", p.gossipTo, "--grpc", p.grpcTo, "--advertise", l.gossip(i), "--advertise-grpc", p.grpc.Addr().String()}
}

func (l *loopback) gossip(i int) string { return l.proxies[i].gossip.Addr().String() }

func (l *loopback) server(i int) string { return l.grpcs[i] }

func (l *loopback) started(i, pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pids[i] = pid
}

func (l *loopback) strike(f Fault, victim int) (heal func() error, err error) {
	set := func(cut bool) func([]way) error {
		return func(all []way) error {
			l.w.set(all, cut)
			return nil
		}
	}
	switch f.Kind {
	case LinkDown:
		in, out := f, f
		in.Kind, in.Direction, out.Kind, out.Direction = OneWay, In, OneWay, Out
		return l.cuts.strike(append(ways(in, victim, l.nodes), ways(out, victim, l.nodes)...), set(true), set(false))
	case Partition, OneWay:
		return l.cuts.strike(ways(f, victim, l.nodes), set(true), set(false))
	case Delay, Loss:
		lift := l.w.tolls[victim].add(f)
		return func() error { lift(); return nil }, nil
	case Bandwidth:
		l.w.limit(victim, f.Amount)
		return func() error { l.w.limit(victim, linkRate); return nil }, nil
	}
	panic(fmt.Sprintf("chaos: %s is no fault of a network", f.Kind))
}

func (l *loopback) close() error {
	close(l.w.closed)
	var errs []error
	for _, p := range l.proxies {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// who tells which node sends from an address: that of its gossip, or one that its process
// has a socket on.
func (l *loopback) who(addr net.Addr) (node int, ok bool) {
	if u, ok := addr.(*net.UDPAddr); ok {
		node = slices.Index(l.gossips, u.String())
		return node, node >= 0
	}
	inode := socketAt(addr.(*net.TCPAddr).Port)
	if inode == "" {
		return 0, false
	}
	l.mu.Lock()
	pids := slices.Clone(l.pids)
	l.mu.Unlock()
	for i, pid := range pids {
		if pid > 0 && hasSocket(pid, inode) {
			return i, true
		}
	}
	return 0, false
}

// socketAt returns the inode of the socket on a local TCP port that is connected.
func socketAt(port int) (inode string) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	local := fmt.Sprintf("0100007F:%04X", port)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 9 && f[1] == local && f[9] != "0" {
			return f[9]
		}
	}
	return ""
}

func hasSocket(pid int, inode string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	names, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended
	}
	for _, n := range names {
		if to, err := os.Readlink(filepath.Join(dir, n.Name())); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
