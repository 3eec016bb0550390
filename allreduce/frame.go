package allreduce

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/dlnode/dlnode/allreduce/packing"
)

// Fence is the name of a view, cut to 16 bytes. What carries another fence is refused.
type Fence [16]byte

// String returns the first eight hexadecimal digits, enough to tell two views apart in a log.
func (f Fence) String() string { return hex.EncodeToString(f[:4]) }

// Kind says what a frame carries.
type Kind uint8

// The kinds of frames. Zero is none of them.
const (
	Header  Kind = iota + 1 // payload: the header of rank Chunk, as given to Op.Header
	Reduce                  // payload: float64, the sum so far of one segment of Chunk
	Gather                  // payload: float32, one finished segment of Chunk
	Share                   // payload: float64, one segment of rank Chunk's own vector, in an Exchange
	Probe                   // a driver measures the link: answered by an Echo, unless Chunk is 1
	Echo                    // the answer
	Closing                 // payload: a ClosingNote; the last frame on a link
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Header:
		return "header"
	case Reduce:
		return "reduce"
	case Gather:
		return "gather"
	case Share:
		return "share"
	case Probe:
		return "probe"
	case Echo:
		return "echo"
	case Closing:
		return "closing"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// FrameOverhead is the number of bytes that a frame puts before its payload.
const FrameOverhead = 48

// frameVersion is the first byte of every frame; another layout takes another number.
const frameVersion = 4

// Frame is what travels over a link between two ranks. Elements of a payload are little-endian on
// every machine.
//
// On the wire, all integers little-endian:
//
//	offset  0: version    1 byte
//	        1: kind       1 byte
//	        2: algorithm  1 byte
//	        3: encoding   1 byte
//	        4: chunk      4 bytes
//	        8: segment    4 bytes
//	       12: length     4 bytes, of the payload
//	       16: seq        8 bytes
//	       24: fence     16 bytes
//	       40: sum        8 bytes
//	       48: payload
//
// Frames may follow one another in a message, each filled up with zeros to a multiple of 8 bytes, so
// that elements stay aligned.
type Frame struct {
	Fence     Fence
	Seq       uint64 // number of the op within its view, from 1; 0 in what is no part of an op
	Kind      Kind
	Algorithm Algorithm // of the op; Auto in what is no part of one
	Encoding  Encoding  // of the payload
	Chunk     uint32    // the chunk; in a Header and in a Share the rank that wrote it
	Segment   uint32    // index within the chunk; 0 in a Header
	Sum       uint64    // Gather: mod 2^64, of the integers that the segment's total consisted of; Header: a Model
	Payload   []byte    // see Kind; who keeps it how long is said where a Frame is passed
	More      [][]byte  // the rest of a payload that came in pieces; never in a frame that is sent
}

// Encoding is how the elements of a payload are written.
type Encoding uint8

// The encodings.
const (
	Raw    Encoding = iota // as they lie in memory, little-endian
	Packed                 // as package packing writes them
	Shared                 // raw, but elsewhere: the payload tells a driver where in memory that both ends of the link have
)

// suits tells whether frames of a kind may be written so.
func (e Encoding) suits(k Kind) bool {
	switch e {
	case Raw:
		return true
	case Packed:
		return Reduce <= k && k <= Share
	case Shared:
		return Reduce <= k && k <= Probe
	}
	return false
}

// Pack returns a frame with its elements packed into buf, which it appends to. Who has something to
// send chooses the encoding, frame by frame: it costs time and saves bytes.
func (f Frame) Pack(buf []byte) (Frame, error) {
	switch {
	case f.Encoding != Raw || len(f.More) > 0:
		return f, fmt.Errorf("allreduce: %v is not as it was emitted", f)
	case f.Kind == Reduce || f.Kind == Share:
		f.Payload = packing.AppendInts(buf, read64(f.Payload))
	case f.Kind == Gather:
		f.Payload = packing.AppendFloats(buf, read32(f.Payload))
	default:
		return f, nil
	}
	f.Encoding = Packed
	return f, nil
}

// PackedSize returns how many bytes a frame's payload takes at most when it is packed, and the room that
// Pack wants.
func (f Frame) PackedSize() int {
	if f.Kind == Gather {
		return packing.MaxFloats(len(f.Payload)/4) + 64
	}
	return packing.MaxInts(len(f.Payload)/8) + 64
}

// Append appends the frame's wire form to dst.
func (f Frame) Append(dst []byte) []byte { return append(f.AppendHead(dst), f.Payload...) }

// AppendHead appends what goes before the payload.
func (f Frame) AppendHead(dst []byte) []byte {
	dst = append(dst, frameVersion, byte(f.Kind), byte(f.Algorithm), byte(f.Encoding))
	dst = binary.LittleEndian.AppendUint32(dst, f.Chunk)
	dst = binary.LittleEndian.AppendUint32(dst, f.Segment)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(f.Payload)))
	dst = binary.LittleEndian.AppendUint64(dst, f.Seq)
	dst = append(dst, f.Fence[:]...)
	return binary.LittleEndian.AppendUint64(dst, f.Sum)
}

