package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/dlnode/dlnode/cluster/view"
)

// farewellTimeout bounds the direct part of Leave: one small message to each
// node over TCP. Whoever can't be told that way learns it from gossip.
const farewellTimeout = 500 * time.Millisecond

// Gossip is this node's part in the cluster's gossip.
type Gossip struct {
	cfg    Config
	self   view.Node
	addr   netip.AddrPort // advertised
	link   *link
	list   *memberlist.Memberlist
	log    *logBridge
	mail   *mailbox
	peers  *peers
	search *search
	emit   func(Event)

	fact  sync.Mutex
	meta  []byte        // the encoded fact; never written in place
	fresh chan struct{} // meta has not been announced yet

	life   sync.Mutex // guards closed, left and adding to tasks
	closed bool
	left   bool

	ctx      context.Context // ends in Close
	stop     context.CancelFunc
	work     context.Context // ends in Leave: searching and announcing
	stopWork context.CancelFunc
	tasks    sync.WaitGroup
	once     sync.Once
}

// Start listens, announces fact and begins to look for the nodes that cfg
// names. emit gets the events about other nodes, one after the other, from one
// goroutine that lives until Close; the first may come before Start returns.
// emit must return soon, must not call Close or Leave, and may call Update.
//
// Errors: an invalid configuration, an address that can't be listened on, and
// without cfg.Wait a *JoinError when no seed could be joined in JoinTimeout.
func Start(cfg Config, fact view.Fact, emit func(Event)) (*Gossip, error) {
	cfg = cfg.withDefaults()
	bind, advertise, seeds, err := cfg.check()
	if err != nil {
		return nil, err
	}
	g := newGossip(cfg, seeds, emit)
	g.meta = g.encode(fact)
	if err := g.open(bind, advertise); err != nil {
		return nil, err
	}
	g.tasks.Go(g.deliver)
	g.tasks.Go(g.announce)
	g.tasks.Go(func() { g.search.run(g.work) })
	if cfg.Wait {
		return g, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.JoinTimeout)
	defer cancel()
	if err := g.search.wait(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func newGossip(cfg Config, seeds []seed, emit func(Event)) *Gossip {
	g := &Gossip{
		cfg: cfg, self: cfg.node(), emit: emit,
		log:   &logBridge{to: cfg.Log},
		mail:  newMailbox(),
		peers: newPeers(),
		fresh: make(chan struct{}, 1),
	}
	g.search = newSearch(cfg, seeds, g.peers)
	g.search.self, g.search.join = g.isSelf, g.join
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.work, g.stopWork = context.WithCancel(g.ctx)
	return g
}

// open takes the port and starts memberlist on it.
func (g *Gossip) open(bind, advertise netip.AddrPort) (err error) {
	if g.link, err = listen(g.ctx, g.cfg, bind, g.log); err != nil {
		return err
	}
	port := uint16(g.link.GetAutoBindPort())
	g.link.bound = netip.AddrPortFrom(bind.Addr(), port)
	if advertise.Port() != 0 {
		port = advertise.Port()
	}
	g.addr = netip.AddrPortFrom(advertise.Addr(), port)
	if g.list, err = memberlist.Create(g.settings()); err != nil {
		g.stop()
		return errors.Join(fmt.Errorf("cluster: start gossip on %s: %w", g.link.bound, err), g.link.Shutdown())
	}
	return nil
}

// settings translates the configuration. What it doesn't mention is as in
// memberlist's own configuration for a local network, awareness of this node's
// own slowness (Lifeguard) among it.
func (g *Gossip) settings() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.self.String()
	c.Transport = g.link
	c.BindAddr, c.BindPort = g.link.bound.Addr().String(), int(g.link.bound.Port())
	c.AdvertiseAddr, c.AdvertisePort = g.addr.Addr().String(), int(g.addr.Port())
	c.Label = labelPrefix + g.cfg.Label
	c.SkipInboundLabelCheck = false
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	if len(g.cfg.Secret) > 0 {
		key := sha256.Sum256(g.cfg.Secret)
		c.SecretKey = key[:]
	}
	c.ProbeInterval, c.ProbeTimeout = g.cfg.ProbeInterval, g.cfg.ProbeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = g.cfg.SuspicionMult, 2
	c.GossipInterval, c.GossipToTheDeadTime = g.cfg.GossipInterval, g.cfg.GhostFor
	c.TCPTimeout = g.cfg.StreamTimeout
	c.PushPullInterval = 15 * time.Second
	c.EnableCompression = false // facts are hashes: they don't shrink
	c.Logger = g.log.logger()
	c.Delegate, c.Events = delegate{g}, delegate{g}
	return c
}

// Addr returns the gossip address that others are told, "ip:port".
func (g *Gossip) Addr() string { return g.addr.String() }

// Joined waits until a cluster was found, which without seeds it is at once,
// and emit was told of everybody in it. It returns a *JoinError when ctx ends
// before, and at once when a seed turns out to use another secret (errors.Is
// ErrSecret). The search goes on anyway. Don't call it from emit.
func (g *Gossip) Joined(ctx context.Context) error {
	if err := g.search.wait(ctx); err != nil {
		return err
	}
	select {
	case <-g.mail.settled():
		return nil
	case <-g.ctx.Done():
		return errors.New("cluster: closed")
	case <-ctx.Done():
		return fmt.Errorf("cluster: found, but not all of it was told: %w", context.Cause(ctx))
	}
}

// Status is a summary for people.
type Status struct {
	Addr   string // gossip address told to others
	Joined bool   // a cluster was found once, or there was none to look for
	Live   int    // other nodes believed alive
	Lost   int    // nodes that vanished and are still looked for
	Health int    // Lifeguard's score of this node: 0 is well, more is slow to react
	Failed []Try  // what failed in the last round of the search
}

// Status returns how gossip is doing.
func (g *Gossip) Status() Status {
	s := Status{Addr: g.Addr(), Health: g.list.GetHealthScore()}
	s.Joined, s.Failed, _ = g.search.state()
	s.Live, s.Lost = g.peers.count()
	return s
}

// Others returns the gossip addresses, "ip:port", of all others that seem to live:
// whom another life of this node may look for.
func (g *Gossip) Others() (addrs []string) {
	for _, addr := range g.peers.all() {
		addrs = append(addrs, addr.String())
	}
	slices.Sort(addrs)
	return addrs
}

// Update makes fact the one that others get to know. It returns at once: facts
// are announced at most every UpdateEvery, and only the newest one is.
func (g *Gossip) Update(fact view.Fact) {
	meta := g.encode(fact)
	g.fact.Lock()
	defer g.fact.Unlock()
	if bytes.Equal(g.meta, meta) {
		return
	}
	g.meta = meta
	select {
	case g.fresh <- struct{}{}:
	default: // the announcer will find the newest
	}
}

// encode returns a fact as gossip carries it.
func (g *Gossip) encode(fact view.Fact) []byte {
	meta := fact.Append(nil)
	if fact.Node() != g.self || len(meta) > view.MaxFactBytes {
		panic(fmt.Sprintf("cluster: a fact of %d bytes about %v told by %v", len(meta), fact.Node(), g.self))
	}
	return meta
}

func (g *Gossip) newest() []byte {
	g.fact.Lock()
	defer g.fact.Unlock()
	return g.meta
}

// announce hands each new fact to memberlist.
func (g *Gossip) announce() {
	for {
		select {
		case <-g.fresh:
		case <-g.work.Done():
			return
		}
		// UpdateNode queues the fact and then waits until it has gone out. We don't:
		// the error it returns after the least possible wait says only that.
		_ = g.list.UpdateNode(time.Nanosecond)
		if !sleep(g.work, g.cfg.UpdateEvery) {
			return
		}
	}
}

// deliver carries events from the mailbox to emit.
func (g *Gossip) deliver() {
	for {
		select {
		case <-g.mail.kick:
		case <-g.ctx.Done():
			return
		}
		for ev, ok := g.mail.take(); ok && g.ctx.Err() == nil; ev, ok = g.mail.take() {
			g.emit(ev)
		}
	}
}

// join exchanges states with whoever is at addr.
func (g *Gossip) join(addr netip.AddrPort) error {
	_, err := g.list.Join([]string{addr.String()})
	return err
}

// isSelf tells whether addr leads to this process.
func (g *Gossip) isSelf(addr netip.AddrPort) bool {
	if addr == g.addr || addr == g.link.bound {
		return true
	}
	if addr.Port() != g.link.bound.Port() || !g.link.bound.Addr().IsUnspecified() {
		return false
	}
	locals, err := net.InterfaceAddrs()
	if err != nil {
		return false // then it is joined, which does no harm
	}
	for _, l := range locals {
		if p, err := netip.ParsePrefix(l.String()); err == nil && p.Addr() == addr.Addr() {
			return true
		}
	}
	return addr.Addr().IsLoopback()
}

// Leave says good-bye: to each node directly, so that it is known within
// milliseconds, and by gossip. From then on this node neither searches nor
// announces; it still answers until Close. The error tells that gossip could
// not be sure in time, LeaveTimeout or ctx, that somebody heard it. A second
// call, or one after Close, does nothing.
func (g *Gossip) Leave(ctx context.Context) error {
	g.stopWork()
	done := make(chan error, 1)
	g.life.Lock()
	if g.closed || g.left {
		g.life.Unlock()
		return nil
	}
	g.left = true
	g.tasks.Go(func() { done <- g.sayGoodBye(ctx) })
	g.life.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("cluster: leave: %w", ctx.Err())
	}
}

