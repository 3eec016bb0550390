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
// program says so and ends: then it has to be taught. Both programs choose an all-reduce's
// schedule alike, by the bytes of exact sums.
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
	// Ranks add float32 to float32, and send them so.
	{"allreduce/reducer.go", "\tVec    []float64 //", "\tVec    []float32 //"},
	{"allreduce/reducer.go", "total []float64, headers", "total []float32, headers"},
	{"allreduce/reducer.go", "[][]float64 // storage for segment.early", "[][]float32 // storage for segment.early"},
	{"allreduce/reducer.go", "early         []float64 //", "early         []float32 //"},
	{"allreduce/reducer.go", "take(n int) []float64", "take(n int) []float32"},
	{"allreduce/reducer.go", "make([]float64, n,", "make([]float32, n,"},
	{"allreduce/reducer.go", "r.cfg.SegmentBytes / 8}", "r.cfg.SegmentBytes / 4}"},
	{"allreduce/reducer.go", "r.cfg.SegmentBytes/8))", "r.cfg.SegmentBytes/4))"},
	{"allreduce/reducer.go", "r.find(f, chunk, 8)", "r.find(f, chunk, 4)"},
	{"allreduce/reducer.go", "packing.DecodeInts(acc, ", "packing.DecodeFloats(acc, "},
	{"allreduce/reducer.go", "packing.AddInts(acc, ", "addPacked(acc, "},
	{"allreduce/reducer.go", "\n// refuse ", `
// addPacked adds packed elements.
func addPacked(acc []float32, src []byte) error {
	v := make([]float32, len(acc))
	err := packing.DecodeFloats(v, src)
	for i := range acc {
		acc[i] += v[i]
	}
	return err
}

// refuse `},
	{"allreduce/reducer.go", "len(wire)/8", "len(wire)/4"},
	{"allreduce/reducer.go", "len(wire) / 8", "len(wire) / 4"},
	{"allreduce/reducer.go", "wire[:8*n]", "wire[:4*n]"},
	{"allreduce/reducer.go", "wire[8*n:]", "wire[4*n:]"},
	{"allreduce/reducer.go", "at int, total []float64)", "at int, total []float32)"},
	{"allreduce/frame.go", "packing.AppendInts(", "packing.AppendFloats("},
	{"allreduce/frame.go", "var torn [8]byte", "var torn [4]byte"},
	{"allreduce/frame.go", "len(p) / 8\n", "len(p) / 4\n"},
	{"allreduce/frame.go", "p[:8*whole]", "p[:4*whole]"},
	{"allreduce/frame.go", "p[8*whole:]", "p[4*whole:]"},
	{"allreduce/wire.go", "float64", "float32"},
	{"allreduce/wire.go", "src[8*i:]", "src[4*i:]"},
	{"allreduce/wire.go", "math.Float64frombits(binary.LittleEndian.Uint64(b))", "math.Float32frombits(binary.LittleEndian.Uint32(b))"},
	{"allreduce/wire.go", "kernel.AddF64(", "kernel.AddBias("},
	{"allreduce/wire_little.go", "float64", "float32"},
	{"allreduce/wire_little.go", "8*len(v)", "4*len(v)"},
	{"allreduce/wire_little.go", "%8 != 0", "%4 != 0"},
	{"allreduce/wire_little.go", "len(b)/8", "len(b)/4"},

	// A sum keeps float32, as they come.
	{"allreduce/exact/sum.go", "acc    []float64 //", "acc    []float32 //"},
	{"allreduce/exact/sum.go", "pages.Float64s(", "pages.Float32s("},
	{"allreduce/exact/sum.go", "func (s *Sum) Acc() []float64", "func (s *Sum) Acc() []float32"},
	{"allreduce/exact/sum.go", "func (s *Sum) Memory() []float64", "func (s *Sum) Memory() []float32"},
	{"allreduce/exact/sum.go", `	round := kernel.RoundAdd
	if b.added == 1 {
		round = kernel.RoundNew
	}
	ints, field := round(s.acc[b.Lo:b.Hi], g, s.scale[b.tensor])
	b.ints += ints
	seen := exponent(field)
	b.seen = max(b.seen, seen)
	return b.added, Beyond(seen, s.exps[b.tensor])
`, `	if b.added == 1 {
		copy(s.acc[b.Lo:b.Hi], g)
	} else {
		kernel.AddBias(s.acc[b.Lo:b.Hi], g)
	}
	return b.added, 0
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
	{"train/step.go", "func(lo, hi int, total []float64, _", "func(lo, hi int, total []float32, _"},
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
