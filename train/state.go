package train

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"unsafe"

	"github.com/dlnode/dlnode/allreduce/exact"
	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/internal/pages"
	"github.com/dlnode/dlnode/nn"
)

// Kind says what the next transition of a state does.
type Kind string

// The kinds. Farewell moves no state: it is the all-reduce of headers alone
// with which a group ends, so that nobody closes a link that another still needs.
const (
	Update   Kind = "update"   // one optimizer step
	Evaluate Kind = "evaluate" // loss and metrics of the validation samples
	Restore  Kind = "restore"  // the best weights come back
	Finish   Kind = "finish"   // the run is over
	Done     Kind = "done"     // nothing comes after
	Farewell Kind = "farewell"
)

// State is S: all that training knows and all that a checkpoint holds. Every
// node has one, and at equal transitions they are equal bit for bit.
type State struct {
	meta
	params []float32   // flat, windows as nn.Model.Tensors
	slots  [][]float32 // the optimizer's, each as long as params
	best   []float32   // weights of the best epoch, nil if none
}

// Params returns the parameters themselves, flat, as nn.Model.Tensors says.
func (s *State) Params() []float32 { return s.params }

// Slots returns the optimizer's vectors themselves, each as long as Params.
func (s *State) Slots() [][]float32 { return s.slots }

// meta is the small part of the state, as it stands in a checkpoint's meta.json.
type meta struct {
	Transition uint64   `json:"transition"` // what "greatest" compares; each kind counts one
	Step       uint64   `json:"step"`       // optimizer steps done, skipped ones included
	Next       Kind     `json:"next"`
	GradExps   []int16  `json:"grad_exponents"`       // one for each tensor
	TrainExps  []int16  `json:"train_exponents"`      // one for each column
	EvalExps   []int16  `json:"evaluation_exponents"` // likewise
	Repeats    uint64   `json:"repeated_attempts"`    // steps done twice for their exponents
	Skipped    uint64   `json:"skipped_updates"`      // for a non-finite gradient
	Running    []Number `json:"epoch_sums"`           // of the columns, this epoch so far
	Samples    uint64   `json:"epoch_samples"`        // samples in them
	History    []Epoch  `json:"history"`
	Stopping   stopping `json:"early_stopping"`
	HasBest    bool     `json:"has_best"`
	Plateau    plateau  `json:"reduce_on_plateau,omitzero"` // absent where the job has none
}

// Epoch is a line of the history: what Keras prints after each epoch.
type Epoch struct {
	Epoch      int      `json:"epoch"` // from 1
	Step       uint64   `json:"step"`
	Samples    uint64   `json:"samples"`              // used in it
	Train      []Number `json:"train"`                // as Task.Scalars; nil until the epoch ends
	Validation []Number `json:"validation,omitempty"` // likewise
	LR         Number   `json:"learning_rate"`        // of its last step

	// Confusion is that of the validation samples, as in Evaluation, if the job asks
	// for it: of the last epoch, and of the best where there is early stopping.
	Confusion [][]uint64 `json:"confusion_matrix,omitempty"`
}

// stopping is the state of early stopping.
type stopping struct {
	Best      Number `json:"best"`
	BestEpoch int    `json:"best_epoch"` // 0: none yet
	Wait      int    `json:"wait"`       // epochs without improvement
	Stopped   int    `json:"stopped_epoch"`
}

// plateau is the state of reducing the learning rate.
type plateau struct {
	Best     Number `json:"best"`
	Epoch    int    `json:"best_epoch"` // 0: none yet
	Wait     int    `json:"wait"`       // epochs without improvement
	Cooldown int    `json:"cooldown"`   // epochs that still count for nothing
	Count    int    `json:"reductions"` // how often so far
}

// Number is a float64 that may be NaN or infinite in JSON too.
type Number float64

// MarshalJSON writes a number, or "NaN", "+Inf", "-Inf".
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.AppendQuote(nil, strconv.FormatFloat(f, 'g', -1, 64)), nil
	}
	return json.Marshal(f)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (n *Number) UnmarshalJSON(b []byte) error {
	if s, err := strconv.Unquote(string(b)); err == nil {
		b = []byte(s)
	}
	f, err := strconv.ParseFloat(string(b), 64)
	*n = Number(f)
	return err
}

// initialise makes the starting state: fresh weights, or those of a fork.
func (t *Task) initialise(from *checkpoint.Snapshot) error {
	s := t.blank()
	t.Model.Init(t.Job.Seed, s.params)
	if from != nil {
		if err := copyTensors(t.modelTensors(s), from.Model); err != nil {
			return fmt.Errorf("fork: %w", err)
		}
		if err := copyTensors(t.slotTensors(s), from.State); err != nil {
			clear2(s.slots) // another optimizer starts with empty slots
		}
	}
	t.start = s
	return nil
}

func clear2(vs [][]float32) {
	for _, v := range vs {
		clear(v)
	}
}

