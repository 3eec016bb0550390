package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// newRootCommand returns the program as a tree of commands, one file each.
func (m *Main) newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "dlnode",
		Short: "Train neural networks on machines that may die, to the same bits",
		Long: "dlnode trains neural networks on any set of machines. Any of them may die, join or\n" +
			"be cut off at any moment: the model comes out byte for byte as one machine alone\n" +
			"would have made it.",
		SilenceErrors: true, // Run tells them, once
		SilenceUsage:  true,
	}
	root.SetIn(m.Stdin)
	root.SetOut(m.Stdout)
	root.SetErr(m.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		m.newJobCommand(),
		m.newDataCommand(),
		m.newCheckpointCommand(),
		m.newEvalCommand(),
		m.newPredictCommand(),
		m.newRunCommand(),
		m.newDemoCommand(),
		m.newLaunchCommand(),
		m.newStatusCommand(),
		m.newVersionCommand(),
		m.newPlotCommand(),
		m.newReplayCommand(),
		m.newAuditCommand(),
		m.newExplainCommand(),
		m.newBenchCommand(),
	)
	return root
}

// group returns a command that only has commands below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, DisableFlagsInUseLine: true, RunE: func(c *cobra.Command, args []string) error {
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, sub.Name())
		}
		slices.Sort(names)
		path := strings.TrimPrefix(c.CommandPath(), "dlnode ")
		allowed := strings.Join(names, " or ")
		if len(args) > 0 {
			return usage("%s: unknown command %q (want %s)", path, args[0], allowed)
		}
		return usage("%s: which command? (want %s)", path, allowed)
	}}
	c.AddCommand(below...)
	return c
}

// takes lets a command have exactly the arguments that its usage line names.
func takes(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		wanted := strings.Join(names, " ")
		if wanted == "" {
			wanted = "none"
		}
		return fmt.Errorf("%s: got %d argument(s) (want %s)", strings.TrimPrefix(c.CommandPath(), "dlnode "), len(args), wanted)
	}
}
