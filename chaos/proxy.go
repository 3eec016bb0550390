package chaos

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// wires are what proxies carry bytes over: a way from each node to each other. A way that
// is cut carries nothing: what was sent waits where it is, as TCP would send it again, and
// datagrams are lost. So a connection that is made while its way is cut is accepted, and
// nothing comes of it until the way is open again.
type wires struct {
	tolls []*toll // of what a node sends

	mu     sync.Mutex
	open   chan struct{} // closed and replaced when a way was opened
	cut    map[way]bool
	rates  map[int]float64 // bytes per second that a node's link carries; none if absent
	busy   []time.Time     // until when a node's link is taken
	closed chan struct{}
}

func newWires(nodes int, seed uint64) *wires {
	w := &wires{open: make(chan struct{}), cut: map[way]bool{}, rates: map[int]float64{}, busy: make([]time.Time, nodes), closed: make(chan struct{})}
	for i := range nodes {
		w.tolls = append(w.tolls, newToll(seed+uint64(i)))
	}
	return w
}

// set cuts ways, or opens them.
func (w *wires) set(all []way, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range all {
		w.cut[x] = cut
	}
	if !cut {
		close(w.open)
		w.open = make(chan struct{})
	}
}

func (w *wires) isCut(x way) (cut bool, opened <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cut[x], w.open
}

var errClosed = errors.New("the wires are taken down")

// await waits until a way is open.
func (w *wires) await(x way) error {
	for {
		cut, opened := w.isCut(x)
		if !cut {
			return nil
		}
		select {
		case <-opened:
		case <-w.closed:
			return errClosed
		}
	}
}

// limit sets what a node's link carries, in Mbit/s; 0 for all there is.
func (w *wires) limit(node int, mbit float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.rates, node); mbit > 0 {
		w.rates[node] = mbit * 1e6 / 8
	}
}

// occupy takes the links at both ends of a way for some bytes, and returns until when.
func (w *wires) occupy(x way, bytes int) (until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, node := range []int{x.from, x.to} {
		if rate := w.rates[node]; rate > 0 {
			now := time.Now()
			if w.busy[node].Before(now) {
				w.busy[node] = now
			}
			w.busy[node] = w.busy[node].Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
			if until.Before(w.busy[node]) {
				until = w.busy[node]
			}
		}
	}
	return until
}

func (w *wires) sleep(until time.Time) error {
	wait := time.Until(until)
	if wait <= 0 {
		return nil
	}
	select {
	case <-time.After(wait):
		return nil
	case <-w.closed:
		return errClosed
	}
}

// resend is how long it takes TCP to see that a segment was lost, and to send it again.
const resend = 200 * time.Millisecond

// carry brings what comes in to where it belongs, until either ends or the wires are taken
// down. The end comes last, when the way is open.
func (w *wires) carry(x way, to io.Writer, from io.Reader) error {
	type piece struct {
		due  time.Time
		data []byte
	}
	queue, stop := make(chan piece, 64), make(chan struct{})
	var ended error // of from
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(queue)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				hold, lost := w.tolls[x.from].pass()
				if lost {
					hold += resend
				}
				select {
				case queue <- piece{time.Now().Add(hold), buf[:n]}:
				case <-stop:
					return
				case <-w.closed:
					return
				}
			}
			if err != nil {
				ended = err
				return
			}
		}
	})
	err := func() error {
		for p := range queue {
			if err := w.sleep(p.due); err != nil {
				return err
			}
			if err := w.await(x); err != nil {
				return err
			}
			if err := w.sleep(w.occupy(x, len(p.data))); err != nil {
				return err
			}
			if _, err := to.Write(p.data); err != nil {
				return err
			}
		}
		return w.await(x)
	}()
	close(stop)
	if err != nil {
		return err // whoever called closes from, and so ends the reading
	}
	reading.Wait()
	return ended
}

// datagram brings one datagram on, or loses it.
func (w *wires) datagram(x way, send func()) {
	hold, lost := w.tolls[x.from].pass()
	if cut, _ := w.isCut(x); cut || lost {
		return
	}
	if hold == 0 {
		send()
		return
	}
	time.AfterFunc(hold, func() {
		if cut, _ := w.isCut(x); !cut {
			send()
		}
	})
}

