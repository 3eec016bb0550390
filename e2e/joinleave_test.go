//go:build unix

package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/dlnode/dlnode/internal/lives"
)

// Issue: nodes come and go in mid-run; SIGTERM costs no time-out.
func TestComingAndGoingChangesNothing(t *testing.T) {
	j := theJob(t)
	want := j.oracle(t)
	f := newFleet(t, j)
	f.launch(2, options{})
	f.reach(want.step / 10)
	f.start("node-3", options{}).event("copied")
	f.reach(want.step / 3)
	f.start("node-4", options{})
	f.reach(want.step / 2)
	f.leave("node-2")
	f.reach(want.step * 6 / 10)
	f.leave("node-1") // the coordinator
	f.finish(want)
	all := f.audit(want)
	for kind, times := range lives.Pauses(all) {
		t.Logf("nobody completed a step, because somebody %s: %s", kind, lives.Figures(times))
	}
	if lost := lives.Pauses(all)["lost"]; len(lost) > 0 {
		t.Errorf("nobody was killed, but %d views tell of a loss", len(lost))
	}
}

// leave sends SIGTERM and checks that the node goes soon, in order.
func (f *fleet) leave(id string) {
	f.t.Helper()
	p := f.node(id)
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		f.t.Errorf("%s left with exit code %d", id, code)
	}
	took := time.Since(began)
	f.t.Logf("%s left %.0f ms after SIGTERM", id, lives.Millis(took))
	if limit := 3 * time.Second; took > limit {
		f.t.Errorf("leaving took %s, more than %s: something waited for a time-out", took, limit)
	}
}
