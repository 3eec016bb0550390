package optim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/internal/fmath"
)

const maxFloat32 = math.MaxFloat32

// Schedule is the learning rate as a function of the step. In a job file it is a
// number, which stands for a constant rate, or a map of the fields below.
//
//	       warm-up     decay
//	initial   ╭─────────╮               constant     initial
//	         ╱           ╲              step         initial · decay_rate^floor(s/D)
//	        ╱             ╲____ alpha   exponential  initial · decay_rate^(s/D)
//	       ╱                            cosine       initial · (alpha + (1−alpha)·(1+cos(π·min(s/D, 1)))/2)
//	      ╱                             piecewise    initial up to s = boundaries[0], then values[0] up to
//	     ╱                                           s = boundaries[1], and so on (as Keras' PiecewiseConstantDecay)
//	step 0 ╱  W       W+D
//
// W steps of warm-up lead up to initial in a straight line, from initial/(W+1) at
// step 0; s counts the steps after them, and D is the length of the decay. Either
// length may be given in steps or in epochs.
type Schedule struct {
	Name         string  `yaml:"schedule" json:"schedule"` // one of Schedules
	Initial      float64 `yaml:"initial" json:"initial"`   // the rate after the warm-up, above 0
	WarmupSteps  uint64  `yaml:"warmup_steps,omitempty" json:"warmup_steps,omitempty"`
	WarmupEpochs uint64  `yaml:"warmup_epochs,omitempty" json:"warmup_epochs,omitempty"`
	DecaySteps   uint64  `yaml:"decay_steps,omitempty" json:"decay_steps,omitempty"`
	DecayEpochs  uint64  `yaml:"decay_epochs,omitempty" json:"decay_epochs,omitempty"`
	DecayRate    float64 `yaml:"decay_rate,omitempty" json:"decay_rate,omitempty"` // of "step" and "exponential": the factor, in (0, 1]
	Alpha        float64 `yaml:"alpha,omitempty" json:"alpha,omitempty"`           // of "cosine": the fraction of initial it ends at, in [0, 1]

	Boundaries []uint64  `yaml:"boundaries,later" json:"boundaries,omitempty"` // of "piecewise": steps, ascending
	Values     []float64 `yaml:"values,later" json:"values,omitempty"`         // of "piecewise": the rate behind each boundary
}

// Schedules lists the names that a Schedule may have.
func Schedules() []string {
	return []string{"constant", "step", "exponential", "cosine", "piecewise"}
}

// Constant returns the schedule that a plain number stands for.
func Constant(rate float64) Schedule { return Schedule{Name: "constant", Initial: rate} }

// IsConstant reports whether a plain number says all of the schedule.
func (s Schedule) IsConstant() bool { return s.Name == "constant" && s.isPlain() }

// isPlain reports whether no field but name and initial is set.
func (s Schedule) isPlain() bool {
	return s.WarmupSteps|s.WarmupEpochs|s.DecaySteps|s.DecayEpochs == 0 && s.DecayRate == 0 && s.Alpha == 0 &&
		len(s.Boundaries) == 0 && len(s.Values) == 0
}

// At returns the learning rate of a step; steps count from 0.
func (s Schedule) At(step, stepsPerEpoch uint64) float64 {
	warmup := s.WarmupSteps + s.WarmupEpochs*stepsPerEpoch
	if step < warmup {
		return float64(s.Initial*float64(step+1)) / float64(warmup+1)
	}
	decay := s.DecaySteps + s.DecayEpochs*stepsPerEpoch
	switch s.Name {
	case "constant":
		return s.Initial
	case "step":
		return float64(s.Initial * fmath.Pow(s.DecayRate, float64((step-warmup)/decay)))
	case "exponential":
		return float64(s.Initial * fmath.Pow(s.DecayRate, float64(step-warmup)/float64(decay)))
	case "piecewise":
		return s.piece(step - warmup)
	case "cosine":
		return float64(s.Initial * cosine(s.Alpha, min(float64(step-warmup)/float64(decay), 1)))
	}
	panic(fmt.Sprintf("optim: a schedule named %q", s.Name))
}

// piece is the rate of the piece that a step behind the warm-up lies in.
func (s Schedule) piece(step uint64) float64 {
	rate := s.Initial
	for i, b := range s.Boundaries {
		if step > b {
			rate = s.Values[i]
		}
	}
	return rate
}

