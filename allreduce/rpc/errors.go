package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Kind says what a failed call tells about the peer.
type Kind int

// The kinds of errors. Zero is none of them.
const (
	Unreachable Kind = iota + 1 // connection refused or reset: nobody is there now
	Timeout                     // no answer within the deadline: dead, frozen, busy or cut off
	Rejected                    // the peer answered and refused
	Canceled                    // the caller gave up, or the Client was closed
)

// String returns the kind in lower case.
func (k Kind) String() string {
	switch k {
	case Unreachable:
		return "unreachable"
	case Timeout:
		return "no answer in time"
	case Rejected:
		return "rejected"
	case Canceled:
		return "canceled"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Error is what calls of a Client return.
type Error struct {
	Op         string // "ping", "fetch", ...
	Addr       string // host:port that was called
	Kind       Kind
	Generation uint64 // of a peer that rejected, as told by ServerConfig.Generation; else 0
	Message    string // the cause, for people
}

// Error tells what was called and what came of it.
func (e *Error) Error() string {
	if e.Kind == Rejected {
		return fmt.Sprintf("rpc: %s %s: rejected at generation %d: %s", e.Op, e.Addr, e.Generation, e.Message)
	}
	return fmt.Sprintf("rpc: %s %s: %v: %s", e.Op, e.Addr, e.Kind, e.Message)
}

// KindOf returns the kind of the Error in err's chain, 0 if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

// Names of metadata, of a stream or of an answer.
const (
	fenceKey      = "dlnode-fence-bin"
	fromKey       = "dlnode-from"
	generationKey = "dlnode-generation"
	sizeKey       = "dlnode-size"
)

// classify makes an Error of a call's outcome. dialErr is link.dialErr, which tells more than gRPC's
// status.
func classify(op, addr string, err, dialErr error, trailer metadata.MD) *Error {
	st, _ := status.FromError(err)
	e := &Error{Op: op, Addr: addr, Kind: Rejected, Message: st.Message()}
	switch st.Code() {
	case codes.Unavailable:
		e.Kind = Unreachable
		if dialErr != nil {
			e.Message = dialErr.Error()
		}
		if timedOut(dialErr) {
			e.Kind = Timeout
		} else if errors.Is(dialErr, net.ErrClosed) {
			e.Kind = Canceled
		}
	case codes.DeadlineExceeded:
		e.Kind = Timeout
	case codes.Canceled:
		e.Kind = Canceled
	}
	if g := trailer.Get(generationKey); len(g) == 1 {
		e.Generation, _ = strconv.ParseUint(g[0], 10, 64) // 0 if a peer tells rubbish
	}
	return e
}

// timedOut reports whether a dial ended for want of an answer.
func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// brief formats a duration for people: whole milliseconds, or finer below one.
func brief(d time.Duration) string {
	if d < time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
