package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	manifestFormat = "dlnode checkpoint"

	// The version of a manifest says which files it lists, so that a state has one
	// manifest only, and one from before data.json the bytes that it had.
	versionPlain = 1 // job, meta, model, state
	versionData  = 2 // job, data, meta, model, state

	// maxManifest bounds the size of a manifest in bytes; they have some 900.
	maxManifest = 64 << 10
)

// Hash is a SHA-256 that reads and writes itself as 64 hex digits.
type Hash [32]byte

// String returns the 64 digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a SHA-256 has 64 hex digits, not %d", len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// FileSum is what a manifest says of one file.
type FileSum struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 Hash   `json:"sha256"`
}

// Manifest describes a checkpoint: which state it is and what its files must be.
// It is a pure function of the snapshot and has one encoding only.
type Manifest struct {
	Format     string    `json:"format"`
	Version    int       `json:"version"`
	Trajectory Hash      `json:"trajectory"`
	Transition uint64    `json:"transition"`
	Step       uint64    `json:"step"`
	Epoch      int       `json:"epoch"`
	Files      []FileSum `json:"files"` // as the version says

	// Seal is SHA-256 of this manifest's encoding with a seal of zeros: what
	// tells a flipped digit of step from another step.
	Seal Hash `json:"seal"`
}

// Describe computes the manifest of a snapshot in one pass over its tensors. It
// panics as Digest does.
func Describe(s *Snapshot) Manifest {
	ps := parts(s)
	sums := make([]FileSum, 0, len(ps))
	for _, p := range ps {
		sum, err := writePart(io.Discard, p)
		if err != nil {
			panic("checkpoint: io.Discard failed: " + err.Error())
		}
		sums = append(sums, sum)
	}
	return newManifest(s, sums)
}

// newManifest seals what is known of a snapshot and its files.
func newManifest(s *Snapshot, files []FileSum) Manifest {
	m := Manifest{
		Format: manifestFormat, Version: versionPlain,
		Trajectory: s.Trajectory, Transition: s.Transition, Step: s.Step, Epoch: s.Epoch,
		Files: files,
	}
	if len(s.Data) > 0 {
		m.Version = versionData
	}
	m.Seal = m.seal()
	return m
}

// Digest is the name of the state that the manifest describes.
func (m Manifest) Digest() [32]byte { return sha256.Sum256(m.encode()) }

// ModelDigest is SHA-256 of the file model.safetensors.
func (m Manifest) ModelDigest() [32]byte {
	for _, f := range m.Files {
		if f.Name == modelFile {
			return f.SHA256
		}
	}
	return [32]byte{}
}

// Bytes is the size of all files together, the manifest among them.
func (m Manifest) Bytes() int64 {
	n := int64(len(m.encode()))
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// blank returns a snapshot that has what the manifest itself holds of it.
func (m Manifest) blank() *Snapshot {
	return &Snapshot{Trajectory: m.Trajectory, Transition: m.Transition, Step: m.Step, Epoch: m.Epoch}
}

func (m Manifest) seal() Hash {
	m.Seal = Hash{}
	return sha256.Sum256(m.encode())
}

// encode returns the bytes of manifest.json. Digests have a fixed length, so the
// length of a manifest is known before its files are hashed.
func (m Manifest) encode() []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic("checkpoint: a manifest has no encoding: " + err.Error())
	}
	return append(b, '\n')
}

// parseManifest reads a manifest and believes it only if every byte is what
// encode would give: field names, order, spaces, seal and all.
func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("malformed: %w", err)
	}
	if m.Format != manifestFormat || m.Version < versionPlain || m.Version > versionData {
		return Manifest{}, fmt.Errorf("format is %q version %d; this program reads %q version %d to %d",
			m.Format, m.Version, manifestFormat, versionPlain, versionData)
	}
	if seal := m.seal(); seal != m.Seal {
		return Manifest{}, fmt.Errorf("digest mismatch: the seal is %s, what it seals gives %s", m.Seal, seal)
	}
	if !bytes.Equal(m.encode(), b) {
		return Manifest{}, errors.New("malformed: not in its canonical form")
	}
	return m, m.checkFiles()
}

// checkFiles makes sure that a manifest lists the files of a checkpoint, each
// once and in order, with sizes that can be added up.
func (m Manifest) checkFiles() error {
	names := []string{jobFile, metaFile, modelFile, stateFile}
	if m.Version == versionData {
		names = slices.Insert(names, 1, dataFile)
	}
	if len(m.Files) != len(names) || m.Epoch < 0 {
		return fmt.Errorf("malformed: %d files and epoch %d", len(m.Files), m.Epoch)
	}
	for i, f := range m.Files {
		if f.Name == dataFile && f.Size == 0 {
			return fmt.Errorf("malformed: %s is empty, where version %d has none", dataFile, versionPlain)
		}
		if f.Name != names[i] || f.Size < 0 || f.Size > math.MaxInt64/8 {
			return fmt.Errorf("malformed: file %d is %q with %d bytes, where %q was due", i, f.Name, f.Size, names[i])
		}
	}
	return nil
}
