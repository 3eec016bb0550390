package train

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
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
	return rpc.Handlers{Deliver: d.onDeliver, Ping: d.onPing, Describe: d.onDescribe, Status: d.onStatus, Fetch: d.onFetch}
}

// generation goes with every refusal.
func (d *driver) generation() uint64 {
	if a := d.answer.Load(); a != nil {
		return a.pong.Generation
	}
	return 0
}

var errStarting = errors.New("starting")

func (d *driver) onDeliver(_ context.Context, e rpc.Envelope) ([]byte, error) {
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
	var sent uint64
	if a.group != nil {
		sent = a.group.Progress().FramesOut
	}
	return AnswerPing(a.pong, incarnation, d.engine.Done(), sent)
}

func (d *driver) onDescribe(context.Context) ([]byte, error) { return json.Marshal(d.task.Identity()) }

func (d *driver) onStatus(context.Context) ([]byte, error) {
	s := d.status.Load()
	if s == nil {
		return nil, errStarting
	}
	return json.Marshal(s)
}

func (d *driver) onFetch(ctx context.Context, r rpc.FetchRequest) ([]byte, error) {
	type reply struct {
		blob []byte
		err  error
	}
	replies := make(chan reply, 1)
	d.box.post(func() { d.host.Serve(r, func(blob []byte, err error) { replies <- reply{blob, err} }) })
	select {
	case r := <-replies:
		return r.blob, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-d.ctx.Done():
		return nil, errGone
	}
}
