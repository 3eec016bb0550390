package dataset

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dlnode/dlnode/dataset/archive"
)

// Table is what the kinds have in common that read a sample from each row of a
// file, plain or .gz: values between commas, quoted as RFC 4180 has it, or between
// tabs, where no character quotes. It is UTF-8, with or without its mark, and lines
// end as on Unix or on Windows.
//
// The id of a sample is the number of its row, the header not counted and the
// training rows first.
type Table struct {
	Path      string  `yaml:"path" json:"-"`                // relative paths start at Env.Dir
	Test      string  `yaml:"test" json:"-"`                // the file of the test set; "" is none
	Delimiter string  `yaml:"delimiter" json:"delimiter"`   // "comma", "tab", or "auto" by the file's name: .tsv and .tab
	Header    bool    `yaml:"header" json:"header"`         // the first row names the columns; else they are called 1, 2, 3, …
	Shuffle   uint64  `yaml:"shuffle" json:"shuffle"`       // keys the order of the samples; 0 is that of the rows
	TestSplit float64 `yaml:"test_split" json:"test_split"` // the part of the samples, from the end, that is the test set; 0 is none
	OnBroken  string  `yaml:"on_broken" json:"on_broken"`   // "fail", or "skip" a row that can't be used
}

func tableDefaults() Table { return Table{Delimiter: "auto", Header: true, OnBroken: "fail"} }

func (t *Table) check(p *problems) {
	p.unless(t.Path != "", "path", `""`, "the path of a CSV or TSV file")
	p.unless(slices.Contains([]string{"auto", "comma", "tab"}, t.Delimiter), "delimiter", fmt.Sprintf("%q", t.Delimiter), "auto, comma or tab")
	p.checkSplit(t.TestSplit)
	p.unless(t.TestSplit == 0 || t.Test == "", "test_split", t.TestSplit, "0, as test names a file")
	p.checkBroken(t.OnBroken)
}

const (
	maxRow     = 16 << 20  // bytes; taken apart, a row of nothing but commas is 24 times as many
	maxRows    = 1<<31 - 1 // of one file
	maxColumns = 1 << 20
)

// table is a Table, opened.
type table struct {
	header      []string
	places      map[string]int // of the names in header
	train, test []row          // in the order of the samples
	bad         broken
}

// row is where a row lies.
type row struct {
	file   *tableFile
	offset int64
	size   int32
	line   int32
	id     uint64
}

// tableFile is one file of rows.
type tableFile struct {
	path string
	f    *os.File
	tab  bool
}

// decode opens the files and hands their rows to the kind, which packs them.
func (t *Table) decode(ctx context.Context, env Env, spec Spec, fill func(context.Context, *setWriter, *table) error) (train, test Dataset, err error) {
	h := sha256.New()
	for _, path := range []string{t.Path, t.Test} {
		if path == "" {
			continue
		}
		src, err := archive.Open(env.at(path))
		if err != nil {
			return nil, nil, err
		}
		digest, err := src.Digest(ctx)
		if err = errors.Join(err, src.Close()); err != nil {
			return nil, nil, err
		}
		h.Write(digest[:])
	}
	cache, err := env.cache()
	if err != nil {
		return nil, nil, err
	}
	return decodeOnce(ctx, env, spec, [sha256.Size]byte(h.Sum(nil)), func(ctx context.Context, w *setWriter) error {
		return t.with(ctx, env, filepath.Join(cache, "decoded"), func(tb *table) error { return fill(ctx, w, tb) })
	})
}

