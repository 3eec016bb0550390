package chaos

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/dlnode/dlnode/internal/lives"
)

// netns is nodes in network namespaces of their own.
//
// A way is cut by a route on the sender's side that leads nowhere: packets vanish, as
// on a broken cable, of connections that are open as well as of new ones. A link goes down
// at the bridge, so that its node sees the carrier go. Bandwidth is limited by tc at both
// ends of the link. Delay and loss are the work of a shaper, which the node's packets are
// led through.
type netns struct {
	*lives.Namespaces
	nodes int
	made  []kindError // kinds that this kernel cannot do
	cuts  cuts
	down  []int     // faults that hold a link down
	tun   []*shaper // nil where there is no tun
}

type kindError struct {
	kind Kind
	err  error
}

// gossipPort and grpcPort are the same for each node, in a namespace of its own.
const (
	gossipPort = 7946
	grpcPort   = 7947
)

// halfSubnet holds all nodes as well, and goes before lives.Subnet in a table of routes.
const halfSubnet = "10.79.0.0/25"

// newNetns makes the namespaces. The error says why there can be none.
func newNetns(nodes int, seed uint64) (*netns, error) {
	spaces, err := lives.NewNamespaces(nodes)
	if err != nil {
		return nil, err
	}
	n := &netns{Namespaces: spaces, nodes: nodes, cuts: newCuts(nodes), down: make([]int, nodes), tun: make([]*shaper, nodes)}
	for i := range nodes {
		s, err := newShaper(n.Name(i), seed+uint64(i))
		if err != nil {
			n.made = append(n.made, kindError{Delay, err}, kindError{Loss, err})
			break
		}
		n.tun[i] = s
	}
	for i := range nodes {
		if err := n.limit(i, linkRate); err != nil {
			n.made = append(n.made, kindError{Bandwidth, err})
			break
		}
	}
	return n, nil
}

func (n *netns) name() string { return "network namespaces, veth links, a bridge" }

func (n *netns) kinds() []Kind {
	all := []Kind{LinkDown, Partition, OneWay}
	for _, k := range []Kind{Delay, Loss, Bandwidth} {
		if n.lacks(k) == nil {
			all = append(all, k)
		}
	}
	return all
}

// lacks says why a kind cannot be done; nil if it can.
func (n *netns) lacks(k Kind) error {
	for _, e := range n.made {
		if e.kind == k {
			return e.err
		}
	}
	return nil
}

func (n *netns) through(i int) []string { return n.Through(i) }

func (n *netns) flags(i int) []string {
	return []string{"--bind", n.gossip(i), "--grpc", n.server(i), "--insecure"}
}

func (n *netns) gossip(i int) string { return n.IP(i) + ":" + strconv.Itoa(gossipPort) }

func (n *netns) server(i int) string { return n.IP(i) + ":" + strconv.Itoa(grpcPort) }

func (n *netns) started(int, int) {}

func (n *netns) strike(f Fault, victim int) (heal func() error, err error) {
	switch f.Kind {
	case LinkDown:
		return n.pull(victim)
	case Partition, OneWay:
		return n.cuts.strike(ways(f, victim, n.nodes), n.cut, n.open)
	case Bandwidth:
		return func() error { return n.limit(victim, linkRate) }, n.limit(victim, f.Amount)
	case Delay, Loss:
		return n.shape(victim, f)
	}
	panic(fmt.Sprintf("chaos: %s is no fault of a network", f.Kind))
}

func (n *netns) pull(i int) (heal func() error, err error) {
	set := func(to string) error { return lives.IPBatch(n.Switch(), fmt.Sprintf("link set v%d %s", i, to)) }
	heal = func() error {
		if n.down[i]--; n.down[i] > 0 {
			return nil
		}
		return set("up")
	}
	n.down[i]++
	return heal, set("down")
}

// cut leads what goes these ways to nowhere: a route by lo to an address that is not
// lo's is a dead end.
func (n *netns) cut(ws []way) error {
	return n.routes(ws, func(w way) string { return "route add " + n.IP(w.to) + "/32 dev lo src " + n.IP(w.from) })
}

func (n *netns) open(ws []way) error {
	return n.routes(ws, func(w way) string { return "route del " + n.IP(w.to) + "/32 dev lo" })
}

func (n *netns) routes(ws []way, line func(way) string) error {
	lines := map[int][]string{}
	for _, w := range ws {
		lines[w.from] = append(lines[w.from], line(w))
	}
	for i := range n.nodes { // at one moment, nearly
		if len(lines[i]) > 0 {
			if err := lives.IPBatch(n.Name(i), lines[i]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// limit has a link carry so much each way.
func (n *netns) limit(i int, mbit float64) error {
	return n.Limit(i, fmt.Sprintf("%.1fmbit", mbit), "64kb")
}

func (n *netns) shape(i int, f Fault) (heal func() error, err error) {
	way := halfSubnet + " dev " + shaperDevice + " src " + n.IP(i)
	lift := n.tun[i].add(f)
	heal = func() error {
		if lift() > 0 {
			return nil
		}
		return lives.IPBatch(n.Name(i), "route del "+way)
	}
	return heal, lives.IPBatch(n.Name(i), "route replace "+way)
}

// close takes all away.
func (n *netns) close() error {
	var errs []error
	for _, s := range n.tun {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(append(errs, n.Close())...)
}
