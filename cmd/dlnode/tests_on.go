//go:build flips

package main

import "github.com/dlnode/dlnode/train"

// forTests has a bit of this node flip on purpose, as DLNODE_FLIP says in the words of
// train.ParseFlip, and with DLNODE_EVEN slow nodes get as much to do as the others. There
// is no such thing in a program that is built for use.
func (m *Main) forTests(cfg *train.Config) (err error) {
	cfg.Even = m.getenv("DLNODE_EVEN") != ""
	if text := m.getenv("DLNODE_FLIP"); text != "" {
		cfg.Flip, err = train.ParseFlip(text)
	}
	return err
}
