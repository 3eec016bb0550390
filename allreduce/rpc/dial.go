package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
)

// Sizes of ring and bulk connections. Windows are static: gRPC's estimate starts at 64 KiB and pings
// to grow, which costs the first seconds of every new group.
const (
	streamWindow = 2 << 20
	connWindow   = 4 << 20
	wireBuffer   = 512 << 10
	maxMessage   = 16 << 20 // bytes of any message, a segment with its head among them
)

// linkConfig describes a client connection.
type linkConfig struct {
	addr    string
	timeout time.Duration // of one attempt to connect
	tls     *tls.Config
	bulk    bool      // much is to go over it
	local   Transport // the quickest way to a node of this machine that it may take
}

// link is a client connection that remembers why it could not be made, and can always be closed at once.
type link struct {
	cc *grpc.ClientConn
	linkConfig

	mu      sync.Mutex
	closed  bool
	conn    net.Conn // the last one made
	lastErr error    // of the last attempt to connect; nil after a success
}

// newLink prepares a connection; the first call makes it.
func newLink(c linkConfig) *link {
	l := &link{linkConfig: c}
	options := []grpc.DialOption{
		grpc.WithContextDialer(l.dial),
		grpc.WithTransportCredentials(newCredentials(c.tls, c.local)),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: c.timeout}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	}
	if c.bulk {
		options = append(options,
			grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
			grpc.WithReadBufferSize(wireBuffer), grpc.WithWriteBufferSize(wireBuffer),
			experimental.WithBufferPool(bulkPool))
	}
	cc, err := grpc.NewClient("passthrough:///"+c.addr, options...)
	if err != nil {
		panic("rpc: " + err.Error()) // the options are wrong: nothing was dialed yet
	}
	l.cc = cc
	return l
}

// dial connects and remembers the outcome.
func (l *link) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	conn, err := net.Conn(nil), errNotLocal
	if l.local != TCP {
		conn, err = dialLocal(ctx, addr)
	}
	if err != nil {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", addr)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed && err == nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	l.conn, l.lastErr = conn, err
	return conn, err
}

// close ends all calls and returns when the connection's goroutines are gone. It closes the socket
// first: gRPC would try for five seconds to say goodbye to a peer that reads nothing any more.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	if l.conn != nil {
		l.conn.Close()
	}
	l.mu.Unlock()
	l.cc.Close()
}

// staysHere tells whether the last connection does not leave this machine.
func (l *link) staysHere() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil && l.conn.RemoteAddr().Network() == "unix"
}

// dialErr returns why the last attempt to connect failed, nil if it did not, net.ErrClosed after close.
func (l *link) dialErr() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	return l.lastErr
}

// transportCredentials returns credentials for config, insecure ones for nil.
func transportCredentials(config *tls.Config) credentials.TransportCredentials {
	if config == nil {
		return insecure.NewCredentials()
	}
	return newSealing(config)
}

// connInfo tells a stream which connection it goes by.
type connInfo struct {
	credentials.AuthInfo
	conn   net.Conn
	memory *memory // that both ends share, if they do
	why    error   // they don't
}

// transport is what the connection's frames go by.
func (i connInfo) transport() Transport {
	switch {
	case i.memory != nil:
		return SharedMemory
	case i.conn.RemoteAddr().Network() == "unix":
		return UnixSocket
	}
	return TCP
}

// connCredentials are credentials that tell connInfo. Before their own handshake the ends of a unix socket greet one
// another, and share memory.
type connCredentials struct {
	credentials.TransportCredentials
	share bool
}

// newCredentials returns credentials for config, insecure ones for nil. What is to be encrypted does not go through memory.
func newCredentials(config *tls.Config, local Transport) credentials.TransportCredentials {
	return connCredentials{transportCredentials(config), local == SharedMemory && config == nil}
}

// ClientHandshake implements credentials.TransportCredentials.
func (c connCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	return c.greet(raw, call, func(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
		return c.TransportCredentials.ClientHandshake(ctx, authority, conn)
	})
}

// ServerHandshake implements credentials.TransportCredentials.
func (c connCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	widen(raw)
	return c.greet(raw, answer, c.TransportCredentials.ServerHandshake)
}

func (c connCredentials) greet(raw net.Conn, greet func(c *net.UnixConn, share bool) (*memory, error, error),
	then func(net.Conn) (net.Conn, credentials.AuthInfo, error)) (net.Conn, credentials.AuthInfo, error) {
	info := connInfo{conn: raw, why: errNotLocal}
	conn := raw
	if u, ok := raw.(*net.UnixConn); ok {
		var err error
		if info.memory, info.why, err = greet(u, c.share && isTrusted(u)); err != nil {
			return nil, nil, err
		}
		if info.memory != nil {
			conn = memoryConn{u, info.memory}
		}
	}
	var err error
	conn, info.AuthInfo, err = then(conn)
	return conn, info, err
}

// memoryConn is a connection that takes its memory with it, unless a link has that.
type memoryConn struct {
	*net.UnixConn
	memory *memory
}

// Close implements net.Conn.
func (c memoryConn) Close() error {
	c.memory.drop()
	return c.UnixConn.Close()
}

// Clone implements credentials.TransportCredentials.
func (c connCredentials) Clone() credentials.TransportCredentials {
	return connCredentials{c.TransportCredentials.Clone(), c.share}
}
