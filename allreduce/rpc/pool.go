package rpc

import (
	"math/bits"
	"sync"
)

// wirePool is gRPC's storage for what comes and goes over bulk connections: a pool for each power of two.
// gRPC's own ones clear what they hand out, which is a ninth of all work.
type wirePool struct {
	free [21]sync.Pool // buffers of 1<<i bytes
}

// bulkPool is shared by all connections of a process.
var bulkPool = new(wirePool)

// Get implements mem.BufferPool. What is in the buffer is rubbish.
func (p *wirePool) Get(length int) *[]byte {
	class := bits.Len(uint(max(length, 1) - 1))
	if class >= len(p.free) {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.free[class].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<class)
	return &b
}

// Put implements mem.BufferPool.
func (p *wirePool) Put(b *[]byte) {
	class := bits.Len(uint(max(cap(*b), 1) - 1))
	if class < len(p.free) && cap(*b) == 1<<class {
		p.free[class].Put(b)
	}
}
