package rng

import "testing"

// Known answers of Random123's kat_vectors for philox4x32-10.
func TestPhiloxMatchesThePublishedVectors(t *testing.T) {
	const ff = 0xffffffff
	for _, v := range []struct {
		ctr  [4]uint32
		key  [2]uint32
		want [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ff, ff, ff, ff}, [2]uint32{ff, ff}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{
			[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
			[2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		},
	} {
		if got := philox(v.key[0], v.key[1], v.ctr); got != v.want {
			t.Errorf("philox(%08x, %08x) = %08x, want %08x", v.key, v.ctr, got, v.want)
		}
	}
}

func TestEveryCoordinateSeparatesStreams(t *testing.T) {
	seen := map[Stream]string{}
	add := func(name string, s Stream) {
		if other, dup := seen[s]; dup {
			t.Errorf("%s and %s are one stream", name, other)
		}
		seen[s] = name
	}
	add("base", New(1, Dropout, 1, 1, 1))
	add("seed", New(2, Dropout, 1, 1, 1))
	add("seed high", New(1+1<<32, Dropout, 1, 1, 1))
	add("purpose", New(1, Augment, 1, 1, 1))
	add("a", New(1, Dropout, 2, 1, 1))
	add("a high", New(1, Dropout, 1+1<<32, 1, 1))
	add("b", New(1, Dropout, 1, 2, 1))
	add("b high", New(1, Dropout, 1, 1+1<<32, 1))
	add("c", New(1, Dropout, 1, 1, 2))
	add("c high", New(1, Dropout, 1, 1, 1+1<<32))
}

func TestWordsOfABlockAreTheStream(t *testing.T) {
	s := New(7, Shuffle, 3, 0, 0)
	b := s.Block(5)
	for j := range b {
		if got := s.Uint32(20 + uint64(j)); got != b[j] {
			t.Errorf("word %d = %08x, block says %08x", 20+j, got, b[j])
		}
	}
	if got, want := s.Uint64(11), uint64(b[2])|uint64(b[3])<<32; got != want {
		t.Errorf("Uint64(11) = %016x, want %016x", got, want)
	}
}

func TestUnitsStayBelowOne(t *testing.T) {
	if u := Unit32(0xffffffff); u >= 1 {
		t.Errorf("Unit32 reaches %v", u)
	}
	if u := Unit64(^uint64(0)); u >= 1 {
		t.Errorf("Unit64 reaches %v", u)
	}
}
