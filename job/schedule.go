package job

import (
	"reflect"

	"github.com/dlnode/dlnode/optim"
	"go.yaml.in/yaml/v3"
)

// A learning rate is the one field that may be a number or a map: a number x
// stands for the schedule optim.Constant(x), in the canonical form as well.

var scheduleType = reflect.TypeFor[optim.Schedule]()

// schedule decodes either form into v.
func (d *decoder) schedule(path string, n *yaml.Node, v reflect.Value) {
	switch {
	case n.Kind == yaml.MappingNode:
		d.fields(path, n, v)
	case n.Kind == yaml.ScalarNode && tagFits(n.ShortTag(), reflect.Float64):
		var rate float64
		d.scalar(path, n, reflect.ValueOf(&rate).Elem())
		v.Set(reflect.ValueOf(optim.Constant(rate)))
	default:
		d.fail(n.Line, path, "%s (want a number or %s)", seen(n), mapOf(fieldsOf(v)))
	}
}

// encodeSchedule writes the short form where it says all.
func encodeSchedule(v reflect.Value, canonical bool) *yaml.Node {
	s := v.Interface().(optim.Schedule)
	if s.IsConstant() {
		return encodeScalar(reflect.ValueOf(s.Initial))
	}
	return encodeStruct(v, canonical)
}
