package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Journal is a journal as it was read. A line that can't be believed is told, and
// no error: what the others say is worth something still.
type Journal struct {
	Path    string
	Records []Record
	Flaws   []Flaw // lines that are not what was written, or are not there any more
	Torn    []int  // lines that a process began and, killed, did not end
	Old     int    // lines without a checksum, of a program that wrote none
}

// Flaw is what is wrong with a line of a journal.
type Flaw struct {
	Path   string
	Line   int // from 1
	Reason string
}

func (f Flaw) String() string { return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Reason) }

// MaxJournalLine bounds a line of a journal, in bytes.
const MaxJournalLine = 1 << 20

// ReadJournal reads a journal and checks its chain. The error is that of the file,
// or says that it is no journal.
func ReadJournal(path string) (*Journal, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return readJournal(path, f)
}

func readJournal(path string, f io.Reader) (*Journal, error) {
	r := journalReader{j: &Journal{Path: path}}
	in := bufio.NewReaderSize(f, MaxJournalLine)
	for number := 1; ; number++ {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%s:%d: a line of more than %d bytes: this is no journal", path, number, MaxJournalLine)
		}
		r.line(number, bytes.TrimSuffix(line, []byte("\n")))
		if errors.Is(err, io.EOF) {
			r.end()
			return r.j, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
}

// journalReader goes over the lines of a journal.
type journalReader struct {
	j      *Journal
	last   seal  // of the line before
	sealed bool  // there was one
	broken []int // lines that are no records, which come to be torn or flaws
}

func (r *journalReader) line(number int, line []byte) {
	if len(line) == 0 {
		return
	}
	rec := Record{}
	err := json.Unmarshal(line, &rec)
	body, sum, ok := cutSeal(line)
	if err != nil {
		r.broken = append(r.broken, number)
		if ok { // the next line may be as it was
			r.last, r.sealed = seal{r.last.number + 1, sum}, true
			r.judgeBroken(false)
		}
		return
	}
	r.judgeBroken(rec.T == "open")
	rec.Line = number
	switch {
	case ok:
		rec.Flawed = !r.follows(number, body, rec, sum)
		r.last, r.sealed = seal{rec.Number, sum}, true
	case r.sealed:
		r.flaw(number, "has no checksum, though lines before it have: it was put in, or changed")
		rec.Flawed = true
	default:
		r.j.Old++
	}
	r.j.Records = append(r.j.Records, rec)
}

// follows tells whether a line is the one that was written after the one before.
func (r *journalReader) follows(number int, body []byte, rec Record, sum [8]byte) bool {
	want := r.last.over(body)
	switch {
	case want == seal{rec.Number, sum}:
		return true
	case rec.Number > want.number:
		r.flaw(number, fmt.Sprintf("is number %d of the journal, where number %d belongs: lines before it are missing, or it was moved", rec.Number, want.number))
	case rec.Number < want.number:
		r.flaw(number, fmt.Sprintf("is number %d of the journal, where number %d belongs: it was put in, or moved", rec.Number, want.number))
	default:
		r.flaw(number, fmt.Sprintf("checksum %x, want %x: it, or the one before it, was changed after it was written", sum, want.sum))
	}
	return false
}

func (r *journalReader) flaw(number int, reason string) {
	r.j.Flaws = append(r.j.Flaws, Flaw{r.j.Path, number, reason})
}

// judgeBroken says what lines are that are no records. Where a process was killed
// the last line is half of one, and the next is of another process.
func (r *journalReader) judgeBroken(torn bool) {
	for _, number := range r.broken {
		if torn || !r.sealed {
			r.j.Torn = append(r.j.Torn, number)
		} else {
			r.flaw(number, "is no record: it was changed after it was written")
		}
	}
	r.broken = r.broken[:0]
}

func (r *journalReader) end() { r.judgeBroken(true) }
