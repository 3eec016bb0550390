// Package pack is the stored form of a data set: records of one width in a few
// large files, readable in place, each byte covered by a checksum.
//
//	DIR/index.json   what there is: widths, counts, the SHA-256 of every block
//	DIR/ids          the ids of the records, 8 bytes each; only where they do not run on by one
//	DIR/weights      the weights of the records, a float32 each; only where they have some
//	DIR/00000.shard  a header, then records back to back
//	DIR/00001.shard  …
//
// A record is its id (8 bytes) and a payload whose meaning is its writer's; the
// index carries a text of the writer's that says it. Records lie in blocks of
// PerBlock, blocks in shards of PerShard records; the last of each may be short.
// All numbers are little-endian. A shard begins with 64 bytes:
//
//	offset  0  "dlnode pack 1\n", two zero bytes
//	offset 16  number of the shard, uint32
//	offset 20  bytes of a record, uint32
//	offset 24  number of its first record, uint64
//	offset 32  number of its records, uint64
//	offset 40  zeros
//
// A reader holds the index in memory, and nothing of the records: it reads them
// where they lie. A block is checked when one of its records is read first, and
// Verify checks them all. The index itself is named by its SHA-256 ([Sum]), which
// whoever refers to a pack writes down.
//
// The files may lie elsewhere, behind a [Source] such as [HTTP]. Then a reader
// keeps what it has read: all of it, in a directory of the same layout, or no more
// than so many bytes, in one file of places for blocks. Either way a block counts
// as here when its checksum says so. A Reader is a Source itself, of what it has
// here, and so is a [Virtual] pack, which nobody has written.
package pack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// The names of a pack's files, but for the shards'.
const (
	IndexName   = "index.json"
	IDsName     = "ids"
	WeightsName = "weights"
)

const (
	version    = 1
	headerSize = 64
	idSize     = 8
	weightSize = 4

	// What an index may say, so that no number in it makes a reader ask for
	// memory that no file backs.
	maxIndexBytes = 256 << 20
	maxRecord     = 1 << 30
	maxBlock      = 1 << 30
	maxRecords    = 1 << 40
)

var magic = [16]byte{'d', 'l', 'n', 'o', 'd', 'e', ' ', 'p', 'a', 'c', 'k', ' ', '1', '\n'}

// Sum is a SHA-256. Its text is lower-case hex.
type Sum [32]byte

