package train

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Record is a line of a run directory's journal.jsonl. T says which one:
//
//	open   a process opened the journal: the first line that it writes, even where it never comes to train
//	start  it began: Node, Incarnation, Transition (of the state it has), Text (trajectory)
//	event  a line of the story: Kind, Generation, View, Step, About, Text, Millis
//	step   a transition was completed here: Transition, Kind, Step, Generation, World, Lo, Hi, Repeat, Nonfinite, Doubted, Samples, Millis, Waited,
//	       Read, Watch, and of an update that was applied Gradient and Own
//	epoch  an epoch ended, with its validation if there is one: Epoch, Step, Samples, LR, Values; and Millis, Waited, Read of
//	       the steps of it that were taken here
//	end    the process ended in order: Text, Transition, Step
//
// Everything that depends on when and where stands here, and only here: a
// checkpoint's bytes are a function of trajectory and state alone.
type Record struct {
	T           string    `json:"t"`
	Time        time.Time `json:"time"`
	Node        string    `json:"node,omitempty"`
	Incarnation uint64    `json:"incarnation,omitempty"`
	Kind        string    `json:"kind,omitempty"`
	About       string    `json:"about,omitempty"`
	Text        string    `json:"text,omitempty"`
	Generation  uint64    `json:"generation,omitempty"`
	View        string    `json:"view,omitempty"` // Event.View: two halves of a cut network may have views of one generation
	World       int       `json:"world,omitempty"`
	Transition  uint64    `json:"transition"`
	Step        uint64    `json:"step"`
	Lo          int       `json:"lo"` // microbatches [lo, hi) were computed here
	Hi          int       `json:"hi"`
	Repeat      int       `json:"repeat,omitempty"`    // attempts before the one that counted: for exponents, but for those of
	Nonfinite   int       `json:"nonfinite,omitempty"` // a result that was no number, and
	Doubted     int       `json:"doubted,omitempty"`   // sums that changed on their way
	Samples     uint64    `json:"samples,omitempty"`   // of the step, over all ranks
	Millis      float64   `json:"ms,omitempty"`
	Waited      float64   `json:"data_ms,omitempty"`       // of Millis, for samples
	Read        float64   `json:"read_ms,omitempty"`       // spent reading samples, ahead of their use or not; not within Millis
	Loss        *Number   `json:"loss,omitempty"`          // mean over the step
	Watch       string    `json:"watch,omitempty"`         // digest of the state before the transition
	Gradient    string    `json:"gradient,omitempty"`      // the integers of the gradient, of all ranks, summed mod 2^64
	Own         string    `json:"own,omitempty"`           // this rank's part of them
	Epoch       int       `json:"epoch,omitempty"`         // from 1
	LR          *Number   `json:"learning_rate,omitempty"` // of the epoch's last step
	Values      []Value   `json:"values,omitempty"`        // as job files name them: "loss", "val_accuracy"

	// The chain, see seal.
	Number uint64 `json:"n,omitempty"`   // of the line, from 1, over all processes that wrote to the file
	Sum    string `json:"sum,omitempty"` // always the last field

	Line   int  `json:"-"` // of the file, from 1
	Flawed bool `json:"-"` // the chain says that it is not what was written
}

// JournalName is the file that a node writes, in its own directory.
const JournalName = "journal.jsonl"

// seal is what binds a line of a journal to those before it: its number, and the
// first 8 bytes of
//
//	SHA-256(sum of the line before, 8 bytes │ the line up to its own sum)
//
// So a line that was changed, taken out, put in or moved shows. It is no
// signature: who can write the file can write all of it anew, with other sums. That
// is what the computation itself is held against, by dlnode replay.
type seal struct {
	number uint64
	sum    [8]byte
}

// over returns the seal of the next line, whose text up to its sum is body.
func (s seal) over(body []byte) seal {
	h := sha256.New()
	h.Write(s.sum[:])
	h.Write(body)
	return seal{s.number + 1, [8]byte(h.Sum(nil))}
}

const (
	sealBegin = `,"sum":"`
	sealLen   = len(sealBegin) + 16 + len(`"}`)
)

// cutSeal splits a line into what its sum is over, and the sum.
func cutSeal(line []byte) (body []byte, sum [8]byte, ok bool) {
	n := len(line) - sealLen
	if n < 0 || !bytes.HasPrefix(line[n:], []byte(sealBegin)) || !bytes.HasSuffix(line, []byte(`"}`)) {
		return line, sum, false
	}
	text := line[n+len(sealBegin) : len(line)-2]
	_, err := hex.Decode(sum[:], text)
	return line[:n], sum, err == nil && bytes.Equal(text, bytes.ToLower(text))
}

// journal appends records to a file. Events are written through at once, steps
// when the driver says so: until then they wait as they are, so that no step
// waits for their encoding.
type journal struct {
	mu    sync.Mutex
	file  *os.File
	buf   *bufio.Writer
	steps []Record // that wait
	last  seal     // of the line written last
	err   error    // the first failure; told at Close
}

// mostSteps is how many may wait.
const mostSteps = 200

// openJournal goes on with the journal of a directory, or begins one. Where a
// process before died within a line, the next one begins a line of its own.
func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, JournalName), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	last, torn, err := readTail(f)
	if err != nil {
		f.Close() // nothing was written
		return nil, fmt.Errorf("journal: %s: %w", f.Name(), err)
	}
	j := &journal{file: f, buf: bufio.NewWriterSize(f, 64<<10), last: last}
	if torn {
		j.fail(j.buf.WriteByte('\n'))
	}
	j.write(Record{T: "open", Time: time.Now()})
	return j, nil
}

// readTail returns the seal of the last line that has one, and whether the file
// ends within a line. There is none in a journal of a program that wrote no sums.
func readTail(f *os.File) (last seal, torn bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return seal{}, false, err
	}
	tail := make([]byte, min(info.Size(), 2*MaxJournalLine))
	if n, err := f.ReadAt(tail, info.Size()-int64(len(tail))); n < len(tail) {
		return seal{}, false, err
	}
	torn = len(tail) > 0 && tail[len(tail)-1] != '\n'
	lines := bytes.Split(tail, []byte("\n"))
	for _, line := range slices.Backward(lines[:len(lines)-1]) {
		var r Record
		if _, sum, ok := cutSeal(line); ok && json.Unmarshal(line, &r) == nil {
			return seal{r.Number, sum}, torn, nil
		}
	}
	return seal{}, torn, nil
}

func (j *journal) write(r Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.T == "step" && len(j.steps) < mostSteps {
		j.steps = append(j.steps, r)
		return
	}
	j.encodeSteps()
	j.encode(r)
	if r.T != "step" {
		j.fail(j.buf.Flush())
	}
}

// encodeSteps encodes those that wait.
func (j *journal) encodeSteps() {
	for _, r := range j.steps {
		j.encode(r)
	}
	clear(j.steps)
	j.steps = j.steps[:0]
}

func (j *journal) encode(r Record) {
	r.Number = j.last.number + 1
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("train: a record cannot be encoded: %v", err))
	}
	b = b[:len(b)-1] // the brace
	j.last = j.last.over(b)
	_, err = j.buf.Write(fmt.Appendf(b, sealBegin+"%x\"}\n", j.last.sum))
	j.fail(err)
}

func (j *journal) fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// flush writes what is buffered and returns the first failure so far.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.encodeSteps()
	j.fail(j.buf.Flush())
	return j.err
}

func (j *journal) close() error {
	err := j.flush()
	if e := j.file.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
