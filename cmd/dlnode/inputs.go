package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/checkpoint"
	"github.com/dlnode/dlnode/dataset"
	"github.com/dlnode/dlnode/job"
)

// The kinds of files that samples are read from.
const (
	imageKind = "image" // one JPEG or PNG
	textKind  = "text"  // one text
	linesKind = "lines" // a text in each line
	csvKind   = "csv"   // a row for each sample
	tsvKind   = "tsv"
	idxKind   = "idx"  // images of bytes
	jsonKind  = "json" // arrays of numbers
)

var kinds = []string{imageKind, textKind, linesKind, csvKind, tsvKind, idxKind, jsonKind}

func checkKind(as string) error {
	if as == "" || slices.Contains(kinds, as) {
		return nil
	}
	return usage("--as: %q is not allowed (want %s)", as, strings.Join(kinds, ", "))
}

// kindOfName tells by the ending of a name; "" where it says nothing.
func kindOfName(name string) string {
	ext := filepath.Ext(strings.TrimSuffix(strings.ToLower(name), ".gz"))
	for _, kind := range kinds {
		if slices.Contains(endings[kind], ext) {
			return kind
		}
	}
	return ""
}

// endings are those of names by which files are known.
var endings = map[string][]string{
	imageKind: {".jpg", ".jpeg", ".png"},
	textKind:  {".txt"},
	csvKind:   {".csv"},
	tsvKind:   {".tsv", ".tab"},
	idxKind:   {".idx"},
	jsonKind:  {".json", ".jsonl"},
}

// maxFile bounds a file that is one sample.
const maxFile = 256 << 20

// inputs finds samples in what predict is called with.
type inputs struct {
	m       *Main
	at      string           // of the checkpoint
	meaning *dataset.Meaning // nil where the checkpoint does not tell
	as      string           // of all files; "" tells by each
	column  string           // of the texts in a table
	named   bool             // the first row of a table names its columns
	tab     bool             // tables have tabs whatever they are called
	failed  int              // files and samples that can't be read
}

func (m *Main) newInputs(snap *checkpoint.Snapshot, at string, f predictFlags) (*inputs, error) {
	meaning, err := dataset.DecodeMeaning(snap.Data)
	if err != nil {
		return nil, exit(codeData, fmt.Errorf("%s: data.json: %w", at, err))
	}
	maths, err := job.Restore(snap.Job)
	if err != nil {
		return nil, exit(codeData, fmt.Errorf("%s: %w", at, err))
	}
	in := &inputs{m: m, at: at, meaning: meaning, as: f.as, column: "text", named: true}
	switch spec := maths.Data.(type) {
	case *dataset.CSV:
		in.named, in.tab = spec.Header, spec.Delimiter == "tab"
	case *dataset.TextCSV:
		in.named, in.tab, in.column = spec.Header, spec.Delimiter == "tab", spec.Text
	}
	if f.column != "" {
		in.column = f.column
	}
	return in, nil
}

// trained is what the model was trained on.
func (in *inputs) trained() string {
	if in.meaning == nil || in.meaning.Preprocess == nil {
		return jsonKind
	}
	switch p := in.meaning.Preprocess; {
	case p.Image != nil:
		return imageKind
	case p.Text != nil:
		return textKind
	}
	return csvKind
}

// takes lists the kinds of files that can become numbers for the model.
func (in *inputs) takes() []string {
	switch in.trained() {
	case imageKind:
		return []string{imageKind, idxKind, jsonKind}
	case textKind:
		return []string{textKind, linesKind, csvKind, tsvKind, jsonKind}
	case csvKind:
		return []string{csvKind, tsvKind, jsonKind}
	}
	return []string{idxKind, jsonKind}
}

func (in *inputs) classNames() []string {
	if in.meaning == nil {
		return nil
	}
	return in.meaning.ClassNames
}

// broken tells of something that can't be read, and counts it.
func (in *inputs) broken(err error) {
	in.failed++
	fmt.Fprintf(in.m.Stderr, "dlnode: %v\n", err)
}

