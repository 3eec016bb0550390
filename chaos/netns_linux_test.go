package chaos

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
)

// places is three namespaces with a socket in each; the test is skipped where they can't
// be made.
type places struct {
	*netns
	t     *testing.T
	socks []net.PacketConn
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	n, err := newNetns(3, 1)
	if err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	p := &places{netns: n, t: t}
	t.Cleanup(func() {
		for _, c := range p.socks {
			c.Close()
		}
		if err := n.close(); err != nil {
			t.Error(err)
		}
		names, err := lives.List()
		if err != nil || slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, strings.TrimSuffix(n.Switch(), "sw")) }) {
			t.Errorf("namespaces are left: %v (%v)", names, err)
		}
	})
	for i := range n.nodes {
		c, err := inNetns(n.Name(i), func() (net.PacketConn, error) { return net.ListenPacket("udp", n.IP(i)+":7000") })
		if err != nil {
			t.Fatal(err)
		}
		p.socks = append(p.socks, c)
	}
	return p
}

// reach sends datagrams, one of which may be lost while an address is looked up, and
// reports whether one comes within a time, and after how long.
func (p *places) reach(w way, within time.Duration) (ok bool, took time.Duration) {
	p.t.Helper()
	buf := make([]byte, 1500)
	for began := time.Now(); time.Since(began) < within; {
		sent := time.Now()
		word := sent.String()
		// Where a route is missing the system refuses: it does not come, either.
		_, _ = p.socks[w.from].WriteTo([]byte(word), p.socks[w.to].LocalAddr())
		if err := p.socks[w.to].SetReadDeadline(sent.Add(min(within, time.Second))); err != nil {
			p.t.Fatal(err)
		}
		for {
			n, _, err := p.socks[w.to].ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				p.t.Fatal(err)
			}
			if string(buf[:n]) == word {
				return true, time.Since(sent)
			}
		}
	}
	return false, 0
}

// open checks that ways are open but for some.
func (p *places) open(but ...way) {
	p.t.Helper()
	for i := range p.nodes {
		for j := range p.nodes {
			w := way{i, j}
			if i == j {
				continue
			}
			shut := slices.Contains(but, w)
			within := soon
			if shut {
				within = never
			}
			if ok, _ := p.reach(w, within); ok == shut {
				p.t.Errorf("%v: a datagram comes: %v", w, ok)
			}
		}
	}
}

func (p *places) strike(f Fault, victim int) (heal func()) {
	p.t.Helper()
	undo, err := p.netns.strike(f, victim)
	if err != nil {
		p.t.Fatal(err)
	}
	return func() {
		p.t.Helper()
		if err := undo(); err != nil {
			p.t.Fatal(err)
		}
	}
}

func TestNamespacesLoseWhatFaultsCut(t *testing.T) {
	p := newPlaces(t)
	p.open()
	for _, f := range []Fault{
		{Kind: Partition, With: []int{0}}, {Kind: OneWay, Direction: Out}, {Kind: OneWay, Direction: In}, {Kind: OneWay, Direction: Pair, With: []int{2}},
	} {
		heal := p.strike(f, 1)
		p.open(ways(f, 1, 3)...)
		heal()
		p.open()
	}
	heal := p.strike(Fault{Kind: LinkDown}, 2)
	again := p.strike(Fault{Kind: LinkDown}, 2)
	p.open(way{2, 0}, way{2, 1}, way{0, 2}, way{1, 2})
	heal()
	p.open(way{2, 0}, way{2, 1}, way{0, 2}, way{1, 2})
	again()
	p.open()
}

func TestNamespacesHoldUpWhatANodeSends(t *testing.T) {
	p := newPlaces(t)
	if err := p.lacks(Delay); err != nil {
		t.Skip(err)
	}
	p.open()
	slow := p.strike(Fault{N: 1, Kind: Delay, Amount: 80}, 0)
	if ok, took := p.reach(way{0, 1}, soon); !ok || took < 80*time.Millisecond {
		t.Errorf("held for 80 ms, it comes (%v) after %v", ok, took)
	}
	lossy := p.strike(Fault{N: 2, Kind: Loss, Amount: 1}, 0)
	p.open(way{0, 1}, way{0, 2})
	cut := p.strike(Fault{N: 3, Kind: OneWay, Direction: Pair, With: []int{1}}, 0)
	lossy()
	slow()
	p.open(way{0, 1})
	cut()
	p.open()
}

func TestNamespacesLimitBandwidth(t *testing.T) {
	p := newPlaces(t)
	if err := p.lacks(Bandwidth); err != nil {
		t.Skip(err)
	}
	l, err := inNetns(p.Name(1), func() (net.Listener, error) { return net.Listen("tcp", p.IP(1)+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, c)
			c.Close()
			received <- n
		}
	}()
	send := func() time.Duration {
		t.Helper()
		c, err := inNetns(p.Name(0), func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) })
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := c.Write(make([]byte, 500_000)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if n := <-received; n != 500_000 {
			t.Fatalf("%d bytes came", n)
		}
		return time.Since(began)
	}
	heal := p.strike(Fault{Kind: Bandwidth, Amount: 5}, 0)
	limited := send()
	if limited < 500*time.Millisecond {
		t.Errorf("4 Mbit at 5 Mbit/s took %v", limited)
	}
	heal()
	if took := send(); took > limited/2 {
		t.Errorf("4 Mbit at %d Mbit/s took %v, at 5 Mbit/s %v", linkRate, took, limited)
	}
}

func TestADiskFillsUpAndIsEmptiedAgain(t *testing.T) {
	l := newLimits(t.TempDir(), 1)
	defer func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}()
	if l.disks == nil {
		t.Skip(l.why)
	}
	path := filepath.Join(l.checkpoints(0), "file")
	write := func() error { return os.WriteFile(path, make([]byte, 100_000), 0o644) }
	if err := write(); err != nil {
		t.Fatal(err)
	}
	heal, err := l.strike(Fault{Kind: FullDisk}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"2", make([]byte, 100_000), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the disk is full, and a file is written: %v", err)
	}
	if err := errors.Join(os.Remove(path+"2"), heal(), write()); err != nil {
		t.Error(err)
	}
}