func (t *Task) blank() *State {
	n := t.Model.NumParams()
	s := &State{params: pages.Float32s(n)}
	for range t.Optimizer.Slots() {
		s.slots = append(s.slots, pages.Float32s(n))
	}
	s.meta = meta{
		Next:     Update,
		GradExps: exact.StartExponents(len(t.windows)), TrainExps: t.startExponents(Update),
		EvalExps: t.startExponents(Evaluate), Running: make([]Number, t.sums(Update)),
		History: []Epoch{},
	}
	return s
}

// Start returns a copy of the starting state.
func (t *Task) Start() *State { return t.start.clone() }

func (s *State) clone() *State {
	c := &State{meta: s.meta.clone(), params: slices.Clone(s.params), best: slices.Clone(s.best)}
	for _, v := range s.slots {
		c.slots = append(c.slots, slices.Clone(v))
	}
	return c
}

func (m meta) clone() meta {
	m.GradExps, m.TrainExps, m.EvalExps = slices.Clone(m.GradExps), slices.Clone(m.TrainExps), slices.Clone(m.EvalExps)
	m.Running, m.History = slices.Clone(m.Running), slices.Clone(m.History)
	return m
}

// copyFrom makes s equal to o without allocating vectors that s has, for snapshots.
func (s *State) copyFrom(o *State, each Each) {
	s.meta = o.meta.clone()
	switch {
	case o.best == nil:
		s.best = nil
	case len(s.best) != len(o.best):
		s.best = pages.Float32s(len(o.best))
	}
	copyVectors(each, s.vectors(), o.vectors())
}

// Epoch returns the epoch in hand, from 0.
func (t *Task) epochOf(s *State) int { return len(s.History) }

// snapshot views a state as a checkpoint holds it. It shares the vectors.
func (t *Task) snapshot(s *State) *checkpoint.Snapshot {
	b, err := json.Marshal(s.meta)
	if err != nil {
		panic(fmt.Sprintf("train: the state cannot be encoded: %v", err))
	}
	return &checkpoint.Snapshot{
		Trajectory: t.Trajectory, Transition: s.Transition, Step: s.Step, Epoch: t.epochOf(s),
		Meta: b, Job: t.canonical, Data: t.meaning, Model: t.modelTensors(s), State: t.stateTensors(s),
	}
}

func (t *Task) modelTensors(s *State) []checkpoint.Tensor { return tensors(t.Model, "", s.params) }

func (t *Task) slotTensors(s *State) (all []checkpoint.Tensor) {
	for i, name := range t.Optimizer.Slots() {
		all = append(all, tensors(t.Model, "optimizer/"+name+"/", s.slots[i])...)
	}
	return all
}

func (t *Task) stateTensors(s *State) []checkpoint.Tensor {
	all := t.slotTensors(s)
	if s.best != nil {
		all = append(all, tensors(t.Model, "best/", s.best)...)
	}
	return all
}

func tensors(m *nn.Model, prefix string, flat []float32) (all []checkpoint.Tensor) {
	for _, w := range m.Tensors() {
		all = append(all, checkpoint.Tensor{Name: prefix + w.Name, Shape: w.Shape, Data: flat[w.Off : w.Off+w.Len : w.Off+w.Len]})
	}
	return all
}

// restore makes the state that a snapshot holds.
func (t *Task) restore(snap *checkpoint.Snapshot) (*State, error) {
	if snap.Trajectory != t.Trajectory {
		return nil, fmt.Errorf("a state of trajectory %x, this is %x", snap.Trajectory[:4], t.Trajectory[:4])
	}
	s := t.blank()
	s.meta = meta{}
	if err := json.Unmarshal(snap.Meta, &s.meta); err != nil {
		return nil, fmt.Errorf("meta.json: %w", err)
	}
	if s.HasBest {
		s.best = pages.Float32s(len(s.params))
	}
	if err := copyTensors(t.modelTensors(s), snap.Model); err != nil {
		return nil, err
	}
	return s, copyTensors(t.stateTensors(s), snap.State)
}

// copyTensors fills dst from the tensors of the same names in src.
func copyTensors(dst, src []checkpoint.Tensor) error {
	by := make(map[string]checkpoint.Tensor, len(src))
	for _, s := range src {
		by[s.Name] = s
	}
	for _, d := range dst {
		s, ok := by[d.Name]
		if !ok || !slices.Equal(s.Shape, d.Shape) {
			return fmt.Errorf("tensor %s: got shape %v, want %v", d.Name, s.Shape, d.Shape)
		}
		copy(d.Data, s.Data)
	}
	return nil
}

// LoadModel returns the weights in a checkpoint, in the order of the model's
// flat vector.
func (t *Task) LoadModel(snap *checkpoint.Snapshot) ([]float32, error) {
	p := make([]float32, t.Model.NumParams())
	return p, copyTensors(tensors(t.Model, "", p), snap.Model)
}

// Digest is SHA-256 of the whole state.
func (t *Task) digest(s *State) [32]byte { return checkpoint.Digest(t.snapshot(s)) }

// Each does n pieces of work, do(0) to do(n-1), each once, in any order, some at
// the same time if it likes, and returns when all are done. What the pieces touch
// is different for each, so nothing depends on how they are shared out.
type Each func(n int, do func(i int))

