package rpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
)

func newClient(t testing.TB, cfg ClientConfig) *Client {
	c := NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

func serve(t testing.TB, l net.Listener, h Handlers) *Server {
	s := Serve(ServerConfig{Listener: l, Local: TCP, Handlers: h, Generation: func() uint64 { return 42 }})
	t.Cleanup(s.Close)
	return s
}

func pong(_ context.Context, incarnation uint64) ([]byte, error) {
	if incarnation == 13 {
		return nil, errors.New("this is another incarnation")
	}
	return []byte{byte(incarnation)}, nil
}

func TestEveryCallReachesItsHandler(t *testing.T) {
	sent := Envelope{Trajectory: [32]byte{1, 31: 2}, View: allreduce.Fence{3, 15: 4}, From: "node-5", Payload: []byte("six")}
	s := serve(t, listen(t), Handlers{
		Ping: pong,
		Deliver: func(_ context.Context, e Envelope) ([]byte, error) {
			if e.Trajectory != sent.Trajectory || e.View != sent.View || e.From != sent.From {
				return nil, errors.New("something was lost")
			}
			return append([]byte("receipt for "), e.Payload...), nil
		},
		Describe: func(context.Context) ([]byte, error) { return []byte("a node"), nil },
		Status:   func(context.Context) ([]byte, error) { return []byte("{}"), nil },
	})
	c := newClient(t, ClientConfig{})
	for name, call := range map[string]func() ([]byte, error){
		"\x07":            func() ([]byte, error) { return c.Ping(t.Context(), s.Addr(), 7) },
		"receipt for six": func() ([]byte, error) { return c.Deliver(t.Context(), s.Addr(), sent) },
		"a node":          func() ([]byte, error) { return c.Describe(t.Context(), s.Addr()) },
		"{}":              func() ([]byte, error) { return c.Status(t.Context(), s.Addr()) },
	} {
		if got, err := call(); err != nil || string(got) != name {
			t.Errorf("got %q, %v; want %q", got, err, name)
		}
	}
}

func TestARefusalCarriesTextAndGeneration(t *testing.T) {
	s := serve(t, listen(t), Handlers{Ping: pong})
	c := newClient(t, ClientConfig{})
	_, ping := c.Ping(t.Context(), s.Addr(), 13)
	_, deliver := c.Deliver(t.Context(), s.Addr(), Envelope{})
	_, describe := c.Describe(t.Context(), s.Addr())
	_, fetch := c.Fetch(t.Context(), s.Addr(), FetchRequest{})
	_, page := c.Status(t.Context(), s.Addr())
	for i, err := range []error{ping, deliver, describe, fetch, page} {
		want := "this node does not answer such calls"
		if i == 0 {
			want = "this is another incarnation"
		}
		var e *Error
		if !errors.As(err, &e) || e.Kind != Rejected || e.Generation != 42 || e.Message != want {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if want := "rpc: ping " + s.Addr() + ": rejected at generation 42: this is another incarnation"; ping.Error() != want {
		t.Errorf("%q, want %q", ping, want)
	}
}

func TestNobodyThereIsUnreachableAtOnce(t *testing.T) {
	l := listen(t)
	l.Close()
	c := newClient(t, ClientConfig{})
	for range 3 { // the later ones are not slower, nor answered from memory
		start := time.Now()
		_, err := c.Ping(t.Context(), l.addr(), 0)
		if KindOf(err) != Unreachable || !strings.Contains(err.Error(), "connection refused") {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 250*time.Millisecond {
			t.Fatalf("took %v", took)
		}
	}
}

func TestAPeerThatComesBackIsHeardAtOnce(t *testing.T) {
	l := listen(t)
	c := newClient(t, ClientConfig{})
	s := serve(t, l, Handlers{Ping: pong})
	for i := range 5 {
		if _, err := c.Ping(t.Context(), l.addr(), 1); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		s.Close()
		if i%2 == 0 { // asked while it is away, or not
			if _, err := c.Ping(t.Context(), l.addr(), 1); KindOf(err) != Unreachable {
				t.Fatalf("round %d: %v", i, err)
			}
		}
		again, err := net.Listen("tcp", l.addr())
		if err != nil {
			t.Fatal(err)
		}
		s = serve(t, again, Handlers{Ping: pong})
	}
}

func TestSilenceIsATimeout(t *testing.T) {
	addr := silent(t)
	c := newClient(t, ClientConfig{CallTimeout: 50 * time.Millisecond, ChunkTimeout: 50 * time.Millisecond})
	_, ping := c.Ping(t.Context(), addr, 0)
	_, fetch := c.Fetch(t.Context(), addr, FetchRequest{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, short := c.Fetch(ctx, addr, FetchRequest{})
	for _, err := range []error{ping, fetch, short} {
		if KindOf(err) != Timeout {
			t.Error(err)
		}
	}
}

// Who pings has learnt how long the node may take, which may be longer than other calls.
func TestAPingLastsAsLongAsItsDeadline(t *testing.T) {
	s := serve(t, listen(t), Handlers{Ping: func(context.Context, uint64) ([]byte, error) {
		time.Sleep(100 * time.Millisecond) // a machine that swaps
		return []byte("here"), nil
	}})
	c := newClient(t, ClientConfig{CallTimeout: 20 * time.Millisecond})
	if _, err := c.Ping(t.Context(), s.Addr(), 0); KindOf(err) != Timeout {
		t.Errorf("without a deadline: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.Ping(ctx, s.Addr(), 0); err != nil {
		t.Errorf("within five seconds: %v", err)
	}
}

func TestASlowHandlerDoesNotHoldUpPings(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, listen(t), Handlers{Ping: pong, Deliver: func(ctx context.Context, _ Envelope) ([]byte, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	}})
	c := newClient(t, ClientConfig{})
	delivered := make(chan error, 1)
	go func() {
		_, err := c.Deliver(t.Context(), s.Addr(), Envelope{})
		delivered <- err
	}()
	for range 10 {
		if _, err := c.Ping(t.Context(), s.Addr(), 1); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	if err := wait(t, "delivery", delivered); err != nil {
		t.Fatal(err)
	}
}

func TestATimeoutLeavesOtherCallsAlone(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, listen(t), Handlers{Ping: pong, Describe: func(context.Context) ([]byte, error) {
		<-release
		return []byte("late"), nil
	}})
	c := newClient(t, ClientConfig{})
	described := make(chan error, 1)
	go func() {
		_, err := c.Describe(t.Context(), s.Addr())
		described <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := c.Describe(ctx, s.Addr()); KindOf(err) != Timeout {
		t.Fatal(err)
	}
	close(release)
	if err := wait(t, "the other call", described); err != nil {
		t.Fatal(err)
	}
}

func TestFetchCopiesAnyBlob(t *testing.T) {
	blob := make([]byte, 3*blobChunk+1)
	for i := range blob {
		blob[i] = byte(i * i >> 3)
	}
	s := serve(t, listen(t), Handlers{Fetch: func(_ context.Context, r FetchRequest) ([]byte, error) {
		if r.View != fence {
			return nil, errors.New("another view")
		}
		return blob[:r.Transition], nil
	}})
	c := newClient(t, ClientConfig{MaxBlobBytes: 3 * blobChunk})
	for _, size := range []int{0, 1, blobChunk, blobChunk + 1, 3 * blobChunk} {
		got, err := c.Fetch(t.Context(), s.Addr(), FetchRequest{View: fence, Transition: uint64(size)})
		if err != nil || !bytes.Equal(got, blob[:size]) {
			t.Fatalf("%d of %d bytes: %v", len(got), size, err)
		}
	}
	if _, err := c.Fetch(t.Context(), s.Addr(), FetchRequest{View: fence, Transition: 3*blobChunk + 1}); KindOf(err) != Rejected ||
		!strings.Contains(err.Error(), "a blob of 1572865 bytes, at most 1572864 allowed") {
		t.Fatal(err)
	}
}

func TestADonorKilledWhileItSendsIsUnreachable(t *testing.T) {
	l := listen(t)
	asked, frozen := make(chan struct{}), make(chan struct{})
	serve(t, l, Handlers{Fetch: func(context.Context, FetchRequest) ([]byte, error) {
		close(asked)
		<-frozen
		return make([]byte, 16<<20), nil // more than the windows take
	}})
	c := newClient(t, ClientConfig{})
	fetched := make(chan error, 1)
	go func() {
		_, err := c.Fetch(t.Context(), l.addr(), FetchRequest{})
		fetched <- err
	}()
	wait(t, "the request", asked)
	l.freeze()
	close(frozen)
	time.Sleep(20 * time.Millisecond)
	l.cut()
	if err := wait(t, "the end of the fetch", fetched); KindOf(err) != Unreachable {
		t.Fatal(err)
	}
}

func TestCloseOfTheClientEndsItsCalls(t *testing.T) {
	s := serve(t, listen(t), Handlers{Describe: func(ctx context.Context) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	c := newClient(t, ClientConfig{})
	described := make(chan error, 1)
	go func() {
		_, err := c.Describe(t.Context(), s.Addr())
		described <- err
	}()
	time.Sleep(20 * time.Millisecond)
	c.Close()
	_, ping := c.Ping(t.Context(), s.Addr(), 0)
	_, fetch := c.Fetch(t.Context(), s.Addr(), FetchRequest{})
	for _, err := range []error{wait(t, "the call", described), ping, fetch} {
		if KindOf(err) != Canceled {
			t.Error(err)
		}
	}
}

func TestUnusedConnectionsAreSwept(t *testing.T) {
	s, other := serve(t, listen(t), Handlers{Ping: pong}), serve(t, listen(t), Handlers{Ping: pong})
	c := newClient(t, ClientConfig{})
	if _, err := c.Ping(t.Context(), s.Addr(), 0); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.links[linkKey{addr: s.Addr()}].used = time.Now().Add(-2 * unusedLinks)
	c.mu.Unlock()
	if _, err := c.Ping(t.Context(), other.Addr(), 0); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.links) != 1 {
		t.Fatalf("%d connections", len(c.links))
	}
}

func TestTLSProtectsCallsAndRings(t *testing.T) {
	config := selfSigned(t)
	l := listen(t)
	s := Serve(ServerConfig{Listener: l, Local: TCP, Handlers: Handlers{Ping: pong}, TLS: config})
	t.Cleanup(s.Close)
	if _, err := newClient(t, ClientConfig{TLS: config}).Ping(t.Context(), l.addr(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, ClientConfig{}).Ping(t.Context(), l.addr(), 1); err == nil {
		t.Fatal("a plain client got an answer")
	}
}

func TestTLSProtectsUnixSocketsToo(t *testing.T) {
	config := selfSigned(t)
	part := func(context.Context, PartRequest) ([]byte, error) { return []byte{1}, nil }
	s := Serve(ServerConfig{Listener: listen(t), Handlers: Handlers{Part: part}, TLS: config})
	t.Cleanup(s.Close)
	c := newClient(t, ClientConfig{TLS: config})
	if _, err := c.Part(t.Context(), s.Addr(), PartRequest{"x", 0, 1}, 1, time.Second); err != nil {
		t.Fatal(err)
	}
	if over := c.links[linkKey{s.Addr(), true}].conn.RemoteAddr().Network(); runtime.GOOS == "linux" && over != "unix" {
		t.Fatalf("the call went over %s", over)
	}
	if _, err := newClient(t, ClientConfig{}).Part(t.Context(), s.Addr(), PartRequest{"x", 0, 1}, 1, time.Second); err == nil {
		t.Fatal("a plain client got an answer")
	}
}

func selfSigned(t *testing.T) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      roots, MinVersion: tls.VersionTLS13,
	}
}

func TestFollowBringsPieces(t *testing.T) {
	want := FollowRequest{Trajectory: [32]byte{1, 31: 2}, From: "node-5#6", At: 1 << 50, Begin: true, State: true, Transition: 7, Lo: 1 << 40, Hi: 1<<40 + 9}
	s := serve(t, listen(t), Handlers{Follow: func(_ context.Context, r FollowRequest) (Piece, error) {
		r.Packed = false
		switch {
		case r.Lo == r.Hi:
			return Piece{Newest: 9, Transition: r.Transition}, nil
		case r != want:
			return Piece{}, errors.New("something was lost")
		}
		return Piece{Newest: 1 << 60, First: 1 << 55, Transition: 3, Elements: 1 << 50, Attempt: 1 << 63, Lo: 5, Hi: 1 << 40, Packed: true, Took: time.Second, Bytes: bytes.Repeat([]byte{5}, 2*blobChunk+1)}, nil
	}})
	c := newClient(t, ClientConfig{})
	p, err := c.Follow(t.Context(), s.Addr(), want, 10*time.Second)
	same := p.Newest == 1<<60 && p.First == 1<<55 && p.Transition == 3 && p.Elements == 1<<50 && p.Attempt == 1<<63 && p.Lo == 5 && p.Hi == 1<<40 && p.Packed && p.Took == time.Second
	if err != nil || !same || len(p.Bytes) != 2*blobChunk+1 || bytes.ContainsFunc(p.Bytes, func(r rune) bool { return r != 5 }) {
		t.Errorf("%d bytes, %+v: %v", len(p.Bytes), p, err)
	}
	if p, err := c.Follow(t.Context(), s.Addr(), FollowRequest{Transition: 4}, 10*time.Second); err != nil || p.Newest != 9 || p.Transition != 4 || len(p.Bytes) > 0 {
		t.Errorf("nothing new: transition %d of %d, %d bytes: %v", p.Transition, p.Newest, len(p.Bytes), err)
	}
	if _, err := c.Follow(t.Context(), s.Addr(), FollowRequest{Hi: 1}, 10*time.Second); KindOf(err) != Rejected || !strings.Contains(err.Error(), "something was lost") {
		t.Errorf("a refusal: %v", err)
	}
	mute := serve(t, listen(t), Handlers{})
	if _, err := c.Follow(t.Context(), mute.Addr(), want, 10*time.Second); KindOf(err) != Rejected {
		t.Errorf("nobody lends here: %v", err)
	}
}

// What is sealed is packed within a machine too, at first to see what that is worth.
func TestPiecesWithinAMachineComePackedIfTheyAreSealed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what is within a machine is known of unix sockets")
	}
	for _, secret := range []*tls.Config{nil, selfSigned(t)} {
		var packed bool
		follow := func(_ context.Context, r FollowRequest) (Piece, error) {
			packed = r.Packed
			return Piece{}, nil
		}
		s := Serve(ServerConfig{Listener: listen(t), Handlers: Handlers{Follow: follow}, TLS: secret})
		t.Cleanup(s.Close)
		c := newClient(t, ClientConfig{TLS: secret})
		for range 2 { // where a connection leads is known once it is there
			if _, err := c.Follow(t.Context(), s.Addr(), FollowRequest{Hi: 1}, 10*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if packed != (secret != nil) {
			t.Errorf("TLS %v: packed %v", secret != nil, packed)
		}
	}
}

// TestPiecesComePackedWhereThatPays: over a slow link, and never within one machine.
func TestPiecesComePackedWhereThatPays(t *testing.T) {
	piece := Piece{Packed: true, Took: time.Millisecond, Bytes: make([]byte, 600<<10)}
	packs := func(took time.Duration, local bool) (n int) {
		var w thrift
		for range 2*sampled - 1 {
			if w.packs(local) {
				n++
			}
			w.carried(piece, 1<<20, took)
		}
		return n
	}
	if n := packs(100*time.Millisecond, false); n != 2*sampled-1 {
		t.Errorf("over a slow link %d of %d pieces come packed", n, 2*sampled-1)
	}
	if n := packs(100*time.Microsecond, false); n != 2 {
		t.Errorf("over a fast link %d of %d pieces come packed, want one in %d to see what it is worth", n, 2*sampled-1, sampled)
	}
	if n := packs(100*time.Millisecond, true); n != 0 {
		t.Errorf("within a machine %d pieces come packed", n)
	}
}
