package fleet

import (
	"net"
	"slices"
	"strings"
)

// addresses gives each node a gossip address of its own for life, and so every
// node the addresses of all others before any of them runs: they start at once,
// and nobody has to be first. A node that is started again takes its old
// address, where those who look for it look.
//
// The port is found by binding it and letting go again. Should another process
// take it in between, the node ends with an error, and its next start has
// another port.
type addresses struct {
	of   map[string]string
	free func(addr string) (string, error) // finds a port; a test has its own
}

func newAddresses() *addresses {
	return &addresses{of: map[string]string{}, free: freePort}
}

// anyPort is the loopback, with a port that the system chooses.
const anyPort = "127.0.0.1:0"

// assign gives a node its address.
func (a *addresses) assign(id string) error {
	addr, err := a.free(anyPort)
	if err == nil {
		a.of[id] = addr
	}
	return err
}

// start returns where a node shall listen, and the seeds it shall join. A port
// that another process took meanwhile is replaced.
func (a *addresses) start(id string) (bind string, join []string) {
	if _, err := a.free(a.of[id]); err != nil {
		if a.assign(id) != nil {
			a.of[id] = anyPort // the node will tell what is wrong
		}
	}
	for other, addr := range a.of {
		if other != id && addr != anyPort {
			join = append(join, addr)
		}
	}
	slices.Sort(join)
	return a.of[id], join
}

// freePort returns an address that is free for TCP and UDP, as gossip uses both.
func freePort(addr string) (string, error) {
	var err error
	for range 8 { // a port that the system chose for TCP may be taken for UDP
		var found string
		if found, err = tryPort(addr); err == nil {
			return found, nil
		}
		if !strings.HasSuffix(addr, ":0") {
			break
		}
	}
	return "", err
}

func tryPort(addr string) (string, error) {
	stream, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	defer stream.Close() // it was never accepted from
	packets, err := net.ListenPacket("udp", stream.Addr().String())
	if err != nil {
		return "", err
	}
	return stream.Addr().String(), packets.Close()
}
