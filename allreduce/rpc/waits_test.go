package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// methods lists every call that a node offers, from the service's own description.
func methods() (names []string) {
	for _, m := range nodepb.Node_ServiceDesc.Methods {
		names = append(names, m.MethodName)
	}
	for _, s := range nodepb.Node_ServiceDesc.Streams {
		names = append(names, s.StreamName)
	}
	slices.Sort(names)
	return names
}

// mustCover fails unless there is a case for each call, and for nothing else.
func mustCover[T any](t *testing.T, cases map[string]T) {
	t.Helper()
	if have := slices.Sorted(maps.Keys(cases)); !slices.Equal(have, methods()) {
		t.Fatalf("cases of %v, want one for each of %v", have, methods())
	}
}

// acceptor gives each connection that comes to a function of its own, until the test ends.
func acceptor(t testing.TB, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var conns []net.Conn
		done := make(chan struct{})
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
			go func() { serve(c); done <- struct{}{} }()
		}
		for _, c := range conns {
			c.Close()
		}
		for range conns {
			<-done
		}
	}()
	t.Cleanup(func() { l.Close(); <-gone })
	return l.Addr().String()
}

// settings is the head of the first frame of either side of HTTP/2, which promises 16 KiB.
var settings = []byte{0x00, 0x40, 0x00, 0x04, 0, 0, 0, 0, 0}

