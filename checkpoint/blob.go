package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// blobMagic begins every blob; its last byte is the version of the layout.
const blobMagic = "dlnode\xf5\x01"

// Marshal puts a snapshot into one piece that verifies itself, for the way from
// one node to another:
//
//	magic, 8 bytes │ length of the manifest, 4 bytes LE │ manifest │ job │ data │ meta │ model │ state
//
// The tensors are read once, hashed on their way into the blob. It panics as
// Digest does.
func Marshal(s *Snapshot) []byte {
	ps := parts(s)
	sums := make([]FileSum, len(ps))
	size := int64(0)
	for i, p := range ps {
		sums[i] = FileSum{Name: p.name, Size: p.size}
		size += p.size
	}
	// All but the digests is known, and so the manifest's length: leave its room.
	room := len(newManifest(s, sums).encode())
	blob := make(appender, 0, int64(len(blobMagic)+4+room)+size)
	blob = append(blob, blobMagic...)
	blob = binary.LittleEndian.AppendUint32(blob, uint32(room))
	at := len(blob)
	blob = blob[:at+room]
	for i, p := range ps {
		// An appender takes everything: its error is always nil.
		sums[i], _ = writePart(&blob, p)
	}
	copy(blob[at:at+room], newManifest(s, sums).encode())
	return blob
}

// appender is a slice that is written to.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// Unmarshal is the inverse of Marshal. It verifies before it believes: the
// result is exactly the state whose digest is that of the manifest inside. The
// blob may come from anybody; memory taken is bounded by a small multiple of its
// length. The snapshot shares no memory with the blob.
func Unmarshal(blob []byte) (*Snapshot, error) {
	m, rest, err := splitBlob(blob)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: unmarshal a blob of %d bytes: %w", len(blob), err)
	}
	s := m.blank()
	for _, f := range m.Files {
		if f.Size > int64(len(rest)) {
			return nil, fmt.Errorf("checkpoint: unmarshal: %s is truncated: %d of %d bytes", f.Name, len(rest), f.Size)
		}
		if err := unmarshalPart(s, f, rest[:f.Size]); err != nil {
			return nil, fmt.Errorf("checkpoint: unmarshal: %s: %w", f.Name, err)
		}
		rest = rest[f.Size:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("checkpoint: unmarshal: %d bytes too many", len(rest))
	}
	return s, nil
}

// splitBlob takes the manifest off the front of a blob.
func splitBlob(blob []byte) (Manifest, []byte, error) {
	rest, ok := bytes.CutPrefix(blob, []byte(blobMagic))
	if !ok || len(rest) < 4 {
		return Manifest{}, nil, errors.New("it does not begin like one, or is of another version")
	}
	n := binary.LittleEndian.Uint32(rest)
	rest = rest[4:]
	if n > maxManifest || int64(n) > int64(len(rest)) {
		return Manifest{}, nil, fmt.Errorf("its manifest is said to have %d bytes, %d are there and %d allowed", n, len(rest), maxManifest)
	}
	m, err := parseManifest(rest[:n])
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("its manifest: %w", err)
	}
	return m, rest[n:], nil
}

func unmarshalPart(s *Snapshot, f FileSum, b []byte) error {
	if got := Hash(sha256.Sum256(b)); got != f.SHA256 {
		return fmt.Errorf("digest mismatch: sha256 is %s, the manifest says %s", got, f.SHA256)
	}
	return readPart(s, f.Name, bytes.NewReader(b), f.Size)
}

// BlobDigest returns the digest and the transition that a blob claims, without
// looking further than its manifest. Unmarshal tells whether the claim is true.
func BlobDigest(blob []byte) (digest [32]byte, transition uint64, err error) {
	m, _, err := splitBlob(blob)
	if err != nil {
		return digest, 0, fmt.Errorf("checkpoint: look into a blob: %w", err)
	}
	return m.Digest(), m.Transition, nil
}
