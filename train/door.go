package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/dataset"
)

// What other nodes and people ask of this one, answered by the server's
// goroutines. Only messages and copies of the state trouble the loop.

// pingAnswer is what pings are answered from: a node that is busy still answers.
type pingAnswer struct {
	pong  view.Pong
	group *rpc.Group // the running one, nil if none; knows what was sent
}

// storeAnswer renews it; loop does so after events.
func (d *driver) storeAnswer() {
	d.answer.Store(&pingAnswer{d.host.Pong(), d.group})
}

func (d *driver) handlers() rpc.Handlers {
	return rpc.Handlers{Deliver: d.onDeliver, Ping: d.onPing, Describe: d.onDescribe, Status: d.onStatus, Fetch: d.onFetch, Part: d.onPart, Follow: d.onFollow}
}

// generation goes with every refusal.
func (d *driver) generation() uint64 {
	if a := d.answer.Load(); a != nil {
		return a.pong.Generation
	}
	return 0
}

var errStarting = errors.New("starting")

// there tells whether there is a node behind the door. Before, there may be no task.
func (d *driver) there() error {
	if d.answer.Load() == nil {
		return errStarting
	}
	return nil
}

func (d *driver) onDeliver(_ context.Context, e rpc.Envelope) ([]byte, error) {
	if err := d.there(); err != nil {
		return nil, err
	}
	m, err := Admit(d.task, e)
	if err != nil {
		return nil, err
	}
	d.box.post(func() { d.host.Receive(m) })
	return nil, nil
}

func (d *driver) onPing(_ context.Context, incarnation uint64) ([]byte, error) {
	a := d.answer.Load()
	switch {
	case a == nil:
		return nil, errStarting
	case d.gone.Load():
		return nil, errGone
	}
	var link rpc.Progress
	if a.group != nil {
		link = a.group.Progress()
	}
	return AnswerPing(a.pong, incarnation, d.Signs(), link)
}

func (d *driver) onDescribe(context.Context) ([]byte, error) {
	if err := d.there(); err != nil {
		return nil, err
	}
	return json.Marshal(d.task.Identity())
}

func (d *driver) onStatus(context.Context) ([]byte, error) {
	s := d.status.Load()
	if s == nil {
		return nil, errStarting
	}
	return json.Marshal(s)
}

func (d *driver) onFetch(ctx context.Context, r rpc.FetchRequest) ([]byte, error) {
	if err := d.there(); err != nil {
		return nil, err
	}
	return await(ctx, d, func(reply func([]byte, error)) { d.host.Serve(r, reply) })
}

func (d *driver) onFollow(ctx context.Context, r rpc.FollowRequest) (rpc.Piece, error) {
	if err := d.there(); err != nil {
		return rpc.Piece{}, err
	}
	return await(ctx, d, func(reply func(rpc.Piece, error)) { d.host.Borrow(r, reply) })
}

// await has the loop answer a question, as long as somebody waits for the answer.
func await[T any](ctx context.Context, d *driver, ask func(reply func(T, error))) (answer T, err error) {
	type reply struct {
		answer T
		err    error
	}
	replies := make(chan reply, 1)
	d.box.post(func() { ask(func(answer T, err error) { replies <- reply{answer, err} }) })
	select {
	case r := <-replies:
		return r.answer, r.err
	case <-ctx.Done():
		return answer, context.Cause(ctx)
	case <-d.ctx.Done():
		return answer, errGone
	}
}

// sharing is the data set as others get it, made when the first of them asks. What
// could not be made, since a disk failed, is made anew for the next one.
type sharing struct {
	mu     sync.Mutex
	making *making // nil: nobody has asked, or it failed
}

// making is a share in the making, until done is closed.
type making struct {
	done  chan struct{}
	share *dataset.Share
	err   error
}

// shared returns what others get, which may take as long as it takes to read all
// of the data once.
func (d *driver) shared(ctx context.Context) (*dataset.Share, error) {
	m := d.beginShare()
	select {
	case <-m.done:
		return m.share, m.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// beginShare returns the share in the making.
func (d *driver) beginShare() *making {
	s := &d.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making != nil {
		return s.making
	}
	m := &making{done: make(chan struct{})}
	s.making = m
	d.spawn(func() {
		defer close(m.done)
		if m.share, m.err = d.task.Share(d.ctx); m.err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.making = nil
	})
	return m
}

// Share is the data set as others get it: NewShare of dataset. Of data that lie in
// no pack each sample is read.
func (t *Task) Share(ctx context.Context) (*dataset.Share, error) {
	spec, ok := t.Job.Data.(dataset.Spec)
	if !ok {
		return nil, fmt.Errorf("%T is not a data set of package dataset, and can't be shared", t.Job.Data)
	}
	return dataset.NewShare(ctx, spec, t.whole, t.Test)
}

// maxSharedFile is the longest description of data, its index included.
const maxSharedFile = 1 << 30

func (d *driver) onPart(ctx context.Context, r rpc.PartRequest) ([]byte, error) {
	if err := d.there(); err != nil {
		return nil, err
	}
	if d.gone.Load() {
		return nil, errGone
	}
	s, err := d.shared(ctx)
	if err != nil {
		return nil, err
	}
	if r.Length == 0 {
		return s.Whole(ctx, r.Name, maxSharedFile, func([]byte) error { return nil })
	}
	blob := make([]byte, r.Length)
	n, err := s.Part(ctx, r.Name, r.Offset, blob, func(int) error { return nil })
	return blob[:n], err
}
