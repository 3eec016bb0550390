package pack

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
)

// Layout says how a pack is cut.
type Layout struct {
	Payload    int   // bytes of a record without its id, at least 1
	BlockBytes int   // about the bytes of a block; 0 is 1 MiB
	ShardBytes int64 // about the bytes of a shard; 0 is 1 GiB
}

// index returns an Index of no records.
func (l Layout) index() (Index, error) {
	if l.Payload < 1 || l.Payload > maxRecord-idSize {
		return Index{}, fmt.Errorf("records of %d bytes, want 1 to %d", l.Payload, maxRecord-idSize)
	}
	block, shard := l.BlockBytes, l.ShardBytes
	if block == 0 {
		block = 1 << 20
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
	ids   []uint64
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
	if err := errors.Join(w.endShard(), w.writeIDs()); err != nil {
		return Sum{}, fmt.Errorf("pack %s: %w", w.dir, err)
	}
	x.Meta = meta
	text, err := json.Marshal(x)
	if err != nil {
		return Sum{}, fmt.Errorf("pack %s: %w", w.dir, err)
	}
	text = append(text, '\n')
	return sha256.Sum256(text), writeFile(filepath.Join(w.dir, IndexName), text)
}

// writeIDs writes the file of ids, unless they run on by one.
func (w *Writer) writeIDs() error {
	w.index.FirstID = w.ids[0]
	runs := true
	for i, id := range w.ids {
		runs = runs && id == w.ids[0]+uint64(i)
	}
	if runs {
		return nil
	}
	text := make([]byte, 0, idSize*len(w.ids))
	for _, id := range w.ids {
		text = binary.LittleEndian.AppendUint64(text, id)
	}
	sum := Sum(sha256.Sum256(text))
	w.index.IDs, w.index.FirstID = &sum, 0
	slices.Sort(w.ids)
	for i := 1; i < len(w.ids); i++ {
		if w.ids[i] == w.ids[i-1] {
			return fmt.Errorf("two records have id %d, want distinct ids", w.ids[i])
		}
	}
	return writeFile(filepath.Join(w.dir, IDsName), text)
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
