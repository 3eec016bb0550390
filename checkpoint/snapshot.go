package checkpoint

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/dlnode/dlnode/checkpoint/safetensors"
)

// Tensor is a named array of float32, row-major.
type Tensor = safetensors.Tensor

// Snapshot is a whole state: all that a node needs to go on as if it had been
// there from the beginning, and nothing that depends on who computed it.
//
// Whoever hands a snapshot to this package leaves it alone until he gets it
// back; nothing here writes to it.
type Snapshot struct {
	Trajectory [32]byte // T, the name of the trajectory
	Transition uint64   // how many transitions led here; what "newest" compares
	Step       uint64   // how many of them were optimizer updates
	Epoch      int      // epochs begun; not negative

	Meta []byte // canonical JSON of the state's small part: history, exponents, patience
	Job  []byte // canonical JSON of the job's mathematical part
	Data []byte // canonical JSON of what the samples' numbers mean: raw input, classes; nil where it is not told

	Model []Tensor // parameters; the order does not matter, names are unique
	State []Tensor // everything else that is large: optimizer slots, best weights
}

// Find returns the tensor of that name. Tensors read back are sorted by name,
// whatever order they were in.
func Find(tensors []Tensor, name string) (Tensor, bool) {
	for _, t := range tensors {
		if t.Name == name {
			return t, true
		}
	}
	return Tensor{}, false
}

// Digest names the state: SHA-256 of the manifest, which holds SHA-256 of each
// file. It costs one pass over the tensors, and the memory of a chunk. It panics
// if the snapshot can't be one: a tensor without name or with the wrong length.
func Digest(s *Snapshot) [32]byte { return Describe(s).Digest() }

// ModelDigest is SHA-256 of the file model.safetensors: the hash by which runs
// are compared, and what sha256sum prints for the file.
func ModelDigest(s *Snapshot) [32]byte {
	h := sha256.New()
	// A hash takes everything: hash.Hash promises that Write never fails.
	_, _ = safetensors.NewEncoder(s.Model).WriteTo(h)
	return [32]byte(h.Sum(nil))
}

// The files of a checkpoint, in the order of the manifest. The manifest itself
// comes last: it is written when the others are.
const (
	jobFile      = "job.json"
	dataFile     = "data.json"
	metaFile     = "meta.json"
	modelFile    = "model.safetensors"
	stateFile    = "state.safetensors"
	manifestFile = "manifest.json"
)

// part is one file to be written, its size known before its bytes.
type part struct {
	name    string
	size    int64
	content io.WriterTo
}

// parts are the files of a snapshot but for the manifest, in its order.
func parts(s *Snapshot) []part {
	if s.Epoch < 0 {
		panic(fmt.Sprintf("checkpoint: epoch %d of a snapshot is negative", s.Epoch))
	}
	model, state := safetensors.NewEncoder(s.Model), safetensors.NewEncoder(s.State)
	ps := []part{{jobFile, int64(len(s.Job)), plain(s.Job)}}
	if len(s.Data) > 0 {
		ps = append(ps, part{dataFile, int64(len(s.Data)), plain(s.Data)})
	}
	return append(ps,
		part{metaFile, int64(len(s.Meta)), plain(s.Meta)},
		part{modelFile, model.Size(), model},
		part{stateFile, state.Size(), state},
	)
}

// plain is a file that is in memory already.
type plain []byte

// WriteTo writes all of it at once.
func (p plain) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(p)
	return int64(n), err
}

// writePart writes a file and returns its line of the manifest. The bytes pass
// once: they are hashed on their way.
func writePart(w io.Writer, p part) (FileSum, error) {
	h := sha256.New()
	n, err := p.content.WriteTo(io.MultiWriter(w, h))
	if err == nil && n != p.size {
		panic(fmt.Sprintf("checkpoint: %s has %d bytes, not %d as announced", p.name, n, p.size))
	}
	return FileSum{Name: p.name, Size: n, SHA256: Hash(h.Sum(nil))}, err
}

// readPart is the counterpart of writePart for one file of a snapshot. r must
// hold exactly size bytes.
func readPart(s *Snapshot, name string, r io.Reader, size int64) error {
	var err error
	switch name {
	case jobFile:
		s.Job, err = readAll(r, size)
	case dataFile:
		s.Data, err = readAll(r, size)
	case metaFile:
		s.Meta, err = readAll(r, size)
	case modelFile:
		s.Model, err = safetensors.Read(r, size)
	case stateFile:
		s.State, err = safetensors.Read(r, size)
	default:
		err = errors.New("no such file belongs to a checkpoint")
	}
	return err
}

func readAll(r io.Reader, size int64) ([]byte, error) {
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}
