package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
	"github.com/dlnode/dlnode/dataset"
)

// peers is the data set as the other nodes have it: a source that asks one after
// another, as gossip tells who there is, until one gives what passes the check.
// While none does it waits, for as long as whoever reads lives: a feeding node that
// dies costs time. Nobody is believed, and who gives damaged data, or says nothing,
// is passed over for a while.
type peers struct {
	client *rpc.Client
	log    *slog.Logger

	mu      sync.Mutex
	all     map[view.Node]*peer
	changed chan struct{} // closed and replaced when somebody comes
	only    [32]byte      // the trajectory of those that are asked; zero: anyone's
	stuck   int           // who ask, and have not been given anything by anyone
	reason  string        // why, for the one who came last
}

var _ dataset.Source = (*peers)(nil)

// peer is a node that may have data.
type peer struct {
	view.Fact
	gives float64   // share of the requests of late that it could answer
	after time.Time // it is asked again then
	pause time.Duration
}

const (
	partSilence  = 3 * time.Second  // between two chunks of what a peer gives
	partTimeout  = 30 * time.Second // for a part
	wholeTimeout = 4 * time.Minute  // for a file
	passOver     = 250 * time.Millisecond
	passOverMost = 5 * time.Second
	firstPause   = 50 * time.Millisecond // between two rounds in which nobody could give what is wanted
	longestPause = 2 * time.Second
	tellAfter    = time.Second // so long a wait is told aloud
)

func newPeers(client *rpc.Client, log *slog.Logger) *peers {
	return &peers{client: client, log: log, all: map[view.Node]*peer{}, changed: make(chan struct{})}
}

