package job

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/dlnode/dlnode/nn"
)

// Validate checks a job made in Go against the parts that this program knows.
// The error is an [Errors] without file and lines. Parse has done it already.
func (j *Job) Validate() error { return Standard().Validate(j) }

// Validate checks a job against the registry's parts.
func (r Registry) Validate(j *Job) error {
	c := &checker{reg: r, broken: func(string) bool { return false }}
	c.job(j)
	return c.errs.sorted()
}

// checker looks at values; types are right by then.
type checker struct {
	reg    Registry
	broken func(path string) bool // the field has been complained about before
	errs   Errors
}

// bad records a problem, unless there is already one with that field.
func (c *checker) bad(path, format string, args ...any) {
	if !c.broken(path) {
		c.errs = append(c.errs, &Error{Field: path, Problem: fmt.Sprintf(format, args...)})
	}
}

// atLeast checks a whole number.
func (c *checker) atLeast(path string, n, least int) {
	if n < least {
		c.bad(path, "%d is not allowed (want at least %d)", n, least)
	}
}

// oneOf checks a word.
func (c *checker) oneOf(path, word string, words []string) {
	if !slices.Contains(words, word) {
		c.bad(path, "%q is not allowed (want %s)", word, options(word, words))
	}
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// job checks everything, in the order of the fields.
func (c *checker) job(j *Job) {
	if !plainName.MatchString(j.Name) {
		c.bad("name", "%q is not allowed (want 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first)", j.Name)
	}
	c.data(j)
	c.augment(j)
	c.model(j)
	c.objective(j)
	c.section("optimizer", j.Optimizer, c.reg.Optimizers)
	if !(j.ClipNorm >= 0) || math.IsInf(j.ClipNorm, 0) {
		c.bad("clip_norm", "%v is not allowed (want a number above 0, or 0 for no limit)", j.ClipNorm)
	}
	c.batch(j.Batch)
	c.atLeast("epochs", j.Epochs, 1)
	c.stopping(j)
	c.oneOf("on_nonfinite", j.OnNonfinite, []string{"stop", "skip"})
	c.running(&j.Running)
}

func (c *checker) data(j *Job) {
	if j.Data == nil {
		c.bad("data", "missing (want %s)", c.reg.Datasets.wanted())
		return
	}
	c.section("data", j.Data, c.reg.Datasets)
}

func (c *checker) augment(j *Job) {
	if j.Augment == nil {
		return
	}
	for _, problem := range flatten(j.Augment.Validate()) {
		field, rest, _ := strings.Cut(problem, ": ")
		c.bad("augment."+field, "%s", rest)
	}
}

func (c *checker) model(j *Job) {
	if len(j.Model) == 0 {
		c.bad("model", "no layers (want a list of %s)", either(c.reg.Layers.Kinds()))
	}
	for i, layer := range j.Model {
		c.section(layerPath(i), layer, c.reg.Layers)
	}
}

func layerPath(i int) string { return fmt.Sprintf("model[%d]", i) }

// objective checks what is made small, and what is watched meanwhile.
func (c *checker) objective(j *Job) {
	if j.Loss == "" {
		c.bad("loss", "missing (want %s)", either(c.reg.Losses))
	} else {
		c.oneOf("loss", j.Loss, c.reg.Losses)
	}
	if s := j.LabelSmoothing; !(s >= 0 && s < 1) || s > 0 && !strings.HasSuffix(j.Loss, "crossentropy") {
		c.bad("label_smoothing", "%s is not allowed (want 0, or with a cross-entropy a share below 1)", number(s, 64))
	}
	for i, w := range j.ClassWeight {
		if !(w >= 0 && w <= math.MaxFloat32) {
			c.bad(fmt.Sprintf("class_weight[%d]", i), "%s is not allowed (want a number of at least 0)", number(w, 64))
		}
	}
	for i, m := range j.Metrics {
		path := fmt.Sprintf("metrics[%d]", i)
		c.oneOf(path, m, c.reg.Metrics)
		if first := slices.Index(j.Metrics, m); first < i {
			c.bad(path, "%q is listed twice (first as metrics[%d])", m, first)
		}
	}
}

func (c *checker) batch(b Batch) {
	if b.Global < 1 || b.Global > MaxGlobalBatch {
		c.bad("batch.global", "%d is not allowed (want 1 to %d)", b.Global, MaxGlobalBatch)
		return
	}
	if b.Microbatch >= 1 && b.Microbatch <= b.Global {
		return
	}
	if c.broken("batch.global") {
		c.atLeast("batch.microbatch", b.Microbatch, 1)
		return
	}
	c.bad("batch.microbatch", "%d is not allowed (want 1 to batch.global = %d)", b.Microbatch, b.Global)
}

// stopping checks validation and early stopping, which need one another.
func (c *checker) stopping(j *Job) {
	if v := j.Validation; v != nil && !(v.Split > 0 && v.Split < 1) {
		c.bad("validation.split", "%s is not allowed (want a fraction above 0 and below 1; for none write validation: none)", number(v.Split, 64))
	}
	c.plateau(j)
	e := j.EarlyStopping
	if e == nil {
		return
	}
	c.monitor(j, "early_stopping.monitor", e.Monitor)
	c.atLeast("early_stopping.patience", e.Patience, 0)
	if !(e.MinDelta >= 0) {
		c.bad("early_stopping.min_delta", "%s is not allowed (want at least 0)", number(e.MinDelta, 64))
	}
	c.oneOf("early_stopping.mode", e.Mode, []string{"auto", "min", "max"})
}

// plateau checks when and how far the learning rate is lowered.
func (c *checker) plateau(j *Job) {
	r := j.ReduceOnPlateau
	if r == nil {
		return
	}
	c.monitor(j, "reduce_on_plateau.monitor", r.Monitor)
	if !(r.Factor > 0 && r.Factor < 1) {
		c.bad("reduce_on_plateau.factor", "%s is not allowed (want a number above 0 and below 1)", number(r.Factor, 64))
	}
	c.atLeast("reduce_on_plateau.patience", r.Patience, 1)
	c.atLeast("reduce_on_plateau.cooldown", r.Cooldown, 0)
	if !(r.MinDelta >= 0) {
		c.bad("reduce_on_plateau.min_delta", "%s is not allowed (want at least 0)", number(r.MinDelta, 64))
	}
	if !(r.MinLR >= 0) {
		c.bad("reduce_on_plateau.min_lr", "%s is not allowed (want at least 0)", number(r.MinLR, 64))
	}
	c.oneOf("reduce_on_plateau.mode", r.Mode, []string{"auto", "min", "max"})
}

func (c *checker) monitor(j *Job, path, monitored string) {
	plain := []string{"loss"}
	for _, m := range j.Metrics {
		if m != nn.ConfusionMatrix { // no number
			plain = append(plain, m)
		}
	}
	held := make([]string, len(plain))
	for i, m := range plain {
		held[i] = "val_" + m
	}
	isHeld := slices.Contains(held, monitored)
	switch {
	case c.broken("metrics") || c.broken("validation"):
	case isHeld && j.Validation == nil:
		c.bad(path, "%q needs validation samples (want validation: {split: 0.1} or the like, or monitor %s)", monitored, either(plain))
	case j.Validation == nil:
		c.oneOf(path, monitored, plain)
	default:
		c.oneOf(path, monitored, append(held, plain...))
	}
}

func (c *checker) running(r *Running) {
	if r.Checkpoint.Dir == "" {
		c.bad("checkpoint.dir", "\"\" is not allowed (want a directory)")
	}
	c.atLeast("checkpoint.every_steps", r.Checkpoint.EverySteps, 0)
	c.atLeast("checkpoint.keep", r.Checkpoint.Keep, 0)
	c.atLeast("checkpoint.replicas", r.Checkpoint.Replicas, 1)
	c.atLeast("min_nodes", r.MinNodes, 1)
}

// section asks the section's own room. A message that begins with one of its
// fields is reported there.
func (c *checker) section(path string, s Section, f Family) {
	if s == nil {
		c.bad(path, "missing (want %s)", f.wanted())
		return
	}
	at := join(path, s.Kind())
	for _, problem := range flatten(s.Validate()) {
		field, rest := blame(s, problem)
		c.bad(join(at, field), "%s", rest)
	}
	if l, ok := s.(nn.Container); ok {
		for _, p := range l.Parts() {
			c.inside(join(at, p.Field), p.Layers)
		}
	}
}

// inside checks the layers of a layer: a list of them, or the one that stands
// under a field that is no list.
func (c *checker) inside(path string, layers []nn.LayerSpec) {
	for i, l := range layers {
		at := fmt.Sprintf("%s[%d]", path, i)
		if strings.HasSuffix(path, ".layer") {
			at = path
		}
		c.section(at, l, c.reg.Layers)
	}
}

// flatten lists the messages of a joined error.
func flatten(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

// wish is how sections word what is wrong with one of their fields, either
// "units: 0 is not allowed (want at least 1)" or "units is 0, want at least 1".
var wish = regexp.MustCompile(`^is (.*?), want (.*)$`)

// blame splits a section's message into the field that it begins with, which
// may be a path further down, and the problem. The field is "" where the
// message is about the section as a whole.
func blame(s Section, message string) (field, problem string) {
	message = strings.TrimPrefix(message, s.Kind()+": ")
	head, rest, _ := strings.Cut(message, " ")
	field = strings.TrimSuffix(head, ":")
	name, _, _ := strings.Cut(field, ".")
	if find(fieldsOf(indirect(s)), name) == nil {
		return "", message
	}
	switch m := wish.FindStringSubmatch(rest); {
	case field != head:
		return field, rest
	case m == nil:
		return "", message
	case m[1] == "missing":
		return field, "missing (want " + m[2] + ")"
	default:
		return field, m[1] + " is not allowed (want " + m[2] + ")"
	}
}
