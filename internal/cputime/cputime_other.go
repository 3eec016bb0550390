//go:build !unix

// Package cputime tells how much CPU time a process has used.
package cputime

import "time"

// Used is not known here.
func Used() time.Duration { return 0 }
