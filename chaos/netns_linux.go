package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// netns is a network namespace for each node, and one more that holds a bridge, all
// joined by veth links:
//
//	dlcPID-1 ── eth0 ═══ v0 ─┐
//	dlcPID-2 ── eth0 ═══ v1 ─┼─ sw, in dlcPID-sw
//	   …                     ┘
//
// So nothing of it touches the machine's own network, and all of it goes with the
// namespaces.
//
// A way is cut by a route on the sender's side that leads nowhere: packets vanish, as
// on a broken cable, connections that are open as well as new ones. A link goes down at
// the bridge, so that its node sees the carrier go. Bandwidth is limited by tc at both ends of the link.
// Delay and loss are the work of a shaper, which the node's packets are led through.
type netns struct {
	prefix string
	nodes  int
	made   []kindError // kinds that this kernel cannot do
	cuts   cuts
	down   []int     // faults that hold a link down
	tun    []*shaper // nil where there is no tun
}

type kindError struct {
	kind Kind
	err  error
}

const netnsPrefix = "dlc"

// gossipPort and grpcPort are the same for each node, in a namespace of its own.
const (
	gossipPort = 7946
	grpcPort   = 7947
)

func nodeIP(i int) string { return fmt.Sprintf("10.79.0.%d", i+1) }

// subnet holds all nodes; half of it, which does as well, goes before it in a table of routes.
const (
	subnet     = "10.79.0.0/24"
	halfSubnet = "10.79.0.0/25"
)

// newNetns makes the namespaces. The error says why there can be none.
func newNetns(nodes int, seed uint64) (*netns, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces take root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, errors.New("there is no ip (package iproute2)")
	}
	sweepNetns()
	n := &netns{prefix: fmt.Sprintf("%s%d", netnsPrefix, os.Getpid()), nodes: nodes, cuts: newCuts(nodes), down: make([]int, nodes), tun: make([]*shaper, nodes)}
	if err := n.make(); err != nil {
		return nil, errors.Join(err, n.close())
	}
	for i := range nodes {
		s, err := newShaper(n.ns(i), nodeIP(i), seed+uint64(i))
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

func (n *netns) ns(i int) string { return fmt.Sprintf("%s-%d", n.prefix, i+1) }
func (n *netns) sw() string      { return n.prefix + "-sw" }

func (n *netns) make() error {
	if err := ip("netns", "add", n.sw()); err != nil {
		return err
	}
	if err := ipBatch(n.sw(), "link add sw type bridge", "link set sw up"); err != nil {
		return err
	}
	for i := range n.nodes {
		if err := ip("netns", "add", n.ns(i)); err != nil {
			return err
		}
		if err := ipBatch(n.sw(), fmt.Sprintf("link add v%d type veth peer name eth0 netns %s", i, n.ns(i)), fmt.Sprintf("link set v%d master sw up", i)); err != nil {
			return err
		}
		if err := ipBatch(n.ns(i), "link set lo up", "link set eth0 up", "addr add "+nodeIP(i)+"/24 dev eth0"); err != nil {
			return err
		}
	}
	return nil
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

func (n *netns) through(i int) []string { return []string{"ip", "netns", "exec", n.ns(i)} }

func (n *netns) flags(i int) []string {
	return []string{"--bind", n.gossip(i), "--grpc", n.server(i), "--insecure"}
}

func (n *netns) gossip(i int) string { return nodeIP(i) + ":" + strconv.Itoa(gossipPort) }

func (n *netns) server(i int) string { return nodeIP(i) + ":" + strconv.Itoa(grpcPort) }

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
	set := func(to string) error { return ipBatch(n.sw(), fmt.Sprintf("link set v%d %s", i, to)) }
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
	return n.routes(ws, func(w way) string { return "route add " + nodeIP(w.to) + "/32 dev lo src " + nodeIP(w.from) })
}

func (n *netns) open(ws []way) error {
	return n.routes(ws, func(w way) string { return "route del " + nodeIP(w.to) + "/32 dev lo" })
}

func (n *netns) routes(ws []way, line func(way) string) error {
	lines := map[int][]string{}
	for _, w := range ws {
		lines[w.from] = append(lines[w.from], line(w))
	}
	for i := range n.nodes { // at one moment, nearly
		if len(lines[i]) > 0 {
			if err := ipBatch(n.ns(i), lines[i]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// limit has a link carry so much each way.
func (n *netns) limit(i int, mbit float64) error {
	for _, at := range n.ends(i) {
		if err := command("tc", "-n", at[0], "qdisc", "replace", "dev", at[1], "root", "tbf", "rate", fmt.Sprintf("%.1fmbit", mbit), "burst", "64kb", "latency", "100ms"); err != nil {
			return err
		}
	}
	return nil
}

// ends are the namespace and the device of both ends of a link.
func (n *netns) ends(i int) [2][2]string {
	return [2][2]string{{n.ns(i), "eth0"}, {n.sw(), fmt.Sprintf("v%d", i)}}
}

func (n *netns) shape(i int, f Fault) (heal func() error, err error) {
	way := halfSubnet + " dev " + shaperDevice + " src " + nodeIP(i)
	lift := n.tun[i].add(f)
	heal = func() error {
		if lift() > 0 {
			return nil
		}
		return ipBatch(n.ns(i), "route del "+way)
	}
	return heal, ipBatch(n.ns(i), "route replace "+way)
}

// close takes all away. What was not made is not missed.
func (n *netns) close() error {
	var errs []error
	for _, s := range n.tun {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	names, err := listNetns()
	errs = append(errs, err)
	for _, name := range names {
		if strings.HasPrefix(name, n.prefix+"-") {
			errs = append(errs, ip("netns", "del", name))
		}
	}
	return errors.Join(errs...)
}

// sweepNetns removes what others have left that were killed.
func sweepNetns() {
	names, err := listNetns()
	if err != nil {
		return // whoever makes a namespace now will see why
	}
	for _, name := range names {
		pid, rest, ok := strings.Cut(strings.TrimPrefix(name, netnsPrefix), "-")
		if !ok || rest == "" || !strings.HasPrefix(name, netnsPrefix) || alive(pid) {
			continue
		}
		_ = ip("netns", "del", name) // somebody else may have swept as well
	}
}

// alive tells whether there is a process of a number; what is no number is let live.
func alive(pid string) bool {
	if _, err := strconv.ParseUint(pid, 10, 32); err != nil {
		return true
	}
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

func listNetns() (names []string, err error) {
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		return nil, fmt.Errorf("ip netns list: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 0 {
			names = append(names, f[0])
		}
	}
	return names, nil
}

func ip(args ...string) error { return command("ip", args...) }

// ipBatch runs several commands of ip in a namespace.
func ipBatch(ns string, lines ...string) error {
	return commandWith(strings.Join(lines, "\n")+"\n", "ip", "-n", ns, "-batch", "-")
}

func command(name string, args ...string) error { return commandWith("", name, args...) }

// commandTimeout bounds what the tools of the network may take on a busy machine.
const commandTimeout = time.Minute

func commandWith(stdin, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out), indent(stdin))
	}
	return nil
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "\n\t" + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n\t")
}
