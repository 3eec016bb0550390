//go:build !linux

package rpc

import (
	"errors"
	"net"
)

var errNoMemory = errors.New("only Linux has memory to share")

// bell wakes the other end.
type bell struct{}

func (bell) wait() bool { return false }
func (bell) ring()      {}
func (bell) interrupt() {}

func (m *memory) unmap() {}

// call has nothing to offer: nodes have no unix sockets between them here.
func call(*net.UnixConn, bool) (m *memory, why, err error) { return nil, errNoMemory, nil }

// answer is call at the end that was called.
func answer(*net.UnixConn, bool) (m *memory, why, err error) { return nil, errNoMemory, nil }
