package kernel

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// The checksum is the one of the standard library, whatever the length and wherever
// in memory it begins.
func TestCRC32CIsThatOfTheStandardLibrary(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 3*foldPiece)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	each(t, func(t *testing.T) {
		compare := func(p []byte) {
			t.Helper()
			before := random.Uint32() & -uint32(len(p)&1) // 0 half of the time
			if got, want := CRC32C(before, p), crc32.Update(before, castagnoli, p); got != want {
				t.Fatalf("%d bytes after %08x: %08x, want %08x", len(p), before, got, want)
			}
		}
		for n := range 3 * foldLeast {
			compare(b[n%7 : n%7+n])
		}
		for range 200 {
			lo := random.IntN(len(b))
			compare(b[lo : lo+random.IntN(len(b)-lo+1)])
		}
		compare(b)
		clear(b)
		compare(b)
	})
}

func BenchmarkCRC32C(b *testing.B) {
	p := make([]byte, 1<<17)
	b.Run("own", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			CRC32C(0, p)
		}
	})
	b.Run("library", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			crc32.Checksum(p, castagnoli)
		}
	})
}
