package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// ClientConfig describes how a node calls others. The zero value is usable.
type ClientConfig struct {
	CallTimeout  time.Duration // bounds every call for little; an earlier deadline of the caller holds, and any of a Ping; 0 means 2 s
	DialTimeout  time.Duration // bounds one attempt to connect; 0 means 1 s
	ChunkTimeout time.Duration // the longest silence of a donor, its preparation included; 0 means 10 s
	SlowestBlob  int64         // bytes a second; who gives a blob more slowly is given up, ChunkTimeout apart; 0 means 128 KiB
	MaxBlobBytes int64         // refuses larger blobs; 0 means 16 GiB
	TLS          *tls.Config   // nil means plain TCP
}

// withDefaults replaces zeros.
func (c ClientConfig) withDefaults() ClientConfig {
	setDefault(&c.CallTimeout, 2*time.Second)
	setDefault(&c.DialTimeout, time.Second)
	setDefault(&c.ChunkTimeout, 10*time.Second)
	setDefault(&c.SlowestBlob, slowest)
	setDefault(&c.MaxBlobBytes, 16<<30)
	return c
}

// slowest is the pace, in bytes a second, below which nobody is waited for: that of a link of 1 Mbit/s. So
// how long a blob may take follows from its size, and nobody has to say.
const slowest = 128 << 10

// setDefault replaces a zero.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Envelope is one message of the membership protocol.
type Envelope struct {
	Trajectory [32]byte
	View       allreduce.Fence // the view it is about; zero before the first
	From       string          // id of the sender
	Payload    []byte
}

// FetchRequest names a state: as it stood at a transition, in a view.
type FetchRequest struct {
	View       allreduce.Fence
	Transition uint64
}

// Client calls other nodes by address (host:port). It may be used by many goroutines. Every call has
// a deadline and every error is an *Error.
type Client struct {
	cfg ClientConfig

	received atomic.Uint64 // bytes of blobs

	mu     sync.Mutex
	closed bool
	links  map[linkKey]*pooled
}

// linkKey names a connection: one for control and one for bulk per address.
type linkKey struct {
	addr string
	bulk bool
}

// pooled is a connection with its users. Who retires it takes it out of the map; the last user of a
// retired one closes it.
type pooled struct {
	*link
	users   int
	retired bool
	proven  bool // a call has come to an answer on it
	used    time.Time
	thrift  thrift
}

// unusedLinks is how long a connection that nobody uses is kept, since nodes come and go on ephemeral
// ports.
const unusedLinks = 5 * time.Minute

// NewClient makes a Client; it connects when it is used.
func NewClient(cfg ClientConfig) *Client {
	return &Client{cfg: cfg.withDefaults(), links: map[linkKey]*pooled{}}
}

// Close ends all calls in progress with Canceled and closes all connections. Later calls fail likewise.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for key, p := range c.links {
		delete(c.links, key)
		p.close()
	}
}

// Deliver hands e to the node at addr and returns its receipt. It is tried once.
func (c *Client) Deliver(ctx context.Context, addr string, e Envelope) ([]byte, error) {
	request := &nodepb.Envelope{Trajectory: e.Trajectory[:], View: e.View[:], From: e.From, Payload: e.Payload}
	var receipt []byte
	err := c.call(ctx, "deliver", addr, false, func(ctx context.Context, n nodepb.NodeClient, o ...grpc.CallOption) error {
		reply, err := n.Deliver(ctx, request, o...)
		receipt = reply.GetPayload()
		return err
	})
	return receipt, err
}

// Ping asks the node at addr for a sign of life, which comes whatever its training does. A node that is
// not the given incarnation rejects; 0 means any. A deadline of ctx holds, near or far: who asks has learnt how
// long that node may take.
func (c *Client) Ping(ctx context.Context, addr string, incarnation uint64) ([]byte, error) {
	var payload []byte
	err := c.call(ctx, "ping", addr, true, func(ctx context.Context, n nodepb.NodeClient, o ...grpc.CallOption) error {
		reply, err := n.Ping(ctx, &nodepb.PingRequest{Incarnation: incarnation}, o...)
		payload = reply.GetPayload()
		return err
	})
	return payload, err
}

