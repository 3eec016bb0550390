//go:build amd64 || arm64

package kernel

import (
	"strings"
	"testing"

	"github.com/dlnode/dlnode/internal/fpmode"
)

func TestASpoiledFloatingPointUnitIsRefused(t *testing.T) {
	if err := CheckMode(); err != nil {
		t.Fatal(err)
	}
	for want, spoiled := range map[string]func(func()){
		"flushes subnormal numbers to zero": fpmode.Flushed,
		"does not round to nearest":         fpmode.RoundedDown,
	} {
		var err error
		spoiled(func() { err = CheckMode() })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want that it %s", err, want)
		}
	}
	if err := CheckMode(); err != nil {
		t.Error(err)
	}
}
