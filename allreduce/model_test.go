package allreduce

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTheScaleOfAModelIsRoughAndMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.Int64Range(1, 1<<32-1).Draw(t, "d")
		got := unscaled(scaled(time.Duration(d)))
		if got > uint64(d) || float64(got)*1.15 < float64(d)-1 {
			t.Fatalf("%d is put down as %d", d, got)
		}
	})
	for b := byte(8); b < 255; b++ {
		if unscaled(b+1) < unscaled(b) {
			t.Fatalf("%d counts more than %d", b, b+1)
		}
	}
	if scaled(0) != 0 || scaled(-1) != 0 || scaled(time.Hour) != 255 {
		t.Error("the ends of the scale")
	}
}

func TestTheSlowestOfTwoModelsIsSlowInAll(t *testing.T) {
	us := time.Microsecond
	a := NewModel(Link{30 * us, 5 * us, 400 * us}, Link{})
	b := NewModel(Link{20 * us, 9 * us, 300 * us}, Link{time.Millisecond, us, us})
	if got, want := slowest(a, b), NewModel(Link{30 * us, 9 * us, 400 * us}, Link{time.Millisecond, us, us}); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}

// The table of choices: what a link costs, how many ranks, how many elements.
func TestChoices(t *testing.T) {
	us := time.Microsecond
	unix := Link{25 * us, 6 * us, 300 * us}                 // sockets of one machine
	lan := Link{60 * us, 8 * us, 900 * us}                  // 10 Gbit/s
	wan := Link{15 * time.Millisecond, 8 * us, 80_000 * us} // 100 Mbit/s
	zones := []int{0, 0, 0, 0, 1, 1, 1, 1}
	for _, c := range []struct {
		name     string
		near     Link
		far      Link
		world    int
		zones    []int
		elements int
		want     Algorithm
	}{
		{"headers alone", unix, Link{}, 2, nil, 0, Exchange},
		{"4 KiB", unix, Link{}, 2, nil, 1 << 10, Exchange},
		{"64 KiB", unix, Link{}, 2, nil, 16 << 10, Exchange},
		{"1 MiB", unix, Link{}, 2, nil, 256 << 10, Direct},
		{"256 MiB", unix, Link{}, 2, nil, 64 << 20, Direct},
		{"4 KiB of 8", unix, Link{}, 8, nil, 1 << 10, Exchange},
		{"1 MiB of 8", unix, Link{}, 8, nil, 256 << 10, Direct},
		{"4 KiB, network", lan, Link{}, 4, nil, 1 << 10, Exchange},
		{"64 MiB, network", lan, Link{}, 4, nil, 16 << 20, Direct},
		{"nothing is known", Link{}, Link{}, 4, nil, 1 << 10, Exchange},
		{"a large world, little", lan, Link{}, 40, nil, 1 << 10, Tree},
		{"a large world, much", lan, Link{}, 40, nil, 16 << 20, Ring},
		{"zones, little", unix, wan, 8, zones, 1 << 8, Exchange},
		{"zones, much", unix, wan, 8, zones, 16 << 20, TwoLevel},
		{"zones that are as near", unix, unix, 8, zones, 16 << 20, Direct},
		{"a very slow network, very much", Link{Beta: 4 * time.Second}, Link{}, 16, nil, 38 << 20, Direct},
	} {
		if got := Choose(NewModel(c.near, c.far), c.elements, c.world, c.zones, DefaultSegmentBytes); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
			for _, a := range Algorithms(c.world, c.zones) {
				t.Logf("%v: %v", a, time.Duration(cost(a, NewModel(c.near, c.far), c.elements, c.world, c.zones, DefaultSegmentBytes)))
			}
		}
	}
}

func TestAChoiceIsAlwaysOneThatTheWorldCanDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 64).Draw(t, "world")
		var zones []int
		if rapid.Bool().Draw(t, "zoned") {
			zones = rapid.SliceOfN(rapid.IntRange(0, 3), size, size).Draw(t, "zones")
		}
		m := Model(rapid.Uint64().Draw(t, "model"))
		a := Choose(m, rapid.IntRange(0, 1<<27).Draw(t, "elements"), size, zones, 8*rapid.IntRange(1, 1<<17).Draw(t, "segment"))
		if !slices.Contains(Algorithms(size, zones), a) {
			t.Fatalf("%v", a)
		}
	})
}

// What an op is to a rank can be counted in its schedule: bytes and headers of the busiest one are those of Work.
func TestWorkIsThatOfTheSchedules(t *testing.T) {
	const elements, segment = 3 * 5 * 7 * 16 * 64, 1 << 20
	for _, world := range []int{2, 3, 4, 7, 8, 16, 40, 64} {
		zones := make([]int, world)
		for r := range zones {
			zones[r] = r / 4
		}
		for _, a := range Algorithms(world, zones) {
			var bytes, headers uint64
			for rank := range world {
				s := NewSchedule(a, rank, world, zones)
				in, out := taken(s, elements, world)
				bytes = max(bytes, in)
				headers = max(headers, out)
			}
			near, far := WorkOf(a, elements, world, zones, segment)
			work := near.Bytes + far.Bytes
			if !severalZones(zones) {
				work = near.Bytes
			}
			most := bytes
			switch a {
			case Tree: // what the root gives counts as well, as if it waited for what it takes in
				most = bytes * 3 / 2
			case TwoLevel: // a head's part counts twice, since zones differ in size
				most = bytes * 8 / 5
			}
			if work+elements/8 < bytes || work > most+elements/8 {
				t.Errorf("%v of %d: %d bytes, the busiest rank takes in %d", a, world, work, bytes)
			}
			if near.Frames+far.Frames < headers {
				t.Errorf("%v of %d: %d frames, %d of headers alone", a, world, near.Frames+far.Frames, headers)
			}
		}
	}
}

// taken counts the bytes of elements that a rank takes in, and the headers that it gives.
func taken(s Schedule, elements, world int) (bytes, headers uint64) {
	if s.Algorithm == Exchange {
		bytes = uint64(8 * elements * (world - 1))
	} else {
		for _, p := range s.Chunks {
			bytes += uint64(8 * elements / len(s.Chunks) * len(p.Children))
			if p.Parent >= 0 {
				bytes += uint64(4 * elements / len(s.Chunks))
			}
		}
	}
	for _, p := range s.Heads {
		headers += uint64(len(p.Children))
	}
	return bytes, headers
}
