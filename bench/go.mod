module github.com/dlnode/dlnode/bench

go 1.26.0

require github.com/dlnode/dlnode v0.0.0

require golang.org/x/sys v0.49.0 // indirect

replace github.com/dlnode/dlnode => ..
