package pack

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Layout says how a pack is cut.
type Layout struct {
	Payload    int   // bytes of a record without its id, at least 1
	BlockBytes int   // about the bytes of a block; 0 is 64 KiB
	ShardBytes int64 // about the bytes of a shard; 0 is 1 GiB
}

// blockDefault is small, as a block is what is fetched and checked for the sake of
// one record. What lies side by side is fetched together where it pays (runBytes).
const blockDefault = 64 << 10

// index returns an Index of no records.
func (l Layout) index() (Index, error) {
	if l.Payload < 1 || l.Payload > maxRecord-idSize {
		return Index{}, fmt.Errorf("records of %d bytes, want 1 to %d", l.Payload, maxRecord-idSize)
	}
	block, shard := l.BlockBytes, l.ShardBytes
	if block == 0 {
		block = blockDefault
	}
	if shard == 0 {
		shard = 1 << 30
	}
	x := Index{Version: version, Record: idSize + l.Payload}
	x.PerBlock = max(1, block/x.Record)
	x.PerShard = x.PerBlock * int(max(1, shard/(int64(x.PerBlock)*int64(x.Record))))
	return x, nil
}

// Writer writes a pack from its first record to its last. Nothing refers to a
// pack before Finish has written its index.
type Writer struct {
	dir   string
	index Index
	columns
	block hash.Hash
	shard *os.File // the one being written; nil before the first record
	buf   *bufio.Writer
	head  [idSize]byte
}

// Create starts a pack in a directory that exists and holds none.
func Create(dir string, l Layout) (*Writer, error) {
	x, err := l.index()
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", dir, err)
	}
	return &Writer{dir: dir, index: x, block: sha256.New(), buf: bufio.NewWriterSize(nil, 256<<10)}, nil
}

// Add appends a record. Ids must be distinct. The payload is not kept.
func (w *Writer) Add(id uint64, payload []byte) error {
	x := &w.index
	if len(payload) != x.Record-idSize {
		panic(fmt.Sprintf("pack: a payload of %d bytes, want %d", len(payload), x.Record-idSize))
	}
	if x.Records%x.PerShard == 0 {
		if err := w.nextShard(); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint64(w.head[:], id)
	for _, b := range [][]byte{w.head[:], payload} {
		w.block.Write(b) // hash.Hash: never returns an error
		if _, err := w.buf.Write(b); err != nil {
			return err
		}
	}
	w.ids = append(w.ids, id)
	x.Records++
	if x.Records%x.PerBlock == 0 {
		w.endBlock()
	}
	return nil
}

func (w *Writer) endBlock() {
	w.index.Blocks = append(w.index.Blocks, Sum(w.block.Sum(nil)))
	w.block.Reset()
}

// nextShard leaves room for the header, which tells the number of records.
func (w *Writer) nextShard() error {
	if err := w.endShard(); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(w.dir, shardName(w.index.Records/w.index.PerShard)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	w.shard = f
	w.buf.Reset(f)
	_, err = w.buf.Write(make([]byte, headerSize))
	return err
}

// endShard writes the header of the shard and makes it durable.
func (w *Writer) endShard() error {
	if w.shard == nil {
		return nil
	}
	err := w.buf.Flush()
	if err == nil {
		_, err = w.shard.WriteAt(w.index.header((w.index.Records-1)/w.index.PerShard), 0)
	}
	if err == nil {
		err = w.shard.Sync()
	}
	err = errors.Join(err, w.shard.Close())
	w.shard = nil
	return err
}

// Finish writes the index, with meta in it, and returns the digest of the index.
// Meta is JSON.
func (w *Writer) Finish(meta []byte) (Sum, error) {
	x := &w.index
	if x.Records == 0 {
		return Sum{}, fmt.Errorf("pack %s: zero records, want at least 1", w.dir)
	}
	if x.Records%x.PerBlock != 0 {
		w.endBlock()
	}
	if err := errors.Join(w.endShard(), w.writeColumns()); err != nil {
		return Sum{}, fmt.Errorf("pack %s: %w", w.dir, err)
	}
	text, err := x.encode(meta)
	if err != nil {
		return Sum{}, fmt.Errorf("pack %s: %w", w.dir, err)
	}
	return sha256.Sum256(text), writeFile(filepath.Join(w.dir, IndexName), text)
}

// encode returns the text of the index, with meta in it.
func (x *Index) encode(meta []byte) ([]byte, error) {
	x.Meta = meta
	text, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	if len(text) >= maxIndexBytes {
		return nil, fmt.Errorf("the index has %d bytes, which is too much (want below %d: larger blocks)", len(text), maxIndexBytes)
	}
	return append(text, '\n'), nil
}

// Weigh gives the records weights, a finite number of at least 0 for each. It is
// called before Finish.
func (w *Writer) Weigh(weights []float32) { w.weights = weights }

// columns are what a pack holds of each record beside its shards.
type columns struct {
	ids     []uint64
	weights []float32 // nil: none
}

// put writes the columns into the index, and returns what the files of ids and
// weights hold; nil is no file.
func (c *columns) put(x *Index) (ids, weights []byte, err error) {
	x.FirstID = c.ids[0]
	runs := true
	for i, id := range c.ids {
		runs = runs && id == c.ids[0]+uint64(i)
	}
	if !runs {
		for _, id := range c.ids {
			ids = binary.LittleEndian.AppendUint64(ids, id)
		}
		sum := Sum(sha256.Sum256(ids))
		x.IDs, x.FirstID = &sum, 0
		slices.Sort(c.ids)
		for i := 1; i < len(c.ids); i++ {
			if c.ids[i] == c.ids[i-1] {
				return nil, nil, fmt.Errorf("two records have id %d, want distinct ids", c.ids[i])
			}
		}
	}
	if c.weights != nil {
		if len(c.weights) != len(c.ids) {
			return nil, nil, fmt.Errorf("%d weights for %d records, want equal numbers", len(c.weights), len(c.ids))
		}
		for _, v := range c.weights {
			weights = binary.LittleEndian.AppendUint32(weights, math.Float32bits(v))
		}
		sum := Sum(sha256.Sum256(weights))
		x.Weights = &sum
	}
	return ids, weights, nil
}

// writeColumns writes ids and weights, unless there is nothing to say of them.
func (w *Writer) writeColumns() error {
	ids, weights, err := w.put(&w.index)
	if err == nil && ids != nil {
		err = writeFile(filepath.Join(w.dir, IDsName), ids)
	}
	if err == nil && weights != nil {
		err = writeFile(filepath.Join(w.dir, WeightsName), weights)
	}
	return err
}

// Close lets go of the shard being written. What is there without an index is
// for the caller to remove. After Finish it does nothing.
func (w *Writer) Close() error {
	if w.shard == nil {
		return nil
	}
	err := w.shard.Close()
	w.shard = nil
	return err
}

// writeFile writes a file and makes it durable.
func writeFile(path string, text []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