// each calls use for the samples of all files. What can't be read is left out; an
// error ends it.
func (in *inputs) each(paths []string, use func(raw) error) error {
	for _, path := range paths {
		if err := in.path(path, use); err != nil {
			return err
		}
	}
	return nil
}

func (in *inputs) path(path string, use func(raw) error) error {
	if path == "-" {
		return in.file(path, use)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		in.broken(err)
		return nil
	case info.IsDir():
		return in.directory(path, use)
	}
	return in.file(path, use)
}

// directory takes the files below it that are of the kind that the model was
// trained on, in the order of their names, but for hidden ones.
func (in *inputs) directory(dir string, use func(raw) error) error {
	found := 0
	wanted := endingsLike(cmp.Or(in.as, in.trained()))
	err := filepath.WalkDir(dir+string(filepath.Separator), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			in.broken(err)
			return nil
		}
		hidden := strings.HasPrefix(d.Name(), ".") && d.Name() != "."
		if d.IsDir() && hidden && filepath.Clean(path) != filepath.Clean(dir) {
			return fs.SkipDir
		}
		if d.IsDir() || hidden || !slices.Contains(wanted, strings.ToLower(filepath.Ext(path))) {
			return nil
		}
		found++
		return in.file(path, use)
	})
	if err == nil && found == 0 {
		in.broken(fmt.Errorf("%s: none of its files is called *%s", dir, strings.Join(wanted, ", *")))
	}
	return err
}

// endingsLike returns the endings of files that are taken from a directory.
func endingsLike(kind string) []string {
	switch kind {
	case linesKind:
		return endings[textKind]
	case csvKind, tsvKind:
		return slices.Concat(endings[csvKind], endings[tsvKind])
	}
	return endings[kind]
}

// file takes the samples of a file, or of standard input.
func (in *inputs) file(path string, use func(raw) error) error {
	kind := in.as
	if kind == "" {
		kind = kindOfName(path)
	}
	if lone := kind == imageKind || kind == textKind; lone && path != "-" {
		return in.one(path, kind, func() ([]byte, error) { return readWhole(path) }, use)
	}
	r, err := in.open(path)
	if err != nil {
		in.broken(err)
		return nil
	}
	defer r.Close() // only read from
	b := bufio.NewReaderSize(r, 64<<10)
	if kind == "" {
		kind = in.kindOfStart(b)
	}
	if kind == imageKind || kind == textKind {
		whole, err := io.ReadAll(io.LimitReader(b, maxFile+1))
		return in.one(path, kind, func() ([]byte, error) { return whole, errors.Join(err, checkLength(len(whole))) }, use)
	}
	if err := in.check(path, kind); err != nil {
		return err
	}
	if kind != idxKind {
		plain, err := unzipped(b)
		if err != nil {
			in.broken(fmt.Errorf("%s: %w", path, err))
			return nil
		}
		b = bufio.NewReaderSize(plain, 64<<10)
	}
	read := map[string]func(string, *bufio.Reader, func(raw) error) error{
		linesKind: in.lines, csvKind: in.rows(in.tab), tsvKind: in.rows(true), idxKind: in.idx, jsonKind: in.json,
	}[kind]
	return read(path, b, use)
}

// check tells whether files of a kind can become numbers for the model.
func (in *inputs) check(path, kind string) error {
	if slices.Contains(in.takes(), kind) {
		return nil
	}
	what := "images"
	switch in.trained() {
	case textKind:
		what = "texts"
	case csvKind:
		what = "tables"
	case jsonKind:
		what = "numbers, or does not say how files become numbers"
	}
	return exit(codeForeign, fmt.Errorf("%s: is of the kind %s, but %s was trained on %s (want %s)",
		path, kind, in.at, what, strings.Join(in.takes(), ", ")))
}

func (in *inputs) open(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(in.m.Stdin), nil
	}
	return os.Open(path)
}

// kindOfStart tells by the first bytes of a file whose name says nothing.
func (in *inputs) kindOfStart(b *bufio.Reader) string {
	head, _ := b.Peek(8) // what can't be read is told by who reads
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xd8")), bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")):
		return imageKind
	case in.trained() == textKind || in.trained() == csvKind:
		return in.trained()
	case len(head) > 0 && (head[0] == 0 || head[0] == 0x1f): // IDX, gzip
		return idxKind
	}
	return jsonKind
}