func (g *Gossip) sayGoodBye(ctx context.Context) error {
	g.tellEveryone(ctx)
	if err := g.list.Leave(g.cfg.LeaveTimeout); err != nil {
		return fmt.Errorf("cluster: leave: %w", err)
	}
	return nil
}

// tellEveryone sends a farewell straight to each node, all at once.
func (g *Gossip) tellEveryone(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewellTimeout)
	defer cancel()
	farewell := append([]byte{farewellMsg}, g.newest()...)
	var told sync.WaitGroup
	for n, addr := range g.peers.all() {
		told.Add(1)
		g.tasks.Go(func() {
			defer told.Done()
			to := &memberlist.Node{Name: n.String(), Addr: addr.Addr().AsSlice(), Port: addr.Port()}
			if err := g.list.SendReliable(to, farewell); err != nil {
				g.cfg.Log.Debug("farewell failed", "node", n.String(), "err", err)
			}
		})
	}
	all := make(chan struct{})
	g.tasks.Go(func() { told.Wait(); close(all) })
	select {
	case <-all:
	case <-ctx.Done():
	}
}

// Close ends gossip without a word, as a crash would: others find out. It
// returns when the port is free and no event can come any more, and may be
// called any number of times. A probe of memberlist that is under way may
// outlive it by a few ProbeIntervals; it holds nothing but a timer.
func (g *Gossip) Close() {
	g.once.Do(func() {
		g.life.Lock()
		g.closed = true
		g.life.Unlock()
		g.stop()
		g.tasks.Wait()
		g.log.silent.Store(true)
		if err := g.list.Shutdown(); err != nil {
			g.cfg.Log.Warn("gossip did not close", "err", err)
		}
	})
}