// Padding returns how many zeros a frame is followed by when another one follows it.
func (f Frame) Padding() int { return -len(f.Payload) & 7 }

// ParseFrame reads one frame that fills all of b. The payload is a window of b. Any input that Append
// does not produce is an error.
func ParseFrame(b []byte) (Frame, error) {
	f, err := parseHead(b)
	if err == nil && uint64(binary.LittleEndian.Uint32(b[12:])) != uint64(len(f.Payload)) {
		return Frame{}, fmt.Errorf("allreduce: %v: payload of %d bytes announced", f, binary.LittleEndian.Uint32(b[12:]))
	}
	return f, err
}

// ParsePieces reads one frame that fills all of some pieces, the first of which holds what goes before the
// payload.
func ParsePieces(pieces [][]byte) (Frame, error) {
	f, err := parseHead(pieces[0])
	if err != nil {
		return f, err
	}
	f.More = pieces[1:]
	if n := binary.LittleEndian.Uint32(pieces[0][12:]); uint64(n) != uint64(f.size()) {
		return Frame{}, fmt.Errorf("allreduce: %v: payload of %d bytes announced", f, n)
	}
	return f, nil
}

// size is the length of the payload.
func (f Frame) size() int {
	n := len(f.Payload)
	for _, p := range f.More {
		n += len(p)
	}
	return n
}

// appendPayload appends all of the payload.
func (f Frame) appendPayload(dst []byte) []byte {
	dst = append(dst, f.Payload...)
	for _, p := range f.More {
		dst = append(dst, p...)
	}
	return dst
}

// floats gives the payload's float64 to do, run by run: so many elements from the at-th on, in wire form. An
// element that lies in two pieces is put together.
func (f Frame) floats(do func(at int, wire []byte)) {
	if len(f.More) == 0 {
		do(0, f.Payload)
		return
	}
	var torn [8]byte
	at, have := 0, 0 // elements done; bytes of the next one in torn
	for i := -1; i < len(f.More); i++ {
		p := f.Payload
		if i >= 0 {
			p = f.More[i]
		}
		if have > 0 {
			n := copy(torn[have:], p)
			have, p = have+n, p[n:]
			if have < len(torn) {
				continue
			}
			do(at, torn[:])
			at, have = at+1, 0
		}
		whole := len(p) / 8
		do(at, p[:8*whole])
		at += whole
		have = copy(torn[:], p[8*whole:])
	}
}

