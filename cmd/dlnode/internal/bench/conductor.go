package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
)

// Worker is a worker as a conductor sees it.
type Worker struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Program string `json:"program"`
	Threads int    `json:"threads"`
	CPUs    int    `json:"cpus"`
	Kernels string `json:"kernels"`

	link string
}

// Conductor asks workers.
type Conductor struct {
	Workers []Worker
	client  *rpc.Client
}

// longestAnswer bounds a request. Silence for as long is a worker's death.
const longestAnswer = 10 * time.Minute

// Conduct meets workers. All must be of one program: what is measured of two is of
// neither. Close the conductor.
func Conduct(ctx context.Context, workers []Worker) (*Conductor, error) {
	c := &Conductor{Workers: workers, client: rpc.NewClient(rpc.ClientConfig{CallTimeout: longestAnswer})}
	err := c.all(ctx, len(workers), func(ctx context.Context, i int) error {
		w := &c.Workers[i]
		h, err := ask[helloReply](ctx, c, i, request{Hello: &struct{}{}})
		if err == nil {
			w.Program, w.Threads, w.CPUs, w.Kernels, w.link = h.Program, h.Threads, h.CPUs, h.Kernels, h.Link
		}
		return err
	})
	for _, w := range c.Workers {
		if err == nil && w.Program != c.Workers[0].Program {
			err = fmt.Errorf("%s is %s, %s is %s: all have to be the same program", c.Workers[0].Name, c.Workers[0].Program, w.Name, w.Program)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends all calls. Workers close what they have when the next conductor comes.
func (c *Conductor) Close() { c.client.Close() }

// ask has a worker answer a request.
func ask[T any](ctx context.Context, c *Conductor, worker int, r request) (*T, error) {
	w := c.Workers[worker]
	payload, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	receipt, err := c.client.Deliver(ctx, w.Addr, rpc.Envelope{From: "bench", Payload: payload})
	if err != nil {
		return nil, &workerError{w.Name, err}
	}
	reply := new(T)
	if err := json.Unmarshal(receipt, reply); err != nil {
		return nil, &workerError{w.Name, err}
	}
	return reply, nil
}

// workerError says at which worker something failed.
type workerError struct {
	worker string
	err    error
}

func (e *workerError) Error() string {
	if r := (*rpc.Error)(nil); errors.As(e.err, &r) && r.Kind == rpc.Rejected {
		return e.worker + ": " + r.Message
	}
	return e.worker + ": " + e.err.Error()
}

func (e *workerError) Unwrap() error { return e.err }

// all calls f for the first n workers at the same time and waits for all. Of several
// errors it returns the one that tells the cause: a worker that is gone, rather than what
// its neighbours have to say about that. Once one is gone, the others get a moment to end,
// and are given up then.
func (c *Conductor) all(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if errs[i] = f(ctx, i); errs[i] != nil {
				time.AfterFunc(time.Second, cancel)
			}
		})
	}
	wg.Wait()
	return cause(errs)
}

// cause picks the error that explains the others. They are by rank: one that ends may still
// have said so itself, as its neighbours say that they have lost it.
func cause(errs []error) (first error) {
	for _, kind := range []func(rank int) bool{
		func(rank int) bool { return rpc.KindOf(errs[rank]) == rpc.Unreachable },
		func(rank int) bool { return rpc.KindOf(errs[rank]) == rpc.Timeout },
		func(rank int) bool {
			return slices.ContainsFunc(errs, func(err error) bool { return blames(err, rank) })
		},
		func(rank int) bool { return rpc.KindOf(errs[rank]) != rpc.Canceled },
		func(int) bool { return true },
	} {
		for rank, err := range errs {
			if err != nil && kind(rank) {
				return err
			}
		}
	}
	return nil
}

// blames tells whether an error that a worker has told is a lostError about a rank.
func blames(err error, rank int) bool {
	return err != nil && strings.Contains(err.Error(), " lost "+rankName(rank)+":")
}

// World is the first so many workers of a conductor, linked up as ranks.
type World struct {
	c    *Conductor
	size int
}

// Open links up the first size workers.
func (c *Conductor) Open(ctx context.Context, size int, secure, unix bool, local rpc.Transport) (*World, error) {
	var k *keys
	var err error
	if secure {
		if k, err = newKeys(); err != nil {
			return nil, err
		}
	}
	fence := make([]byte, len(allreduce.Fence{}))
	_, _ = rand.Read(fence) // never fails
	ranks := make([]addresses, size)
	err = c.all(ctx, size, func(ctx context.Context, i int) error {
		a, err := ask[addresses](ctx, c, i, request{Open: &openRequest{World: size, Rank: i, Fence: fence, Unix: unix, TLS: k, Local: local}})
		if err == nil {
			ranks[i] = *a
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	w := &World{c, size}
	return w, c.all(ctx, size, func(ctx context.Context, i int) error {
		_, err := ask[struct{}](ctx, c, i, request{Join: &joinRequest{Ranks: ranks}})
		return err
	})
}

// measure has all ranks do the same, and returns what each has seen.
func (w *World) measure(ctx context.Context, m measureRequest) ([]measured, error) {
	all := make([]measured, w.size)
	err := w.c.all(ctx, w.size, func(ctx context.Context, i int) error {
		r, err := ask[measured](ctx, w.c, i, request{Measure: &m})
		if err == nil {
			all[i] = *r
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s, %d bytes: %w", m.Kind, 4*m.Elements, err)
	}
	for rank, r := range all {
		if r.Digest != all[0].Digest {
			return nil, fmt.Errorf("%s, %d bytes: %s and %s have different results", m.Kind, 4*m.Elements, w.c.Workers[0].Name, w.c.Workers[rank].Name)
		}
	}
	return all, nil
}

// Close has the workers leave the world.
func (w *World) Close(ctx context.Context) error {
	return w.c.all(ctx, w.size, func(ctx context.Context, i int) error {
		_, err := ask[struct{}](ctx, w.c, i, request{Close: &struct{}{}})
		return err
	})
}
