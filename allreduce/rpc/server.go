package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

// Handlers answer calls. Each call has a goroutine of its own; ctx ends with the caller's interest. An
// error becomes a Rejected at the caller, with its text. A nil handler rejects every call.
type Handlers struct {
	Deliver  func(ctx context.Context, e Envelope) (receipt []byte, err error)
	Ping     func(ctx context.Context, incarnation uint64) (payload []byte, err error) // must not wait for training
	Describe func(ctx context.Context) (payload []byte, err error)
	Status   func(ctx context.Context) (json []byte, err error)
	Fetch    func(ctx context.Context, r FetchRequest) (blob []byte, err error) // blob must not change after
	Part     func(ctx context.Context, r PartRequest) (blob []byte, err error)  // likewise; fs.ErrNotExist: not here
	Follow   func(ctx context.Context, r FollowRequest) (p Piece, err error)    // likewise
}

// ServerConfig describes the node's door.
type ServerConfig struct {
	Listener   net.Listener // owned by the Server from Serve on
	Handlers   Handlers
	Generation func() uint64 // told to those that are refused; must not block; nil tells 0
	Local      Transport     // the quickest way that links to nodes of this machine may take
	GroupWait  time.Duration // how long a stream of a group that is not here yet may wait; 0 means 2 s

	ConnectTimeout time.Duration // from a connection to its first call's head; 0 means 5 s
	AnswerTimeout  time.Duration // for a request to come, for making its answer, and for each chunk of that to be taken; 0 means 10 s
	PingIdle       time.Duration // after which a connection has to show that it lives; 0 means a minute; 1 s at least

	TLS *tls.Config  // nil means plain TCP
	Log *slog.Logger // nil means none
}

// Server answers calls of other nodes and hands their ring streams to the groups they name.
type Server struct {
	cfg    ServerConfig
	grpc   *grpc.Server
	groups registry
	parts  *queue          // of calls that are answered with data
	open   context.Context // ended by shut, before gRPC stops
	shut   context.CancelFunc
	done   chan struct{} // closed when accepting has ended
	once   sync.Once
}

// Serve begins to answer calls that come in over cfg.Listener. It panics without a listener.
func Serve(cfg ServerConfig) *Server {
	if cfg.Listener == nil {
		panic("rpc: no listener")
	}
	setDefault(&cfg.GroupWait, 2*time.Second)
	setDefault(&cfg.ConnectTimeout, 5*time.Second)
	setDefault(&cfg.AnswerTimeout, 10*time.Second)
	setDefault(&cfg.PingIdle, time.Minute)
	setDefault(&cfg.Log, slog.New(slog.DiscardHandler))
	s := &Server{cfg: cfg, done: make(chan struct{}), groups: newRegistry(), parts: newQueue(partCalls, partGrace)}
	s.open, s.shut = context.WithCancel(context.Background())
	answers := &service{server: s}
	s.grpc = grpc.NewServer(append(answers.limits(),
		grpc.Creds(arrivals{newCredentials(cfg.TLS, cfg.Local), s}),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		grpc.ReadBufferSize(wireBuffer), grpc.WriteBufferSize(wireBuffer),
		experimental.BufferPool(bulkPool),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.WaitForHandlers(true),
	)...)
	nodepb.RegisterNodeServer(s.grpc, answers)
	var local net.Listener
	if cfg.Local != TCP {
		local = listenLocal(cfg.Listener)
	}
	go s.accept(local)
	return s
}

// accept serves until Close. local is the unix socket, nil if there is none.
func (s *Server) accept(local net.Listener) {
	defer close(s.done)
	var both sync.WaitGroup
	if local != nil {
		both.Go(func() { s.serve(local) })
	}
	s.serve(s.cfg.Listener)
	both.Wait()
}

func (s *Server) serve(l net.Listener) {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		s.cfg.Log.Error("no longer accepting calls", "addr", l.Addr(), "err", err)
	}
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.cfg.Listener.Addr().String() }

// Close closes all groups, then the listener and all connections at once, and returns when every
// goroutine of the server and its groups is gone. It is idempotent and must not be called by a callback.
func (s *Server) Close() {
	for _, g := range s.groups.close() {
		g.Close(allreduce.Broken, "", "the node stops")
		g.Wait()
	}
	s.shut()
	s.once.Do(s.grpc.Stop)
	<-s.done
}

// arrivals are credentials of a server whose connections don't keep it from stopping while they come up: gRPC waits for
// those, however long they say nothing.
type arrivals struct {
	credentials.TransportCredentials
	server *Server
}

// ServerHandshake implements credentials.TransportCredentials.
func (a arrivals) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	arrived := context.AfterFunc(a.server.open, func() { raw.Close() })
	time.AfterFunc(a.server.cfg.ConnectTimeout, func() { arrived() }) // it has come up by then, or gRPC has closed it
	return a.TransportCredentials.ServerHandshake(raw)
}
