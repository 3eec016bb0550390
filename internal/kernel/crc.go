package kernel

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// foldLen is how many bytes are folded at a time, and foldLeast how many it takes for that
// to be quicker than one instruction for each eight.
const (
	foldLen   = 256
	foldLeast = 4 * foldLen
	foldPiece = 1 << 16 // of one call in assembly, see piece
)

// CRC32C returns the CRC-32C of what had crc, 0 for nothing, followed by p:
// crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), p).
func CRC32C(crc uint32, p []byte) uint32 {
	if len(p) < foldLeast || active.foldCRC == nil {
		return crc32.Update(crc, castagnoli, p)
	}
	// A CRC that goes on from some bits is the same as one that begins with zeros, of a
	// message whose first bits were inverted where those are set; and the CRC of whole
	// blocks is that of what they fold to.
	var state [foldLen]byte
	copy(state[:], p)
	binary.LittleEndian.PutUint32(state[:], binary.LittleEndian.Uint32(state[:])^^crc)
	whole := len(p) &^ (foldLen - 1)
	for part := range slices.Chunk(p[foldLen:whole], foldPiece) {
		active.foldCRC(&state, part)
	}
	crc = crc32.Update(^uint32(0), castagnoli, state[:])
	return crc32.Update(crc, castagnoli, p[whole:])
}
