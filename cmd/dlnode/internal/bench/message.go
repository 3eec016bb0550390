package bench

import (
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
)

// request is what a conductor asks of a worker, as JSON in an envelope. Exactly one
// field is set.
type request struct {
	Hello   *struct{}       `json:"hello,omitempty"`
	Open    *openRequest    `json:"open,omitempty"`
	Join    *joinRequest    `json:"join,omitempty"`
	Measure *measureRequest `json:"measure,omitempty"`
	Close   *struct{}       `json:"close,omitempty"`
	Link    *linkRequest    `json:"link,omitempty"`
}

// helloReply is what a worker is.
type helloReply struct {
	Program string `json:"program"`
	Threads int    `json:"threads"`
	CPUs    int    `json:"cpus"`
	Kernels string `json:"kernels"`
	Link    string `json:"link"` // address of the far end of Link requests
}

// openRequest makes a worker one rank of a world, and has it listen for the others.
// The world that it was in before is closed.
type openRequest struct {
	World int    `json:"world"`
	Rank  int    `json:"rank"`
	Fence []byte `json:"fence"`          // of the world, drawn anew for each
	Unix  bool   `json:"unix,omitempty"` // have a raw ring over unix sockets, too
	TLS   *keys  `json:"tls,omitempty"`  // nil: in the clear

	Local rpc.Transport `json:"local"` // the quickest that the group may take within a machine
}

// addresses is where a rank listens: the answer to an openRequest.
type addresses struct {
	Group string `json:"group"`
	TCP   string `json:"tcp"`
	Unix  string `json:"unix,omitempty"`
}

// joinRequest has a rank find the others, by rank. It is answered once an empty op has
// gone around.
type joinRequest struct {
	Ranks []addresses `json:"ranks"`
}

// Kind is what is measured.
type Kind string

// The kinds. Raw rings move the same bytes along the same ring as the all-reduce of a
// float32 vector has to, in as many steps, and compute nothing.
const (
	Train Kind = "train" // an op as train makes it: rounding, header, op, finish, judge
	Bare  Kind = "bare"  // the same without rounding, header and judge
	TCP   Kind = "tcp"   // a raw ring over TCP
	Unix  Kind = "unix"  // a raw ring over unix sockets, on one machine
)

// Kinds are all that can be measured.
var Kinds = []Kind{Train, Bare, TCP, Unix}

// measureRequest has a rank do ops back to back, after an op that has all begin at
// once.
type measureRequest struct {
	Kind     Kind `json:"kind"`
	Elements int  `json:"elements"` // float32
	Warm     int  `json:"warm"`     // ops before the measured ones
	Ops      int  `json:"ops"`
}

// measured is what a rank has seen of them.
type measured struct {
	Times  []time.Duration `json:"times"`  // of each op
	CPU    time.Duration   `json:"cpu"`    // of the whole process, for all of them
	Bytes  uint64          `json:"bytes"`  // payload that it has sent
	Digest uint32          `json:"digest"` // of the result; 0 of what is none
	Over   []rpc.Transport `json:"over"`   // what its links to the others are
}

// linkRequest measures the way from another worker to the one that is asked.
type linkRequest struct {
	Addr   string        `json:"addr"` // the other worker's
	Raw    string        `json:"raw"`  // helloReply.Link of it
	During time.Duration `json:"during"`
}

// linkReply is what it is like.
type linkReply struct {
	TCPRoundTrips  []time.Duration `json:"tcp_round_trips"`
	GRPCRoundTrips []time.Duration `json:"grpc_round_trips"`
	TCPBytes       float64         `json:"tcp_bytes"` // per second
	GRPCBytes      float64         `json:"grpc_bytes"`
}
