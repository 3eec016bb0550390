package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Limits of one round of the search.
const (
	firstRetry = 100 * time.Millisecond // doubled after each round that leaves this node alone
	maxTargets = 16                     // addresses of seeds tried in one round, drawn at random
	maxSearch  = 8                      // addresses of lost nodes tried in one round
)

// search looks for seeds and lost nodes for as long as the node lives. It is
// needed after the first join too: memberlist never contacts a seed by itself
// and forgets the dead. Seeds that are members already cost nothing but a
// look-up of their names.
type search struct {
	cfg   Config
	seeds []seed
	self  func(netip.AddrPort) bool  // is that us?
	join  func(netip.AddrPort) error // one attempt, bounded in time
	peers *peers
	rand  *rand.Rand // jitter, drawn from the incarnation

	mu      sync.Mutex
	joined  bool          // a cluster was found, or there is none to look for
	tries   []Try         // what failed in the last round
	changed chan struct{} // closed and replaced when joined or tries is written
}

// target is an address to try and why.
type target struct {
	seed string // as looked for; empty for a lost node
	addr netip.AddrPort
}

func newSearch(cfg Config, seeds []seed, p *peers) *search {
	return &search{
		cfg: cfg, seeds: seeds, peers: p,
		rand:    rand.New(rand.NewPCG(cfg.Incarnation, 0)),
		joined:  len(seeds) == 0,
		changed: make(chan struct{}),
	}
}

// run searches round after round until ctx ends: quickly at first and
// whenever the node is alone, every RejoinEvery once it is not.
func (s *search) run(ctx context.Context) {
	backoff := firstRetry
	for {
		s.round(ctx)
		pause := s.cfg.RejoinEvery + time.Duration(s.rand.Int64N(int64(s.cfg.RejoinEvery)))
		if live, _ := s.peers.count(); live == 0 && len(s.seeds) > 0 {
			pause = min(pause, backoff)
			backoff *= 2
		} else {
			backoff = firstRetry
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// round tries every address worth trying once, all at the same time.
func (s *search) round(ctx context.Context) {
	targets, tries := s.targets(ctx)
	tries = append(tries, s.attempt(targets)...)
	if ctx.Err() != nil {
		return // those failures were our own
	}
	live, _ := s.peers.count()
	s.record(live > 0 || onlySelf(tries), tries)
	for _, t := range tries {
		s.cfg.Log.Debug("join failed", "tried", t.String())
	}
}

// onlySelf tells whether all seeds led back to this node: it is the first pod
// of a service, and a cluster of one.
func onlySelf(tries []Try) bool {
	for _, t := range tries {
		if !errors.Is(t.Err, errSelf) {
			return false
		}
	}
	return len(tries) > 0
}

// targets resolves the seeds and adds the lost nodes. Addresses of live nodes
// are left out; what can't be tried is returned as a failed try.
func (s *search) targets(ctx context.Context) (targets []target, failed []Try) {
	seen := map[netip.AddrPort]bool{}
	for _, seed := range s.seeds {
		addrs, err := s.resolve(ctx, seed)
		if err != nil {
			failed = append(failed, Try{Seed: seed.text(), Err: err})
		}
		for _, a := range addrs {
			switch {
			case seen[a] || s.peers.at(a):
			case s.self(a):
				failed = append(failed, Try{seed.text(), a, errSelf})
			default:
				targets = append(targets, target{seed.text(), a})
			}
			seen[a] = true
		}
	}
	s.rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	targets = targets[:min(len(targets), maxTargets)]
	for _, a := range s.peers.search(time.Now(), s.cfg.LostFor, maxSearch) {
		if !seen[a] {
			targets = append(targets, target{addr: a})
		}
	}
	return targets, failed
}

func (s *search) resolve(ctx context.Context, seed seed) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.StreamTimeout)
	defer cancel()
	return seed.resolve(ctx, s.cfg.Resolve)
}

// attempt joins all targets at once and returns what failed.
func (s *search) attempt(targets []target) (failed []Try) {
	var wg sync.WaitGroup
	errs := make([]error, len(targets))
	for i, t := range targets {
		wg.Go(func() {
			if errs[i] = s.join(t.addr); errs[i] == nil {
				s.record(true, nil) // nobody need wait for the slower ones
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			failed = append(failed, Try{targets[i].seed, targets[i].addr, explain(err)})
		}
	}
	return failed
}

func (s *search) record(joined bool, tries []Try) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined = s.joined || joined
	s.tries = tries
	close(s.changed)
	s.changed = make(chan struct{})
}

// state returns whether a cluster was found, what failed in the last round,
// and a channel that is closed when there is more to know.
func (s *search) state() (joined bool, tries []Try, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joined, s.tries, s.changed
}

// wait returns when a cluster was found, or a *JoinError when ctx ended first
// or a seed speaks under another secret.
func (s *search) wait(ctx context.Context) error {
	for {
		joined, tries, changed := s.state()
		failed := &JoinError{Tries: tries}
		switch {
		case joined:
			return nil
		case errors.Is(failed, ErrSecret):
			return failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			_, failed.Tries, _ = s.state()
			return failed
		}
	}
}

// sleep waits for d and tells whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
