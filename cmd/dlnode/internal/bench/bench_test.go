package bench

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dlnode/dlnode/allreduce"
	"github.com/dlnode/dlnode/allreduce/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQuantilesAreTimesThatWereMeasured(t *testing.T) {
	var times []time.Duration
	for i := range 101 {
		times = append(times, time.Duration((i*37)%101))
	}
	if q := QuantilesOf(times); q != (Quantiles{Median: 50, P10: 10, P90: 90}) {
		t.Errorf("of 0 to 100: %+v", q)
	}
	if m := Mean(times); m != 50 {
		t.Errorf("the mean of 0 to 100: %v", m)
	}
	if m := Mean(nil); m != 0 {
		t.Errorf("the mean of none: %v", m)
	}
	if q := QuantilesOf([]time.Duration{7}); q != (Quantiles{7, 7, 7}) {
		t.Errorf("of one: %+v", q)
	}
	if q := QuantilesOf(nil); q != (Quantiles{}) {
		t.Errorf("of none: %+v", q)
	}
}

func TestBandwidthIsAsNCCLTestsDefineIt(t *testing.T) {
	// doc/PERFORMANCE.md of nccl-tests: algbw = S/t, busbw = algbw·2(n−1)/n.
	for _, c := range []struct {
		bytes    int64
		took     time.Duration
		world    int
		alg, bus float64
	}{
		{1e9, time.Second, 2, 1, 1},
		{1e9, time.Second, 4, 1, 1.5},
		{2e9, 4 * time.Second, 8, 0.5, 0.875},
		{4096, 0, 2, 0, 0},
	} {
		alg, bus := AlgorithmBandwidth(c.bytes, c.took), BusBandwidth(c.bytes, c.took, c.world)
		if math.Abs(alg-c.alg) > 1e-12 || math.Abs(bus-c.bus) > 1e-12 {
			t.Errorf("%d bytes in %v by %d: %v and %v GB/s, want %v and %v", c.bytes, c.took, c.world, alg, bus, c.alg, c.bus)
		}
	}
}

func TestSizesAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]int64{"4096": 4096, "4KiB": 4096, "64 MiB": 64 << 20, "1GiB": 1 << 30} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, n := range []int64{1, 1000, 4 << 10, 3 << 20, 1 << 30} {
		if got, err := ParseSize(Size(n)); err != nil || got != n {
			t.Errorf("%d is written %q, and read %d, %v", n, Size(n), got, err)
		}
	}
	for _, text := range []string{"", "4KB", "-4", "4.5MiB", "0", "MiB", "99999999999GiB", "4 4"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q is read as %d", text, n)
		}
	}
}

func TestFewWorkersAreMeasuredInAllPairsAndManyAlongTheRing(t *testing.T) {
	for n, want := range map[int]int{2: 2, 3: 6, 4: 12, 5: 10, 8: 16} {
		seen := map[[2]int]bool{}
		for _, p := range pairs(n) {
			seen[p] = true
		}
		if len(seen) != want || len(pairs(n)) != want {
			t.Errorf("%d workers: %v", n, pairs(n))
		}
	}
}

func TestATurnHasAsManyOpsAsFitItsTime(t *testing.T) {
	trial := func(d time.Duration) []measured { return []measured{{Times: []time.Duration{d, d, d}}} }
	s := &Sweep{Time: time.Second, Rounds: 3}
	for took, want := range map[time.Duration]int{time.Millisecond: 334, time.Minute: 2, time.Nanosecond: 1667} {
		if got := opsFor(s, trial(took)); got != want {
			t.Errorf("ops of %v: %d, want %d", took, got, want)
		}
	}
}

// workers starts some in this process, which end with the test, or when stopped.
func workers(t *testing.T, n int) (all []Worker, stop []context.CancelFunc) {
	t.Helper()
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- Work(ctx, WorkerConfig{Listener: l, Threads: 1, Program: "test", Log: slog.New(slog.DiscardHandler)})
		}()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		all, stop = append(all, Worker{Name: string(rune('a' + i)), Addr: l.Addr().String()}), append(stop, cancel)
	}
	return all, stop
}

