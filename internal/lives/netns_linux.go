package lives

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

// Namespaces is a network namespace for each of some nodes, and one more that holds a
// bridge, all joined by veth links:
//
//	dlcPID-1 ── eth0 ═══ v0 ─┐
//	dlcPID-2 ── eth0 ═══ v1 ─┼─ sw, in dlcPID-sw
//	   …                     ┘
//
// So nothing of it touches the machine's own network, and all of it goes with the
// namespaces. There is one such thing in a process at a time.
type Namespaces struct{ nodes int }

// Prefix begins the names of what a process makes outside of its own files; its number
// follows.
const Prefix = "dlc"

// Subnet holds the addresses of all nodes.
const Subnet = "10.79.0.0/24"

// NewNamespaces makes them. The error says why there can be none.
func NewNamespaces(nodes int) (*Namespaces, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces take root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, errors.New("there is no ip (package iproute2)")
	}
	sweep()
	n := &Namespaces{nodes}
	if err := n.make(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func prefix() string { return fmt.Sprintf("%s%d", Prefix, os.Getpid()) }

// Name is the namespace of the i-th node, from 0.
func (n *Namespaces) Name(i int) string { return fmt.Sprintf("%s-%d", prefix(), i+1) }

// Switch is the namespace of the bridge; v0, v1, … are its ends of the links.
func (n *Namespaces) Switch() string { return prefix() + "-sw" }

// IP is the address of the i-th node, on its device eth0.
func (n *Namespaces) IP(i int) string { return fmt.Sprintf("10.79.0.%d", i+1) }

// Through is a command to run the i-th node's program by.
func (n *Namespaces) Through(i int) []string { return []string{"ip", "netns", "exec", n.Name(i)} }

func (n *Namespaces) make() error {
	if err := command("", "ip", "netns", "add", n.Switch()); err != nil {
		return err
	}
	if err := IPBatch(n.Switch(), "link add sw type bridge", "link set sw up"); err != nil {
		return err
	}
	for i := range n.nodes {
		if err := command("", "ip", "netns", "add", n.Name(i)); err != nil {
			return err
		}
		if err := IPBatch(n.Switch(), fmt.Sprintf("link add v%d type veth peer name eth0 netns %s", i, n.Name(i)), fmt.Sprintf("link set v%d master sw up", i)); err != nil {
			return err
		}
		if err := IPBatch(n.Name(i), "link set lo up", "link set eth0 up", "addr add "+n.IP(i)+"/24 dev eth0"); err != nil {
			return err
		}
	}
	return nil
}

// Limit has the i-th node's link carry so much each way, and so much at once, as tc says
// it: 200mbit, 64kb.
func (n *Namespaces) Limit(i int, rate, burst string) error {
	for _, at := range [][2]string{{n.Name(i), "eth0"}, {n.Switch(), fmt.Sprintf("v%d", i)}} {
		if err := command("", "tc", "-n", at[0], "qdisc", "replace", "dev", at[1], "root", "tbf", "rate", rate, "burst", burst, "latency", "100ms"); err != nil {
			return err
		}
	}
	return nil
}

// Close takes all away. What was not made is not missed.
func (n *Namespaces) Close() error {
	names, err := List()
	errs := []error{err}
	for _, name := range names {
		if strings.HasPrefix(name, prefix()+"-") {
			errs = append(errs, command("", "ip", "netns", "del", name))
		}
	}
	return errors.Join(errs...)
}

// sweep removes what others have left that were killed.
func sweep() {
	names, err := List()
	if err != nil {
		return // whoever makes a namespace now will see why
	}
	for _, name := range names {
		pid, rest, ok := strings.Cut(strings.TrimPrefix(name, Prefix), "-")
		if !ok || rest == "" || !strings.HasPrefix(name, Prefix) || Alive(pid) {
			continue
		}
		_ = command("", "ip", "netns", "del", name) // somebody else may have swept as well
	}
}

// Alive tells whether there is a process of a number; what is no number is let live.
func Alive(pid string) bool {
	if _, err := strconv.ParseUint(pid, 10, 32); err != nil {
		return true
	}
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

// List returns the names of all network namespaces.
func List() (names []string, err error) {
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

// IPBatch runs several commands of ip in a namespace.
func IPBatch(ns string, lines ...string) error {
	return command(strings.Join(lines, "\n")+"\n", "ip", "-n", ns, "-batch", "-")
}

// commandTimeout bounds what the tools of the network may take on a busy machine.
const commandTimeout = time.Minute

func command(stdin, name string, args ...string) error {
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
