package train

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Record is a line of a run directory's journal.jsonl. T says which one:
//
//	start  a process began: Node, Incarnation, Transition (of the state it has), Text (trajectory)
//	event  a line of the story: Kind, Generation, Step, About, Text, Millis
//	step   a transition was completed here: Transition, Kind, Step, Generation, World, Lo, Hi, Repeat, Samples, Millis, Waited, Read, Watch
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
	World       int       `json:"world,omitempty"`
	Transition  uint64    `json:"transition"`
	Step        uint64    `json:"step"`
	Lo          int       `json:"lo"` // microbatches [lo, hi) were computed here
	Hi          int       `json:"hi"`
	Repeat      int       `json:"repeat,omitempty"`
	Samples     uint64    `json:"samples,omitempty"` // of the step, over all ranks
	Millis      float64   `json:"ms,omitempty"`
	Waited      float64   `json:"data_ms,omitempty"` // of Millis, for samples
	Read        float64   `json:"read_ms,omitempty"` // spent reading samples, ahead of their use or not; not within Millis
	Loss        *Number   `json:"loss,omitempty"`    // mean over the step
	Watch       string    `json:"watch,omitempty"`
	Epoch       int       `json:"epoch,omitempty"`         // from 1
	LR          *Number   `json:"learning_rate,omitempty"` // of the epoch's last step
	Values      []Value   `json:"values,omitempty"`        // as job files name them: "loss", "val_accuracy"
}

// journal appends records to a file. Events are written through at once, steps
// when the driver says so.
type journal struct {
	mu   sync.Mutex
	file *os.File
	buf  *bufio.Writer
	err  error // the first failure; told at Close
}

func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "journal.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &journal{file: f, buf: bufio.NewWriterSize(f, 64<<10)}, nil
}

func (j *journal) write(r Record) {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("train: a record cannot be encoded: %v", err))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.buf.Write(append(b, '\n'))
	j.fail(err)
	if r.T != "step" {
		j.fail(j.buf.Flush())
	}
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