// proxy stands in front of a node: others are told its addresses for those of the node.
// The gossip has one for TCP and UDP.
type proxy struct {
	w          *wires
	node       int
	who        func(net.Addr) (node int, ok bool) // sends from an address
	gossip     net.Listener
	datagrams  net.PacketConn
	grpc       net.Listener
	gossipTo   string // where the node itself listens
	grpcTo     string
	wait       sync.WaitGroup
	mu         sync.Mutex
	conns      []net.Conn // open ones, and some that are not
	isClosed   bool
	datagramTo net.Addr
}

// newProxy listens for a node. Where that listens itself must be free to be chosen: it
// tells by gossipTo and grpcTo.
func newProxy(w *wires, node int, gossipTo, grpcTo string, who func(net.Addr) (int, bool)) (*proxy, error) {
	p := &proxy{w: w, node: node, who: who, gossipTo: gossipTo, grpcTo: grpcTo}
	var err error
	if p.datagramTo, err = net.ResolveUDPAddr("udp", gossipTo); err != nil {
		return nil, err
	}
	if p.gossip, p.datagrams, err = listenBoth(); err != nil {
		return nil, err
	}
	if p.grpc, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, p.gossip.Close(), p.datagrams.Close())
	}
	p.wait.Go(func() { p.accept(p.gossip, p.gossipTo) })
	p.wait.Go(func() { p.accept(p.grpc, p.grpcTo) })
	p.wait.Go(p.take)
	return p, nil
}

// listenBoth listens to TCP and UDP on one port.
func listenBoth() (l net.Listener, c net.PacketConn, err error) {
	for range 100 {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if c, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			return l, c, nil
		}
		err = errors.Join(err, l.Close())
	}
	return nil, nil, fmt.Errorf("no port is free for TCP and UDP: %w", err)
}

func (p *proxy) accept(l net.Listener, to string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		from, ok := p.who(conn.RemoteAddr())
		if !ok || !p.keep(conn) {
			hangUp(conn) // whoever it was is gone
			continue
		}
		p.wait.Go(func() { p.serve(conn, from, to) })
	}
}

// keep remembers a connection, so that close ends it.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed {
		return false
	}
	p.conns = append(p.conns, c)
	return true
}

// forget closes a connection that is of no use any more.
func (p *proxy) forget(c net.Conn) {
	hangUp(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
}

// hangUp resets a connection, as the death of a process does one with bytes unread.
func hangUp(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // it may be closed
	}
	_ = c.Close() // likewise
}

// serve brings a connection of a node to the one that the proxy stands for.
func (p *proxy) serve(conn net.Conn, from int, to string) {
	defer p.forget(conn)
	out, in := way{from, p.node}, way{p.node, from}
	if p.w.await(out) != nil || p.w.await(in) != nil {
		return
	}
	far, err := net.Dial("tcp", to)
	if err != nil {
		return // nobody listens there: refused, as it would be without us
	}
	if !p.keep(far) {
		hangUp(far)
		return
	}
	defer p.forget(far)
	var wait sync.WaitGroup
	for _, c := range []struct {
		way      way
		to, from net.Conn
	}{{out, far, conn}, {in, conn, far}} {
		wait.Go(func() {
			err := p.w.carry(c.way, c.to, c.from)
			if t, ok := c.to.(*net.TCPConn); ok && errors.Is(err, io.EOF) && t.CloseWrite() == nil {
				return // the other way may go on
			}
			hangUp(conn)
			hangUp(far)
		})
	}
	wait.Wait()
}

func (p *proxy) take() {
	buf := make([]byte, 64<<10)
	for {
		n, addr, err := p.datagrams.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		from, ok := p.who(addr)
		if err != nil || !ok {
			continue // the node's port may be closed at the moment; or a stranger
		}
		data := slices.Clone(buf[:n])
		p.w.datagram(way{from, p.node}, func() {
			_, _ = p.datagrams.WriteTo(data, p.datagramTo) // a datagram may be lost
		})
	}
}

func (p *proxy) close() error {
	p.mu.Lock()
	p.isClosed = true
	conns := slices.Clone(p.conns)
	p.mu.Unlock()
	err := errors.Join(p.gossip.Close(), p.grpc.Close(), p.datagrams.Close())
	for _, c := range conns {
		hangUp(c)
	}
	p.wait.Wait()
	return err
}
