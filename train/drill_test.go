package train

import (
	"slices"
	"testing"

	"github.com/dlnode/dlnode/allreduce"
)

// drillRound plays an op of two ranks, frame by frame, in one goroutine.
func drillRound(t *testing.T, drills [2]*Drill, sums [2]*allreduce.Reducer, ops [2]allreduce.Op) (headers [][]byte, total uint64) {
	t.Helper()
	var wire [2][]allreduce.Frame // to each rank
	emit := func(to int) allreduce.Emit {
		return func(_ []int, f allreduce.Frame) {
			f.Payload = slices.Clone(f.Payload)
			wire[to] = append(wire[to], f)
		}
	}
	for rank := range sums {
		if _, err := sums[rank].Start(ops[rank], emit(1-rank)); err != nil {
			t.Fatal(err)
		}
		if ops[rank].Open {
			drills[rank].Give(func(lo, hi int) { sums[rank].Ready(lo, hi, emit(1-rank)) }, func(h []byte) { sums[rank].Head(h, emit(1-rank)) })
		}
	}
	for len(wire[0])+len(wire[1]) > 0 {
		for rank := range sums {
			in := wire[rank]
			wire[rank] = nil
			for _, f := range in {
				if err := sums[rank].Receive(1-rank, f, emit(1-rank)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	headers, ok := sums[0].Done()
	if !ok {
		t.Fatal("the op is not done")
	}
	return headers, sums[0].Total()
}

func TestADrillGivesAllRanksTheMeanAndJudgesIt(t *testing.T) {
	const elements = drillTensor + 1000
	var drills [2]*Drill
	var sums [2]*allreduce.Reducer
	for rank := range drills {
		drills[rank] = NewDrill(rank, 2, elements, 2)
		defer drills[rank].Close()
		sums[rank] = allreduce.New(allreduce.Config{Rank: rank, World: 2})
	}
	want := make([]float32, elements)
	for i := range want {
		want[i] = (drills[0].grad[i] + drills[1].grad[i]) / 2 // exact: both have 24 bits behind the point
	}
	for seq := range uint64(4) {
		var ops [2]allreduce.Op
		bare := seq%2 == 1
		for rank, d := range drills {
			if bare {
				d.Round()
				ops[rank] = d.Bare(seq + 1)
			} else if ops[rank] = d.Op(seq + 1); !ops[rank].Open {
				t.Fatal("a gradient of several buckets is given whole")
			}
		}
		headers, total := drillRound(t, drills, sums, ops)
		for rank, d := range drills {
			if !slices.Equal(d.Mean(), want) {
				t.Fatalf("op %d: rank %d has another mean", seq+1, rank)
			}
			if err := d.Judge(headers, total); (err != nil) != bare {
				t.Fatalf("op %d: %v", seq+1, err)
			}
			if !bare && d.Judge(headers, total+1) == nil {
				t.Fatal("a total that is not the ranks' sums is believed")
			}
		}
	}
}