// cosine falls from 1 at 0 to alpha at 1 (Loshchilov and Hutter, "SGDR", ICLR
// 2017, equation 5, without restarts).
func cosine(alpha, progress float64) float64 {
	wave := float64(0.5 * (1 + fmath.Cos(float64(math.Pi*progress))))
	return alpha + float64((1-alpha)*wave)
}

// validate tells what is wrong, under the field "learning_rate".
func (s Schedule) validate() error {
	if !slices.Contains(Schedules(), s.Name) {
		return fmt.Errorf("learning_rate.schedule: %q is not allowed (want %s)", s.Name, strings.Join(Schedules(), ", "))
	}
	if s.IsConstant() {
		return checkPositive("learning_rate", s.Initial)
	}
	return errors.Join(checkPositive("learning_rate.initial", s.Initial), s.checkWarmup(), s.checkDecay(), s.checkRate(), s.checkAlpha(), s.checkPieces())
}

func (s Schedule) checkWarmup() error {
	if s.WarmupSteps > 0 && s.WarmupEpochs > 0 {
		return fmt.Errorf("learning_rate.warmup_epochs: %d stands beside warmup_steps (want one of them)", s.WarmupEpochs)
	}
	return errors.Join(checkLength("warmup_steps", s.WarmupSteps), checkLength("warmup_epochs", s.WarmupEpochs))
}

func (s Schedule) checkDecay() error {
	none := s.Name == "constant" || s.Name == "piecewise"
	switch given := s.DecaySteps > 0 || s.DecayEpochs > 0; {
	case none && s.DecaySteps > 0:
		return s.meaningless("decay_steps")
	case none && given:
		return s.meaningless("decay_epochs")
	case !none && !given:
		return fmt.Errorf("learning_rate.decay_steps: missing (want the length of the decay, in decay_steps or decay_epochs)")
	case s.DecaySteps > 0 && s.DecayEpochs > 0:
		return fmt.Errorf("learning_rate.decay_epochs: %d stands beside decay_steps (want one of them)", s.DecayEpochs)
	}
	return errors.Join(checkLength("decay_steps", s.DecaySteps), checkLength("decay_epochs", s.DecayEpochs))
}

func (s Schedule) checkRate() error {
	rated := s.Name == "step" || s.Name == "exponential"
	switch {
	case !rated && s.DecayRate != 0:
		return s.meaningless("decay_rate")
	case rated && !(s.DecayRate > 0 && s.DecayRate <= 1):
		return fmt.Errorf("learning_rate.decay_rate: %v is not allowed (want a number above 0, at most 1)", s.DecayRate)
	}
	return nil
}

func (s Schedule) checkAlpha() error {
	switch {
	case s.Name != "cosine" && s.Alpha != 0:
		return s.meaningless("alpha")
	case !(s.Alpha >= 0 && s.Alpha <= 1):
		return fmt.Errorf("learning_rate.alpha: %v is not allowed (want a number from 0 to 1)", s.Alpha)
	}
	return nil
}

func (s Schedule) checkPieces() error {
	switch {
	case s.Name != "piecewise" && len(s.Boundaries) > 0:
		return s.meaningless("boundaries")
	case s.Name != "piecewise" && len(s.Values) > 0:
		return s.meaningless("values")
	case s.Name == "piecewise" && len(s.Boundaries) == 0:
		return errors.New("learning_rate.boundaries: missing (want a list of steps such as [1000, 2000])")
	case len(s.Values) != len(s.Boundaries):
		return fmt.Errorf("learning_rate.values: %d of them are not allowed (want one for each of the %d boundaries)", len(s.Values), len(s.Boundaries))
	}
	for i, v := range s.Values {
		if i > 0 && s.Boundaries[i] <= s.Boundaries[i-1] {
			return fmt.Errorf("learning_rate.boundaries: %d behind %d is not allowed (want ascending steps)", s.Boundaries[i], s.Boundaries[i-1])
		}
		if err := checkPositive("learning_rate.values", v); err != nil {
			return err
		}
	}
	return nil
}

// maxLength keeps lengths in steps below 2^63, whatever the length of an epoch.
const maxLength = 1 << 31

func checkLength(field string, n uint64) error {
	if n <= maxLength {
		return nil
	}
	return fmt.Errorf("learning_rate.%s: %d is not allowed (want at most %d)", field, n, uint64(maxLength))
}

func (s Schedule) meaningless(field string) error {
	return fmt.Errorf("learning_rate.%s: not a field of a %s schedule", field, s.Name)
}