// readWhole reads a file that is one sample.
func readWhole(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close() // only read from
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	return b, checkLength(len(b))
}

func checkLength(n int) error {
	if n > maxFile {
		return fmt.Errorf("more than %d bytes", maxFile)
	}
	return nil
}

// withoutPath takes off a path that the error begins with already.
func withoutPath(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// unzipped is what is in a .gz, or the bytes themselves.
func unzipped(b *bufio.Reader) (io.Reader, error) {
	if head, _ := b.Peek(2); !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("gzip header: %w", err)
	}
	return z, nil
}

// one takes a file that is one sample, an image or a text.
func (in *inputs) one(path, kind string, file func() ([]byte, error), use func(raw) error) error {
	if err := in.check(path, kind); err != nil {
		return err
	}
	decode := in.meaning.TextFile
	if kind == imageKind {
		decode = in.meaning.Image
	}
	return use(raw{file: path, lone: true, shape: in.meaning.Input, fill: func(x []float32) error {
		b, err := file()
		if err != nil {
			return err
		}
		return decode(b, x)
	}})
}

// maxLine bounds a text in a line.
const maxLine = 64 << 20

// lines takes a text from each line; those with nothing but spaces are none.
func (in *inputs) lines(path string, b *bufio.Reader, use func(raw) error) error {
	s := bufio.NewScanner(b)
	s.Buffer(nil, maxLine)
	for n := 0; s.Scan(); {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		line := bytes.Clone(s.Bytes())
		err := use(raw{file: path, sample: n, shape: in.meaning.Input, fill: func(x []float32) error {
			return in.meaning.TextFile(line, x)
		}})
		if err != nil {
			return err
		}
		n++
	}
	if err := s.Err(); err != nil {
		in.broken(fmt.Errorf("%s: %w", path, err))
	}
	return nil
}

// rows returns what takes the rows of a table, with tabs or commas.
func (in *inputs) rows(tab bool) func(string, *bufio.Reader, func(raw) error) error {
	return func(path string, b *bufio.Reader, use func(raw) error) error {
		rows, err := dataset.ReadRows(b, tab, in.named)
		var encode func(fields []string, x []float32) error
		if err == nil {
			encode, err = in.encoder(rows.Header)
		}
		if err != nil {
			in.broken(fmt.Errorf("%s: %w", path, err))
			return nil
		}
		for n := 0; ; n++ {
			fields, line, err := rows.Next()
			switch {
			case err == io.EOF:
				return nil
			case errors.As(err, new(*dataset.BrokenRow)):
				in.broken(fmt.Errorf("%s: %w", path, err))
				continue
			case err != nil: // what comes after can't be read either
				in.broken(fmt.Errorf("%s: line %d: %w", path, line, err))
				return nil
			}
			kept := slices.Clone(fields)
			err = use(raw{file: path, sample: n, shape: in.meaning.Input, fill: func(x []float32) error {
				return encode(kept, x)
			}})
			if err != nil {
				return err
			}
		}
	}
}

// encoder returns what makes numbers of a row of a table with these columns. The
// table must have those that the model was trained on; others are not looked at.
func (in *inputs) encoder(header []string) (func(fields []string, x []float32) error, error) {
	wanted := []string{in.column}
	if p := in.meaning.Preprocess; p.Table != nil {
		wanted = nil
		for _, c := range p.Table.Columns {
			wanted = append(wanted, c.Name)
		}
	}
	place := map[string]int{}
	for _, name := range wanted {
		i := slices.Index(header, name)
		if i < 0 {
			return nil, fmt.Errorf("there is no column %q (want one of %s)", name, strings.Join(header[:min(len(header), 20)], ", "))
		}
		place[name] = i
	}
	if in.trained() == textKind {
		return func(fields []string, x []float32) error {
			in.meaning.Text(fields[place[in.column]], x)
			return nil
		}, nil
	}
	return func(fields []string, x []float32) error {
		return in.meaning.Row(func(name string) string { return fields[place[name]] }, x)
	}, nil
}
