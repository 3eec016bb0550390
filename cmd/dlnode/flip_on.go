//go:build flips

package main

import "github.com/dlnode/dlnode/train"

// flip has a bit of this node flip on purpose, as DLNODE_FLIP says in the words of
// train.ParseFlip. There is no such thing in a program that is built for use.
func (m *Main) flip(cfg *train.Config) (err error) {
	if text := m.getenv("DLNODE_FLIP"); text != "" {
		cfg.Flip, err = train.ParseFlip(text)
	}
	return err
}
