package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dlnode/dlnode/cluster/view"
)

// TestMain also checks that every test closed what it started. A probe of
// memberlist may outlive Close by a moment, so it looks for a while.
func TestMain(m *testing.M) {
	code := m.Run()
	var leak error
	for deadline := time.Now().Add(5 * time.Second); code == 0 && time.Now().Before(deadline); {
		if leak = goleak.Find(); leak == nil {
			break
		}
	}
	if leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

// node is a Gossip under test and everything it told.
type node struct {
	*Gossip
	fact view.Fact
	mu   sync.Mutex
	told []Event
}

var incarnations atomic.Uint64

// quick returns a configuration on loopback whose clocks run eight times as
// fast as the defaults.
func quick(name string, join ...string) Config {
	return Config{
		Name: name, Incarnation: incarnations.Add(1), Bind: "127.0.0.1:0", Join: join,
		RejoinEvery: 100 * time.Millisecond, UpdateEvery: 10 * time.Millisecond,
		ProbeInterval: 60 * time.Millisecond, ProbeTimeout: 30 * time.Millisecond,
		GossipInterval: 10 * time.Millisecond, GhostFor: 200 * time.Millisecond,
	}
}

func factOf(cfg Config) view.Fact {
	return view.Fact{ID: cfg.Name, Incarnation: cfg.Incarnation, Addr: cfg.Name + ":1"}
}

func start(t *testing.T, cfg Config) *node {
	t.Helper()
	n := &node{fact: factOf(cfg)}
	g, err := Start(cfg, n.fact, n.hear)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	n.Gossip = g
	return n
}

func (n *node) hear(ev Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, ev)
}

// last returns the last event about a node that was told to n.
func (n *node) last(about view.Node) (ev Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.told {
		if e.Fact.Node() == about {
			ev = e
		}
	}
	return ev
}

func (n *node) sees(other *node) bool {
	k := n.last(other.fact.Node()).Kind
	return k == Up || k == Update
}

func eventually(t *testing.T, what string, holds func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !holds() {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("after %v still not: %s", time.Since(begin), what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begin)
}

func everyoneSees(nodes ...*node) func() bool {
	return func() bool {
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b && !a.sees(b) {
					return false
				}
			}
		}
		return true
	}
}

func TestAllFindEachOtherThroughOneSeed(t *testing.T) {
	t.Parallel()
	nodes := []*node{start(t, quick("n0"))}
	for i := 1; i < 5; i++ {
		nodes = append(nodes, start(t, quick(fmt.Sprint("n", i), nodes[0].Addr())))
	}
	eventually(t, "all five see each other", everyoneSees(nodes...))
	if got := nodes[2].last(nodes[4].fact.Node()).Fact; got != nodes[4].fact {
		t.Errorf("n2 knows %+v of n4, want %+v", got, nodes[4].fact)
	}
	if got := nodes[3].Status(); got.Live != 4 || got.Lost != 0 || !got.Joined {
		t.Errorf("status %+v, want 4 live, 0 lost, joined", got)
	}
	if ev := nodes[0].last(nodes[0].fact.Node()); ev.Kind != 0 {
		t.Errorf("n0 was told about itself: %+v", ev)
	}
}

func TestTheNewestFactArrives(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	fact := a.fact
	for i := range uint64(1000) {
		fact.Transition, fact.Speed = i, float32(i)
		a.Update(fact)
	}
	eventually(t, "b knows a's last fact", func() bool { return b.last(fact.Node()).Fact == fact })
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.told) > 100 {
		t.Errorf("b was told %d events for 1000 quick updates", len(b.told))
	}
}

func TestAFarewellIsSeenAtOnceAndIsFinal(t *testing.T) {
	t.Parallel()
	for range 5 {
		if sayFarewell(t) {
			return
		}
	}
	t.Error("each time somebody took the leaver for dead before he had heard the farewell")
}

