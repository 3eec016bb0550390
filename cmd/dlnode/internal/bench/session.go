package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"net"
	"slices"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/internal/cputime"
	"github.com/dlnode/dlnode/train"
)

// session is a worker's part in one world.
type session struct {
	open    *openRequest
	threads int
	tls     *tls.Config
	server  *rpc.Server // of the group
	rings   []*ringEnd
	group   *group       // nil before join
	drill   *train.Drill // of the size that was measured last; nil for none
	size    int          // of drill
}

// ringEnd is a raw ring and what it is made of.
type ringEnd struct {
	kind   Kind
	l      net.Listener
	remove func()
	ring   *rawRing // nil before join
}

// openSession listens for the other ranks.
func openSession(w *worker, o *openRequest) (*session, error) {
	if o.World < 2 || o.Rank < 0 || o.Rank >= o.World || len(o.Fence) != len(allreduce.Fence{}) {
		return nil, fmt.Errorf("rank %d of %d with a fence of %d bytes cannot be", o.Rank, o.World, len(o.Fence))
	}
	s := &session{open: o, threads: w.cfg.Threads}
	var err error
	if s.tls, err = o.TLS.config(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(w.host, "0"))
	if err != nil {
		return nil, err
	}
	s.server = rpc.Serve(rpc.ServerConfig{Listener: l, Local: o.Local, GroupWait: setupTimeout, TLS: s.tls, Log: w.cfg.Log})
	for _, kind := range []Kind{TCP, Unix} {
		if kind == Unix && !o.Unix {
			continue
		}
		e := &ringEnd{kind: kind}
		if e.l, e.remove, err = listenRing(string(kind), w.host); err != nil {
			s.close()
			return nil, err
		}
		s.rings = append(s.rings, e)
	}
	return s, nil
}

func (s *session) addresses() addresses {
	a := addresses{Group: s.server.Addr()}
	for _, e := range s.rings {
		switch e.kind {
		case TCP:
			a.TCP = e.l.Addr().String()
		case Unix:
			a.Unix = e.l.Addr().String()
		}
	}
	return a
}

// join links up with the neighbours.
func (s *session) join(ctx context.Context, ranks []addresses) error {
	if len(ranks) != s.open.World || s.group != nil {
		return fmt.Errorf("%d addresses for a world of %d, which is joined once", len(ranks), s.open.World)
	}
	right := ranks[(s.open.Rank+1)%s.open.World]
	for _, e := range s.rings {
		addr := right.TCP
		if e.kind == Unix {
			addr = right.Unix
		}
		var err error
		if e.ring, err = openRaw(ctx, e.l, s.open.Rank, s.open.World, addr); err != nil {
			return err
		}
	}
	s.group = openGroup(s.server, s.open, ranks, s.tls)
	return s.group.barrier(ctx)
}

// measure does what a measureRequest asks.
func (s *session) measure(ctx context.Context, m *measureRequest) (*measured, error) {
	if s.group == nil {
		return nil, errNoWorld
	}
	if m.Elements < 1 || m.Elements > allreduce.DefaultMaxElements || m.Ops < 1 || m.Warm < 0 {
		return nil, fmt.Errorf("%d ops of %d elements cannot be measured (1 to %d)", m.Ops, m.Elements, allreduce.DefaultMaxElements)
	}
	op, sent, err := s.exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	for range m.Warm {
		if _, err := op(); err != nil {
			return nil, err
		}
	}
	if err := s.group.barrier(ctx); err != nil {
		return nil, err
	}
	r := &measured{Times: make([]time.Duration, m.Ops)}
	cpu, bytes := cputime.Used(), sent()
	for i := range r.Times {
		if r.Times[i], err = op(); err != nil {
			return nil, err
		}
	}
	r.CPU = cputime.Used() - cpu
	if err := s.group.barrier(ctx); err != nil { // behind all frames, so that they are counted
		return nil, err
	}
	r.Bytes = sent() - bytes
	if m.Kind == Train || m.Kind == Bare {
		r.Digest, r.Over = digest(s.drill.Mean()), s.group.over()
	}
	return r, nil
}

// exchange returns the op of a kind, which tells how long it took, and what counts the
// bytes that it sends.
func (s *session) exchange(ctx context.Context, m *measureRequest) (op func() (time.Duration, error), sent func() uint64, err error) {
	switch m.Kind {
	case Train, Bare:
		s.prepare(m.Elements)
		if m.Kind == Train {
			return func() (time.Duration, error) { return s.trainOp(ctx) }, s.group.sent, nil
		}
		return func() (time.Duration, error) { return s.bareOp(ctx) }, s.group.sent, nil
	}
	for _, e := range s.rings {
		if e.kind == m.Kind {
			var total uint64
			return func() (time.Duration, error) {
				total += e.ring.bytesSent(4 * m.Elements)
				defer e.ring.within(ctx)()
				begun := time.Now()
				err := e.ring.do(4 * m.Elements)
				return time.Since(begun), err
			}, func() uint64 { return total }, nil
		}
	}
	return nil, nil, fmt.Errorf("this world has no ring of kind %q", m.Kind)
}

// prepare has a drill of a size ready.
func (s *session) prepare(elements int) {
	if s.drill != nil && s.size == elements {
		return
	}
	s.drop()
	s.drill, s.size = train.NewDrill(s.open.Rank, s.open.World, elements, s.threads), elements
}

func (s *session) drop() {
	if s.drill != nil {
		s.drill.Close()
		s.drill = nil
	}
}

// trainOp is a step's all-reduce from the gradient to its mean.
func (s *session) trainOp(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	o, err := s.group.do(ctx, s.drill.Op, s.drill.Give)
	if err == nil {
		err = s.drill.Judge(o.headers, o.total)
	}
	return time.Since(begun), err
}

// bareOp is what of it the group alone does: from integers to the mean.
func (s *session) bareOp(ctx context.Context) (time.Duration, error) {
	s.drill.Round()
	begun := time.Now()
	_, err := s.group.do(ctx, s.drill.Bare, nil)
	return time.Since(begun), err
}

// digest tells two results apart.
func digest(v []float32) (sum uint32) {
	b := make([]byte, 0, 1<<14)
	for part := range slices.Chunk(v, cap(b)/4) {
		b = b[:0]
		for _, x := range part {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		sum = crc32.Update(sum, crc32.IEEETable, b)
	}
	return sum
}

// close leaves the world, while nothing is measured in it.
func (s *session) close() {
	if s.group != nil {
		s.group.close()
	}
	s.server.Close()
	for _, e := range s.rings {
		if e.ring != nil {
			e.ring.close()
		}
		e.l.Close() // what fails here was closed before
		e.remove()
	}
	s.drop()
}