// farewellMsg starts a message that is followed by the leaver's last fact.
const farewellMsg = 1

// delegate is what memberlist calls. Everything here runs under its lock or on
// its receiving goroutine: look, note, return.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = delegate{}
)

// NodeMeta is asked for what to announce.
func (d delegate) NodeMeta(int) []byte { return d.g.newest() }

// NotifyJoin tells of a node that is new or back.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.up(n) }

// NotifyUpdate tells of a node's new fact.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.up(n) }

func (d delegate) up(n *memberlist.Node) {
	fact, ok := d.parse(n)
	ip, valid := netip.AddrFromSlice(n.Addr)
	if ok && valid && d.g.mail.put(Up, fact) {
		d.g.peers.up(fact.Node(), netip.AddrPortFrom(ip.Unmap(), n.Port))
	}
}

// NotifyLeave tells of a node that is dead or has left; memberlist knows which
// and doesn't say. It left if it said so: directly, which was noted then, or by
// its last fact.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	fact, ok := d.parse(n)
	switch {
	case !ok:
	case fact.Leaving:
		d.goodBye(fact)
	case d.g.mail.put(Failed, fact):
		d.g.peers.failed(time.Now(), fact.Node())
	}
}

// NotifyMsg takes a direct message: a farewell.
func (d delegate) NotifyMsg(msg []byte) {
	if len(msg) == 0 || msg[0] != farewellMsg {
		return
	}
	fact, err := view.ParseFact(msg[1:])
	if err != nil {
		d.g.cfg.Log.Warn("gossip brought a farewell that can't be read", "err", err)
		return
	}
	if fact.Node() != d.g.self {
		d.goodBye(fact)
	}
}