func conduct(t *testing.T, all []Worker) *Conductor {
	t.Helper()
	c, err := Conduct(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestASweepMeasuresEachKindAtEachSizeInEachWorld(t *testing.T) {
	for _, secure := range []bool{false, true} {
		all, _ := workers(t, 3)
		s := Sweep{Worlds: []int{2, 3}, Sizes: []int64{4, 300000}, Kinds: Kinds, Time: time.Millisecond, Rounds: 2, TLS: secure, Rate: 1e9, Progress: func(string) {}}
		r, err := conduct(t, all).Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if want := len(s.Worlds) * len(s.Sizes) * len(Kinds); len(r.Rows) != want {
			t.Fatalf("%d rows, want %d", len(r.Rows), want)
		}
		for _, row := range r.Rows {
			if row.Ops < leastOps || row.MedianUS <= 0 || row.MeanUS <= 0 || row.P10US > row.MedianUS || row.MedianUS > row.P90US || row.ShareOfTCP <= 0 || row.ShareOfBus <= 0 {
				t.Errorf("%+v", row)
			}
			chunk := (row.Bytes + int64(row.World) - 1) / int64(row.World)
			if raw := 2 * int64(row.World-1) * chunk; (row.Kind == TCP || row.Kind == Unix) && row.SentBytes != raw {
				t.Errorf("%+v: a raw ring sends %d bytes", row, raw)
			}
		}
		var text strings.Builder
		if err := r.WriteTable(&text); err != nil || strings.Count(text.String(), "\n") != len(r.Rows)+1 {
			t.Errorf("%v\n%s", err, &text)
		}
	}
}

func TestAWorkerThatDiesEndsTheRunAndIsNamed(t *testing.T) {
	all, stop := workers(t, 3)
	s := Sweep{Worlds: []int{3}, Sizes: []int64{1 << 20}, Kinds: []Kind{Train, TCP}, Time: time.Minute, Rounds: 1, Progress: func(string) {
		time.AfterFunc(100*time.Millisecond, stop[1])
	}}
	_, err := conduct(t, all).Run(t.Context(), s)
	if w := (*workerError)(nil); !errors.As(err, &w) || w.worker != "b" {
		t.Errorf("b is gone, and it is said: %v", err)
	}
}

func TestAConductorThatGoesAwayIsInNobodysWay(t *testing.T) {
	all, _ := workers(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	s := Sweep{Worlds: []int{2}, Sizes: []int64{1 << 20}, Kinds: []Kind{Bare}, Time: time.Minute, Rounds: 1, Progress: func(string) {
		time.AfterFunc(100*time.Millisecond, cancel)
	}}
	if _, err := conduct(t, all).Run(ctx, s); rpc.KindOf(err) != rpc.Canceled {
		t.Errorf("an interrupted run says %v", err)
	}
	s.Time, s.Progress = time.Millisecond, func(string) {}
	if _, err := conduct(t, all).Run(t.Context(), s); err != nil {
		t.Error(err)
	}
}

func TestLinksAreMeasuredInBothDirections(t *testing.T) {
	all, _ := workers(t, 2)
	r, err := conduct(t, all).Links(t.Context(), 20*time.Millisecond, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Links) != 2 || r.Links[0].From != r.Links[1].To {
		t.Fatalf("%+v", r.Links)
	}
	for _, l := range r.Links {
		if l.TCP.Median <= 0 || l.GRPC.Median < l.TCP.Median || l.TCPBandwidth <= 0 || l.GRPCBandwidth <= 0 {
			t.Errorf("%+v", l)
		}
	}
	if err := r.WriteTable(io.Discard); err != nil {
		t.Error(err)
	}
}

func TestAWorkerRefusesWhatCannotBe(t *testing.T) {
	all, _ := workers(t, 2)
	c := conduct(t, all)
	for what, r := range map[string]request{
		"nothing":           {},
		"a measurement":     {Measure: &measureRequest{Kind: Bare, Elements: 1, Ops: 1}},
		"a rank too many":   {Open: &openRequest{World: 2, Rank: 2, Fence: make([]byte, 16)}},
		"no fence":          {Open: &openRequest{World: 2}},
		"a link for a week": {Link: &linkRequest{Addr: all[0].Addr, During: 7 * 24 * time.Hour}},
	} {
		if _, err := ask[struct{}](t.Context(), c, 0, r); rpc.KindOf(err) != rpc.Rejected {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTurnsSettleOnTheMedian(t *testing.T) {
	r := &StepReport{}
	for _, x := range []float64{3, 1, 2} {
		r.Add(StepRow{Nodes: 1, Samples: x})
		r.Add(StepRow{Nodes: 2, Samples: 10 * x})
	}
	r.Settle()
	if len(r.Rows) != 2 || r.Rows[0].Samples != 2 || r.Rows[1].Samples != 20 || r.Rows[1].Nodes != 2 {
		t.Errorf("%+v", r.Rows)
	}
}

func TestWhoIsLostIsTheCause(t *testing.T) {
	told := func(worker string, kind rpc.Kind, message string) error {
		return &workerError{worker, &rpc.Error{Op: "deliver", Kind: kind, Message: message}}
	}
	lostB := (&lostError{allreduce.ClosingNote{By: rankName(0), Blame: rankName(1), Reason: "stream reset"}}).Error()
	for _, c := range []struct {
		errs []error
		want string
	}{
		{[]error{told("a", rpc.Rejected, lostB), told("b", rpc.Unreachable, "connection refused"), nil}, "b"},
		{[]error{told("a", rpc.Rejected, lostB), told("b", rpc.Rejected, "context canceled"), told("c", rpc.Canceled, "")}, "b"},
		{[]error{told("a", rpc.Canceled, ""), nil, told("c", rpc.Rejected, "no memory")}, "c"},
	} {
		if err := (*workerError)(nil); !errors.As(cause(c.errs), &err) || err.worker != c.want {
			t.Errorf("of %v it is %v, want that of %s", c.errs, cause(c.errs), c.want)
		}
	}
	if err := cause(make([]error, 3)); err != nil {
		t.Error(err)
	}
}
