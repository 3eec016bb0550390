package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// rawRing is one rank's part in a ring of bare sockets: what the network itself would
// take for an all-reduce. In each of its 2(n−1) steps a rank sends an nth of the vector
// to the right, while as much comes from the left; it sends no step before the one
// before has arrived, as in a ring that adds up.
type rawRing struct {
	world       int
	left, right net.Conn
	from, to    []byte     // what comes, and what goes
	steps       chan int   // bytes to send
	sent        chan error // and that they were
}

// pieceBytes is how much is handed to the system at once.
const pieceBytes = 256 << 10

// inlineBytes are surely taken by the sockets' buffers: nobody has to be woken to send
// them.
const inlineBytes = 32 << 10

// openRaw links up with both neighbours; l is where the left one calls.
func openRaw(ctx context.Context, l net.Listener, rank, world int, rightAddr string) (*rawRing, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })() // so that Accept ends; the listener has served its turn then anyway
	r := &rawRing{world: world, from: make([]byte, pieceBytes), to: make([]byte, pieceBytes), steps: make(chan int), sent: make(chan error, 1)}
	dialed := make(chan error, 1)
	go func() {
		var err error
		r.right, err = new(net.Dialer).DialContext(ctx, l.Addr().Network(), rightAddr)
		dialed <- err
	}()
	left, err := l.Accept()
	if e := <-dialed; e != nil || err != nil {
		for _, c := range []net.Conn{left, r.right} {
			if c != nil {
				c.Close()
			}
		}
		return nil, fmt.Errorf("raw ring of %s: the right neighbour is %s: %w", rankName(rank), rankName((rank+1)%world), errors.Join(e, err))
	}
	r.left = left
	go r.send()
	return r, nil
}

// send writes what steps asks for, until that is closed.
func (r *rawRing) send() {
	for n := range r.steps {
		r.sent <- r.write(n)
	}
	close(r.sent)
}

func (r *rawRing) write(n int) error {
	for n > 0 {
		k := min(n, len(r.to))
		if _, err := r.right.Write(r.to[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

func (r *rawRing) read(n int) error {
	for n > 0 {
		k := min(n, len(r.from))
		if _, err := io.ReadFull(r.left, r.from[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// do moves what the all-reduce of a vector of so many bytes has to move.
func (r *rawRing) do(bytes int) error {
	chunk := (bytes + r.world - 1) / r.world
	for range 2 * (r.world - 1) {
		if err := r.step(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (r *rawRing) step(chunk int) error {
	if chunk <= inlineBytes {
		if err := r.write(chunk); err != nil {
			return err
		}
		return r.read(chunk)
	}
	r.steps <- chunk
	err := r.read(chunk)
	if err != nil {
		r.right.Close() // so that send ends
	}
	return errors.Join(err, <-r.sent)
}

// bytesSent is what a rank sends for a vector of so many bytes.
func (r *rawRing) bytesSent(bytes int) uint64 {
	return uint64(2*(r.world-1)) * uint64((bytes+r.world-1)/r.world)
}

// within has the ring's calls fail once ctx ends; stop ends that.
func (r *rawRing) within(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		past := time.Unix(1, 0)
		_ = r.left.SetDeadline(past) // fails where it is closed, which does as well
		_ = r.right.SetDeadline(past)
	})
}

// close ends it, while nobody is within do.
func (r *rawRing) close() {
	r.left.Close()
	r.right.Close()
	close(r.steps)
	<-r.sent
}
