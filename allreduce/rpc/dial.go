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
	maxControl   = 16 << 20 // bytes of a control message
)

// link is a client connection that remembers why it could not be made, and can always be closed at once.
type link struct {
	cc      *grpc.ClientConn
	timeout time.Duration // of one attempt to connect
	bulk    bool          // much is to go over it

	mu      sync.Mutex
	closed  bool
	conn    net.Conn // the last one made
	lastErr error    // of the last attempt to connect; nil after a success
}

// newLink prepares a connection to addr; the first call makes it. maxMessage bounds received messages.
func newLink(addr string, timeout time.Duration, maxMessage int, config *tls.Config, bulk bool) *link {
	l := &link{timeout: timeout, bulk: bulk}
	options := []grpc.DialOption{
		grpc.WithContextDialer(l.dial),
		grpc.WithTransportCredentials(transportCredentials(config)),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: timeout}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	}
	if bulk {
		options = append(options,
			grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
			grpc.WithReadBufferSize(wireBuffer), grpc.WithWriteBufferSize(wireBuffer),
			experimental.WithBufferPool(bulkPool))
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, options...)
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
	if l.bulk {
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

// local tells whether the last connection stays on this machine.
func (l *link) local() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil && isLocalConn(l.conn)
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
	return credentials.NewTLS(config)
}

// connInfo tells a stream's handler which connection the stream came by.
type connInfo struct {
	credentials.AuthInfo
	conn net.Conn
}

// connCredentials are credentials whose server side tells connInfo.
type connCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (c connCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	widen(raw)
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	return conn, connInfo{info, raw}, err
}

// Clone implements credentials.TransportCredentials.
func (c connCredentials) Clone() credentials.TransportCredentials {
	return connCredentials{c.TransportCredentials.Clone()}
}