// up takes gossip's word of a node.
func (p *peers) up(f view.Fact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.all[f.Node()]; known != nil {
		known.Fact = f
	} else {
		p.all[f.Node()] = &peer{Fact: f, gives: 1}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// down takes gossip's word that a node is gone.
func (p *peers) down(f view.Fact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, f.Node())
}

// news returns what is closed when somebody comes or has news.
func (p *peers) news() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// facts lists the nodes that walk some trajectory.
func (p *peers) facts() (all []view.Fact) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.all {
		if n.Trajectory != ([32]byte{}) {
			all = append(all, n.Fact)
		}
	}
	slices.SortFunc(all, func(a, b view.Fact) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// restrict has none asked but those that walk a trajectory.
func (p *peers) restrict(trajectory [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.only = trajectory
}

// waiting tells what is waited for, "" if nothing is.
func (p *peers) waiting() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stuck == 0 {
		return ""
	}
	return "data: " + p.reason
}

// candidates lists whom to ask, in order: those first that could answer of late, and
// none always, so that the origin of the data is not asked for everything.
func (p *peers) candidates(now time.Time) []view.Fact {
	p.mu.Lock()
	defer p.mu.Unlock()
	type candidate struct {
		view.Fact
		rank float64
	}
	var all []candidate
	for _, n := range p.all {
		switch {
		case n.Trajectory == [32]byte{} || p.only != [32]byte{} && n.Trajectory != p.only, now.Before(n.after):
		default:
			all = append(all, candidate{n.Fact, n.gives + float64(rand.Float64()/2)})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(b.rank, a.rank) })
	facts := make([]view.Fact, len(all))
	for i, c := range all {
		facts[i] = c.Fact
	}
	return facts
}

// answered keeps account of what a peer did with a request.
func (p *peers) answered(f view.Fact, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.all[f.Node()]
	if n == nil {
		return
	}
	switch {
	case err == nil:
		n.gives += float64((1 - n.gives) / 16)
		n.pause = 0
	case errors.Is(err, fs.ErrNotExist):
		n.gives -= float64(n.gives / 16)
		n.pause = 0
	default:
		n.pause = min(passOverMost, max(passOver, 2*n.pause))
		n.after = time.Now().Add(n.pause)
	}
}

// String implements dataset.Source.
func (p *peers) String() string { return "peers" }

// Whole implements dataset.Source.
func (p *peers) Whole(ctx context.Context, name string, limit int64, check func([]byte) error) (text []byte, err error) {
	err = p.ask(ctx, name, wholeTimeout, func(ctx context.Context, addr string) error {
		got, err := p.client.Part(ctx, addr, rpc.PartRequest{Name: name}, limit, wholeTimeout)
		if err == nil {
			text, err = got, wrong(check(got))
		}
		return err
	})
	return text, err
}

// Part implements dataset.Source.
func (p *peers) Part(ctx context.Context, name string, off int64, dst []byte, check func(int) error) (n int, err error) {
	if len(dst) > rpc.MaxPart { // a record of more: nobody would ever give it
		return 0, fmt.Errorf("%d bytes of %s are needed at once, and peers give at most %d", len(dst), name, rpc.MaxPart)
	}
	r := rpc.PartRequest{Name: name, Offset: off, Length: len(dst)}
	err = p.ask(ctx, name, partTimeout, func(ctx context.Context, addr string) error {
		got, err := p.client.Part(ctx, addr, r, int64(len(dst)), partSilence)
		if err == nil {
			n = copy(dst, got)
			err = wrong(check(n))
		}
		return err
	})
	return n, err
}

// wrongError tells that what a peer gave is not what it should be.
type wrongError struct{ error }

func (e wrongError) Unwrap() error { return e.error }

func wrong(err error) error {
	if err == nil {
		return nil
	}
	return wrongError{err}
}

// ask asks round after round until a peer gives what is wanted, or ctx ends.
func (p *peers) ask(ctx context.Context, what string, limit time.Duration, one func(ctx context.Context, addr string) error) error {
	w := waiter{p: p}
	defer w.end()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		news := p.news()
		err := p.round(ctx, what, limit, one)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.tell(err)
		rest := time.NewTimer(pause)
		select {
		case <-news:
		case <-rest.C:
		case <-ctx.Done():
		}
		rest.Stop()
	}
}

// round asks each once.
func (p *peers) round(ctx context.Context, what string, limit time.Duration, one func(ctx context.Context, addr string) error) error {
	last := fmt.Errorf("no node that has %s is found", what)
	for _, f := range p.candidates(time.Now()) {
		call, cancel := context.WithTimeout(ctx, limit)
		err := one(call, f.Addr)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.answered(f, err)
		switch {
		case err == nil:
			return nil
		case errors.As(err, new(wrongError)):
			p.log.Warn("a peer gives data that are not right, and is passed over", "peer", f.ID, "addr", f.Addr, "file", what, "error", err)
			last = fmt.Errorf("%s gives data that are not right: %w", f.ID, err)
		case errors.Is(err, fs.ErrNotExist):
			last = fmt.Errorf("%s does not have %s", f.ID, what)
		default:
			p.log.Debug("a peer did not give data", "peer", f.ID, "addr", f.Addr, "file", what, "error", err)
			last = fmt.Errorf("%s does not give %s: %w", f.ID, what, err)
		}
	}
	return last
}

// waiter is one who asks, and may have to wait.
type waiter struct {
	p     *peers
	since time.Time // zero until nobody could give anything
	loud  bool
}

// tell has the wait known.
func (w *waiter) tell(reason error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	if w.since.IsZero() {
		w.since = time.Now()
		w.p.stuck++
	}
	w.p.reason = reason.Error()
	if !w.loud && time.Since(w.since) >= tellAfter {
		w.loud = true
		w.p.log.Warn("waiting for data: no peer gives them", "reason", w.p.reason)
	}
}

// end tells that the wait is over, one way or another.
func (w *waiter) end() {
	if w.since.IsZero() {
		return
	}
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.stuck--
	if w.loud {
		w.p.log.Info("no longer waiting for data", "waited", time.Since(w.since).Round(time.Millisecond))
	}
}
