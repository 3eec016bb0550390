package arch

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// fusingTargets are the machines for which Go's compiler contracts x*y + z, as
// settings of the environment. Plain amd64 has no instruction for it.
var fusingTargets = []string{"GOARCH=arm64", "GOARCH=amd64 GOAMD64=v3"}

// exactPath are the packages that a training step's numbers go through.
var exactPath = strings.Fields(`./internal/rng ./internal/fmath ./internal/kernel ./shard ./dataset ./dataset/augment ./dataset/picture
	./nn ./optim ./allreduce ./allreduce/exact ./allreduce/packing ./train`)

// fused matches a line of the compiler's assembly listing that rounds a product
// and a sum once. Assembly files are not in such a listing: who writes an
// instruction by hand means it.
var fused = regexp.MustCompile(`\(([^()]+\.go):(\d+)\)\t(V?FN?M(?:ADD|SUB)[0-9]*[SDP]+|VFML[AS])\t`)

// contracted compiles packages in dir for a target and returns every fused
// instruction whose source line doesn't ask for it by calling math.FMA.
func contracted(dir, target string, packages ...string) ([]string, error) {
	cmd := exec.Command("go", append([]string{"build", "-gcflags=-S"}, packages...)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOWORK=off"), strings.Fields(target)...)
	listing, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", target, cmd, err, listing)
	}
	if !bytes.Contains(listing, []byte("STEXT")) {
		return nil, fmt.Errorf("%s %s: no assembly in %d bytes of output", target, cmd, len(listing))
	}
	return unasked(listing)
}

// unasked returns the complaints about a listing.
func unasked(listing []byte) (bad []string, err error) {
	for _, m := range fused.FindAllSubmatch(listing, -1) {
		file, instruction := string(m[1]), m[3]
		number, _ := strconv.Atoi(string(m[2]))
		line, err := sourceLine(file, number)
		if err != nil {
			return nil, err
		}
		if !strings.Contains(line, "math.FMA(") {
			bad = append(bad, fmt.Sprintf("%s:%d: compiled to %s: %s", file, number, instruction, strings.TrimSpace(line)))
		}
	}
	return bad, nil
}

func sourceLine(file string, number int) (string, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(src), "\n")
	if number < 1 || number > len(lines) {
		return "", fmt.Errorf("%s has no line %d", file, number)
	}
	return lines[number-1], nil
}

func TestNoCompilerFusesWhatIsWrittenApart(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the rooms twice")
	}
	for _, target := range fusingTargets {
		t.Run(target, func(t *testing.T) {
			bad, err := contracted(root, target, exactPath...)
			if err != nil {
				t.Fatal(err)
			}
			report(t, bad)
		})
	}
}

// The check is shown a package with one of each: fused on the quiet, held apart
// by a conversion, and fused on request.
func TestTheListingShowsWhatIsFused(t *testing.T) {
	const program = `package p

import "math"

func Quiet(x, y, z float32) float32 { return x*y + z }
func Apart(x, y, z float32) float32 { return float32(x*y) + z }
func Asked(x, y, z float64) float64 { return math.FMA(x, y, z) }
`
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module p\n\ngo 1.26\n", "p.go": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range fusingTargets {
		bad, err := contracted(dir, target, ".")
		if err != nil {
			t.Fatal(err)
		}
		if len(bad) != 1 || !strings.Contains(bad[0], "p.go:5:") {
			t.Errorf("%s: complaints %q, want one, about line 5", target, bad)
		}
	}
}
