package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dlnode/dlnode/cluster/view"
)

// Whatever gossip says and however slowly it is read, the events of a node are
// a sentence that makes sense and ends with the truth.
func TestEventsAreOrderedAndEndWithTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMailbox()
		up, left := map[string]bool{}, map[string]bool{}         // what the reader believes
		truth, fact := map[string]Kind{}, map[string]view.Fact{} // what gossip said
		believed := map[string]view.Fact{}
		read := func() bool {
			ev, ok := m.take()
			id := ev.Fact.ID
			switch {
			case !ok:
				return false
			case left[id]:
				t.Fatalf("%v after a farewell", ev.Kind)
			case (ev.Kind == Up) == up[id]:
				t.Fatalf("%v for a node that is up: %v", ev.Kind, up[id])
			case ev.Kind == Update && ev.Fact == believed[id]:
				t.Fatalf("an update without news")
			}
			up[id], left[id], believed[id] = ev.Kind == Up || ev.Kind == Update, ev.Kind == Left, ev.Fact
			return true
		}
		for i := range rapid.IntRange(0, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "read") == 0 {
				read()
				continue
			}
			f := view.Fact{ID: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node"), Transition: uint64(i / 4)}
			kind := rapid.SampledFrom([]Kind{Up, Up, Up, Failed, Failed, Left}).Draw(t, "kind")
			m.put(kind, f)
			if truth[f.ID] != Left {
				truth[f.ID], fact[f.ID] = kind, f
			}
		}
		for read() {
		}
		if len(m.dirty) != 0 {
			t.Fatalf("rows left over: %v", m.dirty)
		}
		for id, k := range truth {
			if up[id] != (k == Up) || up[id] && believed[id] != fact[id] {
				t.Fatalf("%s is %v with %+v, the reader believes up=%v, %+v", id, k, fact[id], up[id], believed[id])
			}
		}
	})
}

func TestTheMailboxHoldsOneEventForEachNode(t *testing.T) {
	m := newMailbox()
	for i := range 10000 {
		m.put(Up, view.Fact{ID: "a", Transition: uint64(i)})
		m.put(Failed, view.Fact{ID: "a", Transition: uint64(i)})
		m.put(Up, view.Fact{ID: "b", Transition: uint64(i)})
	}
	if len(m.dirty) != 2 || len(m.rows) != 2 {
		t.Errorf("%d dirty rows of %d, want 2 of 2", len(m.dirty), len(m.rows))
	}
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)
}

func TestTheLostAreSearchedInTurnsAndForgottenInTheEnd(t *testing.T) {
	p, now := newPeers(), time.Unix(1000, 0)
	for i := range 5 {
		n := view.Node{ID: fmt.Sprint("n", i), Incarnation: 1}
		p.up(n, addr(i))
		p.failed(now, n)
	}
	var order []netip.AddrPort
	for i := range 3 {
		order = append(order, p.search(now.Add(time.Duration(i)*time.Second), time.Hour, 2)...)
	}
	if want := []netip.AddrPort{addr(0), addr(1), addr(2), addr(3), addr(4), addr(0)}; !slices.Equal(order, want) {
		t.Errorf("searched %v, want %v", order, want)
	}
	if got := p.search(now.Add(2*time.Hour), time.Hour, 9); len(got) != 0 {
		t.Errorf("after two hours still searched: %v", got)
	}
	if _, lost := p.count(); lost != 0 {
		t.Errorf("%d lost are remembered too long", lost)
	}
}

func TestWhoIsReplacedIsNotSearched(t *testing.T) {
	p, now := newPeers(), time.Unix(1000, 0)
	old, again, other := view.Node{ID: "a", Incarnation: 1}, view.Node{ID: "a", Incarnation: 2}, view.Node{ID: "b", Incarnation: 3}
	p.up(old, addr(1))
	p.failed(now, old)
	p.up(again, addr(2)) // same ID elsewhere
	p.failed(now, again)
	p.up(other, addr(2)) // other ID, same place
	if live, lost := p.count(); live != 1 || lost != 0 {
		t.Errorf("%d live, %d lost, want 1 and 0", live, lost)
	}
	p.left(other)
	if live, lost := p.count(); live != 0 || lost != 0 {
		t.Errorf("after a farewell %d live, %d lost, want none", live, lost)
	}
}

