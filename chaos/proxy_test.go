package chaos

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// newEcho is a node that sends back what comes by TCP to either of its addresses, behind a
// proxy to which everybody else is node 1.
func newEcho(t *testing.T) (*wires, *proxy) {
	t.Helper()
	gossip, datagrams, err := listenBoth()
	if err != nil {
		t.Fatal(err)
	}
	grpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []net.Listener{gossip, grpc} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
			}
		}()
	}
	w := newWires(2, 1)
	p, err := newProxy(w, 0, gossip.Addr().String(), grpc.Addr().String(), func(a net.Addr) (int, bool) { return 1, true })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(w.closed)
		if err := errors.Join(p.close(), gossip.Close(), grpc.Close(), datagrams.Close()); err != nil {
			t.Error(err)
		}
	})
	return w, p
}

func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// says sends a word and reports whether it came back within a time, and after how long.
func says(t *testing.T, c net.Conn, word string, within time.Duration) (back bool, took time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := c.Write([]byte(word)); err != nil {
		t.Fatal(err)
	}
	return hears(t, c, word, within), time.Since(began)
}

func hears(t *testing.T, c net.Conn, word string, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(word))
	_, err := io.ReadFull(c, got)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	if err != nil || string(got) != word {
		t.Fatalf("%q came back as %q (%v)", word, got, err)
	}
	return true
}

const (
	soon  = 20 * time.Second       // for what should come
	never = 100 * time.Millisecond // for what should not
)

func TestAProxyCarriesBothWays(t *testing.T) {
	_, p := newEcho(t)
	for _, l := range []net.Listener{p.gossip, p.grpc} {
		c := dial(t, l.Addr())
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("a megabyte came back otherwise (%v)", err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(got); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d bytes, %v", n, err)
		}
	}
}

// What is cut comes once the way is open again, by TCP; the other way goes on meanwhile.
func TestAWayThatIsCutHoldsTCP(t *testing.T) {
	w, p := newEcho(t)
	c := dial(t, p.grpc.Addr())
	if back, _ := says(t, c, "one", soon); !back {
		t.Fatal("nothing came back")
	}
	for _, cut := range []way{{1, 0}, {0, 1}} {
		w.set([]way{cut}, true)
		if back, _ := says(t, c, "two", never); back {
			t.Errorf("%v is cut, and all is as before", cut)
		}
		fresh := dial(t, p.grpc.Addr()) // is accepted
		if back, _ := says(t, fresh, "three", never); back {
			t.Errorf("%v is cut, and a new connection works", cut)
		}
		w.set([]way{cut}, false)
		if !hears(t, c, "two", soon) || !hears(t, fresh, "three", soon) {
			t.Errorf("%v is open again, and what was sent does not come", cut)
		}
	}
}

func TestTheEndOfAConnectionWaitsForItsWay(t *testing.T) {
	w, p := newEcho(t)
	c := dial(t, p.grpc.Addr())
	if back, _ := says(t, c, "one", soon); !back {
		t.Fatal("nothing came back")
	}
	cut := []way{{1, 0}, {0, 1}}
	w.set(cut, true)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(never)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the far end has heard of it: %v", err)
	}
	w.set(cut, false)
	if err := c.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, want the end", err)
	}
}

func TestDelayLossAndBandwidthTakeTheirTime(t *testing.T) {
	w, p := newEcho(t)
	c := dial(t, p.grpc.Addr())
	lift := w.tolls[1].add(Fault{N: 1, Kind: Delay, Amount: 60})
	if back, took := says(t, c, "one", soon); !back || took < 60*time.Millisecond {
		t.Errorf("delayed by 60 ms, back after %v", took)
	}
	lift()
	lift = w.tolls[0].add(Fault{N: 2, Kind: Loss, Amount: 1})
	if back, took := says(t, c, "two", soon); !back || took < resend {
		t.Errorf("lost and sent again, back after %v", took)
	}
	lift()
	w.limit(0, 1)
	word := string(bytes.Repeat([]byte("x"), 12500)) // 100 kbit, twice
	if back, took := says(t, c, word, soon); !back || took < 190*time.Millisecond {
		t.Errorf("200 kbit at 1 Mbit/s took %v", took)
	}
	w.limit(0, 0)
	if back, took := says(t, c, word, soon); !back || took > 10*time.Second {
		t.Errorf("without a limit it took %v", took)
	}
}

// A datagram that is cut or lost never comes.
func TestAWayThatIsCutLosesDatagrams(t *testing.T) {
	w := newWires(2, 1)
	came := make(chan string, 10)
	send := func(word string) { w.datagram(way{0, 1}, func() { came <- word }) }
	send("a")
	w.set([]way{{0, 1}}, true)
	send("b")
	w.set([]way{{0, 1}}, false)
	lift := w.tolls[0].add(Fault{N: 1, Kind: Loss, Amount: 1})
	send("c")
	lift()
	lift = w.tolls[0].add(Fault{N: 2, Kind: Delay, Amount: 50})
	began := time.Now()
	send("d")
	lift()
	if a, d := <-came, <-came; a != "a" || d != "d" || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%q and %q came, after %v", a, d, time.Since(began))
	}
}

// Datagrams come to the node by the proxy; answers go where senders say that they are.
func TestAProxyCarriesDatagrams(t *testing.T) {
	node, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	w := newWires(2, 1)
	p, err := newProxy(w, 0, node.LocalAddr().String(), "127.0.0.1:1", func(net.Addr) (int, bool) { return 1, true })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		close(w.closed)
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	c := dial(t, p.datagrams.LocalAddr())
	if _, err := c.Write([]byte("news")); err != nil {
		t.Fatal(err)
	}
	if err := node.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if n, _, err := node.ReadFrom(got); err != nil || string(got[:n]) != "news" {
		t.Errorf("%q came (%v)", got[:n], err)
	}
}

// Where the node has no process, a connection by its proxy ends.
func TestNobodyBehindAProxyIsARefusal(t *testing.T) {
	gossip, datagrams, err := listenBoth()
	if err != nil {
		t.Fatal(err)
	}
	addr := gossip.Addr().String()
	if err := errors.Join(gossip.Close(), datagrams.Close()); err != nil {
		t.Fatal(err)
	}
	w := newWires(2, 1)
	p, err := newProxy(w, 0, addr, addr, func(net.Addr) (int, bool) { return 1, true })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		close(w.closed)
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	c, err := net.Dial("tcp", p.grpc.Addr().String())
	if err != nil {
		return // it was that quick
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want the connection to end", err)
	}
}
