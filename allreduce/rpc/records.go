package rpc

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// records is what TLS writes its records to. It hands each of them, 16 KiB, over on its own, and each would be a
// system call; gRPC hands over up to wireBuffer at once. So those of one Write go on together.
//
//	gRPC ── Write, 512 KiB ──► sealed ──► tls.Conn ── 32 records ──► records ── 512 KiB ──► socket
type records struct {
	net.Conn
	writes  atomic.Int32 // of sealed, that are on
	closing atomic.Bool  // no other begins

	mu   sync.Mutex
	hold bool
	out  []byte
	err  error // of the socket; nothing goes out after it
}

// recordsBuffer is what is held back at most, in bytes: what gRPC writes at once, and what TLS adds to it.
// A connection that holds back more than fewRecords gets memory for all of that.
const (
	recordsBuffer = wireBuffer + wireBuffer>>6
	fewRecords    = 32 << 10
)

// Write implements net.Conn.
func (r *records) Write(b []byte) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if !r.hold {
		n, r.err = r.Conn.Write(b)
		return n, r.err
	}
	if len(r.out)+len(b) > recordsBuffer {
		if r.flush(); r.err != nil {
			return 0, r.err
		}
	}
	if len(r.out)+len(b) > fewRecords {
		r.out = slices.Grow(r.out, recordsBuffer-len(r.out))
	}
	r.out = append(r.out, b...)
	return len(b), nil
}

// flush sends what is held back.
func (r *records) flush() {
	if r.err == nil && len(r.out) > 0 {
		_, r.err = r.Conn.Write(r.out)
	}
	r.out = r.out[:0]
}

// together has what do writes go on at once.
func (r *records) together(do func()) error {
	r.mu.Lock()
	r.hold = true
	r.mu.Unlock()
	do()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = false
	r.flush()
	return r.err
}

// sealed is a connection of TLS that writes to records, from one goroutine at a time.
type sealed struct {
	net.Conn
	records *records
}

// Write implements net.Conn.
func (s sealed) Write(b []byte) (n int, err error) {
	r := s.records
	r.writes.Add(1)
	defer r.writes.Add(-1)
	if r.closing.Load() {
		return 0, net.ErrClosed
	}
	if flushed := r.together(func() { n, err = s.Conn.Write(b) }); err == nil {
		err = flushed
	}
	return n, err
}

// Close implements net.Conn. As a tls.Conn does, it says goodbye unless something is being written: that may hang. A
// tls.Conn knows only of what it is writing itself, not of what is held back.
func (s sealed) Close() error {
	s.records.closing.Store(true)
	if s.records.writes.Load() > 0 {
		return s.records.Conn.Close()
	}
	return s.Conn.Close()
}

// sealing are the credentials of connections that are sealed.
type sealing struct {
	credentials.TransportCredentials
}

func newSealing(config *tls.Config) sealing {
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true // small records at first would be for those who show what has come before all has
	return sealing{credentials.NewTLS(config)}
}

// ClientHandshake implements credentials.TransportCredentials.
func (s sealing) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	r := &records{Conn: raw}
	return r.seal(s.TransportCredentials.ClientHandshake(ctx, authority, r))
}

// ServerHandshake implements credentials.TransportCredentials.
func (s sealing) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	r := &records{Conn: raw}
	return r.seal(s.TransportCredentials.ServerHandshake(r))
}

func (r *records) seal(conn net.Conn, info credentials.AuthInfo, err error) (net.Conn, credentials.AuthInfo, error) {
	if err != nil {
		return nil, nil, err
	}
	return sealed{conn, r}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (s sealing) Clone() credentials.TransportCredentials {
	return sealing{s.TransportCredentials.Clone()}
}

// sealingSpeed is how many bytes a second can be sealed and opened again, both by this machine, at the best; as
// many as one likes where that can't be tried.
var sealingSpeed = sync.OnceValue(func() float64 {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return math.Inf(1)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return math.Inf(1)
	}
	record, buf := make([]byte, 16<<10), make([]byte, 0, 17<<10)
	best := time.Duration(math.MaxInt64)
	for range 8 {
		begun := time.Now()
		if _, err := aead.Open(record[:0], nil, aead.Seal(buf, nil, record, nil), nil); err != nil {
			return math.Inf(1)
		}
		best = min(best, time.Since(begun))
	}
	return float64(len(record)) / max(best.Seconds(), 1e-9)
})
