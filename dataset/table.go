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
// tabs, where no character quotes.
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
	maxRow  = 64 << 20  // bytes
	maxRows = 1<<31 - 1 // of one file
)

// table is a Table, opened.
type table struct {
	header      []string
	train, test []row // in the order of the samples
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
			tb.header = header
		} else if !slices.Equal(header, tb.header) {
			return fmt.Errorf("%s:1: columns are %q, but those of %s are %q", path, header, t.Path, tb.header)
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
	next := f.reader()
	var last int64
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
		return nil, nil, 0, errors.Join(fmt.Errorf("%s: no rows", f.path), bad.err())
	}
	return header, rows, n, nil
}

// rowError is what is wrong with a single row.
type rowError struct{ error }

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
			return rowError{fmt.Errorf("field %d is not UTF-8: %q", i+1, v)}
		}
	}
	return nil
}

// headerOf names the columns.
func headerOf(fields []string, named bool) ([]string, error) {
	header := slices.Clone(fields)
	for i := range header {
		if !named {
			header[i] = strconv.Itoa(i + 1)
			continue
		}
		header[i] = strings.TrimSpace(strings.TrimPrefix(header[i], "\ufeff"))
		if slices.Contains(header[:i], header[i]) {
			return nil, fmt.Errorf("two columns are called %q", header[i])
		}
	}
	return header, nil
}

// reader returns a function that gives one row after another: its fields, the line
// it begins in, and the offset where it ends.
func (f *tableFile) reader() rowReader {
	return readRows(io.NewSectionReader(f.f, 0, 1<<62), f.tab)
}

type rowReader func() (fields []string, line int, end int64, err error)

func readRows(in io.Reader, tab bool) rowReader {
	if tab {
		return tabRows(bufio.NewReaderSize(in, 64<<10))
	}
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.ReuseRecord = -1, true
	return func() ([]string, int, int64, error) {
		fields, err := r.Read()
		line := 0
		if p := (*csv.ParseError)(nil); errors.As(err, &p) {
			line = p.StartLine
		} else if err == nil {
			line, _ = r.FieldPos(0)
		}
		return fields, line, r.InputOffset(), err
	}
}

// tabRows reads lines; empty ones are no rows.
func tabRows(r *bufio.Reader) rowReader {
	line, end := 0, int64(0)
	return func() ([]string, int, int64, error) {
		for {
			text, err := r.ReadString('\n')
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
	r := &Rows{next: readRows(in, tab)}
	fields, line, end, err := r.next()
	if err == nil {
		err = checkFields(fields, nil, end)
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
// last row, or a *BrokenRow.
func (r *Rows) Next() (fields []string, line int, err error) {
	if fields, r.first = r.first, nil; fields != nil {
		return fields, r.line, nil
	}
	fields, line, _, err = r.next()
	if err == nil {
		err = checkFields(fields, r.Header, 0)
	}
	if errors.As(err, new(*csv.ParseError)) || errors.As(err, new(rowError)) {
		err = &BrokenRow{line, err}
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
		return strings.Split(strings.Trim(string(b), "\r\n"), "\t"), nil
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
	if i := slices.Index(t.header, name); i >= 0 {
		return i, nil
	}
	shown := t.header[:min(len(t.header), 20)]
	return 0, fmt.Errorf("%s: there is no column %q (want one of %s)", field, name, strings.Join(shown, ", "))
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
