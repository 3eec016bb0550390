// Package archive reads the files of a data set from a directory, a tar (plain or
// .gz) or a zip, whichever lies there, as one sorted list with random access.
package archive

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

const (
	// maxMembers bounds the list, about 200 bytes of memory each.
	maxMembers = 20_000_000
	// maxSpool bounds what a .gz is unpacked to.
	maxSpool = 1 << 40
)

// Source is a directory or an archive, opened.
type Source struct {
	path string
	dir  bool
	file *os.File // the archive
}

// Open opens what lies at path.
func Open(path string) (*Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		return &Source{path: path, dir: true}, f.Close()
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: neither a directory nor a file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Source{path: path, file: f}, nil
}

// Close closes the archive.
func (s *Source) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// Digest names the content: SHA-256 of an archive as it lies there; of a directory,
// that of names, lengths and digests of all files, in the order of their names.
func (s *Source) Digest(ctx context.Context) ([sha256.Size]byte, error) {
	if s.dir {
		return s.digestDir(ctx)
	}
	return digestFile(ctx, s.file, s.path)
}

func digestFile(ctx context.Context, f *os.File, name string) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if _, err = io.Copy(h, &interruptible{ctx, io.NewSectionReader(f, 0, 1<<62)}); err != nil {
		return sum, fmt.Errorf("%s: %w", name, err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

func (s *Source) digestDir(ctx context.Context) (sum [sha256.Size]byte, err error) {
	files, err := s.listDir()
	if err != nil {
		return sum, err
	}
	lines := make([]string, len(files.Members))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, m := range files.Members {
		g.Go(func() error {
			f, err := os.Open(files.at(m))
			if err != nil {
				return err
			}
			defer f.Close() // only read from
			sum, err := digestFile(ctx, f, files.at(m))
			lines[i] = fmt.Sprintf("%q %d %s\n", m.Name, m.Size, hex.EncodeToString(sum[:]))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return sum, err
	}
	h := sha256.New()
	for _, line := range lines {
		io.WriteString(h, line) // hash.Hash: never returns an error
	}
	h.Sum(sum[:0])
	return sum, nil
}

// interruptible ends reading when its context ends.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// Files are the regular files of a source, but for hidden ones.
type Files struct {
	Path    string   // of the source
	Members []Member // sorted by name, which are distinct
	Dirs    []string // names of the directories that are known, sorted
	Links   []string // names of links that are not followed: to directories, and all in an archive

	dir  bool
	data io.ReaderAt          // where members of a tar lie
	zips map[string]*zip.File // by name
	temp *os.File             // what a .gz was unpacked to; its name is gone
}

// Member is one file.
type Member struct {
	Name string // slash-separated, below the source
	Size int64

	offset int64 // in a tar
}

// List lists the files. A .gz is unpacked for that into a file in the directory
// tmp, which is gone when Close is called, however the process ends.
func (s *Source) List(ctx context.Context, tmp string) (*Files, error) {
	if s.dir {
		return s.listDir()
	}
	var head [512]byte
	n, err := s.file.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	var files *Files
	switch h := string(head[:n]); {
	case strings.HasPrefix(h, "\x1f\x8b"):
		files, err = s.listGzip(ctx, tmp)
	case strings.HasPrefix(h, "PK\x03\x04"):
		files, err = s.listZip()
	case n == len(head) && h[257:262] == "ustar":
		files, err = s.listTar(ctx, s.file)
	default:
		err = fmt.Errorf("offset 0: neither tar, tar.gz nor zip: it starts with % x", head[:min(n, 4)])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return files, files.tidy()
}

// Close lets go of what was unpacked.
func (f *Files) Close() error {
	if f.temp == nil {
		return nil
	}
	return f.temp.Close()
}

// hidden tells files that operating systems leave behind.
func hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || part == "__MACOSX" {
			return true
		}
	}
	return false
}

// kind is what a source says that a member is.
type kind int

const (
	aFile kind = iota
	aDir
	aLink
)

// add appends a file, a directory or a link under its cleaned name.
func (f *Files) add(name string, is kind, size, offset int64) error {
	if !f.dir { // archives made on Windows
		name = strings.ReplaceAll(name, `\`, "/")
	}
	name = path.Clean(name)
	switch {
	case name == "." || name == "..":
		return nil
	case strings.HasPrefix(name, "/") || strings.HasPrefix(name, "../"):
		return fmt.Errorf("member %q leads out of the archive", name)
	case hidden(name):
		return nil
	case is == aDir:
		f.Dirs = append(f.Dirs, name)
		return nil
	case is == aLink:
		f.Links = append(f.Links, name)
		return nil
	case len(f.Members) == maxMembers:
		return fmt.Errorf("more than %d files", maxMembers)
	}
	f.Members = append(f.Members, Member{name, size, offset})
	return nil
}

// tidy sorts, and tells a name that stands there twice.
func (f *Files) tidy() error {
	slices.SortFunc(f.Members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(f.Links)
	slices.Sort(f.Dirs)
	f.Dirs = slices.Compact(f.Dirs)
	for i := 1; i < len(f.Members); i++ {
		if f.Members[i].Name == f.Members[i-1].Name {
			return errors.Join(fmt.Errorf("%s: two members are called %q", f.Path, f.Members[i].Name), f.Close())
		}
	}
	return nil
}

// listDir walks a directory. Links to files are followed; links to directories,
// which may lead around in a circle, are not.
func (s *Source) listDir() (*Files, error) {
	files := &Files{Path: s.path, dir: true}
	root, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, at)
		if err != nil || name == "." {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case hidden(name) && d.IsDir():
			return fs.SkipDir
		case hidden(name): // such as the dangling link by which an editor locks a file
			return nil
		case d.IsDir():
			return files.add(name, aDir, 0, 0)
		}
		info, err := os.Stat(at)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return files.add(name, aLink, 0, 0)
		case !info.Mode().IsRegular():
			return nil // sockets and devices
		}
		return files.add(name, aFile, info.Size(), 0)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return files, files.tidy()
}

func (s *Source) listGzip(ctx context.Context, tmp string) (*Files, error) {
	temp, err := unpack(ctx, s.file, tmp)
	if err != nil {
		return nil, err
	}
	files, err := s.listTar(ctx, temp)
	if err != nil {
		return nil, errors.Join(err, temp.Close())
	}
	files.temp = temp
	return files, nil
}

// Plain opens a file, unpacked if it is gzip: then what it returns lies in the
// directory tmp without a name, as with List.
func Plain(ctx context.Context, path, tmp string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var head [2]byte
	if n, err := f.ReadAt(head[:], 0); n < len(head) || err != nil || head != [2]byte{0x1f, 0x8b} {
		return f, nil // what can't be read is told by who reads
	}
	temp, err := unpack(ctx, f, tmp)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return temp, nil
}

// unpack writes what is in a .gz to a file without a name.
func unpack(ctx context.Context, f *os.File, tmp string) (*os.File, error) {
	z, err := gzip.NewReader(&interruptible{ctx, io.NewSectionReader(f, 0, 1<<62)})
	if err != nil {
		return nil, fmt.Errorf("gzip header: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return nil, err
	}
	temp, err := os.CreateTemp(tmp, ".unpacked.*.part")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(temp.Name()); err != nil {
		return nil, errors.Join(err, temp.Close())
	}
	n, err := io.Copy(temp, io.LimitReader(z, maxSpool+1))
	if err == nil && n > maxSpool {
		err = fmt.Errorf("more than %d bytes", int64(maxSpool))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends too early")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("offset %d (unpacked): %w", n, err), temp.Close())
	}
	return temp, nil
}

// listTar notes where the members of a tar begin. A tar.Reader takes no byte
// beyond a header, so that is where the underlying reader stands.
func (s *Source) listTar(ctx context.Context, f *os.File) (*Files, error) {
	files := &Files{Path: s.path, data: f}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	in := io.NewSectionReader(f, 0, info.Size())
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		at, _ := in.Seek(0, io.SeekCurrent) // never fails there
		if err == io.EOF {
			if err := checkTarEnd(f, at); err != nil {
				return nil, fmt.Errorf("offset %d: %w", at, err)
			}
			return files, nil
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, fmt.Errorf("offset %d: %w", at, err)
		}
		if err := files.addTar(h, at, info.Size()-at); err != nil {
			return nil, fmt.Errorf("offset %d: %w", at, err)
		}
	}
}

// checkTarEnd makes sure that the block before offset at is one of the zero blocks
// that end a tar: without them it was cut off between two members, and nobody
// would miss the rest.
func checkTarEnd(f *os.File, at int64) error {
	var last [512]byte
	if at < int64(len(last)) {
		return errors.New("a tar without a member")
	}
	if _, err := f.ReadAt(last[:], at-int64(len(last))); err != nil {
		return err
	}
	if last != [512]byte{} {
		return errors.New("the file ends too early: the blocks of zeros that end a tar are missing")
	}
	return nil
}

// addTar appends a member whose bytes begin at an offset; left is what lies behind
// that.
func (f *Files) addTar(h *tar.Header, at, left int64) error {
	is := aFile
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		is = aDir
	case tar.TypeSymlink, tar.TypeLink:
		is = aLink
	case tar.TypeGNUSparse:
		return fmt.Errorf("member %q is sparse (want a plain tar)", h.Name)
	default:
		return nil // devices and comments
	}
	if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.size"] != "" {
		return fmt.Errorf("member %q is sparse (want a plain tar)", h.Name)
	}
	if is == aFile && (h.Size < 0 || h.Size > left) {
		return fmt.Errorf("member %q has %d bytes, but %d are left", h.Name, h.Size, left)
	}
	return f.add(h.Name, is, h.Size, at)
}

func (s *Source) listZip() (*Files, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(s.file, info.Size())
	if err != nil {
		return nil, err
	}
	files := &Files{Path: s.path, zips: map[string]*zip.File{}}
	for _, m := range z.File {
		is := aFile
		switch mode := m.Mode(); {
		case mode.IsDir():
			is = aDir
		case mode&fs.ModeSymlink != 0:
			is = aLink
		case !mode.IsRegular():
			continue
		}
		before := len(files.Members)
		if err := files.add(m.Name, is, int64(min(m.UncompressedSize64, 1<<62)), 0); err != nil {
			return nil, err
		}
		if len(files.Members) > before {
			files.zips[files.Members[before].Name] = m
		}
	}
	return files, nil
}

// at is the path of a member of a directory.
func (f *Files) at(m Member) string { return filepath.Join(f.Path, filepath.FromSlash(m.Name)) }

// Title is how errors call a member.
func (f *Files) Title(m Member) string {
	if f.dir {
		return f.at(m)
	}
	return f.Path + ": " + m.Name
}

// Read returns a whole member of at most limit bytes. Errors begin with its title.
func (f *Files) Read(m Member, limit int64) ([]byte, error) {
	b, err := f.read(m, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Title(m), withoutPath(err))
	}
	return b, nil
}

func (f *Files) read(m Member, limit int64) ([]byte, error) {
	if m.Size > limit {
		return nil, fmt.Errorf("%d bytes, want at most %d", m.Size, limit)
	}
	if f.data != nil { // List has seen that the bytes are there
		b := make([]byte, m.Size)
		n, err := f.data.ReadAt(b, m.offset)
		if n == len(b) {
			err = nil
		}
		return b, err
	}
	in, err := f.open(m)
	if err != nil {
		return nil, err
	}
	defer in.Close() // only read from
	b, err := io.ReadAll(io.LimitReader(in, m.Size+1))
	if err == nil && int64(len(b)) != m.Size {
		err = fmt.Errorf("%d bytes or more, want %d", len(b), m.Size)
	}
	return b, err
}

func (f *Files) open(m Member) (io.ReadCloser, error) {
	if z, ok := f.zips[m.Name]; ok {
		if z.Flags&1 != 0 {
			return nil, errors.New("the member is encrypted")
		}
		return z.Open()
	}
	return os.Open(f.at(m))
}

// withoutPath takes off what Title tells already.
func withoutPath(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}