// with calls use with the rows of both files.
func (t *Table) with(ctx context.Context, env Env, tmp string, use func(*table) error) (err error) {
	tb := &table{bad: broken{skip: t.OnBroken == "skip"}}
	id := uint64(0)
	for i, path := range []string{t.Path, t.Test} {
		if path == "" {
			continue
		}
		f, err := archive.Plain(ctx, env.at(path), tmp)
		if err != nil {
			return err
		}
		defer f.Close() // only read from
		tab := t.Delimiter == "tab" || t.Delimiter == "auto" && isTSV(path)
		header, rows, n, err := (&tableFile{env.at(path), f, tab}).scan(ctx, t.Header, id, &tb.bad)
		if err != nil {
			return err
		}
		if tb.header == nil {
			tb.header, tb.places = header, placesOf(header)
		} else if !slices.Equal(header, tb.header) {
			return fmt.Errorf("%s:1: columns are %s, but those of %s are %s", path, someOf(header), t.Path, someOf(tb.header))
		}
		id += uint64(n)
		*[]*[]row{&tb.train, &tb.test}[i] = rows
	}
	tb.bad.total = int(id)
	permute(t.Shuffle, tb.train)
	permute(t.Shuffle, tb.test)
	cut, err := cutAt(len(tb.train), t.TestSplit)
	if err != nil {
		return err
	}
	if cut < len(tb.train) {
		tb.train, tb.test = tb.train[:cut], tb.train[cut:]
	}
	return use(tb)
}

func isTSV(path string) bool {
	path = strings.TrimSuffix(strings.ToLower(path), ".gz")
	return strings.HasSuffix(path, ".tsv") || strings.HasSuffix(path, ".tab")
}

// scan finds the rows of a file. Rows that are none go to bad, but for the header.
// n counts all of them.
func (f *tableFile) scan(ctx context.Context, named bool, firstID uint64, bad *broken) (header []string, rows []row, n int, err error) {
	next, last, err := readRows(io.NewSectionReader(f.f, 0, 1<<62), f.tab)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("%s: %w", f.path, err)
	}
	for {
		fields, line, end, err := next()
		if err == io.EOF {
			break
		}
		begin := last
		last = end
		if err == nil {
			err = checkFields(fields, header, end-begin)
		}
		if n++; n > maxRows {
			err = fmt.Errorf("more than %d rows", maxRows)
		}
		switch {
		case err == nil && header == nil:
			if header, err = headerOf(fields, named); err != nil {
				return nil, nil, 0, fmt.Errorf("%s:%d: %w", f.path, line, err)
			}
			if named {
				n--
				continue
			}
		case errors.As(err, new(*csv.ParseError)), errors.As(err, new(rowError)):
			if header == nil {
				return nil, nil, 0, fmt.Errorf("%s:%d: %w", f.path, line, err)
			}
			bad.note(fmt.Errorf("%s:%d: %w", f.path, line, err))
			continue
		case err != nil:
			return nil, nil, 0, fmt.Errorf("%s:%d: %w", f.path, line, err)
		}
		rows = append(rows, row{f, begin, int32(end - begin), int32(line), firstID + uint64(n-1)})
		if len(rows)%4096 == 0 && ctx.Err() != nil {
			return nil, nil, 0, ctx.Err()
		}
	}
	if len(rows) == 0 {
		return nil, nil, 0, errors.Join(fmt.Errorf("%s: no rows", f.path), bad.err(0))
	}
	return header, rows, n, nil
}

// rowError is what is wrong with a single row.
type rowError struct{ error }

// swallowed tells a quote that lines later has not come to its end: the rows in
// between are gone, so no option skips this one.
func swallowed(err error) error {
	if p := (*csv.ParseError)(nil); errors.As(err, &p) && p.Line > p.StartLine {
		return fmt.Errorf("a quote that is opened in line %d goes wrong in line %d, column %d: %w", p.StartLine, p.Line, p.Column, p.Err)
	}
	return err
}