// sayFarewell has one of three nodes leave. False says that another one took it for dead before, as happens with quick
// clocks on a busy machine: then it is not told of the farewell.
func sayFarewell(t *testing.T) bool {
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	c := start(t, quick("c", a.Addr()))
	defer func() { a.Close(); b.Close(); c.Close() }()
	eventually(t, "three see each other", everyoneSees(a, b, c))
	begin := time.Now()
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	c.Close()
	for _, n := range []*node{a, b} {
		eventually(t, "c has come to an end", func() bool { k := n.last(c.fact.Node()).Kind; return k == Left || k == Failed })
		if ev := n.last(c.fact.Node()); ev.Kind == Failed {
			t.Logf("%s took c for dead: %v", n.fact.ID, n.told)
			return false
		}
	}
	if took > 2*time.Second {
		t.Errorf("a farewell took %v", took)
	}
	time.Sleep(600 * time.Millisecond) // a failure would be noticed by now
	for _, n := range []*node{a, b} {
		if ev := n.last(c.fact.Node()); ev.Kind != Left {
			t.Errorf("after the farewell came %v", ev.Kind)
		}
		if s := n.Status(); s.Lost != 0 {
			t.Errorf("a node that left is looked for: %+v", s)
		}
	}
	return true
}

// A leaver that can't speak to everyone directly has said it in its fact.
func TestALeavingFactMakesTheEndAFarewell(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	eventually(t, "a and b see each other", everyoneSees(a, b))
	fact := b.fact
	fact.Leaving = true
	b.Update(fact)
	eventually(t, "a knows that b leaves", func() bool { return a.last(fact.Node()).Fact.Leaving })
	b.Close()
	eventually(t, "b is gone", func() bool { k := a.last(fact.Node()).Kind; return k == Left || k == Failed })
	if k := a.last(fact.Node()).Kind; k != Left {
		t.Errorf("the end of b is told as %v, want left", k)
	}
}

// With the defaults, since the time they need is the point.
func TestASilentDeathIsNoticedWithinSeconds(t *testing.T) {
	t.Parallel()
	var nodes []*node
	for i := range 4 {
		cfg := Config{Name: fmt.Sprint("n", i), Incarnation: incarnations.Add(1)}
		if i > 0 {
			cfg.Join = []string{nodes[0].Addr()}
		}
		nodes = append(nodes, start(t, cfg))
	}
	eventually(t, "four see each other", everyoneSees(nodes...))
	dead := nodes[3].fact.Node()
	nodes[3].Close()
	took := eventually(t, "the dead node has failed", func() bool {
		return !slices.ContainsFunc(nodes[:3], func(n *node) bool { return n.last(dead).Kind != Failed })
	})
	t.Logf("all noticed after %v", took)
	if took > 8*time.Second { // 3 to 5 s where a core is free
		t.Errorf("a silent death was noticed after %v", took)
	}
	if s := nodes[0].Status(); s.Live != 2 || s.Lost != 1 {
		t.Errorf("status %+v, want 2 live, 1 lost", s)
	}
}

func TestANewLifeJoinsWhileItsGhostLingers(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	cfg := quick("b", a.Addr())
	cfg.Bind = freePort(t)
	ghost := start(t, cfg)
	eventually(t, "a sees b", func() bool { return a.sees(ghost) })
	ghost.Close()
	cfg.Incarnation = incarnations.Add(1)
	again := start(t, cfg)
	eventually(t, "a sees the new b", func() bool { return a.sees(again) })
	eventually(t, "the ghost has failed", func() bool { return a.last(ghost.fact.Node()).Kind == Failed })
	if s := a.Status(); s.Live != 1 || s.Lost != 0 || !a.sees(again) {
		t.Errorf("status %+v, want the new life alone", s)
	}
}

func TestDifferentSecretsAreToldInWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, theirs, ours, words string }{
		{"both", "right", "wrong", "the secrets differ)"},
		{"theirs", "right", "", "it has one, this node has none"},
		{"ours", "", "wrong", "this node has one, it has none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := quick("a")
			cfg.Secret = []byte(c.theirs)
			a := start(t, cfg)
			cfg = quick("b", a.Addr())
			cfg.Secret = []byte(c.ours)
			_, err := Start(cfg, factOf(cfg), func(Event) {})
			if !errors.Is(err, ErrSecret) || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), a.Addr()) {
				t.Errorf("got %v, want ErrSecret, %q and %s", err, c.words, a.Addr())
			}
			if s := a.Status(); s.Live != 0 {
				t.Errorf("a stranger is a member: %+v", s)
			}
		})
	}
}

func TestOneSecretOpensTheDoor(t *testing.T) {
	t.Parallel()
	cfg := quick("a")
	cfg.Secret, cfg.Label = []byte("sesame"), "run-1"
	a := start(t, cfg)
	cfg.Name, cfg.Join, cfg.Incarnation = "b", []string{a.Addr()}, incarnations.Add(1)
	b := start(t, cfg)
	eventually(t, "a and b see each other", everyoneSees(a, b))
}

