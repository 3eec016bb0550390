package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
)

// slots is the shelf that holds a bounded number of blocks, in one file of equal
// places. A place is the number of its block, plus one, in 8 bytes, and the block.
// What a process that was killed has left is as good as its checksum.
//
// Training reads each sample once an epoch, in an order that is new each time, so
// the block that was used last is the one that is needed again the latest. Once
// the file is full, most blocks therefore stay for good: of a share s of the pack
// that fits, s of all reads are hits, where throwing out the least recently used
// would leave s²/2. An eighth of the places takes all others, in turn, for who
// reads the records of a block one after another.
type slots struct {
	index *Index
	file  *os.File
	size  int64           // bytes of a place
	where []atomic.Uint64 // by block: its place plus one, whether it was checked, and the place's turn; 0: not here

	mu    sync.Mutex // of what follows, and of writing
	owner []int      // by place, the block in it; vacant if none
	turn  []uint32   // by place, how many blocks it has had
	free  []int      // vacant places, the first one last
	next  int        // of those that change hands, the one that goes next
	put   []byte     // a place in the making
}

const (
	vacant   = -1
	slotHead = 8
	verified = 1 << 32 // in where, above the place
	turnBit  = 33      // in where, the turn's lowest
	maxSlots = 1<<31 - 1
)

// openSlots opens or makes the file for as many blocks as fit into limit bytes.
func openSlots(path string, x *Index, limit int64) (*slots, error) {
	s := &slots{index: x, size: slotHead + int64(x.blockBytes(0)), where: make([]atomic.Uint64, len(x.Blocks))}
	n := int(min(limit/s.size, int64(len(x.Blocks)), maxSlots))
	if n < 1 {
		return nil, fmt.Errorf("%s: %d bytes hold no block, want at least %d", path, limit, s.size)
	}
	s.owner, s.turn = make([]int, n), make([]uint32, n)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	s.file = f
	atRandom(f)
	if err = f.Truncate(int64(n) * s.size); err == nil {
		err = s.survey()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

// survey finds what an earlier process has left.
func (s *slots) survey() error {
	head := make([]byte, slotHead)
	for place := len(s.owner) - 1; place >= 0; place-- {
		if _, err := s.file.ReadAt(head, int64(place)*s.size); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		b := binary.LittleEndian.Uint64(head)
		if s.owner[place] = vacant; b >= 1 && b <= uint64(len(s.where)) && s.where[b-1].Load() == 0 {
			s.owner[place] = int(b - 1)
			s.where[b-1].Store(s.entry(place))
		} else {
			s.free = append(s.free, place)
		}
	}
	s.next = s.resident()
	return nil
}

// entry is where's value for what is in a place now, unchecked.
func (s *slots) entry(place int) uint64 {
	return uint64(place+1) | uint64(s.turn[place])<<turnBit
}

// resident is how many of the places keep what they have.
func (s *slots) resident() int { return len(s.owner) - (len(s.owner)+7)/8 }

// placeOf returns the place in an entry of where.
func placeOf(entry uint64) int64 { return int64(uint32(entry)) - 1 }

// offset returns where record i lies in a place.
func (s *slots) offset(entry uint64, i int) int64 {
	return placeOf(entry)*s.size + slotHead + int64(i%s.index.PerBlock)*int64(s.index.Record)
}

func (s *slots) prefetch(i int) {
	if at := s.where[i/s.index.PerBlock].Load(); at&verified != 0 {
		willNeed(s.file, s.offset(at, i), int64(s.index.Record))
	}
}

func (s *slots) record(i int, rec []byte) (here bool, err error) {
	b := i / s.index.PerBlock
	at := s.where[b].Load()
	if at&verified == 0 {
		return false, nil
	}
	if _, err := s.file.ReadAt(rec, s.offset(at, i)); err != nil {
		return false, fmt.Errorf("%s: record %d: %w", s.file.Name(), i, err)
	}
	return s.where[b].Load() == at, nil // else the place was given to another meanwhile
}

func (s *slots) block(b int, dst []byte) error {
	at := s.where[b].Load()
	if at == 0 {
		return fmt.Errorf("%s: block %d: %w", s.file.Name(), b, fs.ErrNotExist)
	}
	_, err := s.file.ReadAt(dst, placeOf(at)*s.size+slotHead)
	if err == nil {
		err = s.index.check(b, dst)
	}
	if err == nil {
		s.where[b].CompareAndSwap(at, at|verified)
		return nil
	}
	s.drop(b, at)
	return fmt.Errorf("%s: %w", s.file.Name(), err)
}

// drop forgets a block that turned out to be damaged.
func (s *slots) drop(b int, at uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.where[b].CompareAndSwap(at, 0) {
		place := int(placeOf(at))
		s.owner[place] = vacant
		s.free = append(s.free, place)
	}
}

func (s *slots) lacks(b int) bool {
	if s.where[b].Load() != 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.free) > 0
}

func (s *slots) keep(b int, block []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.where[b].Load() != 0 {
		return nil // another was quicker
	}
	place := s.makeRoom()
	s.turn[place]++
	s.put = append(binary.LittleEndian.AppendUint64(s.put[:0], uint64(b)+1), block...)
	if _, err := s.file.WriteAt(s.put, int64(place)*s.size); err != nil {
		s.free = append(s.free, place)
		return err
	}
	s.owner[place] = b
	s.where[b].Store(s.entry(place) | verified)
	return nil
}

// makeRoom returns a vacant place.
func (s *slots) makeRoom() int {
	if n := len(s.free); n > 0 {
		place := s.free[n-1]
		s.free = s.free[:n-1]
		return place
	}
	place := s.next
	if s.next++; s.next == len(s.owner) {
		s.next = s.resident()
	}
	s.where[s.owner[place]].Store(0)
	s.owner[place] = vacant
	return place
}

func (s *slots) close() error { return s.file.Close() }
