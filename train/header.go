package train

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/dlnode/dlnode/allreduce"
)

// Header is what every rank tells every other in each all-reduce, beside the
// vector: what must be known before a total may be believed and applied.
type header struct {
	Transition uint64
	Repeat     uint8
	Kind       byte
	Flags      byte
	Count      uint64 // samples that went into the rank's sums, as loaded
	IDSum      uint64
	Watch      uint64    // what State.watch says of the state before the transition
	Audit      uint64    // what State.audit says of it; 0 where nobody asked for it
	Nanos      uint64    // time that the rank computed
	Threads    uint64    // on which it did
	Sum        uint64    // of the integers that the rank gives to the ring, mod 2^64, as they were computed
	Audits     uint64    // nanoseconds that the rank's last audit took
	ProbeAt    [2]uint64 // microbatches of which it tells a digest, counted from 1; 0 is none. The first may be a misfit, see flagMisfit
	Probe      [2]uint64 // and the digests
	GradSeen   []int16
	ScalarSeen []int16   // of each column
	Scalars    []float64 // exact sums of all columns
}

const (
	flagStop   = 1 << iota // the group ends after this op
	flagLeave              // and the sender goes
	flagAudit              // the sender will write the state after this op: all are to audit it
	flagMisfit             // the first claim is of the microbatch of the attempt that is furthest beyond its grids
)

var kindCodes = map[Kind]byte{Update: 1, Evaluate: 2, Restore: 3, Finish: 4, Farewell: 5}

func (h *header) append(b []byte) []byte {
	b = append(b, h.Kind, h.Repeat, h.Flags)
	for _, v := range [...]uint64{h.Transition, h.Count, h.IDSum, h.Watch, h.Audit, h.Nanos, h.Threads, h.Sum, h.Audits, h.ProbeAt[0], h.ProbeAt[1], h.Probe[0], h.Probe[1]} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = appendExps(appendExps(b, h.GradSeen), h.ScalarSeen)
	for _, v := range h.Scalars {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

func appendExps(b []byte, exps []int16) []byte {
	for _, e := range exps {
		b = binary.LittleEndian.AppendUint16(b, uint16(e))
	}
	return b
}

const headerFixed = 3 + 13*8

// headerLen returns how long the header of an attempt of a kind is.
func (t *Task) headerLen(k Kind) int {
	return headerFixed + 2*len(t.windows) + 2*len(t.summed(k)) + 8*t.sums(k)
}

// ops completes the description of a rank with how large its all-reduces are at most,
// and with it how much of them another one can send early. An evaluation has the
// longest header: it sums up what an update does, and more.
func (t *Task) ops(c allreduce.Config) allreduce.Config {
	c.MaxElements, c.MaxHeader = t.Model.NumParams(), t.headerLen(Evaluate)
	return c
}

// parse reads a header of an attempt with the given numbers of tensors, columns
// and sums.
func (h *header) parse(b []byte, tensors, columns, sums int) error {
	if want := headerFixed + 2*tensors + 2*columns + 8*sums; len(b) != want {
		return fmt.Errorf("a header of %d bytes, want %d", len(b), want)
	}
	h.Kind, h.Repeat, h.Flags = b[0], b[1], b[2]
	b = b[3:]
	for _, v := range [...]*uint64{&h.Transition, &h.Count, &h.IDSum, &h.Watch, &h.Audit, &h.Nanos, &h.Threads, &h.Sum, &h.Audits, &h.ProbeAt[0], &h.ProbeAt[1], &h.Probe[0], &h.Probe[1]} {
		*v, b = binary.LittleEndian.Uint64(b), b[8:]
	}
	h.GradSeen, b = parseExps(h.GradSeen[:0], b, tensors)
	h.ScalarSeen, b = parseExps(h.ScalarSeen[:0], b, columns)
	h.Scalars = h.Scalars[:0]
	for range sums {
		h.Scalars = append(h.Scalars, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		b = b[8:]
	}
	return nil
}

func parseExps(dst []int16, b []byte, n int) ([]int16, []byte) {
	for range n {
		dst = append(dst, int16(binary.LittleEndian.Uint16(b)))
		b = b[2:]
	}
	return dst, b
}

// headerWatch reads just what a rank has said of its state; b is a header that
// parse has taken.
func headerWatch(b []byte) uint64 { return binary.LittleEndian.Uint64(b[3+3*8:]) }

// headerSum reads just the sum of a rank's integers; likewise.
func headerSum(b []byte) uint64 { return binary.LittleEndian.Uint64(b[3+7*8:]) }

// misfit is the claim of a microbatch that did not fit its grids.
func (h *header) misfit(rank int) (c claim, told bool) {
	if all := h.claims(rank); h.Flags&flagMisfit != 0 && len(all) > 0 && h.ProbeAt[0] > 0 {
		return all[0], true
	}
	return claim{}, false
}

// claims lists what a rank tells of gradients.
func (h *header) claims(rank int) (all []claim) {
	for i, at := range h.ProbeAt {
		if at > 0 {
			all = append(all, claim{rank, int(min(at, math.MaxInt32)) - 1, h.Probe[i]})
		}
	}
	return all
}