func (d delegate) goodBye(fact view.Fact) {
	d.g.mail.put(Left, fact)
	d.g.peers.left(fact.Node())
}

// parse returns the fact of another node, and false for ourselves and for what
// no dlnode wrote.
func (d delegate) parse(n *memberlist.Node) (view.Fact, bool) {
	if n.Name == d.g.self.String() {
		return view.Fact{}, false
	}
	fact, err := view.ParseFact(n.Meta)
	if err == nil && fact.Node().String() != n.Name {
		err = fmt.Errorf("it is about %v", fact.Node())
	}
	if err != nil {
		d.g.cfg.Log.Warn("gossip brought a fact that can't be used", "node", n.Name, "err", err)
	}
	return fact, err == nil
}

// GetBroadcasts, LocalState and MergeRemoteState are memberlist's ways to carry
// more than facts; nothing more is gossiped.
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}

// link is memberlist's network transport with two additions: what it dials ends
// with the Gossip, and a test can cut it.
type link struct {
	*memberlist.NetTransport
	ctx   context.Context
	cut   func(netip.AddrPort) bool
	bound netip.AddrPort
}

// listen takes UDP and TCP of one port. With port 0 the system names a TCP port
// whose UDP twin may be taken; then another is tried.
func listen(ctx context.Context, cfg Config, at netip.AddrPort, log *logBridge) (*link, error) {
	c := &memberlist.NetTransportConfig{
		BindAddrs: []string{at.Addr().String()},
		BindPort:  int(at.Port()),
		Logger:    log.logger(),
	}
	var err error
	for range 10 {
		var t *memberlist.NetTransport
		if t, err = memberlist.NewNetTransport(c); err == nil {
			return &link{NetTransport: t, ctx: ctx, cut: cfg.Cut}, nil
		}
		if at.Port() != 0 || !is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, explainListen(at, err)
}

func explainListen(at netip.AddrPort, err error) error {
	switch {
	case is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cluster: gossip port %s is taken by another process: %w", at, err)
	case is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cluster: gossip can't listen on %s, this machine has no such address: %w", at, err)
	}
	return fmt.Errorf("cluster: gossip can't listen on %s: %w", at, err)
}

// is looks for a system error in the text of err, since memberlist formats
// errors without wrapping them.
func is(err error, code syscall.Errno) bool {
	return bytes.Contains([]byte(err.Error()), []byte(code.Error()))
}

// lost tells whether what goes to addr shall not arrive.
func (l *link) lost(addr string) bool {
	to, err := netip.ParseAddrPort(addr)
	return err == nil && l.cut(to)
}

// WriteTo and WriteToAddress send a datagram. One that is cut was sent, and is
// never heard of again.
func (l *link) WriteTo(b []byte, addr string) (time.Time, error) {
	return l.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (l *link) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if l.lost(to.Addr) {
		return time.Now(), nil
	}
	return l.NetTransport.WriteToAddress(b, to)
}

// DialTimeout and DialAddressTimeout open a stream that Close of the Gossip
// closes.
func (l *link) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return l.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (l *link) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if l.lost(to.Addr) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ETIMEDOUT}
	}
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(l.ctx, "tcp", to.Addr)
	if err != nil {
		return nil, err
	}
	return &stream{conn, context.AfterFunc(l.ctx, func() { _ = conn.Close() })}, nil
}

// stream is a connection that ends with a context.
type stream struct {
	net.Conn
	release func() bool
}

// Close closes the connection and forgets the context.
func (s *stream) Close() error {
	s.release()
	return s.Conn.Close()
}