// checkFields tells what is wrong with a row of size bytes.
func checkFields(fields, header []string, size int64) error {
	if size > maxRow {
		return rowError{fmt.Errorf("a row of %d bytes, want at most %d", size, maxRow)}
	}
	if header != nil && len(fields) != len(header) {
		return rowError{fmt.Errorf("%d fields, want %d", len(fields), len(header))}
	}
	for i, v := range fields {
		if !utf8.ValidString(v) {
			return rowError{fmt.Errorf("field %d is not UTF-8: %q", i+1, short(v))}
		}
		if strings.Contains(v, "\x00") {
			return rowError{fmt.Errorf("field %d has a byte 0x00 in it: %q (is the file UTF-16?)", i+1, short(v))}
		}
	}
	return nil
}

// headerOf names the columns.
func headerOf(fields []string, named bool) ([]string, error) {
	if len(fields) > maxColumns {
		return nil, fmt.Errorf("%d columns, want at most %d", len(fields), maxColumns)
	}
	header := slices.Clone(fields)
	first := make(map[string]int, len(header))
	for i := range header {
		if !named {
			header[i] = strconv.Itoa(i + 1)
			continue
		}
		header[i] = strings.TrimSpace(header[i])
		if k, dup := first[header[i]]; dup {
			return nil, fmt.Errorf("two columns, %d and %d, are called %q", k+1, i+1, short(header[i]))
		}
		first[header[i]] = i
	}
	return header, nil
}

// rowReader gives one row after another: its fields, the line it begins in, and the
// offset where it ends.
type rowReader func() (fields []string, line int, end int64, err error)

// readRows reads the rows of a table. The first begins at offset begin, behind the
// mark by which some programs tell UTF-8.
func readRows(in io.Reader, tab bool) (next rowReader, begin int64, err error) {
	r := bufio.NewReaderSize(in, readAhead)
	if begin, err = skipMark(r); err != nil {
		return nil, 0, err
	}
	limited := &rowLimit{r: r}
	rows := commaRows
	if tab {
		rows = tabRows
	}
	one := rows(limited, begin)
	return func() ([]string, int, int64, error) {
		limited.left = maxRow + 2*readAhead
		return one()
	}, begin, nil
}

// skipMark passes over a byte order mark and returns its length. That of UTF-16 is
// an error.
func skipMark(r *bufio.Reader) (int64, error) {
	b, err := r.Peek(len("\ufeff"))
	switch {
	case err != nil && err != io.EOF:
		return 0, err
	case string(b) == "\ufeff":
		n, err := r.Discard(len(b))
		return int64(n), err
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return 0, fmt.Errorf("offset 0: the bytes % x are the mark of UTF-16, want UTF-8", b[:2])
	}
	return 0, nil
}

// readAhead is more than readers of rows take at once.
const readAhead = 64 << 10

// rowLimit ends reading where a row has no end, before it is all in memory.
type rowLimit struct {
	r    io.Reader
	left int // bytes that the row may take
}

func (l *rowLimit) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("a row of more than %d bytes (is a quote never closed, or a line never ended?)", maxRow)
	}
	n, err := l.r.Read(p[:min(len(p), readAhead)])
	l.left -= n
	return n, err
}

// commaRows reads rows as RFC 4180 has them, and such of one line.
func commaRows(in io.Reader, begin int64) rowReader {
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.ReuseRecord = -1, true
	last := 1
	return func() ([]string, int, int64, error) {
		fields, err := r.Read()
		if p := (*csv.ParseError)(nil); errors.As(err, &p) {
			last = p.StartLine
		} else if err == nil {
			last, _ = r.FieldPos(0)
		}
		return fields, last, begin + r.InputOffset(), swallowed(err)
	}
}

// tabRows reads lines; empty ones are no rows.
func tabRows(in io.Reader, begin int64) rowReader {
	r := bufio.NewReaderSize(in, readAhead)
	line, end := 0, begin
	return func() ([]string, int, int64, error) {
		for {
			text, err := r.ReadString('\n')
			if err != nil && err != io.EOF {
				return nil, line + 1, end, err
			}
			if text == "" {
				return nil, line, end, err
			}
			line++
			end += int64(len(text))
			if text = strings.TrimRight(text, "\r\n"); text != "" {
				return strings.Split(text, "\t"), line, end, nil
			}
			if err != nil {
				return nil, line, end, err
			}
		}
	}
}

