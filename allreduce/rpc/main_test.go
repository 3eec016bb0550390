package rpc

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/internal/kernel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listener is a real one that can cut and freeze the connections it has accepted.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []*conn
}

type conn struct {
	*net.TCPConn
	once sync.Once
	thaw chan struct{} // closed by thaw and Close
	cold chan struct{} // closed by freeze
}

func listen(t testing.TB) *listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &listener{Listener: l}
}

func (l *listener) addr() string { return l.Addr().String() }

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	wrapped := &conn{TCPConn: c.(*net.TCPConn), thaw: make(chan struct{}), cold: make(chan struct{})}
	l.conns = append(l.conns, wrapped)
	return wrapped, nil
}

// Read stops while frozen, as a stopped process does.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	select {
	case <-c.cold:
		<-c.thaw
	default:
	}
	return n, err
}

func (c *conn) Close() error {
	c.once.Do(func() { close(c.thaw) })
	return c.TCPConn.Close()
}

// cut resets all connections, as the kernel of a killed process does.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.SetLinger(0) // fails if closed already
		c.Close()
	}
	l.conns = nil
}

// freeze stops reading from all connections until they are closed.
func (l *listener) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		close(c.cold)
	}
}

// node is a server with at most one group.
type node struct {
	id       string
	listener *listener
	server   *Server
	group    *Group
	done     chan outcome
	down     chan downfall
}

type outcome struct {
	seq     uint64
	headers []string
	total   uint64
	out     []float32
}

type downfall struct {
	allreduce.ClosingNote
	at time.Time
}

func newNode(t testing.TB, rank int) *node {
	n := &node{
		id: fmt.Sprintf("node-%d", rank), listener: listen(t),
		done: make(chan outcome, 1), down: make(chan downfall, 2),
	}
	n.server = Serve(ServerConfig{Listener: n.listener, Local: TCP, GroupWait: 300 * time.Millisecond, Generation: func() uint64 { return 7 }})
	t.Cleanup(func() { n.close(t) })
	return n
}

// close shuts the node down and checks that its group was Down exactly once.
func (n *node) close(t testing.TB) {
	n.server.Close()
	n.server.Close()
	if n.group == nil {
		return
	}
	n.group.Wait()
	if n.group.Close(allreduce.Fatal, "x", "too late"); len(n.down) > 1 {
		t.Errorf("%s: Down %d times", n.id, len(n.down))
	}
}

var fence = allreduce.Fence{0xfe, 0xce}

// start makes the node's group in a world of all nodes.
func (n *node) start(rank int, nodes []*node, change func(*GroupConfig)) {
	cfg := GroupConfig{
		Group: allreduce.GroupConfig{Config: allreduce.Config{Rank: rank, World: len(nodes), Fence: fence, SegmentBytes: 4096}},
		Done: func(seq uint64, headers [][]byte, total uint64, out []float32) {
			r := outcome{seq: seq, total: total, out: out}
			for _, h := range headers {
				r.headers = append(r.headers, string(h))
			}
			n.done <- r
		},
		Down: func(note allreduce.ClosingNote) { n.down <- downfall{note, time.Now()} },
	}
	for _, o := range nodes {
		cfg.Group.Names = append(cfg.Group.Names, o.id)
		cfg.Addrs = append(cfg.Addrs, o.listener.addr())
	}
	if change != nil {
		change(&cfg)
	}
	n.group = StartGroup(n.server, cfg)
}

// newWorld makes a world of nodes with their groups.
func newWorld(t testing.TB, world int, change func(*GroupConfig)) []*node {
	var nodes []*node
	for rank := range world {
		nodes = append(nodes, newNode(t, rank))
	}
	for rank, n := range nodes {
		n.start(rank, nodes, change)
	}
	return nodes
}

// op is an op whose result is the sum of i+rank over ranks, with the rank as header.
func (n *node) op(seq uint64, length int) allreduce.Op {
	op := allreduce.Op{
		Seq: seq, Header: []byte(n.id), Vec: make([]float64, length), Out: make([]float32, length),
		Finish: func(_, _ int, total []float64, _ [][]byte, out []float32) uint64 {
			return kernel.Narrow(out, total, 1)
		},
	}
	for i := range op.Vec {
		op.Vec[i] = float64(i)
	}
	return op
}

// up waits until all streams of every node are there.
func up(t testing.TB, nodes []*node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, n.id+" is set up", func() bool {
			return !slices.ContainsFunc(n.group.Progress().Peers, func(p PeerProgress) bool { return p.Linked != p.Up })
		})
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

func wait[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("not within 5 s: %s", what)
	}
	return v
}
