package arch

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// The leaves that any room may use.
const leaves = "internal/rng internal/fmath internal/kernel internal/pages"

// arrows says which packages of this module a package's code may import. Every
// package has its line; a new one is a decision, made here.
var arrows = map[string]string{
	"internal/rng":     "",
	"internal/fmath":   "",
	"internal/kernel":  "internal/fmath internal/rng",
	"internal/arch":    "",
	"internal/cputime": "",
	"internal/pages":   "", // memory is asked for here, so that pure rooms need not know the system

	// A spoiled floating-point unit, for tests.
	"internal/fpmode": "",

	// Job files that tests of several rooms train.
	"internal/testjobs": "",

	// Real processes, driven and judged by e2e and chaos.
	"internal/lives": "train",
	"chaos":          "checkpoint internal/lives train",

	// The kernels for other programs.
	"gonumblas": "internal/kernel allreduce/packing",

	// The pillars. No arrow leads from one to another.
	"cluster":                       "cluster/view",
	"cluster/view":                  "",
	"allreduce":                     "internal/kernel allreduce/packing",
	"allreduce/exact":               leaves,
	"allreduce/packing":             "internal/kernel",
	"allreduce/rpc":                 "allreduce allreduce/packing allreduce/rpc/internal/nodepb",
	"allreduce/rpc/internal/nodepb": "",
	"shard":                         leaves,
	"nn":                            leaves,
	"optim":                         leaves,
	"dataset":                       leaves + " dataset/pack dataset/archive dataset/picture dataset/text",
	"dataset/archive":               "",
	"dataset/augment":               "internal/rng internal/fmath",
	"dataset/pack":                  "",
	"dataset/picture":               "",
	"dataset/text":                  "",
	"checkpoint":                    "checkpoint/safetensors",
	"checkpoint/safetensors":        "",
	"checkpoint/memfs":              "checkpoint",

	// What a user writes: the vocabulary comes from the rooms that own it.
	"job": "nn optim dataset dataset/augment",

	// The loop knows the pillars; the command knows the loop; nobody knows the command.
	"train": leaves + " internal/cputime allreduce allreduce/exact allreduce/packing allreduce/rpc checkpoint cluster cluster/view dataset dataset/augment job nn optim shard",
	"cmd/dlnode": "internal/kernel allreduce/rpc checkpoint cluster dataset dataset/augment examples job train" +
		" cmd/dlnode/internal/bench cmd/dlnode/internal/chart cmd/dlnode/internal/fleet cmd/dlnode/internal/runlog cmd/dlnode/internal/supervise cmd/dlnode/internal/ui",
	"cmd/dlnode/internal/bench":     "internal/cputime allreduce allreduce/rpc cmd/dlnode/internal/fleet cmd/dlnode/internal/supervise train",
	"cmd/dlnode/internal/chart":     "train",
	"cmd/dlnode/internal/fleet":     "cmd/dlnode/internal/supervise cmd/dlnode/internal/ui train",
	"cmd/dlnode/internal/runlog":    "cmd/dlnode/internal/chart train",
	"cmd/dlnode/internal/supervise": "",
	"cmd/dlnode/internal/ui":        "",
	"examples":                      "",
	"deploy/k8s":                    "",
	"e2e":                           "",

	// The simulator plays whole clusters of hosts; nobody knows it either.
	"sim": "allreduce allreduce/exact allreduce/rpc checkpoint checkpoint/memfs cluster/view dataset job nn optim shard train",
}

// pillars are the rooms between which there is no arrow, in tests neither.
var pillars = []string{"cluster", "allreduce", "shard", "nn", "optim", "checkpoint", "dataset"}

// homes says which files may import a library: a file, a package (with a slash
// at the end: and those below it), or a pattern of files.
var homes = map[string][]string{
	"github.com/hashicorp/memberlist": {"cluster/gossip*.go"},
	"google.golang.org/grpc":          {"allreduce/rpc/"},
	"google.golang.org/protobuf":      {"allreduce/rpc/"},
	"github.com/spf13/cobra":          {"cmd/dlnode/"},
	"golang.org/x/term":               {"cmd/dlnode/internal/ui/", "cmd/dlnode/"},
	"go.yaml.in/yaml/v3":              {"job/", "deploy/k8s/"},
	"golang.org/x/sys":                {"allreduce/rpc/", "chaos/", "internal/kernel/", "dataset/pack/", "cmd/dlnode/"},
	"gonum.org/v1/gonum":              {"gonumblas/"},
	"gonum.org/v1/plot":               {"cmd/dlnode/internal/chart/"},
	"golang.org/x/image":              {"cmd/dlnode/internal/chart/"},
	"golang.org/x/sync":               {"dataset/", "train/", "cmd/dlnode/"},
}

// testLibraries may be imported by any test.
var testLibraries = []string{
	"github.com/google/go-cmp", "github.com/rogpeppe/go-internal",
	"go.uber.org/goleak", "gonum.org/v1/gonum", "pgregory.net/rapid",
}

