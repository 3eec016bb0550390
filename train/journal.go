package train

import (
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

// journal appends records to a file, from a goroutine of its own: nobody who writes a record waits for its
// encoding, nor for a disk, which may be behind a network and take any time. Events are written at once, steps
// when the driver says so.
type journal struct {
	file *os.File
	kick chan struct{} // holds a token if there is something to do
	gone chan struct{} // closed when the goroutine has ended
	last seal          // of the last line; the goroutine's
	text []byte        // lines being written; the goroutine's

	mu      sync.Mutex
	records []Record // that wait
	spare   []Record
	after   []func() // to be called when they are on their way
	err     error    // the first failure; told at close
	closed  bool
}

const (
	mostSteps   = 200     // may wait until they are written without being told to
	mostRecords = 100_000 // may wait for a disk, which is taken for dead then: those that come after are lost
	// journalPatience is how long the end of a node waits for the disk.
	journalPatience = 5 * time.Second
)

var errJournalStuck = fmt.Errorf("the disk takes nothing: %d lines wait for it, and further ones are lost", mostRecords)

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
	j := &journal{file: f, last: last, kick: make(chan struct{}, 1), gone: make(chan struct{})}
	if torn {
		j.text = append(j.text, '\n')
	}
	go j.run()
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

// run is the journal's goroutine. After a failure nothing is written any more: a line that lacks the one
// before it would be taken for changed.
func (j *journal) run() {
	defer close(j.gone)
	for range j.kick {
		records, after, failed, last := j.take()
		for _, r := range records {
			j.encode(r)
		}
		if len(j.text) > 0 && failed == nil {
			_, err := j.file.Write(j.text)
			j.fail(err)
		}
		j.text = j.text[:0]
		for _, f := range after {
			f()
		}
		if last {
			j.fail(j.file.Close())
			return
		}
	}
}

// take returns what is to be done.
func (j *journal) take() (records []Record, after []func(), failed error, last bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	records, after = j.records, j.after
	clear(j.spare)
	j.records, j.spare, j.after = j.spare[:0], records, nil
	return records, after, j.err, j.closed
}

func (j *journal) encode(r Record) {
	r.Number = j.last.number + 1
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("train: a record cannot be encoded: %v", err))
	}
	b = b[:len(b)-1] // the brace
	j.last = j.last.over(b)
	j.text = append(j.text, fmt.Appendf(b, sealBegin+"%x\"}\n", j.last.sum)...)
}

// wake has the goroutine look. The lock is held.
func (j *journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

func (j *journal) write(r Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.records) >= mostRecords && j.err == nil {
		j.err = errJournalStuck
	}
	if j.err != nil || j.closed {
		return
	}
	if j.records = append(j.records, r); r.T != "step" || len(j.records) > mostSteps {
		j.wake()
	}
}

func (j *journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
	}
}

// flush has what waits written, and returns the first failure so far.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wake()
	return j.err
}

// then calls f, from the journal's goroutine, when all that was written so far is with the
// system, or can't be.
func (j *journal) then(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.after = append(j.after, f)
	j.wake()
}

// close writes what is left, and returns the first failure. A disk that hangs is left behind after
// journalPatience, and the goroutine with it.
func (j *journal) close() error {
	j.mu.Lock()
	j.closed = true
	j.wake()
	j.mu.Unlock()
	select {
	case <-j.gone:
	case <-time.After(journalPatience):
		return fmt.Errorf("journal: the disk has not taken the last lines within %s", journalPatience)
	}
	if j.err != nil { // nobody else is left
		return fmt.Errorf("journal: %w", j.err)
	}
	return nil
}
