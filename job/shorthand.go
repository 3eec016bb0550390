package job

import (
	"reflect"

	"go.yaml.in/yaml/v3"
)

func isShorthand(t reflect.Type) bool { return false }

func (d *decoder) shorthand(path string, n *yaml.Node, v reflect.Value) {}

func encodeShorthand(v reflect.Value) *yaml.Node { return nil }
