package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/dlnode/dlnode"

// source is one Go file, read whatever its build constraints are.
type source struct {
	path string // from the root of the module, with slashes
	test bool
	fset *token.FileSet
	file *ast.File
}

// dir is the directory of the file's package.
func (s source) dir() string { return path.Dir(s.path) }

// at formats a complaint about a place in the file.
func (s source) at(pos token.Pos, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.fset.Position(pos).Line, fmt.Sprintf(format, args...))
}

// imports calls visit with each import path of the file.
func (s source) imports(visit func(pos token.Pos, path string)) {
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic("arch: an import path that the parser let through: " + err.Error())
		}
		visit(spec.Pos(), p)
	}
}

// local returns by which name the file knows a package, "" if it doesn't.
func (s source) local(importPath string) string {
	for _, spec := range s.file.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); p == importPath {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return path.Base(p)
		}
	}
	return ""
}

// uses calls visit with each name that the file takes out of a package.
func (s source) uses(importPath string, visit func(pos token.Pos, name string)) {
	local := s.local(importPath)
	if local == "" {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		// The parser resolves variables, never imports: a name with an object shadows.
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == local && x.Obj == nil {
			visit(sel.Pos(), sel.Sel.Name)
		}
		return true
	})
}

// parse reads one file; src may be nil.
func parse(name string, src []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, 0)
	return source{path: name, test: strings.HasSuffix(name, "_test.go"), fset: fset, file: file}, err
}

// root is where go.mod is, seen from this package.
const root = "../.."

var read = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(name)
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		s, err := load(name)
		all = append(all, s)
		return err
	})
	return all, err
})

// skip keeps the walk out of other modules, hidden directories and test data.
func skip(dir string) error {
	base := filepath.Base(dir)
	if dir == root {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || base[0] == '.' || base == "testdata" || base == "runs" {
		return fs.SkipDir
	}
	return nil
}

func load(name string) (source, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, name)
	if err != nil {
		return source{}, err
	}
	return parse(filepath.ToSlash(rel), src)
}

// sources returns every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := read()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// report fails the test with each complaint.
func report(t *testing.T, complaints []string) {
	t.Helper()
	for _, c := range complaints {
		t.Error(c)
	}
}
