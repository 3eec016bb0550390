package optim

import (
	"errors"
	"fmt"
)

// Spec says which optimizer, with which numbers: a *SGD, *Adam, *AdamW,
// *RMSprop, *Adagrad or *Lamb.
type Spec interface {
	// Kind is the optimizer's name in a job file, such as "adam".
	Kind() string
	// Validate tells what is wrong with the fields, each as
	// "field: VALUE is not allowed (want …)", several joined.
	Validate() error
}

// SGD is stochastic gradient descent.
type SGD struct {
	LearningRate Schedule `yaml:"learning_rate" json:"learning_rate"`
	Momentum     float64  `yaml:"momentum" json:"momentum"` // in [0, 1); 0 is none
	Nesterov     bool     `yaml:"nesterov" json:"nesterov"` // looks ahead along the momentum
}

// Adam is Adam without weight decay.
type Adam struct {
	LearningRate Schedule `yaml:"learning_rate" json:"learning_rate"`
	Beta1        float64  `yaml:"beta_1" json:"beta_1"`   // in [0, 1)
	Beta2        float64  `yaml:"beta_2" json:"beta_2"`   // in [0, 1)
	Epsilon      float64  `yaml:"epsilon" json:"epsilon"` // above 0
}

// AdamW is Adam with decoupled weight decay of all parameters, biases included.
type AdamW struct {
	LearningRate Schedule `yaml:"learning_rate" json:"learning_rate"`
	WeightDecay  float64  `yaml:"weight_decay" json:"weight_decay"` // at least 0; a step takes lr·weight_decay off each weight
	Beta1        float64  `yaml:"beta_1" json:"beta_1"`
	Beta2        float64  `yaml:"beta_2" json:"beta_2"`
	Epsilon      float64  `yaml:"epsilon" json:"epsilon"`
}

// RMSprop is gradient descent by signs and sizes of late.
type RMSprop struct {
	LearningRate Schedule `yaml:"learning_rate" json:"learning_rate"`
	Rho          float64  `yaml:"rho" json:"rho"`           // in [0, 1)
	Momentum     float64  `yaml:"momentum" json:"momentum"` // in [0, 1); 0 is none
	Epsilon      float64  `yaml:"epsilon" json:"epsilon"`   // above 0
}

// Adagrad is gradient descent with a rate for each element that only falls.
type Adagrad struct {
	LearningRate            Schedule `yaml:"learning_rate" json:"learning_rate"`
	InitialAccumulatorValue float64  `yaml:"initial_accumulator_value" json:"initial_accumulator_value"` // at least 0
	Epsilon                 float64  `yaml:"epsilon" json:"epsilon"`                                     // above 0
}

// Lamb is Adam for large batches: updates as long as the tensor they move.
type Lamb struct {
	LearningRate Schedule `yaml:"learning_rate" json:"learning_rate"`
	WeightDecay  float64  `yaml:"weight_decay" json:"weight_decay"` // at least 0
	Beta1        float64  `yaml:"beta_1" json:"beta_1"`             // in [0, 1)
	Beta2        float64  `yaml:"beta_2" json:"beta_2"`             // in [0, 1)
	Epsilon      float64  `yaml:"epsilon" json:"epsilon"`           // above 0
}

// Kinds lists what NewSpec knows.
func Kinds() []string { return []string{"adagrad", "adam", "adamw", "lamb", "rmsprop", "sgd"} }

// NewSpec returns the spec of a kind with Keras' defaults in it.
func NewSpec(kind string) (Spec, bool) {
	switch kind {
	case "sgd":
		return &SGD{LearningRate: Constant(0.01)}, true
	case "adam":
		return &Adam{LearningRate: Constant(0.001), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, true
	case "adamw":
		return &AdamW{LearningRate: Constant(0.001), WeightDecay: 0.004, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, true
	case "rmsprop":
		return &RMSprop{LearningRate: Constant(0.001), Rho: 0.9, Epsilon: 1e-7}, true
	case "adagrad":
		return &Adagrad{LearningRate: Constant(0.001), InitialAccumulatorValue: 0.1, Epsilon: 1e-7}, true
	case "lamb":
		return &Lamb{LearningRate: Constant(0.001), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7}, true
	}
	return nil, false
}

// Kind returns "rmsprop".
func (*RMSprop) Kind() string { return "rmsprop" }

// Kind returns "adagrad".
func (*Adagrad) Kind() string { return "adagrad" }

// Kind returns "lamb".
func (*Lamb) Kind() string { return "lamb" }

// Validate implements Spec.
func (s *RMSprop) Validate() error {
	return errors.Join(s.LearningRate.validate(), checkFraction("rho", s.Rho), checkFraction("momentum", s.Momentum), checkPositive("epsilon", s.Epsilon))
}

// Validate implements Spec.
func (s *Adagrad) Validate() error {
	err := checkPositive("epsilon", s.Epsilon)
	if !(s.InitialAccumulatorValue >= 0 && float32(s.InitialAccumulatorValue) <= maxFloat32) {
		err = errors.Join(fmt.Errorf("initial_accumulator_value: %v is not allowed (want a number of at least 0)", s.InitialAccumulatorValue), err)
	}
	return errors.Join(s.LearningRate.validate(), err)
}

// Validate implements Spec.
func (s *Lamb) Validate() error {
	return errors.Join(s.LearningRate.validate(), checkDecay(s.WeightDecay), checkFraction("beta_1", s.Beta1),
		checkFraction("beta_2", s.Beta2), checkPositive("epsilon", s.Epsilon))
}

// Kind returns "sgd".
func (*SGD) Kind() string { return "sgd" }

// Kind returns "adam".
func (*Adam) Kind() string { return "adam" }

// Kind returns "adamw".
func (*AdamW) Kind() string { return "adamw" }

// Validate implements Spec.
func (s *SGD) Validate() error {
	err := checkFraction("momentum", s.Momentum)
	if s.Nesterov && s.Momentum == 0 {
		err = errors.Join(err, errors.New("nesterov: true is not allowed (want false, or a momentum above 0)"))
	}
	return errors.Join(s.LearningRate.validate(), err)
}

// Validate implements Spec.
func (s *Adam) Validate() error {
	return errors.Join(s.LearningRate.validate(), checkFraction("beta_1", s.Beta1),
		checkFraction("beta_2", s.Beta2), checkPositive("epsilon", s.Epsilon))
}

// Validate implements Spec.
func (s *AdamW) Validate() error {
	return errors.Join(s.LearningRate.validate(), checkDecay(s.WeightDecay), checkFraction("beta_1", s.Beta1),
		checkFraction("beta_2", s.Beta2), checkPositive("epsilon", s.Epsilon))
}

// checkFraction wants [0, 1), in float32 too, where 1−1e-9 is 1.
func checkFraction(field string, x float64) error {
	if x >= 0 && float32(x) < 1 {
		return nil
	}
	return fmt.Errorf("%s: %v is not allowed (want a number from 0 to below 1)", field, x)
}

// checkPositive wants a number above 0 that float32 can hold.
func checkPositive(field string, x float64) error {
	if float32(x) > 0 && float32(x) <= maxFloat32 {
		return nil
	}
	return fmt.Errorf("%s: %v is not allowed (want a number above 0)", field, x)
}

func checkDecay(x float64) error {
	if x >= 0 && float32(x) <= maxFloat32 {
		return nil
	}
	return fmt.Errorf("weight_decay: %v is not allowed (want a number of at least 0)", x)
}