// NextFrame reads the first of the frames in a message, and returns the others.
func NextFrame(b []byte) (f Frame, rest []byte, err error) {
	if f, err = parseHead(b); err != nil {
		return f, nil, err
	}
	n := uint64(binary.LittleEndian.Uint32(b[12:]))
	if n > uint64(len(f.Payload)) {
		return Frame{}, nil, fmt.Errorf("allreduce: %v: payload of %d bytes announced", f, n)
	}
	rest = f.Payload[n:]
	f.Payload = f.Payload[:n:n]
	if len(rest) == 0 {
		return f, nil, nil
	}
	pad := f.Padding()
	if pad > len(rest) || !zero(rest[:pad]) {
		return Frame{}, nil, fmt.Errorf("allreduce: %v is not followed by %d zeros", f, pad)
	}
	return f, rest[pad:], nil
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// parseHead reads what goes before the payload, which it takes for all that follows.
func parseHead(b []byte) (Frame, error) {
	if len(b) < FrameOverhead {
		return Frame{}, fmt.Errorf("allreduce: frame of %d bytes, at least %d expected", len(b), FrameOverhead)
	}
	if b[0] != frameVersion {
		return Frame{}, fmt.Errorf("allreduce: frame of version %d, %d expected", b[0], frameVersion)
	}
	f := Frame{
		Kind:      Kind(b[1]),
		Algorithm: Algorithm(b[2]),
		Encoding:  Encoding(b[3]),
		Chunk:     binary.LittleEndian.Uint32(b[4:]),
		Segment:   binary.LittleEndian.Uint32(b[8:]),
		Seq:       binary.LittleEndian.Uint64(b[16:]),
		Fence:     Fence(b[24:40]),
		Sum:       binary.LittleEndian.Uint64(b[40:]),
		Payload:   b[FrameOverhead:],
	}
	switch {
	case f.Kind < Header || f.Kind > Closing:
		return Frame{}, fmt.Errorf("allreduce: frame of unknown %v", f.Kind)
	case f.Algorithm > Exchange:
		return Frame{}, fmt.Errorf("allreduce: frame of unknown %v", f.Algorithm)
	case !f.Encoding.suits(f.Kind):
		return Frame{}, fmt.Errorf("allreduce: %v frame of unknown encoding %d", f.Kind, f.Encoding)
	}
	return f, nil
}

// String names the frame for errors and logs; it tells the payload's length only.
func (f Frame) String() string {
	return fmt.Sprintf("frame (view %v, op %d, %v, %v, chunk %d, segment %d, %d bytes)",
		f.Fence, f.Seq, f.Algorithm, f.Kind, f.Chunk, f.Segment, f.size())
}

// ClosingNote is the payload of a Closing frame: why a group ends. The node that saw the root cause
// writes it, all others pass it on unchanged before they close, so that nobody blames the neighbour
// that merely closed first.
type ClosingNote struct {
	By     string // id of the node that wrote the note
	Blame  string // id of the node that is to blame; "" for none
	Reason string // for people
	Ending Ending
}

// Ending is the kind of an end.
type Ending uint8

// The kinds of ends.
const (
	Broken  Ending = iota // a node is lost, or members do not agree where they are
	Orderly               // all that was begun is complete everywhere
	Fatal                 // the whole run ends, on every node
)

// maxNoteString bounds each string of a ClosingNote on the wire, in bytes.
const maxNoteString = 1024

var errClosingNote = errors.New("allreduce: malformed closing note")

// Append appends the note's wire form to dst: the ending in one byte and three strings, each after its
// length in two bytes. Longer strings than 1024 bytes are cut.
func (n ClosingNote) Append(dst []byte) []byte {
	dst = append(dst, byte(n.Ending))
	for _, s := range [...]string{n.By, n.Blame, n.Reason} {
		s = cut(s, maxNoteString)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// ParseClosingNote reads a note that fills all of b.
func ParseClosingNote(b []byte) (ClosingNote, error) {
	if len(b) < 1 || Ending(b[0]) > Fatal {
		return ClosingNote{}, errClosingNote
	}
	n := ClosingNote{Ending: Ending(b[0])}
	b = b[1:]
	for _, s := range [...]*string{&n.By, &n.Blame, &n.Reason} {
		if len(b) < 2 {
			return ClosingNote{}, errClosingNote
		}
		size := int(binary.LittleEndian.Uint16(b))
		b = b[2:]
		if size > maxNoteString || size > len(b) {
			return ClosingNote{}, errClosingNote
		}
		*s, b = string(b[:size]), b[size:]
	}
	if len(b) > 0 {
		return ClosingNote{}, errClosingNote
	}
	return n, nil
}

// cut shortens s to at most n bytes without splitting a rune.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
