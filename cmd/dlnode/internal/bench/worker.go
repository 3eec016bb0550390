package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/dlnode/dlnode/allreduce/rpc"
)

// WorkerConfig describes a worker.
type WorkerConfig struct {
	Listener net.Listener // for the conductor; whatever is measured takes free ports of the same address
	Threads  int          // of an op, as of a node
	Program  string       // version, to be told
	Kernels  string       // likewise
	Log      *slog.Logger
}

// Work is a worker until ctx ends.
func Work(ctx context.Context, cfg WorkerConfig) error {
	host, _, err := net.SplitHostPort(cfg.Listener.Addr().String())
	if err != nil {
		return err
	}
	w := &worker{cfg: cfg, host: host, turn: make(chan struct{}, 1)}
	if w.far, err = listenFar(net.JoinHostPort(host, "0")); err != nil {
		return err
	}
	server := rpc.Serve(rpc.ServerConfig{Listener: cfg.Listener, Log: cfg.Log, AnswerTimeout: longestAnswer, Handlers: rpc.Handlers{
		Deliver: w.deliver, Fetch: w.far.fetch,
		Ping: func(context.Context, uint64) ([]byte, error) { return nil, nil },
	}})
	<-ctx.Done()
	server.Close() // ends all calls in progress, and waits for them
	w.leave()
	w.far.close()
	return nil
}

// worker is what answers. One request is answered at a time, so a conductor that went
// away in the middle of one is in nobody's way for long.
type worker struct {
	cfg  WorkerConfig
	host string
	far  *farEnd
	turn chan struct{} // holds one while a request is answered

	session *session // the world that it is in; nil for none
}

// deliver answers a request.
func (w *worker) deliver(ctx context.Context, e rpc.Envelope) ([]byte, error) {
	var r request
	if err := json.Unmarshal(e.Payload, &r); err != nil {
		return nil, fmt.Errorf("no request of a conductor: %w", err)
	}
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	reply, err := w.answer(ctx, r)
	if err != nil {
		w.cfg.Log.Error("a request failed", "err", err)
		return nil, err
	}
	return json.Marshal(reply)
}

var errNoWorld = errors.New("this worker is in no world")

func (w *worker) answer(ctx context.Context, r request) (any, error) {
	switch {
	case r.Hello != nil:
		return helloReply{w.cfg.Program, w.cfg.Threads, runtime.NumCPU(), w.cfg.Kernels, w.far.addr()}, nil
	case r.Open != nil:
		w.leave()
		s, err := openSession(w, r.Open)
		if err != nil {
			return nil, err
		}
		w.session = s
		return s.addresses(), nil
	case r.Link != nil:
		return measureLink(ctx, r.Link)
	case w.session == nil:
		return nil, errNoWorld
	case r.Join != nil:
		return struct{}{}, w.session.join(ctx, r.Join.Ranks)
	case r.Measure != nil:
		return w.session.measure(ctx, r.Measure)
	case r.Close != nil:
		w.leave()
		return struct{}{}, nil
	}
	return nil, errors.New("an empty request")
}

// leave closes the world that the worker is in, if there is one.
func (w *worker) leave() {
	if w.session != nil {
		w.session.close()
		w.session = nil
	}
}

// listenRing listens for the left neighbour of a raw ring. A socket's file goes with its
// listener.
func listenRing(network, host string) (l net.Listener, remove func(), err error) {
	if network == "tcp" {
		l, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		return l, func() {}, err
	}
	dir, err := os.MkdirTemp("", "dlnode-bench-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { os.RemoveAll(dir) } // an empty directory of our own
	if l, err = net.Listen("unix", filepath.Join(dir, "ring")); err != nil {
		remove()
	}
	return l, remove, err
}