func TestAnotherLabelIsAnotherCluster(t *testing.T) {
	t.Parallel()
	cfg := quick("a")
	cfg.Label = "red"
	a := start(t, cfg)
	cfg = quick("b", a.Addr())
	cfg.Label, cfg.JoinTimeout = "blue", 300*time.Millisecond
	_, err := Start(cfg, factOf(cfg), func(Event) {})
	if err == nil || !strings.Contains(err.Error(), "another label") {
		t.Errorf("got %v, want a word about labels", err)
	}
}

// cutNet is a network that can fall into two halves.
type cutNet struct {
	mu    sync.Mutex
	right map[netip.AddrPort]bool
	cut   atomic.Bool
}

// from returns Config.Cut of a node in one half.
func (c *cutNet) from(right bool) func(netip.AddrPort) bool {
	return func(to netip.AddrPort) bool {
		if !c.cut.Load() {
			return false
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.right[to] != right
	}
}

// place puts a node into a half.
func (c *cutNet) place(n *node, right bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.right[netip.MustParseAddrPort(n.Addr())] = right
}

// The seed has left before the cut, so nothing but the addresses of the lost
// can bring the halves together.
func TestTwoHalvesFindEachOtherAgain(t *testing.T) {
	t.Parallel()
	c := &cutNet{right: map[netip.AddrPort]bool{}}
	seed := start(t, quick("seed"))
	var nodes []*node
	for i := range 4 {
		cfg := quick(fmt.Sprint("n", i), seed.Addr())
		cfg.Cut = c.from(i >= 2)
		n := start(t, cfg)
		c.place(n, i >= 2)
		nodes = append(nodes, n)
	}
	eventually(t, "all see each other", everyoneSees(append(nodes, seed)...))
	if err := seed.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	seed.Close()
	c.cut.Store(true)
	halves := func() bool {
		for i, a := range nodes {
			for j, b := range nodes {
				if i != j && a.sees(b) != (i/2 == j/2) {
					return false
				}
			}
		}
		return true
	}
	eventually(t, "two halves", halves)
	time.Sleep(500 * time.Millisecond) // memberlist forgets the other half
	c.cut.Store(false)
	t.Logf("healed after %v", eventually(t, "all see each other again", everyoneSees(nodes...)))
}

func TestAllAddressesOfANameAreTried(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	port := netip.MustParseAddrPort(a.Addr()).Port()
	var asked atomic.Int32
	cfg := quick("b", fmt.Sprintf("trainer.example:%d", port))
	cfg.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "trainer.example" {
			t.Errorf("asked for %q", host)
		}
		if asked.Add(1) == 1 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
	}
	b := start(t, cfg)
	eventually(t, "a and b see each other", everyoneSees(a, b))
	if asked.Load() < 2 {
		t.Error("the name was not resolved again")
	}
}

// The first pod of a headless service finds only itself under its name.
func TestANameThatLeadsOnlyHereIsAClusterOfOne(t *testing.T) {
	t.Parallel()
	cfg := quick("a")
	cfg.Bind = freePort(t)
	port := netip.MustParseAddrPort(cfg.Bind).Port()
	cfg.Join = []string{fmt.Sprintf("trainer.example:%d", port)}
	cfg.Resolve = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	if s := start(t, cfg).Status(); s.Live != 0 || !s.Joined || len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, errSelf) {
		t.Errorf("status %+v", s)
	}
}

