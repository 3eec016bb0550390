package rpc

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce/rpc/internal/nodepb"
)

func TestAPartOfTheDataIsCopied(t *testing.T) {
	s := serve(t, listen(t), Handlers{Part: func(_ context.Context, r PartRequest) ([]byte, error) {
		if r.Name == "missing" {
			return nil, fs.ErrNotExist
		}
		return bytes.Repeat([]byte(r.Name), r.Length+int(r.Offset)), nil
	}})
	c := newClient(t, ClientConfig{})
	for _, n := range []int{1, 5, blobChunk, 3*blobChunk + 1} {
		got, err := c.Part(t.Context(), s.Addr(), PartRequest{"x", 2, n}, int64(n+2), time.Second)
		if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("x"), n+2)) {
			t.Errorf("%d bytes: %d came, %v", n, len(got), err)
		}
	}
	if _, err := c.Part(t.Context(), s.Addr(), PartRequest{Name: "missing"}, 9, time.Second); !errors.Is(err, fs.ErrNotExist) || KindOf(err) != 0 {
		t.Errorf("what isn't there: %v", err)
	}
	for name, r := range map[string]PartRequest{
		"more than is wanted": {"x", 0, 10},
		"more than is given":  {"x", 0, MaxPart + 1},
		"a long name":         {string(bytes.Repeat([]byte("x"), maxPartName+1)), 0, 1},
		"before the start":    {"x", -1, 1},
	} {
		if _, err := c.Part(t.Context(), s.Addr(), r, 9, time.Second); KindOf(err) != Rejected {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

func TestAPartThatDoesNotComeIsASilence(t *testing.T) {
	s := serve(t, listen(t), Handlers{Part: func(ctx context.Context, _ PartRequest) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	c := newClient(t, ClientConfig{})
	if _, err := c.Part(t.Context(), s.Addr(), PartRequest{"x", 0, 1}, 9, 50*time.Millisecond); KindOf(err) != Timeout {
		t.Errorf("got %v, want a timeout", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Part(ctx, s.Addr(), PartRequest{"x", 0, 1}, 9, time.Minute); KindOf(err) != Canceled {
		t.Errorf("got %v, want canceled", err)
	}
}

func TestACallForDataHasADeadline(t *testing.T) {
	if _, err := partRequest(t.Context(), &nodepb.PartRequest{Name: "x", Length: 1}); err == nil {
		t.Error("a call without a deadline is answered")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*partDeadline)
	defer cancel()
	if _, err := partRequest(ctx, &nodepb.PartRequest{Name: "x", Length: 1}); err == nil {
		t.Error("a call with a deadline far ahead is answered")
	}
}
