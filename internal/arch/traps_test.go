package arch

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var plantTraps = flag.Bool("traps", false, "fall into each trap of docs/numerics.md and see that its test fails; takes minutes")

// trap is one way to lose the same bits: an edit that falls into it, and the test
// that has to fail then. The edit is made by the go command's overlay, so nothing
// in the tree changes.
type trap struct {
	name     string // as in docs/numerics.md
	file     string
	old, new string // the first has to be in the file, once
	pkg      string
	test     string
}

var traps = []trap{
	{"rounding to -0", "internal/kernel/generic.go", "\t\tn := math.RoundToEven(float64(float64(x)*scale)) + 0\n\t\tacc[i] = quiet64(n)", "\t\tn := math.RoundToEven(float64(float64(x) * scale))\n\t\tacc[i] = quiet64(n)", "./internal/kernel", "TestRoundingMakesNoMinusZero"},
	{"-0 from the wire", "internal/kernel/generic.go", "float32(float64((e+0)*scale) / denom)", "float32(float64(e*scale) / denom)", "./internal/kernel", "TestNarrowIsItsLoop"},
	{"-0 of a mean", "allreduce/exact/scalar.go", "(total + 0) * pow2(", "total * pow2(", "./allreduce/exact", "TestNoMinusZeroSurvives"},
	{"two roundings, normal", "internal/fmath/fma.go", "u&tailMask != halfway && ", "", "./internal/fmath", "TestFMA32RoundsOnce"},
	{"two roundings, subnormal", "internal/fmath/fma.go", " && u&^signBit >= minNormal", "", "./internal/fmath", "TestFMA32RoundsOnce"},
	{"two roundings in a product", "internal/kernel/generic.go", "return u&tail == halfway || u<<1-1 < normal-1", "return false && (u&tail == halfway || u<<1-1 < normal-1)", "./internal/kernel", "TestAProductRoundsEachStepOnce"},
	{"no fusion where one is meant", "internal/kernel/generic.go", "\t\t\tc[j] = fmath.FMA32(x, y, c[j])", "\t\t\tc[j] += float32(x * y)", "./internal/kernel", "TestProductsOfEveryShapeMatchTheirTwin"},
	{"fusion by the compiler", "internal/kernel/generic.go", "mi := float32(c.beta1*m[i]) + float32(c.rest1*gi)", "mi := c.beta1*m[i] + c.rest1*gi", "./internal/arch", "TestNoCompilerFusesWhatIsWrittenApart"},
	{"a term of zero is skipped", "internal/kernel/generic.go", "\t\tx := a[p*w.acs]\n\t\tfor j, y := range", "\t\tx := a[p*w.acs]\n\t\tif x == 0 {\n\t\t\tcontinue\n\t\t}\n\t\tfor j, y := range", "./internal/kernel", "TestNoTermOfAProductIsAddedOrSkipped"},
	{"zeros are added at the end", "internal/kernel/generic.go", "\t\tc[j] = quiet32(x)", "\t\tc[j] = quiet32(x + 0)", "./internal/kernel", "TestNoTermOfAProductIsAddedOrSkipped"},
	{"relu lets NaN through", "internal/kernel/generic.go", "u := math.Float32bits(e) // an integer is chosen without a branch\n\t\tif !(e > 0) {", "u := math.Float32bits(e)\n\t\tif e <= 0 {", "./internal/kernel", "TestReLUOfTroublesomeNumbers"},
	{"relu lets -0 through", "internal/kernel/generic.go", "u := math.Float32bits(e) // an integer is chosen without a branch\n\t\tif !(e > 0) {", "u := math.Float32bits(e)\n\t\tif e < 0 || e != e {", "./internal/kernel", "TestReLUOfTroublesomeNumbers"},
	{"a maximum hides NaN", "internal/kernel/vector.go", "math.Float32bits(quiet32(x))", "math.Float32bits(x)", "./internal/kernel", "TestMaxOfTroublesomeNumbers"},
	{"NaN of any pattern", "internal/kernel/kernel.go", "\t\treturn math.Float32frombits(nanBits32)\n\t}\n\treturn x", "\t\treturn x\n\t}\n\treturn x", "./internal/kernel", "TestVectorFunctionsMatchTheirLoops"},
	{"frexp's exponent", "allreduce/exact/sum.go", "return int16(field) - 126", "return int16(field) - 127", "./allreduce/exact", "TestSeenIsTheExponentFieldOfTheLargest"},
	{"an exponent for subnormals", "allreduce/exact/sum.go", "\tif field == 0 {\n\t\treturn None\n\t}\n", "", "./allreduce/exact", "TestSubnormalGradientsAreExactOnTheFinestGrid"},
	{"stopping at the first overflow", "allreduce/exact/sum.go", "\tround := kernel.RoundAdd\n", "\tif e := s.bits - int(math.Float64bits(s.scale[b.tensor])>>52) + 1023; int(b.seen) > e {\n\t\treturn\n\t}\n\tround := kernel.RoundAdd\n", "./allreduce/exact", "TestOneRepeatGivesWhatARightFirstGuessWouldHave"},
	{"one grid for all losses", "train/step.go", ", exact.Overflow(a.Scalar, vd.scalar):", ":", "./train", "TestSumsOfRawSquaredErrorsAreExact"},
	{"flushed subnormals", "internal/kernel/kernel.go", "got != 2 {", "got > 2 {", "./internal/kernel", "TestASpoiledFloatingPointUnitIsRefused"},
	{"rounding towards somewhere", "internal/kernel/kernel.go", "up != 1+0x1p-23 || down != 1", "up < 1 || down > 1", "./internal/kernel", "TestASpoiledFloatingPointUnitIsRefused"},
	{"training does not look", "train/driver.go", "\treturn kernel.CheckMode()\n", "\t_ = kernel.CheckMode\n\treturn nil\n", "./train", "TestTrainingRefusesASpoiledFloatingPointUnit"},
	{"variance of one sample", "nn/norm.go", "variance[j]/rows-float64", "variance[j]/(rows-1)-float64", "./nn", "TestForwardLossesAndGradientsMatchPyTorch"},
}

