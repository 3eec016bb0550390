package main

import (
	"bufio"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/cmd/dlnode/internal/runlog"
)

func (m *Main) newExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain RUN",
		Short: "Tell the story of a run: what failed, and what it cost",
		Long: "explain makes one story of the journals of all nodes of a run: who began, was lost, left or\n" +
			"joined, which attempts were made again, checkpoints, the end. Then it adds up how long each\n" +
			"failure kept the run from its next step, what was computed twice, and what each node did.\n" +
			"RUN is a node's directory or that of a launch; the run may go on.",
		Args: takes("RUN"),
		RunE: func(_ *cobra.Command, args []string) error { return m.explain(args[0]) },
	}
}

func (m *Main) explain(dir string) error {
	l, err := m.openLog(dir)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(m.Stdout)
	if err := runlog.Explain(l).Write(w, filepath.Clean(dir)); err != nil {
		return err
	}
	return w.Flush()
}