func TestTheMemoryOfTheLostIsBounded(t *testing.T) {
	p := newPeers()
	for i := range 3 * maxLost {
		n := view.Node{ID: fmt.Sprint(i), Incarnation: 1}
		p.up(n, addr(i))
		p.failed(time.Unix(int64(i), 0), n)
	}
	if _, lost := p.count(); lost != maxLost {
		t.Errorf("%d lost, want %d", lost, maxLost)
	}
	if _, kept := p.lost[view.Node{ID: fmt.Sprint(3*maxLost - 1), Incarnation: 1}]; !kept {
		t.Error("the one lost last is forgotten")
	}
}

func TestSeedsAreWrittenInManyWays(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.5:80":          "10.0.0.5:80",
		"10.0.0.5":             "10.0.0.5:7946",
		"node-0.dlnode":        "node-0.dlnode:7946",
		"node-0.dlnode:1":      "node-0.dlnode:1",
		"fd00::5":              "[fd00::5]:7946",
		"[fd00::5]":            "[fd00::5]:7946",
		"[fd00::5]:80":         "[fd00::5]:80",
		"[::ffff:10.0.0.5]:80": "10.0.0.5:80",
		"localhost":            "localhost:7946",
	} {
		seeds, err := parseSeeds([]string{text})
		if err != nil || seeds[0].text() != want {
			t.Errorf("%q: got %v, %v, want %s", text, seeds, err, want)
		}
	}
	for text, want := range map[string]string{
		"":             "the host is missing",
		":7946":        "the host is missing",
		"host:":        `the port "" is not a number`,
		"host:http":    `the port "http" is not a number`,
		"host:70000":   `the port "70000" is not a number`,
		"host:0":       "port 0",
		"http://host":  "is not a number",
		"fe80::1%eth0": "zone",
		"a/b":          "want host:port",
		"[fd00::5":     "want host:port",
	} {
		_, err := parseSeeds([]string{text})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("join address %q", text)) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestAConfigurationIsCheckedBeforeAnythingIsOpened(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no name":        {Config{Incarnation: 1}, "no name"},
		"no incarnation": {Config{Name: "a"}, "incarnation is 0"},
		"open door":      {Config{Name: "a", Incarnation: 1, Bind: "0.0.0.0:7946"}, "0.0.0.0:7946 without a secret"},
		"open door 6":    {Config{Name: "a", Incarnation: 1, Bind: "[::]"}, "[::]:7946 without a secret"},
		"any":            {Config{Name: "a", Incarnation: 1, Bind: ":7946"}, "0.0.0.0:7946 without a secret"},
		"bad bind":       {Config{Name: "a", Incarnation: 1, Bind: "127.0.0.1:x"}, `bind address "127.0.0.1:x"`},
		"bad advertise":  {Config{Name: "a", Incarnation: 1, Advertise: "here"}, `advertise address "here"`},
		"bad port":       {Config{Name: "a", Incarnation: 1, Advertise: "10.0.0.1:99999"}, "number from 0 to 65535"},
		"bad seed":       {Config{Name: "a", Incarnation: 1, Join: []string{"host:http"}}, `join address "host:http"`},
		"long label":     {Config{Name: "a", Incarnation: 1, Label: strings.Repeat("x", 250)}, "at most 248"},
		"negative":       {Config{Name: "a", Incarnation: 1, RejoinEvery: -1}, "RejoinEvery is negative"},
	} {
		if err := c.cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	for name, cfg := range map[string]Config{
		"defaults": {Name: "a", Incarnation: 1},
		"secret":   {Name: "a", Incarnation: 1, Bind: "0.0.0.0:7946", Secret: []byte("x"), Advertise: "10.0.0.1"},
		"insecure": {Name: "a", Incarnation: 1, Bind: ":0", Insecure: true, Advertise: "[fd00::1]:7"},
		"by name":  {Name: "a", Incarnation: 1, Bind: "localhost:0"},
	} {
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsAdvertised(t *testing.T) {
	base := Config{Name: "a", Incarnation: 1, Insecure: true}
	for _, c := range []struct{ bind, advertise, want string }{
		{"127.0.0.1:0", "", "127.0.0.1"},
		{"10.1.2.3:7946", "", "10.1.2.3"},
		{"0.0.0.0:7946", "10.9.9.9:1", "10.9.9.9"},
		{"127.0.0.1:0", "fd00::1", "fd00::1"},
	} {
		cfg := base
		cfg.Bind, cfg.Advertise = c.bind, c.advertise
		if got, err := cfg.AdvertiseIP(); err != nil || got.String() != c.want {
			t.Errorf("bind %q, advertise %q: got %v, %v, want %s", c.bind, c.advertise, got, err, c.want)
		}
	}
	base.Bind = "0.0.0.0:7946"
	if got, err := base.AdvertiseIP(); err == nil && (got.IsUnspecified() || got.IsLoopback()) {
		t.Errorf("an open bind is advertised as %v", got)
	}
}

func TestMemberlistsLinesBecomeRecords(t *testing.T) {
	var out bytes.Buffer
	b := &logBridge{to: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))}
	l := b.logger()
	l.Printf("[DEBUG] memberlist: one %d", 1)
	l.Printf("[INFO] memberlist: two")
	l.Printf("[WARN] memberlist: three")
	l.Printf("[ERR] memberlist: four")
	l.Printf("five")
	b.silent.Store(true)
	l.Printf("[ERR] memberlist: six")
	want := `level=DEBUG msg="gossip: one 1"
level=INFO msg="gossip: two"
level=WARN msg="gossip: three"
level=WARN msg="gossip: four"
level=INFO msg="gossip: five"
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestAFailedTryIsToldInWords(t *testing.T) {
	at := netip.MustParseAddrPort("10.0.0.6:7946")
	failed := &JoinError{Tries: []Try{
		{Seed: "gone.example:7946", Err: errors.New("no such host")},
		{Seed: "10.0.0.6:7946", Addr: at, Err: errors.New("connection refused")},
		{Seed: "pods.example:7946", Addr: at, Err: errSelf},
		{Addr: at, Err: errors.New("no answer in time")},
	}}
	want := "cluster: no join address can be reached: tried gone.example:7946 (no such host), " +
		"10.0.0.6:7946 (connection refused), pods.example:7946 at 10.0.0.6:7946 (that is this node), 10.0.0.6:7946 (no answer in time)"
	if failed.Error() != want {
		t.Errorf("got  %s\nwant %s", failed, want)
	}
	for text, want := range map[string]string{
		"1 error occurred:\n\t* failed to join 10.0.0.6:7946: dial tcp 10.0.0.6:7946: connect: connection refused\n\n": "connection refused",
		"1 error occurred:\n\t* failed to join [fd00::1]:7946: dial tcp [fd00::1]:7946: connect: no route to host\n\n": "no route to host",
		"1 error occurred:\n\t* failed to join 10.0.0.6:7946: dial tcp 10.0.0.6:7946: i/o timeout\n\n":                 "no answer in time",
		"1 error occurred:\n\t* failed to join 10.0.0.6:7946: no installed keys could decrypt the message\n\n":         "the secrets differ",
		"1 error occurred:\n\t* failed to join 10.0.0.6:7946: Node 'x' protocol version (9) is incompatible: [1, 5]\n": "Node 'x' protocol version (9) is incompatible: [1, 5]",
	} {
		if got := explain(errors.New(text)).Error(); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
