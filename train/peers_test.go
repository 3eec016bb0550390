package train

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc"
	"github.com/dlnode/dlnode/cluster/view"
)

// giver is a node that answers for data as part says.
func giver(t *testing.T, id string, part func(context.Context, rpc.PartRequest) ([]byte, error)) view.Fact {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.Serve(rpc.ServerConfig{Listener: l, Handlers: rpc.Handlers{Part: part}})
	t.Cleanup(s.Close)
	return view.Fact{ID: id, Incarnation: 1, Addr: s.Addr(), Trajectory: [32]byte{1}}
}

// asker asks nodes for data and keeps what it says.
func asker(t *testing.T, givers ...view.Fact) (*peers, *says) {
	t.Helper()
	c := rpc.NewClient(rpc.ClientConfig{})
	t.Cleanup(c.Close)
	said := &says{}
	p := newPeers(c, slog.New(slog.NewTextHandler(said, nil)))
	for _, f := range givers {
		p.up(f)
	}
	return p, said
}

// says is a log.
type says struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *says) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *says) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// good gives, for each offset, 8 bytes that tell it.
func good(_ context.Context, r rpc.PartRequest) ([]byte, error) {
	return binary.LittleEndian.AppendUint64(nil, uint64(r.Offset)), nil
}

func TestWhatNoPeerMayGiveIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	p, _ := asker(t, giver(t, "a", good))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := p.Part(ctx, "x", 0, make([]byte, rpc.MaxPart+1), func(int) error { return nil })
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "peers give at most 8388608") {
		t.Errorf("got %v", err)
	}
}

func TestADiskThatFailsOnceDoesNotKeepDataFromOthers(t *testing.T) {
	t.Parallel()
	task, data := picturesTask(t, "")
	task.whole = data
	d := &driver{task: task, ctx: t.Context()}
	defer d.calls.Wait()
	data.broken.Store(true)
	if _, err := d.shared(t.Context()); err == nil {
		t.Fatal("shared what can't be read")
	}
	data.broken.Store(false)
	first, err := d.shared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := data.reads.Load()
	if again, err := d.shared(t.Context()); err != nil || again != first || data.reads.Load() != read {
		t.Errorf("%v; made anew: %v, %d reads, then %d", err, again != first, read, data.reads.Load())
	}
}

// get takes 8 bytes from p.
func get(ctx context.Context, p *peers, off int64) error {
	dst := make([]byte, 8)
	_, err := p.Part(ctx, "x", off, dst, func(n int) error {
		if n != 8 || binary.LittleEndian.Uint64(dst) != uint64(off) {
			return errors.New("that is something else")
		}
		return nil
	})
	return err
}

func TestWhoGivesNothingGoodIsPassedOver(t *testing.T) {
	for name, c := range map[string]struct {
		part func(context.Context, rpc.PartRequest) ([]byte, error)
		says string
	}{
		"damaged":  {func(context.Context, rpc.PartRequest) ([]byte, error) { return make([]byte, 8), nil }, "not right, and is passed over"},
		"too much": {func(context.Context, rpc.PartRequest) ([]byte, error) { return make([]byte, 9), nil }, ""},
		"nothing":  {func(context.Context, rpc.PartRequest) ([]byte, error) { return nil, fs.ErrNotExist }, ""},
		"refusal":  {func(context.Context, rpc.PartRequest) ([]byte, error) { return nil, errStarting }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, said := asker(t, giver(t, "bad", c.part), giver(t, "good", good))
			for off := int64(1); off < 50; off++ {
				if err := get(t.Context(), p, off); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(said.String(), c.says) {
				t.Errorf("it says %q, want %q", said, c.says)
			}
		})
	}
}

func TestWhoSaysNothingIsPassedOverAfterAWhile(t *testing.T) {
	t.Parallel()
	silent := giver(t, "silent", func(ctx context.Context, _ rpc.PartRequest) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	p, _ := asker(t, silent)
	done := make(chan error, 1)
	go func() { done <- get(t.Context(), p, 7) }()
	p.up(giver(t, "good", good))
	begun := time.Now()
	if err := <-done; err != nil || time.Since(begun) > 2*partSilence {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestAReadWaitsForWhoeverHasTheData(t *testing.T) {
	t.Parallel()
	p, _ := asker(t)
	ctx, end := context.WithCancelCause(t.Context())
	given, gaveUp := make(chan error, 1), make(chan error, 1)
	go func() { given <- get(t.Context(), p, 7) }()
	go func() { gaveUp <- get(ctx, p, 8) }()
	for p.waiting() != "data: no node that has x is found" {
		select {
		case err := <-given:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	why := errors.New("the generation is over")
	end(why)
	if err := <-gaveUp; !errors.Is(err, why) {
		t.Errorf("given up with %v, want %v", err, why)
	}
	p.up(giver(t, "good", good))
	if err := <-given; err != nil {
		t.Error(err)
	}
	if w := p.waiting(); w != "" {
		t.Errorf("it still waits: %s", w)
	}
}

func TestNodesWithoutATrajectoryAreNotAsked(t *testing.T) {
	f := view.Fact{ID: "fresh", Incarnation: 1, Addr: "127.0.0.1:1"}
	p, _ := asker(t, f)
	if got := p.candidates(time.Now()); len(got) != 0 {
		t.Errorf("%v would be asked", got)
	}
	f.Trajectory = [32]byte{1}
	p.up(f)
	p.restrict([32]byte{2})
	if got := p.candidates(time.Now()); len(got) != 0 {
		t.Errorf("%v would be asked", got)
	}
	p.restrict([32]byte{1})
	if got := p.candidates(time.Now()); len(got) != 1 {
		t.Errorf("%v would be asked, want one", got)
	}
	p.down(f)
	if got := p.facts(); len(got) != 0 {
		t.Errorf("%v is still known", got)
	}
}