// inTurn is an Each that does one piece after the other.
func inTurn(n int, do func(i int)) {
	for i := range n {
		do(i)
	}
}

// pieceLen is how many elements of a vector make a piece of work, at most: some
// ten microseconds.
const pieceLen = 1 << 15

// watchBlocks is into how many blocks slots and best weights are cut for the
// digests that ride on the headers: one block a transition, so all of them in as
// many.
const watchBlocks = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// watch digests what the replicas compare in each header: all parameters and all
// small parts of the state, and a rotating block of the rest. All parameters,
// because a gradient is computed from them: a node in whose memory a bit has
// flipped is found out before its gradient is applied anywhere. A wrong slot makes
// a wrong parameter at the next update, of that node alone.
//
// What watch leaves out is what audit covers, before a checkpoint is written.
// A CRC finds every flipped bit and, within a piece, every burst of up to 32; it is
// no defence against malice, which views and digests of whole states are for.
func (s *State) watch(each Each) uint64 {
	block := int(s.Transition % watchBlocks)
	vectors := [][]float32{s.params}
	for _, v := range append(s.slots[:len(s.slots):len(s.slots)], s.best) {
		vectors = append(vectors, v[len(v)*block/watchBlocks:len(v)*(block+1)/watchBlocks])
	}
	crc := checksum(each, vectors)
	small := uint32(0)
	for _, e := range [][]int16{s.GradExps, s.TrainExps, s.EvalExps} {
		small = crc32.Update(small, castagnoli, bytesOf(e))
	}
	small = crc32.Update(small, castagnoli, bytesOf(s.Running))
	small = crc32.Update(small, castagnoli, bytesOf([]uint64{s.Transition, s.Step, s.Samples, s.Repeats, s.Skipped, uint64(len(s.History))}))
	small = crc32.Update(small, castagnoli, []byte(s.Next))
	small = crc32.Update(small, castagnoli, bytesOf([]Number{s.Stopping.Best}))
	small = crc32.Update(small, castagnoli, bytesOf([]uint64{uint64(s.Stopping.BestEpoch), uint64(s.Stopping.Wait), uint64(s.Stopping.Stopped), uint64(len(s.best))}))
	if p := s.Plateau; p != (plateau{}) {
		small = crc32.Update(small, castagnoli, bytesOf([]Number{p.Best}))
		small = crc32.Update(small, castagnoli, bytesOf([]uint64{uint64(p.Epoch), uint64(p.Wait), uint64(p.Cooldown), uint64(p.Count)}))
	}
	if block == 0 {
		small = s.watchHistory(small)
	}
	return uint64(crc) | uint64(small)<<32
}

// audit digests slots, best weights and history whole: with watch, all of the state.
func (s *State) audit(each Each) uint64 {
	crc := checksum(each, append(s.slots[:len(s.slots):len(s.slots)], s.best))
	return uint64(crc) | uint64(s.watchHistory(0)|1)<<32 // never 0
}

// checksum is the CRC of the CRCs of the pieces that vectors are cut into.
func checksum(each Each, vectors [][]float32) uint32 {
	n := 0
	for _, v := range vectors {
		n += (len(v) + pieceLen - 1) / pieceLen
	}
	crcs := make([]uint32, n)
	each(n, func(i int) {
		k := i
		for _, v := range vectors {
			pieces := (len(v) + pieceLen - 1) / pieceLen
			if k < pieces {
				crcs[i] = kernel.CRC32C(0, bytesOf(v[k*pieceLen:min((k+1)*pieceLen, len(v))]))
				return
			}
			k -= pieces
		}
	})
	return crc32.Checksum(bytesOf(crcs), castagnoli)
}

// witness is what a rank tells of its state in a header.
type witness struct{ watch, audit uint64 }

func (s *State) witness(each Each) witness { return witness{s.watch(each), s.audit(each)} }

// mark names a state in acknowledgements and starts of views: what headers tell of
// it, and its history. It takes some milliseconds for 100 MB, where SHA-256 takes up
// to two hundred, and all nodes wait for it at every change of a view.
func (s *State) mark(w witness) (d [32]byte) {
	for i, x := range [...]uint64{w.watch, w.audit, uint64(s.watchHistory(0)), s.Transition} {
		binary.LittleEndian.PutUint64(d[8*i:], x)
	}
	return d
}

func (s *State) watchHistory(crc uint32) uint32 {
	for _, e := range s.History {
		crc = crc32.Update(crc, castagnoli, bytesOf([]uint64{uint64(e.Epoch), e.Step, e.Samples}))
		for _, v := range [][]Number{e.Train, e.Validation, {e.LR}} {
			crc = crc32.Update(crc, castagnoli, bytesOf(v))
		}
		for _, row := range e.Confusion {
			crc = crc32.Update(crc, castagnoli, bytesOf(row))
		}
	}
	return crc
}

// bytesOf views a slice of plain numbers as bytes. The order of bytes within a
// number is the machine's: all nodes of a run are little-endian, as checked at
// start.
func bytesOf[T int16 | uint32 | uint64 | float32 | float64 | Number](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}