// Describe asks the node at addr what it works on.
func (c *Client) Describe(ctx context.Context, addr string) ([]byte, error) {
	var payload []byte
	err := c.call(ctx, "describe", addr, true, func(ctx context.Context, n nodepb.NodeClient, o ...grpc.CallOption) error {
		reply, err := n.Describe(ctx, &nodepb.DescribeRequest{}, o...)
		payload = reply.GetPayload()
		return err
	})
	return payload, err
}

// Status asks the node at addr for its status page, JSON.
func (c *Client) Status(ctx context.Context, addr string) ([]byte, error) {
	var page []byte
	err := c.call(ctx, "status", addr, true, func(ctx context.Context, n nodepb.NodeClient, o ...grpc.CallOption) error {
		reply, err := n.Status(ctx, &nodepb.StatusRequest{}, o...)
		page = reply.GetJson()
		return err
	})
	return page, err
}

// call makes one control call. If it is repeatable and a connection that used to work turns out to be
// broken, it is made again on a fresh one: the peer may have restarted since.
func (c *Client) call(
	ctx context.Context, op, addr string, repeatable bool,
	do func(context.Context, nodepb.NodeClient, ...grpc.CallOption) error,
) error {
	if _, bounded := ctx.Deadline(); !bounded || op != "ping" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.CallTimeout)
		defer cancel()
	}
	for {
		p := c.acquire(linkKey{addr, false})
		if p == nil {
			return &Error{Op: op, Addr: addr, Kind: Canceled, Message: "the client is closed"}
		}
		var trailer metadata.MD
		err := do(ctx, nodepb.NewNodeClient(p.cc), grpc.Trailer(&trailer))
		if err != nil {
			err = classify(op, addr, err, p.dialErr(), trailer)
		}
		proven := c.release(linkKey{addr, false}, p, err)
		if KindOf(err) != Unreachable || !proven || !repeatable {
			return err
		}
	}
}

// Fetch copies the blob that the node at addr has for r. The caller verifies it.
func (c *Client) Fetch(ctx context.Context, addr string, r FetchRequest) ([]byte, error) {
	return c.bulk(ctx, "fetch", addr, func(ctx context.Context, n nodepb.NodeClient) (grpc.ClientStream, error) {
		return n.Fetch(ctx, &nodepb.FetchRequest{View: r.View[:], Transition: r.Transition})
	})
}

// bulk copies a blob on a connection for such.
func (c *Client) bulk(ctx context.Context, op, addr string, open func(context.Context, nodepb.NodeClient) (grpc.ClientStream, error)) ([]byte, error) {
	key := linkKey{addr, true}
	p := c.acquire(key)
	if p == nil {
		return nil, &Error{Op: op, Addr: addr, Kind: Canceled, Message: "the client is closed"}
	}
	blob, err := c.fetch(ctx, p.link, op, addr, c.cfg.ChunkTimeout, open, func() {})
	c.release(key, p, err)
	return blob, err
}

// fetch copies a blob over a connection, as long as chunks come no further apart than patience and it doesn't
// take longer than a blob of its size may; came is called for each chunk.
func (c *Client) fetch(ctx context.Context, l *link, op, addr string, patience time.Duration, open func(context.Context, nodepb.NodeClient) (grpc.ClientStream, error), came func()) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	giveUp := func(after time.Duration, why string) *time.Timer {
		return time.AfterFunc(after, func() { cancel(&Error{Op: op, Addr: addr, Kind: Timeout, Message: why}) })
	}
	silence := giveUp(patience, "nothing came for "+brief(patience))
	defer silence.Stop()
	stream, err := open(ctx, nodepb.NewNodeClient(l.cc))
	if err != nil {
		return nil, bulkError(ctx, op, addr, err, l, nil)
	}
	var whole *time.Timer
	blob, err := receiveBlob(stream, c.cfg.MaxBlobBytes, func(size int64, chunk int) {
		if whole == nil {
			limit := c.cfg.ChunkTimeout + time.Duration(float64(size)/float64(c.cfg.SlowestBlob)*float64(time.Second))
			whole = giveUp(limit, fmt.Sprintf("%d bytes have not come within %s", size, brief(limit)))
		}
		silence.Reset(patience)
		c.received.Add(uint64(chunk))
		came()
	})
	if whole != nil {
		whole.Stop()
	}
	if err != nil {
		return nil, bulkError(ctx, op, addr, err, l, stream.Trailer())
	}
	return blob, nil
}

