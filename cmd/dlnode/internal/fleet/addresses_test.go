package fleet

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
)

// ports stands in for the system's: it hands out numbers, and knows some taken.
type ports struct {
	next  int
	taken map[string]bool
}

func (p *ports) free(addr string) (string, error) {
	if addr == anyPort {
		p.next++
		return fmt.Sprintf("127.0.0.1:%d", p.next), nil
	}
	if p.taken[addr] {
		return "", errors.New("address already in use")
	}
	return addr, nil
}

func TestEveryNodeKnowsAllOthersBeforeAnyRuns(t *testing.T) {
	p := &ports{taken: map[string]bool{}}
	a := &addresses{of: map[string]string{}, free: p.free}
	for i := range 3 {
		if err := a.assign(NodeID(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	bind, join := a.start("node-2")
	if bind != "127.0.0.1:2" || !slices.Equal(join, []string{"127.0.0.1:1", "127.0.0.1:3"}) {
		t.Errorf("node-2 listens on %s and joins %v", bind, join)
	}
	again, _ := a.start("node-2")
	if again != bind {
		t.Errorf("started again on %s, was %s", again, bind)
	}
	p.taken[bind] = true
	moved, _ := a.start("node-2")
	if _, join := a.start("node-1"); moved != "127.0.0.1:4" || !slices.Contains(join, moved) {
		t.Errorf("node-2 moved to %s, node-1 joins %v", moved, join)
	}
}

func TestAFreePortIsFreeForBothProtocols(t *testing.T) {
	addr, err := freePort(anyPort)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, err := freePort(addr); err == nil {
		t.Errorf("%s is taken, but %s is said to be free", addr, got)
	}
}