// byTheByte writes a frame that never comes to its end, a byte at a time.
func byTheByte(c net.Conn) {
	for i := 0; ; i++ {
		b := []byte{0}
		if i < len(settings) {
			b[0] = settings[i]
		}
		if _, err := c.Write(b); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dribbler is a node that takes every call, answers none that wants little, and gives a byte at a time of
// what is much.
type dribbler struct {
	nodepb.UnimplementedNodeServer
}

func (dribbler) Deliver(ctx context.Context, _ *nodepb.Envelope) (*nodepb.Receipt, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (dribbler) Ping(ctx context.Context, _ *nodepb.PingRequest) (*nodepb.PingReply, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (dribbler) Describe(ctx context.Context, _ *nodepb.DescribeRequest) (*nodepb.Description, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (dribbler) Status(ctx context.Context, _ *nodepb.StatusRequest) (*nodepb.StatusReply, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (dribbler) Ring(s grpc.BidiStreamingServer[nodepb.Raw, nodepb.Raw]) error {
	<-s.Context().Done()
	return s.Context().Err()
}

func dribble(s grpc.ServerStream) error {
	if err := s.SetHeader(metadata.Pairs(sizeKey, strconv.Itoa(1<<20))); err != nil {
		return err
	}
	for {
		if err := s.SendMsg(whole([]byte{0})); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (dribbler) Fetch(_ *nodepb.FetchRequest, s grpc.ServerStreamingServer[nodepb.Raw]) error {
	return dribble(s)
}

func (dribbler) Follow(_ *nodepb.FollowRequest, s grpc.ServerStreamingServer[nodepb.Raw]) error {
	return dribble(s)
}

func (dribbler) Part(_ *nodepb.PartRequest, s grpc.ServerStreamingServer[nodepb.Raw]) error {
	return dribble(s)
}

func newDribbler(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(newCodec()), grpc.WaitForHandlers(true))
	nodepb.RegisterNodeServer(s, dribbler{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// tolerance is how much longer than its deadline a wait may take on a busy machine.
const tolerance = 3 * time.Second

func TestNoPeerHoldsACallerBeyondItsDeadline(t *testing.T) {
	const deadline = 100 * time.Millisecond
	calls := map[string]func(c *Client, addr string) error{
		"Deliver":  func(c *Client, addr string) error { _, err := c.Deliver(t.Context(), addr, Envelope{}); return err },
		"Ping":     func(c *Client, addr string) error { _, err := c.Ping(t.Context(), addr, 0); return err },
		"Describe": func(c *Client, addr string) error { _, err := c.Describe(t.Context(), addr); return err },
		"Status":   func(c *Client, addr string) error { _, err := c.Status(t.Context(), addr); return err },
		"Fetch":    func(c *Client, addr string) error { _, err := c.Fetch(t.Context(), addr, FetchRequest{}); return err },
		"Follow": func(c *Client, addr string) error {
			_, err := c.Follow(t.Context(), addr, FollowRequest{}, deadline)
			return err
		},
		"Part": func(c *Client, addr string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*deadline) // it is the caller who knows what there is to come
			defer cancel()
			_, err := c.Part(ctx, addr, PartRequest{"x", 0, 1 << 20}, 1<<20, deadline)
			return err
		},
		"Ring": func(_ *Client, addr string) error {
			n := newNode(t, 0)
			n.start(0, []*node{n, n}, func(c *GroupConfig) {
				c.Group.Names[1], c.Addrs[1], c.SetupTimeout = "node-1", addr, deadline
			})
			n.group.Start(n.op(1, 10))
			return errors.New((<-n.down).Reason)
		},
	}
	mustCover(t, calls)
	hello := func(c net.Conn) { c.(*net.TCPConn).CloseWrite(); io.Copy(io.Discard, c) } // either fails when the test ends
	peers := map[string]string{
		"accepts and says nothing":      silent(t),
		"closes its half":               acceptor(t, hello),
		"greets by the byte":            acceptor(t, byTheByte),
		"answers never, or by the byte": newDribbler(t),
	}
	var all sync.WaitGroup
	for peer, addr := range peers {
		for _, secret := range []*tls.Config{nil, selfSigned(t)} {
			c := newClient(t, ClientConfig{CallTimeout: deadline, DialTimeout: deadline, ChunkTimeout: deadline, SlowestBlob: 8 << 20, TLS: secret})
			for name, call := range calls {
				all.Go(func() {
					begun := time.Now()
					err := call(c, addr)
					if took := time.Since(begun); err == nil || took > 3*deadline+tolerance {
						t.Errorf("a peer that %s, %s (TLS %v): %v after %v", peer, name, secret != nil, err, took)
					}
				})
			}
		}
	}
	all.Wait()
}

func TestNoConnectionThatSaysNothingIsKept(t *testing.T) {
	s := Serve(ServerConfig{Listener: listen(t), Local: TCP, ConnectTimeout: 100 * time.Millisecond, PingIdle: time.Second})
	t.Cleanup(s.Close)
	for name, say := range map[string]func(net.Conn){
		"nothing":             func(net.Conn) {},
		"the greeting alone":  func(c net.Conn) { c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")) },
		"nothing more, ever":  func(c net.Conn) { c.(*net.TCPConn).CloseWrite() },
		"a frame by the byte": func(c net.Conn) { c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); byTheByte(c) },
		"no answer to a ping": func(c net.Conn) {
			c.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 0, 0, 0, 4, 0, 0, 0, 0, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			said := make(chan struct{})
			go func() { defer close(said); say(c) }() // errors are the server's closing, which is what is waited for
			c.SetReadDeadline(time.Now().Add(2*time.Second + tolerance))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Error("the connection is still there")
			}
			c.Close()
			<-said
		})
	}
}

func TestNoConnectionThatComesUpHoldsAServerThatCloses(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	for _, c := range []struct{ network, says string }{
		{"tcp", ""}, {"tcp", preface[:5]}, {"tcp", preface}, {"unix", ""}, {"unix", "dlnode\x01\x00"},
	} {
		for _, secret := range []*tls.Config{nil, selfSigned(t)} {
			s := Serve(ServerConfig{Listener: listen(t), TLS: secret})
			addr := s.Addr()
			if c.network == "unix" {
				names := localNames(netip.MustParseAddrPort(addr))
				if names == nil {
					continue
				}
				addr = names[0]
			}
			conn, err := net.Dial(c.network, addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, c.says); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			begun := time.Now()
			s.Close()
			if took := time.Since(begun); took > tolerance {
				t.Errorf("a connection by %s that has said %q (TLS %v): closing took %v", c.network, c.says, secret != nil, took)
			}
			conn.Close()
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// A caller names no deadline, or one far ahead, and takes nothing, or asks for nothing.
func TestNoCallerHoldsAServerBeyondItsDeadline(t *testing.T) {
	const limit = 100 * time.Millisecond
	never := func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	much := make([]byte, 64<<20)
	open := map[string]func(ctx context.Context, n nodepb.NodeClient) error{
		"Deliver": func(ctx context.Context, n nodepb.NodeClient) error {
			_, err := n.Deliver(ctx, &nodepb.Envelope{Trajectory: make([]byte, 32), View: make([]byte, 16)})
			return err
		},
		"Ping": func(ctx context.Context, n nodepb.NodeClient) error {
			_, err := n.Ping(ctx, &nodepb.PingRequest{})
			return err
		},
		"Describe": func(ctx context.Context, n nodepb.NodeClient) error {
			_, err := n.Describe(ctx, &nodepb.DescribeRequest{})
			return err
		},
		"Status": func(ctx context.Context, n nodepb.NodeClient) error {
			_, err := n.Status(ctx, &nodepb.StatusRequest{})
			return err
		},
		"Fetch": func(ctx context.Context, n nodepb.NodeClient) error {
			_, err := n.Fetch(ctx, &nodepb.FetchRequest{View: make([]byte, 16)})
			return err
		},
		"Follow": func(ctx context.Context, n nodepb.NodeClient) error {
			_, err := n.Follow(ctx, &nodepb.FollowRequest{Trajectory: make([]byte, 32)})
			return err
		},
		"Part": func(ctx context.Context, n nodepb.NodeClient) error {
			ctx, cancel := context.WithTimeout(ctx, partDeadline)
			context.AfterFunc(ctx, cancel)
			_, err := n.Part(ctx, &nodepb.PartRequest{Name: "x", Length: MaxPart})
			return err
		},
		"Ring": func(ctx context.Context, n nodepb.NodeClient) error {
			ctx = metadata.AppendToOutgoingContext(ctx, fenceKey, string(fence[:]), fromKey, "nobody")
			stream, err := n.Ring(ctx)
			if err == nil { // of a group that is not here
				err = stream.RecvMsg(&message{})
			}
			return err
		},
	}
	mustCover(t, open)
	for _, answers := range []bool{false, true} {
		inside := make(chan struct{}, 1)
		busy := func(ctx context.Context) ([]byte, error) {
			defer func() { inside <- struct{}{} }()
			if answers {
				return much, nil
			}
			return never(ctx)
		}
		s := Serve(ServerConfig{
			Listener: listen(t), Local: TCP, GroupWait: limit, AnswerTimeout: limit,
			Handlers: Handlers{
				Deliver:  func(ctx context.Context, _ Envelope) ([]byte, error) { return never(ctx) },
				Ping:     func(ctx context.Context, _ uint64) ([]byte, error) { return never(ctx) },
				Describe: never, Status: never,
				Fetch: func(ctx context.Context, _ FetchRequest) ([]byte, error) { return busy(ctx) },
				Follow: func(ctx context.Context, _ FollowRequest) (Piece, error) {
					b, err := busy(ctx)
					return Piece{Bytes: b}, err
				},
				Part: func(ctx context.Context, r PartRequest) ([]byte, error) {
					if answers {
						return busy(ctx)
					}
					return nil, errors.New("this call brings its deadline")
				},
			},
		})
		t.Cleanup(s.Close)
		for name, call := range open {
			l := newLink(linkConfig{addr: s.Addr(), timeout: time.Second, local: TCP})
			t.Cleanup(l.close)
			blob := name == "Fetch" || name == "Follow" || name == "Part"
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), limit+tolerance)
			defer cancel()
			err := call(context.WithoutCancel(ctx), nodepb.NewNodeClient(l.cc))
			if took := time.Since(begun); !blob && (err == nil || took > limit+tolerance) {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			if !blob || name == "Part" && !answers {
				continue
			}
			wait(t, name+" is answered", inside)
			if answers && !l.cc.WaitForStateChange(ctx, connectivity.Ready) {
				t.Errorf("%s: the connection of one who takes nothing is still there", name)
			}
		}
		eventually(t, "no call is being answered", func() bool { return len(s.parts.room) == 0 })
		if answers {
			continue
		}
		for _, method := range methods() {
			for _, asks := range []bool{false, true} {
				stream := openAny(t, s, method)
				if asks { // and does not come to an end
					_ = stream.SendMsg(whole(nil)) // RecvMsg tells more
				}
				begun := time.Now()
				if err := stream.RecvMsg(&message{}); err == nil || time.Since(begun) > limit+tolerance {
					t.Errorf("%s (a request %v): %v after %v", method, asks, err, time.Since(begun))
				}
			}
		}
	}
}

// A caller takes all but what is sent last, of which its window lets little through.
func TestWhoDoesNotTakeTheLastChunkLosesItsConnection(t *testing.T) {
	const limit = 500 * time.Millisecond
	much := make([]byte, 3*blobChunk)
	s := Serve(ServerConfig{Listener: listen(t), Local: TCP, AnswerTimeout: limit, Handlers: Handlers{
		Fetch:  func(context.Context, FetchRequest) ([]byte, error) { return much, nil },
		Follow: func(context.Context, FollowRequest) (Piece, error) { return Piece{Bytes: much}, nil },
		Part:   func(context.Context, PartRequest) ([]byte, error) { return much, nil },
	}})
	t.Cleanup(s.Close)
	for name, open := range map[string]func(n nodepb.NodeClient) (grpc.ServerStreamingClient[nodepb.Raw], error){
		"Fetch": func(n nodepb.NodeClient) (grpc.ServerStreamingClient[nodepb.Raw], error) {
			return n.Fetch(t.Context(), &nodepb.FetchRequest{View: make([]byte, 16)})
		},
		"Follow": func(n nodepb.NodeClient) (grpc.ServerStreamingClient[nodepb.Raw], error) {
			return n.Follow(t.Context(), &nodepb.FollowRequest{Trajectory: make([]byte, 32)})
		},
		"Part": func(n nodepb.NodeClient) (grpc.ServerStreamingClient[nodepb.Raw], error) {
			return n.Part(t.Context(), &nodepb.PartRequest{Name: "x", Length: MaxPart})
		},
	} {
		cc, err := grpc.NewClient("passthrough:///"+s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec())), grpc.WithStaticStreamWindowSize(64<<10))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		stream, err := open(nodepb.NewNodeClient(cc))
		if err != nil {
			t.Fatal(err)
		}
		head, err := stream.Header()
		size, ok := blobSize(head)
		if !ok {
			t.Fatal(head, err)
		}
		for got := 0; got < int(size)-blobChunk; {
			var m message
			if err := stream.RecvMsg(&m); err != nil {
				t.Fatal(err)
			}
			got += m.buf.Len()
			m.buf.Free()
		}
		if name == "Part" && len(s.parts.room) != 1 {
			t.Error("it does not keep its place")
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit+tolerance)
		defer cancel()
		if !cc.WaitForStateChange(ctx, connectivity.Ready) {
			t.Errorf("%s: the connection of one who does not take the last chunk is still there", name)
		}
		eventually(t, "no place is kept", func() bool { return len(s.parts.room) == 0 })
	}
}

// openAny opens any method, by its name alone.
func openAny(t *testing.T, s *Server, method string) grpc.ClientStream {
	t.Helper()
	l := newLink(linkConfig{addr: s.Addr(), timeout: time.Second, local: TCP})
	t.Cleanup(l.close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*tolerance)
	t.Cleanup(cancel)
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := l.cc.NewStream(ctx, desc, "/"+nodepb.Node_ServiceDesc.ServiceName+"/"+method, grpc.MaxCallSendMsgSize(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestNoCallerIsHeardOutBeyondTheLimitOfAMessage(t *testing.T) {
	s := serve(t, listen(t), Handlers{})
	for _, method := range methods() {
		if method == "Ring" { // its messages are the group's, and read by it alone
			continue
		}
		stream := openAny(t, s, method)
		if err := stream.SendMsg(whole(make([]byte, maxMessage+1))); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&message{}); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// A member of a group takes and says nothing, as a frozen process does.
func TestNoMemberHoldsAGroupThatCloses(t *testing.T) {
	n, other := newNode(t, 1), newNode(t, 0)
	n.start(1, []*node{other, n}, nil)
	if _, err := openRaw(t, n, other.id, fence); err != nil {
		t.Fatal(err)
	}
	n.group.Start(n.op(1, 4<<20))
	begun := time.Now()
	n.group.Close(allreduce.Broken, other.id, "it says nothing")
	wait(t, "the end", n.down)
	if took := time.Since(begun); took > tolerance {
		t.Errorf("closing took %v", took)
	}
}

func TestThoseWhoTakeSlowlyDoNotStarveTheOthers(t *testing.T) {
	part := make([]byte, MaxPart)
	s := serve(t, listen(t), Handlers{Part: func(context.Context, PartRequest) ([]byte, error) { return part, nil }})
	s.parts = newQueue(partCalls, 200*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), partDeadline)
	defer cancel()
	for range partCalls {
		l := newLink(linkConfig{addr: s.Addr(), timeout: time.Second, local: TCP})
		t.Cleanup(l.close)
		if _, err := nodepb.NewNodeClient(l.cc).Part(ctx, &nodepb.PartRequest{Name: "x", Length: MaxPart}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all places are taken", func() bool { return len(s.parts.room) == partCalls })
	c := newClient(t, ClientConfig{})
	for range 2 * partCalls {
		got, err := c.Part(t.Context(), s.Addr(), PartRequest{"x", 0, MaxPart}, MaxPart, tolerance)
		if err != nil || len(got) != MaxPart {
			t.Fatalf("%d bytes: %v", len(got), err)
		}
	}
}

// Whoever takes at the pace of a slow link keeps the place.
func TestOnlyTheTooSlowLoseTheirPlace(t *testing.T) {
	q := newQueue(1, time.Second)
	now := time.Now()
	a, b := net.Pipe()
	defer b.Close()
	at, done := q.sends(a)
	defer done()
	then := now.Add(-time.Second)
	at.took.Store(&then)
	q.hurry(now)
	a.SetDeadline(now.Add(-time.Second))
	if _, err := a.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("who took a chunk a second ago is cut off: %v", err)
	}
	q.hurry(now.Add(time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("who takes too little keeps the place: %v", err)
	}
}