// Received is how many bytes of blobs have come, ever: a sign of life of whoever copies.
func (c *Client) Received() uint64 { return c.received.Load() }

// receiveBlob reads a stream to its end; alive is told of the announced size, and of the bytes of each
// chunk. What goes against the announced size is a refusal, like what the donor itself says.
func receiveBlob(stream grpc.ClientStream, limit int64, alive func(size int64, chunk int)) ([]byte, error) {
	head, err := stream.Header()
	if err != nil {
		return nil, err
	}
	size, announced := blobSize(head)
	if announced && size > limit {
		return nil, status.Errorf(codes.FailedPrecondition, "a blob of %d bytes, at most %d allowed", size, limit)
	}
	alive(size, 0)
	blob := make([]byte, 0, min(size, 64<<20))
	for {
		var m message
		if err := stream.RecvMsg(&m); err == io.EOF && announced && int64(len(blob)) == size {
			return blob, nil
		} else if err == io.EOF {
			return nil, status.Errorf(codes.DataLoss, "a blob of %d bytes ended after %d", size, len(blob))
		} else if err != nil {
			return nil, err
		}
		alive(size, m.buf.Len())
		blob = append(blob, m.buf.ReadOnlyData()...)
		m.buf.Free()
		if int64(len(blob)) > size {
			return nil, status.Errorf(codes.DataLoss, "a blob of %d bytes goes on after %d", size, len(blob))
		}
	}
}

// blobSize reads the announced size of a blob; a donor that refuses announces none.
func blobSize(head metadata.MD) (size int64, ok bool) {
	v := head.Get(sizeKey)
	if len(v) != 1 {
		return 0, false
	}
	size, err := strconv.ParseInt(v[0], 10, 64)
	return max(size, 0), err == nil && size >= 0
}

// bulkError classifies err, but prefers the reason for which fetch itself cancelled.
func bulkError(ctx context.Context, op, addr string, err error, l *link, trailer metadata.MD) error {
	if cause, ok := context.Cause(ctx).(*Error); ok {
		return cause
	}
	return classify(op, addr, err, l.dialErr(), trailer)
}

// acquire returns a connection for one call, nil if the Client is closed.
func (c *Client) acquire(key linkKey) *pooled {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	p := c.links[key]
	if p == nil {
		c.sweep()
		p = &pooled{link: newLink(c.linkConfig(key))}
		c.links[key] = p
	}
	p.users++
	return p
}

// linkConfig describes the connection of a key. Only bulk ones are worth a second attempt to connect.
func (c *Client) linkConfig(key linkKey) linkConfig {
	l := linkConfig{addr: key.addr, timeout: c.cfg.DialTimeout, tls: c.cfg.TLS, bulk: key.bulk, local: TCP}
	if key.bulk {
		l.local = UnixSocket
	}
	return l
}

// release ends a call's use of p. After a failure of the connection, or a silence that may be one, the
// next call gets a fresh connection; calls in progress on p go on. It reports whether p used to work.
func (c *Client) release(key linkKey, p *pooled, err error) (proven bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	proven = p.proven
	p.users--
	p.used = time.Now()
	switch KindOf(err) {
	case Unreachable, Timeout:
		c.retire(key, p)
	case Canceled:
	default:
		p.proven = true
	}
	if p.retired && p.users == 0 {
		p.close()
	}
	return proven
}

// retire takes p out of the pool.
func (c *Client) retire(key linkKey, p *pooled) {
	p.retired = true
	if c.links[key] == p {
		delete(c.links, key)
	}
}

// sweep closes connections that were not used for long.
func (c *Client) sweep() {
	for key, p := range c.links {
		if p.users == 0 && time.Since(p.used) > unusedLinks {
			c.retire(key, p)
			p.close()
		}
	}
}
