// Command exactness measures what exact sums cost: steps of package train against steps
// of the same code with plain float32 sums, which are as fast as sums can be and depend
// on the number of nodes.
//
//	cd bench && go run ./exactness -processes 2 [-rows REGEXP] [-rounds N] ...
//	sudo NODES=2 RUN='go run ./exactness' netns.sh 1gbit -processes 2    # over links of 1 Gbit/s
//
// There is no such mode in dlnode, and there shall be none. The plain program is built
// from dlnode's sources with some lines replaced (go build -overlay): gradients are added
// up in float32, travel as float32 and are divided in float32; nothing is rounded to
// grids, no exponents and no sums of integers are kept. All else, the digests of the
// state among it, is as it is. Where a line that is to be replaced has changed, this
// program says so and ends: then it has to be taught.
//
// The measuring is that of ../training, of whose arguments it takes all.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// change is a replacement in a file of dlnode.
type change struct{ file, from, to string }

var changes = []change{
	// The ring adds float32 to float32.
	{"allreduce/ring.go", "\tVec    []float64 //", "\tVec    []float32 //"},
	{"allreduce/ring.go", "total []float64, headers", "total []float32, headers"},
	{"allreduce/ring.go", "segment: r.cfg.SegmentBytes / 8}", "segment: r.cfg.SegmentBytes / 4}"},
	{"allreduce/ring.go", "r.inOrder(f, r.reduced[c], 8, 0)", "r.inOrder(f, r.reduced[c], 4, 0)"},
	{"allreduce/ring.go", "return wire64(&r.scratch, r.op.Vec[lo:hi])", "return bytes32(r.op.Vec[lo:hi])"},
	{"allreduce/wire.go", "func addWire(dst []float64, src []byte) {", "func addWire(dst []float32, src []byte) {"},
	{"allreduce/wire.go", "len(src) >= 32", "len(src) >= 16"},
	{"allreduce/wire.go", "float64At(src[0:8])", "float32At(src[0:4])"},
	{"allreduce/wire.go", "float64At(src[8:16])", "float32At(src[4:8])"},
	{"allreduce/wire.go", "float64At(src[16:24])", "float32At(src[8:12])"},
	{"allreduce/wire.go", "float64At(src[24:32])", "float32At(src[12:16])"},
	{"allreduce/wire.go", "src[32:]", "src[16:]"},
	{"allreduce/wire.go", "float64At(src[8*i:])", "float32At(src[4*i:])"},
	{"allreduce/wire.go", "func float64At(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }",
		"func float32At(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }"},

	// A sum keeps float32, as they come.
	{"allreduce/exact/sum.go", "acc    []float64 //", "acc    []float32 //"},
	{"allreduce/exact/sum.go", "pages.Float64s(", "pages.Float32s("},
	{"allreduce/exact/sum.go", "func (s *Sum) Acc() []float64", "func (s *Sum) Acc() []float32"},
	{"allreduce/exact/sum.go", `	round := kernel.RoundAdd
	if b.added == 1 {
		round = kernel.RoundNew
	}
	ints, field := round(s.acc[b.Lo:b.Hi], g, s.scale[b.tensor])
	b.ints += ints
	b.seen = max(b.seen, exponent(field))
`, `	if b.added == 1 {
		copy(s.acc[b.Lo:b.Hi], g)
	} else {
		kernel.AddBias(s.acc[b.Lo:b.Hi], g)
	}
`},
	{"allreduce/exact/sum.go", "total []float64, lo int,", "total []float32, lo int,"},
	{"allreduce/exact/sum.go", "total []float64, unit, denom float64) (sum uint64) {", `total []float32, _, denom float64) (sum uint64) {
	by := float32(1 / denom)
	total = total[:len(dst)]
	for i := range dst {
		dst[i] = total[i] * by
	}
	return 0
}

// was is never called.
func was(dst []float32, total []float64, unit, denom float64) (sum uint64) {`},

	// Whoever finishes is given float32.
	{"train/step.go", "func(lo, hi int, total []float64, headers", "func(lo, hi int, total []float32, headers"},
	{"train/drill.go", "func(lo, _ int, total []float64, _", "func(lo, _ int, total []float32, _"},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "exactness:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	dir, err := os.MkdirTemp("", "bench-exactness-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := writeOverlay(dir)
	if err != nil {
		return err
	}
	exact, plain := filepath.Join(dir, "exact"), filepath.Join(dir, "plain")
	if err := build(exact); err != nil {
		return err
	}
	if err := build(plain, "-overlay", overlay); err != nil {
		return err
	}
	if places := os.Getenv("PLACES"); places != "" { // of netns.sh
		args = append([]string{"-places", places}, args...)
	}
	cmd := exec.Command(exact, append([]string{"-plain", plain, "-python", ""}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// writeOverlay makes the changes in copies, and the file that tells the go command of them.
func writeOverlay(dir string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/dlnode/dlnode").Output()
	if err != nil {
		return "", fmt.Errorf("finding dlnode's sources (run it within the module bench): %w", err)
	}
	source := strings.TrimSpace(string(out))
	text := map[string]string{}
	for _, c := range changes {
		if _, ok := text[c.file]; !ok {
			b, err := os.ReadFile(filepath.Join(source, c.file))
			if err != nil {
				return "", err
			}
			text[c.file] = string(b)
		}
		if !strings.Contains(text[c.file], c.from) {
			return "", fmt.Errorf("%s has no %q any more: teach bench/exactness what it has instead", c.file, c.from)
		}
		text[c.file] = strings.ReplaceAll(text[c.file], c.from, c.to)
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for file, t := range text {
		changed := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(changed, []byte(t), 0o644); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(source, file)] = changed
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o644)
}

// build makes the program of ../training.
func build(program string, flags ...string) error {
	args := append([]string{"build", "-o", program}, flags...)
	cmd := exec.Command("go", append(args, "github.com/dlnode/dlnode/bench/training")...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