func TestEachTrapHasATestThatFailsInIt(t *testing.T) {
	told, err := os.ReadFile(root + "/docs/numerics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, trap := range traps {
		if !strings.Contains(string(told), "`"+trap.test+"`") {
			t.Errorf("docs/numerics.md does not name %s, the test of %q", trap.test, trap.name)
		}
	}
	if !*plantTraps {
		t.Skip("the tests are built and run once for each trap, which takes minutes: say -traps, or make traps")
	}
	for _, trap := range traps {
		t.Run(strings.ReplaceAll(trap.name, " ", "_"), func(t *testing.T) {
			out, err := trap.fall(t)
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
				t.Fatalf("%s passes, though the code has the bug that it is there for (%v)\n%s", trap.test, err, out)
			}
			if !strings.Contains(out, "--- FAIL: "+trap.test) {
				t.Fatalf("%s does not fail, something else does:\n%s", trap.test, out)
			}
		})
	}
}

// fall runs the trap's test on code that has the bug.
func (p trap) fall(t *testing.T) (out string, err error) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, p.file))
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), p.old); n != 1 {
		t.Fatalf("%s has %q %d times, want once", p.file, p.old, n)
	}
	dir := t.TempDir()
	edited, note := filepath.Join(dir, "edited.go"), filepath.Join(dir, "overlay.json")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {file: edited}})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(edited, []byte(strings.Replace(string(src), p.old, p.new, 1)), 0o644), os.WriteFile(note, text, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"test", "-count=1", "-run", "^" + p.test + "$", p.pkg}
	if p.pkg == "./allreduce/exact" {
		args = append(args, "-rapid.nofailfile") // what it finds is no bug of the tree
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+note)
	b, err := cmd.CombinedOutput()
	return string(b), err
}
