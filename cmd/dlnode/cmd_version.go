package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/internal/kernel"
	"github.com/dlnode/dlnode/train"
)

func (m *Main) newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Tell which program this is, and how it computes here",
		Long: "version prints the program's version and that of its numerics: nodes train together\n" +
			"if the latter is equal. And it tells which kernels this processor runs; their bits\n" +
			"are the same, their speed is not.",
		Args: takes(),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(m.Stdout, "dlnode %s, %s for %s/%s\nnumerics %d\nkernels: %s\n",
				release(), runtime.Version(), runtime.GOOS, runtime.GOARCH, train.Numerics, kernels())
			return err
		},
	}
}

// release is the version that the go command has stamped on the program.
func release() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// kernels says which kernels are in use, and why if they are not the best there are.
func kernels() string {
	using, all := kernel.Name(), kernel.Variants()
	switch {
	case kernel.Lacks() != "":
		return using + ": " + kernel.Lacks() + ", so products are portable Go, with the same bits, some fifty times slower"
	case using != all[0]:
		return fmt.Sprintf("%s, as DLNODE_CPU says; this processor runs %s", using, strings.Join(all, ", "))
	}
	return fmt.Sprintf("%s, the best of %s", using, strings.Join(all, ", "))
}
