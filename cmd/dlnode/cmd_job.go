package main

import (
	"github.com/spf13/cobra"

	"github.com/dlnode/dlnode/job"
)

func (m *Main) newJobCommand() *cobra.Command {
	return group("job", "Look at job files", m.newJobShowCommand())
}

func (m *Main) newJobShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show job.yaml",
		Short: "Print a job with every default written out",
		Args:  takes("job.yaml"),
		RunE: func(_ *cobra.Command, args []string) error {
			j, err := loadJob(args[0])
			if err != nil {
				return err
			}
			return j.Show(m.Stdout)
		},
	}
}

// loadJob reads a job file; what is wrong with it is the user's to mend.
func loadJob(path string) (*job.Job, error) {
	j, err := job.Load(path)
	return j, exit(codeUsage, err)
}
