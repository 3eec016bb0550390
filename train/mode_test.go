//go:build amd64 || arm64

package train

import (
	"context"
	"testing"

	"github.com/dlnode/dlnode/internal/fpmode"
)

func TestTrainingRefusesASpoiledFloatingPointUnit(t *testing.T) {
	task := simTask(t)
	for what, spoiled := range map[string]func(func()){"flushed": fpmode.Flushed, "rounded down": fpmode.RoundedDown} {
		var err error
		spoiled(func() { _, err = Fit(context.Background(), task, 1, nil) })
		if err == nil {
			t.Errorf("%s: training begins", what)
		}
	}
}
