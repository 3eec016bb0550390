package pages

import (
	"testing"
	"unsafe"
)

func TestVectorsAreZerosOfTheirLength(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 1<<20 - 1, 3<<20 + 5} {
		x, y := Float32s(n), Float64s(n)
		if len(x) != n || len(y) != n {
			t.Fatalf("%d and %d elements, want %d", len(x), len(y), n)
		}
		for i := range x {
			if x[i] != 0 || y[i] != 0 {
				t.Fatalf("element %d of %d is %v and %v, want 0", i, n, x[i], y[i])
			}
			x[i], y[i] = 1, 1
		}
	}
}

func TestOnlyWholeLargePagesAreAdvised(t *testing.T) {
	const room = 8 * large
	b := make([]byte, room+large)
	start := unsafe.Pointer(unsafe.SliceData(b))
	start = unsafe.Add(start, -uintptr(start)&(large-1))
	for _, c := range []struct{ from, n, wantFrom, wantN uintptr }{
		{0, room, 0, room},
		{0, room - 1, 0, room - large},
		{1, room - 1, large, room - large},
		{4096, 3 * large, large, 2 * large},
		{0, 2 * large, 0, 2 * large},
		{0, 2*large - 1, 0, 0},
		{1, 2*large + 5, 0, 0},
		{0, 0, 0, 0},
	} {
		got := whole(unsafe.Add(start, c.from), c.n)
		if uintptr(len(got)) != c.wantN {
			t.Errorf("%d bytes from %d: %d are advised, want %d", c.n, c.from, len(got), c.wantN)
			continue
		}
		if len(got) > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(got)))-uintptr(start) != c.wantFrom {
			t.Errorf("%d bytes from %d: advised from %d, want %d", c.n, c.from, uintptr(unsafe.Pointer(unsafe.SliceData(got)))-uintptr(start), c.wantFrom)
		}
	}
}
