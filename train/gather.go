package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dlnode/dlnode/cluster"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
)

// FromPeers has a node get its data from the others. It knows its trajectory only
// then: until it has compared its job with that of a node that has the data, it
// takes part in gossip without one, which the others do not take for a node that
// could train.
//
//	gossip ─► who is there ─► is their job ours? ─► Open ─► the node begins as any other
type FromPeers struct {
	Job  *job.Job
	Kept bool // what it takes to open the data is here from an earlier life: nobody need be there
	// Open makes the task, of data from others. It gives up when ctx ends.
	Open func(ctx context.Context, others dataset.Source) (*Task, error)
}

// errLeft tells that a node was asked to leave before it had found its data.
var errLeft = errors.New("left before the data were found")

// gather makes the task of a node that has its data from others.
func (d *driver) gather(ctx context.Context) error {
	from := d.cfg.FromPeers
	if err := d.listen(); err != nil {
		return err
	}
	g := d.cfg.Gossip
	d.self = view.Fact{ID: g.Name, Incarnation: g.Incarnation, Addr: d.advertised(), Zone: d.cfg.Zone}
	if err := d.startGossip(); err != nil {
		return err
	}
	if !from.Kept {
		if err := d.findData(ctx); err != nil {
			return left(ctx, err)
		}
	}
	task, err := from.Open(ctx, d.peers)
	if err != nil {
		return left(ctx, err)
	}
	d.task = task
	return nil
}

// left is the error of what was given up since the node was asked to leave.
func left(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errLeft
	}
	return err
}

// findData waits for a node that has the data of this node's job. One that trains
// something else is an error if none trains the same.
func (d *driver) findData(ctx context.Context) error {
	begun, told := time.Now(), 3*time.Second
	for {
		news := d.peers.news()
		same, other := d.compareJobs(ctx, d.peers.facts())
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case same != nil:
			d.peers.restrict(same.Trajectory)
			d.Tell(Event{Time: time.Now(), Kind: "data", Node: same.ID, Text: fmt.Sprintf("%s has the data", same.ID)})
			return nil
		case other != nil:
			return other
		}
		reason := d.whyNobody(ctx)
		if errors.Is(reason, cluster.ErrSecret) {
			return reason
		}
		d.showWaiting(reason.Error())
		if waited := time.Since(begun); waited >= told {
			told = min(2*told, waited+time.Minute)
			d.Tell(Event{Time: time.Now(), Kind: "unreachable", Text: fmt.Sprintf("still looking for a node that has the data: %v", reason)})
		}
		rest := time.NewTimer(250 * time.Millisecond)
		select {
		case <-news:
		case <-rest.C:
		case <-ctx.Done():
		}
		rest.Stop()
	}
}

// whyNobody tells why nobody with data is known.
func (d *driver) whyNobody(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if err := d.gossip.Joined(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errors.New("nobody who is there has them")
}

// compareJobs asks who is there what they train. It returns one that trains what
// this node does, or the error that another doesn't, or neither.
func (d *driver) compareJobs(ctx context.Context, facts []view.Fact) (same *view.Fact, other error) {
	here := Identity{Numerics: Numerics, Job: d.cfg.FromPeers.Job.Canonical()}
	for _, f := range facts {
		answer, err := d.client.Describe(ctx, f.Addr)
		if err != nil {
			continue // it is starting, or gone: later
		}
		var there Identity
		if err := json.Unmarshal(answer, &there); err != nil {
			d.log.Warn("a node does not say what it trains", "peer", f.ID, "error", err)
			continue
		}
		if there.Numerics == here.Numerics && bytes.Equal(there.Job, here.Job) {
			return &f, nil
		}
		here.Data, here.Outline, here.Meaning, here.Start = there.Data, there.Outline, there.Meaning, there.Start // of which nothing is known here
		other = &StrangerError{f.ID, f.Addr, here.Differences("this node", f.ID, there)}
	}
	return nil, other
}

// showWaiting makes a status page for a node that has nothing to show yet.
func (d *driver) showWaiting(reason string) {
	d.status.Store(&Status{
		Ready: Ready{Node: d.self.ID, Incarnation: d.self.Incarnation, GRPC: d.self.Addr, Gossip: d.gossip.Addr()},
		Job:   d.cfg.FromPeers.Job.Name, State: "starting", Since: d.shown.since,
		Progress: Progress{Node: d.self.ID, Waiting: "data: " + reason},
	})
}

// forsake ends what gather has begun, and says how the node ended.
func (d *driver) forsake(err error) (Result, error) {
	d.gone.Store(true)
	d.shutdown()
	r := Result{Node: d.cfg.Gossip.Name, Reason: err.Error()}
	if errors.Is(err, errLeft) {
		err = nil
	} else {
		r.Reason, r.Error = "", err.Error()
	}
	d.line(Line{Result: &r})
	return r, err
}
