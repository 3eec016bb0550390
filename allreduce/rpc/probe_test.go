package rpc

import (
	"testing"
	"time"

	"github.com/dlnode/dlnode/allreduce"
)

func TestWhatALinkCosts(t *testing.T) {
	t.Parallel()
	micros := func(n int) int64 { return int64(n) * int64(time.Microsecond) }
	for _, c := range []struct {
		name              string
		trip, burst, bulk int // µs
		want              allreduce.Link
	}{
		{"idle", 20, 34, 120, allreduce.Link{Alpha: 10 * time.Microsecond, Frame: 2 * time.Microsecond, Beta: 400 * time.Microsecond}},
		{"the bursts were held up", 20, 2000, 120, allreduce.Link{Alpha: 10 * time.Microsecond, Frame: 10 * time.Microsecond, Beta: 400 * time.Microsecond}},
		{"the pings were held up", 200, 34, 120, allreduce.Link{Alpha: 100 * time.Microsecond}},
	} {
		b := prober{trip: micros(c.trip), burst: micros(c.burst), bulk: micros(c.bulk)}
		if got := b.cost(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestTheLeastOfSeveralProbesCounts(t *testing.T) {
	t.Parallel()
	var least64 int64
	for _, took := range []int64{30, 20, 40} {
		least(&least64, took)
	}
	if least64 != 20 {
		t.Errorf("least of 30, 20 and 40 is %d", least64)
	}
}