// pure lists the files of the pure rooms: a package's directory, or one file of
// a package whose other files drive it.
var pure = []string{
	"internal/rng/", "internal/fmath/", "internal/kernel/",
	"cluster/view/", "allreduce/*.go", "allreduce/exact/", "allreduce/packing/", "shard/", "nn/", "optim/", "dataset/augment/",
	"checkpoint/snapshot.go", "checkpoint/manifest.go", "checkpoint/blob.go", "checkpoint/policy.go",
	"checkpoint/safetensors/",
	"train/node.go", "train/host.go", "train/load.go", "train/state.go", "train/step.go", "train/header.go", "train/task.go",
	"cmd/dlnode/internal/supervise/machine.go",
}

// worldly is what a pure room doesn't import, packages below these included.
var worldly = []string{
	"net", "os", "io/fs", "io/ioutil", "syscall", "runtime", "plugin", "embed",
	"sync", "context", "math/rand", "crypto/rand", "log", "testing",
}

// exactMath is what a pure room may take out of package math: functions whose
// result is exact or correctly rounded on every CPU. All others are of our own,
// in internal/fmath, for package math has assembly of its own on some.
var exactMath = strings.Fields(`
	Abs Ceil Copysign Float32bits Float32frombits Float64bits Float64frombits Floor Frexp Inf IsInf IsNaN
	Ldexp NaN Round RoundToEven Signbit Sqrt Trunc`)

// timeless is what a pure room may take out of package time: values.
var timeless = strings.Fields(`
	Duration Time Nanosecond Microsecond Millisecond Second Minute Hour Unix UnixMilli`)

// arrowComplaints checks a file against the table of arrows.
func arrowComplaints(s source) (bad []string) {
	allowed, known := arrows[s.dir()]
	if !known {
		return []string{s.at(s.file.Package, "package %s has no line in the table of arrows", s.dir())}
	}
	s.imports(func(pos token.Pos, path string) {
		target, ours := strings.CutPrefix(path, module+"/")
		switch {
		case !ours:
		case crossesPillars(s.dir(), target):
			bad = append(bad, s.at(pos, "pillar %s imports pillar %s", room(s.dir()), room(target)))
		case !s.test && !slices.Contains(strings.Fields(allowed), target):
			bad = append(bad, s.at(pos, "%s may not import %s", s.dir(), target))
		}
	})
	return bad
}

// room is the first element of a directory.
func room(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func crossesPillars(from, to string) bool {
	return room(from) != room(to) && slices.Contains(pillars, room(from)) && slices.Contains(pillars, room(to))
}

// homeComplaints checks that a file imports no library away from its home.
func homeComplaints(s source) (bad []string) {
	s.imports(func(pos token.Pos, path string) {
		if !strings.Contains(room(path), ".") || within(path, module) {
			return
		}
		if s.test && slices.ContainsFunc(testLibraries, func(l string) bool { return within(path, l) }) {
			return
		}
		for library, files := range homes {
			if within(path, library) && matchAny(files, s.path) {
				return
			}
		}
		bad = append(bad, s.at(pos, "%s is not at home here", path))
	})
	return bad
}

// within reports whether an import path is root or below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// pureComplaints checks a file of a pure room.
func pureComplaints(s source) (bad []string) {
	complain := func(pos token.Pos, format string, args ...any) {
		bad = append(bad, s.at(pos, format, args...))
	}
	s.imports(func(pos token.Pos, path string) {
		if slices.ContainsFunc(worldly, func(w string) bool { return within(path, w) }) {
			complain(pos, "a pure room imports %s", path)
		}
	})
	s.uses("time", func(pos token.Pos, name string) {
		if !slices.Contains(timeless, name) {
			complain(pos, "a pure room uses time.%s", name)
		}
	})
	s.uses("math", func(pos token.Pos, name string) {
		if !exactlyRounded(s, name) {
			complain(pos, "a pure room uses math.%s", name)
		}
	})
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.GoStmt:
			complain(n.Pos(), "a pure room starts a goroutine")
		case *ast.ChanType, *ast.SelectStmt:
			complain(n.Pos(), "a pure room communicates")
		}
		return true
	})
	return bad
}

// exactlyRounded reports whether math.name has the same bits on every CPU.
// Constants do; they are told from functions by their names.
func exactlyRounded(s source, name string) bool {
	constant := strings.HasPrefix(name, "Max") && name != "Max" || strings.HasPrefix(name, "Min") && name != "Min" ||
		slices.Contains([]string{"Pi", "E", "Ln2", "Ln10", "Sqrt2", "SmallestNonzeroFloat32", "SmallestNonzeroFloat64"}, name)
	return constant || slices.Contains(exactMath, name) || name == "FMA" && s.dir() == "internal/fmath"
}

// worldComplaints checks that only the command ends the process or reads the
// environment.
func worldComplaints(s source) (bad []string) {
	if s.test || room(s.path) == "cmd" {
		return nil
	}
	never := map[string][]string{
		"os":      {"Exit", "Getenv", "LookupEnv", "Environ", "Setenv", "ExpandEnv", "Args"},
		"log":     {"Fatal", "Fatalf", "Fatalln"},
		"syscall": {"Exit", "Getenv", "Environ"},
	}
	for pkg, names := range never {
		s.uses(pkg, func(pos token.Pos, name string) {
			if slices.Contains(names, name) {
				bad = append(bad, s.at(pos, "only the command uses %s.%s", pkg, name))
			}
		})
	}
	return bad
}
