package arch

import (
	"path"
	"slices"
	"strings"
	"testing"
)

func TestImportsFollowTheArrows(t *testing.T) {
	for _, s := range sources(t) {
		report(t, arrowComplaints(s))
	}
}

func TestEachLibraryIsKnownAtItsHomeOnly(t *testing.T) {
	for _, s := range sources(t) {
		report(t, homeComplaints(s))
	}
}

func TestPureRoomsKnowNoWorld(t *testing.T) {
	met := map[string]bool{}
	for _, s := range sources(t) {
		for _, pattern := range pure {
			if !s.test && match(pattern, s.path) {
				met[pattern] = true
				report(t, pureComplaints(s))
			}
		}
	}
	for _, pattern := range pure {
		if !met[pattern] {
			t.Errorf("no file matches %s: the list of pure rooms is out of date", pattern)
		}
	}
}

func TestOnlyTheCommandExitsOrReadsTheEnvironment(t *testing.T) {
	for _, s := range sources(t) {
		report(t, worldComplaints(s))
	}
}

func TestTheTableOfArrowsHasNoStrayLine(t *testing.T) {
	dirs := map[string]bool{}
	for _, s := range sources(t) {
		dirs[s.dir()] = true
	}
	for dir, targets := range arrows {
		for _, d := range append(strings.Fields(targets), dir) {
			if !dirs[d] {
				t.Errorf("the table of arrows names %s, which is no package", d)
			}
		}
	}
}

// match reports whether a file is named by a pattern of the tables.
func match(pattern, file string) bool {
	if strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(file, pattern)
	}
	ok, err := path.Match(pattern, file)
	if err != nil {
		panic("arch: " + err.Error())
	}
	return ok
}

func matchAny(patterns []string, file string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, file) })
}

func TestEachRuleFindsWhatBreaksIt(t *testing.T) {
	for _, c := range []struct{ file, source, want string }{
		{"nn/x.go", `import _ "github.com/dlnode/dlnode/optim"`, "pillar nn imports pillar optim"},
		{"nn/x_test.go", `import _ "github.com/dlnode/dlnode/optim"`, "pillar nn imports pillar optim"},
		{"cluster/view/x.go", `import _ "github.com/dlnode/dlnode/cluster"`, "cluster/view may not import cluster"},
		{"nn/x.go", `import _ "github.com/dlnode/dlnode/train"`, "nn may not import train"},
		{"novel/x.go", ``, "package novel has no line"},
		{"cluster/seeds.go", `import _ "github.com/hashicorp/memberlist"`, "not at home"},
		{"train/x.go", `import _ "google.golang.org/grpc/codes"`, "not at home"},
		{"nn/x.go", `import _ "gonum.org/v1/gonum/mat"`, "not at home"},
		{"nn/x.go", `import _ "net/http"`, "imports net/http"},
		{"nn/x.go", `import _ "math/rand/v2"`, "imports math/rand/v2"},
		{"cluster/view/x.go", `import clock "time"; var now = clock.Now()`, "uses time.Now"},
		{"shard/x.go", `import "math"; var one = math.Exp(0)`, "uses math.Exp"},
		{"nn/x.go", `import "math"; var one = math.FMA(1, 1, 0)`, "uses math.FMA"},
		{"optim/x.go", `func f() { go f() }`, "starts a goroutine"},
		{"optim/x.go", `var c chan int`, "communicates"},
		{"train/x.go", `import "os"; func f() { os.Exit(1) }`, "only the command uses os.Exit"},
		{"dataset/x.go", `import "os"; var home = os.Getenv("HOME")`, "only the command uses os.Getenv"},
	} {
		s, err := parse(c.file, []byte("package x; "+c.source))
		if err != nil {
			t.Fatal(err)
		}
		found := strings.Join(slices.Concat(
			arrowComplaints(s), homeComplaints(s), pureComplaints(s), worldComplaints(s)), "\n")
		if !strings.Contains(found, c.want) {
			t.Errorf("%s with %q: complaints %q, want one that says %q", c.file, c.source, found, c.want)
		}
	}
}

func TestAShadowedNameIsNoPackage(t *testing.T) {
	s, err := parse("cluster/view/x.go", []byte(`package x; import "time"
		type clock struct{ Now func() int }
		func f(time clock) int { return time.Now() }
		var d time.Duration`))
	if err != nil {
		t.Fatal(err)
	}
	if bad := pureComplaints(s); len(bad) > 0 {
		t.Errorf("complaints about a parameter: %q", bad)
	}
}