func TestLoopbackIsSelfWhereAllAddressesAreBound(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(freePort(t))
	cfg := quick("a", "127.0.0.1:"+port)
	cfg.Bind, cfg.Advertise, cfg.Insecure = ":"+port, "127.0.0.2", true
	if s := start(t, cfg).Status(); s.Live != 0 || s.Addr != "127.0.0.2:"+port || len(s.Failed) != 1 || !errors.Is(s.Failed[0].Err, errSelf) {
		t.Errorf("status %+v", s)
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
	cfg := quick("a")
	cfg.Bind = "[::1]:0"
	a := start(t, cfg)
	cfg.Name, cfg.Incarnation, cfg.Join = "b", incarnations.Add(1), []string{a.Addr()}
	b := start(t, cfg)
	eventually(t, "a and b see each other", everyoneSees(a, b))
}

func TestUnreachableSeedsAreNamed(t *testing.T) {
	t.Parallel()
	closed := freePort(t)
	cfg := quick("a", closed, "nowhere.example")
	cfg.JoinTimeout = 200 * time.Millisecond
	cfg.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	_, err := Start(cfg, factOf(cfg), func(Event) {})
	var failed *JoinError
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a JoinError", err)
	}
	for _, want := range []string{closed + " (connection refused)", "nowhere.example:7946 (lookup nowhere.example: no such host)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestTheFirstToBeThereWaits(t *testing.T) {
	t.Parallel()
	later := freePort(t)
	cfg := quick("a", later)
	cfg.Wait = true
	a := start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var failed *JoinError
	if err := a.Joined(ctx); !errors.As(err, &failed) || len(failed.Tries) != 1 {
		t.Errorf("got %v, want a JoinError with one try", err)
	}
	cfg = quick("b")
	cfg.Bind = later
	b := start(t, cfg)
	if err := a.Joined(t.Context()); err != nil {
		t.Error(err)
	}
	eventually(t, "a and b see each other", everyoneSees(a, b))
}

func TestATakenPortIsTold(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	cfg := quick("b")
	cfg.Bind = a.Addr()
	_, err := Start(cfg, factOf(cfg), func(Event) {})
	if want := "gossip port " + a.Addr() + " is taken by another process"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestAForeignAddressIsTold(t *testing.T) {
	t.Parallel()
	cfg := quick("a")
	cfg.Bind, cfg.Insecure = "192.0.2.7:0", true
	_, err := Start(cfg, factOf(cfg), func(Event) {})
	if want := "this machine has no such address"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// A reader that takes its time hears less, not late.
func TestASlowReaderHearsTheNewest(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	cfg := quick("b", a.Addr())
	gate, heard := make(chan struct{}), make(chan Event, 100)
	g, err := Start(cfg, factOf(cfg), func(ev Event) { <-gate; heard <- ev })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	t.Cleanup(func() { close(gate) })
	fact := a.fact
	for i := range uint64(50) {
		fact.Transition = i + 1
		a.Update(fact)
		time.Sleep(2 * time.Millisecond)
	}
	eventually(t, "gossip has brought the newest", func() bool {
		g.mail.mu.Lock()
		defer g.mail.mu.Unlock()
		r := g.mail.rows[fact.Node()]
		return r != nil && r.fact == fact
	})
	gate <- struct{}{}
	first := <-heard
	if first.Kind != Up {
		t.Errorf("first event %v", first.Kind)
	}
	if first.Fact != fact {
		gate <- struct{}{}
		if second := <-heard; second != (Event{Update, fact}) {
			t.Errorf("second event %+v, want the newest fact", second)
		}
	}
}

// Who is told that it has joined, and knows nobody, would train alone.
func TestWhoHasJoinedWasToldOfEverybody(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	eventually(t, "two know each other", everyoneSees(a, b))
	cfg := quick("c", a.Addr())
	cfg.Wait = true
	var told atomic.Int32
	c, err := Start(cfg, factOf(cfg), func(ev Event) {
		time.Sleep(20 * time.Millisecond)
		if ev.Kind == Up {
			told.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Joined(ctx); err != nil {
		t.Fatal(err)
	}
	if n := told.Load(); n != 2 {
		t.Errorf("joined after word of %d nodes, want 2", n)
	}
}

func TestCloseMayBeCalledAgainAndByMany(t *testing.T) {
	t.Parallel()
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(b.Close)
		wg.Go(func() { _ = b.Leave(t.Context()) })
	}
	wg.Wait()
	b.Close()
	if err := b.Leave(t.Context()); err != nil {
		t.Errorf("leave after close: %v", err)
	}
	b.Update(b.fact)
	cfg := quick("c")
	cfg.Bind = b.Addr()
	start(t, cfg) // the port is free
}

func TestAFarewellEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := &cutNet{right: map[netip.AddrPort]bool{}}
	cfg := quick("a")
	cfg.Cut, cfg.LeaveTimeout = c.from(false), 200*time.Millisecond
	a := start(t, cfg)
	b := start(t, quick("b", a.Addr()))
	eventually(t, "a and b see each other", everyoneSees(a, b))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Leave(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

// freePort returns a loopback address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
