package rpc

import (
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// message is a message of raw bytes, for the streams that carry no protobuf.
type message struct {
	pool mem.BufferPool // where storage comes from, when receiving
	buf  mem.Buffer     // the bytes; sending gives them away, receiving hands them to the caller
}

// codec sends messages as they are and leaves everything else to protobuf.
type codec struct{ proto encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2. gRPC frees the buffer once it is on the wire.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*message); ok {
		return mem.BufferSlice{m.buf}, nil
	}
	return c.proto.Marshal(v)
}

// Unmarshal implements encoding.CodecV2. A message that came in several HTTP/2 frames is copied once,
// into one buffer.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*message); ok {
		m.buf = data.MaterializeToBuffer(m.pool)
		return nil
	}
	return c.proto.Unmarshal(data, v)
}

// Name implements encoding.CodecV2. Control calls are protobuf for every other gRPC client too.
func (c codec) Name() string { return proto.Name }

// framePool hands out buffers of one size. gRPC's own pool would take a megabyte for a segment and
// clear it each time.
type framePool struct {
	size int // bytes of a pooled buffer; larger ones are made and left to the collector
	free sync.Pool
}

// Get implements mem.BufferPool.
func (p *framePool) Get(length int) *[]byte {
	if length > p.size {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.free.Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, p.size)
	return &b
}

// Put implements mem.BufferPool.
func (p *framePool) Put(b *[]byte) {
	if cap(*b) == p.size {
		p.free.Put(b)
	}
}
