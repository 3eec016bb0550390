package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// seed is one entry of Config.Join, or a bind address, taken apart.
type seed struct {
	host string     // as given, without brackets; may be empty for a bind address
	addr netip.Addr // set when host is an IP address
	port uint16
}

// text returns the seed as host:port.
func (s seed) text() string {
	if s.addr.IsValid() {
		return netip.AddrPortFrom(s.addr, s.port).String()
	}
	return s.host + ":" + strconv.Itoa(int(s.port))
}

// splitPort takes "host:port", "host", "ip6" or "[ip6]:port" apart. The port
// is empty where none is given.
func splitPort(text string) (host, port string) {
	i := strings.LastIndexByte(text, ':')
	switch {
	case strings.HasPrefix(text, "["):
		if i < strings.LastIndexByte(text, ']') {
			i = -1
		}
	case strings.Count(text, ":") > 1:
		i = -1 // a bare IPv6 address
	}
	host = text
	if i >= 0 {
		host, port = text[:i], text[i+1:]
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return host, port
}

func parseSeed(text string) (seed, error) {
	host, port := splitPort(text)
	s := seed{host: host, port: DefaultPort}
	if port != "" || strings.HasSuffix(text, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return seed{}, fmt.Errorf("the port %q is not a number from 0 to 65535", port)
		}
		s.port = uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return seed{}, errors.New("addresses with a zone mean something on one machine only")
		}
		s.addr = addr.Unmap()
	} else if strings.ContainsAny(host, "/:[] \t") {
		return seed{}, errors.New("want host:port, host, IP address or [IPv6 address]:port")
	}
	return s, nil
}

// parseSeeds parses what Config.Join names.
func parseSeeds(join []string) ([]seed, error) {
	seeds := make([]seed, 0, len(join))
	for _, text := range join {
		s, err := parseSeed(text)
		if err == nil && s.host == "" {
			err = errors.New("the host is missing")
		}
		if err == nil && s.port == 0 {
			err = errors.New("nobody can be reached at port 0")
		}
		if err != nil {
			return nil, fmt.Errorf("join address %q: %w", text, err)
		}
		seeds = append(seeds, s)
	}
	return seeds, nil
}

// resolve returns the addresses of a seed, at least one.
func (s seed) resolve(ctx context.Context, lookup func(context.Context, string) ([]netip.Addr, error)) ([]netip.AddrPort, error) {
	if s.addr.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(s.addr, s.port)}, nil
	}
	addrs, err := lookup(ctx, s.host)
	if err != nil {
		return nil, err
	}
	var at []netip.AddrPort
	for _, a := range addrs {
		if a.IsValid() && a.Zone() == "" {
			at = append(at, netip.AddrPortFrom(a.Unmap(), s.port))
		}
	}
	if len(at) == 0 {
		return nil, fmt.Errorf("%s has no usable address", s.host)
	}
	return at, nil
}

// ErrSecret is why a seed couldn't be joined when it is there but speaks under
// another secret. Waiting doesn't help.
var ErrSecret = errors.New("the secrets differ")

// errSelf marks a seed that led back to this node.
var errSelf = errors.New("that is this node")

// Try is an attempt to join that failed.
type Try struct {
	Seed string         // host:port as it was looked for; empty: a lost node
	Addr netip.AddrPort // invalid when the name was not resolved
	Err  error          // errors.Is(Err, ErrSecret) when it is there but the secrets differ
}

// String returns the attempt as part of a sentence.
func (t Try) String() string {
	switch {
	case !t.Addr.IsValid():
		return fmt.Sprintf("%s (%v)", t.Seed, t.Err)
	case t.Seed == "" || t.Seed == t.Addr.String():
		return fmt.Sprintf("%v (%v)", t.Addr, t.Err)
	}
	return fmt.Sprintf("%s at %v (%v)", t.Seed, t.Addr, t.Err)
}

// JoinError tells that no seed could be joined so far, and what was tried.
type JoinError struct {
	Tries []Try // of the last round
}

// Error names every address that was tried and what became of it.
func (e *JoinError) Error() string {
	tries := make([]string, len(e.Tries))
	for i, t := range e.Tries {
		tries[i] = t.String()
	}
	what := "cluster: no join address can be reached: tried "
	if errors.Is(e, ErrSecret) {
		what = "cluster: this node's secret is not the one of the cluster it was told to join: tried "
	}
	if len(tries) == 0 {
		return what + "none yet"
	}
	return what + strings.Join(tries, ", ")
}

// Unwrap returns the causes, one for each try.
func (e *JoinError) Unwrap() []error {
	errs := make([]error, len(e.Tries))
	for i, t := range e.Tries {
		errs[i] = t.Err
	}
	return errs
}

// explain turns memberlist's account of a failed join into the reason a person
// needs. memberlist formats its errors without wrapping them, so their text is
// all there is; each case names where in its net.go the text comes from.
func explain(err error) error {
	text := strings.TrimSpace(err.Error())
	if _, after, ok := strings.Cut(text, "failed to join "); ok { // Memberlist.Join: "failed to join ADDR: CAUSE"
		_, text, _ = strings.Cut(after, ": ")
	}
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("no installed keys could decrypt"): // readStream: both sides encrypt
		return ErrSecret
	case has("remote state is encrypted and encryption is not configured"): // readStream
		return fmt.Errorf("%w: it has one, this node has none", ErrSecret)
	case has("encryption is configured but remote state is not encrypted"): // readStream
		return fmt.Errorf("%w: this node has one, it has none", ErrSecret)
	case has("connection refused"):
		return errors.New("connection refused")
	case has("i/o timeout"), has("deadline exceeded"):
		return errors.New("no answer in time")
	case strings.HasSuffix(text, "EOF"), has("connection reset"), has("broken pipe"), has("invalid msgType"):
		return errors.New("it hung up: not a gossip port of dlnode, or one of another label")
	}
	if i := strings.LastIndex(text, "connect: "); i >= 0 { // net.OpError of a dial
		text = text[i+len("connect: "):]
	}
	return errors.New(text)
}
