package nn

import (
	"fmt"
	"strings"
)

// Table is the model's summary as text, as Keras prints it, with what a forward
// of one sample costs and what a layer keeps of a sample in training. Layers
// inside of others are indented and stand before them.
func (m *Model) Table() string {
	rows := [][]string{{"layer (kind)", "output shape", "parameters", "FLOPs/sample", "bytes/sample"}}
	var flops, memory int64
	for _, r := range m.rows {
		name := strings.Repeat("  ", r.Depth-1) + r.Name
		if r.Name != r.Kind {
			name += " (" + r.Kind + ")"
		}
		rows = append(rows, []string{name, shapeString(r.Output), grouped(int64(r.Params)), grouped(r.FLOPs), grouped(r.Memory)})
		flops, memory = flops+r.FLOPs, memory+r.Memory
	}
	rows = append(rows, []string{"total", "", grouped(int64(m.params)), grouped(flops), grouped(memory)})
	var of [3]int
	for _, t := range m.tensors {
		of[t.Use] += t.Len
	}
	return aligned(rows) + fmt.Sprintf("parameters: %s trainable, %s frozen, %s moving statistics\n",
		grouped(int64(of[Weight])), grouped(int64(of[Frozen])), grouped(int64(of[Statistic])))
}

// aligned writes rows in columns, the first to the left, the others to the right.
func aligned(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], len(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%-*s", width[0], r[0])
		for i, cell := range r[1:] {
			fmt.Fprintf(&b, "  %*s", width[i+1], cell)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// grouped writes a number with commas.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
