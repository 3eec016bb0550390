package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/dlnode/dlnode/allreduce"
)

// message is a message of raw bytes, for the streams that carry no protobuf.
type message struct {
	bufs      mem.BufferSlice // the bytes to send, which sending gives away
	gone      chan struct{}   // closed when gRPC has done with them, if not nil
	buf       mem.Buffer      // the bytes received, which are the caller's; or, if large and piecewise:
	pieces    mem.BufferSlice
	piecewise bool
}

// whole is a message of memory that stays as it is.
func whole(b []byte) *message { return &message{bufs: mem.BufferSlice{mem.SliceBuffer(b)}} }

// telling is a message likewise, which tells when gRPC has done with it.
func telling(b []byte) *message {
	if len(b) < leastPooled {
		b = append(make([]byte, 0, leastPooled), b...)
	}
	gone := make(chan struct{})
	return &message{bufs: mem.BufferSlice{mem.NewBuffer(&b, teller(gone))}, gone: gone}
}

// teller is where the memory of a telling message comes back.
type teller chan struct{}

// Get implements mem.BufferPool. Nobody takes memory from here.
func (t teller) Get(int) *[]byte { panic("rpc: memory taken from a teller") }

// Put implements mem.BufferPool.
func (t teller) Put(*[]byte) { close(t) }

// leastPooled is a size of buffers that gRPC gives back. Smaller ones than 1 KiB it leaves to the collector, and nobody
// would know that it has done with them.
const leastPooled = 2 << 10

// codec sends messages as they are and leaves everything else to protobuf.
type codec struct{ proto encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal implements encoding.CodecV2. gRPC frees the buffer once it is on the wire.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*message); ok {
		return m.bufs, nil
	}
	return c.proto.Marshal(v)
}

// Unmarshal implements encoding.CodecV2. A message that came in several HTTP/2 frames is copied once,
// into one buffer, in which it lies as it would behind gRPC's prefix.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	m.pieces = nil
	if len(data) == 1 {
		data[0].Ref()
		m.buf = data[0]
		return nil
	}
	if m.piecewise && data.Len() > smallMessage && data[0].Len() >= messagePad+allreduce.FrameOverhead {
		data.Ref()
		m.pieces = data
		return nil
	}
	b := bulkPool.Get(messagePrefix + data.Len())
	data.CopyTo((*b)[messagePrefix:])
	all := mem.NewBuffer(b, bulkPool)
	m.buf = all.Slice(messagePrefix, len(*b))
	all.Free()
	return nil
}

const (
	// messagePrefix is what gRPC puts before a message, in bytes.
	messagePrefix = 5
	// messagePad is the number of zeros with which a message of frames begins, so that the frames, and the
	// elements in them, are aligned where gRPC puts them down.
	messagePad = 8 - messagePrefix
)

// frames returns the frames of a message; one that is too short has none.
func frames(b []byte) []byte { return b[min(messagePad, len(b)):] }

// Name implements encoding.CodecV2. Control calls are protobuf for every other gRPC client too.
func (c codec) Name() string { return proto.Name }
