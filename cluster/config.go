package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/dlnode/dlnode/cluster/view"
)

// DefaultPort is the gossip port where none is given, memberlist's own.
const DefaultPort = 7946

// maxLabelBytes is what memberlist allows for a label, less our prefix.
const maxLabelBytes = 255 - len(labelPrefix)

// labelPrefix keeps other users of memberlist on the same port out.
const labelPrefix = "dlnode/"

// Config says who a node is, where it listens and whom it looks for. The zero
// value of every field below Log is replaced by the default in its comment;
// all nodes of a cluster should agree on those intervals.
type Config struct {
	Name        string // the node's ID; with Incarnation it must be that of every fact given to Start and Update
	Incarnation uint64 // drawn at random by each process, not 0

	// Bind is the address to listen on, UDP and TCP: "ip:port", "ip", "host:port"
	// or ":port". Without a port it is DefaultPort, with port 0 the system chooses.
	// Empty is 127.0.0.1, port 0.
	Bind string

	// Advertise is the address others are told, "ip:port" or "ip", for a node
	// behind a translated address. Empty: see AdvertiseIP.
	Advertise string

	Secret   []byte // any length; gossip is encrypted with AES-256-GCM under its SHA-256. Empty: in the clear
	Insecure bool   // allows other addresses than loopback without a Secret
	Label    string // keeps clusters that share a network apart; all nodes of one carry the same

	// Join names nodes to look for: "host:port", "host", "ip", "[ip6]:port". A name
	// stands for all of its addresses and is resolved anew at every try.
	Join []string

	// Wait lets Start succeed though no seed answers yet: the node may be the first
	// to be there. The search goes on until Close, and Joined tells how it goes.
	// Without Wait, Start fails after JoinTimeout with what was tried.
	Wait bool

	Log *slog.Logger // nil: silence

	JoinTimeout   time.Duration // how long Start looks for a first seed: 10 s
	RejoinEvery   time.Duration // pause between searches for seeds and lost nodes, drawn from [1, 2) of it: 15 s
	LostFor       time.Duration // how long a lost node is looked for: 24 h
	UpdateEvery   time.Duration // least time between two announcements of this node's fact: 200 ms
	LeaveTimeout  time.Duration // most that a farewell may take: 500 ms
	StreamTimeout time.Duration // for TCP: connecting, and each exchange of states: 5 s

	// A silent node is noticed by the first probe that meets it, within about
	// ProbeInterval, is suspected one ProbeInterval later, and declared failed when
	// it has not refuted that for SuspicionMult·ProbeInterval, or twice as long
	// where too few nodes share the suspicion: 3 to 5 s with the defaults.
	ProbeInterval  time.Duration // one probe of one node: 500 ms
	ProbeTimeout   time.Duration // answer by UDP, before others and TCP are asked: 250 ms
	SuspicionMult  int           // 4
	GossipInterval time.Duration // between packets of news, when there are any: 50 ms
	GhostFor       time.Duration // how long a dead node is still told that it is thought dead: 30 s

	// Resolve returns the addresses of a host name. Default: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// Cut tells whether everything sent to a gossip address gets lost. It is how
	// tests cut a network in two; nil cuts nothing. Called from many goroutines.
	Cut func(to netip.AddrPort) bool
}

// withDefaults returns c with its zero fields filled in.
func (c Config) withDefaults() Config {
	fill(&c.Bind, "127.0.0.1:0")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	fill(&c.JoinTimeout, 10*time.Second)
	fill(&c.RejoinEvery, 15*time.Second)
	fill(&c.LostFor, 24*time.Hour)
	fill(&c.UpdateEvery, 200*time.Millisecond)
	fill(&c.LeaveTimeout, 500*time.Millisecond)
	fill(&c.StreamTimeout, 5*time.Second)
	fill(&c.ProbeInterval, 500*time.Millisecond)
	fill(&c.ProbeTimeout, 250*time.Millisecond)
	fill(&c.SuspicionMult, 4)
	fill(&c.GossipInterval, 50*time.Millisecond)
	fill(&c.GhostFor, 30*time.Second)
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.Cut == nil {
		c.Cut = func(netip.AddrPort) bool { return false }
	}
	return c
}

// fill sets a field that was left zero.
func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate tells what is wrong with a configuration, before anything is opened.
func (c Config) Validate() error {
	_, _, _, err := c.withDefaults().check()
	return err
}

// check validates a configuration that has its defaults and returns what was
// parsed on the way: where to listen, what to advertise (port 0: the port
// that is listened on), and whom to look for.
func (c Config) check() (bind, advertise netip.AddrPort, seeds []seed, err error) {
	fail := func(err error) (netip.AddrPort, netip.AddrPort, []seed, error) {
		return netip.AddrPort{}, netip.AddrPort{}, nil, fmt.Errorf("cluster: %w", err)
	}
	if err := c.checkFields(); err != nil {
		return fail(err)
	}
	if bind, err = c.bind(); err != nil {
		return fail(err)
	}
	if advertise, err = c.advertise(bind); err != nil {
		return fail(err)
	}
	if seeds, err = parseSeeds(c.Join); err != nil {
		return fail(err)
	}
	return bind, advertise, seeds, nil
}

