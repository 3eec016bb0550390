package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
)

// farEnd is what a worker has for others that measure the way from it: a socket that
// echoes or pours, as its first byte says, and blobs.
type farEnd struct {
	l     net.Listener
	tasks sync.WaitGroup
	ctx   context.Context
	stop  context.CancelFunc

	mu   sync.Mutex
	blob []byte
}

// The first byte on a connection to a farEnd.
const (
	echoes = 'e' // each echoBytes come back
	pours  = 'p' // as much comes as is taken
)

// echoBytes is how much goes back and forth: a small message.
const echoBytes = 64

func listenFar(addr string) (*farEnd, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	f := &farEnd{l: l}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.tasks.Go(f.accept)
	return f, nil
}

func (f *farEnd) addr() string { return f.l.Addr().String() }

func (f *farEnd) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return // closed
		}
		f.tasks.Go(func() {
			defer c.Close()
			defer context.AfterFunc(f.ctx, func() { c.Close() })()
			serveFar(c)
		})
	}
}

// serveFar does what the first byte asks for, until the other end goes.
func serveFar(c net.Conn) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil {
		return
	}
	switch first[0] {
	case echoes:
		b := make([]byte, echoBytes)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	case pours:
		b := make([]byte, pieceBytes)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
}

// maxBlobBytes bounds what a stranger can make a worker hold.
const maxBlobBytes = 1 << 30

// fetch has a blob of as many bytes as the transition says: the way that a state is
// copied to a node that joins.
func (f *farEnd) fetch(_ context.Context, r rpc.FetchRequest) ([]byte, error) {
	if r.Transition > maxBlobBytes {
		return nil, fmt.Errorf("a blob of %d bytes, at most %d allowed", r.Transition, maxBlobBytes)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if uint64(len(f.blob)) < r.Transition {
		f.blob = make([]byte, r.Transition)
	}
	return f.blob[:r.Transition], nil
}

func (f *farEnd) close() {
	f.stop()
	f.l.Close()
	f.tasks.Wait()
}

// measureLink measures the way from a far end to here.
func measureLink(ctx context.Context, r *linkRequest) (*linkReply, error) {
	if r.During <= 0 || r.During > time.Hour {
		return nil, fmt.Errorf("a link cannot be measured for %s", r.During)
	}
	var reply linkReply
	var err error
	each := r.During / 4
	if reply.TCPRoundTrips, err = rawRoundTrips(ctx, r.Raw, each); err != nil {
		return nil, fmt.Errorf("TCP round trips to %s: %w", r.Raw, err)
	}
	client := rpc.NewClient(rpc.ClientConfig{MaxBlobBytes: maxBlobBytes})
	defer client.Close()
	reply.GRPCRoundTrips, err = timed(each, func() error {
		_, err := client.Ping(ctx, r.Addr, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if reply.TCPBytes, err = rawThroughput(ctx, r.Raw, each); err != nil {
		return nil, fmt.Errorf("TCP from %s: %w", r.Raw, err)
	}
	reply.GRPCBytes, err = fetchThroughput(ctx, client, r.Addr, reply.TCPBytes, each)
	return &reply, err
}

// warmTrips are not counted: a connection has to be made, and caches filled.
const warmTrips = 20

// timed repeats f for a while, at least a few times, and tells how long each took.
func timed(during time.Duration, f func() error) (times []time.Duration, err error) {
	for range warmTrips {
		if err := f(); err != nil {
			return nil, err
		}
	}
	for begun := time.Now(); len(times) < warmTrips || time.Since(begun) < during && len(times) < 20000; {
		at := time.Now()
		if err := f(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(at))
	}
	return times, nil
}

// dialFar connects to a far end until ctx ends, and says what it shall do.
func dialFar(ctx context.Context, addr string, what byte) (c net.Conn, release func(), err error) {
	if c, err = (&net.Dialer{Timeout: setupTimeout}).DialContext(ctx, "tcp", addr); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	release = func() { stop(); c.Close() }
	if _, err := c.Write([]byte{what}); err != nil {
		release()
		return nil, nil, err
	}
	return c, release, nil
}

func rawRoundTrips(ctx context.Context, addr string, during time.Duration) ([]time.Duration, error) {
	c, release, err := dialFar(ctx, addr, echoes)
	if err != nil {
		return nil, err
	}
	defer release()
	b := make([]byte, echoBytes)
	return timed(during, func() error {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)+1)
		if _, err := c.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	})
}

// rawThroughput takes what pours out of a far end, in bytes per second. The first half
// of the time is TCP's own, to find the way's width.
func rawThroughput(ctx context.Context, addr string, during time.Duration) (float64, error) {
	c, release, err := dialFar(ctx, addr, pours)
	if err != nil {
		return 0, err
	}
	defer release()
	if _, err := take(c, during/2); err != nil {
		return 0, err
	}
	return take(c, during/2)
}

// take reads for a while and tells how fast.
func take(c net.Conn, during time.Duration) (perSecond float64, err error) {
	b := make([]byte, pieceBytes)
	begun, bytes := time.Now(), 0
	for time.Since(begun) < during {
		n, err := c.Read(b)
		if err != nil {
			return 0, err
		}
		bytes += n
	}
	return float64(bytes) / time.Since(begun).Seconds(), nil
}

// fetchThroughput copies blobs, in bytes per second. They are as large as a bare socket
// brings in a third of the time, and the first does not count.
func fetchThroughput(ctx context.Context, client *rpc.Client, addr string, guess float64, during time.Duration) (float64, error) {
	size := uint64(min(max(guess*during.Seconds()/3, 1<<16), 64<<20))
	fetch := func() error {
		_, err := client.Fetch(ctx, addr, rpc.FetchRequest{Transition: size})
		return err
	}
	if err := fetch(); err != nil {
		return 0, err
	}
	begun, bytes := time.Now(), uint64(0)
	for bytes == 0 || time.Since(begun) < during/2 {
		if err := fetch(); err != nil {
			return 0, err
		}
		bytes += size
	}
	return float64(bytes) / time.Since(begun).Seconds(), nil
}
