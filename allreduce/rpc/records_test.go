package rpc

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
)

// wire counts what is written to a connection, and at some point refuses or keeps what comes.
type wire struct {
	net.Conn
	mu     sync.Mutex
	writes int
	fails  error
	on     atomic.Bool // a write is
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	w.writes++
	err := w.fails
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	w.on.Store(true)
	defer w.on.Store(false)
	return w.Conn.Write(b)
}

// hangs returns when a write is on.
func (w *wire) hangs(t *testing.T) {
	t.Helper()
	eventually(t, "a write", w.on.Load)
}

// sealedPair returns both ends of a sealed connection, and what the first one's writes go to.
func sealedPair(t *testing.T) (a, b net.Conn, under *wire) {
	t.Helper()
	x, y := net.Pipe()
	under = &wire{Conn: x}
	config := selfSigned(t)
	served := make(chan error, 1)
	go func() {
		var err error
		b, _, err = newSealing(config).ServerHandshake(y)
		served <- err
	}()
	a, _, err := newSealing(config).ClientHandshake(t.Context(), "127.0.0.1:1", under)
	if err = errors.Join(err, <-served); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close(); y.Close() })
	return a, b, under
}

func TestRecordsOfOneWriteGoOnTogether(t *testing.T) {
	a, b, under := sealedPair(t)
	sent := make([]byte, wireBuffer)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	for n, want := range map[int]int{1: 1, 16 << 10: 1, wireBuffer: 1, 2*wireBuffer + 5: 2, 3 * wireBuffer: 3} {
		sent := append(append(bytes.Clone(sent), sent...), sent...)[:n]
		under.mu.Lock()
		before := under.writes
		under.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			k, err := a.Write(sent)
			if err == nil && k != n {
				err = io.ErrShortWrite
			}
			done <- err
		}()
		got := make([]byte, n)
		if _, err := io.ReadFull(b, got); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came as others", n)
		}
		under.mu.Lock()
		if writes := under.writes - before; writes != want {
			t.Errorf("%d bytes took %d writes, want %d", n, writes, want)
		}
		under.mu.Unlock()
	}
}

func TestASealedConnectionTellsThatItsSocketFails(t *testing.T) {
	a, _, under := sealedPair(t)
	broken := errors.New("broken")
	under.mu.Lock()
	before := under.writes
	under.fails = broken
	under.mu.Unlock()
	for range 2 {
		if _, err := a.Write(make([]byte, 100)); !errors.Is(err, broken) {
			t.Errorf("a write to a socket that fails: %v", err)
		}
	}
	a.Close() // has nobody to say goodbye to: its error is that of the socket
	if n := under.writes - before; n != 1 {
		t.Errorf("%d writes to a socket that fails, want 1", n)
	}
}

func TestASealedConnectionThatIsClosedWritesNothing(t *testing.T) {
	a, b, under := sealedPair(t)
	end := make(chan error, 1)
	go func() {
		_, err := b.Read(make([]byte, 1))
		end <- err
	}()
	if err := a.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if err := <-end; err != io.EOF {
		t.Errorf("the other end reads %v, want the end, as it was told", err)
	}
	before := under.writes
	if _, err := a.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after the end: %v", err)
	}
	if under.writes != before {
		t.Error("something is written after the end")
	}
}

// TestASealedConnectionThatHangsIsClosed at once, whether TLS is writing or what was held back is on its way.
func TestASealedConnectionThatHangsIsClosed(t *testing.T) {
	for _, size := range []int{100, wireBuffer, 3 * wireBuffer} {
		a, _, under := sealedPair(t)
		done := make(chan error, 1)
		go func() {
			_, err := a.Write(make([]byte, size)) // nobody reads
			done <- err
		}()
		under.hangs(t)
		begun := time.Now()
		if err := a.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("%d bytes: closing took %v, as if it said goodbye", size, took)
		}
		if err := <-done; err == nil {
			t.Errorf("%d bytes have gone to nobody", size)
		}
	}
}

// TestWithinAMachineWhatIsSealedIsPacked as long as that is the quicker of the two.
func TestWithinAMachineWhatIsSealedIsPacked(t *testing.T) {
	if s := sealingSpeed(); s < 1e6 || s > 1e12 {
		t.Errorf("a machine that seals and opens %.0f bytes a second", s)
	}
	for _, c := range []struct {
		tls   *tls.Config
		speed float64 // of packing, in sealing speeds
		want  bool
	}{{nil, 100, false}, {&tls.Config{}, 100, true}, {&tls.Config{}, 1, false}} {
		g, p := &Group{}, &peer{local: true}
		g.cfg.TLS = c.tls
		k := g.packerOf(allreduce.Frame{Kind: allreduce.Reduce})
		k.frames, k.ratio, k.speed = 1, 0.5, c.speed*sealingSpeed()
		if got := g.packs(p, k); got != c.want {
			t.Errorf("TLS %v, packing %g times as fast as sealing: packed %v, want %v", c.tls != nil, c.speed, got, c.want)
		}
	}
}