func (c Config) checkFields() error {
	switch {
	case c.Name == "":
		return errors.New("the node has no name")
	case c.Incarnation == 0:
		return errors.New("the node's incarnation is 0; draw it at random")
	case len(c.Label) > maxLabelBytes:
		return fmt.Errorf("the label has %d bytes, at most %d are allowed", len(c.Label), maxLabelBytes)
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"JoinTimeout", c.JoinTimeout},
		{"RejoinEvery", c.RejoinEvery},
		{"LostFor", c.LostFor},
		{"UpdateEvery", c.UpdateEvery},
		{"LeaveTimeout", c.LeaveTimeout},
		{"StreamTimeout", c.StreamTimeout},
		{"ProbeInterval", c.ProbeInterval},
		{"ProbeTimeout", c.ProbeTimeout},
		{"GossipInterval", c.GossipInterval},
		{"GhostFor", c.GhostFor},
		{"SuspicionMult", time.Duration(c.SuspicionMult)},
	} {
		if d.value < 0 {
			return fmt.Errorf("%s is negative", d.name)
		}
	}
	return nil
}

// node returns the life this configuration is of.
func (c Config) node() view.Node { return view.Node{ID: c.Name, Incarnation: c.Incarnation} }

// bind returns where to listen, and refuses to be open to strangers.
func (c Config) bind() (netip.AddrPort, error) {
	s, err := parseSeed(c.Bind)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("bind address %q: %w", c.Bind, err)
	}
	addr := netip.IPv4Unspecified()
	if s.host != "" {
		ctx, cancel := context.WithTimeout(context.Background(), c.StreamTimeout)
		defer cancel()
		addrs, err := s.resolve(ctx, c.Resolve)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("bind address %q: %w", c.Bind, err)
		}
		addr = addrs[0].Addr()
	}
	at := netip.AddrPortFrom(addr, s.port)
	if !addr.IsLoopback() && len(c.Secret) == 0 && !c.Insecure {
		return netip.AddrPort{}, fmt.Errorf("will not gossip on %s without a secret: whoever reaches that port could join, and change what is trained; give all nodes the same secret, or accept the risk with --insecure", at)
	}
	return at, nil
}

// AdvertiseIP returns the address under which others reach this node: that of
// Advertise if set, else that of Bind unless it is unspecified (0.0.0.0), else
// the one the system would send from to reach the first seed given as an
// address, or to the internet; else, on a machine without a route, the first
// private address of an interface that is up. A server that belongs to this
// node (gRPC) listens well on the same one. It opens nothing and sends nothing.
func (c Config) AdvertiseIP() (netip.Addr, error) {
	bind, advertise, _, err := c.withDefaults().check()
	if err == nil && !advertise.IsValid() {
		advertise = bind
	}
	return advertise.Addr(), err
}

// advertise returns the address to tell others.
func (c Config) advertise(bind netip.AddrPort) (netip.AddrPort, error) {
	if c.Advertise != "" {
		return parseAdvertise(c.Advertise)
	}
	if !bind.Addr().IsUnspecified() {
		return netip.AddrPortFrom(bind.Addr(), 0), nil
	}
	addr, ok := outward(c.Join)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("no address of this machine to tell others was found for bind address %s; name one to advertise", bind)
	}
	return netip.AddrPortFrom(addr, 0), nil
}

func parseAdvertise(text string) (netip.AddrPort, error) {
	host, port := splitPort(text)
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.IsUnspecified() || addr.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("advertise address %q: want an IP address of this machine, with or without a port", text)
	}
	n := uint64(0)
	if port != "" {
		if n, err = strconv.ParseUint(port, 10, 16); err != nil {
			return netip.AddrPort{}, fmt.Errorf("advertise address %q: the port must be a number from 0 to 65535", text)
		}
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

// outward returns the address of this machine that faces the others.
func outward(join []string) (netip.Addr, bool) {
	const elsewhere = "192.0.2.1:9" // TEST-NET-1: nobody; only the route to it matters
	targets := []string{}
	for _, text := range join {
		if s, err := parseSeed(text); err == nil && s.addr.IsValid() && !s.addr.IsLoopback() {
			targets = append(targets, s.text())
		}
	}
	for _, t := range append(targets, elsewhere) {
		if addr, ok := route(t); ok {
			return addr, true
		}
	}
	return privateAddr()
}

// route returns the source address for packets to a target. Connecting a UDP
// socket asks the routing table and sends nothing.
func route(target string) (netip.Addr, bool) {
	conn, err := net.Dial("udp", target)
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	return addr.WithZone(""), !addr.IsLoopback() && !addr.IsUnspecified()
}

// privateAddr returns the first private address of an interface that is up.
func privateAddr() (netip.Addr, bool) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsPrivate() {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}