// Rows are those of a table that is read once, from the first on: to predict.
type Rows struct {
	Header []string // names of the columns

	next  rowReader
	first []string // the first row, if it is no header and has not been taken
	line  int      // of first
}

// BrokenRow is what is wrong with a single row. Those after it can be read.
type BrokenRow struct {
	Line int
	Err  error
}

// Error begins with the line.
func (e *BrokenRow) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong.
func (e *BrokenRow) Unwrap() error { return e.Err }

// ReadRows begins to read a table as the kinds csv and text_csv do: values between
// commas or tabs, the first row with the names of the columns where named; else they
// are called 1, 2, 3, …
func ReadRows(in io.Reader, tab, named bool) (*Rows, error) {
	next, begin, err := readRows(in, tab)
	if err != nil {
		return nil, err
	}
	r := &Rows{next: next}
	fields, line, end, err := r.next()
	if err == nil {
		err = checkFields(fields, nil, end-begin)
	}
	if err == nil {
		r.Header, err = headerOf(fields, named)
	}
	switch {
	case err == io.EOF:
		return nil, errors.New("no rows")
	case err != nil:
		return nil, fmt.Errorf("line %d: %w", line, err)
	case !named:
		r.first, r.line = slices.Clone(fields), line
	}
	return r, nil
}

// Next returns the fields of a row, as many as there are columns, and the line that
// it begins in. They are good until the next call. The error is io.EOF after the
// last row, or a *BrokenRow; after any other there are no more rows.
func (r *Rows) Next() (fields []string, line int, err error) {
	if fields, r.first = r.first, nil; fields != nil {
		return fields, r.line, nil
	}
	fields, line, _, err = r.next()
	if err == nil {
		err = checkFields(fields, r.Header, 0)
	}
	switch {
	case errors.As(err, new(*csv.ParseError)) || errors.As(err, new(rowError)):
		err = &BrokenRow{line, err}
	case err != nil && err != io.EOF:
		err = fmt.Errorf("line %d: %w", line, err)
	}
	return fields, line, err
}

// fields reads a row again.
func (r row) fields() ([]string, error) {
	b := make([]byte, r.size)
	if _, err := r.file.f.ReadAt(b, r.offset); err != nil && err != io.EOF {
		return nil, r.errorf("%w", err)
	}
	if r.file.tab {
		line := bytes.TrimRight(b, "\r\n")
		line = line[bytes.LastIndexByte(line, '\n')+1:] // empty ones before it
		return strings.Split(string(line), "\t"), nil
	}
	in := csv.NewReader(bytes.NewReader(b))
	fields, err := in.Read()
	if err != nil {
		return nil, r.errorf("%w", err)
	}
	return fields, nil
}

// errorf is an error that begins with the place of the row.
func (r row) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", r.file.path, r.line, fmt.Errorf(format, args...))
}

// column finds a column by its name; field is who asks.
func (t *table) column(field, name string) (int, error) {
	if i, known := t.places[name]; known {
		return i, nil
	}
	return 0, fmt.Errorf("%s: there is no column %q (want one of %s)", field, name, someOf(t.header))
}

// maxClasses bounds what is taken for a column of classes.
const maxClasses = 1 << 16

// classNames lists distinct names: as numbers if all of them are whole ones, else
// as strings.
func classNames(seen map[string]bool) []string {
	names := make([]string, 0, len(seen))
	whole := true
	for name := range seen {
		_, err := strconv.ParseInt(name, 10, 64)
		whole = whole && err == nil
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if whole {
			x, _ := strconv.ParseInt(a, 10, 64)
			y, _ := strconv.ParseInt(b, 10, 64)
			return cmp.Or(cmp.Compare(x, y), strings.Compare(a, b))
		}
		return strings.Compare(a, b)
	})
	return names
}