func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText returns the hex digits.
func (s Sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads 64 hex digits.
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != 2*len(s) {
		return fmt.Errorf("a SHA-256 has %d digits, want %d", len(text), 2*len(s))
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// Index describes a pack.
type Index struct {
	Version  int             `json:"version"`           // of the format: 1
	Record   int             `json:"record"`            // bytes of a record, its id included
	Records  int             `json:"records"`           // at least 1
	PerBlock int             `json:"records_per_block"` // at least 1
	PerShard int             `json:"records_per_shard"` // a multiple of PerBlock
	FirstID  uint64          `json:"first_id"`          // the id of record 0; record i has FirstID+i
	IDs      *Sum            `json:"ids,omitempty"`     // of the file of ids; then FirstID says nothing
	Weights  *Sum            `json:"weights,omitempty"` // of the file of weights; nil where all records count the same
	Blocks   []Sum           `json:"blocks"`            // of each block's records
	Meta     json.RawMessage `json:"meta"`              // what the writer wants to be known
}

// decodeIndex reads an index and checks that its numbers fit together.
func decodeIndex(text []byte) (*Index, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	x := &Index{}
	if err := dec.Decode(x); err != nil {
		return nil, fmt.Errorf("offset %d: %w", dec.InputOffset(), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("offset %d: trailing bytes after the index", dec.InputOffset())
	}
	return x, x.validate()
}

func (x *Index) validate() error {
	check := func(ok bool, field string, value int, want string) error {
		if ok {
			return nil
		}
		return fmt.Errorf("%s is %d, want %s", field, value, want)
	}
	blocks := 0
	if x.PerBlock > 0 && x.Records > 0 {
		blocks = (x.Records-1)/x.PerBlock + 1
	}
	return errors.Join(
		check(x.Version == version, "version", x.Version, "1"),
		check(x.Record > idSize && x.Record <= maxRecord, "record", x.Record, fmt.Sprintf("%d to %d bytes", idSize+1, maxRecord)),
		check(x.Records >= 1 && x.Records <= maxRecords, "records", x.Records, fmt.Sprintf("1 to %d", maxRecords)),
		check(x.PerBlock >= 1 && x.PerBlock <= maxBlock/max(1, x.Record), "records_per_block", x.PerBlock,
			fmt.Sprintf("1 or more, of %d bytes at most in all", maxBlock)),
		check(x.PerShard >= 1 && x.PerShard <= maxRecords && x.PerShard%max(1, x.PerBlock) == 0, "records_per_shard", x.PerShard,
			"a multiple of records_per_block"),
		check(len(x.Blocks) == blocks, "number of blocks", len(x.Blocks), fmt.Sprintf("%d for %d records", blocks, x.Records)),
	)
}

// shards returns how many shards there are.
func (x *Index) shards() int { return (x.Records-1)/x.PerShard + 1 }

// shardRecords returns how many records lie in shard s.
func (x *Index) shardRecords(s int) int { return min(x.PerShard, x.Records-s*x.PerShard) }

// shardBytes returns the length of the file of shard s.
func (x *Index) shardBytes(s int) int64 {
	return headerSize + int64(x.shardRecords(s))*int64(x.Record)
}

// blockRecords returns how many records lie in block b.
func (x *Index) blockRecords(b int) int { return min(x.PerBlock, x.Records-b*x.PerBlock) }

// place returns where record i lies.
func (x *Index) place(i int) (shard int, offset int64) {
	return i / x.PerShard, headerSize + int64(i%x.PerShard)*int64(x.Record)
}

// header returns the first bytes of shard s.
func (x *Index) header(s int) []byte {
	b := append(make([]byte, 0, headerSize), magic[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(s))
	b = binary.LittleEndian.AppendUint32(b, uint32(x.Record))
	b = binary.LittleEndian.AppendUint64(b, uint64(s)*uint64(x.PerShard))
	b = binary.LittleEndian.AppendUint64(b, uint64(x.shardRecords(s)))
	return b[:headerSize]
}

// checkHeader compares the first bytes of shard s with what they should be.
func (x *Index) checkHeader(s int, got []byte) error {
	want := x.header(s)
	for i, b := range got {
		if b != want[i] {
			return fmt.Errorf("offset %d: the header of the shard has 0x%02x there, want 0x%02x", i, b, want[i])
		}
	}
	return nil
}

// blockBytes returns the length of block b.
func (x *Index) blockBytes(b int) int { return x.blockRecords(b) * x.Record }

// blockEnd returns the first block after b that is not in b's shard.
func (x *Index) blockEnd(b int) int {
	perShard := x.PerShard / x.PerBlock
	return min(len(x.Blocks), (b/perShard+1)*perShard)
}

// run returns the blocks that begin at a place in a shard and lie within so many
// bytes; none begin where none does.
func (x *Index) run(name string, off int64, length int) (lo, hi int, err error) {
	var s int
	if _, err := fmt.Sscanf(name, "%d.shard", &s); err != nil || s < 0 || s >= x.shards() || name != shardName(s) {
		return 0, 0, fmt.Errorf("%s: no file of this pack: %w", name, fs.ErrNotExist)
	}
	size := int64(x.PerBlock) * int64(x.Record)
	if off < headerSize || (off-headerSize)%size != 0 || off >= x.shardBytes(s) {
		return 0, 0, fmt.Errorf("%s: offset %d: no block begins there", name, off)
	}
	lo = s*(x.PerShard/x.PerBlock) + int((off-headerSize)/size)
	for hi = lo; hi < x.blockEnd(lo) && x.blockBytes(hi) <= length; hi++ {
		length -= x.blockBytes(hi)
	}
	return lo, hi, nil
}

func shardName(s int) string { return fmt.Sprintf("%05d.shard", s) }
